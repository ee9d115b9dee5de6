"""Limits on memory: parameters kept after they were read, and cases that are small enough to run side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from converter.dims import evaluate
from converter.errors import ConverterError
from converter.ir import Array, Graph, TensorSpec
from converter.parameters import ParameterStore, ParameterView, places_in

Item = TypeVar("Item")

MEMORY = 1 << 30
"""Bytes that `verify` may hold at a time beside inputs, outputs and the one node that runs: half for parameters that
were read, a quarter for the values of cases that run side by side, a quarter for the values that a bisection looks at."""


class Kept(ParameterView):
    """A store whose parameters stay in memory once they were read, as far as `limit` bytes go.

    What came first stays: graphs are run from the front, so that dropping the oldest would drop what is read next.
    """

    def __init__(self, store: ParameterStore, limit: int) -> None:
        super().__init__(places_in(store))
        self.room = limit
        self._arrays: dict[str, Array] = {}

    def changed(self, name: str) -> bool:
        return True  # a file's own values would be read again

    def made(self, name: str) -> Array:
        name = self.alias_of(name) or name
        array = self._arrays.get(name)
        if array is None:
            array = self.stored(name)
            if array.nbytes <= self.room:
                self.room -= array.nbytes
                self._arrays[name] = array
        return array


def peak_bytes(graph: Graph, specs: Mapping[str, TensorSpec], sizes: Mapping[str, int]) -> int | None:
    """About how many bytes of values a float64 run of a graph holds at most; None where only the data say.

    Parameters do not count, nor what a kernel holds within itself.
    """
    uses = graph.uses.copy()
    held: dict[str, int] = {}
    try:
        for port in graph.inputs:
            held[port.name] = _bytes(port.spec, sizes)
        total = peak = sum(held.values())
        for node in graph.nodes:
            for name in node.outputs:
                if name is not None:
                    held[name] = _bytes(specs[name], sizes)
                    total += held[name]
            peak = max(peak, total)
            for name in node.names:
                uses[name] -= 1
                if not uses[name]:
                    total -= held.pop(name, 0)
    except (ConverterError, KeyError):
        return None
    return peak


def _bytes(spec: TensorSpec, sizes: Mapping[str, int]) -> int:
    itemsize = 8 if spec.dtype.is_float else spec.dtype.itemsize
    return itemsize * math.prod(max(0, evaluate(size, sizes)) for size in spec.shape)


def groups(items: Sequence[Item], sizes: Sequence[int | None], limit: int) -> Iterator[list[Item]]:
    """Consecutive items whose sizes add up to at most `limit`; one that is larger, or of unknown size, is alone."""
    group: list[Item] = []
    held = 0
    for item, size in zip(items, sizes, strict=True):
        needed = limit + 1 if size is None else size
        if group and held + needed > limit:
            yield group
            group, held = [], 0
        group.append(item)
        held += needed
    if group:
        yield group
