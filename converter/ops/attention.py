"""Attention: softmax(query · keyᵀ) · value, with masks."""

from __future__ import annotations

import math

import numpy as np

from converter.dims import maximum
from converter.formulas import Space, Term, counted, dtype_of, largest, widened
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import broadcast_dims, require, require_float, require_size, same_dtype
from converter.opset import op


def _attention(query: TensorSpec, key: TensorSpec, value: TensorSpec, mask: TensorSpec | None = None, *,
               is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> TensorSpec:
    dtype = same_dtype(query, key, value)
    require_float(query, "the query")
    for spec in (query, key, value):
        require(spec.rank >= 2, "too few axes", expected="[..., length, size]", received=spec)
    require_size(key.shape[-1], query.shape[-1], "the last axis of the key")
    require_size(value.shape[-2], key.shape[-2], "the length of the value")
    heads = [spec.shape[:-2] for spec in (query, key, value)]
    if enable_gqa:
        require(min(map(len, heads)) >= 1, "too few axes for grouped heads", expected="[..., heads, length, size]", received=query)
        ours = query.shape[-3]
        for theirs in (key.shape[-3], value.shape[-3]):
            if isinstance(ours, int) and isinstance(theirs, int):
                require(theirs > 0 and ours % theirs == 0, "heads that do not group", expected=f"a multiple of {theirs} heads",
                        received=ours)
        heads = [heads[0], *((*shape[:-1], ours) for shape in heads[1:])]
    batch = broadcast_dims(*heads)
    if mask is not None:
        require(mask.dtype in (DType.BOOL, dtype), "wrong dtype of the mask", expected=f"bool or {dtype}", received=mask)
        scores = (*batch, query.shape[-2], key.shape[-2])
        require(broadcast_dims(scores, mask.shape) == broadcast_dims(scores), "the mask does not fit the scores",
                expected=f"what broadcasts to {list(map(str, scores))}", received=mask)
    return TensorSpec(dtype, (*batch, query.shape[-2], value.shape[-1]))


@widened
def _attended(f: Space, query: Term, key: Term, value: Term, mask: Term | None, *, is_causal: bool, scale: float | None,
              enable_gqa: bool) -> Term:
    if enable_gqa:
        key, value = (f.repeat_interleave(item, repeats=query.shape[-3] // item.shape[-3], axis=-3) for item in (key, value))
    length, source, size = query.shape[-2], key.shape[-2], query.shape[-1]
    if scale is None:
        factor = f.astype(f.rsqrt(f.full(shape=(), fill_value=maximum(size, 1), dtype=DType.FLOAT64)), dtype=dtype_of(query))
    else:
        factor = f.full(shape=(), fill_value=scale, dtype=dtype_of(query))
    turned = f.permute_dims(key, axes=(*range(key.ndim - 2), key.ndim - 1, key.ndim - 2))
    scores = f.matmul(query * factor, turned)
    if mask is not None:
        scores = f.where(mask, scores, -math.inf) if dtype_of(mask) is DType.BOOL else scores + mask
    if is_causal:
        scores = f.where(counted(f, length, 0, 2) >= counted(f, source, 1, 2), scores, -math.inf)
    top = largest(f, scores, (-1,))
    blind = f.equal(top, -math.inf)
    weights = f.exp(scores - f.where(blind, 0.0, top))
    y = f.matmul(weights, value) / f.where(blind, 1.0, f.sum(weights, axis=(-1,), keepdims=True))
    return f.where(blind, 0.0, y)


@op(infer=_attention, formula=_attended)
def scaled_dot_product_attention(query: Array, key: Array, value: Array, mask: Array | None = None, *,
                                 is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Array:
    """softmax(scale · query · keyᵀ + mask) · value: torch.nn.functional.scaled_dot_product_attention.

    query: [..., length, size]; key: [..., source, size]; value: [..., source, width]; leading axes broadcast.
    mask: what broadcasts to [..., length, source]: a boolean one says where the pair takes part, another is added to the
    scores. y: [..., length, width].

    scale: 1 / sqrt(size) for null. is_causal: position i of the query sees positions 0 to i of the key, whatever the
    lengths; a mask given too holds as well. enable_gqa: query head h of n reads key head h // (n / key heads) and value head
    h // (n / value heads); n is a multiple of both.
    A position that sees nothing (scores all -infinity) gives 0.
    """
    dtype = query.dtype
    wide = np.promote_types(dtype, np.float32) if dtype.kind == "f" else np.dtype(np.float32)
    query, key, value = (item.astype(wide, copy=False) for item in (query, key, value))
    if enable_gqa:
        key, value = (np.repeat(item, query.shape[-3] // item.shape[-3], axis=-3) for item in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None and query.shape[-1] else 1.0 if scale is None else scale
    scores = np.matmul(query * wide.type(factor), key.swapaxes(-1, -2))
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == np.bool_ else scores + mask.astype(wide, copy=False)
    if is_causal:
        scores = np.where(np.tri(scores.shape[-2], scores.shape[-1], dtype=np.bool_), scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    blind = top == -np.inf
    weights = np.exp(scores - np.where(blind, 0, top))
    total = weights.sum(axis=-1, keepdims=True)
    y = np.matmul(weights, value) / np.where(blind, 1, total)
    return np.asarray(np.where(blind, 0, y).astype(dtype, copy=False))
