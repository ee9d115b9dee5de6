"""What the algorithms share: rows and columns of batched matrices, masks, sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from adapters.onnx.complex_numbers.pairs import Pair
from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import number
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.ops.manipulation import arange, cut, expand, unsqueeze
from converter.dims import Dim
from converter.ir import DType, TensorSpec

REAL = DType.FLOAT64
"""The dtype within: narrower matrices lose nothing, and no result is worse than LAPACK's in their own."""

Parts = tuple[Tensor, ...]
"""A value of the algorithms: one real tensor, or the real and the imaginary part of a complex one."""


def parts_of(g: Lowering, x: Tensor | Pair) -> Parts:
    """The parts of a lowering's operand, in float64."""
    return tuple(g.cast(part, REAL) for part in ((x.real, x.imag) if isinstance(x, Pair) else (x,)))


def whole(g: Lowering, parts: Parts, like: Tensor | Pair) -> Tensor | Pair:
    """What a lowering gives, in the dtype of its operand."""
    dtype = like.real.dtype if isinstance(like, Pair) else like.dtype
    cast = [g.cast(part, dtype) for part in parts]
    return Pair(*cast) if len(cast) == 2 else cast[0]


def each(function: Callable[..., Tensor], *values: Parts) -> Parts:
    """A function that treats real and imaginary parts alike."""
    return tuple(function(*items) for items in zip(*values, strict=True))


def plus(g: Lowering, x: Parts, y: Parts) -> Parts:
    return each(lambda a, b: apply(g, "Add", a, b), x, y)


def minus(g: Lowering, x: Parts, y: Parts) -> Parts:
    return each(lambda a, b: apply(g, "Sub", a, b), x, y)


def times(g: Lowering, x: Parts, y: Parts, product: Callable[[Tensor, Tensor], Tensor] | None = None) -> Parts:
    """x · y, element by element, or by another bilinear `product`; either may be real."""
    by = product or (lambda a, b: apply(g, "Mul", a, b))
    if len(x) == 1 or len(y) == 1:
        return tuple(by(a, b) for a in x for b in y)
    real = apply(g, "Sub", by(x[0], y[0]), by(x[1], y[1]))
    return real, apply(g, "Add", by(x[0], y[1]), by(x[1], y[0]))


def over(g: Lowering, x: Parts, y: Parts) -> Parts:
    """x / y; the divisor may be real."""
    if len(y) == 1:
        return each(lambda a: apply(g, "Div", a, y[0]), x)
    from adapters.onnx.ops.complex_numbers import divide

    result = divide(g, Pair(*x), Pair(*y))
    return result.real, result.imag


def conjugate(g: Lowering, x: Parts) -> Parts:
    return x if len(x) == 1 else (x[0], apply(g, "Neg", x[1]))


def squared(g: Lowering, x: Parts) -> Tensor:
    """|x|²."""
    squares = [apply(g, "Mul", part, part) for part in x]
    return squares[0] if len(squares) == 1 else apply(g, "Add", *squares)


def size_of(g: Lowering, x: Parts) -> Tensor:
    """|x|, or |Re x| + |Im x|, by which LAPACK chooses pivots and which is as good a scale."""
    sizes = [apply(g, "Abs", part) for part in x]
    return sizes[0] if len(sizes) == 1 else apply(g, "Add", *sizes)


def chosen(g: Lowering, condition: Tensor, x: Parts, y: Parts | float) -> Parts:
    """x where the condition holds, else y, which may be a real number."""
    if isinstance(y, (int, float)):
        y = tuple(number(g, y if place == 0 else 0, part) for place, part in enumerate(x))
    return each(lambda a, b: select(g, condition, a, b), x, y)


def places(g: Lowering, size: Dim) -> Tensor:
    """0, 1, … up to a size, int64."""
    return arange(g, 0, size, 1, size)


def row(g: Lowering, x: Parts, index: Tensor) -> Parts:
    """Row `index` (0-d) of each matrix: [..., columns]."""
    spec = TensorSpec(x[0].dtype, (*x[0].shape[:-2], x[0].shape[-1]))
    return each(lambda part: g.node("Gather", part, index, spec=spec, axis=part.rank - 2), x)


