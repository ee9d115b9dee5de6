"""Sizes that were to be free and are not wholly: fixed, with an upper end, or another size. Which they are, whether the module
itself wants it so, and what to say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
import torch.utils._pytree as pytree

from adapters.torch.state.memory import evaluation, unchanged
from adapters.torch.tracing.effort import current
from adapters.torch.tracing.exporting import quiet
from adapters.torch.tracing.inputs import Unnamed, call, call_arguments, resized
from adapters.torch.tracing.retracing import at_sizes, sizes_of
from adapters.torch.tracing.specializing import Axis, Place
from converter.conditions import Condition, unmet
from converter.dims import Dim, Expr, evaluate, symbols
from converter.errors import UnsupportedError
from converter.ir import DimRange, Graph
from converter.ports import Concern

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
        return resized(arguments, names, {**wanted, **self.axes})


def takes(module: torch.nn.Module, arguments: Mapping[str, Any]) -> bool:
    """Whether the module itself runs on the arguments."""
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


# Words ---------------------------------------------------------------------------------------------------------------------


def refuse_named(module: torch.nn.Module, short: list[Shortfall], own: set[Shortfall], places: Mapping[Axis, Place],
                 dims: Any) -> None:
    """Raises `UnsupportedError` that lists the sizes that were asked for by name and are not free. An upper end that the module
    itself has, as a table of positions gives one, is no such thing."""
    refused = [item for item in short if item.name is not None and not (item in own and _is_its_own(item))]
    if not refused:
        return
    items: list[dict[str, object]] = []
    for item in refused:
        place = _place_of(item, places)
        items.append({"operator": place.operator if place is not None and place.operator else "a size",
                      "reason": f"{item.describe()}: {why(item, item in own, None)}", "source": place.line if place is not None else None})
    fixed = {item.name: item.at for item in refused}
    example = {name: [fixed.get(axis, axis) if isinstance(axis, str) else axis for axis in axes] for name, axes in dims.items()
               if any(axis in fixed for axis in axes if isinstance(axis, str))}
    tied = [item for item in refused if isinstance(item.size, Expr) and item.size.symbol is not None]
    options = " ".join(f"--fix {name}={size}" for name, size in fixed.items())
    fix = f"fix what cannot be free: dims={example}, or {options} on the command line"
    if tied:
        fix += f"; or give {' and '.join(sorted({str(tied[0].size), str(tied[0].name)}))} one name"
    raise UnsupportedError(f"sizes that were asked to be free are not: {', '.join(str(item.name) for item in refused)}",
                           where=type(module).__name__, items=items, fix=fix)


def _is_its_own(item: Shortfall) -> bool:
    """Whether a limit of the module's own leaves a size free: up to an end well beyond where it begins, which a few sizes that
    come to the same after a stride are not; or with others of which it is made, as a mask is as long as a cache and the new
    tokens together."""
    if isinstance(item.size, DimRange):
        return item.size.max is None or item.size.max >= 2 * item.size.min
    return isinstance(item.size, Expr) and item.size.symbol is None


def why(item: Shortfall, own: bool, place: Place | None) -> str:
    """The reason for which a size falls short."""
    if own:
        return ("the module's code or its weights need that size" if isinstance(item.size, int) else
                "the module takes no other that was tried")
    lost = ("holds for this one alone" if isinstance(item.size, int) else "does not go beyond" if isinstance(item.size, DimRange)
            else "ties the two")
    return f"the module takes others, but its trace {lost}" + (f" ({place})" if place is not None and str(place) else "")


def describe_all(short: list[Shortfall], own: set[Shortfall], places: Mapping[Axis, Place]) -> list[str]:
    """Notes on all that falls short; what the module itself would take is a concern, and so is an end to a size that was asked for."""
    notes: list[str] = []
    for item in short:
        if item in own and _is_its_own(item):
            if item.name is not None and isinstance(item.size, DimRange):
                notes.append(Concern(f"{item.describe()}, where the module's own code or weights end"))
            continue  # the note on the range says it, and the shapes themselves
        note = f"{item.describe()}: {why(item, item in own, _place_of(item, places))}"
        notes.append(note if item in own else Concern(note))
    return notes


TRIED = 6
"""Sizes that a graph leaves out at which its module is run."""


def left_out(module: torch.nn.Module, arguments: Mapping[str, Any], graph: Graph, names: Names,
             asked: Mapping[str, DimRange]) -> list[Concern]:
    """What a person must know of sizes that the graph refuses and the module takes: those below a range or between its steps, and those
    of which a condition between sizes is not met. `asked` are the ranges that were asked for, by name."""
    own = sizes_of(arguments, graph, names)
    where = {size.symbol: f"axis {axis} of {port.name!r}" for port in reversed(graph.inputs)
             for axis, size in enumerate(port.spec.shape) if isinstance(size, Expr) and size.symbol is not None}
    found = []
    for name, span in graph.dims.items():
        if name in own and (name not in asked or asked[name].min < span.min or span.step > 1):
            between = (own[name] + 1, own[name] + 2, own[name] - 1) if span.step > 1 else ()
            others = dict.fromkeys((span.min - 1, span.min // 2, 1, *between))
            size = _taken(module, arguments, graph, names, ({name: size} for size in others if size > 0 and size not in span))
            if size is not None:
                found.append(Concern(f"{where[name]} is {name} in {span}: the module takes {size[name]} too, but goes another way there "
                                     "than in its trace"))
    for condition in graph.requires:
        sizes = _taken(module, arguments, graph, names, _unmet(condition, own, graph))
        if sizes is not None:
            told = " and ".join(f"{name} = {size}" for name, size in sizes.items())
            found.append(Concern(f"requires {condition}: the module takes {told} too, but goes another way there than in its trace"))
    return found


def _unmet(condition: Condition, own: Mapping[str, int], graph: Graph) -> Iterator[dict[str, int]]:
    """Sizes near those of an example at which one condition is not met and the others are."""
    symbols = sorted(condition.symbols & own.keys())
    for more in (1, -1, 2, 3, 5):
        for name in symbols:
            for changed in ({name: own[name] + more}, {other: own[name] + more for other in symbols if other != name}):
                sizes = {**{other: own[other] for other in symbols}, **changed}
                within = all(size > 0 and size in graph.dims.get(other, DimRange()) for other, size in sizes.items())
                if within and unmet([item for item in graph.requires if item.symbols <= own.keys()], {**own, **sizes}) == [condition]:
                    yield sizes


def _taken(module: torch.nn.Module, arguments: Mapping[str, Any], graph: Graph, names: Names,
           tried: Iterator[dict[str, int]]) -> dict[str, int] | None:
    """The first of some sizes that the module takes."""
    own = sizes_of(arguments, graph, names)
    for sizes in islice(tried, TRIED):
        example = at_sizes(arguments, graph, names, {**own, **sizes})
        if example is not None and current().left() > 0 and takes(module, example):
            return sizes
    return None


def _place_of(item: Shortfall, places: Mapping[Axis, Place]) -> Place | None:
    return next((places[axis] for axis in item.axes if axis in places), None)
