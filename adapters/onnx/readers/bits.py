"""The bits of a number read as another one's: `BitCast`."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from adapters.onnx.load import FROM_ONNX
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.ir import DType

SIGNED = {16: DType.INT16, 32: DType.INT32, 64: DType.INT64}
BINARY = (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64)
NAN = "the bits of a float that is NaN are those of the one that IEEE 754 calls canonical"


@reads("BitCast")
def bit_cast(g: Reader, x: Item, *, to: int) -> Value:
    """Integers of one width are cast; between integers and IEEE 754's floats of that width the parts are put together by arithmetic."""
    own, dtype = g.dtype(x), FROM_ONNX.get(to)
    if dtype is own:
        return g.op("astype", x, dtype=own)
    if dtype is not None and own.bits == dtype.bits:
        if dtype.is_integer and (own.is_integer or own is DType.BOOL):
            return g.cast(x, dtype)
        if own in BINARY and dtype.is_integer:
            g.notes.append(NAN)
            return g.cast(float_bits(g, g.tensor(x)), dtype)
        if own.is_integer and dtype in BINARY:
            return from_bits(g, g.cast(x, SIGNED[own.bits]), dtype)
        if own in BINARY and dtype in BINARY:
            return from_bits(g, float_bits(g, g.tensor(x)), dtype)
    raise g.refuse(f"the bits of {own} as {dtype or 'another dtype'}")


def _format(dtype: DType) -> tuple[int, int]:
    """The bits of a fraction, the one before the point not among them, and the exponent of 1 as it is stored."""
    limits = ml_dtypes.finfo(dtype.numpy)
    return int(limits.nmant), 1 - int(limits.minexp)


def float_bits(g: Reader, x: Value) -> Value:
    """The bits of floats as signed integers of their width; of NaN those of the canonical one."""
    digits, bias = _format(x.dtype)
    most = (1 << x.dtype.bits - 1 - digits) - 1
    wide = g.cast(x, DType.FLOAT64)
    size = g.op("abs", wide)
    mantissa, exponent = g.add("frexp", size)
    stored = g.op("add", g.cast(exponent, DType.INT64), g.op("full", shape=(), fill_value=bias - 1, dtype=DType.INT64))
    whole = g.cast(g.op("multiply", mantissa, g.like(2.0 ** (digits + 1), mantissa)), DType.INT64)
    one = g.like(1, stored)
    # Below the least normal number the fraction moves right.
    low = g.op("minimum", g.op("maximum", g.op("subtract", one, stored), g.like(0, stored)), g.like(62, stored))
    regular = g.op("add", g.op("multiply", g.op("maximum", g.op("subtract", stored, one), g.like(0, stored)), g.like(1 << digits, stored)),
                   g.op("bitwise_right_shift", whole, low))
    found = g.op("where", g.op("equal", size, g.like(0.0, size)), g.like(0, stored), regular)
    found = g.op("where", g.op("equal", size, g.like(float("inf"), size)), g.like(most << digits, stored), found)
    found = g.op("where", g.op("isnan", wide), g.like((most << digits) | 1 << digits - 1, stored), found)
    least = g.like(-(1 << x.dtype.bits - 1), stored)
    return g.cast(g.op("where", g.op("signbit", wide), g.op("add", found, least), found), SIGNED[x.dtype.bits])


def from_bits(g: Reader, x: Value, dtype: DType) -> Value:
    """The floats that signed integers of their width are the bits of."""
    digits, bias = _format(dtype)
    most = (1 << dtype.bits - 1 - digits) - 1
    bits = g.cast(x, DType.INT64)
    fraction = g.op("bitwise_and", bits, g.like((1 << digits) - 1, bits))
    stored = g.op("bitwise_and", g.op("bitwise_right_shift", bits, g.like(digits, bits)), g.like(most, bits))
    zero = g.like(0, bits)
    normal = g.op("greater", stored, zero)
    whole = g.op("add", fraction, g.op("where", normal, g.like(1 << digits, bits), zero))
    exponents = np.maximum(np.arange(most + 1), 1) - bias - digits
    scale = g.op("take", g.constant(np.ldexp(1.0, np.minimum(exponents, 1023 - digits))), stored, axis=0)
    size = g.op("multiply", g.cast(whole, DType.FLOAT64), scale)
    infinite = g.op("where", g.op("equal", fraction, zero), g.like(float("inf"), size), g.like(float("nan"), size))
    size = g.op("where", g.op("equal", stored, g.like(most, bits)), infinite, size)
    # By a factor: some runtimes choose by adding zeros, and lose the sign of one.
    return g.cast(g.op("multiply", size, g.op("where", g.op("less", bits, zero), g.like(-1, size), g.like(1, size))), dtype)
