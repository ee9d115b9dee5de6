"""Order, search and sets. NaN counts as larger than every number, as in PyTorch; equal elements keep their order."""

from __future__ import annotations

import math

import numpy as np

from converter.dims import Dim, product
from converter.facts import ALL, Facts
from converter.formulas import Space, Term, counted, dtype_of
from converter.ir import Array, DType, TensorSpec
from converter.ops._elimination import repeat
from converter.ops._rules import Size, axis_of, require, require_size, same_dtype
from converter.ops.indexing import require_symbol
from converter.opset import op


def _ordered(x: Array) -> Array:
    """x in a dtype that NumPy sorts with NaN last: its own, or float32 for the small floats."""
    return x.astype(np.float32) if x.dtype.kind not in "biufc" else x


def _argsort(x: Array, axis: int, descending: bool) -> Array:
    x = _ordered(x)
    if not descending:
        return np.argsort(x, axis, kind="stable")
    # Reversing before and after the sort puts the largest first and leaves equal elements in their order.
    backwards = np.argsort(np.flip(x, axis), axis, kind="stable")
    return np.asarray(x.shape[axis] - 1 - np.flip(backwards, axis))


def _sort(x: TensorSpec, axis: int, descending: bool = False) -> tuple[TensorSpec, TensorSpec]:
    axis_of(axis, x.rank)
    require(not x.dtype.is_complex, "complex numbers have no order", received=x)
    return x, TensorSpec(DType.INT64, x.shape)


@op(infer=_sort, outputs=("values", "indices"), facts=Facts(carries=(0,), chooses="several", wide=ALL))
def sort(x: Array, *, axis: int, descending: bool = False) -> tuple[Array, Array]:
    """x in order along `axis`, and where each element was (int64): torch.sort(stable=True), Array API sort and argsort.

    Equal elements keep their order in both directions. NaN counts as the largest.
    """
    indices = _argsort(x, axis, descending)
    return np.take_along_axis(x, indices, axis), indices


def _topk(x: TensorSpec, k: Dim, axis: int, largest: bool = True) -> tuple[TensorSpec, TensorSpec]:
    place = axis_of(axis, x.rank)
    size = x.shape[place]
    require(not isinstance(k, int) or k >= 0 and (not isinstance(size, int) or k <= size), "wrong number of elements",
            expected=f"0 to {size}", received=k)
    shape = (*x.shape[:place], k, *x.shape[place + 1:])
    return TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)


def _first(f: Space, x: Term, *, k: Dim, axis: int, largest: bool) -> tuple[Term, Term]:
    """The first of all in order; a run fails where there are fewer."""
    values, indices = f.sort(x, axis=axis, descending=largest)
    places = counted(f, k)
    return f.take(values, places, axis=axis), f.take(indices, places, axis=axis)


@op(infer=_topk, outputs=("values", "indices"), facts=Facts(carries=(0,), chooses="several", wide=ALL), formula=_first)
def topk(x: Array, *, k: Size, axis: int, largest: bool = True) -> tuple[Array, Array]:
    """The k largest (or smallest) elements along `axis`, the best first, and where they were (int64): torch.topk.

    Of equal elements the one that comes first in x is taken first. NaN counts as the largest.
    """
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"{k} elements of an axis of size {x.shape[axis]}")
    indices = np.take(_argsort(x, axis, largest), np.arange(k), axis)
    return np.take_along_axis(x, indices, axis), indices


def _mode(x: TensorSpec, axis: int) -> tuple[TensorSpec, TensorSpec]:
    place = axis_of(axis, x.rank)
    require(not x.dtype.is_complex, "complex numbers have no order", received=x)
    shape = x.shape[:place] + x.shape[place + 1:]
    return TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)


