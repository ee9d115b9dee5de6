"""Matrix products and affine maps."""

from __future__ import annotations

import numpy as np

from adapters.numpy.blocks import BLOCK, in_blocks
from adapters.numpy.buffers import empty
from adapters.numpy.links import Tail, finished
from adapters.numpy.registry import kernel
from converter.ir import Array
from converter.opset import lookup


@kernel("linear", tail=True)
def linear(x: Array, weight: Array, bias: Array | None = None, *, tail: Tail | None = None) -> Array:
    if x.dtype.char not in "fd" or weight.ndim != 2 or x.ndim < 2 or not x.size:
        return finished(lookup("linear").kernel(x, weight, bias), tail)
    # One product over all leading axes: many small ones would each start the threads of the library anew.
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    y: Array = np.matmul(rows, weight.T, out=empty((len(rows), len(weight)), rows.dtype))
    if bias is not None:
        add_to_rows(y, bias)
    return finished(y if x.ndim == 2 else y.reshape(*x.shape[:-1], len(weight)), tail)


def add_to_rows(rows: Array, vector: Array) -> None:
    """rows += vector, in place."""
    in_blocks(len(rows), max(1, BLOCK * 2 // max(rows.shape[1], 1)), lambda part: np.add(rows[part], vector, out=rows[part]))
