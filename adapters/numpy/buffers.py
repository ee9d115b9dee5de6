"""Memory that a session uses again: fresh pages cost more than the arithmetic that fills them.

A kernel asks `empty` for an array. While a plan runs, large ones lie in blocks that the plan keeps for its thread; a block is
given out again when nothing refers to it, which its reference count says, so that views keep their block as they would keep an
array. What a run gives to its caller leaves the plan for good.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from converter.ir import Array

LEAST = 1 << 15
"""Bytes below which NumPy's own allocation costs less than a look at the blocks."""
ALIGNED = 64


class Buffers:
    """Blocks of one thread. None is given out twice at a time, and none that is larger than twice what was asked for."""

    def __init__(self) -> None:
        self._blocks: list[Array] = []
        self._used: set[int] = set()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of no particular values. Its memory is aligned, and no other array's while it, or a view of it, is there."""
        dtype = np.dtype(dtype)
        wanted = prod(shape) * dtype.itemsize
        if wanted < LEAST:
            return np.empty(shape, dtype)
        best = -1
        for index in range(len(self._blocks)):
            size = self._blocks[index].nbytes
            if wanted <= size <= 2 * wanted and (best < 0 or size < self._blocks[best].nbytes) and self._is_free(index):
                best = index
        if best < 0:
            self._blocks.append(_block(wanted))
        block = self._blocks[best]
        self._used.add(id(block))
        return block[:wanted].view(dtype).reshape(shape)

    @property
    def nbytes(self) -> int:
        """Of the blocks that are kept."""
        return sum(block.nbytes for block in self._blocks)

    def _is_free(self, index: int) -> bool:
        return sys.getrefcount(self._blocks[index]) <= _IDLE

    def release(self, outputs: Iterable[Array]) -> None:
        """Forgets, at the end of a run, the blocks of its outputs, and those that it had no use for."""
        if not self._blocks:
            return
        kept = self._used - {id(_owner(array)) for array in outputs}
        self._blocks = [block for block in self._blocks if id(block) in kept]
        self._used.clear()


def _block(size: int) -> Array:
    raw = np.empty(size + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    # A block owns its memory, as far as NumPy's chain of bases goes: what is made of it refers to it, and not to `raw`.
    return np.frombuffer(raw.data[start:start + size], np.uint8)


def _owner(array: Array) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _idle() -> int:
    """The reference count that `_is_free` sees of a block that nothing else refers to."""
    probe = Buffers()
    probe._blocks.append(_block(LEAST))
    return sys.getrefcount(probe._blocks[0])


_IDLE = _idle()
_active = threading.local()


class using:
    """`with using(buffers)`: `empty` takes from these blocks, in this thread."""

    __slots__ = ("_before", "_buffers")

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers

    def __enter__(self) -> None:
        self._before = getattr(_active, "buffers", None)
        _active.buffers = self._buffers

    def __exit__(self, *failure: object) -> None:
        _active.buffers = self._before


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of no particular values, in the memory of the plan that runs in this thread, if one does."""
    buffers: Buffers | None = getattr(_active, "buffers", None)
    return np.empty(shape, dtype) if buffers is None else buffers.empty(shape, dtype)