def column(g: Lowering, x: Parts, index: Tensor) -> Parts:
    """Column `index` (0-d) of each matrix: [..., rows]. Of vectors, the element: [...]."""
    spec = TensorSpec(x[0].dtype, x[0].shape[:-1])
    return each(lambda part: g.node("Gather", part, index, spec=spec, axis=part.rank - 1), x)


def taken(g: Lowering, x: Parts, order: Tensor, axis: int) -> Parts:
    """Rows or columns in the order of one index vector."""
    place, shape = axis % x[0].rank, x[0].shape
    spec = TensorSpec(x[0].dtype, (*shape[:place], order.shape[0], *shape[place + 1:]))
    return each(lambda part: g.node("Gather", part, order, spec=spec, axis=place), x)


def upright(g: Lowering, x: Parts) -> Parts:
    """Vectors as columns: [..., n, 1]."""
    return each(lambda part: unsqueeze(g, part, [-1]), x)


def lying(g: Lowering, x: Parts) -> Parts:
    """Vectors as rows: [..., 1, n]."""
    return each(lambda part: unsqueeze(g, part, [-2]), x)


def outer(g: Lowering, x: Parts, y: Parts) -> Parts:
    """x_i · y_j of vectors [..., m] and [..., n]."""
    return times(g, upright(g, x), lying(g, y))


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


def identity(g: Lowering, rows: Dim, columns: Dim | None = None, batch: Sequence[Dim] = (), like: Parts = ()) -> Parts:
    """The identity matrix, or its first columns, for each matrix of a batch; complex if `like` is."""
    columns = rows if columns is None else columns
    real = expand(g, g.cast(diagonal_mask(g, rows, columns), REAL), (*batch, rows, columns))
    return (real, expand(g, number(g, 0, real), real.shape)) if len(like) == 2 else (real,)


def diagonal_of(g: Lowering, x: Parts) -> Parts:
    """The diagonal of square matrices: [..., n]. What stands beside it may be infinite."""
    mask = diagonal_mask(g, x[0].shape[-2], x[0].shape[-1])
    return each(lambda part: added(g, select(g, mask, part, number(g, 0, part)), -1), x)


def transposed(g: Lowering, x: Parts) -> Parts:
    return each(lambda part: flipped(g, part), x)


def adjoint(g: Lowering, x: Parts) -> Parts:
    return conjugate(g, transposed(g, x))


def flipped(g: Lowering, x: Tensor) -> Tensor:
    """The last two axes exchanged."""
    return g.transpose(x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


def to_last(g: Lowering, x: Parts) -> Parts:
    """The first axis, on which a loop stacked its results, moved to the end."""
    return each(lambda part: g.transpose(part, (*range(1, part.rank), 0)), x)


def triangle(g: Lowering, x: Parts, upper: bool, offset: int = 0) -> Parts:
    """One triangle, the rest 0; `offset` 1 above or -1 below leaves out the diagonal."""
    return each(lambda part: g.node("Trilu", part, g.constant(offset) if offset else None, spec=part.spec, upper=int(upper)), x)


def first_columns(g: Lowering, x: Parts, count: Dim) -> Parts:
    """The first `count` along the last axis."""
    return each(lambda part: _first(g, part, count, part.rank - 1), x)


def first_rows(g: Lowering, x: Parts, count: Dim) -> Parts:
    return each(lambda part: _first(g, part, count, part.rank - 2), x)


def _first(g: Lowering, x: Tensor, count: Dim, axis: int) -> Tensor:
    if x.shape[axis] == count:
        return x
    spec = TensorSpec(x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1:]))
    return cut(g, x, [axis], [0], [count], spec=spec)


def matrix_product(g: Lowering, x: Parts, y: Parts) -> Parts:
    from adapters.onnx.ops.linear import multiplied

    return times(g, x, y, lambda a, b: multiplied(g, a, b))
