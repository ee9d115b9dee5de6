"""Tables looked up by index."""

from __future__ import annotations

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.indices import ascending, from_zero
from adapters.onnx.ops.manipulation import runs, unsqueeze, zeros
from adapters.onnx.registry import lowers
from converter.dims import Dim
from converter.ir import DType, TensorSpec


@lowers("embedding")
def embedding(g: Lowering, indices: Tensor, weight: Tensor) -> Tensor:
    return g.node("Gather", weight, from_zero(g, indices, weight.shape[0]), axis=0)


@lowers("embedding_bag")
def embedding_bag(g: Lowering, indices: Tensor, weight: Tensor, offsets: Tensor | None, per_sample_weights: Tensor | None, *,
                  mode: str, include_last_offset: bool, padding_idx: int | None) -> Tensor:
    # ONNX Runtime adds up no small floats here.
    inner = DType.FLOAT32 if weight.dtype in (DType.FLOAT16, DType.BFLOAT16) else weight.dtype
    spec = TensorSpec(weight.dtype, (*indices.shape, weight.shape[1]))
    rows = g.cast(g.node("Gather", weight, from_zero(g, indices, weight.shape[0]), spec=spec, axis=0), inner)
    if per_sample_weights is not None:
        rows = g.node("Mul", rows, unsqueeze(g, g.cast(per_sample_weights, inner), [indices.rank]), spec=rows.spec)
    kept: Tensor | None = None
    if padding_idx is not None:
        flag = TensorSpec(DType.BOOL, indices.shape)
        padding = g.node("Equal", indices, g.constant(padding_idx, indices.dtype), spec=flag)
        blank = g.constant(-np.inf if mode == "max" else 0, inner)
        rows = g.node("Where", unsqueeze(g, padding, [indices.rank]), blank, rows, spec=rows.spec)
        kept = g.cast(g.node("Not", padding, spec=flag), inner)
    if offsets is None:
        return g.cast(_matrix(g, rows, kept, mode), weight.dtype)
    offsets = ascending(g, g.cast(offsets, DType.INT64), from_start=True)
    return g.cast(_ragged(g, rows, kept, offsets, mode, include_last_offset), weight.dtype)


def _matrix(g: Lowering, rows: Tensor, kept: Tensor | None, mode: str) -> Tensor:
    bags, _, features = rows.shape
    spec, axes = TensorSpec(rows.dtype, (bags, features)), g.constant([1])
    if kept is None:
        return g.node({"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax"}[mode], rows, axes, spec=spec, keepdims=0)
    y = g.node("ReduceMax" if mode == "max" else "ReduceSum", rows, axes, spec=spec, keepdims=0)
    if mode == "sum":
        return y
    return _finished(g, y, g.node("ReduceSum", kept, axes, spec=TensorSpec(rows.dtype, (bags, 1)), keepdims=1), mode)


def _finished(g: Lowering, y: Tensor, counts: Tensor, mode: str) -> Tensor:
    """A mean from its sum, or a maximum with zeros for the bags without rows."""
    if mode == "mean":
        return g.node("Div", y, g.node("Max", counts, g.constant(1, y.dtype), spec=counts.spec), spec=y.spec)
    some = g.node("Greater", counts, g.constant(0, y.dtype), spec=TensorSpec(DType.BOOL, counts.shape))
    return g.node("Where", some, y, g.constant(0, y.dtype), spec=y.spec)


def _ragged(g: Lowering, rows: Tensor, kept: Tensor | None, offsets: Tensor, mode: str, include_last_offset: bool) -> Tensor:
    length, features = rows.shape
    # What follows a last offset goes to one bag more, which is cut off in the end.
    bags: Dim = offsets.shape[0]
    vector = TensorSpec(DType.INT64, (1,))
    count = g.node("Shape", rows, spec=vector, start=0, end=1) if not isinstance(length, int) else g.constant([length])
    bag = unsqueeze(g, runs(g, offsets, count, length), [1])
    spec = TensorSpec(rows.dtype, (bags, features))
    start = zeros(g, (bags, features), rows.dtype, -np.inf if mode == "max" else 0)
    y = g.node("ScatterND", start, bag, rows, spec=spec, reduction="max" if mode == "max" else "add")
    if mode != "sum":
        ones = zeros(g, (length, 1), rows.dtype, 1) if kept is None else unsqueeze(g, kept, [1])
        column = TensorSpec(rows.dtype, (bags, 1))
        counts = g.node("ScatterND", zeros(g, (bags, 1), rows.dtype), bag, ones, spec=column, reduction="add")
        y = _finished(g, y, counts, mode)
    if include_last_offset:
        y = g.node("Slice", y, g.constant([0]), g.constant([-1]), g.constant([0]), spec=TensorSpec(y.dtype, (bags - 1, features)))
    return y
