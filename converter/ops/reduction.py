"""Reductions over axes: the Python Array API standard's names.

`axis` lists the axes to reduce, None all of them; `keepdims` leaves them with size 1. Float sums are accumulated in
float64 and rounded once; integers wrap around.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from converter.dims import Dim, product
from converter.facts import ALL, Facts
from converter.formulas import Space, Term, dtype_of, in_float64, largest, nothing
from converter.ir import Array, DType, TensorSpec
from converter.ops._elimination import repeat
from converter.ops._rules import Infer, axes_of, axis_of, require
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
    dtype = np.float64 if DType.of(x.dtype).is_float else np.complex128 if x.dtype.kind == "c" else x.dtype
    return x.astype(dtype, copy=False)


def _number(x: Term, axis: Axes) -> Dim:
    """How many elements fall into one."""
    return product([x.shape[place] for place in axes_of(axis, x.ndim)])


@op(infer=_reduction("number"), facts=Facts(linear=(0,), wide=ALL))
def sum(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """The sum of the elements."""
    wide = _wide(x)
    return np.sum(wide, axis, keepdims=keepdims, dtype=wide.dtype).astype(x.dtype)


@op(infer=_reduction("float"), facts=Facts(linear=(0,)))
@in_float64
def mean(f: Space, x: Term, *, axis: Axes = None, keepdims: bool = False) -> Term:
    """The mean of the elements; NaN for none."""
    return f.sum(x, axis=axis, keepdims=keepdims) / _number(x, axis)


def _product(f: Space, x: Term, *, axis: Axes, keepdims: bool) -> Term | None:
    """Of complex numbers one by one."""
    if not dtype_of(x).is_complex:
        return None
    places = axes_of(axis, x.ndim)
    rest = [place for place in range(x.ndim) if place not in places]
    kept, count = tuple(x.shape[place] for place in rest), product([x.shape[place] for place in places])
    rows = f.reshape(f.permute_dims(x, axes=(*places, *rest)), shape=(count, *kept))
    start = f.full(shape=kept, fill_value=1.0, dtype=dtype_of(x))
    y, = repeat(f, count, lambda f, index, total, rows: (total * f.take(rows, index, axis=0),), (start,), rows)
    return f.reshape(y, shape=reduced(x.shape, axis, keepdims))


@op(infer=_reduction("number"), formula=_product, core="real numbers")
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


def _smallest(f: Space, x: Term, *, axis: int | None, keepdims: bool) -> Term:
    """Negation turns the order of floats around, and that of all bits the order of integers without overflow."""
    return f.argmax(-x if dtype_of(x).is_float else f.bitwise_invert(x), axis=axis, keepdims=keepdims)


@op(infer=_position, facts=Facts(chooses="one", wide=ALL), formula=_smallest)
def argmin(x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """The index (int64) of the smallest element along `axis`, or in the flattened tensor; the first of several.

    A NaN counts as the smallest.
    """
    return np.argmin(x, axis, keepdims=keepdims).astype(np.int64)


@op(infer=_reduction("bool"), facts=Facts(truth=True),
    formula=lambda f, x, *, axis, keepdims: f.count_nonzero(x, axis=axis, keepdims=keepdims) > 0)
def any(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """Whether at least one element holds."""
    return np.any(x, axis, keepdims=keepdims)


@op(infer=_reduction("bool"), facts=Facts(truth=True),
    formula=lambda f, x, *, axis, keepdims: f.equal(f.count_nonzero(~x, axis=axis, keepdims=keepdims), 0))
def all(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """Whether every element holds."""
    return np.all(x, axis, keepdims=keepdims)


def _counted(f: Space, x: Term, *, axis: Axes, keepdims: bool) -> Term:
    return f.sum(f.astype(f.not_equal(x, nothing(x)), dtype=DType.INT64), axis=axis, keepdims=keepdims)


@op(infer=_reduction(dtype=DType.INT64), formula=_counted)
def count_nonzero(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """How many elements are not zero (or hold), as int64."""
    return np.asarray(np.sum(x != 0, axis, keepdims=keepdims, dtype=np.int64))


def _variance(f: Space, x: Term, axis: Axes, keepdims: bool, correction: float) -> Term:
    count = f.full(shape=(), fill_value=_number(x, axis), dtype=DType.FLOAT64)
    centred = x - f.sum(x, axis=axis, keepdims=True) / _number(x, axis)
    squares = f.square(f.real(centred)) + f.square(f.imag(centred)) if dtype_of(x).is_complex else centred * centred
    return f.sum(squares, axis=axis, keepdims=keepdims) / f.maximum(count - correction, 0.0)


@op(infer=_reduction("float", real=True))
@in_float64
def var(f: Space, x: Term, *, axis: Axes = None, keepdims: bool = False, correction: float = 0.0) -> Term:
    """The variance: Σ |x - mean|² / (n - correction), n elements; the divisor is at least 0."""
    return _variance(f, x, axis, keepdims, correction)


@op(infer=_reduction("float", real=True))
@in_float64
def std(f: Space, x: Term, *, axis: Axes = None, keepdims: bool = False, correction: float = 0.0) -> Term:
    """The standard deviation: the square root of `var`."""
    return f.sqrt(_variance(f, x, axis, keepdims, correction))


@op(infer=_reduction("real"))
@in_float64
def logsumexp(f: Space, x: Term, *, axis: Axes = None, keepdims: bool = False) -> Term:
    """log Σ eˣ, without overflow on the way; -inf for no elements."""
    top = largest(f, x, axes_of(axis, x.ndim))
    shift = f.where(f.isfinite(top), top, 0.0)
    total = f.log(f.sum(f.exp(x - shift), axis=axis, keepdims=True)) + shift
    return f.reshape(total, shape=reduced(x.shape, axis, keepdims))


@op(infer=_reduction("float", real=True))
@in_float64
def vector_norm(f: Space, x: Term, *, axis: Axes = None, keepdims: bool = False, ord: float = 2.0) -> Term:
    """(Σ |x|^ord)^(1/ord). For ord inf the largest |x|, -inf the smallest, 0 the number of elements that are not 0."""
    size = f.abs(x)
    if ord == math.inf:
        return f.reshape(f.maximum(largest(f, size, axes_of(axis, x.ndim)), 0.0), shape=reduced(x.shape, axis, keepdims))
    if ord == -math.inf:
        return f.min(size, axis=axis, keepdims=keepdims)
    powers = (f.astype(f.not_equal(size, 0.0), dtype=DType.FLOAT64) if ord == 0 else size if ord == 1 else size * size if ord == 2
              else size ** ord)
    total = f.sum(powers, axis=axis, keepdims=keepdims)
    return total if ord in (0, 1) else f.sqrt(total) if ord == 2 else total ** (1.0 / ord)


def _median(x: TensorSpec, *, axis: int, keepdims: bool = False, ignore_nan: bool = False) -> tuple[TensorSpec, TensorSpec]:
    require(not x.dtype.is_complex, "a dtype that this operator does not take", expected="a real dtype", received=x)
    shape = reduced(x.shape, (axis_of(axis, x.rank),), keepdims)
    return TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)


@op(infer=_median, outputs=("values", "indices"), facts=Facts(carries=(0,), chooses="one"))
def median(f: Space, x: Term, *, axis: int, keepdims: bool = False, ignore_nan: bool = False) -> tuple[Term, Term]:
    """The median along `axis` and its index: torch.median.

    Of an even number of elements the lower one. NaN where an element is NaN; with `ignore_nan` NaN counts as absent, as in
    torch.nanmedian. Of equal elements the first is named.
    """
    ordered, _ = f.sort(x, axis=axis)
    unknown = f.isnan(x)
    missing = f.count_nonzero(unknown, axis=(axis,), keepdims=True)
    valid = f.subtract(x.shape[axis], missing)
    rank = f.maximum(valid - 1, 0) // 2
    if not ignore_nan:
        # Sorting puts NaN last, so the first NaN stands right after the valid elements.
        rank = f.where(missing > 0, valid, rank)
    values = f.take_along_axis(ordered, rank, axis=axis)
    indices = f.argmax(f.equal(x, values) | (unknown & f.isnan(values)), axis=axis, keepdims=True)
    return (values, indices) if keepdims else (f.squeeze(values, axis=(axis,)), f.squeeze(indices, axis=(axis,)))
