"""Rotary positions."""

from __future__ import annotations

import numpy as np

from adapters.numpy.blocks import in_blocks
from adapters.numpy.buffers import empty
from adapters.numpy.registry import kernel
from converter.ir import Array
from converter.opset import lookup


@kernel("rotary_embedding")
def rotary_embedding(x: Array, cosine: Array, sine: Array, *, interleaved: bool = False) -> Array:
    if x.dtype != np.float32 or x.ndim != 4 or not x.size:
        return lookup("rotary_embedding").kernel(x, cosine, sine, interleaved=interleaved)
    half = cosine.shape[-1]
    first, second = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(0, half), slice(half, 2 * half))
    batch, heads = x.shape[:2]
    c, s = (np.broadcast_to(item, (*x.shape[:-1], half)) for item in (cosine, sine))
    y = empty(x.shape, np.float32)

    def compute(part: slice) -> None:
        for index in range(part.start, part.stop):
            place = divmod(index, heads)
            rows, out, cos, sin = x[place], y[place], c[place], s[place]
            a, b = rows[:, first], rows[:, second]
            np.multiply(a, cos, out=out[:, first])
            np.multiply(b, cos, out=out[:, second])
            out[:, first] -= b * sin
            out[:, second] += a * sin
            out[:, 2 * half:] = rows[:, 2 * half:]

    # One head of a short text is little work for a thread.
    in_blocks(batch * heads, max(1, (1 << 14) // (x.shape[2] * x.shape[3])), compute)
    return y
