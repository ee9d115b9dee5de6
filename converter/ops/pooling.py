"""Pooling over windows of a fixed size: the largest value, the mean, the norm; and its undoing."""

from __future__ import annotations

import math

import numpy as np

from converter.dims import Dim, product
from converter.facts import Facts
from converter.formulas import Space, Term, counted, dtype_of, nothing, widened
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import require, require_float, same_dtype
from converter.ops._spatial import (
    Windows,
    filled,
    kernel_positions,
    largest_in,
    lowest,
    padded_for_windows,
    padding_pairs,
    spatial_rank,
    taps,
    totals_in,
    wide,
    window_count,
    window_counts,
    windows_of,
)
from converter.opset import op


def _geometry(x: TensorSpec, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
              dilation: tuple[int, ...], ceil_mode: bool) -> tuple[Dim, ...]:
    axes = len(kernel)
    require(axes in (1, 2, 3), "wrong length of 'kernel'", expected="1 to 3 numbers", received=list(kernel))
    kernel = filled(kernel, axes, 1, "kernel", 1)
    spatial_rank(x, axes)
    stride, dilation = filled(stride, axes, kernel, "stride", 1), filled(dilation, axes, 1, "dilation", 1)
    pads = padding_pairs(padding, axes)
    require(all(2 * max(pair) <= k for pair, k in zip(pads, kernel, strict=True)), "'padding' out of range",
            expected="at most half the kernel", received=list(padding))
    return tuple(window_count(*item, ceil_mode) for item in zip(x.shape[-axes:], kernel, stride, pads, dilation, strict=True))


def _max_pool(x: TensorSpec, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
              dilation: tuple[int, ...] = (), ceil_mode: bool = False) -> tuple[TensorSpec, TensorSpec]:
    require(x.dtype is not DType.BOOL and not x.dtype.is_complex, "a dtype that this operator does not take", received=x)
    shape = x.shape[:-len(kernel)] + _geometry(x, kernel, stride, padding, dilation, ceil_mode)
    return TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)


def _windows(f: Space, x: Term, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
             ceil_mode: bool) -> list[Windows]:
    axes = len(kernel)
    stride, dilation = filled(stride, axes, kernel, "stride", 1), filled(dilation, axes, 1, "dilation", 1)
    return [windows_of(f, *geometry, ceil_mode) for geometry in
            zip(x.shape[-axes:], kernel, stride, padding_pairs(padding, axes), dilation, strict=True)]


@op(infer=_max_pool, outputs=("y", "indices"), facts=Facts(carries=(0,), finite=True),
    formula=lambda f, x, **geometry: largest_in(f, x, _windows(f, x, **geometry)))
def max_pool(x: Array, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
             dilation: tuple[int, ...] = (), ceil_mode: bool = False) -> tuple[Array, Array]:
    """The largest value of each window, and where it is: torch.nn.functional.max_pool1d, 2d, 3d.

    x: [batch, channels, *spatial] or [channels, *spatial]. y: [batch?, channels, *n] with
    n = (size + padding before and after - dilation·(kernel - 1) - 1) // stride + 1 for each spatial axis; with `ceil_mode`
    the division rounds up, but no window starts in the padding after. NaN counts as largest.
    indices: int64 of y's shape, the position in the flattened spatial axes of x; of equal values the first.
    `stride` empty: the kernel. `dilation` empty: ones. `padding`: as in `convolution`, never chosen as largest.
    """
    axes = len(kernel)
    stride, dilation = filled(stride, axes, kernel, "stride", 1), filled(dilation, axes, 1, "dilation", 1)
    pads = padding_pairs(padding, axes)
    sizes = x.shape[-axes:]
    counts = window_counts(sizes, kernel, stride, pads, dilation, ceil_mode)
    padded = padded_for_windows(x, counts, kernel, stride, pads, dilation, lowest(x.dtype))
    y = np.empty(x.shape[:-axes] + counts, x.dtype)
    indices = np.full(y.shape, -1, np.int64)
    for position in kernel_positions(kernel):
        inside, flat = np.ones((1,) * axes, bool), np.zeros((1,) * axes, np.int64)
        for axis, size in enumerate(sizes):
            place = np.arange(counts[axis]) * stride[axis] + position[axis] * dilation[axis] - pads[axis][0]
            place = place.reshape([-1 if other == axis else 1 for other in range(axes)])
            inside = inside & (place >= 0) & (place < size)
            flat = flat * size + place
        value = padded[taps(position, counts, stride, dilation)]
        better = inside & ((indices < 0) | (value > y) | (value != value))
        y = np.where(better, value, y)
        indices = np.where(better, flat, indices)
    return y, indices


