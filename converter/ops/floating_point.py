"""The parts of floating-point numbers: sign, fraction and exponent, and neighbours."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import each, elementwise, require_float
from converter.opset import op


@each
def _sign(x: TensorSpec) -> TensorSpec:
    require_float(x)
    return TensorSpec(DType.BOOL, x.shape)


@op(infer=_sign, formula=lambda f, x: (x < 0.0) | (f.reciprocal(x) < 0.0))
def signbit(x: Array) -> Array:
    """Whether x is below 0 or is the zero with a sign; of NaN, False."""
    return np.signbit(x) & ~np.isnan(x)


@each
def _parts(x: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
    require_float(x)
    return x, TensorSpec(DType.INT32, x.shape)


@op(infer=_parts, outputs=("mantissa", "exponent"))
def frexp(x: Array) -> tuple[Array, Array]:
    """x = mantissa · 2^exponent with 1/2 ≤ |mantissa| < 1 (C's `frexp`); the exponent is int32.

    Of 0, the infinities and NaN the mantissa is x itself and the exponent 0.
    """
    mantissa, exponent = np.frexp(x if x.dtype.kind == "f" else x.astype(np.float32))
    regular = np.isfinite(mantissa) & (mantissa != 0)
    return mantissa.astype(x.dtype), np.where(regular, exponent, 0).astype(np.int32)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float))
def nextafter(x: Array, y: Array) -> Array:
    """The number next to x on the way to y, in their dtype; y where they are equal, and NaN where either is."""
    if x.dtype.kind == "f":
        return np.nextafter(x, y)
    # ml_dtypes has none for bfloat16: a float's bits, read as an integer, ascend with its size.
    limits = ml_dtypes.finfo(x.dtype)
    x, y = np.broadcast_arrays(x, y)
    bits = x.copy().view(np.int16)
    away = (y > x) == (x > 0)
    moved = (bits + np.where(away, 1, -1).astype(np.int16)).view(x.dtype)
    least = np.copysign(np.asarray(limits.smallest_subnormal, x.dtype), y)
    moved = np.where(x == 0, least, moved)
    return np.where(np.isnan(x) | np.isnan(y), x + y, np.where(x == y, y, moved)).astype(x.dtype)
