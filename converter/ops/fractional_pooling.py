"""Max pooling over windows whose places given random numbers decide."""

from __future__ import annotations

import numpy as np

from converter.facts import Facts
from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, require, require_float, require_rank, require_size, same_dtype
from converter.ops._spatial import filled, kernel_positions, spatial_rank
from converter.opset import op


def _fractional_max_pool(x: TensorSpec, samples: TensorSpec, *, kernel: tuple[int, ...],
                         size: tuple[int, ...]) -> tuple[TensorSpec, TensorSpec]:
    axes = len(kernel)
    require(axes in (2, 3), "wrong length of 'kernel'", expected="2 or 3 numbers", received=list(kernel))
    require_float(x)
    kernel, size = filled(kernel, axes, 1, "kernel", 1), filled(size, axes, 1, "size", 1)
    spatial_rank(x, axes)
    require_rank(samples, 3, what="the samples")
    require_size(samples.shape[2], axes, "the samples")
    for length, k, count in zip(x.shape[-axes:], kernel, size, strict=True):
        require(not isinstance(length, int) or count + k - 1 <= length, "the windows do not fit", received=length,
                expected=f"a size of {count + k - 1} or more")
    same_dtype(x, samples)
    shape = x.shape[:-axes] + size
    return TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)


def _starts(samples: Array, length: int, kernel: int, count: int) -> Array:
    """[..., count]: where the windows of an axis start, given one number in [0, 1) each."""
    if count == 1:
        return np.full((*samples.shape, 1), length - kernel, np.int64)
    alpha = samples.dtype.type(length - kernel) / samples.dtype.type(count - 1)
    shift = (samples * alpha).astype(np.int64)[..., None]
    starts: Array = ((np.arange(count).astype(samples.dtype) + samples[..., None]) * alpha).astype(np.int64) - shift
    starts[..., -1] = length - kernel
    return starts


@op(infer=_fractional_max_pool, outputs=("y", "indices"), facts=Facts(carries=(0,)))
def fractional_max_pool(x: Array, samples: Array, *, kernel: tuple[int, ...], size: tuple[int, ...]) -> tuple[Array, Array]:
    """The largest value of windows at pseudo-random places, and where it is: torch.nn.functional.fractional_max_pool2d, 3d.

    x: [batch, channels, *spatial] or [channels, *spatial]; samples: [batch, channels, axes], numbers u in [0, 1), the
    last spatial axis' first for images, the first axis' first for volumes. y, indices (int64, in the flattened spatial
    axes of x): [batch?, channels, *size].
    Window i of an axis of n elements starts at floor((i + u)·a) - floor(u·a), a = (n - kernel) / (size - 1), and the
    last one at n - kernel (B. Graham, "Fractional Max-Pooling", 2014).
    """
    axes = len(kernel)
    batched = x if x.ndim == axes + 2 else x[None]
    spatial = batched.shape[2:]
    order = range(axes) if axes == 3 else range(axes - 1, -1, -1)
    starts = [_starts(samples[..., column], length, k, count)
              for column, length, k, count in zip(order, spatial, kernel, size, strict=True)]
    flat = batched.reshape(*batched.shape[:2], -1)
    y = np.empty((*batched.shape[:2], *size), x.dtype)
    indices = np.full(y.shape, -1, np.int64)
    for position in kernel_positions(kernel):
        places = np.zeros((1,) * y.ndim, np.int64)
        for axis, (start, offset, length) in enumerate(zip(starts, position, spatial, strict=True)):
            shape = [-1 if other == axis else 1 for other in range(axes)]
            places = places * length + (start + offset).reshape(*start.shape[:2], *shape)
        value = np.take_along_axis(flat, places.reshape(*y.shape[:2], -1), 2).reshape(y.shape)
        better = (indices < 0) | (value > y) | (value != value)
        y, indices = np.where(better, value, y), np.where(better, places, indices)
    return (y, indices) if x.ndim == axes + 2 else (y[0], indices[0])
