"""What convolution, pooling and resizing share: windows over the last axes, their sizes, and the dtype to compute in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product as positions_of
from typing import Any

import numpy as np

from converter.dims import Dim, minimum, product
from converter.errors import GraphError
from converter.formulas import Space, Term, counted
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import require


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in: float32 for the floats that are smaller, else the dtype itself."""
    small_float = dtype.itemsize < 4 and dtype.kind not in "biu"
    return np.dtype(np.float32) if small_float else dtype


def lowest(dtype: Any) -> float:
    """The value below all others of a dtype."""
    found = DType.of(dtype)
    return found.limits[0] if found.is_integer else -math.inf


def filled(values: tuple[int, ...], axes: int, default: tuple[int, ...] | int, what: str, least: int) -> tuple[int, ...]:
    """One integer per spatial axis: `values`, or the default where it is empty. Raises `GraphError`."""
    if not values:
        values = (default,) * axes if isinstance(default, int) else default
    require(len(values) == axes, f"wrong length of {what!r}", expected=f"{axes} numbers", received=list(values))
    require(all(value >= least for value in values), f"{what!r} out of range", expected=f"{least} or more", received=list(values))
    return values


def padding_pairs(padding: tuple[int, ...], axes: int) -> tuple[tuple[int, int], ...]:
    """(before, after) for each spatial axis, of `axes` numbers (both sides) or twice as many (all befores, then all afters)."""
    padding = padding or (0,) * axes
    require(len(padding) in (axes, 2 * axes), "wrong length of 'padding'", expected=f"{axes} or {2 * axes} numbers",
            received=list(padding))
    require(all(value >= 0 for value in padding), "'padding' out of range", expected="0 or more", received=list(padding))
    return tuple(zip(padding[:axes], padding[-axes:], strict=True))


def spatial_rank(x: TensorSpec, axes: int) -> None:
    """Raises `GraphError` unless `x` is [batch, channels, *spatial] or [channels, *spatial]."""
    require(x.rank in (axes + 1, axes + 2), "wrong number of axes of the input",
            expected=f"{axes + 2}, or {axes + 1} without a batch axis", received=x)


def window_count(size: Dim, kernel: int, stride: int, pad: tuple[int, int], dilation: int, ceil_mode: bool = False) -> Dim:
    """How many windows fit along an axis: torch's `pooling_output_shape`. Raises `GraphError` for none.

    With `ceil_mode` a last window that does not fit whole counts too, unless it would start in the padding after.
    """
    span = dilation * (kernel - 1) + 1
    padded = size + pad[0] + pad[1]
    if ceil_mode:
        count = minimum((padded - span + stride - 1) // stride + 1, (size + pad[0] - 1) // stride + 1)
    else:
        count = (padded - span) // stride + 1
    if isinstance(count, int) and count < 1:
        raise GraphError("the kernel is larger than the padded input", expected=f"a size of {span} or more", received=str(padded))
    return count


def window_counts(sizes: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], pads: tuple[tuple[int, int], ...],
                  dilation: tuple[int, ...], ceil_mode: bool = False) -> tuple[int, ...]:
    """`window_count` of every axis of an array."""
    counts = (window_count(*item, ceil_mode) for item in zip(sizes, kernel, stride, pads, dilation, strict=True))
    return tuple(count for count in counts if isinstance(count, int))


def integers(sizes: tuple[Dim, ...]) -> tuple[int, ...]:
    """Sizes as a kernel has them, all known."""
    return tuple(size for size in sizes if isinstance(size, int))


def padded_for_windows(x: Array, counts: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...],
                       pads: tuple[tuple[int, int], ...], dilation: tuple[int, ...], fill: Any) -> Array:
    """`x` with its last axes padded by `fill` so that every window lies inside."""
    axes = len(kernel)
    widths = [(0, 0)] * (x.ndim - axes)
    for size, count, k, s, (before, _), d in zip(x.shape[-axes:], counts, kernel, stride, pads, dilation, strict=True):
        widths.append((before, max(0, (count - 1) * s + d * (k - 1) + 1 - size - before)))
    return np.pad(x, widths, constant_values=fill) if any(pair != (0, 0) for pair in widths) else x


