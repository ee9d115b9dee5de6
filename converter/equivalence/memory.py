"""Limits on memory: parameters kept after they were read, and cases that are small enough to run side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from converter.ir import Array
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
