"""Runs an ONNX file in ONNX Runtime exactly as it lies on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from adapters.onnx.load import load_onnx
from adapters.onnx.session import _as_declared
from converter.errors import FormatError
from converter.sizes import check_inputs

Array = np.ndarray[Any, Any]


class OnnxFileSession:
    """`run(inputs) -> {name: array}` through an `onnxruntime.InferenceSession` on the file itself."""

    def __init__(self, path: str | Path) -> None:
        self.model = load_onnx(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise FormatError("ONNX Runtime does not load the file", where=str(path), received=str(error)[:300]) from error

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Raises `RunError` for inputs that do not fit the graph."""
        arrays, _ = check_inputs(self.model.graph, inputs)
        outputs = {item.name: item for item in self.model.graph.outputs}
        names = [item.name for item in self.session.get_outputs()]
        known = {item.name for item in self.session.get_inputs()}
        results = self.session.run(names, {name: array for name, array in arrays.items() if name in known})
        return {name: _as_declared(result, outputs[name].spec.dtype) for name, result in zip(names, results, strict=True)}