def _avg_pool(x: TensorSpec, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
              ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> TensorSpec:
    require_float(x)
    require(divisor_override != 0, "'divisor_override' out of range", expected="not 0", received=0)
    return TensorSpec(x.dtype, x.shape[:-len(kernel)] + _geometry(x, kernel, stride, padding, (), ceil_mode))


def window_totals(x: Array, counts: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...],
                  pads: tuple[tuple[int, int], ...]) -> Array:
    """The sum over each window, zeros outside; x in the dtype to add up in."""
    ones = (1,) * len(kernel)
    padded = padded_for_windows(x, counts, kernel, stride, pads, ones, 0)
    total = np.zeros(x.shape[:-len(kernel)] + counts, x.dtype)
    for position in kernel_positions(kernel):
        total += padded[taps(position, counts, stride, ones)]
    return total


def window_lengths(size: int, count: int, kernel: int, stride: int, pad: tuple[int, int], include_pad: bool) -> Array:
    """How many elements of an axis each window holds; with `include_pad` those of the padding too."""
    start = np.arange(count) * stride - pad[0]
    end = np.minimum(start + kernel, size + pad[1])
    return end - start if include_pad else np.minimum(end, size) - np.maximum(start, 0)


@widened
def _means(f: Space, x: Term, *, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], ceil_mode: bool,
           count_include_pad: bool, divisor_override: int | None) -> Term:
    axes = len(kernel)
    windows = _windows(f, x, kernel, stride, padding, (), ceil_mode)
    total = totals_in(f, x, windows)
    whole = all(inside is None for _, inside in windows)
    if whole or divisor_override is not None:
        return total / (divisor_override or math.prod(kernel))
    geometry = zip(x.shape[-axes:], windows, kernel, filled(stride, axes, kernel, "stride", 1), padding_pairs(padding, axes), strict=True)
    for axis, (size, (places, _), k, s, pad) in enumerate(geometry):
        start = counted(f, places.shape[0], axis, axes) * s - pad[0]
        end = f.minimum(start + k, size + pad[1])
        length = end - start if count_include_pad else f.minimum(end, size) - f.maximum(start, 0)
        total = total / f.astype(length, dtype=dtype_of(total))
    return total


@op(infer=_avg_pool, formula=_means, facts=Facts(finite=True))
def avg_pool(x: Array, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
             ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> Array:
    """The mean of each window: torch.nn.functional.avg_pool1d, 2d, 3d.

    x: [batch, channels, *spatial] or [channels, *spatial]; y as of `max_pool`. `stride` empty: the kernel.
    The sum of a window is divided by `divisor_override` where that is given, else by the number of its elements:
    with `count_include_pad` those in the padding too (which are zero), but never those beyond it that `ceil_mode` adds.
    """
    axes = len(kernel)
    stride = filled(stride, axes, kernel, "stride", 1)
    pads = padding_pairs(padding, axes)
    sizes = x.shape[-axes:]
    counts = window_counts(sizes, kernel, stride, pads, (1,) * axes, ceil_mode)
    total = window_totals(x.astype(wide(x.dtype), copy=False), counts, kernel, stride, pads)
    if divisor_override is not None:
        return (total / divisor_override).astype(x.dtype, copy=False)
    for axis in range(axes):
        lengths = window_lengths(sizes[axis], counts[axis], kernel[axis], stride[axis], pads[axis], count_include_pad)
        total /= lengths.astype(total.dtype).reshape([-1 if other == axis else 1 for other in range(axes)])
    return total.astype(x.dtype, copy=False)


def _max_unpool(x: TensorSpec, indices: TensorSpec, *, size: tuple[Dim, ...]) -> TensorSpec:
    require(len(size) in (1, 2, 3), "wrong length of 'size'", expected="1 to 3 sizes", received=list(map(str, size)))
    spatial_rank(x, len(size))
    require(indices.dtype is DType.INT64 and indices.rank == x.rank, "indices that do not fit", received=indices,
            expected=f"int64 of the shape of {x}")
    return TensorSpec(same_dtype(x), x.shape[:-len(size)] + size)


@op(infer=_max_unpool, facts=Facts(carries=(0,), fills=True))
def max_unpool(f: Space, x: Term, indices: Term, *, size: tuple[Dim, ...]) -> Term:
    """Puts each value where `max_pool` found it, zeros elsewhere: torch.nn.functional.max_unpool1d, 2d, 3d.

    x: [batch, channels, *spatial] or [channels, *spatial]; indices: int64 of x's shape, positions in the flattened
    spatial axes of y. y: [batch?, channels, *size]. Where an index comes twice the last value stands.
    """
    lead, places = x.shape[:-len(size)], product(size)
    flat = (*lead, product(x.shape[-len(size):]))
    # A negative index, which would count from the end, becomes one outside.
    indices = f.reshape(f.where(indices < 0, places, indices), shape=flat)
    empty = f.full(shape=(*lead, places), fill_value=nothing(x), dtype=dtype_of(x))
    return f.reshape(f.scatter(empty, indices, f.reshape(x, shape=flat), axis=-1), shape=(*lead, *size))
