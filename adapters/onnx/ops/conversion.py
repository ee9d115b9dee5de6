"""Conversion between dtypes."""

from __future__ import annotations

from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.registry import lowers
from converter.ir import DType, TensorSpec


@lowers("astype")
def astype(g: Lowering, x: Tensor, *, dtype: DType) -> Tensor:
    if x.dtype.is_complex or dtype.is_complex:
        raise g.refuse("ONNX has no complex arithmetic")
    if x.dtype.is_float and dtype.is_integer and dtype.itemsize < 8:
        # As the operator says: through int64, wrapping around.
        x = g.cast(x, DType.INT64)
    if dtype.value.startswith("float8") and x.dtype is not dtype:
        return g.node("Cast", x, spec=TensorSpec(dtype, x.shape), to=g.onnx_dtype(dtype), saturate=0)
    return g.cast(x, dtype)
