"""Pooling: one axis after another, a tap at a time."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from adapters.numpy.blocks import in_blocks
from adapters.numpy.buffers import empty
from adapters.numpy.kernels._windows import Windows
from adapters.numpy.registry import kernel
from converter.ir import Array
from converter.ops._spatial import filled, padding_pairs
from converter.ops.pooling import window_lengths
from converter.opset import lookup

BLOCK = 1 << 16


def _reduce(x: Array, windows: Windows, combine: Callable[..., Any], fill: float, finish: Callable[[Array], object] | None = None) -> Array:
    """[*, *counts]: each window's taps combined, those of the last axis first."""
    axes = len(windows.kernel)
    images = x.reshape(-1, *windows.sizes)
    y = empty((len(images), *windows.counts), x.dtype)

    def compute(part: slice) -> None:
        value = y[part]
        laid = windows.lay_out(images[part], fill)
        width = windows.counts[-1]
        step, spread = windows.stride[-1], windows.dilation[-1]
        columns = [(place * spread % step, place * spread // step) for place in range(windows.kernel[-1])]
        taps = [laid[..., phase, start:start + width] for phase, start in columns]
        for axis in reversed(range(axes)):
            if axis < axes - 1:
                last = (slice(None),) * (axis + 1)
                taps = [value[(*last, slice(place * windows.dilation[axis],
                                            place * windows.dilation[axis] + (windows.counts[axis] - 1) * windows.stride[axis] + 1,
                                            windows.stride[axis]))] for place in range(windows.kernel[axis])]
            value = y[part] if axis == 0 else np.empty(taps[0].shape, x.dtype)
            if len(taps) == 1:
                value[...] = taps[0]
            else:
                combine(taps[0], taps[1], out=value)
            for tap in taps[2:]:
                combine(value, tap, out=value)
        if finish is not None:
            finish(value)

    in_blocks(len(images), max(1, BLOCK // prod(windows.padded)), compute)
    return y.reshape(*x.shape[:-axes], *windows.counts)


@kernel("max_pool", first=True)
def max_pool(x: Array, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
             dilation: tuple[int, ...] = (), ceil_mode: bool = False) -> Array:
    axes = len(kernel)
    if x.dtype.kind != "f" or not x.size:
        return lookup("max_pool").kernel(x, kernel=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)[0]
    windows = Windows(x.shape[-axes:], kernel, filled(stride, axes, kernel, "stride", 1), padding_pairs(padding, axes),
                      filled(dilation, axes, 1, "dilation", 1), ceil_mode)
    return _reduce(x, windows, np.maximum, -np.inf)


@kernel("avg_pool")
def avg_pool(x: Array, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
             ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> Array:
    axes = len(kernel)
    if x.dtype != np.float32 or not x.size:
        return lookup("avg_pool").kernel(x, kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode,
                                         count_include_pad=count_include_pad, divisor_override=divisor_override)
    stride, pads = filled(stride, axes, kernel, "stride", 1), padding_pairs(padding, axes)
    windows = Windows(x.shape[-axes:], kernel, stride, pads, (1,) * axes, ceil_mode)
    size: Array = np.ones((), np.float32)
    if divisor_override is not None:
        size = np.asarray(divisor_override, np.float32)
    else:
        for axis in range(axes):
            lengths = window_lengths(x.shape[axis - axes], windows.counts[axis], kernel[axis], stride[axis], pads[axis], count_include_pad)
            size = size * lengths.astype(np.float32).reshape([-1 if other == axis else 1 for other in range(axes)])
    return _reduce(x, windows, np.add, 0, lambda total: np.divide(total, size, out=total))


@kernel("adaptive_avg_pool")
def adaptive_avg_pool(x: Array, *, size: tuple[int | None, ...]) -> Array:
    axes = len(size)
    if x.dtype != np.float32 or not x.size or any(count != 1 for count in size):
        return lookup("adaptive_avg_pool").kernel(x, size=size)
    rows = x.reshape(*x.shape[:-axes], -1)
    return rows.mean(axis=-1).reshape(*x.shape[:-axes], *size)
