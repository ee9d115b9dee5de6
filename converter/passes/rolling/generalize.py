"""Graphs of one module at several lengths as one graph whose length is free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converter.builder import BuilderOperand, GraphBuilder, Value
from converter.dims import Dim, Expr, Monomial, evaluate, substitute, symbol
from converter.errors import GraphError
from converter.ir import DimRange, DType, Graph, Node, TensorSpec
from converter.parameters import InMemoryParameters
from converter.passes.rewriting import simplify
from converter.passes.rolling.listing import Body, Listing, NotALoop
from converter.passes.rolling.lists import unstacked
from converter.passes.rolling.repeats import Repeat, repeats
from converter.passes.rolling.roll import roll

LOOPS = 200
"""Loops of one graph, at most."""


@dataclass(frozen=True)
class Unrolled:
    """A graph as it was built at one length, dead nodes and all."""

    length: int
    builder: GraphBuilder


def rolled(graphs: Sequence[Unrolled], length: str, free: Callable[[str, int], bool]) -> tuple[Graph, dict[str, TensorSpec]] | None:
    """One graph for all lengths, with the specs of its values; None where the graphs hold no loop over the length, or differ
    in more than that.

    Args:
        graphs: of one module at three lengths or more.
        length: the symbol that the length gets.
        free: whether the axis of an input, by name and place, has the length.
    """
    listings = [_listing(item.builder) for item in graphs]
    lengths = [item.length for item in graphs]
    found = False
    for _ in range(LOOPS):
        following = _with_one_loop(listings, lengths)
        if following is None:
            break
        listings, found = following, True
    if not found:
        return None
    try:
        return _Replay(graphs, [_live(item) for item in listings], length, free).graph()
    except (GraphError, NotALoop):
        return None


def repeated(graphs: Sequence[Unrolled]) -> bool:
    """Whether the graphs have a stretch that repeats as often as their lengths say."""
    listings = [_listing(item.builder) for item in graphs]
    return any(True for _ in _common(listings, [item.length for item in graphs]))


def _listing(builder: GraphBuilder) -> Listing:
    return Listing(list(builder.made), dict(builder.specs), tuple(output.value for output in builder._outputs),
                   unstacked(builder.made, builder.specs))


def _common(listings: Sequence[Listing], lengths: Sequence[int]) -> Iterator[list[Repeat]]:
    """The stretches that all listings have and that repeat as much more often as the listing is longer, the first ones first."""
    found = [{(item.period, item.body): item for item in reversed(list(repeats(listing.nodes, listing.specs, frozenset(listing.single))))}
             for listing in listings]
    first, *others = found
    for key, repeat in sorted(first.items(), key=lambda entry: (entry[1].start, entry[1].period)):
        same = [repeat, *(other[key] for other in others if key in other)]
        if len(same) == len(listings) and all(item.count - repeat.count == length - lengths[0]
                                              for item, length in zip(same, lengths, strict=True)):
            yield same


def _with_one_loop(listings: Sequence[Listing], lengths: Sequence[int]) -> list[Listing] | None:
    """The listings with one more loop rolled, the same in each; None where there is no more."""
    made = (_rolled_alike(listings, same) for same in _common(listings, lengths))
    return next((item for item in made if item is not None), None)


def _rolled_alike(listings: Sequence[Listing], same: Sequence[Repeat]) -> list[Listing] | None:
    """Each listing with its stretch rolled, leaving as many nodes before and steps after; None where none is a loop."""
    for late in range(2):
        for skipped in range(2 * same[0].period + 1):
            counts = [(item.stop - item.start - skipped) // item.period - late for item in same]
            if min(counts) < 3:
                break
            try:
                return [roll(listing, item, skipped, count) for listing, item, count in zip(listings, same, counts, strict=True)]
            except NotALoop:
                continue
    return None


def _live(listing: Listing) -> list[Node]:
    needed = set(listing.outputs)
    kept: list[Node] = []
    for node in reversed(listing.nodes):
        if needed.intersection(name for name in node.outputs if name is not None):
            kept.append(node)
            needed.update(node.names)
    return kept[::-1]


class _Replay:
    """Builds the one graph, reading off the several how each number depends on the length."""

    def __init__(self, graphs: Sequence[Unrolled], listings: Sequence[Sequence[Node]], length: str,
                 free: Callable[[str, int], bool]) -> None:
        self.graphs, self.listings, self.free = graphs, listings, free
        self.lengths = [item.length for item in graphs]
        self.symbol = symbol(length)
        self.least = 1
        first = graphs[0].builder
        self.tied = {size.symbol: self.symbol for port in first._inputs for axis, size in enumerate(port.spec.shape)
                     if isinstance(size, Expr) and size.symbol is not None and free(port.name, axis)}
        self.builder = GraphBuilder(first.name, {name: span for name, span in first.dims.items() if name not in self.tied})
        self.builder.dims.setdefault(length, DimRange())
        self.builder.requires = [condition for condition in first.requires if not condition.symbols & self.tied.keys()]

    def graph(self) -> tuple[Graph, dict[str, TensorSpec]]:
        builders = [item.builder for item in self.graphs]
        if len({len(item) for item in self.listings}) != 1:
            raise NotALoop("another number of nodes at each length")
        values: dict[str, Value] = {}
        for ports in zip(*(item._inputs for item in builders), strict=True):
            shape = [self.symbol if self.free(ports[0].name, axis) else substitute(size, self.tied)
                     for axis, size in enumerate(ports[0].spec.shape)]
            values[ports[0].name] = self.builder.input(ports[0].name, ports[0].spec.dtype, shape)
        for name, spec in builders[0].parameters.items():
            values[name] = self.builder.parameter(name, spec.dtype, spec.shape)
        alike = [{name: name for name in values} for _ in builders]
        self.replay(self.builder, list(zip(*self.listings, strict=True)), values, alike)
        for outputs in zip(*(item._outputs for item in builders), strict=True):
            if any(names[output.value] != outputs[0].value for output, names in zip(outputs, alike, strict=True)):
                raise NotALoop("another output at each length")
            self.builder.output(outputs[0].name, values[outputs[0].value])
        graph = self.builder.graph()
        dims = dict(graph.dims)
        dims[str(self.symbol)] = DimRange(min=self.least)
        return replace(graph, dims=dims), self.builder.specs

    def replay(self, builder: GraphBuilder, rows: Sequence[tuple[Node, ...]], values: dict[str, Value],
               alike: Sequence[dict[str, str]]) -> None:
        """Emits nodes. `alike` says what the values of each graph are called in the first."""
        for row in rows:
            node = row[0]
            if len({(item.op, len(item.inputs), len(item.outputs)) for item in row}) != 1:
                raise NotALoop("other nodes at each length")
            operands = [self._operand(builder, [item.inputs[slot] for item in row], node, values, alike)
                        for slot in range(len(node.inputs))]
            attributes = [item.attributes for item in row]
            if node.op == "scan" and isinstance(attributes[0]["body"], Body):
                made = self._scan(builder, operands, attributes, node, alike)
            else:
                together = {key: self.together([item[key] for item in attributes]) for key in attributes[0]}
                made = builder.add(node.op, tuple(operands), together, names=node.outputs, source=node.source)
            for name, value in zip(node.outputs, made, strict=False):
                if name is not None:
                    values[name] = value
            for names, item in zip(alike, row, strict=True):
                names.update((name, first) for name, first in zip(item.outputs, node.outputs, strict=True)
                             if name is not None and first is not None)

    def _operand(self, builder: GraphBuilder, operands: Sequence[Any], node: Node, values: Mapping[str, Value],
                 alike: Sequence[Mapping[str, str]]) -> BuilderOperand:
        if isinstance(operands[0], str):
            if any(not isinstance(item, str) or names[item] != operands[0] for item, names in zip(operands, alike, strict=True)):
                raise NotALoop("other operands at each length")
            return values[operands[0]]
        if all(item == operands[0] and type(item) is type(operands[0]) for item in operands):
            found: BuilderOperand = operands[0]
            return found
        whole = [int(item) if isinstance(item, float) and item.is_integer() else item for item in operands]
        dtype = next(values[name].dtype for name in node.names)
        return builder.op("full", shape=(), fill_value=self.together(whole), dtype=dtype)

    def _scan(self, builder: GraphBuilder, operands: Sequence[BuilderOperand], attributes: Sequence[Mapping[str, Any]], node: Node,
              alike: Sequence[dict[str, str]]) -> tuple[Value, ...]:
        bodies = [item["body"] for item in attributes]
        states, sequences = attributes[0]["states"], attributes[0]["sequences"]
        if len({(item["states"], item["sequences"], len(item["body"].nodes), len(item["body"].inputs)) for item in attributes}) != 1:
            raise NotALoop("another body at each length")
        inner = GraphBuilder(builder.unique("body"))
        values: dict[str, Value] = {}
        for position, (name, operand) in enumerate(zip(bodies[0].inputs, operands, strict=True)):
            assert isinstance(operand, Value)
            shape = operand.shape[1:] if states <= position < states + sequences else operand.shape
            values[name] = inner.input(name, operand.dtype, shape)
        within = [dict(zip(body.inputs, bodies[0].inputs, strict=True)) for body in bodies]
        self.replay(inner, list(zip(*(body.nodes for body in bodies), strict=True)), values, within)
        for position, names in enumerate(zip(*(body.outputs for body in bodies), strict=True)):
            if any(known[name] != names[0] for name, known in zip(names, within, strict=True)):
                raise NotALoop("another result of a step at each length")
            inner.output(f"output_{position}", values[names[0]])
        graph, _ = simplify(inner.graph(), inner.specs, InMemoryParameters())
        first = operands[states]
        assert isinstance(first, Value)
        self._at_least_one(first.shape[0])
        return builder.add("scan", tuple(operands), {"states": states, "sequences": sequences, "body": graph}, names=node.outputs,
                           source=node.source)

    def _at_least_one(self, count: Dim) -> None:
        """A scan goes over one element and more."""
        while self.least < self.lengths[0] and evaluate(count, {str(self.symbol): self.least}) < 1:
            self.least += 1

    def together(self, values: Sequence[Any]) -> Any:
        """What has these values at the lengths. Raises `NotALoop`."""
        values = [substitute(item, self.tied) if isinstance(item, Expr) else item for item in values]
        first = values[0]
        if isinstance(first, tuple) and all(isinstance(item, tuple) and len(item) == len(first) for item in values):
            return tuple(self.together(items) for items in zip(*values, strict=True))
        if all(type(item) is type(first) and item == first for item in values):
            return first
        if all(isinstance(item, (int, Expr)) and not isinstance(item, (bool, DType)) for item in values):
            return self._size(values)
        raise NotALoop("an attribute that follows no rule")

    def _size(self, values: Sequence[Dim]) -> Dim:
        terms: list[dict[Monomial, int]] = [item.terms if isinstance(item, Expr) else {(): item} for item in values]
        monomials: dict[Monomial, None] = {key: None for item in terms for key in item}
        total: Dim = 0
        for monomial in monomials:
            factor = self._along([item.get(monomial, 0) for item in terms])
            total = total + (factor if monomial == () else Expr({monomial: 1}) * factor)
        return total

    def _along(self, numbers: Sequence[int]) -> Dim:
        slope, left = divmod(numbers[1] - numbers[0], self.lengths[1] - self.lengths[0])
        start = numbers[0] - slope * self.lengths[0]
        if left or any(slope * length + start != number for length, number in zip(self.lengths, numbers, strict=True)):
            raise NotALoop("a size that is no multiple of the length")
        return self.symbol * slope + start
