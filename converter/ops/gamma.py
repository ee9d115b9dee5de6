"""The gamma function's kin, element by element: its logarithm and that one's derivatives, and Hurwitz's zeta function.

All are computed in float64 and rounded to the operand's dtype.
"""

from __future__ import annotations

import math

import numpy as np

from converter.facts import Facts
from converter.formulas import Space, Term, in_float64, polynomial
from converter.ops._rules import elementwise
from converter.ops.special import real
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


def _shifted(f: Space, x: Term, bound: int) -> tuple[Term, Term, Term]:
    """(whether x is below the bound, x or the bound if that is less, x moved up by the bound where it is below)."""
    below = x < float(bound)
    return below, f.minimum(x, float(bound)), f.where(below, x + float(bound), x)


def lgamma_positive(f: Space, x: Term) -> Term:
    """log Γ(x) for x > 0, float64: Stirling's series after a shift; around 1 and 2, where it vanishes, its series there."""
    below, low, large = _shifted(f, x, STIRLING_FROM)
    product = low
    for step in range(1, STIRLING_FROM):
        product = product * (low + float(step))
    inverse = f.reciprocal(large)
    value = (large - 0.5) * f.log(large) - large + 0.5 * math.log(2 * math.pi) + polynomial(STIRLING, inverse * inverse) * inverse
    value = value - f.where(below, f.log(product), 0.0)
    first = x < 1.5
    z = f.where(first, x - 1.0, x - 2.0)
    near = f.abs(z) < NEAR
    z = f.where(near, z, 0.0)
    around = z * polynomial(NEAR_TWO, z) - f.where(first, f.log1p(z), 0.0)
    return f.where(f.equal(x, math.inf), x, f.where(near, around, value))


def _mirrored(f: Space, x: Term) -> tuple[Term, Term, Term]:
    """(where x > 0, a positive argument: x, or 1 - x below; π times the fraction below, exact, between -1/2 and 1/2)."""
    above = x > 0.0
    return above, f.where(above, x, 1.0 - x), (x - f.round(x)) * math.pi


def _is_whole(f: Space, x: Term) -> Term:
    return f.equal(x, f.floor(x))


@op(infer=real, facts=Facts(domain=((0.1, 4.0),)))
@in_float64
def lgamma(f: Space, x: Term) -> Term:
    """log |Γ(x)|; infinite at 0 and at the negative integers.

    Below 0, by reflection: log |Γ(x)| = log(π / |sin πx|) - log Γ(1 - x).
    """
    above, argument, turn = _mirrored(f, x)
    value = lgamma_positive(f, argument)
    reflected = math.log(math.pi) - f.log(f.abs(f.sin(turn))) - value
    value = f.where(above, value, f.where(_is_whole(f, x), math.inf, reflected))
    return f.where(f.isnan(x), x, value)


@op(infer=real, facts=Facts(domain=((0.1, 4.0),)))
@in_float64
def digamma(f: Space, x: Term) -> Term:
    """Γ'(x) / Γ(x); an infinity of the opposite sign at 0, NaN at the negative integers.

    The asymptotic series after a shift (Abramowitz & Stegun 6.3.18); below 0, by reflection: ψ(x) = ψ(1 - x) - π / tan πx.
    """
    above, argument, turn = _mirrored(f, x)
    below, low, large = _shifted(f, argument, DIGAMMA_FROM)
    total = f.reciprocal(low + float(DIGAMMA_FROM - 1))
    for step in reversed(range(1, DIGAMMA_FROM - 1)):
        total = total + f.reciprocal(low + float(step))
    total = total + f.reciprocal(low)
    inverse = f.reciprocal(large * large)
    value = f.log(large) - 0.5 / large + inverse * polynomial(DIGAMMA, inverse) - f.where(below, total, 0.0)
    reflected = f.where(_is_whole(f, x), math.nan, value - math.pi * f.cos(turn) / f.sin(turn))
    # At 0, an infinity of the opposite sign.
    value = f.where(above, value, f.where(f.equal(x, 0.0), -f.reciprocal(x), reflected))
    return f.where(f.isnan(x), x, value)


def _zeta_positive(f: Space, s: Term, q: Term) -> Term:
    """Σ (q + k)^-s for s > 1 and q > 0, by Euler and Maclaurin (Abramowitz & Stegun 23.1.30)."""
    total = (q + float(TERMS - 1)) ** -s
    for step in reversed(range(1, TERMS - 1)):
        total = total + (q + float(step)) ** -s
    total = total + q ** -s
    end = q + float(TERMS)
    power = end ** -s
    # Horner's scheme in (s + 2k - 1)(s + 2k) / end².
    series = 0.0
    for k in reversed(range(len(REMAINDER))):
        factor = s / end if k == 0 else (s + (2.0 * k - 1.0)) / end * ((s + 2.0 * k) / end)
        series = (series + REMAINDER[k]) * factor
    tail = power * (end / (s - 1.0) + series + 0.5)
    # Where the first term left out is nothing, its factor may be infinite.
    return total + f.where(power <= total * (float(np.finfo(np.float64).eps) * 2.0**-30), 0.0, tail)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True, facts=Facts(domain=((1.1, 4.0), (0.1, 4.0))))
@in_float64
def zeta(f: Space, s: Term, q: Term) -> Term:
    """Hurwitz's zeta function ζ(s, q), the sum of (q + k)^-s over k = 0, 1, …: torch.special.zeta.

    Infinite at s = 1 and where q is 0 or a negative integer; NaN for s < 1, and for negative q and an s that is no integer.

    Below 0, for integer s and f the fraction of q: ζ(s, f) + (-1)^s (ζ(s, 1 - f) - ζ(s, 1 - q)).

    1 - f is taken as ⌈q⌉ - q, which keeps the digits of a q just below 0.
    """
    exponent = f.where(s > 1.0, s, 2.0)
    above, whole = q > 0.0, _is_whole(f, q)
    broken = f.logical_not(above | whole)
    first = _zeta_positive(f, exponent, f.where(above, q, f.where(broken, q - f.floor(q), 0.5)))
    near = _zeta_positive(f, exponent, f.where(broken, f.ceil(q) - q, 0.5))
    rest = near - _zeta_positive(f, exponent, f.where(broken, 1.0 - q, 1.0))
    mirrored = first + f.where(f.equal(f.fmod(exponent, 2.0), 1.0), -rest, rest)
    value = f.where(above, first, f.where(whole, math.inf, f.where(_is_whole(f, s), mirrored, math.nan)))
    value = f.where(f.isnan(s) | f.isnan(q), math.nan, value)
    return f.where(f.equal(s, 1.0), math.inf, f.where(s < 1.0, math.nan, value))
