"""Every row of the operator table through every runner, at the traced sizes and at others."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import converter
from adapters.numpy.registry import kernels
from adapters.torch.run import run_exported
from adapters.torch.tracing.inputs import Unnamed
from adapters.torch.tracing.trace import Program, trace
from converter import reference
from converter.equivalence.compare import STRUCTURE, compare
from converter.ir import Model
from tests.op_cases import Case, all_cases

CASES = all_cases()
SIZES = ({"batch": 3, "time": 5, "length": 7, "height": 8, "width": 9}, {"batch": 1, "time": 8, "length": 4, "height": 11, "width": 7},
         {"batch": 4, "time": 1, "length": 9, "height": 8, "width": 13})


class Wrapper(torch.nn.Module):
    """A function as a module with one named argument an input."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def label(case: Case) -> str:
    return f"{case.operator}-{case.name or 'plain'}"


def sizes_of(case: Case) -> tuple[dict[str, int], ...]:
    return tuple({**SIZES[0], **sizes} for sizes in case.sizes) if case.sizes else SIZES


def draw(case: Case, sizes: dict[str, int], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng([seed, 7])
    return [item.make(generator, tuple(sizes[size] if isinstance(size, str) else size for size in item.shape)) for item in case.inputs]


@lru_cache(maxsize=8)
def traced(index: int) -> Program:
    case = CASES[index]
    torch.manual_seed(0)
    inputs = [torch.from_numpy(array) for array in draw(case, sizes_of(case)[0], 0)]
    # Nobody asks for these sizes: a row may say by its sizes that its operator does not take all.
    names = {f"inputs.{position}": [Unnamed(size) if isinstance(size, str) else None for size in item.shape]
             for position, item in enumerate(case.inputs)}
    return trace(Wrapper(case.function), inputs, dims=names)


@lru_cache(maxsize=32)
def expected(index: int, variant: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(inputs, torch's own outputs, torch's float64 outputs) by the graph's names."""
    case, program = CASES[index], traced(index)
    arrays = draw(case, sizes_of(case)[variant], variant)
    inputs = {name: array for name, array in zip(program.input_names, arrays, strict=True) if name is not None}
    return inputs, run_exported(program, inputs), run_exported(program, inputs, float_dtype="float64")


Arrays = dict[str, np.ndarray]
Runner = Callable[[Model, list[Arrays]], list[Arrays]]
"""Runs a model, made ready once, on inputs of several sizes."""


def run_reference(model: Model, inputs: list[Arrays]) -> list[Arrays]:
    return [reference.run(model, item) for item in inputs]


def run_session(runtime: str) -> Runner:
    def run(model: Model, inputs: list[Arrays]) -> list[Arrays]:
        session = converter.session(model, runtime)
        return [session.run(item) for item in inputs]

    return run


def run_reloaded(suffix: str) -> Runner:
    def run(model: Model, inputs: list[Arrays]) -> list[Arrays]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{suffix}"
            converter.save(model, path)
            return run_reference(converter.load(path), inputs)

    return run


RUNNERS: dict[str, Runner] = {
    "reference": run_reference, "numpy": run_session("numpy"), "onnxruntime": run_session("onnxruntime"), "torch": run_session("torch"),
    "json": run_reloaded(".json"), "hdf5": run_reloaded(".h5"),
}
ROWS = 5
SPARING = {"reference": 0, "json": 1, "hdf5": 1, "torch": 2, "numpy": 2}
"""The first rows of each operator, and of these the first that a runner takes; all others are marked as long: the reference kernels are
tested in float64 anyway, and the format and the rebuilding see every operator. NumPy takes all of those that it has kernels for."""


def of_row(index: int, *further: Any, id: str, long: bool = False) -> Any:
    """A test's parameters, the row's index first. All tests of one row run in one process, where they share its trace."""
    return pytest.param(index, *further, id=id, marks=[pytest.mark.xdist_group(f"case{index}"), *([pytest.mark.long] if long else [])])


def places() -> list[int]:
    """The position of each row among those of its operator."""
    seen: Counter[str] = Counter()
    found = []
    for case in CASES:
        found.append(seen[case.operator])
        seen[case.operator] += 1
    return found


def rows() -> list[Any]:
    return [of_row(index, id=label(case), long=place >= ROWS) for index, (case, place) in enumerate(zip(CASES, places(), strict=True))]


def runs() -> list[Any]:
    """(row, runner), a row's runs together."""
    found = []
    for index, (case, place) in enumerate(zip(CASES, places(), strict=True)):
        for runner in RUNNERS:
            most = ROWS if runner == "numpy" and case.operator in kernels() else SPARING.get(runner, ROWS)
            found.append(of_row(index, runner, id=f"{label(case)}-{runner}", long=place >= most and runner not in case.xfail))
    return found


def test_labels_are_unique() -> None:
    labels = [label(case) for case in CASES]
    assert sorted(labels) == sorted(set(labels))


REACHED: list[int] = []


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("position", range(4))
def test_a_group_runs_in_one_process(position: int) -> None:
    """Where groups are dropped, every row is traced in each process."""
    REACHED.append(position)
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert list(range(position + 1)) == REACHED


@pytest.mark.parametrize("index", rows())
def test_structure(index: int) -> None:
    """The graph holds the row's operator, and in float64 it agrees with PyTorch at every size."""
    case, program = CASES[index], traced(index)
    assert case.operator in {node.op for node in program.model.graph.nodes}
    for variant in range(len(sizes_of(case))):
        inputs, _, truth = expected(index, variant)
        outputs = reference.run(program.model, inputs, float_dtype="float64")
        assert outputs.keys() == truth.keys()
        for name, wanted in truth.items():
            assert outputs[name].shape == wanted.shape
            assert outputs[name].dtype == wanted.dtype
            scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))) if wanted.dtype.kind in "fc" else 1.0
            np.testing.assert_allclose(outputs[name], wanted, rtol=STRUCTURE, atol=STRUCTURE * scale)


@pytest.mark.parametrize(("index", "runner"), runs())
def test_rounding(index: int, runner: str, request: pytest.FixtureRequest) -> None:
    """In the model's own dtypes each runner stays within the budget that PyTorch's run sets."""
    case, program = CASES[index], traced(index)
    if runner in case.xfail:
        request.applymarker(pytest.mark.xfail(reason=case.xfail[runner], strict=True))
    wanted_at = [expected(index, variant) for variant in range(len(sizes_of(case)))]
    outputs_at = RUNNERS[runner](program.model, [inputs for inputs, _, _ in wanted_at])
    for sizes, (_, own, truth), outputs in zip(sizes_of(case), wanted_at, outputs_at, strict=True):
        assert list(outputs) == list(own)
        for name, wanted in truth.items():
            verdict = compare(outputs[name], wanted, own[name])
            assert verdict, f"{runner}, sizes {sizes}, output {name!r}: {verdict.reason}"
