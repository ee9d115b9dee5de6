"""The regularized incomplete gamma functions, element by element, computed in float64 and rounded to the operands' dtype."""

from __future__ import annotations

import numpy as np

from converter.facts import Facts
from converter.ops._rules import Array, elementwise
from converter.ops.gamma import NEAR, NEAR_TWO, STIRLING, lgamma_positive
from converter.ops.special import polynomial
from converter.opset import op

LARGE = 20.0
"""From this a on, the density is integrated; below it, series and a continued fraction."""
DEPTH = 40.0
"""The integral ends where the density has fallen by e^-40."""
ROUNDS = 600
"""More than any series or continued fraction needs for a < 20."""
SMALL_TERMS = 26
LEAST = 2.0**-50 - 1.0
"""An x that is nothing beside a counts as this part of it more than 0."""
NODES, WEIGHTS = (item.tolist() for item in np.polynomial.legendre.leggauss(48))
"""Gauss and Legendre's points in [-1, 1] and their weights."""


def exponent(mu: Array) -> Array:
    """μ - log(1 + μ), by log's series about 0: with t = μ / (2 + μ) it is μ·t - 2 (t³/3 + t⁵/5 + …)."""
    t = mu / (2.0 + mu)
    t = np.where(np.abs(t) < 0.25, t, 0.0)
    series = mu * t - 2.0 * t**3 * polynomial([1.0 / (2 * k + 3) for k in range(13)], t * t)
    return np.where(t == 0.0, mu - np.log1p(mu), series)


def _tail_integral(a: Array, x: Array) -> Array:
    """The smaller of P and Q for a ≥ 20: that of the side of x away from a.

    With t = a (1 + μ), the density is √(a / 2π) / Γ*(a) · exp(-a (μ - log(1 + μ))) / (1 + μ), Γ* being Γ over Stirling's formula.
    """
    mu = np.maximum((x - a) / a, LEAST)
    side = np.where(mu >= 0.0, 1.0, -1.0)
    room = np.where(mu >= 0.0, np.inf, 0.999 * (1.0 + mu))
    start = exponent(mu)
    slope = a * np.abs(mu) / (1.0 + mu)
    width = np.minimum(2 * DEPTH / (slope + np.sqrt(slope * slope + 2 * DEPTH * a / (1.0 + mu) ** 2)), room)
    for _ in range(3):
        # Newton's steps to where the exponent has grown by DEPTH; convex, it is approached from beyond.
        end = mu + side * width
        fallen = a * (exponent(end) - start)
        width = np.minimum(width + (DEPTH - fallen) * (1.0 + end) / (a * np.maximum(np.abs(end), 1e-300)), room)
    points = mu[..., None] + (side * width)[..., None] * (0.5 * (np.array(NODES) + 1.0))
    density = np.exp(-a[..., None] * (exponent(points) - start[..., None])) / (1.0 + points)
    inverse = 1.0 / a
    correction = polynomial(STIRLING, inverse * inverse) * inverse
    return 0.5 * width * (density @ np.array(WEIGHTS)) * np.sqrt(a / (2 * np.pi)) * np.exp(-a * start - correction)


def _lgamma_next(a: Array) -> Array:
    """log Γ(1 + a) for a > 0, exact for small a too."""
    z = np.where(a < NEAR, a, 0.0)
    return np.where(a < NEAR, z * polynomial(NEAR_TWO, z) - np.log1p(z), lgamma_positive(a + 1.0))


def _lower_series(a: Array, x: Array) -> Array:
    """P(a, x) (Abramowitz & Stegun 6.5.29)."""
    term = np.ones_like(x)
    total = term
    for k in range(1, ROUNDS):
        term = term * (x / (a + k))
        total = total + term
        if not np.any(term > np.finfo(np.float64).eps / 4 * total):
            break
    return total * np.exp(a * np.log(x) - x - _lgamma_next(a))


