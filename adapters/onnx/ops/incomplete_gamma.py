"""The regularized incomplete gamma functions, in float64: the reference kernels' formulas, their sums as loops."""

from __future__ import annotations

import math

import numpy as np

from adapters.onnx.kernels import compute, number
from adapters.onnx.loops import Step, loop
from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.ops.elementwise import apply, like, select
from adapters.onnx.ops.gamma import lgamma_positive
from adapters.onnx.ops.manipulation import expand, unsqueeze
from adapters.onnx.ops.special import in_float64, polynomial
from adapters.onnx.ops.transcendental import expm1, log1p
from adapters.onnx.registry import lowers
from converter.ir import DType, TensorSpec
from converter.ops import incomplete_gamma as formulas
from converter.ops.gamma import NEAR, NEAR_TWO, STIRLING

EPS = float(np.finfo(np.float64).eps)


class _Arithmetic:
    """Arithmetic on tensors and numbers, so that the formulas can be read."""

    def __init__(self, g: Lowering) -> None:
        self.g = g

    def __call__(self, op_type: str, *operands: Tensor | float, dtype: DType | None = None) -> Tensor:
        like_ = next(item for item in operands if isinstance(item, Tensor))
        tensors = [item if isinstance(item, Tensor) else number(self.g, item, like_) for item in operands]
        return apply(self.g, op_type, *tensors, dtype=dtype)

    def test(self, op_type: str, x: Tensor, y: Tensor | float) -> Tensor:
        return self(op_type, x, y, dtype=DType.BOOL)

    def where(self, condition: Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
        return select(self.g, condition, *(item if isinstance(item, Tensor) else self.g.constant(item, DType.FLOAT64) for item in (x, y)))

    def both(self, *conditions: Tensor) -> Tensor:
        result = conditions[0]
        for condition in conditions[1:]:
            result = apply(self.g, "And", result, condition)
        return result

    def either(self, x: Tensor, y: Tensor) -> Tensor:
        return apply(self.g, "Or", x, y)

    def no(self, x: Tensor) -> Tensor:
        return apply(self.g, "Not", x)


def _exponent(g: Lowering, mu: Tensor) -> Tensor:
    """μ - log(1 + μ)."""
    c = _Arithmetic(g)
    t = c("Div", mu, c("Add", mu, 2.0))
    near = c.test("Less", c("Abs", t), 0.25)
    t = c.where(near, t, 0.0)
    square = c("Mul", t, t)
    rest = c("Mul", c("Mul", c("Mul", square, t), 2.0), polynomial(g, [1.0 / (2 * k + 3) for k in range(13)], square))
    return c.where(near, c("Sub", c("Mul", mu, t), rest), c("Sub", mu, log1p(g, mu)))


def _tail_integral(g: Lowering, a: Tensor, x: Tensor) -> Tensor:
    c = _Arithmetic(g)
    mu = c("Max", c("Div", c("Sub", x, a), a), formulas.LEAST)
    up = c.test("GreaterOrEqual", mu, 0.0)
    side = c.where(up, 1.0, -1.0)
    beyond = c("Add", mu, 1.0)
    room = c.where(up, 1e300, c("Mul", beyond, 0.999))
    start = _exponent(g, mu)
    slope = c("Div", c("Mul", a, c("Abs", mu)), beyond)
    bend = c("Div", c("Mul", a, 2 * formulas.DEPTH), c("Mul", beyond, beyond))
    width = c("Div", 2 * formulas.DEPTH, c("Add", slope, c("Sqrt", c("Add", c("Mul", slope, slope), bend))))
    width = c("Min", width, room)
    for _ in range(3):
        end = c("Add", mu, c("Mul", side, width))
        missing = c("Sub", formulas.DEPTH, c("Mul", a, c("Sub", _exponent(g, end), start)))
        steep = c("Mul", a, c("Max", c("Abs", end), 1e-300))
        width = c("Min", c("Add", width, c("Div", c("Mul", missing, c("Add", end, 1.0)), steep)), room)
    places = g.constant([0.5 * (node + 1.0) for node in formulas.NODES], DType.FLOAT64)
    points = c("Add", unsqueeze(g, mu, [-1]), c("Mul", unsqueeze(g, c("Mul", side, width), [-1]), places))
    fallen = c("Mul", unsqueeze(g, a, [-1]), c("Sub", _exponent(g, points), unsqueeze(g, start, [-1])))
    density = c("Div", c("Exp", c("Neg", fallen)), c("Add", points, 1.0))
    weighted = c("Mul", density, g.constant([0.5 * weight for weight in formulas.WEIGHTS], DType.FLOAT64))
    total = g.node("ReduceSum", weighted, g.constant([weighted.rank - 1]), spec=TensorSpec(DType.FLOAT64, mu.shape), keepdims=0)
    inverse = c("Reciprocal", a)
    correction = c("Mul", polynomial(g, STIRLING, c("Mul", inverse, inverse)), inverse)
    factor = c("Mul", c("Sqrt", c("Mul", a, 0.5 / math.pi)), c("Exp", c("Neg", c("Add", c("Mul", a, start), correction))))
    return c("Mul", c("Mul", width, total), factor)


def _lgamma_next(g: Lowering, a: Tensor) -> Tensor:
    """log Γ(1 + a) for a > 0, exact for small a too."""
    c = _Arithmetic(g)
    near = c.test("Less", a, NEAR)
    z = c.where(near, a, 0.0)
    return c.where(near, c("Sub", c("Mul", z, polynomial(g, NEAR_TWO, z)), log1p(g, z)), lgamma_positive(g, c("Add", a, 1.0)))


def _power(g: Lowering, a: Tensor, x: Tensor) -> Tensor:
    c = _Arithmetic(g)
    return c("Mul", a, c("Log", x))


def _any(g: Lowering, condition: Tensor) -> Tensor:
    """Whether a condition holds anywhere."""
    counted = g.cast(condition, DType.INT32)
    if counted.rank:
        counted = g.node("ReduceMax", counted, g.constant(list(range(counted.rank))), spec=TensorSpec(DType.INT32, ()), keepdims=0)
    return g.cast(counted, DType.BOOL)


def _lower_series(g: Lowering, a: Tensor, x: Tensor) -> Tensor:
    c = _Arithmetic(g)
    one = expand(g, number(g, 1, a), a.shape)

    def body(index: Tensor, states: list[Tensor]) -> Step:
        term, total = states
        count = c("Add", g.cast(index, DType.FLOAT64), 1.0)
        term = c("Mul", term, c("Div", x, c("Add", a, count)))
        total = c("Add", total, term)
        return Step([term, total], (), _any(g, c.test("Greater", term, c("Mul", total, EPS / 4))))

    (_, total), _ = loop(g, formulas.ROUNDS, [one, one], body)
    return c("Mul", total, c("Exp", c("Sub", c("Sub", _power(g, a, x), x), _lgamma_next(g, a))))


def _upper_fraction(g: Lowering, a: Tensor, x: Tensor) -> Tensor:
    c = _Arithmetic(g)
    b = c("Sub", c("Add", x, 1.0), a)
    d = c("Reciprocal", b)

    def kept(value: Tensor) -> Tensor:
        return c.where(c.test("Less", c("Abs", value), 1e-300), 1e-300, value)

    def body(index: Tensor, states: list[Tensor]) -> Step:
        b, over, under, value = states
        count = c("Add", g.cast(index, DType.FLOAT64), 1.0)
        factor = c("Mul", count, c("Sub", a, count))
        b = c("Add", b, 2.0)
        under = c("Reciprocal", kept(c("Add", c("Mul", factor, under), b)))
        over = kept(c("Add", b, c("Div", factor, over)))
        change = c("Mul", under, over)
        going = _any(g, c.test("Greater", c("Abs", c("Sub", change, 1.0)), EPS))
        return Step([b, over, under, c("Mul", value, change)], (), going)

    start = expand(g, number(g, 1e300, a), a.shape)
    (_, _, _, value), _ = loop(g, formulas.ROUNDS, [b, start, d, d], body)
    return c("Mul", value, c("Exp", c("Sub", c("Sub", _power(g, a, x), x), lgamma_positive(g, a))))


def _upper_small(g: Lowering, a: Tensor, x: Tensor) -> Tensor:
    c = _Arithmetic(g)
    factor = c("Neg", x)
    total = c("Div", factor, c("Add", a, 1.0))
    for k in range(2, formulas.SMALL_TERMS):
        factor = c("Mul", factor, c("Mul", x, -1.0 / k))
        total = c("Add", total, c("Div", factor, c("Add", a, float(k))))
    power = c("Sub", _power(g, a, x), _lgamma_next(g, a))
    return c("Neg", c("Add", expm1(g, power), c("Mul", c("Mul", a, c("Exp", power)), total)))


def _incomplete(g: Lowering, a: Tensor, x: Tensor, upper_wanted: bool) -> Tensor:
    c = _Arithmetic(g)
    shape = like(a, x).shape
    a, x = expand(g, a, shape), expand(g, x, shape)
    infinite_a, infinite_x = (c.test("Equal", item, math.inf) for item in (a, x))
    plain = c.both(c.test("Greater", a, 0.0), c.test("Greater", x, 0.0), c.no(infinite_a), c.no(infinite_x))
    own, at = c.where(plain, a, 1.0), c.where(plain, x, 1.0)
    large = c.test("GreaterOrEqual", own, formulas.LARGE)
    tail = _tail_integral(g, c.where(large, own, formulas.LARGE), c.where(large, at, formulas.LARGE))
    little, low = c.where(large, 1.0, own), c.where(large, 1.0, at)
    small, beyond = c.no(large), c.test("Greater", low, 1.1)
    upper = c.both(small, beyond, c.test("GreaterOrEqual", low, little))
    half = c.test("LessOrEqual", low, 0.5)
    bound = c.where(half, c("Div", -0.4, c("Log", compute(g, "Min", low, number(g, 0.5, low), spec=like(low)))), c("Mul", low, 1.1))
    upper_small = c.both(small, c.no(beyond), c.test("GreaterOrEqual", bound, little))
    lower = c.both(small, c.no(upper), c.no(upper_small))
    p = _lower_series(g, c.where(lower, little, 1.0), c.where(lower, low, 1.0))
    q = _upper_fraction(g, c.where(upper, little, 1.0), c.where(upper, low, 2.0))
    q = c.where(upper_small, _upper_small(g, c.where(upper_small, little, 1.0), c.where(upper_small, low, 1.0)), q)
    is_lower = c.either(lower, c.both(large, c.test("Less", at, own)))
    found = c.where(large, tail, c.where(lower, p, q))
    other = c("Sub", 1.0, found)
    value = c.where(is_lower, other, found) if upper_wanted else c.where(is_lower, found, other)
    all_, none = (0.0, 1.0) if upper_wanted else (1.0, 0.0)
    zero_a, zero_x = c.test("Equal", a, 0.0), c.test("Equal", x, 0.0)
    unknown = c.either(*(apply(g, "IsNaN", item, dtype=DType.BOOL) for item in (a, x)))
    # torch's order, from the last to the first.
    cases = [(unknown, math.nan), (infinite_x, all_), (infinite_a, none), (c.both(infinite_a, infinite_x), math.nan), (zero_x, none),
             (zero_a, math.nan), (c.both(zero_a, c.test("Greater", x, 0.0)), all_),
             (c.either(c.test("Less", x, 0.0), c.test("Less", a, 0.0)), math.nan)]
    for condition, limit in cases:
        value = c.where(condition, limit, value)
    return value


@lowers("igamma")
@in_float64
def igamma(g: Lowering, a: Tensor, x: Tensor) -> Tensor:
    return _incomplete(g, a, x, False)


@lowers("igammac")
@in_float64
def igammac(g: Lowering, a: Tensor, x: Tensor) -> Tensor:
    return _incomplete(g, a, x, True)
