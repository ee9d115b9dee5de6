"""Elements picked by tensors of indices or by masks. A negative index counts from the end; one outside its axis is an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converter.dims import Dim, product
from converter.equal_sizes import differ
from converter.errors import GraphError
from converter.facts import Facts, Ids, moves
from converter.formulas import Space, Term, counted, refuse
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import Size, axis_of, broadcast_dims, require
from converter.opset import op

INDEX_DTYPES = (DType.INT32, DType.INT64)


def require_indices(spec: TensorSpec) -> None:
    """Raises `GraphError` unless `spec` can index."""
    require(spec.dtype in INDEX_DTYPES, "wrong dtype of the indices", expected="int32 or int64", received=spec)


def require_symbol(size: Dim | None) -> Dim:
    """The size that a run finds in the data. Raises `GraphError` unless it is a bare symbol."""
    if isinstance(size, int) or size is None or size.symbol is None:
        raise GraphError("the result's size depends on the data and needs a symbol", expected="the attribute `size`, a new symbol",
                         received=str(size))
    return size


def _take(x: TensorSpec, indices: TensorSpec, axis: int) -> TensorSpec:
    place = axis_of(axis, x.rank)
    require_indices(indices)
    return TensorSpec(x.dtype, x.shape[:place] + indices.shape + x.shape[place + 1:])


@op(infer=_take, facts=moves(0, ids=Ids(1, 0, "axis")))
def take(x: Array, indices: Array, *, axis: int) -> Array:
    """The slices of x at `indices` along `axis`. Array API: take, with indices of any shape.

    x: [*before, n, *after]; indices: int32 or int64, any shape. y: [*before, *indices.shape, *after].
    """
    return np.take(x, indices, axis)


def _take_along_axis(x: TensorSpec, indices: TensorSpec, axis: int) -> TensorSpec:
    place = axis_of(axis, x.rank)
    require_indices(indices)
    require(indices.rank == x.rank, "wrong number of axes of the indices", expected=str(x.rank), received=indices)
    for other, (size, taken) in enumerate(zip(x.shape, indices.shape, strict=True)):
        require(other == place or not isinstance(size, int) or not isinstance(taken, int) or taken <= size,
                f"more indices than elements on axis {other}", expected=f"at most {size}", received=taken)
    return TensorSpec(x.dtype, indices.shape)


@op(infer=_take_along_axis, facts=moves(0, ids=Ids(1, 0, "axis")))
def take_along_axis(x: Array, indices: Array, *, axis: int) -> Array:
    """y[i, j, k] = x[indices[i, j, k], j, k] for axis 0, and so on: torch.gather (Array API: take_along_axis).

    indices: as many axes as x; on the other axes no larger than x. y: the shape of the indices. Nothing broadcasts.
    """
    place = axis % x.ndim
    part = x[tuple(slice(None) if other == place else slice(size) for other, size in enumerate(indices.shape))]
    if any(other != place and size != wanted for other, (size, wanted) in enumerate(zip(part.shape, indices.shape, strict=True))):
        raise ValueError(f"the indices {indices.shape} are larger than the tensor {x.shape}")
    return np.take_along_axis(part, indices.astype(np.int64), place)


def index_shape(x: TensorSpec, indices: tuple[TensorSpec | None, ...]) -> tuple[Dim, ...]:
    """The shape that advanced indexing gives. Raises `GraphError` for indices that do not fit."""
    places = [axis for axis, item in enumerate(indices) if item is not None]
    require(len(places) > 0 and len(indices) <= x.rank, "wrong number of indices", expected=f"1 to {x.rank}", received=len(places))
    for item in indices:
        if item is not None:
            require_indices(item)
    picked = broadcast_dims(*(item.shape for item in indices if item is not None))
    rest = tuple(size for axis, size in enumerate(x.shape) if axis not in places)
    lead = places[0] if places == list(range(places[0], places[0] + len(places))) else 0
    return rest[:lead] + picked + rest[lead:]


def index_key(indices: tuple[Array | None, ...]) -> tuple[Array | slice, ...]:
    """NumPy's index for the operands of `index`."""
    return tuple(slice(None) if item is None else item for item in indices)


def _index(x: TensorSpec, *indices: TensorSpec | None) -> TensorSpec:
    return TensorSpec(x.dtype, index_shape(x, indices))


def _flat_places(f: Space, sizes: Sequence[Dim], indices: Sequence[Term]) -> Term:
    """Places in axes that are taken as one, int64, for indices of each; a run fails where one lies outside."""
    places: Term = None
    for size, index in zip(sizes, indices, strict=True):
        index, most = f.astype(index, dtype=DType.INT64), f.full(shape=(), fill_value=size, dtype=DType.INT64)
        index = refuse(f, (index < -most) | (index >= most), index)
        index = f.where(index < 0, index + most, index)
        places = index if places is None else places * most + index
    return places


