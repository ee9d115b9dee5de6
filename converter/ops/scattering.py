"""Elements replaced, accumulated or counted at places that tensors of indices or masks name.

A negative index counts from the end. Where one place is written twice without a reduction, which value stays is not
defined.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from converter.dims import Dim, product
from converter.facts import Facts, Ids, moves
from converter.formulas import Space, Term, dtype_of, nothing, refuse
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import Size, axis_of, broadcast_dims, require, require_rank, require_size, same_dtype
from converter.ops.indexing import index_key, index_shape, require_indices, require_symbol
from converter.opset import op

Reduction = Literal["none", "add", "multiply", "maximum", "minimum", "mean"]
_UFUNCS: dict[str, Any] = {"add": np.add, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum, "mean": np.add}


def identity(reduction: str, dtype: np.dtype[Any]) -> Any:
    """What `reduction` leaves as it is: 0, 1, or the lowest or highest number of the dtype."""
    if reduction in ("add", "mean", "multiply"):
        return int(reduction == "multiply")
    if dtype.kind in "iub":
        limits = (False, True) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        return limits[reduction == "minimum"]
    return np.inf if reduction == "minimum" else -np.inf


def _scatter(x: TensorSpec, indices: TensorSpec, values: TensorSpec, axis: int, reduction: str = "none",
             include_self: bool = True) -> TensorSpec:
    place = axis_of(axis, x.rank)
    dtype = same_dtype(x, values)
    require_indices(indices)
    require(indices.rank == x.rank == values.rank, "wrong number of axes", expected=f"{x.rank} of indices and values",
            received=f"{indices}, {values}")
    for other, (size, wanted, given) in enumerate(zip(x.shape, indices.shape, values.shape, strict=True)):
        require_size(given, wanted, f"the values on axis {other}")
        require(other == place or not isinstance(size, int) or not isinstance(wanted, int) or wanted <= size,
                f"more indices than elements on axis {other}", expected=f"at most {size}", received=wanted)
    return TensorSpec(dtype, x.shape)


@op(infer=_scatter, facts=Facts(linear=(0, 2), ids=Ids(1, 0, "axis")))
def scatter(x: Array, indices: Array, values: Array, *, axis: int, reduction: Reduction = "none",
            include_self: bool = True) -> Array:
    """x with values[i, j, k] put at [indices[i, j, k], j, k] for axis 0, and so on: torch.scatter, torch.scatter_reduce.

    indices, values: one shape, as many axes as x, on the other axes no larger than x.
    reduction: how a value meets those already there; "mean" of integers rounds down. Without `include_self` an
    element of x that receives values takes no part in its reduction.
    """
    place = axis % x.ndim
    key = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    key[place] = indices
    if reduction == "none":
        y = x.copy()
        y[tuple(key)] = values
        return y
    return _accumulate(x, tuple(key), values, reduction, include_self)


def _accumulate(x: Array, key: tuple[Any, ...], values: Array, reduction: str, include_self: bool = True) -> Array:
    narrow = x.dtype.kind not in "iubc" and x.dtype.itemsize < 4
    wide = np.dtype(np.float32) if narrow else x.dtype
    y, values = x.astype(wide, copy=True), values.astype(wide)
    if not include_self:
        y[key] = identity(reduction, wide)
    _UFUNCS[reduction].at(y, key, values)
    if reduction == "mean":
        count = np.full(x.shape, int(include_self), np.int64)
        np.add.at(count, key, 1)
        count = np.maximum(count, 1)
        y = np.floor_divide(y, count.astype(wide)) if wide.kind in "iu" else y / count.astype(wide)
    return y.astype(x.dtype)


def _index_put(x: TensorSpec, values: TensorSpec, *indices: TensorSpec | None, accumulate: bool = False) -> TensorSpec:
    dtype = same_dtype(x, values)
    shape = index_shape(x, indices)
    require(values.rank <= len(shape), "values with more axes than the places", expected=f"at most {len(shape)}", received=values)
    for size, wanted in zip(values.shape, shape[len(shape) - values.rank:], strict=True):
        if size != 1:
            require_size(size, wanted, "the values")
    broadcast_dims(values.shape, shape)
    return TensorSpec(dtype, x.shape)


@op(infer=_index_put, facts=Facts(linear=(0, 1), ids=Ids(2, onward=True)))
def index_put(x: Array, values: Array, *indices: Array | None, accumulate: bool = False) -> Array:
    """x with x[i, j, …] = values, or += values with `accumulate`: torch.index_put.

    indices: as for `index`; values: broadcast to the shape that `index` gives.
    """
    key = index_key(indices)
    if accumulate and x.dtype != bool:
        return _accumulate(x, key, values, "add")
    y = x.copy()
    if accumulate:
        np.logical_or.at(y, key, values)  # type: ignore[arg-type]
    else:
        y[key] = values
    return y


def _masked_scatter(x: TensorSpec, mask: TensorSpec, values: TensorSpec) -> TensorSpec:
    require(mask.dtype is DType.BOOL, "wrong dtype of the mask", expected="bool", received=mask)
    dtype = same_dtype(x, values)
    require(mask.rank == x.rank, "wrong number of axes of the mask", expected=str(x.rank), received=mask)
    for axis, (size, wanted) in enumerate(zip(mask.shape, x.shape, strict=True)):
        require_size(size, wanted, f"the mask on axis {axis}")
    return TensorSpec(dtype, x.shape)


def _filled_in(f: Space, x: Term, mask: Term, values: Term) -> Term:
    """The k-th true element takes value k: a cumulative sum of the mask is k, and an element put before the values is number 0."""
    order = f.cumulative_sum(f.astype(f.reshape(mask, shape=(product(x.shape),)), dtype=DType.INT64), axis=0)
    blank = f.full(shape=(1,), fill_value=nothing(x), dtype=dtype_of(x))
    longer = f.concat(blank, f.reshape(values, shape=(product(values.shape),)), axis=0)
    return f.where(mask, f.take(longer, f.reshape(order, shape=x.shape), axis=0), x)


@op(infer=_masked_scatter, facts=moves(0, 2), formula=_filled_in)
def masked_scatter(x: Array, mask: Array, values: Array) -> Array:
    """x with the elements where `mask` holds replaced by the first ones of `values`, in row-major order: torch's masked_scatter.

    mask: bool, the shape of x; values: any shape with at least as many elements as the mask has true ones.
    """
    y = x.copy()
    count = int(np.count_nonzero(mask))
    if values.size < count:
        raise ValueError(f"{count} values are needed, there are {values.size}")
    y[mask] = values.ravel()[:count]
    return y


def _bincount(x: TensorSpec, weights: TensorSpec | None = None, minlength: int = 0, size: Dim | None = None) -> TensorSpec:
    require(x.rank == 1 and x.dtype.is_integer and minlength >= 0, "wrong operands of a count",
            expected="a vector of integers, and at least 0 numbers", received=f"{x}, {minlength}")
    if weights is not None:
        require(weights.dtype in (DType.FLOAT32, DType.FLOAT64), "wrong dtype of the weights", expected="float32 or float64",
                received=weights)
        require_rank(weights, 1, what="the weights")
        require_size(weights.shape[0], x.shape[0], "a weight for each element")
    return TensorSpec(DType.INT64 if weights is None else weights.dtype, (require_symbol(size),))


def _counts(f: Space, x: Term, weights: Term | None, *, minlength: int, size: Dim | None) -> Term:
    """Ones, or the weights, added up at their places."""
    places = f.astype(x, dtype=DType.INT64)
    least = f.full(shape=(1,), fill_value=minlength - 1, dtype=DType.INT64)
    length = f.max(f.concat(refuse(f, places < 0, places), least, axis=0), axis=(0,)) + 1
    length = f.size_of(length, size=size)
    shape = (int(length) if size is None else size,)
    dtype = DType.INT64 if weights is None else DType.FLOAT64
    ones = f.full(shape=tuple(x.shape), fill_value=1, dtype=dtype) if weights is None else f.astype(weights, dtype=dtype)
    counts = f.scatter(f.full(shape=shape, fill_value=0, dtype=dtype), places, ones, axis=0, reduction="add")
    return counts if weights is None else f.astype(counts, dtype=dtype_of(weights))


@op(infer=_bincount, binds={"size": (0, 0)}, formula=_counts)
def bincount(x: Array, weights: Array | None = None, *, minlength: int = 0, size: Size | None = None) -> Array:
    """y[n] is how often n is in x, or the sum of the weights of where it is: torch.bincount.

    x: integers [count], 0 and up; weights: float32 or float64 [count]. y: int64, or of the weights' dtype, [size]; `size` is
    a symbol that the data give a value: the largest element and 1, or `minlength` where that is more.
    """
    if x.size and x.min() < 0:
        raise ValueError(f"negative numbers, down to {x.min()}, are counted")
    counts = np.bincount(x.astype(np.int64), weights, minlength)
    return counts.astype(np.int64 if weights is None else weights.dtype)