def kernel_positions(kernel: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every position in a window, the last axis fastest."""
    return list(positions_of(*(range(size) for size in kernel)))


Windows = tuple[Term, Term | None]
"""Of an axis: (places [windows, elements], int64; which of them are elements of the axis, bool, or None for all)."""


def windows_of(f: Space, size: Dim, kernel: int, stride: int, pad: tuple[int, int], dilation: int, ceil_mode: bool) -> Windows:
    """Those of `window_count`; a place outside the axis is that of its end."""
    count = window_count(size, kernel, stride, pad, dilation, ceil_mode)
    places = counted(f, count, 0, 2) * stride + counted(f, kernel, 1, 2) * dilation
    if pad == (0, 0) and not ceil_mode:
        return places, None
    places = places - pad[0]
    return f.minimum(f.maximum(places, 0), size - 1), (places >= 0) & (places < size)


def windowed(f: Space, x: Term, axis: int, windows: Windows, fill: Any) -> Term:
    """x with an axis as two, windows and their elements; outside stands `fill`."""
    places, inside = windows
    y = f.take(x, places, axis=axis)
    if inside is None:
        return y
    return f.where(f.reshape(inside, shape=(*inside.shape, *[1] * (x.ndim - 1 - axis % x.ndim))), y, fill)


def totals_in(f: Space, x: Term, windows: Sequence[Windows]) -> Term:
    """The sum over the windows of the last axes."""
    for axis, found in enumerate(windows, x.ndim - len(windows)):
        x = f.sum(windowed(f, x, axis, found, 0.0), axis=(axis + 1,))
    return x


def largest_in(f: Space, x: Term, windows: Sequence[Windows]) -> tuple[Term, Term]:
    """(the largest values of the windows of the last axes, their places in those axes flattened): of NaN the last, else the first."""
    axes, fill = len(windows), lowest(x.dtype)
    first, y = x.ndim - axes, x
    flat, held = counted(f, 1), None
    values = x
    for axis, (places, inside) in enumerate(windows):
        y = f.max(windowed(f, y, first + axis, (places, inside), fill), axis=(first + axis + 1,))
        values = f.take(values, places, axis=first + 2 * axis)
        shape = tuple(places.shape[0] if place == axis else places.shape[1] if place == axes + axis else 1 for place in range(2 * axes))
        flat = f.reshape(flat, shape=(1,) * (2 * axes)) if axis == 0 else flat
        flat = flat * x.shape[first + axis] + f.reshape(places, shape=shape)
        if inside is not None:
            inside = f.reshape(inside, shape=shape)
            held = inside if held is None else held & inside
    order = (*range(first), *range(first, values.ndim, 2), *range(first + 1, values.ndim, 2))
    values, largest = f.permute_dims(values, axes=order), f.expand_dims(y, axis=tuple(range(y.ndim, y.ndim + axes)))
    hit = f.equal(values, largest) | f.isnan(values)
    hit = hit if held is None else hit & held
    inner = product(values.shape[first + axes:])
    flat = f.reshape(f.broadcast_to(flat, shape=values.shape[first:]), shape=(*y.shape[first:], inner))
    return y, chosen(f, y, f.reshape(hit, shape=(*y.shape, inner)), flat)


def chosen(f: Space, y: Term, hit: Term, flat: Term) -> Term:
    """What `flat` has where `hit`, along the last axis, holds first, or last where y is NaN."""
    last = f.subtract(hit.shape[-1] - 1, f.argmax(f.flip(hit, axis=(-1,)), axis=-1, keepdims=True))
    best = f.where(f.isnan(f.expand_dims(y, axis=(-1,))), last, f.argmax(hit, axis=-1, keepdims=True))
    return f.squeeze(f.take_along_axis(f.broadcast_to(flat, shape=hit.shape), best, axis=-1), axis=(-1,))


def taps(position: tuple[int, ...], counts: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[Any, ...]:
    """The index that takes, from a padded array, what every window has at `position`."""
    return (..., *(slice(p * d, p * d + (count - 1) * s + 1, s)
                   for p, count, s, d in zip(position, counts, stride, dilation, strict=True)))
