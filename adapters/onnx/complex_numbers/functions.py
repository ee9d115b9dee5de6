"""Functions of complex numbers on pairs of real tensors: powers, hyperbolic and inverse functions, products over an axis.

The inverse functions follow W. Kahan, "Branch cuts for complex elementary functions" (1987): square roots on either side
of a cut, told apart by the sign of a zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adapters.onnx.complex_numbers.pairs import Pair, lowers_complex
from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import literal, number
from adapters.onnx.ops.complex_numbers import absolute, divide, exp, log, product, reciprocal, sqrt
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.registry import lowerings
from converter.dims import Dim
from converter.ir import DType

LARGEST_PRODUCT = 16
"""Up to this integer a power is multiplied out."""


def real_function(g: Lowering, operator: str, *operands: Tensor, **attributes: Any) -> Tensor:
    """The lowering of a neutral operator on real tensors."""
    return lowerings()[operator](g, *operands, **attributes)


def shifted(g: Lowering, x: Pair, value: float) -> Pair:
    """x + value."""
    return Pair(apply(g, "Add", x.real, number(g, value, x.real)), x.imag)


def negated(g: Lowering, x: Pair) -> Pair:
    return Pair(apply(g, "Neg", x.real), apply(g, "Neg", x.imag))


def turned(g: Lowering, x: Pair) -> Pair:
    """i x."""
    return Pair(apply(g, "Neg", x.imag), x.real)


def turned_back(g: Lowering, x: Pair) -> Pair:
    """-i x."""
    return Pair(x.imag, apply(g, "Neg", x.real))


def times(g: Lowering, *factors: Tensor) -> Tensor:
    result = factors[0]
    for factor in factors[1:]:
        result = apply(g, "Mul", result, factor)
    return result


# Exponentials ----------------------------------------------------------------------------------------------------------------


@lowers_complex("expm1")
def expm1(g: Lowering, x: Pair) -> Pair:
    """(eᵃ - 1) cos b - 2 sin²(b/2), and eᵃ sin b."""
    half = apply(g, "Sin", times(g, x.imag, number(g, 0.5, x.imag)))
    real = apply(g, "Sub", times(g, real_function(g, "expm1", x.real), apply(g, "Cos", x.imag)), times(g, half, half, number(g, 2, half)))
    return Pair(real, times(g, apply(g, "Exp", x.real), apply(g, "Sin", x.imag)))


@lowers_complex("log1p")
def log1p(g: Lowering, x: Pair) -> Pair:
    """For |x| < 1/2, log1p(a (2 + a) + b²) / 2, so that no digit is lost to the 1."""
    whole = log(g, shifted(g, x, 1.0))
    near = apply(g, "Add", times(g, x.real, apply(g, "Add", x.real, number(g, 2, x.real))), times(g, x.imag, x.imag))
    inside = apply(g, "Less", absolute(g, x), number(g, 0.5, x.real), dtype=DType.BOOL)
    small = times(g, real_function(g, "log1p", select(g, inside, near, number(g, 0, near))), number(g, 0.5, near))
    return Pair(select(g, inside, small, whole.real), whole.imag)


@lowers_complex("exp2")
def exp2(g: Lowering, x: Pair) -> Pair:
    scale = number(g, math.log(2), x.real)
    return exp(g, Pair(times(g, x.real, scale), times(g, x.imag, scale)))


@lowers_complex("sigmoid")
def sigmoid(g: Lowering, x: Pair) -> Pair:
    return reciprocal(g, shifted(g, exp(g, negated(g, x)), 1.0))


@lowers_complex("silu")
def silu(g: Lowering, x: Pair) -> Pair:
    return divide(g, x, shifted(g, exp(g, negated(g, x)), 1.0))


@lowers_complex("power")
def power(g: Lowering, x: Pair, y: Pair) -> Pair:
    """exp(y log x), in float64; a small integer is multiplied out. Of 0: 1 to the power 0, else 0."""
    exponent = _integer(g, y)
    if exponent is not None and abs(exponent) <= LARGEST_PRODUCT:
        return _multiplied_out(g, x, exponent)
    dtype = x.real.dtype
    wide = [Pair(g.cast(item.real, DType.FLOAT64), g.cast(item.imag, DType.FLOAT64)) for item in (x, y)]
    nothing = _is_zero(g, wide[0])
    base = Pair(select(g, nothing, number(g, 1, wide[0].real), wide[0].real), wide[0].imag)
    result = exp(g, product(g, wide[1], log(g, base)))
    one = select(g, _is_zero(g, wide[1]), number(g, 1, result.real), number(g, 0, result.real))
    result = Pair(select(g, nothing, one, result.real), select(g, nothing, number(g, 0, result.real), result.imag))
    return Pair(g.cast(result.real, dtype), g.cast(result.imag, dtype))


def _is_zero(g: Lowering, x: Pair) -> Tensor:
    return apply(g, "And", *(apply(g, "Equal", part, number(g, 0, part), dtype=DType.BOOL) for part in (x.real, x.imag)))


def _integer(g: Lowering, x: Pair) -> int | None:
    real, imag = literal(g, x.real), literal(g, x.imag)
    return int(real) if real is not None and imag == 0 and float(real).is_integer() else None


def _multiplied_out(g: Lowering, x: Pair, exponent: int) -> Pair:
    result, factor, rest = None, x, abs(exponent)
    while rest:
        if rest & 1:
            result = factor if result is None else product(g, result, factor)
        rest >>= 1
        if rest:
            factor = product(g, factor, factor)
    if result is None:
        zero = apply(g, "Sub", x.real, x.real)
        return Pair(apply(g, "Add", zero, number(g, 1, zero)), zero)
    return reciprocal(g, result) if exponent < 0 else result


# Hyperbolic and inverse functions ---------------------------------------------------------------------------------------------


@lowers_complex("tanh")
def tanh(g: Lowering, x: Pair) -> Pair:
    """With e = exp(-2|a|): (±(1 - e²) + 4i e sin b cos b) / ((1 - e)² + 4 e cos² b), where nothing overflows or cancels."""
    size = apply(g, "Abs", x.real)
    doubled = times(g, size, number(g, -2, size))
    e, four = apply(g, "Exp", doubled), number(g, 4, size)
    lost = real_function(g, "expm1", doubled)
    sine, cosine = apply(g, "Sin", x.imag), apply(g, "Cos", x.imag)
    below = apply(g, "Add", times(g, lost, lost), times(g, four, e, cosine, cosine))
    whole = apply(g, "Neg", real_function(g, "expm1", times(g, doubled, number(g, 2, size))))
    real = apply(g, "Div", times(g, whole, apply(g, "Sign", x.real)), below)
    return Pair(real, apply(g, "Div", times(g, four, e, sine, cosine), below))


@lowers_complex("tan")
def tan(g: Lowering, x: Pair) -> Pair:
    return turned_back(g, tanh(g, turned(g, x)))


def _roots(g: Lowering, x: Pair) -> tuple[Pair, Pair]:
    """√(1 - x) and √(1 + x)."""
    return sqrt(g, shifted(g, negated(g, x), 1.0)), sqrt(g, shifted(g, x, 1.0))


def _cross(g: Lowering, x: Pair, y: Pair) -> Tensor:
    """The imaginary part of conj(x) y."""
    return apply(g, "Sub", times(g, x.real, y.imag), times(g, x.imag, y.real))


def _dot(g: Lowering, x: Pair, y: Pair) -> Tensor:
    """The real part of conj(x) y."""
    return apply(g, "Add", times(g, x.real, y.real), times(g, x.imag, y.imag))


@lowers_complex("asin")
def asin(g: Lowering, x: Pair) -> Pair:
    minus, plus = _roots(g, x)
    below = apply(g, "Sub", times(g, minus.real, plus.real), times(g, minus.imag, plus.imag))
    return Pair(real_function(g, "atan2", x.real, below), real_function(g, "asinh", _cross(g, minus, plus)))


@lowers_complex("acos")
def acos(g: Lowering, x: Pair) -> Pair:
    minus, plus = _roots(g, x)
    half = real_function(g, "atan2", minus.real, plus.real)
    return Pair(times(g, half, number(g, 2, half)), real_function(g, "asinh", _cross(g, plus, minus)))


@lowers_complex("acosh")
def acosh(g: Lowering, x: Pair) -> Pair:
    minus, plus = sqrt(g, shifted(g, x, -1.0)), sqrt(g, shifted(g, x, 1.0))
    half = real_function(g, "atan2", minus.imag, plus.real)
    return Pair(real_function(g, "asinh", _dot(g, minus, plus)), times(g, half, number(g, 2, half)))


@lowers_complex("asinh")
def asinh(g: Lowering, x: Pair) -> Pair:
    return turned_back(g, asin(g, turned(g, x)))


@lowers_complex("atanh")
def atanh(g: Lowering, x: Pair) -> Pair:
    """log1p(4a / ((1 - a)² + b²)) / 4 on the right half, and its opposite on the left; atan2(2b, (1 - a)(1 + a) - b²) / 2."""
    one = number(g, 1, x.real)
    size, squared = apply(g, "Abs", x.real), times(g, x.imag, x.imag)
    gap = apply(g, "Sub", one, size)
    ratio = apply(g, "Div", times(g, size, number(g, 4, size)), apply(g, "Add", times(g, gap, gap), squared))
    real = times(g, real_function(g, "log1p", ratio), number(g, 0.25, size), apply(g, "Sign", x.real))
    beside = apply(g, "Sub", times(g, apply(g, "Sub", one, x.real), apply(g, "Add", one, x.real)), squared)
    angle = real_function(g, "atan2", times(g, x.imag, number(g, 2, size)), beside)
    return Pair(real, times(g, angle, number(g, 0.5, size)))


@lowers_complex("atan")
def atan(g: Lowering, x: Pair) -> Pair:
    return turned_back(g, atanh(g, turned(g, x)))


# Over axes, and of several tensors ------------------------------------------------------------------------------------------


@lowers_complex("lerp")
def lerp(g: Lowering, start: Pair, end: Pair, weight: Pair) -> Pair:
    """From the nearer end, as the real one."""
    difference = Pair(apply(g, "Sub", end.real, start.real), apply(g, "Sub", end.imag, start.imag))
    forth = product(g, difference, weight)
    back = product(g, difference, Pair(apply(g, "Sub", number(g, 1, weight.real), weight.real), apply(g, "Neg", weight.imag)))
    near = apply(g, "Less", absolute(g, weight), number(g, 0.5, weight.real), dtype=DType.BOOL)
    parts = [select(g, near, apply(g, "Add", first, step), apply(g, "Sub", last, rest)) for first, step, last, rest in (
        (start.real, forth.real, end.real, back.real), (start.imag, forth.imag, end.imag, back.imag))]
    return Pair(*parts)


@lowers_complex("std")
def std(g: Lowering, x: Pair, **attributes: Any) -> Tensor:
    variance = apply(g, "Add", real_function(g, "var", x.real, **attributes), real_function(g, "var", x.imag, **attributes))
    return apply(g, "Sqrt", variance)


@lowers_complex("rms_norm")
def rms_norm(g: Lowering, x: Pair, weight: Pair | None, *, normalized_shape: tuple[Dim, ...], eps: float | None) -> Pair:
    """By the mean of the squares, which are complex."""
    axes = tuple(range(x.rank - len(normalized_shape), x.rank))
    squares = product(g, x, x)
    mean = Pair(*(real_function(g, "mean", part, axis=axes, keepdims=True) for part in (squares.real, squares.imag)))
    least = float(np.finfo(x.real.dtype.numpy).eps) if eps is None else eps
    y = product(g, x, reciprocal(g, sqrt(g, shifted(g, mean, least))))
    return y if weight is None else product(g, y, weight)


@lowers_complex("nonzero", "count_nonzero", "any", "all", "logical_not")
def truth(g: Lowering, x: Pair, **attributes: Any) -> Tensor:
    """Of whether each number is not 0."""
    name = g.current.op
    return real_function(g, name, apply(g, "Not", _is_zero(g, x)), **attributes)


@lowers_complex("convolution", "convolution_transpose")
def convolution(g: Lowering, x: Pair, weight: Pair, bias: Pair | None, **attributes: Any) -> Pair:
    """Each of the four products by a convolution of its own; the bias stands in those that are added first."""
    name = g.current.op

    def part(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        return lowerings()[name](g, a, b, c, **attributes)

    real, imag = (None, None) if bias is None else (bias.real, bias.imag)
    return Pair(apply(g, "Sub", part(x.real, weight.real, real), part(x.imag, weight.imag)),
                apply(g, "Add", part(x.real, weight.imag, imag), part(x.imag, weight.real)))
