"""The least and the greatest value that a size expression can have, given the ranges of its symbols."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

from converter.dims import Dim, Expr
from converter.ir import DimRange
from converter.size_writer import SizeWriter

Interval = tuple[float, float]


def interval(value: Dim, ranges: Mapping[str, DimRange]) -> Interval:
    """Bounds that hold for every size in the ranges, both ends included; they need not be reached. Infinite where unknown.

    The terms of a sum are taken one by one, once as they are, and once with quotients `a // n` as what lies between
    `(a - n + 1) / n` and `a / n`, so that `a - a // 2` is known to be positive.
    """
    return _Bounds(ranges).size(value)


def may_be_empty(sizes: Iterable[Dim], ranges: Mapping[str, DimRange]) -> bool:
    """Whether one of the sizes can be 0 where the symbols are in their ranges."""
    return any(interval(size, ranges)[0] < 1 for size in sizes)


class _Bounds(SizeWriter[Interval]):
    def __init__(self, ranges: Mapping[str, DimRange]) -> None:
        super().__init__()
        self.ranges = ranges

    def number(self, value: int) -> Interval:
        return value, value

    def symbol(self, name: str) -> Interval:
        span = self.ranges.get(name)
        return (0.0, math.inf) if span is None else (span.min, math.inf if span.max is None else span.max)

    def combine(self, function: str, left: Interval, right: Interval) -> Interval:
        return _FUNCTIONS[function](left, right)

    def sum(self, value: Expr) -> Interval:
        low, high = super().sum(value)
        least, most = (self._of_relaxed(_relaxed(value, upward))[upward] for upward in (False, True))
        return max(low, math.ceil(least) if math.isfinite(least) else least), min(high, math.floor(most) if math.isfinite(most) else most)

    def _of_relaxed(self, terms: Mapping[Any, Fraction]) -> Interval:
        low, high = 0.0, 0.0
        for monomial, coefficient in terms.items():
            least, most = _product(self.product(monomial) if monomial else (1, 1), (float(coefficient), float(coefficient)))
            low, high = low + least, high + most
        # Sums of fractions are rounded: a bound that is next to an integer is that integer.
        return tuple(round(end) if math.isfinite(end) and abs(end - round(end)) < 1e-9 else end for end in (low, high))  # type: ignore[return-value]


def _relaxed(value: Dim, upward: bool) -> dict[Any, Fraction]:
    """A sum of monomials, with fractions, that is nowhere below the value, or nowhere above: quotients by integers are taken apart."""
    total: dict[Any, Fraction] = {}
    for monomial, coefficient in value.terms.items() if isinstance(value, Expr) else [((), value)]:
        atom = monomial[0][0] if len(monomial) == 1 and monomial[0][1] == 1 else None
        if atom is None or atom[0] != "//" or not isinstance(atom[2], int) or atom[2] < 1:
            total[monomial] = total.get(monomial, Fraction(0)) + coefficient
            continue
        more = upward == (coefficient > 0)
        parts = _relaxed(atom[1], more)
        parts[()] = parts.get((), Fraction(0)) - (0 if more else atom[2] - 1)
        for inner, count in parts.items():
            total[inner] = total.get(inner, Fraction(0)) + Fraction(coefficient, atom[2]) * count
    return total


def _product(left: Interval, right: Interval) -> Interval:
    ends = [0.0 if not a or not b else a * b for a in left for b in right]
    return min(ends), max(ends)


def _remainder(left: Interval, right: Interval) -> Interval:
    if left[0] >= 0 and left[1] < right[0]:
        return left
    return min(0, right[0] + 1), max(0, min(left[1], right[1] - 1) if left[0] >= 0 and right[0] >= 0 else right[1] - 1)


def _quotient(left: Interval, right: Interval) -> Interval:
    """By every divisor but 0, by which nothing is divided: the ends lie at the largest and the smallest ones of either sign."""
    divisors = [divisor for divisor in {*right, *(one for one in (-1, 1) if right[0] <= one <= right[1])} if divisor]
    ends = [_floor(a, b) for a in left for b in divisors] or [0]
    return min(ends), max(ends)


def _floor(over: float, under: float) -> float:
    if math.isinf(under):
        return 0 if not over or (over > 0) == (under > 0) else -math.inf if math.isinf(over) else -1
    if math.isinf(over):
        return over if under > 0 else -over
    return int(over) // int(under)


_FUNCTIONS: Mapping[str, Callable[[Interval, Interval], Interval]] = {
    "+": lambda left, right: (left[0] + right[0], left[1] + right[1]), "-": lambda left, right: (left[0] - right[1], left[1] - right[0]),
    "*": _product, "//": _quotient, "%": _remainder, "max": lambda left, right: (max(left[0], right[0]), max(left[1], right[1])),
    "min": lambda left, right: (min(left[0], right[0]), min(left[1], right[1]))}
