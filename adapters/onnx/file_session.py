"""Runs an ONNX file in ONNX Runtime exactly as it lies on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from adapters.onnx.feeding import INEXACT_IN_FLOAT64, run_session
from converter.errors import FormatError, RunError

Array = np.ndarray[Any, Any]


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
            if any(item.type == "tensor(double)" for item in (*self.session.get_inputs(), *self.session.get_outputs())):
                self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"],
                                                            disabled_optimizers=list(INEXACT_IN_FLOAT64))
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise FormatError("ONNX Runtime does not load the file", where=str(path), received=str(error)[:300]) from error
        self.inputs = [item.name for item in self.session.get_inputs()]
        self.outputs = [item.name for item in self.session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The file's outputs by its own names. Inputs that the file does not have are left out.

        Raises `RunError` for inputs that do not fit.
        """
        arrays = {name: np.asarray(array) for name, array in inputs.items() if name in self.inputs}
        try:
            results = run_session(self.session, self.outputs, arrays)
        except Exception as error:  # as above
            raise RunError("ONNX Runtime does not run the file on these inputs", where=str(self.path), received=str(error)[:300],
                           expected=", ".join(sorted(self.inputs))) from error
        return {name: as_scores(result) for name, result in zip(self.outputs, results, strict=True)}


def as_scores(result: Any) -> Any:
    """A list of maps from labels to scores as scores [rows, classes], in the ascending order of the labels; anything else as it is."""
    if not isinstance(result, np.ndarray) or result.dtype != object or not all(isinstance(row, dict) for row in result):
        return result
    return np.array([[row[label] for label in sorted(row)] for row in result], np.float32)