def _picked(f: Space, x: Term, *indices: Term | None) -> Term:
    """By one index along the indexed axes, which are one."""
    axes = [axis for axis, item in enumerate(indices) if item is not None]
    given = [item for item in indices if item is not None]
    if len(axes) == 1:
        return f.take(x, given[0], axis=axes[0])
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    lead = axes[0] if axes == list(range(axes[0], axes[0] + len(axes))) else 0
    order = (*rest[:lead], *axes, *rest[lead:])
    moved = x if order == tuple(range(x.ndim)) else f.permute_dims(x, axes=order)
    sizes = [x.shape[axis] for axis in axes]
    flat = f.reshape(moved, shape=(*moved.shape[:lead], product(sizes), *moved.shape[lead + len(axes):]))
    return f.take(flat, _flat_places(f, sizes, given), axis=lead)


@op(infer=_index, facts=moves(0, ids=Ids(1, onward=True)), formula=_picked)
def index(x: Array, *indices: Array | None) -> Array:
    """x[i, j, …] with tensors of indices: NumPy's and PyTorch's advanced indexing.

    indices: one for each of x's first axes, null for an axis taken whole; they broadcast against each other. The
    broadcast shape stands in place of the indexed axes where those are neighbours, and first where they are not.
    """
    if not x.size and all(x.shape[axis] for axis, item in enumerate(indices) if item is not None):
        # Nothing is picked, so that no index is looked at.
        indices = tuple(None if item is None else np.zeros_like(item) for item in indices)
    return x[index_key(indices)]


def _masked_select(x: TensorSpec, mask: TensorSpec, size: Dim | None = None) -> TensorSpec:
    require(mask.dtype is DType.BOOL and 1 <= mask.rank <= x.rank, "wrong mask", expected=f"bool, 1 to {x.rank} axes", received=mask)
    for axis, (a, b) in enumerate(zip(x.shape, mask.shape, strict=False)):
        require(not differ(a, b), f"a mask of another size on axis {axis}", expected=str(a), received=b)
    return TensorSpec(x.dtype, (require_symbol(size), *x.shape[mask.rank:]))


def _kept(f: Space, x: Term, mask: Term, *, size: Dim | None) -> Term:
    """By the places where the mask holds, its axes taken as one."""
    count = product(mask.shape)
    places = f.squeeze(f.nonzero(f.reshape(mask, shape=(count,)), size=size), axis=(-1,))
    return f.take(f.reshape(x, shape=(count, *x.shape[mask.ndim:])), places, axis=0)


@op(infer=_masked_select, binds={"size": (0, 0)}, facts=moves(0), formula=_kept)
def masked_select(x: Array, mask: Array, *, size: Size | None = None) -> Array:
    """x[mask]: the slices of x where `mask` holds, in row-major order. torch.masked_select where the mask has all axes.

    x: [*m, *rest]; mask: bool [*m]. y: [size, *rest]; `size` is a symbol that the data give a value.
    """
    return x[mask]


def _nonzero(x: TensorSpec, size: Dim | None = None) -> TensorSpec:
    return TensorSpec(DType.INT64, (require_symbol(size), x.rank))


@op(infer=_nonzero, binds={"size": (0, 0)})
def nonzero(x: Array, *, size: Size | None = None) -> Array:
    """The positions of the elements that are not zero, in row-major order: torch.nonzero.

    y: int64 [size, axes of x]; `size` is a symbol that the data give a value.
    """
    return np.argwhere(np.asarray(x) != 0)


def _one_hot(x: TensorSpec, num_classes: int) -> TensorSpec:
    require(x.dtype.is_integer and num_classes > 0, "wrong classes", expected="integers, and 1 class and up",
            received=f"{x}, {num_classes}")
    return TensorSpec(DType.INT64, (*x.shape, num_classes))


def _classes(f: Space, x: Term, *, num_classes: int) -> Term:
    """A class that is none is looked up where nothing is: an error."""
    index = f.astype(x, dtype=DType.INT64)
    numbers = counted(f, num_classes)
    known = f.take(numbers, f.where(index < 0, num_classes, index), axis=0)
    return f.astype(f.equal(f.expand_dims(known, axis=(-1,)), numbers), dtype=DType.INT64)


@op(infer=_one_hot, formula=_classes, facts=Facts(ids=Ids(0, None, "num_classes")))
def one_hot(x: Array, *, num_classes: int) -> Array:
    """y[…, c] = 1 where x[…] is c, else 0: torch.nn.functional.one_hot. x: integers in [0, num_classes). y: int64."""
    if x.size and not 0 <= x.min() <= x.max() < num_classes:
        raise ValueError(f"classes outside 0 to {num_classes - 1}")
    return np.asarray(x[..., np.newaxis] == np.arange(num_classes), np.int64)
