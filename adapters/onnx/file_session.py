"""Runs an ONNX file in ONNX Runtime exactly as it lies on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from adapters.onnx.session import _as_declared
from converter.errors import FormatError, RunError
from converter.ir import DType

Array = np.ndarray[Any, Any]

DTYPES = {"tensor(bfloat16)": DType.BFLOAT16, "tensor(float8e4m3fn)": DType.FLOAT8_E4M3FN, "tensor(float8e5m2)": DType.FLOAT8_E5M2,
          "tensor(float8e4m3fnuz)": DType.FLOAT8_E4M3FNUZ, "tensor(float8e5m2fnuz)": DType.FLOAT8_E5M2FNUZ}
"""ONNX Runtime's names of the element types that NumPy lacks."""


class OnnxFileSession:
    """`run(inputs) -> {name: array}` through an `onnxruntime.InferenceSession` on the file itself, whoever wrote it.

    Raises `FormatError` when ONNX Runtime does not load the file.
    """

    def __init__(self, path: str | Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.path = path
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise FormatError("ONNX Runtime does not load the file", where=str(path), received=str(error)[:300]) from error
        self.inputs = {item.name for item in self.session.get_inputs()}
        self.outputs = {item.name: DTYPES.get(item.type) for item in self.session.get_outputs()}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The file's outputs by its own names. Inputs that the file does not have are left out.

        Raises `RunError` for inputs that do not fit.
        """
        arrays = {name: np.asarray(array) for name, array in inputs.items() if name in self.inputs}
        try:
            results = self.session.run(list(self.outputs), arrays)
        except Exception as error:  # as above
            raise RunError("ONNX Runtime does not run the file on these inputs", where=str(self.path), received=str(error)[:300],
                           expected=", ".join(sorted(self.inputs))) from error
        return {name: np.asarray(result) if dtype is None else _as_declared(result, dtype)
                for (name, dtype), result in zip(self.outputs.items(), results, strict=True)}
