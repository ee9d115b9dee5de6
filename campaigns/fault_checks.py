"""One faulty model in the hands of each checker, and how far the fault moves the outputs, measured apart from all of them.

What a fault does is measured in float64, on the inputs that `verify` draws: PyTorch's outputs of the honest model against
the reference's of the faulty one. It is *plain* where anything but the size of a float differs (a name, their order, a
shape, a dtype, an integer, a NaN, a case that cannot run); else it has a size, the largest |difference| / max(|true|, rms).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from torch.onnx import ONNXProgram
from torch.onnx.verification import verify_onnx_program

from adapters.onnx.export import build
from adapters.onnx.feeding import run_session
from adapters.onnx.session import OnnxRuntimeSession
from adapters.onnx.writing import write_model
from adapters.torch.run import ProgramSource
from adapters.torch.tracing.trace import Program
from campaigns.fault_edits import Subject
from converter.checking import check
from converter.equivalence import generate, verify
from converter.equivalence.compare import FACTOR, STRUCTURE, floor_of
from converter.equivalence.compare import eps_of as eps_of_dtype
from converter.errors import ConverterError, UnsupportedError
from converter.ir import Example, Model
from converter.reference import run
from converter.sizes import bind

Arrays = Mapping[str, np.ndarray[Any, Any]]

ABSOLUTE, RELATIVE = 5e-3, 1e-1
"""What torch.onnx.export(verify=True) warns at: torch 2.13, torch/onnx/_internal/exporter/_core.py, step 6."""

DETECTED, WITHIN, MISSED = "detected", "within rounding", "missed"


@dataclass
class Effect:
    """What a fault does. `plain` says how it shows without any measuring, or is empty; `size` is relative, in float64."""

    plain: str
    size: float


class Honest:
    """A traced module: the side that is right. Its model carries two recorded examples, as torch-to-json records them."""

    def __init__(self, name: str, program: Program, seed: int = 0) -> None:
        self.name, self.program, self.seed = name, program, seed
        self.source = ProgramSource(program)
        self.drawn = [inputs for inputs in generate(program.model.graph, program.model.parameters, seed) if self._runs(inputs)]
        recorded = [self.traced_inputs(), *self.drawn[2:3]]
        self.model = replace(program.model, examples=tuple(
            Example(inputs, self.source.run(inputs), f"torch {torch.__version__}") for inputs in recorded))
        self.inputs = [*recorded, *self.drawn]
        self.recorded = tuple(range(len(recorded)))

    def _runs(self, inputs: Arrays) -> bool:
        try:
            self.source.run(inputs)
        except Exception:  # a traced program raises anything, from any depth
            return False
        return True

    def traced_inputs(self) -> Arrays:
        """Inputs of the sizes that the module was traced at."""
        return {port.name: array for port, array in zip(self.model_inputs, self._traced, strict=True)}

    @property
    def options(self) -> dict[str, Any]:
        """What `verify` is told beside its subjects: the seed, and the inputs that the module was traced with, which torch is given too."""
        return {"seed": self.seed, "inputs": self.traced_inputs(), "locate": False}

    @property
    def model_inputs(self) -> tuple[Any, ...]:
        return self.program.model.graph.inputs

    @cached_property
    def _traced(self) -> list[np.ndarray[Any, Any]]:
        from adapters.torch.dtypes import to_numpy

        args, kwargs = self.program.exported.example_inputs
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        found = {name: np.array(to_numpy(leaf)) for name, leaf in zip(self.program.input_names, leaves, strict=True) if name is not None}
        return [found[port.name] for port in self.model_inputs]

    @cached_property
    def truths(self) -> list[Arrays]:
        return [self.source.run(inputs, float_dtype="float64") for inputs in self.inputs]

    @cached_property
    def ours(self) -> list[Arrays]:
        """The reference's float64 outputs of the honest model: what it chooses where values tie is no fault's doing."""
        return [run(self.model, inputs, float_dtype="float64") for inputs in self.inputs]

    @cached_property
    def rounding(self) -> float:
        """PyTorch's own largest error, in ulps of max(|true|, rms); 0 where no output is a float."""
        worst = 0.0
        for inputs, truth in zip(self.inputs, self.truths, strict=True):
            own = self.source.run(inputs)
            for name, wanted in truth.items():
                if own[name].dtype.kind in "fcV" and wanted.size:
                    error = difference(own[name].astype(wanted.dtype), wanted)
                    worst = max(worst, error / eps_of(own[name]) if math.isfinite(error) else 0.0)
        return worst

    @cached_property
    def coarsest(self) -> np.dtype[Any] | None:
        """The dtype with the widest eps of the float outputs; None where there is none."""
        dtypes = [port.spec.dtype.numpy for port in self.model.graph.outputs if port.spec.dtype.numpy.kind in "fcV"]
        return max(dtypes, key=eps_of_dtype, default=None)

    @cached_property
    def subject(self) -> Subject:
        sizes: dict[str, int] = {}
        for port, array in zip(self.model_inputs, self._traced, strict=True):
            bind(port.spec, array.shape, sizes)
        return Subject(self.model, sizes, check(self.model.graph, self.model.parameters))


