"""Arrays into ONNX Runtime and out again, bfloat16 and the float8 kinds among them, which its NumPy interface lacks."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from adapters.onnx.lowering.context import ONNX_DTYPES
from converter.ir import Array, DType

SILENT = 4
"""The severity that no line of ONNX Runtime's log has: what fails is said by the error, and its log lines hold control characters."""

INEXACT_IN_FLOAT64 = ("MatMulScaleFusion",)
"""Optimizers of ONNX Runtime's that round a float64 model's numbers to float32: this one, the factor of a product."""

SMALL_FLOATS = frozenset(dtype for dtype in DType if dtype is DType.BFLOAT16 or dtype.value.startswith("float8"))
"""The dtypes that NumPy has only through ml_dtypes."""

_BITS = {1: np.uint8, 2: np.uint16}
_OF_ONNX = {ONNX_DTYPES[dtype]: dtype for dtype in SMALL_FLOATS if dtype in ONNX_DTYPES}


def run_session(session: onnxruntime.InferenceSession, names: Sequence[str], arrays: Mapping[str, Array]) -> list[Any]:
    """The outputs `names` of one run: arrays, and lists of arrays for sequences. Raises what ONNX Runtime raises."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = SILENT
    small = {_of_type(item.type) for item in session.get_outputs()} | {DType.of(array.dtype) for array in arrays.values()}
    if SMALL_FLOATS.isdisjoint(small):
        return [result if isinstance(result, list) and all(isinstance(part, np.ndarray) for part in result) else np.asarray(result)
                for result in session.run(list(names), dict(arrays), options)]
    # An OrtValue is a view of an array's memory that does not keep the array alive.
    held = {name: np.array(array, order="C", copy=None) for name, array in arrays.items()}
    feeds = {name: _to_value(array) for name, array in held.items()}
    return [_from_value(value) for value in session.run_with_ort_values(list(names), feeds, options)]


def _of_type(text: str) -> DType | None:
    """`tensor(bfloat16)` as a dtype where it is one of the small floats."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return next((dtype for dtype in SMALL_FLOATS if dtype.value.replace("_", "") == name), None)


def _to_value(array: Array) -> onnxruntime.OrtValue:
    dtype = DType.of(array.dtype)
    if dtype not in SMALL_FLOATS:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    if not array.size:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), ONNX_DTYPES[dtype])
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(_BITS[dtype.itemsize]), ONNX_DTYPES[dtype])


def _from_value(value: onnxruntime.OrtValue) -> Array:
    dtype = _OF_ONNX.get(value.element_type())
    if dtype is None:
        return np.asarray(value.numpy())
    count = value.tensor_size_in_bytes()
    return np.frombuffer(bytearray(ctypes.string_at(value.data_ptr(), count)) if count else bytearray(), dtype.numpy).reshape(value.shape())
