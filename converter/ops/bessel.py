"""Modified Bessel functions of the first kind, element by element, computed in float64 and rounded to the operand's dtype."""

from __future__ import annotations

from math import factorial

import numpy as np

from converter.ops._rules import Array
from converter.ops.special import in_float64, polynomial, real
from converter.opset import op

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


def _scaled(x: Array, order: int) -> Array:
    """I_n(x) · e^-|x|."""
    size = np.abs(x)
    near = np.minimum(size, NEAR)
    small = polynomial(power_series(order), (near / NEAR) ** 2) * np.exp(-near) * (0.5 * near) ** order
    far = np.maximum(size, NEAR)
    large = polynomial(asymptotic_series(order), 1.0 / far) / np.sqrt(2 * np.pi * far)
    value = np.where(size <= NEAR, small, large)
    return np.where(np.isnan(x), x, np.copysign(value, x) if order % 2 else value)


_i0e, _i1e = in_float64(lambda x: _scaled(x, 0)), in_float64(lambda x: _scaled(x, 1))


@op(infer=real)
def i0e(x: Array) -> Array:
    """e^-|x| times the modified Bessel function of the first kind of order 0: torch.special.i0e."""
    return _i0e(x)


@op(infer=real)
def i1e(x: Array) -> Array:
    """e^-|x| times the modified Bessel function of the first kind of order 1: torch.special.i1e."""
    return _i1e(x)
