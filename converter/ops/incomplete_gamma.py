"""The regularized incomplete gamma functions, element by element, computed in float64 and rounded to the operands' dtype."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from converter.facts import Facts
from converter.formulas import Formula, Space, Term, constants, in_float64, polynomial
from converter.ir import Array, DType
from converter.ops._rules import broadcast_dims, elementwise
from converter.ops.gamma import NEAR, NEAR_TWO, STIRLING, lgamma_positive
from converter.opset import ARRAYS, op

LARGE = 20.0
"""From this a on, the density is integrated; below it, series and a continued fraction."""
DEPTH = 40.0
"""The integral ends where the density has fallen by e^-40."""
ROUNDS = 600
"""More than any series or continued fraction needs for a < 20."""
SMALL_TERMS = 26
EPS = float(np.finfo(np.float64).eps)
LEAST = 2.0**-50 - 1.0
"""An x that is nothing beside a counts as this part of it more than 0."""
NODES, WEIGHTS = (item.tolist() for item in np.polynomial.legendre.leggauss(48))
"""Gauss and Legendre's points in [-1, 1] and their weights."""


def _exponent(f: Space, mu: Term) -> Term:
    """μ - log(1 + μ), by log's series about 0: with t = μ / (2 + μ) it is μ·t - 2 (t³/3 + t⁵/5 + …)."""
    t = mu / (mu + 2.0)
    near = f.abs(t) < 0.25
    t = f.where(near, t, 0.0)
    square = t * t
    series = mu * t - square * t * 2.0 * polynomial([1.0 / (2 * k + 3) for k in range(13)], square)
    return f.where(near, series, mu - f.log1p(mu))


def _tail_integral(f: Space, a: Term, x: Term) -> Term:
    """The smaller of P and Q for a ≥ 20: that of the side of x away from a.

    With t = a (1 + μ), the density is √(a / 2π) / Γ*(a) · exp(-a (μ - log(1 + μ))) / (1 + μ), Γ* being Γ over Stirling's formula.
    """
    mu = f.maximum((x - a) / a, LEAST)
    up, beyond = mu >= 0.0, mu + 1.0
    side = f.where(up, 1.0, f.sign(mu))
    room = f.where(up, 1e300, beyond * 0.999)
    start = _exponent(f, mu)
    slope = a * f.abs(mu) / beyond
    bend = a * (2 * DEPTH) / (beyond * beyond)
    width = f.minimum(2 * DEPTH / (slope + f.sqrt(slope * slope + bend)), room)
    for _ in range(3):
        # Newton's steps to where the exponent has grown by DEPTH; convex, it is approached from beyond.
        end = mu + side * width
        missing = DEPTH - a * (_exponent(f, end) - start)
        width = f.minimum(width + missing * (end + 1.0) / (a * f.maximum(f.abs(end), 1e-300)), room)
    points = f.expand_dims(mu, axis=(-1,)) + f.expand_dims(side * width, axis=(-1,)) * constants(f, [0.5 * (item + 1.0) for item in NODES])
    fallen = f.expand_dims(a, axis=(-1,)) * (_exponent(f, points) - f.expand_dims(start, axis=(-1,)))
    density = f.exp(-fallen) / (points + 1.0)
    total = f.sum(density * constants(f, [0.5 * item for item in WEIGHTS]), axis=(-1,))
    inverse = f.reciprocal(a)
    correction = polynomial(STIRLING, inverse * inverse) * inverse
    return width * total * (f.sqrt(a * (0.5 / math.pi)) * f.exp(-(a * start + correction)))


def _lgamma_next(f: Space, a: Term) -> Term:
    """log Γ(1 + a) for a > 0, exact for small a too."""
    near = a < NEAR
    z = f.where(near, a, 0.0)
    return f.where(near, z * polynomial(NEAR_TWO, z) - f.log1p(z), lgamma_positive(f, a + 1.0))


def _rounds(f: Space, step: Callable[..., tuple[Term, ...]], going: Callable[..., Term], *values: Term, carried: int) -> tuple[Term, ...]:
    """The carried values after as many steps as any element needs; `step` and `going` take the space, a counter from 1, and all values."""
    def condition(f: Space, count: Term, *values: Term) -> tuple[Term]:
        return (f.any(going(f, *values)) & (count < float(ROUNDS)),)

    def body(f: Space, count: Term, *values: Term) -> tuple[Term, ...]:
        return (count + 1.0, *step(f, count, *values))

    first = f.full(shape=(), fill_value=1.0, dtype=DType.FLOAT64)
    return tuple(f.while_loop(first, *values, carried=1 + carried, condition=condition, body=body)[1:])


def _lower_series(f: Space, a: Term, x: Term) -> Term:
    """P(a, x) (Abramowitz & Stegun 6.5.29)."""
    def step(f: Space, count: Term, term: Term, total: Term, a: Term, x: Term) -> tuple[Term, ...]:
        term = term * (x / (a + count))
        return term, total + term

    def going(f: Space, term: Term, total: Term, a: Term, x: Term) -> Term:
        return term > total * (EPS / 4)

    one = f.full(shape=x.shape, fill_value=1.0, dtype=DType.FLOAT64)
    _, total = _rounds(f, step, going, one, one, a, x, carried=2)
    return total * f.exp(a * f.log(x) - x - _lgamma_next(f, a))


