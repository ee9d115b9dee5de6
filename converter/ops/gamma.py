"""The gamma function's kin, element by element: its logarithm and that one's derivatives, and Hurwitz's zeta function.

All are computed in float64 and rounded to the operand's dtype.
"""

from __future__ import annotations

import numpy as np

from converter.facts import Facts
from converter.ops._rules import Array, elementwise
from converter.ops.special import in_float64, polynomial, real
from converter.opset import op

# Bernoulli numbers over their factors in Stirling's series (Abramowitz & Stegun 6.1.41 and 6.3.18).
STIRLING = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400]
DIGAMMA = [-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12, 3617 / 8160]
STIRLING_FROM, DIGAMMA_FROM = 8, 10
"""Where the series hold to float64's precision; smaller arguments are shifted up by as much."""

_EULER = 0.57721566490153286061


def _zeta_less_one(k: int) -> float:
    """ζ(k) - 1, the sum of n^-k from n = 2, with Euler and Maclaurin's remainder from 30."""
    return float(np.sum(np.arange(2.0, 30.0)[::-1] ** -k) + 30.0 ** (1 - k) / (k - 1) + 0.5 * 30.0**-k + k / 12 * 30.0 ** (-k - 1)
                 - k * (k + 1) * (k + 2) / 720 * 30.0 ** (-k - 3) + k * (k + 1) * (k + 2) * (k + 3) * (k + 4) / 30240 * 30.0 ** (-k - 5)
                 - k * (k + 1) * (k + 2) * (k + 3) * (k + 4) * (k + 5) * (k + 6) / 1209600 * 30.0 ** (-k - 7))


# log Γ(2 + z) over z (Abramowitz & Stegun 6.1.33).
NEAR_TWO = [1.0 - _EULER, *((-1) ** k * _zeta_less_one(k) / k for k in range(2, 24))]
NEAR = 0.3

# Bernoulli numbers over their factorials, B₂ₖ / (2k)!, in Euler and Maclaurin's remainder (Abramowitz & Stegun 23.1.30).
REMAINDER = [1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600, -3617 / 10670622842880000,
             43867 / 5109094217170944000, -174611 / 802857662698291200000]
TERMS = 10
"""How many terms of ζ's sum stand before the remainder."""


def _shifted(x: Array, bound: int) -> Array:
    return np.where(x < bound, x + bound, x)


def lgamma_positive(x: Array) -> Array:
    """log Γ(x) for x > 0: Stirling's series after a shift; around 1 and 2, where it vanishes, its series there."""
    low = np.minimum(x, float(STIRLING_FROM))
    product = np.ones_like(x)
    for step in range(STIRLING_FROM):
        product = product * (low + step)
    large = _shifted(x, STIRLING_FROM)
    series = polynomial(STIRLING, 1.0 / (large * large)) / large
    value = (large - 0.5) * np.log(large) - large + 0.5 * np.log(2 * np.pi) + series
    value = value - np.where(x < STIRLING_FROM, np.log(product), 0.0)
    z = np.where(x < 1.5, x - 1.0, x - 2.0)
    near = np.abs(z) < NEAR
    z = np.where(near, z, 0.0)
    around = z * polynomial(NEAR_TWO, z)
    around = np.where(x < 1.5, around - np.log1p(z), around)
    return np.where(np.isinf(x), np.inf, np.where(near, around, value))


def _lgamma64(x: Array) -> Array:
    positive = lgamma_positive(np.where(x > 0, x, 1.0))
    below = np.where((x < 0) & np.isfinite(x), x, -0.5)
    # Reflection: log |Γ(x)| = log(π / |sin πx|) - log Γ(1 - x). The argument of the sine is reduced exactly.
    sine = np.abs(np.sin(np.pi * (below - np.rint(below))))
    reflected = np.log(np.pi) - np.log(sine) - lgamma_positive(1.0 - below)
    reflected = np.where((x == np.floor(x)) | np.isinf(x), np.inf, reflected)
    return np.where(np.isnan(x), x, np.where(x > 0, positive, np.where(x == 0, np.inf, reflected)))


