"""Sizes that were to be free and are not wholly: fixed, with an upper end, or another size. Which they are, and whether the module
itself wants it so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._pytree as pytree

from adapters.torch.state.memory import evaluation, unchanged
from adapters.torch.tracing.effort import current, require_time
from adapters.torch.tracing.exporting import quiet
from adapters.torch.tracing.inputs import Unnamed, call, call_arguments, resize_arguments
from adapters.torch.tracing.retracing import sizes_of
from adapters.torch.tracing.specializing import Axis
from converter.dims import Dim, Expr, evaluate, symbols
from converter.ir import DimRange, Graph

DOUBLED = 256
"""Sizes up to this are tried at about twice as many; longer ones a quarter beyond."""

FURTHEST = 1 << 20
"""Beyond this no module is run: an end so far away is taken for its own."""

Names = tuple[str | None, ...]
"""The graph's inputs in the order of the flattened call."""


@dataclass(frozen=True)
class Shortfall:
    """A size that is not wholly free.

    Attributes:
        axes: the axes that have it.
        name: what it was called by who asked for it; None where nobody named it.
        size: what it is: an integer, an expression of other sizes, or a range with an upper end.
        at: the size in the example.
        symbol: the graph's, where it has a range.
    """

    axes: tuple[Axis, ...]
    name: str | None
    size: Dim | DimRange
    at: int
    symbol: str | None = None

    @property
    def label(self) -> str:
        """The name, and the axis."""
        where = f"axis {self.axes[0][1]} of {self.axes[0][0]!r}"
        return where if self.name is None else f"{self.name!r} ({where})"

    def describe(self) -> str:
        """`'height' (axis 2 of 'x') ends at 32`."""
        if isinstance(self.size, DimRange):
            return f"{self.label} ends at {self.size.max}"
        if isinstance(self.size, int):
            return f"{self.label} stays fixed at {self.size}"
        return f"{self.label} is tied to another size: it is {self.size}"

    def candidates(self, index: int) -> list[int]:
        """Other sizes to try, different ones for each index: odd, even, next to the example's, a multiple of it."""
        end = self.size.max if isinstance(self.size, DimRange) and self.size.max is not None else self.at
        if end > FURTHEST:
            return []
        if end > DOUBLED:
            return [end + (end // 4 | 1) + 2 * index, end + 1, 2 * end]
        return list(dict.fromkeys([2 * end + 1 + 2 * index, end + 1, 2 * end, (index + 3) * end]))


def shortfalls(graph: Graph, arguments: Mapping[str, Any], names: Names, dims: Any,
               ranges: Mapping[str, DimRange]) -> list[Shortfall]:
    """Those of a traced graph, each once. `dims` and `ranges` are what was asked for: `"auto"`, or names by input; and to what end."""
    leaves = dict(zip(names, pytree.tree_leaves(dict(arguments)), strict=True))
    asked = dims if isinstance(dims, Mapping) else None
    found: dict[Any, Shortfall] = {}
    for port in graph.inputs:
        for axis, size in enumerate(port.spec.shape):
            wanted = asked.get(port.name, ())[axis] if asked is not None and port.name in asked else None
            if asked is not None and not isinstance(wanted, str):
                continue
            name = None if wanted is None or isinstance(wanted, Unnamed) else str(wanted)
            kind = _kind(size, name, graph, ranges)
            if kind is None:
                continue
            key = name if name is not None else size.symbol if isinstance(size, Expr) else (port.name, axis)
            axes = (*found[key].axes, (port.name, axis)) if key in found else ((port.name, axis),)
            symbol = size.symbol if isinstance(size, Expr) and isinstance(kind, DimRange) else None
            found[key] = Shortfall(axes, name, kind, int(leaves[port.name].shape[axis]), symbol)
    return list(found.values())


def _kind(size: Dim, name: str | None, graph: Graph, ranges: Mapping[str, DimRange]) -> Dim | DimRange | None:
    """What a size is in place of a free one."""
    if isinstance(size, int):
        return size
    if name is not None and size.symbol != name:
        return size
    if size.symbol is None:
        return None
    span, wanted = graph.dims.get(size.symbol), ranges.get(size.symbol)
    if span is None or span.max is None or wanted is not None and wanted.max is not None and wanted.max <= span.max:
        return None
    return span


# Other sizes ---------------------------------------------------------------------------------------------------------------


@dataclass
class Changes:
    """Other sizes for an example: of symbols, and of single axes."""

    symbols: dict[str, int] = field(default_factory=dict)
    axes: dict[Axis, int] = field(default_factory=dict)

    def of(self, item: Shortfall, size: int) -> Changes:
        """These, and one more."""
        if item.symbol is not None:
            return Changes({**self.symbols, item.symbol: size}, self.axes)
        return Changes(self.symbols, {**self.axes, **dict.fromkeys(item.axes, size)})

    def example(self, arguments: Mapping[str, Any], graph: Graph, names: Names) -> dict[str, Any] | None:
        """The arguments at these sizes, all others as they are or as they follow; None where an axis would be without elements."""
        own = {**sizes_of(arguments, graph, names), **self.symbols}
        wanted = {(port.name, axis): evaluate(size, own) for port in graph.inputs for axis, size in enumerate(port.spec.shape)
                  if isinstance(size, Expr) and symbols(size) <= own.keys()}
        return resize_arguments(arguments, names, {**wanted, **self.axes})


def takes(module: torch.nn.Module, arguments: Mapping[str, Any]) -> bool:
    """Whether the module itself runs on the arguments. Raises `EffortSpent` where there is no time left for it."""
    require_time(current().cost(arguments))
    args, kwargs = call_arguments(module, arguments)
    try:
        with evaluation(module), quiet(), unchanged(module), torch.no_grad():
            call(module, args, kwargs)
    except Exception:  # a module raises anything at a size that it does not allow
        return False
    return True


def other_sizes(module: torch.nn.Module, arguments: Mapping[str, Any], graph: Graph, names: Names,
                short: list[Shortfall]) -> tuple[dict[str, Any] | None, set[Shortfall]]:
    """Arguments at other sizes for all that fall short, as far as the module takes them together, or None; and the items for
    which it takes no other size: those are its own limits."""
    changes, own = Changes(), set(short)

    def accepted(changed: Changes) -> bool:
        example = changed.example(arguments, graph, names)
        return example is not None and takes(module, example)

    for group in _groups(short):
        if not own.issuperset(group):
            continue
        for size in group[0].candidates(short.index(group[0])):
            changed = changes
            for item in group:
                changed = changed.of(item, size)
            if accepted(changed):
                changes, own = changed, own.difference(group)
                break
    return (changes.example(arguments, graph, names) if len(own) < len(short) else None), own


def _groups(short: list[Shortfall]) -> Iterator[list[Shortfall]]:
    """Each by itself, then together those that are equal in the example: a module may need them to be."""
    yield from ([item] for item in short)
    for size in dict.fromkeys(item.at for item in short):
        equal = [item for item in short if item.at == size]
        if len(equal) > 1:
            yield equal
