"""Functions of complex numbers: exponentials, powers, hyperbolic and inverse functions, moduli.

The inverse functions follow W. Kahan, "Branch cuts for complex elementary functions" (1987): square roots on either side
of a cut, told apart by the sign of a zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from converter.formulas import Space, Term, dtype_of
from converter.ir import DType
from converter.passes.complex_numbers.pairs import Pair, each_part, on_pairs
from converter.passes.complex_numbers.rules.arithmetic import is_zero, product, reciprocal

LARGEST_PRODUCT = 16
"""Up to this integer a power is multiplied out."""


def shifted(x: Pair, value: float) -> Pair:
    """x + value."""
    return Pair(x.real + value, x.imag)


def negated(x: Pair) -> Pair:
    return Pair(-x.real, -x.imag)


def turned(x: Pair) -> Pair:
    """i x."""
    return Pair(-x.imag, x.real)


def turned_back(x: Pair) -> Pair:
    """-i x."""
    return Pair(x.imag, -x.real)


# Moduli ------------------------------------------------------------------------------------------------------------------------


@on_pairs("abs")
def absolute(f: Space, x: Pair) -> Term:
    return f.hypot(x.real, x.imag)


@on_pairs("vector_norm")
def vector_norm(f: Space, x: Pair, **attributes: Any) -> Term:
    return f.vector_norm(absolute(f, x), **attributes)


@on_pairs("var")
def var(f: Space, x: Pair, **attributes: Any) -> Term:
    return f.var(x.real, **attributes) + f.var(x.imag, **attributes)


# Exponentials ----------------------------------------------------------------------------------------------------------------


@on_pairs("exp")
def exp(f: Space, x: Pair) -> Pair:
    size = f.exp(x.real)
    return Pair(size * f.cos(x.imag), size * f.sin(x.imag))


@on_pairs("expm1")
def expm1(f: Space, x: Pair) -> Pair:
    """(eᵃ - 1) cos b - 2 sin²(b/2), and eᵃ sin b."""
    half = f.sin(x.imag * 0.5)
    return Pair(f.expm1(x.real) * f.cos(x.imag) - half * half * 2.0, f.exp(x.real) * f.sin(x.imag))


@on_pairs("log")
def log(f: Space, x: Pair) -> Pair:
    return Pair(f.log(absolute(f, x)), f.atan2(x.imag, x.real))


@on_pairs("log1p")
def log1p(f: Space, x: Pair) -> Pair:
    """For |x| < 1/2, log1p(a (2 + a) + b²) / 2, so that no digit is lost to the 1."""
    whole = log(f, shifted(x, 1.0))
    near = x.real * (x.real + 2.0) + x.imag * x.imag
    inside = absolute(f, x) < 0.5
    return Pair(f.where(inside, f.log1p(f.where(inside, near, 0.0)) * 0.5, whole.real), whole.imag)


def _logarithm(base: int) -> Callable[[Space, Pair], Pair]:
    def function(f: Space, x: Pair) -> Pair:
        y = log(f, x)
        return Pair(y.real / math.log(base), y.imag / math.log(base))

    return function


on_pairs("log2")(_logarithm(2))
on_pairs("log10")(_logarithm(10))


@on_pairs("power")
def power(f: Space, x: Pair, y: Pair) -> Pair:
    """exp(y log x), in float64; a small integer is multiplied out.

    Of 0: 1 to the power 0, 0 to one whose real part is positive, else NaN.
    """
    exponent = y.value
    if exponent is not None and exponent.imag == 0 and exponent.real.is_integer() and abs(exponent.real) <= LARGEST_PRODUCT:
        return _multiplied_out(f, x, int(exponent.real))
    dtype = dtype_of(x.real)
    x, y = (each_part(f.astype, [item], {"dtype": DType.FLOAT64}) for item in (x, y))
    nothing = is_zero(f, x)
    result = exp(f, product(y, log(f, Pair(f.where(nothing, 1.0, x.real), x.imag))))
    rest = f.where(y.real > 0.0, f.full(shape=(), fill_value=0.0, dtype=DType.FLOAT64), math.nan)
    none = is_zero(f, y)
    result = Pair(f.where(nothing, f.where(none, 1.0, rest), result.real), f.where(nothing, f.where(none, 0.0, rest), result.imag))
    return each_part(f.astype, [result], {"dtype": dtype})


def _multiplied_out(f: Space, x: Pair, exponent: int) -> Pair:
    result, factor, rest = None, x, abs(exponent)
    while rest:
        if rest & 1:
            result = factor if result is None else product(result, factor)
        rest >>= 1
        if rest:
            factor = product(factor, factor)
    if result is None:
        zero = x.real - x.real
        return Pair(zero + 1.0, zero)
    return reciprocal(f, result) if exponent < 0 else result


# Roots, hyperbolic and inverse functions ------------------------------------------------------------------------------------


@on_pairs("sqrt")
def sqrt(f: Space, x: Pair) -> Pair:
    """The larger part is √((|x| + |a|) / 2), the other b over its double."""
    large = f.sqrt((absolute(f, x) + f.abs(x.real)) * 0.5)
    small = f.abs(x.imag) * 0.5 / f.where(f.equal(large, 0.0), 1.0, large)
    right = x.real >= 0.0
    imag = f.where(right, small, large)
    # On the cut, the sign of a zero says which side is meant.
    return Pair(f.where(right, large, small), f.where(f.signbit(x.imag), -imag, imag))


def _circular(outer: str, inner: str, negative: bool, swapped: bool) -> Callable[[Space, Pair], Pair]:
    """cos and cosh of the one part times sin and sinh of the other."""

    def function(f: Space, x: Pair) -> Pair:
        turning, growing = (x.imag, x.real) if swapped else (x.real, x.imag)
        grown, around = [f.cosh(growing), f.sinh(growing)], [f.cos(turning), f.sin(turning)]
        first, second = ("cos", "sin").index(outer), ("cosh", "sinh").index(inner)
        imag = around[1 - first] * grown[1 - second]
        return Pair(around[first] * grown[second], -imag if negative else imag)

    return function


on_pairs("cos")(_circular("cos", "cosh", True, False))
on_pairs("sin")(_circular("sin", "cosh", False, False))
on_pairs("cosh")(_circular("cos", "cosh", False, True))
on_pairs("sinh")(_circular("cos", "sinh", False, True))


@on_pairs("tanh")
def tanh(f: Space, x: Pair) -> Pair:
    """With e = exp(-2|a|): (±(1 - e²) + 4i e sin b cos b) / ((1 - e)² + 4 e cos² b), where nothing overflows or cancels."""
    doubled = f.abs(x.real) * -2.0
    e, lost = f.exp(doubled), f.expm1(doubled)
    sine, cosine = f.sin(x.imag), f.cos(x.imag)
    below = lost * lost + e * 4.0 * cosine * cosine
    return Pair(-f.expm1(doubled * 2.0) * f.sign(x.real) / below, e * 4.0 * sine * cosine / below)


on_pairs("tan")(lambda f, x: turned_back(tanh(f, turned(x))))


def _roots(f: Space, x: Pair) -> tuple[Pair, Pair]:
    """√(1 - x) and √(1 + x)."""
    return sqrt(f, shifted(negated(x), 1.0)), sqrt(f, shifted(x, 1.0))


def _cross(x: Pair, y: Pair) -> Term:
    """The imaginary part of conj(x) y."""
    return x.real * y.imag - x.imag * y.real


@on_pairs("asin")
def asin(f: Space, x: Pair) -> Pair:
    minus, plus = _roots(f, x)
    return Pair(f.atan2(x.real, minus.real * plus.real - minus.imag * plus.imag), f.asinh(_cross(minus, plus)))


@on_pairs("acos")
def acos(f: Space, x: Pair) -> Pair:
    minus, plus = _roots(f, x)
    return Pair(f.atan2(minus.real, plus.real) * 2.0, f.asinh(_cross(plus, minus)))


@on_pairs("acosh")
def acosh(f: Space, x: Pair) -> Pair:
    minus, plus = sqrt(f, shifted(x, -1.0)), sqrt(f, shifted(x, 1.0))
    return Pair(f.asinh(minus.real * plus.real + minus.imag * plus.imag), f.atan2(minus.imag, plus.real) * 2.0)


on_pairs("asinh")(lambda f, x: turned_back(asin(f, turned(x))))


@on_pairs("atanh")
def atanh(f: Space, x: Pair) -> Pair:
    """log1p(4a / ((1 - a)² + b²)) / 4 on the right half, and its opposite on the left; atan2(2b, (1 - a)(1 + a) - b²) / 2."""
    size, squared = f.abs(x.real), x.imag * x.imag
    gap = 1.0 - size
    ratio = size * 4.0 / (gap * gap + squared)
    beside = (1.0 - x.real) * (x.real + 1.0) - squared
    return Pair(f.log1p(ratio) * 0.25 * f.sign(x.real), f.atan2(x.imag * 2.0, beside) * 0.5)


on_pairs("atan")(lambda f, x: turned_back(atanh(f, turned(x))))
