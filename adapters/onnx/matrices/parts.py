"""What the algorithms share: rows and columns of batched matrices, masks, sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapters.onnx.kernels import number
from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.ops.elementwise import apply
from adapters.onnx.ops.manipulation import arange, expand, unsqueeze
from converter.dims import Dim
from converter.ir import DType, TensorSpec

REAL = DType.FLOAT64
"""The dtype within: narrower matrices lose nothing, and no result is worse than LAPACK's in their own."""


def places(g: Lowering, size: Dim) -> Tensor:
    """0, 1, … up to a size, int64."""
    return arange(g, 0, size, 1, size)


def row(g: Lowering, x: Tensor, index: Tensor) -> Tensor:
    """Row `index` (0-d) of each matrix: [..., columns]."""
    return g.node("Gather", x, index, spec=TensorSpec(x.dtype, (*x.shape[:-2], x.shape[-1])), axis=x.rank - 2)


def column(g: Lowering, x: Tensor, index: Tensor) -> Tensor:
    """Column `index` (0-d) of each matrix: [..., rows]. Of vectors, the element: [...]."""
    return g.node("Gather", x, index, spec=TensorSpec(x.dtype, x.shape[:-1]), axis=x.rank - 1)


def taken(g: Lowering, x: Tensor, order: Tensor, axis: int) -> Tensor:
    """Rows or columns in the order of one index vector."""
    place = axis % x.rank
    shape = (*x.shape[:place], order.shape[0], *x.shape[place + 1:])
    return g.node("Gather", x, order, spec=TensorSpec(x.dtype, shape), axis=place)


def outer(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    """x_i · y_j of vectors [..., m] and [..., n]."""
    return apply(g, "Mul", unsqueeze(g, x, [-1]), unsqueeze(g, y, [-2]))


def added(g: Lowering, x: Tensor, axis: int = -1, op_type: str = "ReduceSum", keep: bool = False) -> Tensor:
    """A reduction over one axis."""
    place = axis % x.rank
    shape = (*x.shape[:place], *([1] if keep else []), *x.shape[place + 1:])
    return g.node(op_type, x, g.constant([place]), spec=TensorSpec(x.dtype, shape), keepdims=int(keep))


def overall(g: Lowering, x: Tensor, op_type: str, axes: Sequence[int] | None = None) -> Tensor:
    """A reduction over the last two axes, kept with size 1; `axes` says otherwise, and drops them."""
    if axes is None:
        spec = TensorSpec(x.dtype, (*x.shape[:-2], 1, 1))
        return g.node(op_type, x, g.constant([x.rank - 2, x.rank - 1]), spec=spec, keepdims=1)
    spec = TensorSpec(x.dtype, tuple(size for place, size in enumerate(x.shape) if place not in axes))
    return g.node(op_type, x, g.constant(list(axes)), spec=spec, keepdims=0)


def diagonal_mask(g: Lowering, rows: Dim, columns: Dim) -> Tensor:
    """Booleans, true on the diagonal: [rows, columns]."""
    if isinstance(rows, int) and isinstance(columns, int):
        return g.constant(np.eye(rows, columns), DType.BOOL)
    return apply(g, "Equal", unsqueeze(g, places(g, rows), [-1]), places(g, columns), dtype=DType.BOOL)


def identity(g: Lowering, rows: Dim, columns: Dim | None = None, batch: Sequence[Dim] = ()) -> Tensor:
    """The identity matrix, or its first columns, for each matrix of a batch."""
    columns = rows if columns is None else columns
    return expand(g, g.cast(diagonal_mask(g, rows, columns), REAL), (*batch, rows, columns))


def diagonal_of(g: Lowering, x: Tensor) -> Tensor:
    """The diagonal of square matrices: [..., n]. What stands beside it may be infinite."""
    from adapters.onnx.ops.elementwise import select

    return added(g, select(g, diagonal_mask(g, x.shape[-2], x.shape[-1]), x, number(g, 0, x)), -1)


def flipped(g: Lowering, x: Tensor) -> Tensor:
    """The last two axes exchanged."""
    return g.transpose(x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


def to_last(g: Lowering, x: Tensor) -> Tensor:
    """The first axis, on which a loop stacked its results, moved to the end."""
    return g.transpose(x, (*range(1, x.rank), 0))


def triangle(g: Lowering, x: Tensor, upper: bool, offset: int = 0) -> Tensor:
    return g.node("Trilu", x, g.constant(offset) if offset else None, spec=x.spec, upper=int(upper))
