"""Numbers to integers of 2 to 16 bits and small floats, and back: exact to the bit where ONNX's text defines the answer."""

from __future__ import annotations

from typing import Any

from adapters.onnx.load import FROM_ONNX
from adapters.onnx.readers.convolution import conv
from adapters.onnx.readers.elementwise import converted
from adapters.onnx.readers.linear import centred
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import forwards, reads
from converter.builder import Value
from converter.ir import DType


def _along(g: Reader, item: Item | Value, x: Value, axis: int, block: int) -> Value:
    """Scales or zero points so that they broadcast to x: one for all, one for each place of an axis, or one for each block."""
    value = g.tensor(item)
    if block:
        place = g.axis(axis, x.rank)
        found = g.op("repeat_interleave", value, repeats=block, axis=place)
        if found.shape[place] != x.shape[place]:
            found = g.op("slice", found, axes=(place,), starts=(0,), stops=(x.shape[place],))
        return found
    if value.rank == 0 or value.shape == (1,):
        return value if value.rank == 0 else g.op("reshape", value, shape=())
    place = g.axis(axis, x.rank)
    return g.op("reshape", value, shape=tuple(x.shape[place] if at == place else 1 for at in range(x.rank)))


def rounded(g: Reader, x: Value, zero: Value | None, dtype: DType) -> Value:
    """round(x) + zero, a half to the even number, cut to what the dtype holds."""
    whole = g.op("round", x)
    if zero is not None:
        whole = g.op("add", whole, g.cast(zero, x.dtype))
    low, high = (g.like(end, whole) for end in dtype.limits)
    return g.cast(g.op("minimum", g.op("maximum", whole, low), high), dtype)


@reads("QuantizeLinear")
def quantize_linear(g: Reader, x: Item, scale: Item, zero: Item | None = None, *, axis: int = 1, block_size: int = 0,
                    output_dtype: int = 0, precision: int = 0, saturate: int = 1) -> Value:
    dtype = g.dtype(zero) if zero is not None else FROM_ONNX.get(output_dtype) if output_dtype else DType.UINT8
    if dtype is None:
        raise g.refuse(f"numbers of the dtype {output_dtype}")
    value = g.tensor(x)
    kind = FROM_ONNX.get(precision) if precision else g.dtype(scale)
    if kind is None or not kind.is_float:
        raise g.refuse("scales that are no floats")
    # The quotient is taken in the scale's dtype where both are floats of one kind, else in float32.
    common = value.dtype if value.dtype is kind else DType.FLOAT32
    quotient = g.op("divide", g.cast(value, common), g.cast(_along(g, scale, value, axis, block_size), common))
    if common in (DType.FLOAT16, DType.BFLOAT16):
        quotient = g.cast(quotient, DType.FLOAT32)
    point = None if zero is None else _along(g, g.cast(zero, quotient.dtype), value, axis, block_size)
    if dtype.is_float:
        return converted(g, quotient if point is None else g.op("add", quotient, point), dtype, bool(saturate))
    return rounded(g, quotient, point, dtype)


@reads("DequantizeLinear")
def dequantize_linear(g: Reader, x: Item, scale: Item, zero: Item | None = None, *, axis: int = 1, block_size: int = 0,
                      output_dtype: int = 0) -> Value:
    value = g.tensor(x)
    dtype = FROM_ONNX.get(output_dtype) if output_dtype else g.dtype(scale)
    if dtype is None:
        raise g.refuse(f"numbers of the dtype {output_dtype}")
    kind = g.dtype(scale)
    common = kind if value.dtype.is_float else DType.INT32
    whole = g.cast(value, common)
    if zero is not None:
        whole = g.op("subtract", whole, _along(g, g.cast(zero, common), value, axis, block_size))
    return g.cast(g.op("multiply", g.cast(whole, kind), _along(g, scale, value, axis, block_size)), dtype)


@reads("DynamicQuantizeLinear")
def dynamic_quantize(g: Reader, x: Item) -> tuple[Value, Value, Value]:
    """To uint8 by the tensor's own range, which takes in zero; all zeros are in steps of 1."""
    high = g.op("maximum", g.op("max", x), g.like(0, x))
    low = g.op("minimum", g.op("min", x), g.like(0, x))
    width = g.op("subtract", high, low)
    scale = g.op("where", g.op("equal", width, g.like(0, x)), g.like(1, x), g.op("divide", width, g.like(255, x)))
    zero = rounded(g, g.op("divide", g.op("negative", low), scale), None, DType.UINT8)
    return rounded(g, g.op("divide", x, scale), zero, DType.UINT8), scale, zero


def _requantized(g: Reader, total: Value, scales: list[Value], zero: Item, channel: int | None) -> Value:
    """int32 sums times a scale over the result's, rounded."""
    first, second, last = scales
    factor = g.op("divide", g.op("multiply", first, second), last)
    if factor.rank == 1 and factor.shape[0] != 1 and channel is not None:
        factor = g.op("reshape", factor, shape=tuple(factor.shape[0] if at == channel else 1 for at in range(total.rank)))
    elif factor.rank == 1 and factor.shape[0] == 1:
        factor = g.op("reshape", factor, shape=())
    # Narrower scales are multiplied as they are, and sums of integers are exact.
    wide = DType.FLOAT32 if factor.dtype is DType.FLOAT32 else DType.FLOAT64
    value = g.op("multiply", g.cast(total, wide), g.cast(factor, wide))
    point = g.tensor(zero)
    return rounded(g, value, g.op("reshape", point, shape=()) if point.rank else point, g.dtype(zero))


@reads("QLinearMatMul")
def qlinear_matmul(g: Reader, a: Item, a_scale: Item, a_zero: Item, b: Item, b_scale: Item, b_zero: Item, y_scale: Item,
                   y_zero: Item) -> Value:
    if len({g.dtype(item) for item in (a_scale, b_scale, y_scale)}) != 1:
        raise g.refuse("scales of other dtypes than each other's")
    total = g.op("matmul", centred(g, a, a_zero, -2), centred(g, b, b_zero, -1))
    return _requantized(g, total, [g.tensor(item) for item in (a_scale, b_scale, y_scale)], y_zero, total.rank - 1)


@reads("QLinearConv")
@forwards(conv)
def qlinear_conv(g: Reader, x: Item, x_scale: Item, x_zero: Item, w: Item, w_scale: Item, w_zero: Item, y_scale: Item, y_zero: Item,
                 bias: Item | None = None, **options: Any) -> Value:
    total = conv(g, centred(g, x, x_zero, None), centred(g, w, w_zero, 0), None, **options)
    if bias is not None:
        total = g.op("add", total, g.op("reshape", bias, shape=(1, g.shape(bias)[0], *(1,) * (total.rank - 2))))
    return _requantized(g, total, [g.tensor(item) for item in (x_scale, w_scale, y_scale)], y_zero, 1)
