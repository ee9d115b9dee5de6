"""Elements picked by tensors of indices or by masks."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.indices import classes
from adapters.onnx.ops.manipulation import expand, unsqueeze
from adapters.onnx.registry import lowers
from converter.dims import Dim, product
from converter.ir import DType, TensorSpec
from converter.ops._rules import broadcast_dims


def stacked(g: Lowering, indices: Sequence[Tensor]) -> Tensor:
    """Indices broadcast against each other and put side by side on a new last axis, as int64."""
    shape = broadcast_dims(*(item.shape for item in indices))
    columns = [unsqueeze(g, expand(g, g.cast(item, DType.INT64), shape), [len(shape)]) for item in indices]
    if len(columns) == 1:
        return columns[0]
    return g.node("Concat", *columns, spec=TensorSpec(DType.INT64, (*shape, len(indices))), axis=len(shape))


def arrangement(rank: int, axes: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """How `index` moves axes: the permutation of x that brings the indexed axes first, and the one that brings the
    `width` axes that replace them, first so far, to their place in the result."""
    rest = [axis for axis in range(rank) if axis not in axes]
    adjacent = list(axes) == list(range(axes[0], axes[0] + len(axes)))
    lead = axes[0] if adjacent else 0
    return [*axes, *rest], [*range(width, width + lead), *range(width), *range(width + lead, width + len(rest))]


@lowers("take")
def take(g: Lowering, x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    return g.node("Gather", x, indices, axis=axis % x.rank)


@lowers("take_along_axis")
def take_along_axis(g: Lowering, x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    return g.node("GatherElements", x, indices, axis=axis % x.rank)


@lowers("index")
def index(g: Lowering, x: Tensor, *indices: Tensor | None) -> Tensor:
    axes = [axis for axis, item in enumerate(indices) if item is not None]
    given = [item for item in indices if item is not None]
    if len(given) == 1:
        return g.node("Gather", x, given[0], axis=axes[0])
    places = stacked(g, given)
    first, back = arrangement(x.rank, axes, places.rank - 1)
    moved = g.transpose(x, first)
    spec = TensorSpec(x.dtype, (*places.shape[:-1], *moved.shape[len(axes):]))
    return g.transpose(g.node("GatherND", moved, places, spec=spec), back)


@lowers("masked_select")
def masked_select(g: Lowering, x: Tensor, mask: Tensor, *, size: Dim | None) -> Tensor:
    if x.dtype is DType.BFLOAT16:
        # ONNX's Compress takes none; float32 holds its values.
        wide = masked_select(g, g.cast(x, DType.FLOAT32), mask, size=size)
        return g.cast(Tensor(wide.name, TensorSpec(DType.FLOAT32, g.result.shape)), DType.BFLOAT16)
    count = product(mask.shape)
    flat = g.reshape(mask, (count,))
    if mask.rank == x.rank:
        return g.node("Compress", x, flat)
    return g.node("Compress", g.reshape(x, (count, *x.shape[mask.rank:])), flat, axis=0)


NONZERO = frozenset({DType.BOOL, DType.FLOAT32, DType.INT32, DType.INT64, DType.UINT8})


@lowers("nonzero")
def nonzero(g: Lowering, x: Tensor, *, size: Dim) -> Tensor:
    x = x if x.dtype in NONZERO else g.cast(x, DType.BOOL)
    if x.rank == 0:
        found = g.node("NonZero", g.reshape(x, (1,)), spec=TensorSpec(DType.INT64, (1, size)))
        found = g.node("Slice", found, g.constant([0]), g.constant([0]), g.constant([0]), spec=TensorSpec(DType.INT64, (0, size)))
    else:
        found = g.node("NonZero", x, spec=TensorSpec(DType.INT64, (x.rank, size)))
    return g.transpose(found, (1, 0))


@lowers("one_hot")
def one_hot(g: Lowering, x: Tensor, *, num_classes: int) -> Tensor:
    indices = classes(g, g.cast(x if x.rank else g.reshape(x, (1,)), DType.INT64), num_classes)
    y = g.node("OneHot", indices, g.constant(num_classes), g.constant([0, 1]), spec=TensorSpec(DType.INT64, (*indices.shape, num_classes)),
               axis=-1)
    return g.reshape(y, (*x.shape, num_classes))
