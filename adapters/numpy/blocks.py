"""Work in blocks that fit the cache, on as many threads as the run may use.

NumPy's functions let go of the interpreter lock while they compute, so blocks run side by side. A chain of functions
over one block reads and writes cache, not memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from adapters.numpy.buffers import empty
from adapters.numpy.threads import spread
from converter.ir import Array

BLOCK = 1 << 15
"""Elements a block: with a few temporaries, what a second-level cache holds."""


def in_blocks(count: int, size: int, work: Callable[[slice], object], *, products: bool = False) -> None:
    """Calls `work` with slices that cover `range(count)`, each of `size` at most. `products`: it multiplies matrices."""
    if count <= size:
        work(slice(0, count))
        return

    def each(parts: Iterable[slice]) -> None:
        for part in parts:
            work(part)

    spread([slice(start, min(start + size, count)) for start in range(0, count, size)], each, products=products)


def rowwise(x: Array, compute: Callable[[Array, Array], object], axes: int = 1) -> Array:
    """A new array like `x`, filled by `compute(rows of x, rows of the result)`; a row is the last `axes` axes, flat."""
    width = int(np.prod(x.shape[x.ndim - axes:], dtype=np.int64))
    rows = np.ascontiguousarray(x).reshape(-1, width) if width else x.reshape(0, 1)
    result = empty(rows.shape, rows.dtype)
    in_blocks(len(rows), max(1, BLOCK * 2 // max(width, 1)), lambda part: compute(rows[part], result[part]))
    return result.reshape(x.shape)
