"""Reductions over axes: the Python Array API standard's names.

`axis` lists the axes to reduce, None all of them; `keepdims` leaves them with size 1. Float sums are accumulated in
float64 and rounded once; integers wrap around.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.dims import Dim
from converter.facts import ALL, Facts
from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, Infer, axes_of, axis_of, require
from converter.ops.complex_numbers import REAL_OF
from converter.opset import op

Axes = tuple[int, ...] | None


def reduced(shape: tuple[Dim, ...], axis: Axes, keepdims: bool) -> tuple[Dim, ...]:
    """The shape that a reduction leaves."""
    axes = axes_of(axis, len(shape))
    if keepdims:
        return tuple(1 if place in axes else size for place, size in enumerate(shape))
    return tuple(size for place, size in enumerate(shape) if place not in axes)


def _reduction(kind: str = "any", dtype: DType | None = None, real: bool = False) -> Infer:
    """The rule of reductions. `kind`: "any", "number" (no bool), "ordered" (no complex), "float" (or complex), "bool"."""

    def infer(x: TensorSpec, *, axis: Axes = None, keepdims: bool = False, **attributes: Any) -> TensorSpec:
        fits = {"any": True, "number": x.dtype is not DType.BOOL, "ordered": not x.dtype.is_complex,
                "float": x.dtype.is_float or x.dtype.is_complex, "real": x.dtype.is_float, "bool": x.dtype is DType.BOOL}[kind]
        require(fits, "a dtype that this operator does not take; convert with `astype`", received=x)
        result = dtype or (REAL_OF.get(x.dtype, x.dtype) if real else x.dtype)
        return TensorSpec(result, reduced(x.shape, axis, keepdims))

    return infer


def _wide(x: Array) -> Array:
    """Floats as float64, everything else as it is: what sums are accumulated in."""
    return x.astype(np.float64) if DType.of(x.dtype).is_float else x.astype(np.complex128) if x.dtype.kind == "c" else x


def _number(x: Array, axis: Axes) -> int:
    """How many elements fall into one."""
    return int(np.prod([x.shape[place] for place in axes_of(axis, x.ndim)], dtype=np.int64))


@op(infer=_reduction("number"), facts=Facts(linear=(0,), wide=ALL))
def sum(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """The sum of the elements."""
    wide = _wide(x)
    return np.sum(wide, axis, keepdims=keepdims, dtype=wide.dtype).astype(x.dtype)


@op(infer=_reduction("float"), facts=Facts(linear=(0,)))
def mean(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """The mean of the elements; NaN for none."""
    total = np.sum(_wide(x), axis, keepdims=keepdims)
    return np.divide(total, _number(x, axis)).astype(x.dtype)


@op(infer=_reduction("number"))
def prod(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """The product of the elements; 1 for none."""
    wide = _wide(x)
    return np.prod(wide, axis, keepdims=keepdims, dtype=wide.dtype).astype(x.dtype)


@op(infer=_reduction("ordered"), facts=Facts(carries=(0,)))
def max(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """The largest element; NaN where one is NaN. There must be at least one."""
    return np.maximum.reduce(x, axis, keepdims=keepdims)  # type: ignore[call-overload]


@op(infer=_reduction("ordered"), facts=Facts(carries=(0,)))
def min(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """The smallest element; NaN where one is NaN. There must be at least one."""
    return np.minimum.reduce(x, axis, keepdims=keepdims)  # type: ignore[call-overload]


def _position(x: TensorSpec, *, axis: int | None = None, keepdims: bool = False) -> TensorSpec:
    require(not x.dtype.is_complex, "a dtype that this operator does not take", expected="a real dtype", received=x)
    return TensorSpec(DType.INT64, reduced(x.shape, None if axis is None else (axis_of(axis, x.rank),), keepdims))


@op(infer=_position, facts=Facts(chooses="one", wide=ALL))
def argmax(x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """The index (int64) of the largest element along `axis`, or in the flattened tensor; the first of several.

    A NaN counts as the largest.
    """
    return np.argmax(x, axis, keepdims=keepdims).astype(np.int64)


@op(infer=_position, facts=Facts(chooses="one", wide=ALL))
def argmin(x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """The index (int64) of the smallest element along `axis`, or in the flattened tensor; the first of several.

    A NaN counts as the smallest.
    """
    return np.argmin(x, axis, keepdims=keepdims).astype(np.int64)


@op(infer=_reduction("bool"), facts=Facts(truth=True))
def any(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """Whether at least one element holds."""
    return np.any(x, axis, keepdims=keepdims)


@op(infer=_reduction("bool"), facts=Facts(truth=True))
def all(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """Whether every element holds."""
    return np.all(x, axis, keepdims=keepdims)


@op(infer=_reduction(dtype=DType.INT64))
def count_nonzero(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """How many elements are not zero (or hold), as int64."""
    return np.asarray(np.sum(x != 0, axis, keepdims=keepdims, dtype=np.int64))


def _variance(x: Array, axis: Axes, keepdims: bool, correction: float) -> Array:
    wide = _wide(x)
    centred = wide - np.sum(wide, axis, keepdims=True) / np.float64(_number(x, axis))
    squares = centred.real ** 2 + centred.imag ** 2 if wide.dtype.kind == "c" else centred * centred
    freedom = np.float64(_number(x, axis) - correction)
    return np.sum(squares, axis, keepdims=keepdims) / (freedom if freedom > 0 else np.float64(0))


def _real_dtype(x: Array) -> np.dtype[Any]:
    dtype = DType.of(x.dtype)
    return REAL_OF.get(dtype, dtype).numpy


@op(infer=_reduction("float", real=True))
def var(x: Array, *, axis: Axes = None, keepdims: bool = False, correction: float = 0.0) -> Array:
    """The variance: Σ |x - mean|² / (n - correction), n elements; the divisor is at least 0."""
    return _variance(x, axis, keepdims, correction).astype(_real_dtype(x))


@op(infer=_reduction("float", real=True))
def std(x: Array, *, axis: Axes = None, keepdims: bool = False, correction: float = 0.0) -> Array:
    """The standard deviation: the square root of `var`."""
    return np.sqrt(_variance(x, axis, keepdims, correction)).astype(_real_dtype(x))


@op(infer=_reduction("real"))
def logsumexp(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """log Σ eˣ, without overflow on the way; -inf for no elements."""
    wide = _wide(x)
    largest = np.max(wide, axis, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(largest), largest, 0.0)
    total = np.log(np.sum(np.exp(wide - shift), axis, keepdims=True)) + shift
    shape = reduced(x.shape, axis, keepdims)
    return total.reshape(tuple(map(int, shape))).astype(x.dtype)  # type: ignore[arg-type]


@op(infer=_reduction("float", real=True))
def vector_norm(x: Array, *, axis: Axes = None, keepdims: bool = False, ord: float = 2.0) -> Array:
    """(Σ |x|^ord)^(1/ord). For ord inf the largest |x|, -inf the smallest, 0 the number of elements that are not 0."""
    size = np.abs(_wide(x))
    if ord == np.inf:
        result = np.maximum.reduce(size, axis, keepdims=keepdims, initial=0.0)  # type: ignore[call-overload]
    elif ord == -np.inf:
        result = np.minimum.reduce(size, axis, keepdims=keepdims)  # type: ignore[call-overload]
    elif ord == 0:
        result = np.sum(size != 0, axis, keepdims=keepdims, dtype=np.float64)
    elif ord == 1:
        result = np.sum(size, axis, keepdims=keepdims)
    elif ord == 2:
        result = np.sqrt(np.sum(size * size, axis, keepdims=keepdims))
    else:
        result = np.power(np.sum(np.power(size, ord), axis, keepdims=keepdims), 1.0 / ord)
    return result.astype(_real_dtype(x))


def _median(x: TensorSpec, *, axis: int, keepdims: bool = False, ignore_nan: bool = False) -> tuple[TensorSpec, TensorSpec]:
    require(not x.dtype.is_complex, "a dtype that this operator does not take", expected="a real dtype", received=x)
    shape = reduced(x.shape, (axis_of(axis, x.rank),), keepdims)
    return TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)


@op(infer=_median, outputs=("values", "indices"), facts=Facts(carries=(0,), chooses="one"))
def median(x: Array, *, axis: int, keepdims: bool = False, ignore_nan: bool = False) -> tuple[Array, Array]:
    """The median along `axis` and its index: torch.median.

    Of an even number of elements the lower one. NaN where an element is NaN; with `ignore_nan` NaN counts as absent, as in
    torch.nanmedian. Of equal elements the first is named.
    """
    order = np.argsort(x, axis, kind="stable")
    missing = np.count_nonzero(np.isnan(x), axis, keepdims=True)
    valid = x.shape[axis] - missing
    rank = np.maximum(valid - 1, 0) // 2
    if not ignore_nan:
        # Sorting puts NaN last, so the first NaN stands right after the valid elements.
        rank = np.where(missing > 0, valid, rank)
    indices = np.take_along_axis(order, rank, axis)
    values = np.take_along_axis(x, indices, axis)
    # The stable order names the first of the elements that sorted equal only for the lowest rank among them.
    indices = np.argmax((x == values) | (np.isnan(x) & np.isnan(values)), axis, keepdims=True)
    if not keepdims:
        values, indices = np.squeeze(values, axis), np.squeeze(indices, axis)
    return values, indices.astype(np.int64)
