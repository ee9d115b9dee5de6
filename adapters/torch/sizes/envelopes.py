"""Conditions on sizes that are rounded from floats, such as `h - round(0.75 * h) >= 0`, shown by lines below and above the sizes.

A rounded number lies within 1 of what is rounded, so that an expression lies between two parallel planes over its symbols. Where the
lower one rises and is 0 or more from some size on, only the sizes before are to be looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import sympy

from adapters.torch.sizes.requirements import tester
from converter.ir import DimRange

LOOKED_AT = 4096
"""Sizes before the planes decide that are looked at one by one, at most."""
FLOATS = Fraction(1, 1000)
"""What float64 may add or take away in one operation of sizes below 2**31, many times over."""
ROUNDED: Mapping[str, tuple[Fraction | int, Fraction | int]] = {
    "RoundToInt": (Fraction(-1, 2), Fraction(1, 2)), "FloorToInt": (-1, 0), "floor": (-1, 0), "TruncToInt": (-1, 1),
    "CeilToInt": (0, 1), "ceiling": (0, 1)}


@dataclass(frozen=True)
class Envelope:
    """Between Σ slope · size + low and Σ slope · size + high."""

    slopes: Mapping[str, Fraction]
    low: Fraction
    high: Fraction

    def plus(self, other: Envelope) -> Envelope:
        """Of a sum."""
        slopes = {name: self.slopes.get(name, Fraction(0)) + other.slopes.get(name, Fraction(0)) for name in {*self.slopes, *other.slopes}}
        return Envelope({name: slope for name, slope in slopes.items() if slope}, self.low + other.low, self.high + other.high)

    def times(self, factor: Fraction) -> Envelope:
        """Of a multiple."""
        ends = sorted((self.low * factor, self.high * factor))
        return Envelope({name: slope * factor for name, slope in self.slopes.items()}, *ends)

    def widened(self, below: Fraction | int, above: Fraction | int) -> Envelope:
        """With both planes moved."""
        return Envelope(self.slopes, self.low + below, self.high + above)


def _constant(value: Fraction | int) -> Envelope:
    return Envelope({}, Fraction(value), Fraction(value))


def envelope(value: Any) -> Envelope | None:
    """The planes around a sympy expression over sizes, or None for arithmetic that this does not know."""
    if value.is_Integer or value.is_Rational:
        return _constant(Fraction(int(value.p), int(value.q)))
    if value.is_Float:
        return _constant(Fraction(float(value)))
    if value.is_Symbol:
        return Envelope({str(value): Fraction(1)}, Fraction(0), Fraction(0))
    kind, parts = type(value).__name__, [envelope(item) for item in value.args]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not known:
        return None
    fixed = [part.low for part in known if not part.slopes and part.low == part.high]
    loose = [part for part in known if part.slopes or part.low != part.high]
    slack = FLOATS if value.atoms(sympy.Float) or "True" in kind else 0
    if kind in ("ToFloat", "Identity"):
        return known[0]
    if kind == "Add":
        return reduce(Envelope.plus, known).widened(-slack, slack)
    if kind == "Mul" and len(loose) <= 1:
        factor = math.prod(fixed, start=Fraction(1))
        return loose[0].times(factor).widened(-slack, slack) if loose else _constant(factor)
    if kind in ROUNDED:
        return known[0].widened(*ROUNDED[kind])
    if len(known) == 2 and not known[1].slopes and known[1].low == known[1].high > 0:
        divisor = known[1].low
        if kind in ("FloorDiv", "CleanDiv"):
            return known[0].times(1 / divisor).widened(-1, 0)
        if kind in ("IntTrueDiv", "FloatTrueDiv"):
            return known[0].times(1 / divisor).widened(-slack, slack)
        if kind in ("Mod", "PythonMod"):
            return Envelope({}, Fraction(0), divisor - 1)
    return None


def holds_by_planes(condition: Any, ranges: Mapping[str, DimRange]) -> bool:
    """Whether a comparison can be shown to hold at every size in the ranges."""
    relation = getattr(condition, "rel_op", None)
    if relation not in (">=", ">", "<=", "<", "!="):
        return False
    found = envelope(condition.lhs - condition.rhs)
    if found is None or not all(name in ranges for name in found.slopes):
        return False
    least = Fraction(1) if relation not in (">=", "<=") else Fraction(0)
    sides = {">": 1, ">=": 1, "<": -1, "<=": -1}
    directions = [sides[relation]] if relation in sides else [1, -1]
    return any(_rises(found.times(Fraction(side)), least, condition, ranges) for side in directions)


def _rises(found: Envelope, least: Fraction, condition: Any, ranges: Mapping[str, DimRange]) -> bool:
    """Whether the lower plane is `least` or more from some size on, and the condition holds at the sizes before."""
    if any(slope < 0 for slope in found.slopes.values()):
        return False
    lowest = sum((slope * ranges[name].min for name, slope in found.slopes.items()), found.low)
    if lowest >= least:
        return True
    if len(condition.free_symbols) != 1 or not found.slopes:
        return False
    (name, slope), = found.slopes.items()
    span, first = ranges[name], math.ceil((least - found.low) / slope)
    before = range(span.min, min(first, first if span.max is None else span.max + 1), span.step)
    holds = tester(condition)
    return len(before) <= LOOKED_AT and all(holds({name: size}) for size in before)
