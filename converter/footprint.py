"""What the values of a run take in memory, known before it runs: their shapes follow from the graph and the sizes of its inputs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property

from converter.attributes import free_symbols, graphs_in
from converter.checking import check
from converter.dims import evaluate, symbols
from converter.errors import ConverterError, RunError
from converter.ir import DType, Graph, Model, Node, TensorSpec
from converter.memory import VARIABLE, memory_limit, shown_bytes, stated_limit
from converter.opset import lookup
from converter.sizes import promote

SMALL = 1 << 28
"""Bytes that any run may take without anybody asking what the machine has."""


class Footprint:
    """What the values of a graph take. Parameters do not count, nor what a kernel holds within itself.

    Args:
        graph: the graph.
        specs: of all its values.
    """

    def __init__(self, graph: Graph, specs: Mapping[str, TensorSpec]) -> None:
        self.graph, self.specs = graph, specs

    @cached_property
    def bodies(self) -> dict[int, list[Footprint]]:
        """The footprints of the sub-graphs, by the place of their node."""
        return {place: [Footprint(inner, check(inner, outer=free_symbols(inner))) for inner in found]
                for place, node in enumerate(self.graph.nodes) if (found := graphs_in(node))}

    @cached_property
    def kinds(self) -> list[tuple[TensorSpec, frozenset[str], int]]:
        """The specs of what nodes make, here and in sub-graphs: the symbols in each, and how many values have it."""
        counts = Counter(self.specs[name] for node in self.graph.nodes for name in node.outputs if name is not None)
        for inner in (item for found in self.bodies.values() for item in found):
            counts.update({spec: count for spec, _, count in inner.kinds})
        return [(spec, frozenset().union(*map(symbols, spec.shape)), count) for spec, count in counts.items()]

    def check(self, sizes: Mapping[str, int], float_dtype: DType | None = None) -> None:
        """Raises `RunError` where the values of a run at these sizes do not fit in memory. What only the data decide is not counted."""
        made = sum(count * nbytes(spec, sizes, float_dtype) for spec, named, count in self.kinds if named <= sizes.keys())
        if made <= (stated_limit() or SMALL):
            return
        needed, node = self.peak(lambda spec: known_bytes(spec, sizes, float_dtype))
        limit = memory_limit()
        if needed > limit:
            raise RunError("the run does not fit in memory", where=f"node {node}" if node else f"graph {self.graph.name!r}",
                           expected=f"at most {shown_bytes(limit)}", received=f"{shown_bytes(needed)} of values at one time"
                           + (f" ({', '.join(f'{name}={size}' for name, size in sizes.items())})" if sizes else ""),
                           fix=f"run it at smaller sizes, or with more memory; {VARIABLE}={-(-needed // 10**9)}GB "
                               "says that it may take as much")

    def peak(self, size: Callable[[TensorSpec], int]) -> tuple[int, Node | None]:
        """How many bytes are held at most, and the node at which; None: the inputs. `size` says what a value takes."""
        uses = self.graph.uses.copy()
        held = {port.name: size(port.spec) for port in self.graph.inputs}
        total = most = sum(held.values())
        at: Node | None = None
        for place, node in enumerate(self.graph.nodes):
            flat = lookup(node.op).facts.flat  # the same elements at the same place
            if flat:
                total -= _dropped(node, uses, held)
            for name in node.outputs:
                if name is not None:
                    held[name] = size(self.specs[name])
                    total += held[name]
            inner = sum(item.peak(size)[0] for item in self.bodies.get(place, ()))
            if total + inner > most:
                most, at = total + inner, node
            if not flat:
                total -= _dropped(node, uses, held)
        return most, at


def _dropped(node: Node, uses: Counter[str], held: dict[str, int]) -> int:
    """The bytes that are free once a node has run."""
    freed = 0
    for name in node.names:
        uses[name] -= 1
        if not uses[name]:
            freed += held.pop(name, 0)
    return freed


def check_memory(model: Model, sizes: Mapping[str, int], float_dtype: DType | None = None) -> Footprint:
    """`Footprint.check` on a model. Its footprint is worked out once, and kept with the graph."""
    kept = model.graph.__dict__
    found: Footprint | None = kept.get("footprint")
    if found is None:
        found = kept["footprint"] = Footprint(model.graph, check(model.graph, model.parameters))
    found.check(sizes, float_dtype)
    return found


def peak_bytes(graph: Graph, specs: Mapping[str, TensorSpec], sizes: Mapping[str, int]) -> int | None:
    """About how many bytes of values a float64 run of a graph holds at most; None where only the data say."""
    try:
        return Footprint(graph, specs).peak(lambda spec: nbytes(spec, sizes, DType.FLOAT64))[0]
    except (ConverterError, KeyError):
        return None


def nbytes(spec: TensorSpec, sizes: Mapping[str, int], float_dtype: DType | None = None) -> int:
    """The bytes of a value at these sizes, every float being of `float_dtype`. Raises `GraphError` for a size that has no value."""
    return promote(spec.dtype, float_dtype).itemsize * math.prod(max(0, evaluate(size, sizes)) for size in spec.shape)


def known_bytes(spec: TensorSpec, sizes: Mapping[str, int], float_dtype: DType | None = None) -> int:
    """`nbytes`; 0 where only the data say."""
    return nbytes(spec, sizes, float_dtype) if all(symbols(size) <= sizes.keys() for size in spec.shape) else 0
