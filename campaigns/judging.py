"""Whether one architecture converts, and computes the same: the live module at several sizes is the truth."""

from __future__ import annotations

import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import converter
from adapters.onnx.export import build
from adapters.torch.dtypes import TO_TORCH, from_torch_dtype, to_numpy
from adapters.torch.tracing.inputs import bind_arguments
from adapters.torch.tracing.trace import Program, trace
from benchmarks.exporter import Outcome, count_nodes
from campaigns.architectures import Architecture, Sizes
from converter.errors import ConverterError, RunError, UnsupportedError
from converter.ir import DType, Model
from converter.sizes import check_inputs, promote

Arrays = dict[str, np.ndarray[Any, Any]]

PASS, REFUSED, WRONG = "pass", "refused", "wrong"
RUNTIMES = ("numpy", "onnxruntime")


@dataclass
class Verdict:
    """What came of one architecture. `frozen` are the sizes that could not be run, each with the reason.

    `nodes` counts those of the neutral graph, `onnx_nodes` those of its ONNX form; `exporter` is the exporter's outcome;
    `seconds` the processor time of the trace.
    """

    name: str
    dims: str
    status: str
    reason: str = ""
    frozen: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    nodes: int = 0
    onnx_nodes: int = 0
    seconds: float = 0.0
    sizes: int = 0
    exporter: Outcome | None = None


def _promoted(item: Any) -> Any:
    return TO_TORCH[promote(from_torch_dtype(item), DType.FLOAT64)] if isinstance(item, torch.dtype) else item


class _Promoting(TorchDispatchMode):
    """Turns each dtype that the module's code names into its counterpart in float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = pytree.tree_map(_promoted, (args, kwargs or {}))
        return func(*args, **kwargs)


class _PromotingFactories(TorchFunctionMode):
    """The same for tensors made of numbers, which no dispatch sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and "dtype" in kwargs:
            kwargs["dtype"] = _promoted(kwargs["dtype"])
        return func(*args, **kwargs)


class LiveSource:
    """A live module as the source of `converter.verify`, which run again at every size: no trace stands between."""

    def __init__(self, module: torch.nn.Module, program: Program, cases: Sequence[Mapping[str, Any]]) -> None:
        self.module, self.program = module, program
        self.double = _in_float64(module)
        self.calls = {self._key(self.arrays(case)): case for case in cases}
        self.versions = {"torch": str(torch.__version__)}

    def arrays(self, arguments: Mapping[str, Any]) -> Arrays:
        """Arguments of `forward` as the graph's inputs."""
        leaves = pytree.tree_leaves(bind_arguments(self.module, [], arguments))
        return {name: np.array(to_numpy(leaf)) for name, leaf in zip(self.program.input_names, leaves, strict=True) if name is not None}

    @staticmethod
    def _key(arrays: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple((name, array.shape, array.astype(np.float64).tobytes()) for name, array in arrays.items())

    def run(self, inputs: Mapping[str, Any], float_dtype: Any = None) -> Arrays:
        arguments = self.calls[self._key(inputs)]
        fresh = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, dict(arguments))
        with torch.no_grad(), quiet():
            if float_dtype is None:
                result = self.module(**fresh)
            else:
                fresh = pytree.tree_map(
                    lambda leaf: leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf, fresh)
                torch.set_default_dtype(torch.float64)
                try:
                    with _PromotingFactories(), _Promoting():
                        result = self.double(**fresh)
                finally:
                    torch.set_default_dtype(torch.float32)
        values = pytree.tree_leaves(result)
        names = self.program.output_names
        if len(values) != len(names):
            raise RunError("the module's outputs are not those of its trace", expected=str(names), received=str(len(values)))
        return {name: np.array(to_numpy(value if isinstance(value, torch.Tensor) else torch.tensor(value)))
                for name, value in zip(names, values, strict=True) if name is not None}


def _in_float64(module: torch.nn.Module) -> torch.nn.Module:
    """A copy in float64. Grouped products have no float64 kernel: experts are then computed one by one."""
    double = copy.deepcopy(module).double()
    for part in double.modules():
        if getattr(getattr(part, "config", None), "_experts_implementation", None) is not None:
            part.config._experts_implementation = "eager"  # type: ignore[union-attr]
    return double


@contextmanager
def quiet() -> Iterator[None]:
    """Without what models and the tracer say of themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def judge(subject: Architecture, dims: str = "auto", runtimes: Sequence[str] = RUNTIMES, through_file: bool = True) -> Verdict:
    """Converts an architecture, and compares it with the live module at the traced size and at others.

    Truth is the live module in float64: the reference in float64 must agree to 1e-9, and each runtime in float32 within
    the budget that the live module's own float32 run sets.
    """
    verdict = Verdict(subject.name, dims, REFUSED)
    module = subject.build()
    start = time.process_time()
    try:
        with quiet():
            program = trace(module, kwargs=subject.arguments(subject.traced), dims=dims)
    except UnsupportedError as error:
        verdict.reason = reason_of(error)
        return verdict
    except ConverterError as error:
        verdict.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        return verdict
    verdict.seconds = time.process_time() - start
    model = _through_file(program.model) if through_file else program.model
    verdict.nodes, verdict.notes = len(model.graph.nodes), program.notes
    cases = [subject.traced] if dims == "static" else [subject.traced, *subject.others]
    source = LiveSource(module, program, [subject.arguments(sizes) for sizes in cases])
    taken: list[Arrays] = []
    for sizes in cases:
        try:
            arrays = source.arrays(subject.arguments(sizes))
            check_inputs(model.graph, arrays)
            taken.append(arrays)
        except RunError as error:
            verdict.frozen.append(f"{_short(sizes)}: {first_sentence(error)}")
    verdict.sizes = len(taken)
    if not taken:
        verdict.reason = "takes none of the sizes, not even the traced one"
        verdict.status = WRONG
        return verdict
    if "onnxruntime" in runtimes:
        verdict.onnx_nodes = _onnx_nodes(model)
    with quiet():
        report = converter.verify(model, runtimes=list(runtimes), source=source, inputs=taken, cases=0)
    failing = [row for row in report.rows if not row.passed]
    verdict.status = PASS if report else WRONG
    if failing:
        verdict.reason = "; ".join(dict.fromkeys(f"{row.subject}/{row.output} {row.case}: {row.reason}" for row in failing[:3]))[:600]
    return verdict


def _onnx_nodes(model: Model) -> int:
    """The nodes of a model's ONNX form; 0 where it has none."""
    try:
        return count_nodes(build(model)[0])
    except ConverterError:
        return 0


def _through_file(model: Model) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        converter.save(model, path, encoding="base64")
        return converter.load(path)


def reason_of(error: UnsupportedError) -> str:
    """The operators that are missing, or what the tracer said."""
    if error.items:
        return "; ".join(dict.fromkeys(f"{item['operator']}: {item['reason']} ({item.get('source')})" for item in error.items))[:600]
    return " ".join(str(error).split())[:600]


def first_sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _short(sizes: Sizes) -> str:
    return str(sizes)
