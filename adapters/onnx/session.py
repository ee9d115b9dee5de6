"""Runs a neutral model in ONNX Runtime."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from adapters.onnx.export import DEFAULT_OPSET, build
from adapters.onnx.feeding import INEXACT_IN_FLOAT64, SILENT, run_session
from adapters.onnx.lowering.border import from_border, to_border
from adapters.onnx.writing import total_bytes, write_external, write_model
from converter.errors import ConverterError, MissingDependencyError, RunError, UnsupportedError
from converter.footprint import check_memory
from converter.ir import Array, DType, Model
from converter.sizes import check_inputs

IN_MEMORY = 64 << 20


class OnnxRuntimeSession:
    """`run(inputs) -> {name: array}` through an `onnxruntime.InferenceSession` on the model's ONNX form."""

    def __init__(self, model: Model, *, opset: int = DEFAULT_OPSET, providers: Sequence[str] = ("CPUExecutionProvider",),
                 threads: int | None = None) -> None:
        """Raises `MissingDependencyError` for a provider that is not there: ONNX Runtime itself would take the CPU without a word;
        `UnsupportedError` for a model that has no ONNX form, or one that ONNX Runtime has no kernels for."""
        check_providers(providers, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        if threads is not None:
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.model = model
        try:
            self.session = _open(model, opset, options, list(providers))
        except (ConverterError, OSError, MemoryError):
            raise
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise UnsupportedError("ONNX Runtime does not take the model's ONNX form", where=f"graph {model.graph.name!r}",
                                   received=str(error)[:300], fix="run the model with NumPy") from error
        check_providers(providers, self.session.get_providers())

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Raises `RunError` for inputs that do not fit the graph, and for values that do not fit in memory."""
        arrays, sizes = check_inputs(self.model.graph, inputs)
        check_memory(self.model, sizes)
        names = [output.name for output in self.model.graph.outputs]
        read = {item.name for item in self.session.get_inputs()}
        try:
            feeds = to_border({name: array for name, array in arrays.items() if name in read})
            results = run_session(self.session, names, feeds)
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise RunError("ONNX Runtime does not run the model on these inputs", where=f"graph {self.model.graph.name!r}",
                           received=str(error)[:600]) from error
        return {name: from_border(result, output.spec.dtype)
                for name, result, output in zip(names, results, self.model.graph.outputs, strict=True)}


def check_providers(wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raises `MissingDependencyError` for an execution provider that is not there, or could not be started."""
    for name in wanted:
        if name not in there:
            raise MissingDependencyError(f"ONNX Runtime cannot use {name}", expected=", ".join(there), received=name,
                                         fix="install the onnxruntime package that has the provider, and what it needs")


def _open(model: Model, opset: int, options: onnxruntime.SessionOptions, providers: list[str]) -> onnxruntime.InferenceSession:
    """Small models go over as bytes; large ones through a file whose values ONNX Runtime maps."""
    proto, lowering = build(model, opset)
    lowering.unread.clear()  # no run needs them
    is_wide = any(spec.dtype in (DType.FLOAT64, DType.COMPLEX128) for spec in lowering.specs.values())
    disabled = list(INEXACT_IN_FLOAT64) if is_wide else None
    if total_bytes(lowering) <= IN_MEMORY:
        buffer = io.BytesIO()
        write_model(buffer, proto, lowering)
        return onnxruntime.InferenceSession(buffer.getvalue(), options, providers=providers, disabled_optimizers=disabled)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        values = path.with_name("model.data")
        with open(path, "wb") as file, open(values, "wb") as data:
            write_external(file, data, lambda _: values.name, proto, lowering)
        return onnxruntime.InferenceSession(str(path), options, providers=providers, disabled_optimizers=disabled)
