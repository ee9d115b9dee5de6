"""A graph that is being rolled, as a list of nodes, and the elements of sequences in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from converter.attributes import normalize_attributes
from converter.checking import infer_node
from converter.ir import Node, TensorSpec
from converter.opset import lookup


class NotALoop(Exception):
    """A stretch of nodes that is no loop of a known kind."""


@dataclass(frozen=True)
class Body:
    """The nodes of a step, the names of what it is given, and of what it gives."""

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Element:
    """A value that is the element `index` of a sequence, along its axis."""

    sequence: str
    axis: int
    index: int


@dataclass
class Listing:
    """A graph as a list of nodes that is being rolled.

    `elements` are the values that are elements of sequences; `single` are values made here, which are no steps of a loop.
    """

    nodes: list[Node]
    specs: dict[str, TensorSpec]
    outputs: tuple[str, ...]
    elements: dict[str, Element] = field(default_factory=dict)
    single: set[str] = field(default_factory=set)
    number: int = 0

    def fresh(self) -> str:
        self.number += 1
        return f"rolled_{self.number}"

    def add(self, into: list[Node], op: str, *inputs: Any, **attributes: Any) -> str:
        """A node of one output at the end of `into`."""
        name = self.fresh()
        node = Node(op, inputs, (name,), normalize_attributes(lookup(op), attributes))
        (self.specs[name],) = infer_node(node, self.specs)
        self.single.add(name)
        into.append(node)
        return name


def progression(values: Sequence[Any]) -> tuple[int, int] | None:
    """(first, step) where integers go up or down by as much each time."""
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return None
    step = values[1] - values[0]
    return (values[0], step) if all(b - a == step for a, b in pairwise(values)) else None


def part(listing: Listing, into: list[Node], first: Element, step: int, count: int) -> str:
    """`count` elements of a sequence from `first` on, upwards or downwards, along axis 0."""
    name, spec = first.sequence, listing.specs[first.sequence]
    size = spec.shape[first.axis]
    if first.axis:
        rest = [axis for axis in range(spec.rank) if axis != first.axis]
        name = listing.add(into, "permute_dims", name, axes=(first.axis, *rest))
    low = first.index if step > 0 else first.index - count + 1
    if low or count != size:
        name = listing.add(into, "slice", name, axes=(0,), starts=(low,), stops=(low + count,))
    return name if step > 0 else listing.add(into, "flip", name, axis=(0,))
