"""The sizes of drawn cases: across each symbol's range, no smaller than means something, and no larger than the work is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping

from converter.conditions import unmet
from converter.dims import Dim, evaluate, product
from converter.equivalence.conditions import edges, meeting
from converter.equivalence.roles import Specs
from converter.errors import ConverterError
from converter.footprint import peak_bytes
from converter.ir import DimRange, Graph, Node
from converter.memory import memory_limit

ODD_SIZES = (3, 7, 5, 11, 13)
HIGH_END = 128
"""The upper end of a range is tried when it is at most this."""

LIGHT = 2**23
"""How many values the nodes of a graph may make in one drawn case."""

HEAVY = 3
"""Where the least sizes make more than `LIGHT / HEAVY`: this many times as many as those."""


class Sizes:
    """Plans the sizes of the symbols that a graph's inputs bind.

    Args:
        graph: the graph.
        specs: of all its values.
        symbols: those that inputs bind, in order.
        typical: sizes of the first case, where they are known (those of a recorded example).
        fixed: sizes that the caller's own arrays have.
    """

    def __init__(self, graph: Graph, specs: Specs, symbols: tuple[str, ...], typical: Mapping[str, int], fixed: Mapping[str, int]) -> None:
        self.graph, self.specs, self.symbols, self.typical, self.fixed = graph, specs, symbols, typical, fixed
        self.ranges = {name: graph.dims.get(name, DimRange()) for name in symbols}
        self.normalized = normalized(graph, specs)
        self.required = [condition for condition in graph.requires if condition.symbols <= set(symbols)]
        self.edges = [condition for condition in edges(graph) if condition.symbols <= set(symbols)]
        least = self.work({name: span.min for name, span in self.ranges.items()} | dict(fixed))
        self.limit = max(LIGHT, HEAVY * (least or 0))
        self.memory = memory_limit()

    def plan(self, index: int) -> dict[str, int]:
        """Every symbol's size in case `index`: typical, low end, odd, odd, high end where it is near, then odd ones.

        They are doubled where a normalization would have a single value, and made smaller where the work is beyond `limit`; what is
        at its high end on purpose stays there.
        """
        result = {}
        high = index == 4 and any(span.max is not None and span.max <= HIGH_END for span in self.ranges.values())
        kept = set(self.fixed)
        for position, (name, span) in enumerate(self.ranges.items()):
            odd = ODD_SIZES[(index + position) % len(ODD_SIZES)]
            if index == 0:
                size = self.typical.get(name, max(span.min, 4 + 2 * position))
            elif index == 1:
                size = span.min
            elif high:
                size = max(span.min, 2)
                if span.max is not None and span.max <= HIGH_END:
                    size = span.max
                    kept.add(name)
            else:
                size = odd if odd >= span.min else span.min + odd
            result[name] = span.nearest(size)
        result |= self.fixed
        while self._lone(result):
            larger = self.grown(result)
            if larger is None:
                break
            result = larger
        return self._light(self._allowed(result, kept, index), kept)

    def _allowed(self, sizes: dict[str, int], kept: set[str], index: int) -> dict[str, int]:
        """Sizes near the given ones that meet what the graph requires; from the third case on, in turn, such that each requirement is
        seen at its edge, and each clamp from either side."""
        wishes = [self.edges[(index - 2) % len(self.edges)]] if index > 1 and self.edges else []
        if not wishes and not unmet(self.required, sizes):
            return sizes
        found = meeting(self.required, sizes, self.ranges, frozenset(kept), wishes)
        if found is None and all(name in self.typical for name in self.symbols):
            found = {**sizes, **self.typical, **self.fixed}
        return found or sizes

    def grown(self, sizes: Mapping[str, int]) -> dict[str, int] | None:
        """Sizes about twice as large, for a graph that cannot run at small ones; None when no range allows any."""
        result = {name: size if name in self.fixed else self._span(name).nearest(2 * size + 1) for name, size in sizes.items()}
        result = meeting(self.required, result, self.ranges, frozenset(self.fixed)) or result
        return None if result == dict(sizes) else result

    def shrunk(self, sizes: Mapping[str, int]) -> dict[str, int] | None:
        """Sizes half as large, for a graph that cannot run where several are large at once; None when no range allows any."""
        result = {name: size if name in self.fixed else min(size, self._span(name).nearest(size // 2)) for name, size in sizes.items()}
        result = meeting(self.required, result, self.ranges, frozenset(self.fixed)) or result
        return None if result == dict(sizes) else result

    def multiples(self, sizes: Mapping[str, int]) -> list[dict[str, int]]:
        """Three and two times these sizes, where their ranges go as far: equal ones stay equal, multiples multiples."""
        many = [{name: size if name in self.fixed else times * size for name, size in sizes.items()} for times in (3, 2)]
        return [item for item in many if item != dict(sizes) and all(self._span(name).nearest(size) == size for name, size in item.items())
                and not unmet(self.required, item)]

    def apart(self, sizes: Mapping[str, int]) -> list[dict[str, int]]:
        """Each size in turn, with all others at the low end of their ranges."""
        low = {name: size if name in self.fixed else self._span(name).min for name, size in sizes.items()}
        found = [{**low, name: size} for name, size in sizes.items() if size != low[name]]
        return [item for item in found if not unmet(self.required, item)]

    def work(self, sizes: Mapping[str, int]) -> int | None:
        """How many values the graph's nodes make; None where only the data say."""
        try:
            return sum(math.prod(max(0, evaluate(size, sizes)) for size in self.specs[name].shape)
                       for node in self.graph.nodes for name in node.outputs if name is not None)
        except (ConverterError, KeyError):
            return None

    def _span(self, name: str) -> DimRange:
        return self.ranges.get(name, DimRange())

    def _light(self, sizes: dict[str, int], kept: set[str]) -> dict[str, int]:
        """The sizes with the one that is the largest multiple of its least halved, as often as it takes to be within `limit`, and for
        a run's values to fit in memory, for which those that were `kept` at their high end go too."""
        while (large := (peak_bytes(self.graph, self.specs, sizes) or 0) > self.memory) or (self.work(sizes) or 0) > self.limit:
            stay = self.fixed if large else kept
            smaller = {name: min(size, self._span(name).nearest(size // 2)) for name, size in sizes.items() if name not in stay}
            able = [name for name, size in smaller.items() if size < sizes[name] and not self._lone({**sizes, name: size})
                    and not unmet(self.required, {**sizes, name: size})]
            if not able:
                break
            name = max(able, key=lambda name: sizes[name] / max(1, self._span(name).min))
            sizes = {**sizes, name: smaller[name]}
        return sizes

    def _lone(self, sizes: Mapping[str, int]) -> bool:
        """Whether some normalization has one value at these sizes, which comes to its bias whatever it is."""
        for count in self.normalized:
            try:
                if evaluate(count, sizes) == 1:
                    return True
            except ConverterError:
                continue
        return False


def normalized(graph: Graph, specs: Specs) -> list[Dim]:
    """Of how many values each instance and group normalization takes the variance. PyTorch's own code refuses a single one."""
    return [product(shape) for node in graph.nodes for shape in _together(node, specs)]


def _together(node: Node, specs: Specs) -> list[tuple[Dim, ...]]:
    if node.op not in ("instance_norm", "group_norm"):
        return []
    shape = specs[node.names[0]].shape
    channels = shape[1]
    if node.op == "instance_norm":
        return [shape[2:]]
    groups = node.attributes["num_groups"]
    return [(channels // groups, *shape[2:])] if isinstance(channels, int) and isinstance(groups, int) else []
