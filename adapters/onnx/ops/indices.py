"""Indices that ONNX would take and the neutral operators refuse: made ones that every Gather fails on.

ONNX counts -1 from the end of an axis, and gives a class that is none a row of zeros.
"""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from converter.dims import Dim
from converter.ir import DType, TensorSpec


def from_zero(g: Lowering, indices: Tensor, count: Dim) -> Tensor:
    """The indices, a negative one being `count`, which is past the end of an axis of that size."""
    known = g.constants.get(indices.name)
    if known is not None and (known.size == 0 or known.min() >= 0):
        return indices
    limit = g.constant(count, indices.dtype) if isinstance(count, int) else g.cast(g.scalar_size(count), indices.dtype)
    negative = g.node("Less", indices, g.constant(0, indices.dtype), spec=TensorSpec(DType.BOOL, indices.shape))
    return g.node("Where", negative, limit, indices, spec=indices.spec)


def classes(g: Lowering, indices: Tensor, count: int) -> Tensor:
    """The int64 indices; running fails where one is not from 0 to `count` - 1."""
    return g.node("Gather", g.constant(list(range(count))), from_zero(g, indices, count), spec=indices.spec, axis=0)


def ascending(g: Lowering, offsets: Tensor, *, from_start: bool) -> Tensor:
    """The int64 offsets of shape [n]; running fails where one is less than the one before it, the first being compared with 0.

    `from_start`: the first is 0.
    """
    one = TensorSpec(DType.INT64, (1,))
    others = g.node("Slice", offsets, g.constant([0]), g.constant([-1]), g.constant([0]), spec=offsets.spec)
    shifted = g.node("Concat", g.constant([0]), others, spec=offsets.spec, axis=0)
    falls = g.cast(g.node("Less", offsets, shifted, spec=TensorSpec(DType.BOOL, offsets.shape)), DType.INT64)
    first = [g.node("Slice", offsets, g.constant([0]), g.constant([1]), g.constant([0]), spec=offsets.spec)] if from_start else []
    marks = g.node("Concat", g.constant([0]), falls, *first, spec=offsets.spec, axis=0)
    wrong = g.node("ReduceMax", marks, g.constant([0]), spec=one, keepdims=1)
    # 0 from a table of one zero, which has no other place.
    return g.node("Add", offsets, g.node("Gather", g.constant([0]), wrong, spec=one, axis=0), spec=offsets.spec)
