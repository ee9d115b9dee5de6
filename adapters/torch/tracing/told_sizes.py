"""What is said of sizes that were to be free and are not wholly: those that were asked for by name are refused, of all others a person
is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from adapters.torch.sizes.domains import Domain
from adapters.torch.tracing.effort import EffortSpent
from adapters.torch.tracing.free_sizes import Names, Shortfall, takes
from adapters.torch.tracing.inputs import Unnamed
from adapters.torch.tracing.retracing import at_sizes, sizes_of
from adapters.torch.tracing.specializing import Axis, Place
from converter.conditions import Condition, unmet
from converter.dims import Dim, Expr
from converter.errors import UnsupportedError
from converter.ir import DimRange, Graph
from converter.ports import Concern

TRIED = 6
"""Sizes that a graph leaves out at which its module is run."""


@dataclass(frozen=True)
class Omission:
    """Sizes that a graph refuses and its module takes: those below a range or between its steps, and those of which a condition
    between sizes is not met.

    Attributes:
        limit: the range of one size, or the condition.
        label: `axis 1 of 'x' is time in 7..`, or `requires a_1 >= b_1`.
        taken: sizes that the module takes, by name.
        line: of the module's code, where it is known.
    """

    limit: DimRange | Condition
    label: str
    taken: Mapping[str, int]
    line: str | None

    def describe(self) -> str:
        told = " and ".join(f"{name} = {size}" for name, size in self.taken.items())
        said = told if isinstance(self.limit, Condition) else str(next(iter(self.taken.values())))
        return f"{self.label}: the module takes {said} too, but goes another way there than in its trace"

    def concerns(self, named: set[str]) -> bool:
        """Whether it is about sizes that were asked for by name alone, and of other ones than 1, at which much goes another way."""
        return named.issuperset(self.taken) and min(self.taken.values()) > 1

    def way_out(self) -> str:
        """How to ask for what is left."""
        if isinstance(self.limit, Condition):
            return f"fix {' or '.join(self.taken)}, by a number in dims= or {' or '.join(f'--fix {name}=SIZE' for name in self.taken)}"
        (name,) = self.taken
        if self.limit.step > 1:
            rest = self.limit.min % self.limit.step
            return f"write {name} as '{self.limit.step}*n{f' + {rest}' if rest else ''}'"
        return f"give its end: Dim({name!r}, min={self.limit.min}) in dims=, or --fix {name}={self.limit.min}.."


def omissions(module: torch.nn.Module, arguments: Mapping[str, Any], graph: Graph, names: Names, asked: Mapping[str, DimRange],
              domain: Domain) -> list[Omission]:
    """Those of a graph. `asked` are the ranges that were asked for, by name; `domain` says what narrowed the sizes, and where."""
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
                found.append(Omission(span, f"{where[name]} is {name} in {span}", size, domain.reasons.get(name)))
    for condition in graph.requires:
        sizes = _taken(module, arguments, graph, names, _unmet(condition, own, graph))
        if sizes is not None:
            found.append(Omission(condition, f"requires {condition}", sizes, domain.requires.get(condition)))
    return found


def _unmet(condition: Condition, own: Mapping[str, int], graph: Graph) -> Iterator[dict[str, int]]:
    """Sizes at which one condition is not met and the others are: near those of an example first, then some times as large or small."""
    symbols = sorted(condition.symbols & own.keys())
    for changed in _changes({name: own[name] for name in symbols}):
        sizes = {**{name: own[name] for name in symbols}, **changed}
        within = all(size > 0 and size in graph.dims.get(name, DimRange()) for name, size in sizes.items())
        if within and unmet([item for item in graph.requires if item.symbols <= own.keys()], {**own, **sizes}) == [condition]:
            yield sizes


def _changes(own: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Other sizes in the place of some: of one, of all but one, and of all in their proportion."""
    for more in (1, -1, 2, 3, 5):
        for name in own:
            yield {name: own[name] + more}
            yield {other: own[name] + more for other in own if other != name}
    for factor in (0.5, 2, 0.25, 4):
        scaled = {name: int(size * factor) for name, size in own.items()}
        yield from ({name: size} for name, size in scaled.items())
        yield scaled


def _taken(module: torch.nn.Module, arguments: Mapping[str, Any], graph: Graph, names: Names,
           tried: Iterator[dict[str, int]]) -> dict[str, int] | None:
    """The first of some sizes that the module takes."""
    own = sizes_of(arguments, graph, names)
    for sizes in islice(tried, TRIED):
        example = at_sizes(arguments, graph, names, {**own, **sizes})
        try:
            if example is not None and takes(module, example):
                return sizes
        except EffortSpent:
            return None
    return None


# Refused -------------------------------------------------------------------------------------------------------------------


def asked_names(dims: Any) -> set[str]:
    """The sizes that were asked for by name."""
    return {str(axis) for axes in dims.values() for axis in axes if isinstance(axis, str) and not isinstance(axis, Unnamed)} \
        if isinstance(dims, Mapping) else set()


