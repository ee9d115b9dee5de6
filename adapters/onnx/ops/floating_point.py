"""The parts of floating-point numbers: sign, fraction and exponent, and neighbours. Powers of two are exact in float64."""

from __future__ import annotations

import ml_dtypes

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute, number
from adapters.onnx.ops.elementwise import apply, like, select
from adapters.onnx.registry import lowers
from converter.ir import DType

TINY, SCALE = 2.0 ** -900, 128
"""Below TINY, 2^-exponent would overflow, and what is near the least numbers has few digits: such are first scaled by 2^SCALE."""


def parts(g: Lowering, x: Tensor) -> tuple[Tensor, Tensor]:
    """(mantissa, exponent) of float64 numbers, both float64, for those that are neither 0 nor infinite nor NaN."""

    def power(exponent: Tensor) -> Tensor:
        return apply(g, "Pow", number(g, 2, x), exponent)

    size = apply(g, "Abs", x)
    tiny = apply(g, "Less", size, number(g, TINY, x), dtype=DType.BOOL)
    scaled = select(g, tiny, apply(g, "Mul", x, number(g, 2.0 ** SCALE, x)), x)
    logarithm = apply(g, "Div", apply(g, "Log", apply(g, "Abs", scaled)), number(g, 0.6931471805599453, x))
    # Rounding may put the logarithm on the wrong side of an integer by one.
    guess = compute(g, "Clip", apply(g, "Floor", logarithm), number(g, -1022, x), number(g, 1023, x), spec=like(x))
    mantissa = apply(g, "Mul", scaled, power(apply(g, "Neg", guess)))
    small = apply(g, "Less", apply(g, "Abs", mantissa), number(g, 1, x), dtype=DType.BOOL)
    large = apply(g, "GreaterOrEqual", apply(g, "Abs", mantissa), number(g, 2, x), dtype=DType.BOOL)
    shift = select(g, small, number(g, 0, x), select(g, large, number(g, 2, x), number(g, 1, x)))
    mantissa = apply(g, "Mul", mantissa, power(apply(g, "Neg", shift)))
    exponent = apply(g, "Add", guess, shift)
    return mantissa, apply(g, "Sub", exponent, select(g, tiny, number(g, SCALE, x), number(g, 0, x)))


def _irregular(g: Lowering, x: Tensor) -> Tensor:
    """Whether numbers are 0, infinite or NaN: twice their size is then no other, or nothing compares."""
    return apply(g, "Not", apply(g, "And", apply(g, "Greater", apply(g, "Abs", x), number(g, 0, x), dtype=DType.BOOL),
                                 apply(g, "Less", apply(g, "Abs", x), number(g, float("inf"), x), dtype=DType.BOOL)))


@lowers("frexp")
def frexp(g: Lowering, x: Tensor) -> tuple[Tensor, Tensor]:
    wide = g.cast(x, DType.FLOAT64)
    irregular = _irregular(g, wide)
    mantissa, exponent = parts(g, select(g, irregular, number(g, 1, wide), wide))
    return (g.cast(select(g, irregular, wide, mantissa), x.dtype),
            g.cast(select(g, irregular, number(g, 0, wide), exponent), DType.INT32))


@lowers("nextafter")
def nextafter(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    """x ± the distance of its neighbours, which is half as wide below a power of two."""
    limits = ml_dtypes.finfo(x.dtype.numpy)
    digits, lowest = int(limits.nmant) + 1, int(limits.minexp) - int(limits.nmant)
    here, there = g.cast(x, DType.FLOAT64), g.cast(y, DType.FLOAT64)
    irregular = _irregular(g, here)
    mantissa, exponent = parts(g, select(g, irregular, number(g, 1, here), here))
    infinite = apply(g, "Equal", apply(g, "Abs", here), number(g, float("inf"), here), dtype=DType.BOOL)
    up = apply(g, "Greater", there, here, dtype=DType.BOOL)
    inward = apply(g, "Xor", up, apply(g, "Greater", here, number(g, 0, here), dtype=DType.BOOL))
    half = apply(g, "And", inward, apply(g, "Equal", apply(g, "Abs", mantissa), number(g, 0.5, here), dtype=DType.BOOL))
    step = apply(g, "Sub", exponent, select(g, half, number(g, digits + 1, here), number(g, digits, here)))
    step = apply(g, "Max", select(g, irregular, number(g, lowest, here), step), number(g, lowest, here))
    distance = apply(g, "Pow", number(g, 2, here), step)
    moved = apply(g, "Add", here, select(g, up, distance, apply(g, "Neg", distance)))
    largest = apply(g, "Mul", apply(g, "Sign", here), number(g, float(limits.max), here))
    moved = select(g, infinite, largest, moved)
    result = select(g, apply(g, "Equal", here, there, dtype=DType.BOOL), there, moved)
    missing = apply(g, "Or", apply(g, "IsNaN", here, dtype=DType.BOOL), apply(g, "IsNaN", there, dtype=DType.BOOL))
    return g.cast(select(g, missing, number(g, float("nan"), here), result), x.dtype)