def _upper_fraction(f: Space, a: Term, x: Term) -> Term:
    """Q(a, x) by its continued fraction, evaluated forwards (Lentz; Numerical Recipes, 6.2)."""
    def step(f: Space, count: Term, b: Term, c: Term, d: Term, value: Term, change: Term, a: Term) -> tuple[Term, ...]:
        factor = (a - count) * count
        b = b + 2.0
        d = factor * d + b
        d = f.reciprocal(f.where(f.abs(d) < 1e-300, 1e-300, d))
        c = b + factor / c
        c = f.where(f.abs(c) < 1e-300, 1e-300, c)
        return b, c, d, value * (d * c), d * c

    def going(f: Space, b: Term, c: Term, d: Term, value: Term, change: Term, a: Term) -> Term:
        return f.abs(change - 1.0) > EPS

    b = x + 1.0 - a
    large = f.full(shape=x.shape, fill_value=1e300, dtype=DType.FLOAT64)
    first = f.reciprocal(b)
    value = _rounds(f, step, going, b, large, first, first, large, a, carried=5)[3]
    return value * f.exp(a * f.log(x) - x - lgamma_positive(f, a))


def _upper_small(f: Space, a: Term, x: Term) -> Term:
    """Q(a, x) for small x: 1 - xᵃ / Γ(1 + a) - xᵃ / Γ(a) · Σ (-x)ⁿ / (n! (a + n)), n from 1."""
    factor = -x
    total = factor / (a + 1.0)
    for k in range(2, SMALL_TERMS):
        factor = factor * (x * (-1.0 / k))
        total = total + factor / (a + float(k))
    power = a * f.log(x) - _lgamma_next(f, a)
    return -(f.expm1(power) + a * f.exp(power) * total)


def _incomplete(upper_wanted: bool) -> Formula:
    @in_float64
    def formula(f: Space, a: Term, x: Term) -> Term:
        shape = broadcast_dims(a.shape, x.shape)
        a, x = (item if item.shape == shape else f.broadcast_to(item, shape=shape) for item in (a, x))
        infinite_a, infinite_x = f.equal(a, math.inf), f.equal(x, math.inf)
        plain = (a > 0.0) & (x > 0.0) & ~(infinite_a | infinite_x)
        own, at = f.where(plain, a, 1.0), f.where(plain, x, 1.0)
        large = own >= LARGE
        tail = _tail_integral(f, f.where(large, own, LARGE), f.where(large, at, LARGE))
        little, low = f.where(large, 1.0, own), f.where(large, 1.0, at)
        # Where Q is not near 1, so that 1 - P would lose digits of it, it has a series of its own.
        small, beyond = ~large, low > 1.1
        upper = small & beyond & (low >= little)
        bound = f.where(low <= 0.5, -0.4 / f.log(f.minimum(low, 0.5)), low * 1.1)
        upper_small = small & ~beyond & (bound >= little)
        lower = small & ~(upper | upper_small)
        p = _lower_series(f, f.where(lower, little, 1.0), f.where(lower, low, 1.0))
        q = _upper_fraction(f, f.where(upper, little, 1.0), f.where(upper, low, 2.0))
        q = f.where(upper_small, _upper_small(f, f.where(upper_small, little, 1.0), f.where(upper_small, low, 1.0)), q)
        found = f.where(large, tail, f.where(lower, p, q))
        is_lower, other = lower | large & (at < own), 1.0 - found
        value = f.where(is_lower, other, found) if upper_wanted else f.where(is_lower, found, other)
        all_, none = (0.0, 1.0) if upper_wanted else (1.0, 0.0)
        zero_a, zero_x = f.equal(a, 0.0), f.equal(x, 0.0)
        # Limits, in torch's order from the last to the first: below infinite x all of the mass, above it for infinite a and for x = 0,
        # below for a = 0, NaN outside.
        for condition, limit in ((f.isnan(a) | f.isnan(x), math.nan), (infinite_x, all_), (infinite_a, none),
                                 (infinite_a & infinite_x, math.nan), (zero_x, none), (zero_a, math.nan), (zero_a & (x > 0.0), all_),
                                 ((x < 0.0) | (a < 0.0), math.nan)):
            value = f.where(condition, limit, value)
        return value

    return formula


_lower, _upper = _incomplete(False), _incomplete(True)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True, facts=Facts(domain=((0.1, 4.0),)), formula=_lower)
def igamma(a: Array, x: Array) -> Array:
    """The regularized lower incomplete gamma function P(a, x), ∫₀ˣ tᵃ⁻¹ e⁻ᵗ dt / Γ(a): torch.special.gammainc.

    NaN for negative a or x; 1 for a = 0, unless x is 0 too.
    """
    return _lower(ARRAYS, a, x)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True, facts=Facts(domain=((0.1, 4.0),)), formula=_upper)
def igammac(a: Array, x: Array) -> Array:
    """The regularized upper incomplete gamma function Q(a, x) = 1 - P(a, x): torch.special.gammaincc."""
    return _upper(ARRAYS, a, x)
