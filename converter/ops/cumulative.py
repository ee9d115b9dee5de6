"""Running sums, products and extremes along one axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from converter.facts import ALL, Facts
from converter.formulas import Formula, Space, Term, dtype_of, in_float64, may_be_empty
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import axis_of, require
from converter.ops.scattering import identity
from converter.opset import ARRAYS, op


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


def scanned(f: Space, x: Term, axis: int, step: Callable[..., tuple[Term, ...]], *starts: Term, blank: Any) -> tuple[Term, ...]:
    """The states of `step(f, *states, element)` at each element along an axis, stacked there; `blank`, which changes
    none of them, comes first where there may be no element."""
    place = axis % x.ndim
    order = (place, *(other for other in range(x.ndim) if other != place))
    rows, spare = f.permute_dims(x, axes=order), may_be_empty(f, [x.shape[place]])
    if spare:
        rows = f.concat(f.full(shape=(1, *rows.shape[1:]), fill_value=blank, dtype=dtype_of(x)), rows, axis=0)

    def body(f: Space, *values: Term) -> tuple[Term, ...]:
        states = step(f, *values)
        return *states, *states

    results = f.scan(*starts, rows, states=len(starts), sequences=1, body=body)[len(starts):]
    if spare:
        results = (f.slice(item, axes=(0,), starts=(1,), stops=(None,)) for item in results)
    return tuple(f.permute_dims(item, axes=tuple(map(order.index, range(x.ndim)))) for item in results)


def _start(f: Space, x: Term, axis: int, value: Any, dtype: DType) -> Term:
    """A state before the first element."""
    return f.full(shape=tuple(size for place, size in enumerate(x.shape) if place != axis % x.ndim), fill_value=value, dtype=dtype)


def _cumulative_prod(f: Space, x: Term, *, axis: int) -> Term:
    own = dtype_of(x)
    wide = DType.FLOAT64 if own.is_float else own
    y, = scanned(f, f.astype(x, dtype=wide), axis, lambda f, total, item: (total * item,), _start(f, x, axis, 1, wide),
                 blank=1)
    return f.astype(y, dtype=own)


@op(infer=_number, formula=_cumulative_prod)
def cumulative_prod(x: Array, *, axis: int) -> Array:
    """The products of the elements up to and with each one along `axis`; integers wrap around."""
    wide = _wide(x)
    return np.cumprod(wide, axis, dtype=wide.dtype).astype(x.dtype)


@in_float64
def _logcumsumexp(f: Space, x: Term, *, axis: int) -> Term:
    step = _log_of_sum if dtype_of(x).is_complex else lambda f, total, item: (f.logaddexp(total, item),)
    return scanned(f, x, axis, step, _start(f, x, axis, -math.inf, dtype_of(x)), blank=-math.inf)[0]


@op(infer=_inexact, formula=_logcumsumexp)
def logcumsumexp(x: Array, *, axis: int) -> Array:
    """log Σ eˣ over the elements up to and with each one along `axis`, without overflow on the way.

    Of complex numbers: y₀ = x₀ and yₙ = m + log1p(exp(l - m)), where m is the one of xₙ and yₙ₋₁ with the larger real part, xₙ of
    equal ones, and l the other. The imaginary parts are those of this recurrence, which runs on beyond ±π.
    """
    if x.dtype.kind != "c":
        return np.logaddexp.accumulate(_wide(x), axis).astype(x.dtype)
    y: Array = _logcumsumexp(ARRAYS, x, axis=axis)
    return y


def _log_of_sum(f: Space, y: Term, x: Term) -> tuple[Term]:
    """log(eˣ + eʸ) of complex numbers, its imaginary part near that of the number with the larger real part."""
    parts = f.real(x), f.imag(x), f.real(y), f.imag(y)
    behind = parts[0] < parts[2]
    low, turn, high, base = (f.where(behind, *pair) for pair in ((parts[0], parts[2]), (parts[1], parts[3]), (parts[2], parts[0]),
                                                                 (parts[3], parts[1])))
    infinite = f.isinf(low) & f.equal(low, high)
    size = f.exp(f.where(infinite, 0.0, low - high))
    a, c = size * f.cos(turn - base), size * f.sin(turn - base)
    # log |1 + z|, z = a + ci: by log1p where |z| is small, so that no digit is lost to the 1.
    small = size < 0.5
    gain = f.where(small, f.log1p(f.where(small, a * (a + 2.0) + c * c, 0.0)) * 0.5, f.log(f.hypot(a + 1.0, c)))
    real, imag = high + gain, base + f.atan2(c, a + 1.0)
    # Of infinite ones: both log 0, which stays as it is, or the angle of a sum of infinite numbers.
    along, across = (f.where(f.equal(first, 0.0), 0.0, first * math.inf) + f.where(f.equal(second, 0.0), 0.0, second * math.inf)
                     for first, second in ((f.cos(turn), f.cos(base)), (f.sin(turn), f.sin(base))))
    real = f.where(infinite, low, real)
    imag = f.where(infinite, f.where(low < 0.0, turn, f.atan2(across, along)), imag)
    lost = f.isnan(parts[0]) | f.isnan(parts[1]) | f.isnan(parts[2]) | f.isnan(parts[3])
    return (f.complex(f.where(lost, math.nan, real), f.where(lost, math.nan, imag)),)


def _extremes(reduction: Literal["maximum", "minimum"]) -> Formula:
    """The running extreme, and the number of the latest element that reached it or is NaN."""

    def formula(f: Space, x: Term, *, axis: int) -> tuple[Term, Term]:
        own, count = dtype_of(x), DType.INT64
        wide = DType.UINT8 if own is DType.BOOL else own
        least = identity(reduction, wide.numpy)

        def step(f: Space, value: Term, place: Term, number: Term, item: Term) -> tuple[Term, ...]:
            value = getattr(f, reduction)(value, item)
            reached = f.equal(item, value)
            return value, f.where(reached | f.isnan(item) if own.is_float else reached, number, place), number + 1

        first = -int(may_be_empty(f, [x.shape[axis % x.ndim]]))
        starts = (_start(f, x, axis, least, wide), _start(f, x, axis, 0, count), _start(f, x, axis, first, count))
        values, places, _ = scanned(f, f.astype(x, dtype=wide), axis, step, *starts, blank=least)
        return f.astype(values, dtype=own), places

    return formula


def _running(x: Array, axis: int, beats: Callable[[Array, Array], Array], extreme: np.ufunc) -> tuple[Array, Array]:
    """(values, index of the last element that reached each). Once a NaN came, it stays, and the latest NaN is named."""
    values = extreme.accumulate(x, axis)
    shape = [1] * x.ndim
    shape[axis] = -1
    positions = np.arange(x.shape[axis], dtype=np.int64).reshape(shape)
    reached = beats(x, values) | np.isnan(x)
    return values, np.maximum.accumulate(np.where(reached, positions, 0), axis)


@op(infer=_extreme, outputs=("values", "indices"), facts=Facts(carries=(0,)), formula=_extremes("maximum"))
def cummax(x: Array, *, axis: int) -> tuple[Array, Array]:
    """The largest element up to and with each one along `axis`, and its index (int64), of equal ones the last: torch.cummax.

    From the first NaN on the value is NaN, and the index that of the latest NaN.
    """
    return _running(x, axis, np.greater_equal, np.maximum)


@op(infer=_extreme, outputs=("values", "indices"), facts=Facts(carries=(0,)), formula=_extremes("minimum"))
def cummin(x: Array, *, axis: int) -> tuple[Array, Array]:
    """The smallest element up to and with each one along `axis`, and its index (int64), of equal ones the last: torch.cummin.

    From the first NaN on the value is NaN, and the index that of the latest NaN.
    """
    return _running(x, axis, np.less_equal, np.minimum)
