"""Sizes that meet what a graph requires, and that lie on both sides of each of its clamps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from converter.conditions import Condition, compare, unmet
from converter.dims import Dim, Expr
from converter.ir import DimRange, Graph

STEPS = (0, 1, -1, 2, -2, 3, -3, 4, 5, 6, 8)
TRIES = 3000
"""Combinations of sizes that are looked at, the nearest first."""


def meeting(conditions: Sequence[Condition], sizes: Mapping[str, int], ranges: Mapping[str, DimRange], kept: frozenset[str],
            wishes: Sequence[Condition] = ()) -> dict[str, int] | None:
    """The nearest sizes found that meet all conditions, and as many wishes as any; None where none do. `kept` are not changed."""
    names = sorted({name for item in (*conditions, *wishes) for name in item.symbols if name in sizes and name not in kept})
    others = sorted({sizes[name] for item in conditions for name in item.symbols if name in sizes})
    values = [[size for size in dict.fromkeys((*(sizes[name] + step for step in STEPS), *others, ranges[name].min))
               if size in ranges[name]] for name in names]
    best: tuple[int, dict[str, int]] | None = None
    for changed in itertools.islice(_nearest(values), TRIES):
        found = {**sizes, **dict(zip(names, changed, strict=True))}
        if unmet(conditions, found):
            continue
        count = len(wishes) - len(unmet(wishes, found))
        if best is None or count > best[0]:
            best = count, found
        if count == len(wishes):
            break
    return None if best is None else best[1]


def _nearest(values: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """All combinations, those first whose members stand near the front."""
    most = max(map(len, values), default=1)
    for far in range(most):
        for places in itertools.product(*(range(min(far + 1, len(item))) for item in values)):
            if not values or max(places) == far:
                yield tuple(item[place] for item, place in zip(values, places, strict=True))


def edges(graph: Graph) -> list[Condition]:
    """What is to be seen at least once: each requirement at its edge, and each clamp on either side."""
    found: dict[Condition, None] = {}
    for condition in graph.requires:
        if condition.relation == ">=":
            _keep(compare(condition.difference, "==", 0), found)
    for node in graph.nodes:
        for value in node.attributes.values():
            for left, right in _clamps(value):
                _keep(compare(left, ">", right), found)
                _keep(compare(left, "<", right), found)
    return list(found)


def _keep(condition: Condition | bool, found: dict[Condition, None]) -> None:
    if isinstance(condition, Condition):
        found[condition] = None


def _clamps(value: Any) -> Iterator[tuple[Dim, Dim]]:
    if isinstance(value, tuple):
        for item in value:
            yield from _clamps(item)
    elif isinstance(value, Expr):
        for monomial in value.terms:
            for atom, _ in monomial:
                if atom[0] in ("max", "min"):
                    yield atom[1], atom[2]
                if atom[0] != "symbol":
                    yield from _clamps(atom[1])
                    yield from _clamps(atom[2])