@op(infer=_mode, outputs=("values", "indices"), facts=Facts(carries=(0,)))
def mode(f: Space, x: Term, *, axis: int) -> tuple[Term, Term]:
    """The most frequent element along `axis`, the smallest of several, and its last place (int64): torch.mode."""
    place, own = axis % x.ndim, dtype_of(x)
    x = f.permute_dims(x, axes=(*(other for other in range(x.ndim) if other != place), place))
    x = f.astype(x, dtype=DType.UINT8) if own is DType.BOOL else x
    counts = f.sum(f.astype(f.equal(f.expand_dims(x, axis=(-1,)), f.expand_dims(x, axis=(-2,))), dtype=DType.INT32), axis=(-1,))
    frequent = f.equal(counts, f.max(counts, axis=(-1,), keepdims=True))
    highest = math.inf if own.is_float else dtype_of(x).limits[1]
    value = f.min(f.where(frequent, x, highest), axis=(-1,), keepdims=True)
    same = f.astype(f.flip(f.equal(x, value), axis=(-1,)), dtype=DType.INT32)
    return f.astype(f.squeeze(value, axis=(-1,)), dtype=own), f.argmax(same, axis=-1) * -1 + (x.shape[-1] - 1)


def _searchsorted(sorted_sequence: TensorSpec, values: TensorSpec, right: bool = False) -> TensorSpec:
    dtype = same_dtype(sorted_sequence, values)
    require(not dtype.is_complex, "complex numbers have no order", received=values)
    require(sorted_sequence.rank in (1, values.rank), "wrong number of axes of the sorted sequence",
            expected=f"1 or {values.rank}", received=sorted_sequence)
    if sorted_sequence.rank > 1:
        for a, b in zip(sorted_sequence.shape[:-1], values.shape[:-1], strict=True):
            require_size(b, a, "the values")
    return TensorSpec(DType.INT64, values.shape)


def _found(f: Space, sorted_sequence: Term, values: Term, *, right: bool) -> Term:
    """How many elements of the sequence lie before a value."""
    value = f.expand_dims(values, axis=(-1,))
    element = sorted_sequence if sorted_sequence.ndim == 1 else f.expand_dims(sorted_sequence, axis=(-2,))
    # "Not at or above" and not "below": a NaN goes behind everything.
    before = f.logical_not(value < element if right else value <= element)
    return f.sum(f.astype(before, dtype=DType.INT64), axis=(-1,))


@op(infer=_searchsorted, literals=True, formula=_found)
def searchsorted(sorted_sequence: Array, values: Array, *, right: bool = False) -> Array:
    """Where each value would go into an ascending sequence (int64): torch.searchsorted, torch.bucketize.

    sorted_sequence: [n], for all values; or [*lead, n] with values [*lead, m]. The place is before the elements equal
    to the value, or after them with `right`.
    """
    ordered, values = _ordered(sorted_sequence), _ordered(values)
    if ordered.ndim == 1:
        return np.searchsorted(ordered, values, "right" if right else "left").astype(np.int64)
    element, value = ordered[..., np.newaxis, :], values[..., :, np.newaxis]
    return np.asarray(np.count_nonzero(~(element > value if right else element >= value), axis=-1))


def _isin(x: TensorSpec, values: TensorSpec) -> TensorSpec:
    same_dtype(x, values)
    return TensorSpec(DType.BOOL, x.shape)


def _is_among(f: Space, x: Term, values: Term) -> Term:
    return f.any(f.equal(f.expand_dims(x, axis=(-1,)), f.reshape(values, shape=(product(values.shape),))), axis=(-1,))


@op(infer=_isin, literals=True, facts=Facts(wide=ALL), formula=_is_among)
def isin(x: Array, values: Array) -> Array:
    """Whether each element of x equals some element of `values` (any shape): torch.isin. NaN equals nothing."""
    return np.isin(_ordered(x), _ordered(values))


def _unique(x: TensorSpec, axis: int | None = None, size: Dim | None = None) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    count = require_symbol(size)
    if axis is None:
        return TensorSpec(x.dtype, (count,)), TensorSpec(DType.INT64, x.shape), TensorSpec(DType.INT64, (count,))
    require(axis == 0 and x.rank > 0, "unique slices are found along axis 0 only", expected="0 or null", received=axis)
    return TensorSpec(x.dtype, (count, *x.shape[1:])), TensorSpec(DType.INT64, x.shape[:1]), TensorSpec(DType.INT64, (count,))


