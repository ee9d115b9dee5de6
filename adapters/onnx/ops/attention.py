"""Attention: softmax(query · keyᵀ) · value, with masks.

Up to opset 22, products and a Softmax; masks become additive once for all layers that share them. From opset 23, the
Attention operator for what ONNX Runtime's kernel computes as PyTorch does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from adapters.onnx.lowering.context import Array, Lowering, Tensor, once
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.registry import lowers
from converter.dims import Dim, fixed
from converter.ir import DType, TensorSpec


@lowers("scaled_dot_product_attention")
@through_float32
def scaled_dot_product_attention(g: Lowering, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *,
                                 is_causal: bool, scale: float | None, enable_gqa: bool) -> Tensor:
    if g.opset >= 23 and _fits_operator(query, key, value, mask, scale, enable_gqa):
        return g.node("Attention", query, key, value, mask, scale=scale, is_causal=1 if is_causal else None)
    if query.dtype not in (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64):
        raise g.refuse(f"attention in {query.dtype}")
    result = None
    if enable_gqa:
        result = (*g.result.shape,)
        query, key, value, mask = _grouped(g, query, key, value, mask)
    batch = query.shape[:-2] if query.rank >= key.rank else key.shape[:-2]
    length, source = query.shape[-2], key.shape[-2]
    scores_spec = TensorSpec(query.dtype, (*batch, length, source))
    scores = g.node("MatMul", _scaled(g, query, scale), _flipped(g, key), spec=scores_spec)
    additive, blind = _additive(g, mask, query.dtype, (length, source) if is_causal else None)
    if additive is not None:
        scores = g.node("Add", scores, additive, spec=scores_spec)
    weights = g.node("Softmax", scores, spec=scores_spec, axis=-1)
    y = g.node("MatMul", weights, value, spec=TensorSpec(query.dtype, (*batch, length, value.shape[-1])))
    if additive is not None and blind:
        y = g.node("Where", _sees(g, additive), y, g.constant(0.0, query.dtype), spec=y.spec)
    return y if result is None else g.reshape(y, result)


def _fits_operator(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None, grouped: bool) -> bool:
    """Whether ONNX Runtime's Attention kernel takes these: four axes, equal batches and heads, a mask of full rows."""
    if not (query.dtype is DType.FLOAT32 and query.rank == key.rank == value.rank == 4 and (scale is None or scale > 0)):
        return False
    if not (query.shape[0] == key.shape[0] == value.shape[0] and key.shape[1] == value.shape[1]):
        return False
    if not grouped and query.shape[1] != key.shape[1]:
        return False
    if mask is None:
        return True
    wanted = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    return 2 <= mask.rank <= 4 and mask.shape[-2:] == wanted[2:] and all(
        size in (1, want) for size, want in zip(reversed(mask.shape[:-2]), reversed(wanted[:2]), strict=False))


def _scaled(g: Lowering, query: Tensor, scale: float | None) -> Tensor:
    """query · scale. On the query and not on the scores: the smaller one where sequences are long."""
    size = query.shape[-1]
    if scale is None and not isinstance(size, int):
        root = g.node("Sqrt", g.cast(g.scalar_size(size), query.dtype), spec=TensorSpec(query.dtype, ()))
        return g.node("Div", query, root, spec=query.spec)
    factor = scale if scale is not None else 1 / math.sqrt(fixed(size)) if size else 1.0
    if factor == 1:
        return query
    # ONNX Runtime folds a scalar into the product as a float32 number, a vector not.
    exact = query.dtype is not DType.FLOAT64 or not isinstance(size, int) or factor == float(np.float32(factor))
    return g.node("Mul", query, g.constant(factor if exact else [factor] * size, query.dtype), spec=query.spec)  # type: ignore[operator]


def _flipped(g: Lowering, key: Tensor) -> Tensor:
    # A node of its own even where the key was permuted just before: ONNX Runtime folds it into the product.
    spec = TensorSpec(key.dtype, (*key.shape[:-2], key.shape[-1], key.shape[-2]))
    return g.node("Transpose", key, spec=spec, perm=[*range(key.rank - 2), key.rank - 1, key.rank - 2])


