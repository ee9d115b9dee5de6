"""Attention."""

from __future__ import annotations

import math

import numpy as np

from adapters.numpy.blocks import in_blocks
from adapters.numpy.buffers import empty
from adapters.numpy.registry import kernel
from converter.ir import Array
from converter.opset import lookup


@kernel("scaled_dot_product_attention")
def scaled_dot_product_attention(query: Array, key: Array, value: Array, mask: Array | None = None, *, is_causal: bool = False,
                                 scale: float | None = None, enable_gqa: bool = False) -> Array:
    plain = query.dtype == np.float32 and query.ndim == 4 and query.shape[:1] == key.shape[:1] == value.shape[:1]
    heads = query.shape[1] // key.shape[1] if plain and key.shape[1] and enable_gqa else 1
    if not plain or key.shape[1] != value.shape[1] or query.shape[1] != heads * key.shape[1] or not query.size or not key.size:
        return lookup("scaled_dot_product_attention").kernel(query, key, value, mask, is_causal=is_causal, scale=scale,
                                                            enable_gqa=enable_gqa)
    batch, count, length, size = query.shape
    source = key.shape[2]
    factor = np.float32(1 / math.sqrt(size) if scale is None else scale)
    added = _additive(mask, is_causal, length, source)
    if added is not None:
        added = np.broadcast_to(added, (batch, count, length, source))
    # The result's memory is [batch, length, heads, width]: what comes next joins the heads again.
    y = empty((batch, length, count, value.shape[3]), np.float32).transpose(0, 2, 1, 3)

    def compute(part: slice) -> None:
        for index in range(part.start, part.stop):
            sample, head = divmod(index, count)
            scores = np.matmul(query[sample, head] * factor, key[sample, head // heads].T)
            if added is not None:
                scores += added[sample, head]
            top = scores.max(axis=1, keepdims=True)
            blind = top == -np.inf
            if blind.any():
                top[blind] = 0
            scores -= top
            np.exp(scores, out=scores)
            total = scores.sum(axis=1, keepdims=True)
            total[blind] = 1
            result = np.matmul(scores, value[sample, head // heads])
            result /= total
            y[sample, head] = result

    in_blocks(batch * count, 1, compute, products=True)
    return y


def _additive(mask: Array | None, is_causal: bool, length: int, source: int) -> Array | None:
    """What is added to the scores: 0 where a pair takes part, -infinity where not."""
    added = None
    if mask is not None:
        added = np.where(mask, np.float32(0), np.float32(-np.inf)) if mask.dtype == np.bool_ else mask
    if is_causal:
        causal = np.where(np.tri(length, source, dtype=np.bool_), np.float32(0), np.float32(-np.inf))
        added = causal if added is None else added + causal
    return added
