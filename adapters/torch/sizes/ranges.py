"""The sizes that each free dim may take: what the tracer found, and what the graph itself rules out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import sympy
import torch
import torch.utils._pytree as pytree
from torch.export import ExportedProgram
from torch.utils._sympy.symbol import SymT, symbol_is_type

from adapters.torch.tracing.unions import Condition, size_symbol
from converter.conditions import Condition as Requirement
from converter.conditions import compare
from converter.dims import Dim, Expr, evaluate
from converter.dims import symbols as symbols_of
from converter.errors import GraphError
from converter.ir import DimRange, Graph, Node, TensorSpec
from converter.ops.conversion import LARGEST
from converter.opset import facts_of

FEW = 2
"""Sizes at which some value is empty are tried where there are no more; of more, where slices end before them, the first and the last."""
NEAR = (-3, -2, -1, 1, 2, 3)
"""How far from the traced sizes an equation is looked at."""


def traced_ranges(exported: ExportedProgram, symbols: Mapping[str, str]) -> dict[str, DimRange]:
    """The tracer's ranges. Its lower end of 2 means only that 0 and 1 were not traced, so 1 is allowed."""
    ranges: dict[str, DimRange] = {}
    for key, interval in exported.range_constraints.items():
        if not key.is_Symbol:  # a relation between sizes, which the shapes themselves show
            continue
        if str(key) not in symbols and not symbol_is_type(key, SymT.UNBACKED_INT):  # one that turned out to be another's
            continue
        name = symbols.get(str(key), str(key))
        lower, upper = interval.lower, interval.upper
        low = int(lower) if lower.is_Integer else -LARGEST
        high = int(upper) if upper.is_Integer and int(upper) < 2**31 else None
        if str(key) in symbols:
            low = 1 if low <= 2 else low
        if name in ranges:
            low = max(low, ranges[name].min)
            highs = [bound for bound in (high, ranges[name].max) if bound is not None]
            high = min(highs) if highs else None
        ranges[name] = DimRange(low, high)
    return ranges


def opened(ranges: Mapping[str, DimRange], symbols: Mapping[str, str]) -> dict[str, DimRange]:
    """The ranges with the ends of the inputs' sizes open, which the tracer's guards say, and say of what they come."""
    named = set(symbols.values())
    return {name: DimRange() if name in named and span.min != span.max else span for name, span in ranges.items()}


def ends_of(traced: Mapping[str, DimRange], ranges: Mapping[str, DimRange]) -> list[Condition]:
    """The ends of the tracer's ranges as conditions, where others are wider."""
    found = []
    for name, span in traced.items():
        if name in ranges and span.min > max(2, ranges[name].min):
            found.append(("the trace", sympy.Ge(size_symbol(name), span.min)))
        if name in ranges and span.max is not None and (ranges[name].max or math.inf) > span.max:
            found.append(("the trace", sympy.Le(size_symbol(name), span.max)))
    return found


def possible_ranges(graph: Graph, specs: Mapping[str, TensorSpec], free: set[str], notes: list[str],
                    agrees: Callable[[str, int], bool]) -> dict[str, DimRange]:
    """The graph's ranges, narrowed to the sizes at which it can run. `notes` gains a line for each that was.

    `agrees` says whether module and graph compute the same with a size of a symbol at which some value is empty.
    """
    ranges = dict(graph.dims)
    _raise_least(ranges, graph, specs, free, notes, agrees)
    _hold_slices(ranges, graph, specs, notes)
    _lower_most(ranges, graph, specs, notes)
    return ranges


