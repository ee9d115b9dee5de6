"""Modified Bessel functions of the first kind, element by element, computed in float64 and rounded to the operand's dtype."""

from __future__ import annotations

import math
from math import factorial

from converter.formulas import Formula, Space, Term, in_float64, polynomial
from converter.ir import Array
from converter.ops.special import real
from converter.opset import ARRAYS, op

NEAR = 20.0
"""Up to here the power series, beyond it the asymptotic one, whose smallest term is e^-40 here."""
POWERS, INVERSES = 48, 24


def power_series(order: int) -> list[float]:
    """Coefficients of I_n(x) · (2 / x)ⁿ in (x / NEAR)², all positive (Abramowitz & Stegun 9.6.10)."""
    return [(NEAR / 2) ** (2 * k) / (factorial(k) * factorial(k + order)) for k in range(POWERS)]


def asymptotic_series(order: int) -> list[float]:
    """Coefficients of I_n(x) · e^-x · √(2πx) in 1 / x (Abramowitz & Stegun 9.7.1)."""
    found = [1.0]
    for k in range(1, INVERSES):
        found.append(-found[-1] * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k))
    return found


def _scaled(order: int) -> Formula:
    """I_n(x) · e^-|x|."""
    @in_float64
    def formula(f: Space, x: Term) -> Term:
        size = f.abs(x)
        near, far = f.minimum(size, NEAR), f.maximum(size, NEAR)
        # In a variable up to 1: ONNX Runtime takes a term that float32 rounds to 0 for 0 and leaves it out, in float64 too.
        part = near / NEAR
        small = polynomial(power_series(order), part * part) * f.exp(-near)
        large = polynomial(asymptotic_series(order), f.reciprocal(far)) / f.sqrt(far * (2 * math.pi))
        if order % 2:
            value = f.where(size <= NEAR, small * (near * 0.5), large) * f.sign(x)
        else:
            value = f.where(size <= NEAR, small, large)
        return f.where(f.isnan(x), x, value)

    return formula


_i0e, _i1e = _scaled(0), _scaled(1)


@op(infer=real, formula=_i0e)
def i0e(x: Array) -> Array:
    """e^-|x| times the modified Bessel function of the first kind of order 0: torch.special.i0e."""
    return _i0e(ARRAYS, x)


@op(infer=real, formula=_i1e)
def i1e(x: Array) -> Array:
    """e^-|x| times the modified Bessel function of the first kind of order 1: torch.special.i1e."""
    return _i1e(ARRAYS, x)