def _digamma_positive(x: Array) -> Array:
    low = np.minimum(x, float(DIGAMMA_FROM))
    total = np.zeros_like(x)
    for step in reversed(range(DIGAMMA_FROM)):
        total = total - 1.0 / (low + step)
    large = _shifted(x, DIGAMMA_FROM)
    inverse = 1.0 / (large * large)
    series = np.log(large) - 0.5 / large + inverse * polynomial(DIGAMMA, inverse)
    return np.where(x < DIGAMMA_FROM, total + series, series)


def _digamma64(x: Array) -> Array:
    positive = _digamma_positive(np.where(x > 0, x, 1.0))
    below = np.where((x < 0) & np.isfinite(x), x, -0.5)
    fraction = below - np.rint(below)
    reflected = _digamma_positive(1.0 - below) - np.pi / np.tan(np.pi * fraction)
    reflected = np.where((x == np.floor(x)) | np.isinf(x), np.nan, reflected)
    return np.where(np.isnan(x), x, np.where(x > 0, positive, np.where(x == 0, np.copysign(np.inf, -x), reflected)))


def _zeta_positive(s: Array, q: Array) -> Array:
    """Σ (q + k)^-s for s > 1 and q > 0, by Euler and Maclaurin (Abramowitz & Stegun 23.1.30)."""
    total = np.zeros(np.broadcast_shapes(s.shape, q.shape))
    for step in reversed(range(TERMS)):
        total = total + (q + step) ** -s
    end = q + TERMS
    power = end**-s
    series = np.zeros_like(total)
    # Horner's scheme in (s + 2k - 1)(s + 2k) / end².
    for k in reversed(range(len(REMAINDER))):
        factor = s / end if k == 0 else (s + (2 * k - 1)) / end * ((s + 2 * k) / end)
        series = (REMAINDER[k] + series) * factor
    tail = power * (end / (s - 1.0) + 0.5 + series)
    # Where the first term left out is nothing, its factor may be infinite.
    return total + np.where(power <= np.finfo(np.float64).eps * 2.0**-30 * total, 0.0, tail)


def _zeta64(s: Array, q: Array) -> Array:
    exponent = np.where(s > 1.0, s, 2.0)
    positive = _zeta_positive(exponent, np.where(q > 0, q, 1.0))
    # Below 0, for integer s: Σ over k of (q + k)^-s, with f the fraction of q, is ζ(s, f) + (-1)^s (ζ(s, 1 - f) - ζ(s, 1 - q)).
    # 1 - f is taken as ⌈q⌉ - q, which keeps the digits of a q just below 0.
    whole = np.where((s == np.floor(s)) & (s > 1.0) & np.isfinite(s), s, 2.0)
    below = np.where((q < 0) & (q != np.floor(q)), q, -0.5)
    fraction = below - np.floor(below)
    sign = np.where(np.fmod(whole, 2.0) == 0.0, 1.0, -1.0)
    mirrored = _zeta_positive(whole, np.ceil(below) - below) - _zeta_positive(whole, 1.0 - below)
    negative = np.where(s == np.floor(s), _zeta_positive(whole, fraction) + sign * mirrored, np.nan)
    value = np.where(q > 0, positive, np.where(q == np.floor(q), np.inf, negative))
    value = np.where(np.isnan(s) | np.isnan(q), np.nan, value)
    return np.where(s == 1.0, np.inf, np.where(s < 1.0, np.nan, value))


_lgamma, _digamma = in_float64(_lgamma64), in_float64(_digamma64)


@op(infer=real, facts=Facts(domain=((0.1, 4.0),)))
def lgamma(x: Array) -> Array:
    """log |Γ(x)|; infinite at 0 and at the negative integers."""
    return _lgamma(x)


@op(infer=real, facts=Facts(domain=((0.1, 4.0),)))
def digamma(x: Array) -> Array:
    """Γ'(x) / Γ(x); an infinity of the opposite sign at 0, NaN at the negative integers."""
    return _digamma(x)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True, facts=Facts(domain=((1.1, 4.0), (0.1, 4.0))))
def zeta(s: Array, q: Array) -> Array:
    """Hurwitz's zeta function ζ(s, q), the sum of (q + k)^-s over k = 0, 1, …: torch.special.zeta.

    Infinite at s = 1 and where q is 0 or a negative integer; NaN for s < 1, and for negative q and an s that is no integer.
    """
    return _zeta64(np.asarray(s, np.float64), np.asarray(q, np.float64)).astype(np.result_type(s, q), copy=False)