def _raise_least(ranges: dict[str, DimRange], graph: Graph, specs: Mapping[str, TensorSpec], free: set[str], notes: list[str],
                 agrees: Callable[[str, int], bool]) -> None:
    """A pooling that halves an image of 1 leaves nothing; PyTorch refuses that when it runs. A slice that leaves nothing it
    allows, which a trial shows."""
    made = graph.makers
    sizes = sorted({size for name in made for size in specs[name].shape if isinstance(size, Expr) and size.symbol is None}, key=str)
    for symbol in sorted(free & ranges.keys()):
        least = ranges[symbol].min
        own = [size for size in sizes if symbols_of(size) == {symbol}]
        while least < 4096 and any(_value(size, symbol, least) < 1 <= _value(size, symbol, 4096) for size in own):
            least += 1
        first = ranges[symbol].min
        clamped = all(_value(size, symbol, first) >= 0 for size in own)
        tries = range(first, least) if least <= first + FEW else {first, least - 1} if clamped else ()
        if first < least and tries and all(agrees(symbol, size) for size in tries):
            continue
        if least != first:
            notes.append(f"{symbol} is {least} or more: smaller sizes leave nothing of some value")
            ranges[symbol] = replace(ranges[symbol], min=ranges[symbol].nearest(least))


def _value(size: Dim, symbol: str, value: int) -> int:
    """A size at a value of its one symbol. One that cannot be computed there, as it divides by zero, leaves nothing."""
    try:
        return evaluate(size, {symbol: value})
    except GraphError:
        return 0


def _hold_slices(ranges: dict[str, DimRange], graph: Graph, specs: Mapping[str, TensorSpec], notes: list[str]) -> None:
    """A slice `x[:, :n]` that the trace gave the size n is of an axis that has n elements; a shorter axis gives fewer."""
    for node in graph.nodes:
        if node.op != "slice" or node.outputs[0] is None or not isinstance(node.inputs[0], str):
            continue
        for axis, stop in zip(node.attributes["axes"], node.attributes["stops"], strict=True):
            size, result = specs[node.inputs[0]].shape[axis], specs[node.outputs[0]].shape[axis]
            name = size.symbol if isinstance(size, Expr) else None
            if name in ranges and isinstance(stop, int) and isinstance(result, int) and ranges[name].min < stop:
                ranges[name] = replace(ranges[name], min=stop)
                notes.append(f"{name} is {stop} or more: the module takes that many from it")


def _lower_most(ranges: dict[str, DimRange], graph: Graph, specs: Mapping[str, TensorSpec], notes: list[str]) -> None:
    """Positions that are counted and looked up in a table cannot go past its last row."""
    makers = graph.makers
    for node in graph.nodes:
        if node.op != "embedding":
            continue
        counter = _counter(makers, node)
        rows = specs[str(node.inputs[1])].shape[0]
        stop = counter.attributes["stop"] if counter is not None else None
        if not isinstance(stop, Expr) or not isinstance(rows, int):
            continue
        for symbol in sorted(symbols_of(stop) & ranges.keys()):
            # Only `symbol + constant`: other expressions have no one limit.
            beyond = stop - evaluate(stop, {**dict.fromkeys(symbols_of(stop), 0)})
            limit = rows - evaluate(stop, {symbol: 0}) if isinstance(beyond, Expr) and beyond.symbol == symbol else None
            most = ranges[symbol].max
            if limit is not None and (most is None or limit < most):
                notes.append(f"{symbol} is {limit} or less: {node.inputs[1]!r} has {rows} rows")
                ranges[symbol] = replace(ranges[symbol], max=limit)


def held_equal(ranges: Mapping[str, DimRange], pairs: Mapping[tuple[Dim, Dim], bool], traced: Mapping[str, int],
               notes: list[str]) -> dict[str, DimRange]:
    """The ranges, narrowed to where sizes are equal that shape rules took for equal, as a table of a fixed size needs it.

    A pair is equal at the traced sizes. Each of its symbols keeps the sizes next to the traced one at which it stays so; a
    side of 1 broadcasts, unless the pair is marked.
    """
    found = dict(ranges)
    for (left, right), exact in pairs.items():
        names = sorted(symbols_of(left) | symbols_of(right))
        left, right = (right, left) if isinstance(left, int) else (left, right)
        if exact and isinstance(right, int) and _is_unseen(left, right, traced, found):
            found[names[0]] = DimRange(right, right)
            notes.append(f"{names[0]} has to be {right}")
            continue
        if not _is_known(left, right, exact, traced, found) or isinstance(left, Expr) and isinstance(right, Expr):
            continue
        spans = {name: _span(left, right, name, found[name], traced, exact) for name in names}
        for name in names:
            if spans[name] != found[name]:
                notes.append(f"{name} in {spans[name]}: {left} has to be {right}")
        corners = itertools.product(*({span.min, span.max or span.nearest(4 * traced[name])} for name, span in spans.items()))
        if not all(_equal(left, right, {**traced, **dict(zip(names, corner, strict=True))}, exact) for corner in corners):
            spans = {name: DimRange(traced[name], traced[name]) for name in names}
        found |= spans
    return found


