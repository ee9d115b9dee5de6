"""Pooling to a given number of windows, which divide each axis as evenly as integers allow."""

from __future__ import annotations

import numpy as np

from converter.dims import Dim
from converter.facts import Facts
from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, require, require_float
from converter.ops._spatial import spatial_rank, wide
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


@op(infer=_adaptive_avg_pool, facts=Facts(finite=True))
def adaptive_avg_pool(x: Array, *, size: tuple[Dim, ...]) -> Array:
    """The means of windows that cover each spatial axis: torch.nn.functional.adaptive_avg_pool1d, 2d, 3d.

    x: [batch, channels, *spatial] or [channels, *spatial]; y: [batch?, channels, *size]. Along an axis of n elements
    window i holds those from floor(i·n / size) to ceil((i + 1)·n / size), the end left out.
    """
    y = x.astype(wide(x.dtype), copy=False)
    for axis, count in zip(range(x.ndim - len(size), x.ndim), size, strict=True):
        places, held = windows(x.shape[axis], int(count))  # type: ignore[arg-type]
        gathered = np.moveaxis(y, axis, -1)[..., places]
        y = np.moveaxis(np.where(held, gathered, 0).sum(-1) / held.sum(-1).astype(y.dtype), -1, axis)
    return y.astype(x.dtype, copy=False)


def _adaptive_max_pool(x: TensorSpec, *, size: tuple[Dim, ...]) -> tuple[TensorSpec, TensorSpec]:
    require(x.dtype is not DType.BOOL and not x.dtype.is_complex, "a dtype that this operator does not take", received=x)
    shape = _shape(x, size)
    return TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)


@op(infer=_adaptive_max_pool, outputs=("y", "indices"), facts=Facts(carries=(0,)))
def adaptive_max_pool(x: Array, *, size: tuple[Dim, ...]) -> tuple[Array, Array]:
    """The largest values of the windows of `adaptive_avg_pool`: torch.nn.functional.adaptive_max_pool1d, 2d, 3d.

    x: [batch, channels, *spatial] or [channels, *spatial]; y: [batch?, channels, *size]; NaN counts as largest.
    indices: int64 of y's shape, the position in the flattened spatial axes of x; of equal values the first.
    """
    axes = len(size)
    values, flat = x, np.zeros((), np.int64)
    for axis, count in enumerate(size):
        length = x.shape[axis - axes]
        places, _ = windows(length, int(count))  # type: ignore[arg-type]
        # Every axis becomes (windows, elements of a window); those still to come stand behind.
        values = np.take(values, places, axis=values.ndim - axes + axis)
        flat = flat[..., None, None] * length + places
    lead = x.ndim - axes
    order = [*range(lead), *range(lead, lead + 2 * axes, 2), *range(lead + 1, lead + 2 * axes, 2)]
    counts = tuple(values.shape[axis] for axis in range(lead, lead + 2 * axes, 2))
    values = values.transpose(order).reshape(*x.shape[:lead], *counts, -1)
    flat = flat.transpose([*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)]).reshape(*counts, -1)
    best = np.argmax(values, axis=-1)
    missing = values != values
    if missing.any():
        best = np.where(missing.any(-1), values.shape[-1] - 1 - np.argmax(missing[..., ::-1], axis=-1), best)
    y = np.take_along_axis(values, best[..., None], -1)[..., 0]
    return y, np.take_along_axis(np.broadcast_to(flat, values.shape), best[..., None], -1)[..., 0]
