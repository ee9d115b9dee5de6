"""Every row of the operator table through every runner, at the traced sizes and at others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters.numpy.registry import kernels
from adapters.torch.run import run_exported
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
    names = {f"inputs.{position}": [size if isinstance(size, str) else None for size in item.shape]
             for position, item in enumerate(case.inputs)}
    return trace(Wrapper(case.function), inputs, dims=names)


@lru_cache(maxsize=32)
def expected(index: int, variant: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(inputs, torch's own outputs, torch's float64 outputs) by the graph's names."""
    case, program = CASES[index], traced(index)
    arrays = draw(case, sizes_of(case)[variant], variant)
    inputs = {name: array for name, array in zip(program.input_names, arrays, strict=True) if name is not None}
    return inputs, run_exported(program, inputs), run_exported(program, inputs, float_dtype="float64")


def run_reference(model: Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return reference.run(model, inputs)


def run_numpy(model: Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from adapters.numpy.session import NumpySession

    return NumpySession(model).run(inputs)


def run_onnxruntime(model: Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from adapters.onnx.session import OnnxRuntimeSession

    return OnnxRuntimeSession(model).run(inputs)


def run_torch(model: Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from adapters.torch.session import TorchSession

    return TorchSession(model).run(inputs)


def _reloaded(save: str, load: str, suffix: str) -> Callable[[Model, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    def run(model: Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import converter.format as room

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{suffix}"
            getattr(room, save)(model, path)
            return reference.run(getattr(room, load)(path), inputs)

    return run


RUNNERS: dict[str, Callable[[Model, dict[str, np.ndarray]], dict[str, np.ndarray]]] = {
    "reference": run_reference, "numpy": run_numpy, "onnxruntime": run_onnxruntime, "torch": run_torch,
    "json": _reloaded("save_json", "load_json", ".json"), "hdf5": _reloaded("save_hdf5", "load_hdf5", ".h5"),
}
SPARING = {"reference": 0, "json": 1, "hdf5": 1, "torch": 2, "numpy": 2}
"""These runners take the first rows of each operator alone, and the others are marked as long: the reference kernels are tested
in float64 anyway, and the format and the rebuilding see every operator. NumPy takes all rows of those that it has kernels for."""


def rows() -> list[Any]:
    return [pytest.param(index, id=label(case), marks=pytest.mark.xdist_group(f"case{index}")) for index, case in enumerate(CASES)]


def runs() -> list[Any]:
    """(row, runner), a row's runs together: they share its trace."""
    seen: dict[str, int] = {}
    found = []
    for index, case in enumerate(CASES):
        position = seen[case.operator] = seen.get(case.operator, -1) + 1
        for runner in RUNNERS:
            fast = runner == "numpy" and case.operator in kernels()
            long = position >= SPARING.get(runner, len(CASES)) and runner not in case.xfail and not fast
            marks = [pytest.mark.xdist_group(f"case{index}"), *([pytest.mark.long] if long else [])]
            found.append(pytest.param(index, runner, id=f"{label(case)}-{runner}", marks=marks))
    return found


def test_labels_are_unique() -> None:
    labels = [label(case) for case in CASES]
    assert sorted(labels) == sorted(set(labels))


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
    for variant in range(len(sizes_of(case))):
        inputs, own, truth = expected(index, variant)
        outputs = RUNNERS[runner](program.model, inputs)
        assert list(outputs) == list(own)
        for name, wanted in truth.items():
            verdict = compare(outputs[name], wanted, own[name])
            assert verdict, f"{runner}, sizes {sizes_of(case)[variant]}, output {name!r}: {verdict.reason}"
