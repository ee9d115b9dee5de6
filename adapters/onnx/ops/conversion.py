"""Conversion between dtypes."""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.registry import lowers
from converter.dims import Dim
from converter.ir import DType, TensorSpec


@lowers("astype")
def astype(g: Lowering, x: Tensor, *, dtype: DType) -> Tensor:
    if x.dtype.is_float and dtype.is_integer and dtype.itemsize < 8:
        # As the operator says: through int64, wrapping around.
        x = g.cast(x, DType.INT64)
    if dtype.bits < 8 and dtype.is_integer and x.dtype is not dtype:
        return _wrapped(g, g.cast(x, DType.INT64), dtype)
    if dtype.value.startswith("float8") and x.dtype is not dtype:
        return g.node("Cast", x, spec=TensorSpec(dtype, x.shape), to=g.onnx_dtype(dtype), saturate=0)
    return g.cast(x, dtype)


def _wrapped(g: Lowering, x: Tensor, dtype: DType) -> Tensor:
    """int64 cut to fewer than 8 bits: the remainder by 2^bits, from the dtype's lowest number on."""
    low = g.constant(dtype.limits[0])
    found = g.node("Mod", g.node("Sub", x, low, spec=x.spec), g.constant(1 << dtype.bits), spec=x.spec)
    return g.cast(g.node("Add", found, low, spec=x.spec), dtype)


@lowers("size_of")
def size_of(g: Lowering, x: Tensor, *, size: Dim, least: Dim, most: Dim) -> Tensor:
    """A value out of bounds looks up a place that a table of one zero does not have, which ONNX refuses where it runs."""
    flag, number = TensorSpec(DType.BOOL, ()), TensorSpec(DType.INT64, ())
    value = g.cast(x, DType.INT64)
    outside = g.node("Or", g.node("Less", value, g.scalar_size(least), spec=flag), g.node("Greater", value, g.scalar_size(most), spec=flag),
                     spec=flag)
    return g.node("Add", value, g.node("Gather", g.constant([0]), g.cast(outside, DType.INT64), spec=number), spec=number)