def _in_order(f: Space, x: Term) -> Term:
    """The order of the slices [n, columns] of x: by their first elements, of equal ones by the next. int64 [n]."""
    def by_column(f: Space, index: Term, order: Term, x: Term) -> tuple[Term]:
        column = f.take(f.take(x, index * -1 + (x.shape[1] - 1), axis=1), order, axis=0)
        return (f.take(order, f.sort(column, axis=0)[1], axis=0),)

    return repeat(f, x.shape[1], by_column, (counted(f, x.shape[0]),), x)[0]


def _distinct(f: Space, x: Term, *, axis: int | None, size: Dim | None) -> tuple[Term, Term, Term]:
    """The runs of equal ones among all in order."""
    rows = f.reshape(x, shape=(product(x.shape),)) if axis is None else x
    parts = f.view_as_real(rows) if dtype_of(x).is_complex else rows
    order = f.sort(parts, axis=0)[1] if parts.ndim == 1 else _in_order(
        f, f.reshape(parts, shape=(parts.shape[0], product(parts.shape[1:]))))
    values, runs, counts = f.unique_consecutive(f.take(rows, order, axis=0), size=size)
    inverse = f.take(runs, f.sort(order, axis=0)[1], axis=0)
    return values, f.reshape(inverse, shape=tuple(x.shape)) if axis is None else inverse, counts


@op(infer=_unique, outputs=("values", "inverse", "counts"), binds={"size": (0, 0)}, facts=Facts(carries=(0,)), formula=_distinct)
def unique(x: Array, *, axis: int | None = None, size: Size | None = None) -> tuple[Array, Array, Array]:
    """The distinct elements of x in ascending order, where each element of x is among them, and how often: torch.unique.

    values: [size], or [size, *rest], the distinct slices along axis 0 in lexicographic order; inverse: int64, the shape
    of x (of its axis 0); counts: int64 [size]. `size` is a symbol that the data give a value. NaNs are all distinct.
    """
    _, first, inverse, counts = np.unique(_ordered(x), True, True, True, axis=axis, equal_nan=False)
    values = x.ravel()[first] if axis is None else x[first]
    return values, inverse.reshape(x.shape if axis is None else -1), counts


def _unique_consecutive(x: TensorSpec, size: Dim | None = None) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    require(x.rank >= 1, "wrong number of axes", expected="1 and more", received=x)
    count = require_symbol(size)
    return TensorSpec(x.dtype, (count, *x.shape[1:])), TensorSpec(DType.INT64, x.shape[:1]), TensorSpec(DType.INT64, (count,))


def _runs(f: Space, x: Term, *, size: Dim | None) -> tuple[Term, Term, Term]:
    """A run begins at the first slice, and where a slice differs from the one before."""
    index = counted(f, x.shape[0])
    differs = f.not_equal(x, f.take(x, f.maximum(index - 1, 0), axis=0))
    differs = f.any(differs, axis=tuple(range(1, x.ndim))) if x.ndim > 1 else differs
    starts = differs | f.equal(index, 0)
    places = f.squeeze(f.nonzero(starts, size=size), axis=(-1,))
    ends = f.concat(places, f.full(shape=(1,), fill_value=x.shape[0], dtype=DType.INT64), axis=0)
    following = f.slice(ends, axes=(0,), starts=(1,), stops=(places.shape[0] + 1,))
    return f.take(x, places, axis=0), f.cumulative_sum(f.astype(starts, dtype=DType.INT64), axis=0) - 1, following - places


@op(infer=_unique_consecutive, outputs=("values", "inverse", "counts"), binds={"size": (0, 0)}, facts=Facts(carries=(0,)), formula=_runs)
def unique_consecutive(x: Array, *, size: Size | None = None) -> tuple[Array, Array, Array]:
    """The first slice of each run of equal ones along axis 0, each slice's run, and the runs' lengths: torch.unique_consecutive.

    x: [n, *rest]. values: [size, *rest]; inverse: int64 [n]; counts: int64 [size]. `size` is a symbol that the data give a value.
    """
    starts = np.ones(len(x), np.bool_)
    starts[1:] = (x[1:] != x[:-1]).any(axis=tuple(range(1, x.ndim)))
    return x[starts], np.cumsum(starts) - 1, np.diff(np.append(np.flatnonzero(starts), len(x)))
