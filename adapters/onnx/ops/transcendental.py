"""Exponentials, logarithms, roots, trigonometric and hyperbolic functions.

ONNX lacks some of them, and ONNX Runtime others in float64; those are put together so that no digits are lost.
"""

from __future__ import annotations

import math

import ml_dtypes

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute, number
from adapters.onnx.ops.elementwise import apply, is_negative, like, select, unary
from adapters.onnx.registry import lowers
from converter.ir import DType

for _op, _type in {"exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos", "tanh": "Tanh"}.items():
    lowers(_op)(unary(_type))


@lowers("sigmoid")
def sigmoid(g: Lowering, x: Tensor) -> Tensor:
    """ONNX Runtime's Sigmoid is exact to 1e-7 and not to so much of itself, which a small probability that is given out must be."""
    if x.dtype is not DType.FLOAT32 or not g.is_given_out:
        return apply(g, "Sigmoid", x)
    return apply(g, "Reciprocal", apply(g, "Add", number(g, 1, x), apply(g, "Exp", apply(g, "Neg", x))))


@lowers("rsqrt")
def rsqrt(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Reciprocal", apply(g, "Sqrt", x))


@lowers("exp2")
def exp2(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Pow", number(g, 2, x), x)


@lowers("log2")
def log2(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Div", apply(g, "Log", x), number(g, math.log(2), x))


@lowers("log10")
def log10(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Div", apply(g, "Log", x), number(g, math.log(10), x))


@lowers("expm1")
def expm1(g: Lowering, x: Tensor) -> Tensor:
    """tanh(x/2) · (eˣ + 1) = eˣ - 1, without the cancellation."""
    half = apply(g, "Tanh", apply(g, "Mul", x, number(g, 0.5, x)))
    return apply(g, "Mul", half, apply(g, "Add", apply(g, "Exp", x), number(g, 1, x)))


@lowers("log1p")
def log1p(g: Lowering, x: Tensor) -> Tensor:
    """log(u) + (x - (u - 1)) / u for the rounded u = 1 + x. Clipping u in the correction keeps it defined at -1 and at infinity."""
    one = number(g, 1, x)
    u = apply(g, "Add", x, one)
    limits = ml_dtypes.finfo(x.dtype.numpy)
    safe = compute(g, "Clip", u, number(g, float(limits.tiny), x), number(g, float(limits.max), x), spec=like(x))
    lost = apply(g, "Sub", x, apply(g, "Sub", safe, one))
    return apply(g, "Add", apply(g, "Log", u), apply(g, "Div", lost, safe))


def _cosh64(g: Lowering, x: Tensor) -> Tensor:
    total = apply(g, "Add", apply(g, "Exp", x), apply(g, "Exp", apply(g, "Neg", x)))
    return apply(g, "Mul", total, number(g, 0.5, x))


def _atan64(g: Lowering, x: Tensor) -> Tensor:
    """One step from float32's answer: atan x = y + atan((x cos y - sin y) / (cos y + x sin y)), the second term below 1e-6."""
    y = g.cast(apply(g, "Atan", g.cast(x, DType.FLOAT32)), DType.FLOAT64)
    bounded = compute(g, "Clip", x, number(g, -1e300, x), number(g, 1e300, x), spec=like(x))
    sine, cosine = apply(g, "Sin", y), apply(g, "Cos", y)
    over = apply(g, "Sub", apply(g, "Mul", bounded, cosine), sine)
    under = apply(g, "Add", cosine, apply(g, "Mul", bounded, sine))
    return apply(g, "Add", y, apply(g, "Div", over, under))


@lowers("tan")
def tan(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Tan", x) if x.dtype is not DType.FLOAT64 else apply(g, "Div", apply(g, "Sin", x), apply(g, "Cos", x))


@lowers("atan")
def atan(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Atan", x) if x.dtype is not DType.FLOAT64 else _atan64(g, x)


@lowers("asin")
def asin(g: Lowering, x: Tensor) -> Tensor:
    """In float64: 2 atan(x / (1 + √((1 - x)(1 + x))))."""
    if x.dtype is not DType.FLOAT64:
        return apply(g, "Asin", x)
    one = number(g, 1, x)
    root = apply(g, "Sqrt", apply(g, "Mul", apply(g, "Sub", one, x), apply(g, "Add", one, x)))
    return apply(g, "Mul", _atan64(g, apply(g, "Div", x, apply(g, "Add", one, root))), number(g, 2, x))


@lowers("acos")
def acos(g: Lowering, x: Tensor) -> Tensor:
    """In float64: 2 atan(√((1 - x) / (1 + x)))."""
    if x.dtype is not DType.FLOAT64:
        return apply(g, "Acos", x)
    one = number(g, 1, x)
    ratio = apply(g, "Div", apply(g, "Sub", one, x), apply(g, "Add", one, x))
    return apply(g, "Mul", _atan64(g, apply(g, "Sqrt", ratio)), number(g, 2, x))


@lowers("sinh")
def sinh(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Sinh", x) if x.dtype is not DType.FLOAT64 else apply(g, "Mul", apply(g, "Tanh", x), _cosh64(g, x))


@lowers("cosh")
def cosh(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Cosh", x) if x.dtype is not DType.FLOAT64 else _cosh64(g, x)


@lowers("asinh")
def asinh(g: Lowering, x: Tensor) -> Tensor:
    """In float64, for a = |x|: log1p(a + a / (1/a + √(1 + 1/a²))), with x's sign."""
    if x.dtype is not DType.FLOAT64:
        return apply(g, "Asinh", x)
    size = apply(g, "Abs", x)
    inverse = apply(g, "Reciprocal", size)
    root = apply(g, "Sqrt", apply(g, "Add", apply(g, "Mul", inverse, inverse), number(g, 1, x)))
    value = log1p(g, apply(g, "Add", size, apply(g, "Div", size, apply(g, "Add", inverse, root))))
    return apply(g, "Mul", value, apply(g, "Sign", x))


@lowers("acosh")
def acosh(g: Lowering, x: Tensor) -> Tensor:
    """In float64, for t = x - 1: log1p(t + √t √(t + 2))."""
    if x.dtype is not DType.FLOAT64:
        return apply(g, "Acosh", x)
    t = apply(g, "Sub", x, number(g, 1, x))
    root = apply(g, "Mul", apply(g, "Sqrt", t), apply(g, "Sqrt", apply(g, "Add", t, number(g, 2, x))))
    return log1p(g, apply(g, "Add", t, root))


@lowers("atanh")
def atanh(g: Lowering, x: Tensor) -> Tensor:
    """In float64: log1p(2x / (1 - x)) / 2."""
    if x.dtype is not DType.FLOAT64:
        return apply(g, "Atanh", x)
    ratio = apply(g, "Div", apply(g, "Mul", x, number(g, 2, x)), apply(g, "Sub", number(g, 1, x), x))
    return apply(g, "Mul", log1p(g, ratio), number(g, 0.5, x))


@lowers("atan2")
def atan2(g: Lowering, y: Tensor, x: Tensor) -> Tensor:
    """atan(y / x), and π away where x is negative. Infinities are clipped, so that their ratio is one; 0 / 0 counts as the 0 above.

    At x = -0 the ratio has the other infinity's sign, which the half turn makes up for.
    """
    limit = float(ml_dtypes.finfo(x.dtype.numpy).max)
    clipped = [compute(g, "Clip", item, number(g, -limit, item), number(g, limit, item), spec=like(item)) for item in (y, x)]
    zero = number(g, 0, x)
    level = apply(g, "Equal", y, zero, dtype=DType.BOOL)
    ratio = select(g, apply(g, "And", level, apply(g, "Equal", x, zero, dtype=DType.BOOL)), y, apply(g, "Div", *clipped))
    half_turn = select(g, is_negative(g, y), number(g, -math.pi, x), number(g, math.pi, x))
    offset = select(g, is_negative(g, x), half_turn, zero)
    return apply(g, "Add", atan(g, ratio), offset)


@lowers("hypot")
def hypot(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    """In float64, where the squares of narrower floats cannot overflow; float64 itself is scaled by its larger operand."""
    if x.dtype is not DType.FLOAT64:
        squares = [apply(g, "Mul", wide, wide) for wide in (g.cast(item, DType.FLOAT64) for item in (x, y))]
        return g.cast(apply(g, "Sqrt", apply(g, "Add", *squares)), x.dtype)
    sizes = [apply(g, "Abs", item) for item in (x, y)]
    limits = ml_dtypes.finfo(x.dtype.numpy)
    scale = compute(g, "Clip", apply(g, "Max", *sizes), number(g, float(limits.tiny), x), number(g, float(limits.max), x), spec=like(x, y))
    parts = [apply(g, "Div", size, scale) for size in sizes]
    return apply(g, "Mul", scale, apply(g, "Sqrt", apply(g, "Add", *(apply(g, "Mul", part, part) for part in parts))))