def equations(ranges: Mapping[str, DimRange], pairs: Mapping[tuple[Dim, Dim], bool], traced: Mapping[str, int]) -> list[Requirement]:
    """Conditions that sizes are equal which shape rules took for equal where no range can say it: two free sizes of the inputs."""
    found = []
    for (left, right), exact in pairs.items():
        condition = compare(left, "==", right) if exact and isinstance(left, Expr) and isinstance(right, Expr) else True
        if isinstance(condition, bool) or not _is_known(left, right, exact, traced, ranges):
            continue
        others = ({**traced, name: span.nearest(traced[name] + more * span.step)} for name in sorted(condition.symbols)
                  for span in [ranges[name]] for more in NEAR)
        if not all(condition.holds(sizes) for sizes in others):
            found.append(condition)
    return found


def _is_unseen(left: Dim, right: int, traced: Mapping[str, int], ranges: Mapping[str, DimRange]) -> bool:
    """Whether a size was traced at another number than the one that it has to be: torch's operator does not ask."""
    name = left.symbol if isinstance(left, Expr) else None
    return name is not None and traced.get(name, right) != right and right in ranges.get(name, ())


def _is_known(left: Dim, right: Dim, exact: bool, traced: Mapping[str, int], ranges: Mapping[str, DimRange]) -> bool:
    """Whether two sizes are of inputs, and equal where the trace was made."""
    return all(name in traced and name in ranges for name in symbols_of(left) | symbols_of(right)) and _equal(left, right, traced, exact)


def _equal(left: Dim, right: Dim, sizes: Mapping[str, int], exact: bool) -> bool:
    try:
        values = {evaluate(left, sizes), evaluate(right, sizes)}
    except GraphError:  # a size is divided by zero
        return False
    return len(values) == 1 or not exact and 1 in values


def _span(left: Dim, right: Dim, name: str, span: DimRange, traced: Mapping[str, int], exact: bool) -> DimRange:
    """The sizes of one symbol around the traced one at which two sizes are equal."""
    own = traced[name]
    low, high = own, own
    while low - span.step >= span.min and _equal(left, right, {**traced, name: low - span.step}, exact):
        low -= span.step
    farthest = 4 * own + 64 if span.max is None else min(span.max, 4 * own + 64)
    while high + span.step <= farthest and _equal(left, right, {**traced, name: high + span.step}, exact):
        high += span.step
    return replace(span, min=low, max=span.max if high + span.step > farthest else high)


def _counter(makers: Mapping[str, Node], node: Node) -> Node | None:
    """The ascending `arange` from 0 that an embedding's indices are, or None."""
    source = node.inputs[0]
    while True:
        maker = makers.get(source) if isinstance(source, str) else None
        if maker is None:
            return None
        if maker.op == "arange":
            plain = maker.attributes.get("start", 0) == 0 and maker.attributes.get("step", 1) == 1
            return maker if plain else None
        if not facts_of(maker.op).whole:
            return None
        source = maker.inputs[0]


def with_empty(graph: Graph, given: Mapping[str, object], names: Sequence[str]) -> dict[str, DimRange]:
    """The graph's ranges, opened to 0 for each free size that is 0 in the example: the tracer saw it filled."""
    ranges = dict(graph.dims)
    leaves = dict(zip(names, pytree.tree_leaves(given), strict=True))
    for port in graph.inputs:
        leaf = leaves.get(port.name)
        if not isinstance(leaf, torch.Tensor) or leaf.dim() != port.spec.rank:
            continue
        for size, found in zip(port.spec.shape, leaf.shape, strict=True):
            if isinstance(size, Expr) and size.symbol in ranges and found == 0 and ranges[size.symbol].min == 1:
                ranges[size.symbol] = replace(ranges[size.symbol], min=0)
    return ranges
