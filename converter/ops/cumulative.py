"""Running sums, products and extremes along one axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from converter.facts import ALL, Facts
from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, axis_of, require
from converter.opset import op


def _number(x: TensorSpec, *, axis: int) -> TensorSpec:
    require(x.dtype is not DType.BOOL, "a dtype that this operator does not take; convert with `astype`", received=x)
    axis_of(axis, x.rank)
    return x


def _inexact(x: TensorSpec, *, axis: int) -> TensorSpec:
    require(x.dtype.is_float or x.dtype.is_complex, "wrong dtype of the input", expected="a float or complex dtype", received=x)
    axis_of(axis, x.rank)
    return x


def _extreme(x: TensorSpec, *, axis: int) -> tuple[TensorSpec, TensorSpec]:
    require(not x.dtype.is_complex, "a dtype that this operator does not take", expected="a real dtype", received=x)
    axis_of(axis, x.rank)
    return x, TensorSpec(DType.INT64, x.shape)


def _wide(x: Array) -> Array:
    return x.astype(np.float64) if DType.of(x.dtype).is_float else x


@op(infer=_number, facts=Facts(linear=(0,), wide=ALL))
def cumulative_sum(x: Array, *, axis: int) -> Array:
    """The sums of the elements up to and with each one along `axis`; integers wrap around."""
    wide = _wide(x)
    return np.cumsum(wide, axis, dtype=wide.dtype).astype(x.dtype)


@op(infer=_number)
def cumulative_prod(x: Array, *, axis: int) -> Array:
    """The products of the elements up to and with each one along `axis`; integers wrap around."""
    wide = _wide(x)
    return np.cumprod(wide, axis, dtype=wide.dtype).astype(x.dtype)


@op(infer=_inexact)
def logcumsumexp(x: Array, *, axis: int) -> Array:
    """log Σ eˣ over the elements up to and with each one along `axis`, without overflow on the way.

    Of complex numbers: y₀ = x₀ and yₙ = m + log1p(exp(l - m)), where m is the one of xₙ and yₙ₋₁ with the larger real part, xₙ of
    equal ones, and l the other. The imaginary parts are those of this recurrence, which runs on beyond ±π.
    """
    if x.dtype.kind != "c":
        return np.logaddexp.accumulate(_wide(x), axis).astype(x.dtype)
    elements = np.moveaxis(x.astype(np.complex128), axis, 0)
    y = np.empty_like(elements)
    state = np.full(elements.shape[1:], complex(-np.inf, 0))
    for index, element in enumerate(elements):
        state = y[index] = _log_of_sum(element, state)
    return np.moveaxis(y, 0, axis).astype(x.dtype)


def _log_of_sum(x: Array, y: Array) -> Array:
    """log(eˣ + eʸ) of complex numbers, its imaginary part near that of the number with the larger real part."""
    less = x.real < y.real
    low, high = np.where(less, x, y), np.where(less, y, x)
    infinite = np.isinf(low.real) & (low.real == high.real)
    result = np.log1p(np.exp(np.where(infinite, 0, low) - np.where(infinite, 0, high))) + high
    result = np.where(infinite, np.where(low.real < 0, low, np.log(np.exp(low) + np.exp(high))), result)
    return np.where(np.isnan(x) | np.isnan(y), complex(np.nan, np.nan), result)


def _running(x: Array, axis: int, beats: Callable[[Array, Array], Array], extreme: np.ufunc) -> tuple[Array, Array]:
    """(values, index of the last element that reached each). Once a NaN came, it stays, and the latest NaN is named."""
    values = extreme.accumulate(x, axis)
    shape = [1] * x.ndim
    shape[axis] = -1
    positions = np.arange(x.shape[axis], dtype=np.int64).reshape(shape)
    reached = beats(x, values) | np.isnan(x)
    return values, np.maximum.accumulate(np.where(reached, positions, 0), axis)


@op(infer=_extreme, outputs=("values", "indices"), facts=Facts(carries=(0,)))
def cummax(x: Array, *, axis: int) -> tuple[Array, Array]:
    """The largest element up to and with each one along `axis`, and its index (int64), of equal ones the last: torch.cummax.

    From the first NaN on the value is NaN, and the index that of the latest NaN.
    """
    return _running(x, axis, np.greater_equal, np.maximum)


@op(infer=_extreme, outputs=("values", "indices"), facts=Facts(carries=(0,)))
def cummin(x: Array, *, axis: int) -> tuple[Array, Array]:
    """The smallest element up to and with each one along `axis`, and its index (int64), of equal ones the last: torch.cummin.

    From the first NaN on the value is NaN, and the index that of the latest NaN.
    """
    return _running(x, axis, np.less_equal, np.minimum)