def _upper_fraction(a: Array, x: Array) -> Array:
    """Q(a, x) by its continued fraction, evaluated forwards (Lentz; Numerical Recipes, 6.2)."""
    b = x + 1.0 - a
    c = np.full_like(x, 1e300)
    d = 1.0 / b
    value = d
    for k in range(1, ROUNDS):
        factor = -k * (k - a)
        b = b + 2.0
        d = factor * d + b
        d = 1.0 / np.where(np.abs(d) < 1e-300, 1e-300, d)
        c = b + factor / c
        c = np.where(np.abs(c) < 1e-300, 1e-300, c)
        change = d * c
        value = value * change
        if not np.any(np.abs(change - 1.0) > np.finfo(np.float64).eps):
            break
    return value * np.exp(a * np.log(x) - x - lgamma_positive(a))


def _upper_small(a: Array, x: Array) -> Array:
    """Q(a, x) for small x: 1 - xᵃ / Γ(1 + a) - xᵃ / Γ(a) · Σ (-x)ⁿ / (n! (a + n)), n from 1."""
    total = np.zeros_like(x)
    factor = np.ones_like(x)
    for k in range(1, SMALL_TERMS):
        factor = factor * (-x / k)
        total = total + factor / (a + k)
    power = a * np.log(x) - _lgamma_next(a)
    return -np.expm1(power) - a * np.exp(power) * total


def _incomplete64(a: Array, x: Array) -> tuple[Array, Array]:
    """(P(a, x), Q(a, x))."""
    a, x = np.broadcast_arrays(a, x)
    plain = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    own, at = np.where(plain, a, 1.0), np.where(plain, x, 1.0)
    large = own >= LARGE
    tail = _tail_integral(np.where(large, own, LARGE), np.where(large, at, LARGE))
    little, low = np.where(large, 1.0, own), np.where(large, 1.0, at)
    # Where Q is not near 1, so that 1 - P would lose digits of it, it has a series of its own.
    upper = ~large & (low > 1.1) & (low >= little)
    bound = np.where(low <= 0.5, -0.4 / np.log(np.minimum(low, 0.5)), 1.1 * low)
    upper_small = ~large & (low <= 1.1) & (bound >= little)
    lower = ~large & ~upper & ~upper_small
    p = _lower_series(np.where(lower, little, 1.0), np.where(lower, low, 1.0))
    q = _upper_fraction(np.where(upper, little, 1.0), np.where(upper, low, 2.0))
    q = np.where(upper_small, _upper_small(np.where(upper_small, little, 1.0), np.where(upper_small, low, 1.0)), q)
    is_lower = np.where(large, at < own, lower)
    found = np.where(large, tail, np.where(lower, p, q))
    p, q = np.where(is_lower, found, 1.0 - found), np.where(is_lower, 1.0 - found, found)
    # Limits, in torch's order: NaN outside, all of the mass below x for a = 0, above it for x = 0 and for infinite a, below infinite x.
    cases = [(x < 0) | (a < 0), (a == 0) & (x > 0), a == 0, x == 0, np.isinf(a) & np.isinf(x), np.isinf(a), np.isinf(x),
             np.isnan(a) | np.isnan(x)]
    values = [np.nan, 1.0, np.nan, 0.0, np.nan, 0.0, 1.0, np.nan]
    return np.select(cases, values, p), np.select(cases, [1.0 - value for value in values], q)


def _incomplete(a: Array, x: Array, which: int) -> Array:
    found = _incomplete64(np.asarray(a, np.float64), np.asarray(x, np.float64))[which]
    return found.astype(np.result_type(a, x), copy=False)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True, facts=Facts(domain=((0.1, 4.0),)))
def igamma(a: Array, x: Array) -> Array:
    """The regularized lower incomplete gamma function P(a, x), ∫₀ˣ tᵃ⁻¹ e⁻ᵗ dt / Γ(a): torch.special.gammainc.

    NaN for negative a or x; 1 for a = 0, unless x is 0 too.
    """
    return _incomplete(a, x, 0)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True, facts=Facts(domain=((0.1, 4.0),)))
def igammac(a: Array, x: Array) -> Array:
    """The regularized upper incomplete gamma function Q(a, x) = 1 - P(a, x): torch.special.gammaincc."""
    return _incomplete(a, x, 1)
