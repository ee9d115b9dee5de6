"""Conditions between sizes that no range of one size can say: `b_1 >= a_1`, `q_1 % k_1 == 0`. A graph `requires` them.

    condition := size (">=" | "<=" | "==" | "!=") size

A condition is held as one size that is compared with zero, so that two that say the same compare equal. Its text has the
terms that are added on the left and those that are taken away on the right, or the other way about where that leaves an
integer on the left; an equation between two other sizes begins with the side whose text comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor, gcd

from converter.dims import Dim, Expr, evaluate, substitute, symbols
from converter.errors import GraphError
from converter.size_text import MAX_TEXT, parse

RELATIONS = (">=", "==", "!=")
_COMPARISON = re.compile(r"(>=|<=|==|!=)")


@dataclass(frozen=True, slots=True)
class Condition:
    """`difference >= 0`, `difference == 0` or `difference != 0`. Build with `compare` or `parse_condition`."""

    difference: Expr
    relation: str

    @property
    def symbols(self) -> set[str]:
        """The names of the sizes that it is about."""
        return symbols(self.difference)

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether it is met. One that cannot be computed, as a size is divided by zero, is not.

        Raises `GraphError` where a symbol has no value.
        """
        missing = self.symbols - sizes.keys()
        if missing:
            raise GraphError("a condition on a size that has no value", where=str(self), received=", ".join(sorted(missing)))
        try:
            value = evaluate(self.difference, sizes)
        except GraphError:
            return False
        return value >= 0 if self.relation == ">=" else (value == 0) == (self.relation == "==")

    def substituted(self, sizes: Mapping[str, Dim]) -> Condition | bool:
        """The condition with symbols replaced by other sizes; a truth value where none is left."""
        return compare(substitute(self.difference, sizes), self.relation, 0)

    @property
    def sides(self) -> tuple[Dim, Dim]:
        """What stands left and right of the comparison in its text."""
        left, right = _sides(self.difference)
        return (right, left) if isinstance(left, int) else (left, right)

    @property
    def written(self) -> str:
        """The comparison in its text: `<=` where an integer would stand left of `>=`."""
        return "<=" if self.relation == ">=" and isinstance(_sides(self.difference)[0], int) else self.relation

    def __str__(self) -> str:
        left, right = self.sides
        return f"{left} {self.written} {right}"


def _sides(difference: Expr) -> tuple[Dim, Dim]:
    """What is added and what is taken away."""
    added: Dim = 0
    taken: Dim = 0
    for monomial, coefficient in difference.terms.items():
        term = Expr({monomial: abs(coefficient)}) if monomial else abs(coefficient)
        added, taken = (added + term, taken) if coefficient > 0 else (added, taken + term)
    return added, taken


def compare(left: Dim, relation: str, right: Dim) -> Condition | bool:
    """The condition `left relation right`, with any of Python's comparisons; a truth value where no symbol is left.

    Sizes are integers, so `a > b` is `a >= b + 1`.
    """
    if relation in ("<=", "<"):
        left, right, relation = right, left, {"<=": ">=", "<": ">"}[relation]
    if relation == ">":
        right, relation = right + 1, ">="
    difference = left - right
    if isinstance(difference, int):
        return difference >= 0 if relation == ">=" else (difference == 0) == (relation == "==")
    if relation != ">=":
        added, taken = _sides(difference)
        if isinstance(added, int) or not isinstance(taken, int) and str(taken) < str(added):
            difference = Expr({monomial: -coefficient for monomial, coefficient in difference.terms.items()})
    return Condition(difference, relation)


def parse_condition(text: object) -> Condition:
    """A condition from its text. Raises `GraphError` for anything outside the grammar above, and where no size is free."""
    expected = "two sizes with >=, <=, == or != between them, such as 'b >= a'"
    if not isinstance(text, str):
        raise GraphError("not a condition on sizes", expected=expected, received=repr(text)[:80])
    if len(text) > 2 * MAX_TEXT:
        raise GraphError("a condition on sizes is too long", expected=f"at most {2 * MAX_TEXT} characters", received=str(len(text)))
    parts = _COMPARISON.split(text)
    if len(parts) != 3:
        raise GraphError("not a condition on sizes", expected=expected, received=repr(text[:80]))
    found = compare(parse(parts[0].strip()), parts[1], parse(parts[2].strip()))
    if isinstance(found, bool):
        raise GraphError("a condition on no size", expected=expected, received=repr(text[:80]))
    return found


def ordered(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Each condition once, in the order of their texts."""
    return tuple(sorted(set(conditions), key=str))


def strongest(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Conditions without those that another one says too: `2*b >= 2*a` beside `b >= a`, `b + 1 >= a` beside it, or beside `a == b`.

    In the order of their texts.
    """
    whole = ordered(conditions)
    forms = {condition: _reduced(condition) for condition in whole}
    kept: list[Condition] = []
    for condition in sorted(whole, key=lambda item: (item.relation != "==", forms[item][1], len(str(item)))):
        terms, more = forms[condition]
        implied = any(_implies(other.relation, *forms[other], condition.relation, terms, more) for other in kept)
        if not implied:
            kept.append(condition)
    return ordered(kept)


def _reduced(condition: Condition) -> tuple[frozenset[tuple[object, int]], Fraction]:
    """The terms with symbols over their common divisor, and the constant over it; of `>=` rounded down, as sizes are integers."""
    terms = dict(condition.difference.terms)
    more = terms.pop((), 0)
    common = gcd(*terms.values())
    rest = Fraction(more, common)
    reduced = frozenset((term, count // common) for term, count in terms.items())
    return reduced, Fraction(floor(rest)) if condition.relation == ">=" else rest


def _implies(relation: str, terms: frozenset[tuple[object, int]], more: Fraction, wanted: str, others: frozenset[tuple[object, int]],
             least: Fraction) -> bool:
    """Whether one condition, of reduced terms and a constant, says another."""
    turned = frozenset((term, -count) for term, count in terms)
    if relation == "==" and others in (terms, turned):
        value = least - more if others == terms else least + more
        return value == 0 if wanted == "==" else value >= 0 if wanted == ">=" else value != 0
    return relation == wanted and others == terms and (more <= least if wanted == ">=" else more == least)


def unmet(conditions: Iterable[Condition], sizes: Mapping[str, int]) -> list[Condition]:
    """The conditions that sizes do not meet."""
    return [condition for condition in conditions if not condition.holds(sizes)]
