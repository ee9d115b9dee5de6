"""Pooling to a given number of windows, which divide each axis as evenly as integers allow."""

from __future__ import annotations

import numpy as np

from converter.dims import Dim, fixed, maximum
from converter.facts import Facts
from converter.formulas import Space, Term, counted, dtype_of, widened
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import require, require_float
from converter.ops._spatial import Windows, largest_in, spatial_rank, totals_in, wide
from converter.opset import op


def _shape(x: TensorSpec, size: tuple[Dim, ...]) -> tuple[Dim, ...]:
    require(len(size) in (1, 2, 3), "wrong length of 'size'", expected="1 to 3 sizes", received=list(map(str, size)))
    spatial_rank(x, len(size))
    require(all(not isinstance(item, int) or item >= 0 for item in size), "'size' out of range", expected="0 or more",
            received=list(map(str, size)))
    return x.shape[:-len(size)] + size


def _adaptive_avg_pool(x: TensorSpec, *, size: tuple[Dim, ...]) -> TensorSpec:
    require_float(x)
    return TensorSpec(x.dtype, _shape(x, size))


def windows(size: int, count: int) -> tuple[Array, Array]:
    """(places, held) of [count, widest]: the elements of each window, the last one repeated where `held` is false."""
    start = np.arange(count) * size // max(count, 1)
    end = -(-(np.arange(count) + 1) * size // max(count, 1))
    places = start[:, None] + np.arange(int((end - start).max(initial=1)))
    return np.minimum(places, np.maximum(end - 1, 0)[:, None]), places < end[:, None]


def _windows(f: Space, x: Term, size: tuple[Dim, ...]) -> list[Windows]:
    found: list[Windows] = []
    for length, count in zip(x.shape[-len(size):], size, strict=True):
        window, parts = counted(f, count, 0, 2), maximum(count, 1)
        if length % parts == 0:
            found.append((window * (length // parts) + counted(f, length // parts, 1, 2), None))
            continue
        end = (window * length + (length + parts - 1)) // parts
        places = window * length // parts + counted(f, (length - 1) // parts + 2, 1, 2)
        found.append((f.minimum(places, f.maximum(end - 1, 0)), places < end))
    return found


@widened
def _means(f: Space, x: Term, *, size: tuple[Dim, ...]) -> Term:
    windows = _windows(f, x, size)
    total = totals_in(f, x, windows)
    for axis, (places, held) in enumerate(windows):
        if held is None:
            total = total / places.shape[1]
            continue
        lengths = f.count_nonzero(held, axis=(1,))
        lengths = f.reshape(lengths, shape=tuple(size[axis] if place == axis else 1 for place in range(len(size))))
        total = total / f.astype(lengths, dtype=dtype_of(total))
    return total


@op(infer=_adaptive_avg_pool, formula=_means, facts=Facts(finite=True))
def adaptive_avg_pool(x: Array, *, size: tuple[Dim, ...]) -> Array:
    """The means of windows that cover each spatial axis: torch.nn.functional.adaptive_avg_pool1d, 2d, 3d.

    x: [batch, channels, *spatial] or [channels, *spatial]; y: [batch?, channels, *size]. Along an axis of n elements
    window i holds those from floor(i·n / size) to ceil((i + 1)·n / size), the end left out.
    """
    y = x.astype(wide(x.dtype), copy=False)
    for axis, count in zip(range(x.ndim - len(size), x.ndim), size, strict=True):
        places, held = windows(x.shape[axis], fixed(count))
        gathered = np.moveaxis(y, axis, -1)[..., places]
        y = np.moveaxis(np.where(held, gathered, 0).sum(-1) / held.sum(-1).astype(y.dtype), -1, axis)
    return y.astype(x.dtype, copy=False)


def _adaptive_max_pool(x: TensorSpec, *, size: tuple[Dim, ...]) -> tuple[TensorSpec, TensorSpec]:
    require(x.dtype is not DType.BOOL and not x.dtype.is_complex, "a dtype that this operator does not take", received=x)
    shape = _shape(x, size)
    return TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)


@op(infer=_adaptive_max_pool, outputs=("y", "indices"), facts=Facts(carries=(0,)))
def adaptive_max_pool(f: Space, x: Term, *, size: tuple[Dim, ...]) -> tuple[Term, Term]:
    """The largest values of the windows of `adaptive_avg_pool`: torch.nn.functional.adaptive_max_pool1d, 2d, 3d.

    x: [batch, channels, *spatial] or [channels, *spatial]; y: [batch?, channels, *size]; NaN counts as largest.
    indices: int64 of y's shape, the position in the flattened spatial axes of x; of equal values the first.
    """
    return largest_in(f, x, _windows(f, x, size))
