"""Runs a neutral model in ONNX Runtime."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from adapters.onnx.export import DEFAULT_OPSET, build, save_onnx
from adapters.onnx.writing import total_bytes, write_model
from converter.ir import DType, Model
from converter.sizes import check_inputs

Array = np.ndarray[Any, Any]
IN_MEMORY = 64 << 20


class OnnxRuntimeSession:
    """`run(inputs) -> {name: array}` through an `onnxruntime.InferenceSession` on the model's ONNX form."""

    def __init__(self, model: Model, *, opset: int = DEFAULT_OPSET, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.model = model
        self.session = _open(model, opset, options, list(providers))

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Raises `RunError` for inputs that do not fit the graph."""
        arrays, _ = check_inputs(self.model.graph, inputs)
        names = [output.name for output in self.model.graph.outputs]
        plain = {name: array for name, array in arrays.items() if name in {item.name for item in self.session.get_inputs()}}
        results = self.session.run(names, plain)
        return {name: _as_declared(result, output.spec.dtype) for name, result, output in
                zip(names, results, self.model.graph.outputs, strict=True)}


def _as_declared(result: Array, dtype: DType) -> Array:
    """bfloat16 and the float8 kinds come out of ONNX Runtime as their bits."""
    result = np.asarray(result)
    if result.dtype != dtype.numpy and result.dtype.itemsize == dtype.itemsize and result.dtype.kind in "uV":
        return result.view(dtype.numpy)
    return result


def _open(model: Model, opset: int, options: onnxruntime.SessionOptions, providers: list[str]) -> onnxruntime.InferenceSession:
    """Small models go over as bytes; large ones through a file whose values ONNX Runtime maps."""
    proto, lowering = build(model, opset)
    if total_bytes(lowering) <= IN_MEMORY:
        buffer = io.BytesIO()
        write_model(buffer, proto, lowering)
        return onnxruntime.InferenceSession(buffer.getvalue(), options, providers=providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(model, path, opset=opset, external=True)
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