@once
def _additive(g: Lowering, mask: Tensor | None, dtype: DType, square: tuple[Dim, Dim] | None) -> tuple[Tensor | None, bool]:
    """What to add to the scores (0, -infinity, or the caller's numbers), made once for equal masks; and whether a row
    of it may be all -infinity, which Softmax answers with NaN."""
    causal = None if square is None else _causal(g, dtype, square)
    if mask is None:
        return causal, False
    values = g.parameter_values(mask) if all(isinstance(size, int) for size in mask.shape) else None
    if values is not None and not g.is_parameter(mask):
        numbers = np.where(values, 0.0, -np.inf) if values.dtype == np.bool_ else values
        mask = g.constant(numbers, dtype)
    elif mask.dtype is DType.BOOL:
        mask = g.node("Where", mask, g.constant(0.0, dtype), g.constant(-np.inf, dtype), spec=TensorSpec(dtype, mask.shape))
    if square is None or causal is None:
        return mask, values is None or _blind(values)
    rank = max(mask.rank, 2)
    return g.node("Add", mask, causal, spec=TensorSpec(dtype, (*mask.shape[:rank - 2], *square))), True


def _blind(values: Array) -> bool:
    """Whether a row of a mask shows nothing."""
    seen = values if values.dtype == np.bool_ else ~np.isneginf(values.astype(np.float64))
    return not seen.any(axis=-1).all()


@once
def _causal(g: Lowering, dtype: DType, square: tuple[Dim, Dim]) -> Tensor:
    """[length, source], which is `square`: -infinity above the diagonal, 0 elsewhere."""
    # Trilu knows no other float in ONNX Runtime.
    kind = dtype if dtype in (DType.FLOAT32, DType.FLOAT64) else DType.FLOAT32
    spec = TensorSpec(kind, square)
    full = g.node("Expand", g.constant(-np.inf, kind), g.sizes(square), spec=spec)
    return g.cast(g.node("Trilu", full, g.constant(1), spec=spec, upper=1), dtype)


@once
def _sees(g: Lowering, additive: Tensor) -> Tensor:
    """[..., length, 1]: whether a row of an additive mask shows anything."""
    rows = TensorSpec(additive.dtype, (*additive.shape[:-1], 1))
    top = g.node("ReduceMax", additive, g.constant([-1]), spec=rows, keepdims=1)
    return g.node("Greater", top, g.constant(-np.inf, additive.dtype), spec=TensorSpec(DType.BOOL, rows.shape))


def _repeated(g: Lowering, x: Tensor, heads: Dim) -> Tensor:
    """Each of the heads of [..., heads, length, size] as many times in a row as makes so many."""
    *lead, own, length, size = x.shape
    wide = (*lead, own, heads // own, length, size)
    x = g.node("Expand", g.reshape(x, (*lead, own, 1, length, size)), g.sizes(wide), spec=TensorSpec(x.dtype, wide))
    return g.reshape(x, (*lead, heads, length, size))


def _grouped(g: Lowering, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Query heads as [groups of one key head, heads of a group], key heads with an axis of size 1, so that all broadcast.

    Where the value's heads may be others than the key's, both are repeated to the query's.
    """
    heads, theirs = query.shape[-3], key.shape[-3]
    if value.shape[-3] != theirs:
        return query, _repeated(g, key, heads), _repeated(g, value, heads), mask
    groups = heads // theirs
    query = g.reshape(query, (*query.shape[:-3], theirs, groups, *query.shape[-2:]))
    key, value = (g.reshape(item, (*item.shape[:-2], 1, *item.shape[-2:])) for item in (key, value))
    if mask is not None and mask.rank >= 3:
        split: Sequence[Dim] = (1, 1) if mask.shape[-3] == 1 else (theirs, groups)
        wanted = (*mask.shape[:-3], *split, *mask.shape[-2:])
        mask = g.memo(("grouped mask", mask, wanted), partial(g.reshape, mask, wanted))
    return query, key, value, mask