def eps_of(array: np.ndarray[Any, Any]) -> float:
    return eps_of_dtype(array.dtype)


def difference(actual: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> float:
    """The largest |difference| / max(|true|, rms); infinite where one is not finite and the other is, or another infinity."""
    with np.errstate(all="ignore"):
        same = (actual == wanted) | (np.isnan(actual) & np.isnan(wanted))
        gap = np.where(same, 0.0, np.abs(actual - wanted))
        if not np.all(np.isfinite(gap)):
            return math.inf
        magnitude = np.where(np.isfinite(wanted), np.abs(wanted), 0.0)
        scale = np.maximum(magnitude, max(float(np.sqrt(np.mean(np.square(magnitude)))), float(np.finfo(np.float32).tiny)))
        return float(np.max(gap / scale, initial=0.0))


def effect(honest: Honest, faulty: Model, cases: Sequence[int] | None = None) -> Effect:
    """What the fault does, on all cases, or on some of them, whose outputs go by their names in any order."""
    ours, theirs = honest.model.graph, faulty.graph
    size = 0.0
    names, wanted_names = ([port.name for port in graph.outputs] for graph in (theirs, ours))
    if names != wanted_names and (cases is None or sorted(names) != sorted(wanted_names)):
        return Effect("other outputs, or in another order", math.inf)
    declared = {port.name: port for port in ours.outputs}
    for port in theirs.outputs:
        wanted_port = declared[port.name]
        if port.spec.dtype is not wanted_port.spec.dtype:
            return Effect(f"{port.name} is {port.spec.dtype}", math.inf)
    for index, (inputs, truth, own) in enumerate(zip(honest.inputs, honest.truths, honest.ours, strict=True)):
        if cases is not None and index not in cases:
            continue
        try:
            outputs = run(faulty, inputs, float_dtype="float64")
        except ConverterError:
            return Effect("cannot run what the module runs", math.inf)
        for name, wanted in truth.items():
            found = outputs[name]
            if found.shape != wanted.shape or found.dtype != wanted.dtype:
                return Effect(f"{name} is {found.dtype}{list(found.shape)}", math.inf)
            if wanted.dtype.kind in "biu":
                if not np.all((found == wanted) | (found == own[name])):
                    return Effect(f"{name} has other integers", math.inf)
                continue
            size = max(size, difference(found, wanted))
            if math.isinf(size):
                return Effect(f"{name} is not finite in the same places", math.inf)
    return Effect("", size)


# Checkers -----------------------------------------------------------------------------------------------------------------


class ComputedOnly:
    """The source with the faulty parameters in its model: they are then not compared bit by bit, only what is computed."""

    def __init__(self, source: ProgramSource, faulty: Model) -> None:
        self.source, self.versions = source, source.versions
        self.model = source.model.with_parameters(faulty.parameters)

    def run(self, inputs: Arrays, float_dtype: Any = None) -> Arrays:
        return self.source.run(inputs, float_dtype)


def beside_module(honest: Honest, faulty: Model) -> bool:
    """`convert verify model.json --source weights.pt --module …`: whether it alarms."""
    return not verify(replace(faulty, examples=()), ["numpy"], source=honest.source, **honest.options)


def by_computation(honest: Honest, faulty: Model) -> bool:
    """The same without comparing parameters: what is computed, in float64 and in float32."""
    return not verify(replace(faulty, examples=()), ["numpy"], source=ComputedOnly(honest.source, faulty), **honest.options)


def by_recording(honest: Honest, faulty: Model) -> bool:
    """`convert verify model.json`, where PyTorch is not installed: the recorded outputs of the honest model."""
    return not verify(replace(faulty, examples=honest.model.examples), ["numpy"], seed=honest.seed, locate=False)


def by_file(honest: Honest, faulty: Model) -> bool:
    """`convert verify model.json faulty.onnx --module …`, the ONNX file as it lies, from anyone: ONNX Runtime's float32 outputs."""
    return not verify(honest.program.model, {"file": FileSession(faulty)}, source=honest.source, **honest.options)


def onnx_of(model: Model) -> onnx.ModelProto:
    proto, lowering = build(model)
    buffer = io.BytesIO()
    write_model(buffer, proto, lowering)
    return onnx.load_from_string(buffer.getvalue())


class FileSession(OnnxRuntimeSession):
    """An ONNX file without the model it came from: what it is fed is not checked, and it gives what it gives."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        names = [item.name for item in self.session.get_outputs()]
        taken = {item.name for item in self.session.get_inputs()}
        feeds = {name: array for name, array in inputs.items() if name in taken}
        return dict(zip(names, run_session(self.session, names, feeds), strict=True))


def by_torch(honest: Honest, faulty: Model) -> bool:
    """torch.onnx.export(verify=True) on the faulty model's ONNX file and the honest exported program: whether it warns or fails."""
    program = ONNXProgram(onnx_ir.serde.deserialize_model(onnx_of(faulty)), honest.program.exported)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            found = verify_onnx_program(program)
    finally:
        logging.disable(level)
    return any(item.max_abs_diff >= ABSOLUTE or item.max_rel_diff >= RELATIVE for item in found)


CHECKERS: Mapping[str, Callable[[Honest, Model], bool]] = {
    "module": beside_module, "computed": by_computation, "recorded": by_recording, "file": by_file, "torch": by_torch,
}


def bound_of(honest: Honest, checker: str) -> float:
    """How far, relative to max(|true|, rms), a fault may move the outputs and be within what the checker's arithmetic rounds."""
    if checker in ("module", "computed"):
        return STRUCTURE + 1024 * float(np.finfo(np.float64).eps) * max(1.0, honest.rounding)
    dtype = honest.coarsest
    return 0.0 if dtype is None else eps_of_dtype(dtype) * (floor_of(dtype) + (FACTOR + 1) * honest.rounding)


def judged(honest: Honest, faulty: Model, checkers: Collection[str] = tuple(CHECKERS)) -> dict[str, Any]:
    """The checkers' verdicts on a fault, and what the fault does."""
    found = effect(honest, faulty)
    kept = effect(honest, faulty, honest.recorded)
    # An ONNX file holds no ranges of its sizes.
    ranges = {name: honest.model.graph.dims.get(name, span) for name, span in faulty.graph.dims.items()}
    unbounded = found if ranges == faulty.graph.dims else effect(honest, replace(faulty, graph=replace(faulty.graph, dims=ranges)))
    result: dict[str, Any] = {"effect": found.plain or found.size, "recorded effect": kept.plain or kept.size, "rounding": honest.rounding}
    for name in checkers:
        checker = CHECKERS[name]
        shown = kept if name == "recorded" else unbounded if name in ("file", "torch") else found
        try:
            alarm = checker(honest, faulty)
        except UnsupportedError:
            continue  # the fault cannot be written as an ONNX file
        except Exception as error:  # whatever a runtime raises: an exit code other than 0
            alarm = True
            result[f"{name} raised"] = f"{type(error).__name__}: {str(error)[:200]}"
        result[name] = DETECTED if alarm else WITHIN if not shown.plain and shown.size <= bound_of(honest, name) else MISSED
    return result
