"""Elements replaced, accumulated or counted at places that tensors of indices or masks name."""

from __future__ import annotations

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.elementwise import integer_floor_divide
from adapters.onnx.ops.indexing import arrangement, stacked
from adapters.onnx.ops.manipulation import expand, unsqueeze, zeros
from adapters.onnx.registry import lowers
from converter.dims import Dim
from converter.ir import DType, TensorSpec
from converter.ops.scattering import identity

REDUCTIONS = {"add": "add", "multiply": "mul", "maximum": "max", "minimum": "min", "mean": "add"}
# What ONNX Runtime cannot reduce in, and what stands in for it.
WIDER = {DType.BOOL: DType.INT32, DType.INT8: DType.INT32, DType.INT16: DType.INT32, DType.UINT8: DType.INT32,
         DType.UINT16: DType.INT32, DType.FLOAT16: DType.FLOAT32, DType.BFLOAT16: DType.FLOAT32}


@lowers("scatter")
def scatter(g: Lowering, x: Tensor, indices: Tensor, values: Tensor, *, axis: int, reduction: str, include_self: bool) -> Tensor:
    place = axis % x.rank
    if reduction == "none":
        return g.node("ScatterElements", x, indices, values, axis=place)
    inner = WIDER.get(x.dtype, x.dtype)
    base, values = g.cast(x, inner), g.cast(values, inner)
    if not include_self:
        blank = zeros(g, indices.shape, inner, identity(reduction, inner.numpy))
        base = g.node("ScatterElements", base, indices, blank, spec=base.spec, axis=place)
    y = g.node("ScatterElements", base, indices, values, spec=base.spec, axis=place, reduction=REDUCTIONS[reduction])
    if reduction == "mean":
        y = _divided(g, y, indices, place, include_self)
    return g.cast(y, x.dtype)


def _divided(g: Lowering, total: Tensor, indices: Tensor, axis: int, include_self: bool) -> Tensor:
    start = zeros(g, total.shape, total.dtype, int(include_self))
    ones = zeros(g, indices.shape, total.dtype, 1)
    counts = g.node("ScatterElements", start, indices, ones, spec=total.spec, axis=axis, reduction="add")
    if not include_self:
        counts = g.node("Max", counts, g.constant(1, total.dtype), spec=total.spec)
    return integer_floor_divide(g, total, counts) if total.dtype.is_integer else g.node("Div", total, counts, spec=total.spec)


@lowers("index_put")
def index_put(g: Lowering, x: Tensor, values: Tensor, *indices: Tensor | None, accumulate: bool) -> Tensor:
    axes = [axis for axis, item in enumerate(indices) if item is not None]
    given = [item for item in indices if item is not None]
    inner = WIDER.get(x.dtype, x.dtype) if accumulate else x.dtype
    base, values = g.cast(x, inner), g.cast(values, inner)
    # Booleans add up to their "or".
    reduction = None if not accumulate else "max" if x.dtype is DType.BOOL else "add"
    if len(given) == 1 and axes[0] > 0 and given[0].rank == 1:
        return g.cast(_along(g, base, values, given[0], axes[0], reduction), x.dtype)
    places = stacked(g, given)
    width = places.rank - 1
    first, back = arrangement(x.rank, axes, width)
    moved = g.transpose(base, first)
    ahead = (*places.shape[:-1], *moved.shape[len(axes):])
    placed = expand(g, values, tuple(ahead[axis] for axis in back))
    updates = g.transpose(placed, np.argsort(back).tolist())
    y = g.node("ScatterND", moved, places, updates, spec=moved.spec, reduction=reduction)
    return g.cast(g.transpose(y, np.argsort(first).tolist()), x.dtype)


def _along(g: Lowering, x: Tensor, values: Tensor, indices: Tensor, axis: int, reduction: str | None) -> Tensor:
    shape = (*x.shape[:axis], indices.shape[0], *x.shape[axis + 1:])
    column = unsqueeze(g, indices, [*range(axis), *range(axis + 1, x.rank)])
    return g.node("ScatterElements", x, expand(g, column, shape), expand(g, values, shape), spec=x.spec, axis=axis, reduction=reduction)


@lowers("bincount")
def bincount(g: Lowering, x: Tensor, weights: Tensor | None, *, minlength: int, size: Dim) -> Tensor:
    """The least length less 1 joins the elements, so that there is a largest; a negative one is sent past the end, which fails."""
    x, dtype = g.cast(x, DType.INT64), DType.INT64 if weights is None else weights.dtype
    longer = g.node("Concat", x, g.constant([minlength - 1]), spec=TensorSpec(DType.INT64, (x.shape[0] + 1,)), axis=0)
    largest = g.node("ReduceMax", longer, spec=TensorSpec(DType.INT64, (1,)), keepdims=1)
    count = g.node("Add", largest, g.constant(1), spec=largest.spec)
    blank = g.node("Expand", g.constant(0, dtype), count, spec=TensorSpec(dtype, (size,)))
    places = g.node("Where", g.node("Less", x, g.constant(0), spec=TensorSpec(DType.BOOL, x.shape)), count, x, spec=x.spec)
    ones = zeros(g, x.shape, dtype, 1) if weights is None else weights
    return g.node("ScatterElements", blank, places, ones, axis=0, reduction="add")
