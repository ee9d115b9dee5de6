"""Work in blocks that fit the cache, on as many threads as there are cores.

NumPy's functions let go of the interpreter lock while they compute, so blocks run side by side. A chain of functions
over one block reads and writes cache, not memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np

from adapters.numpy.buffers import empty
from converter.ir import Array

Part = TypeVar("Part")
BLOCK = 1 << 15
"""Elements a block: with a few temporaries, what a second-level cache holds."""


def threads() -> int:
    """How many threads to use: OMP_NUM_THREADS where it is set, as the matrix products do, else the cores allowed."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit():
        return max(1, int(stated))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="neutral-model")


def spread(parts: Sequence[Part], work: Callable[[Iterable[Part]], object]) -> None:
    """Calls `work` with parts, each of them once: with all at once, or from each thread with its share."""
    workers = threads()
    if len(parts) <= 2 or workers == 1:
        work(parts)
        return

    def share(first: int) -> None:
        with np.errstate(all="ignore"):
            work(parts[first::workers])

    for _ in _pool().map(share, range(workers)):
        pass


def in_blocks(count: int, size: int, work: Callable[[slice], object]) -> None:
    """Calls `work` with slices that cover `range(count)`, each of `size` at most."""
    if count <= size:
        work(slice(0, count))
        return

    def each(parts: Iterable[slice]) -> None:
        for part in parts:
            work(part)

    spread([slice(start, min(start + size, count)) for start in range(0, count, size)], each)


def rowwise(x: Array, compute: Callable[[Array, Array], object], axes: int = 1) -> Array:
    """A new array like `x`, filled by `compute(rows of x, rows of the result)`; a row is the last `axes` axes, flat."""
    width = int(np.prod(x.shape[x.ndim - axes:], dtype=np.int64))
    rows = np.ascontiguousarray(x).reshape(-1, width) if width else x.reshape(0, 1)
    result = empty(rows.shape, rows.dtype)
    in_blocks(len(rows), max(1, BLOCK * 2 // max(width, 1)), lambda part: compute(rows[part], result[part]))
    return result.reshape(x.shape)
