"""Other sizes to trace a module at, where what it decided at the example's own sizes leaves little free.

Code that resizes a table of positions, or pads an image to whole windows, leaves that out where it has nothing to do, and
an example is often just such a case. A trace at a size where there is something to do then holds at both.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch.utils._pytree as pytree

from adapters.torch.sizes.domains import Domain
from adapters.torch.tracing.inputs import resize_arguments
from adapters.torch.tracing.unions import holds_at
from converter.conditions import unmet
from converter.dims import Expr, evaluate
from converter.ir import DimRange, Graph

ATTEMPTS = 2
"""Traces at other sizes, at most: each takes as long as the first."""

EACH, DRAWS, TRIALS = 3, 200, 8
"""A trace is tried at as many sizes for each doubtful condition, among as many draws, and at as many in all."""

LARGEST = 4
"""Sizes are looked at up to as many times the traced one."""


def narrowed(domain: Domain, traced: Mapping[str, int]) -> list[str]:
    """The sizes that the module's decisions keep below an end, at or above the traced size itself, or from being one larger than
    they were. Steps without an end leave enough sizes."""
    found = []
    for name in domain.reasons:
        span = domain.ranges.get(name)
        if span is not None and (span.max is not None or span.min == traced[name] > 2 and span.step == 1):
            found.append(name)
    found += [name for condition in domain.requires for name in sorted(condition.symbols - set(found)) if name in traced
              and not condition.holds({**traced, name: traced[name] + 1})]
    return list(dict.fromkeys(found))


def other_sizes(domain: Domain, traced: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Sizes at which decisions go another way, those first at which most do: one for each set of them, and another for the first."""
    names = narrowed(domain, traced)
    changes = sorted({change for name in names for change in _changes(domain.ranges[name], traced[name])}, key=_furthest)
    patterns: dict[frozenset[int], list[dict[str, int]]] = {}
    for change in changes:
        sizes = {**traced, **{name: traced[name] + change for name in names}}
        if min(sizes.values()) < 2:
            continue
        turned = frozenset(index for index, (_, condition) in enumerate(domain.conditions) if not holds_at(condition, sizes))
        if turned:
            patterns.setdefault(turned, []).append(sizes)
    ordered = [patterns[turned] for turned in sorted(patterns, key=len, reverse=True)[:ATTEMPTS]]
    yield from (group[0] for group in ordered)
    yield from (sizes for group in ordered[:1] for sizes in group[1:2])


def _furthest(change: int) -> tuple[bool, int]:
    """Upwards first, and not just across an edge, where what is left over has a size of 1."""
    return change < 0, -abs(change)


def _changes(span: DimRange, size: int) -> Iterable[int]:
    if span.max is not None:
        yield from (span.max + 1 - size, size)
    else:
        yield from (1, size)
    if span.min == size:
        yield -1


def at_sizes(example: Mapping[str, Any], graph: Graph, input_names: tuple[str | None, ...],
             sizes: Mapping[str, int]) -> dict[str, Any] | None:
    """An example at other sizes, its elements taken again from the front where there are too few.

    None where an axis would be without elements.
    """
    return resize_arguments(example, input_names, {(port.name, axis): evaluate(size, sizes) for port in graph.inputs
                                          for axis, size in enumerate(port.spec.shape) if isinstance(size, Expr)})


def sizes_of(example: Mapping[str, Any], graph: Graph, input_names: tuple[str | None, ...]) -> dict[str, int]:
    """The size of each symbol of the graph in an example."""
    leaves = dict(zip(input_names, pytree.tree_leaves(dict(example)), strict=True))
    return {size.symbol: int(leaves[port.name].shape[axis]) for port in graph.inputs
            for axis, size in enumerate(port.spec.shape) if isinstance(size, Expr) and size.symbol is not None}


def points(doubtful: Iterable[Any], graph: Graph, kept: Mapping[str, int]) -> list[dict[str, int]]:
    """Sizes to try a trace at: `kept`, and for each doubtful condition others that the graph takes at which it fails."""
    ranges = graph.dims
    found = [dict(kept)]
    draw = random.Random(0)
    for _ in range(EACH):
        for condition in doubtful:
            own = sorted(str(item) for item in condition.free_symbols)
            for _ in range(DRAWS):
                sizes = {**kept, **{name: _drawn(ranges[name], kept[name], draw) for name in own if name in ranges}}
                if sizes not in found and not holds_at(condition, sizes) and not unmet(graph.requires, sizes):
                    found.append(sizes)
                    break
    return found[:TRIALS]


def _drawn(span: DimRange, size: int, draw: random.Random) -> int:
    most = size * 2 if span.max is None else min(span.max, size * 2)
    return span.min + span.step * draw.randint(0, max(0, (most - span.min) // span.step))


def freedom(graph: Graph, example: Mapping[str, Any], input_names: tuple[str | None, ...]) -> int:
    """How many sizes a graph takes, axis by axis, among those up to some times the example's."""
    leaves = dict(zip(input_names, pytree.tree_leaves(dict(example)), strict=True))
    own = sizes_of(example, graph, input_names)
    total = 0
    for port in graph.inputs:
        for axis, size in enumerate(port.spec.shape):
            name = size.symbol if isinstance(size, Expr) else None
            span = graph.dims.get(name) if name is not None else None
            if name is not None and span is not None:
                conditions = [item for item in graph.requires if name in item.symbols]
                total += sum(count in span and not unmet(conditions, {**own, name: count})
                             for count in range(1, LARGEST * int(leaves[port.name].shape[axis]) + 1))
    return total

