"""The gamma function's kin, which ONNX lacks, in float64: the reference kernels' formulas."""

from __future__ import annotations

import math

import numpy as np

from adapters.onnx.kernels import compute, number
from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.ops.elementwise import apply, like, select
from adapters.onnx.ops.special import in_float64, polynomial
from adapters.onnx.ops.transcendental import log1p
from adapters.onnx.registry import lowers
from converter.ir import DType
from converter.ops import gamma


def _is(g: Lowering, comparison: str, x: Tensor, bound: float) -> Tensor:
    return apply(g, comparison, x, number(g, bound, x), dtype=DType.BOOL)


def _plus(g: Lowering, x: Tensor, value: float) -> Tensor:
    return apply(g, "Add", x, number(g, value, x))


def _whole(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Equal", x, apply(g, "Floor", x), dtype=DType.BOOL)


def _shifted(g: Lowering, x: Tensor, bound: int) -> tuple[Tensor, Tensor, Tensor]:
    """(whether x is below the bound, x or the bound if that is less, x moved up by the bound where it is below)."""
    below = _is(g, "Less", x, bound)
    return below, compute(g, "Min", x, number(g, bound, x), spec=like(x)), select(g, below, _plus(g, x, bound), x)


def lgamma_positive(g: Lowering, x: Tensor) -> Tensor:
    below, low, large = _shifted(g, x, gamma.STIRLING_FROM)
    product = low
    for step in range(1, gamma.STIRLING_FROM):
        product = apply(g, "Mul", product, _plus(g, low, step))
    inverse = apply(g, "Reciprocal", large)
    series = apply(g, "Mul", polynomial(g, gamma.STIRLING, apply(g, "Mul", inverse, inverse)), inverse)
    main = apply(g, "Sub", apply(g, "Mul", _plus(g, large, -0.5), apply(g, "Log", large)), large)
    value = apply(g, "Add", _plus(g, main, 0.5 * math.log(2 * math.pi)), series)
    value = apply(g, "Sub", value, select(g, below, apply(g, "Log", product), number(g, 0, x)))
    first = _is(g, "Less", x, 1.5)
    z = apply(g, "Sub", x, select(g, first, number(g, 1, x), number(g, 2, x)))
    near = _is(g, "Less", apply(g, "Abs", z), gamma.NEAR)
    z = select(g, near, z, number(g, 0, x))
    around = apply(g, "Mul", z, polynomial(g, gamma.NEAR_TWO, z))
    around = apply(g, "Sub", around, select(g, first, log1p(g, z), number(g, 0, x)))
    return select(g, _is(g, "Equal", x, math.inf), x, select(g, near, around, value))


def _mirrored(g: Lowering, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(where x > 0, a positive argument: x, or 1 - x below; the fraction below, exact, between -1/2 and 1/2)."""
    above = _is(g, "Greater", x, 0)
    argument = select(g, above, x, apply(g, "Sub", number(g, 1, x), x))
    fraction = apply(g, "Sub", x, apply(g, "Round", x))
    return above, argument, apply(g, "Mul", fraction, number(g, math.pi, x))


@lowers("lgamma")
@in_float64
def lgamma(g: Lowering, x: Tensor) -> Tensor:
    """Below 0, by reflection: log |Γ(x)| = log(π / |sin πx|) - log Γ(1 - x)."""
    above, argument, turn = _mirrored(g, x)
    value = lgamma_positive(g, argument)
    sine = apply(g, "Log", apply(g, "Abs", apply(g, "Sin", turn)))
    reflected = apply(g, "Sub", apply(g, "Sub", number(g, math.log(math.pi), x), sine), value)
    value = select(g, above, value, select(g, _whole(g, x), number(g, math.inf, x), reflected))
    return select(g, apply(g, "IsNaN", x, dtype=DType.BOOL), x, value)


def _digamma_positive(g: Lowering, x: Tensor) -> Tensor:
    below, low, large = _shifted(g, x, gamma.DIGAMMA_FROM)
    total = apply(g, "Reciprocal", _plus(g, low, gamma.DIGAMMA_FROM - 1))
    for step in reversed(range(1, gamma.DIGAMMA_FROM - 1)):
        total = apply(g, "Add", total, apply(g, "Reciprocal", _plus(g, low, step)))
    total = apply(g, "Add", total, apply(g, "Reciprocal", low))
    half = apply(g, "Div", number(g, 0.5, x), large)
    inverse = apply(g, "Reciprocal", apply(g, "Mul", large, large))
    series = apply(g, "Mul", inverse, polynomial(g, gamma.DIGAMMA, inverse))
    value = apply(g, "Add", apply(g, "Sub", apply(g, "Log", large), half), series)
    return apply(g, "Sub", value, select(g, below, total, number(g, 0, x)))


@lowers("digamma")
@in_float64
def digamma(g: Lowering, x: Tensor) -> Tensor:
    """Below 0, by reflection: ψ(x) = ψ(1 - x) - π / tan πx."""
    above, argument, turn = _mirrored(g, x)
    value = _digamma_positive(g, argument)
    cotangent = apply(g, "Div", apply(g, "Mul", number(g, math.pi, x), apply(g, "Cos", turn)), apply(g, "Sin", turn))
    reflected = select(g, _whole(g, x), number(g, math.nan, x), apply(g, "Sub", value, cotangent))
    # At 0, an infinity of the opposite sign.
    reflected = select(g, _is(g, "Equal", x, 0), apply(g, "Neg", apply(g, "Reciprocal", x)), reflected)
    value = select(g, above, value, reflected)
    return select(g, apply(g, "IsNaN", x, dtype=DType.BOOL), x, value)


def _zeta_positive(g: Lowering, s: Tensor, q: Tensor) -> Tensor:
    """Euler and Maclaurin's sum for s > 1 and q > 0."""
    minus = apply(g, "Neg", s)
    total = apply(g, "Pow", _plus(g, q, gamma.TERMS - 1), minus)
    for step in reversed(range(gamma.TERMS - 1)):
        total = apply(g, "Add", total, apply(g, "Pow", _plus(g, q, step) if step else q, minus))
    end = _plus(g, q, gamma.TERMS)
    power = apply(g, "Pow", end, minus)
    series = number(g, 0, s)
    for k in reversed(range(len(gamma.REMAINDER))):
        factor = apply(g, "Div", _plus(g, s, 2 * k - 1) if k else s, end)
        if k:
            factor = apply(g, "Mul", factor, apply(g, "Div", _plus(g, s, 2 * k), end))
        series = apply(g, "Mul", _plus(g, series, gamma.REMAINDER[k]), factor)
    tail = _plus(g, apply(g, "Add", apply(g, "Div", end, _plus(g, s, -1)), series), 0.5)
    limit = apply(g, "Mul", total, number(g, float(np.finfo(np.float64).eps) * 2.0**-30, s))
    nothing = apply(g, "LessOrEqual", power, limit, dtype=DType.BOOL)
    return apply(g, "Add", total, select(g, nothing, number(g, 0, s), apply(g, "Mul", power, tail)))


@lowers("zeta")
@in_float64
def zeta(g: Lowering, s: Tensor, q: Tensor) -> Tensor:
    """Below 0, for integer s and f the fraction of q: ζ(s, f) + (-1)^s (ζ(s, 1 - f) - ζ(s, 1 - q))."""
    one, two, nan, infinite = (number(g, value, s) for value in (1, 2, math.nan, math.inf))
    exponent = select(g, _is(g, "Greater", s, 1), s, two)
    above, integer = _is(g, "Greater", q, 0), _whole(g, q)
    broken = apply(g, "And", apply(g, "Not", above), apply(g, "Not", integer))
    fraction = select(g, broken, apply(g, "Sub", q, apply(g, "Floor", q)), number(g, 0.5, q))
    first = _zeta_positive(g, exponent, select(g, above, q, fraction))
    # 1 - f as ⌈q⌉ - q, which keeps the digits of a q just below 0.
    near = _zeta_positive(g, exponent, select(g, broken, apply(g, "Sub", apply(g, "Ceil", q), q), number(g, 0.5, q)))
    far = _zeta_positive(g, exponent, select(g, broken, apply(g, "Sub", one, q), one))
    odd = apply(g, "Equal", apply(g, "Mod", exponent, two, fmod=1), one, dtype=DType.BOOL)
    rest = apply(g, "Sub", near, far)
    below = apply(g, "Add", first, select(g, odd, apply(g, "Neg", rest), rest))
    below = select(g, _whole(g, s), below, nan)
    value = select(g, above, first, select(g, integer, infinite, below))
    unknown = apply(g, "Or", apply(g, "IsNaN", s, dtype=DType.BOOL), apply(g, "IsNaN", q, dtype=DType.BOOL))
    value = select(g, unknown, nan, value)
    return select(g, _is(g, "Equal", s, 1), infinite, select(g, _is(g, "Less", s, 1), nan, value))
