"""Special functions. ONNX has the error function only; the others are put together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute, number
from adapters.onnx.ops.elementwise import apply, like, select
from adapters.onnx.ops.transcendental import log1p
from adapters.onnx.registry import lowers
from converter.ir import DType
from converter.ops import special


def polynomial(g: Lowering, coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Horner's scheme, constant term first."""
    result = number(g, coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        result = apply(g, "Add", apply(g, "Mul", result, x), number(g, coefficient, x))
    return result


def ratio(g: Lowering, pair: tuple[list[float], list[float]], x: Tensor) -> Tensor:
    return apply(g, "Div", polynomial(g, pair[0], x), polynomial(g, pair[1], x))


def _bounded(g: Lowering, x: Tensor, low: float, high: float) -> Tensor:
    return compute(g, "Clip", x, number(g, low, x), number(g, high, x), spec=like(x))


def _less(g: Lowering, x: Tensor, bound: float) -> Tensor:
    return apply(g, "Less", x, number(g, bound, x), dtype=DType.BOOL)


def _tail(g: Lowering, size: Tensor) -> Tensor:
    """erfc of a float64 tensor from 1.25 on."""
    x = _bounded(g, size, 1.25, 28.0)
    square = apply(g, "Mul", x, x)
    s = apply(g, "Reciprocal", square)
    value = select(g, _less(g, x, 1.0 / 0.35), ratio(g, special._ERFC_NEAR, s), ratio(g, special._ERFC_FAR, s))
    # Rounded to float32, x has a square that float64 holds exactly.
    high = g.cast(g.cast(x, DType.FLOAT32), DType.FLOAT64)
    first = apply(g, "Exp", apply(g, "Sub", number(g, -0.5625, x), apply(g, "Mul", high, high)))
    rest = apply(g, "Mul", apply(g, "Sub", high, x), apply(g, "Add", high, x))
    return apply(g, "Div", apply(g, "Mul", first, apply(g, "Exp", apply(g, "Add", rest, value))), x)


def _middle(g: Lowering, size: Tensor) -> Tensor:
    return ratio(g, special._ERF_MIDDLE, apply(g, "Sub", _bounded(g, size, 0.84, 1.25), number(g, 1, size)))


@lowers("erf")
def erf(g: Lowering, x: Tensor) -> Tensor:
    """ONNX Runtime lacks float64, where the reference kernel's approximation is written out."""
    if x.dtype is not DType.FLOAT64:
        return apply(g, "Erf", x)
    size = apply(g, "Abs", x)
    low = _bounded(g, size, 0.0, 1.0)
    small = apply(g, "Add", low, apply(g, "Mul", low, ratio(g, special._ERF_SMALL, apply(g, "Mul", low, low))))
    middle = apply(g, "Add", _middle(g, size), number(g, special._ERX, x))
    outer = select(g, _less(g, size, 1.25), middle, apply(g, "Sub", number(g, 1, x), _tail(g, size)))
    return apply(g, "Mul", select(g, _less(g, size, 0.84375), small, outer), apply(g, "Sign", x))


@lowers("erfc")
def erfc(g: Lowering, x: Tensor) -> Tensor:
    """1 - erf x, and from 1.25 on, where that cancels, by fdlibm's approximation in float64."""
    wide = g.cast(x, DType.FLOAT64)
    tail = g.cast(_tail(g, wide), x.dtype)
    return select(g, _less(g, x, 1.25), apply(g, "Sub", number(g, 1, x), erf(g, x)), tail)


@lowers("erfinv")
def erfinv(g: Lowering, x: Tensor) -> Tensor:
    """M. Giles's approximation, to float32's precision; in float64 the normal distribution's quantile of (1 + x) / 2, over √2."""
    if x.dtype is DType.FLOAT64:
        half = number(g, 0.5, x)
        tail = apply(g, "Mul", apply(g, "Sub", number(g, 1, x), apply(g, "Abs", x)), half)
        return apply(g, "Mul", _quantile(g, apply(g, "Mul", x, half), tail), number(g, math.sqrt(0.5), x))
    size = apply(g, "Abs", x)
    w = apply(g, "Neg", apply(g, "Add", log1p(g, size), log1p(g, apply(g, "Neg", size))))
    centre = polynomial(g, special._ERFINV_CENTRE, apply(g, "Sub", w, number(g, 2.5, x)))
    root = apply(g, "Sqrt", compute(g, "Clip", w, number(g, 5.0, x), None, spec=like(x)))
    outer = polynomial(g, special._ERFINV_TAIL, apply(g, "Sub", root, number(g, 3.0, x)))
    value = apply(g, "Mul", select(g, _less(g, w, 5.0), centre, outer), x)
    edge = apply(g, "Equal", size, number(g, 1, x), dtype=DType.BOOL)
    return select(g, edge, apply(g, "Mul", x, number(g, math.inf, x)), value)


def _quantile(g: Lowering, q: Tensor, tail: Tensor) -> Tensor:
    """The normal distribution's quantile of p, from q = p - 1/2 and tail = min(p, 1 - p), in float64: Wichura's AS 241."""
    inner = _bounded(g, q, -0.425, 0.425)
    middle = apply(g, "Mul", q, ratio(g, special._MIDDLE, apply(g, "Sub", number(g, 0.180625, q), apply(g, "Mul", inner, inner))))
    r = apply(g, "Sqrt", apply(g, "Neg", apply(g, "Log", _bounded(g, tail, 5e-324, 0.5))))
    side = ratio(g, special._SIDE, apply(g, "Sub", _bounded(g, r, 0.0, 5.0), number(g, 1.6, r)))
    end = ratio(g, special._END, apply(g, "Sub", r, number(g, 5.0, r)))
    outer = select(g, apply(g, "LessOrEqual", r, number(g, 5.0, r), dtype=DType.BOOL), side, end)
    outer = select(g, apply(g, "Equal", tail, number(g, 0, tail), dtype=DType.BOOL), number(g, math.inf, r), outer)
    outer = apply(g, "Mul", outer, apply(g, "Sign", q))
    central = apply(g, "LessOrEqual", apply(g, "Abs", q), number(g, 0.425, q), dtype=DType.BOOL)
    inside = apply(g, "GreaterOrEqual", tail, number(g, 0, tail), dtype=DType.BOOL)
    return select(g, inside, select(g, central, middle, outer), number(g, math.nan, q))
