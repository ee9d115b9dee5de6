"""The least and the greatest value that a size expression can have, given the ranges of its symbols."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from converter.dims import Dim
from converter.ir import DimRange

Interval = tuple[float, float]


def interval(value: Dim, ranges: Mapping[str, DimRange]) -> Interval:
    """Bounds that hold for every size in the ranges, both ends included; they need not be reached. Infinite where unknown.

    The terms of a sum are taken one by one, so the bounds of `a - a // 2` are wider than they must be.
    """
    if isinstance(value, int):
        return value, value
    low, high = 0.0, 0.0
    for monomial, coefficient in value.terms.items():
        least, most = 1.0, 1.0
        for atom, power in monomial:
            for _ in range(power):
                least, most = _product((least, most), _atom(atom, ranges))
        least, most = _product((least, most), (coefficient, coefficient))
        low, high = low + least, high + most
    return low, high


def _product(left: Interval, right: Interval) -> Interval:
    ends = [0.0 if not a or not b else a * b for a in left for b in right]
    return min(ends), max(ends)


def _atom(atom: Any, ranges: Mapping[str, DimRange]) -> Interval:
    if atom[0] == "symbol":
        span = ranges.get(atom[1])
        return (0.0, math.inf) if span is None else (span.min, math.inf if span.max is None else span.max)
    left, right = interval(atom[1], ranges), interval(atom[2], ranges)
    if atom[0] in ("max", "min"):
        choose = max if atom[0] == "max" else min
        return choose(left[0], right[0]), choose(left[1], right[1])
    if right[0] <= 0:
        return -math.inf, math.inf
    if atom[0] == "%":
        within = left[0] >= 0 and left[1] < right[0]
        return left if within else (0.0, right[1] - 1)
    ends = [_floor(a, b) for a in left for b in right]
    return min(ends), max(ends)


def _floor(over: float, under: float) -> float:
    if math.isinf(over):
        return over if not math.isinf(under) else 0.0 if over > 0 else -math.inf
    if math.isinf(under):
        return 0.0 if over >= 0 else -1.0
    return float(int(over) // int(under))