def refuse_named(module: torch.nn.Module, short: list[Shortfall], own: set[Shortfall], places: Mapping[Axis, Place],
                 left_out: Iterable[Omission], graph: Graph, domain: Domain, dims: Any) -> None:
    """Raises `UnsupportedError` that lists the sizes that were asked for by name and are not free: fixed, with an end, tied to others,
    or without some that the module takes. An end that the module itself has, as a table of positions gives one, is no such thing."""
    named = asked_names(dims)
    refused = [item for item in short if item.name is not None and not (item in own and _is_its_own(item))]
    omitted = [item for item in left_out if item.concerns(named)]
    ties = [item for item in graph.requires if _ties(item) and item.symbols <= named and item not in {other.limit for other in omitted}]
    if not refused and not omitted and not ties:
        return
    items: list[dict[str, object]] = []
    for item in refused:
        place = _place_of(item, places)
        line = place.line if place is not None and place.line else domain.reasons.get(str(item.name))
        items.append({"operator": place.operator if place is not None and place.operator else "a size",
                      "reason": f"{item.describe()}: {why(item, item in own, None)}", "source": line})
    items += [{"operator": "a size", "reason": item.describe(), "source": item.line} for item in omitted]
    items += [{"operator": "a size", "reason": f"requires {item}", "source": domain.requires.get(item)} for item in ties]
    wrong = dict.fromkeys([*(str(item.name) for item in refused), *(name for item in omitted for name in item.taken),
                           *(name for item in ties for name in sorted(item.symbols))])
    raise UnsupportedError(f"sizes that were asked to be free are not: {', '.join(wrong)}", where=type(module).__name__, items=items,
                           fix=_ways_out(refused, omitted, ties, dims))


def _ways_out(refused: list[Shortfall], omitted: list[Omission], ties: list[Condition], dims: Any) -> str:
    ways: list[str] = []
    fixed = {str(item.name): item.at for item in refused}
    if fixed:
        example = {name: [fixed.get(axis, axis) if isinstance(axis, str) else axis for axis in axes] for name, axes in dims.items()
                   if any(axis in fixed for axis in axes if isinstance(axis, str))}
        ways.append(f"fix what cannot be free: dims={example}, or {' '.join(f'--fix {name}={size}' for name, size in fixed.items())} "
                    "on the command line")
    for item in refused:
        if isinstance(item.size, DimRange):
            ways.append(f"give its end: Dim({item.name!r}, max={item.size.max}) in dims=, or --fix {item.name}=..{item.size.max}")
        elif isinstance(item.size, Expr):
            ways.append(_untied(str(item.name), item.size))
    ways += [item.way_out() for item in omitted]
    for tie in ties:
        left, right = tie.sides
        one, other = (left, right) if isinstance(left, Expr) and left.symbol is not None else (right, left)
        ways.append(_untied(str(one), other))
    return "; or ".join(dict.fromkeys(ways))


def _untied(name: str, size: Dim) -> str:
    """How to ask for a size that is another one."""
    if isinstance(size, Expr) and size.symbol is not None:
        return f"give {' and '.join(sorted((name, str(size))))} one name"
    return f"write {str(size)!r} in the place of {name!r}"


def _ties(condition: Condition) -> bool:
    """Whether a condition makes one size of others, as `q % k == 0` does not."""
    return condition.relation == "==" and all(isinstance(side, Expr) for side in condition.sides)


def _is_its_own(item: Shortfall) -> bool:
    """Whether a limit of the module's own leaves a size free: up to an end well beyond where it begins, which a few sizes that
    come to the same after a stride are not."""
    return isinstance(item.size, DimRange) and (item.size.max is None or item.size.max >= 2 * item.size.min)


# Told ----------------------------------------------------------------------------------------------------------------------


def why(item: Shortfall, own: bool, place: Place | None) -> str:
    """The reason for which a size falls short."""
    if own:
        return ("the module's code or its weights need that size" if isinstance(item.size, int) else
                "the module takes no other that was tried")
    lost = ("holds for this one alone" if isinstance(item.size, int) else "does not go beyond" if isinstance(item.size, DimRange)
            else "ties the two")
    return f"the module takes others, but its trace {lost}" + (f" ({place})" if place is not None and str(place) else "")


def describe_all(short: list[Shortfall], own: set[Shortfall], places: Mapping[Axis, Place], left_out: Iterable[Omission]) -> list[str]:
    """Notes on all that is not free; what the module itself would take is a concern, and so is an end to a size that was asked for."""
    notes: list[str] = []
    for item in short:
        if item in own and (_is_its_own(item) or isinstance(item.size, Expr)):
            if item.name is not None and isinstance(item.size, DimRange):
                notes.append(Concern(f"{item.describe()}, where the module's own code or weights end"))
            continue  # the note on the range says it, and the shapes themselves
        note = f"{item.describe()}: {why(item, item in own, _place_of(item, places))}"
        notes.append(note if item in own else Concern(note))
    return [*notes, *(Concern(item.describe()) for item in left_out)]


def _place_of(item: Shortfall, places: Mapping[Axis, Place]) -> Place | None:
    return next((places[axis] for axis in item.axes if axis in places), None)
