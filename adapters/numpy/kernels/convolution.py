"""Convolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from adapters.numpy.blocks import in_blocks
from adapters.numpy.buffers import empty
from adapters.numpy.kernels._windows import Windows
from adapters.numpy.links import Tail, finished
from adapters.numpy.registry import kernel, prepares
from converter.ir import Array
from converter.ops._spatial import filled, kernel_positions, padding_pairs, window_counts
from converter.opset import lookup

UNFOLDED = 1 << 18
"""Elements of unfolded windows that are multiplied at once: a few tiles of a matrix product, in the second-level cache."""
Finish = Callable[[Array, tuple[Any, ...]], None]
RUN = 1 << 10
"""Windows of a tile whose products the library makes fastest: more would leave the cache."""
BETWEEN = 1.2
"""How much wider padded rows may be than rows of results: what is between them is multiplied in vain."""
BLOCK = 1 << 16
"""Elements of a block of channels that lies in the cache while one tap after another is added."""
TILE = 14
"""Neighbours of a row that one product gives."""
WORTH = 1 << 11
"""Multiplications of a channel from which a product is worth its call."""


@kernel("convolution", tail=True)
def convolution(x: Array, weight: Array, bias: Array | None = None, *, stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
                dilation: tuple[int, ...] = (), groups: int = 1, tail: Tail | None = None, rows: Array | None = None) -> Array:
    """Products of the weight with unfolded windows, a tile of rows of one sample at a time; sums of taps where each channel is alone.

    `rows` is the weight as `by_rows` gives it.
    """
    axes = weight.ndim - 2
    if x.dtype != np.float32 or not x.size or not weight.size:
        y = lookup("convolution").kernel(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return finished(y, tail)
    stride, dilation = filled(stride, axes, 1, "stride", 1), filled(dilation, axes, 1, "dilation", 1)
    windows = Windows(x.shape[-axes:], weight.shape[2:], stride, padding_pairs(padding, axes), dilation)
    samples = x.reshape(-1, *x.shape[-axes - 1:])
    y = empty((len(samples), weight.shape[0], *windows.counts), np.float32)
    finish = tail.within(y.shape) if tail is not None else _nothing
    if weight.shape[1] == 1 and groups > 1:
        _channel_by_channel(samples, weight, bias, windows, groups, y, finish)
    elif _is_flat(windows):
        _flat_products(samples, by_rows(weight, groups) if rows is None else rows, bias, windows, y, finish)
    else:
        _products(samples, weight, bias, windows, groups, y, finish)
    return y.reshape(*x.shape[:-axes - 1], *y.shape[1:])


def _nothing(part: Array, index: tuple[Any, ...]) -> None:
    """The tail of a layer that has none."""


def _products(samples: Array, weight: Array, bias: Array | None, windows: Windows, groups: int, y: Array, finish: Finish) -> None:
    taps, counts = prod(weight.shape[1:]), windows.counts
    flat = weight.reshape(groups, -1, taps)
    shift = None if bias is None else bias.reshape(groups, -1, 1)
    whole = all(size == 1 for size in windows.kernel) and windows.plain and windows.counts == windows.sizes
    rows = max(1, min(counts[0], UNFOLDED // (taps * groups * prod(counts[1:]))))
    for number, (sample, out) in enumerate(zip(samples, y, strict=True)):
        here = slice(number, number + 1)
        out = out.reshape(groups, flat.shape[1], *counts)
        if whole:
            unfolded = sample.reshape(groups, taps, -1)
            product = out.reshape(*out.shape[:2], -1)
            np.matmul(flat, unfolded, out=product)
            if shift is not None:
                product += shift
            finish(y[here], (here,))
            continue
        laid = windows.lay_out(sample, 0)
        for start in range(0, counts[0], rows):
            part = slice(start, min(start + rows, counts[0]))
            size = (part.stop - part.start, *counts[1:])
            unfolded = empty((weight.shape[1] * groups, prod(windows.kernel), *size), np.float32)
            for place, position in enumerate(kernel_positions(windows.kernel)):
                np.copyto(unfolded[:, place], windows.tap(laid, position, part))
            unfolded = unfolded.reshape(groups, taps, -1)
            if size == counts:
                product = np.matmul(flat, unfolded, out=out.reshape(*out.shape[:2], -1))
            else:
                product = np.matmul(flat, unfolded, out=empty((*out.shape[:2], unfolded.shape[-1]), np.float32))
            if shift is not None:
                product += shift
            finish(product.reshape(1, -1, *size), (here, slice(None), part))
            if size != counts:
                out[:, :, part] = product.reshape(*out.shape[:2], *size)


def _is_flat(windows: Windows) -> bool:
    """Whether windows of neighbouring rows follow one another with little between them."""
    return len(windows.kernel) == 2 and windows.stride == (1, 1) and windows.kernel != (1, 1) \
        and windows.padded[1] <= BETWEEN * windows.counts[1]


def by_rows(weight: Array, groups: int) -> Array:
    """[kernel's rows, groups, channels out, channels in · kernel's columns]: a matrix for each row of the windows."""
    out, inner, high, wide = weight.shape
    return np.ascontiguousarray(weight.transpose(2, 0, 1, 3)).reshape(high, groups, out // groups, inner * wide)


def _flat_products(samples: Array, rows: Array, bias: Array | None, windows: Windows, y: Array, finish: Finish) -> None:
    """Windows of whole padded rows, what lies between two of them included: long runs of neighbours.

    Only the columns of the windows are unfolded, each shifted by one; the rows of the windows are products of their own with the same
    unfolded memory further on.
    """
    (high, wide), (count, columns), (padded, width) = windows.kernel, windows.counts, windows.padded
    groups, channels, further = rows.shape[1], samples.shape[1], windows.dilation[0] * width
    shift = None if bias is None else bias.reshape(groups, -1, 1)
    image = empty((channels, padded + 1, width), np.float32)  # the last run of windows ends in the row after the last one
    image.fill(0)
    inner = image[:, windows.before[0]:windows.before[0] + windows.sizes[0], windows.before[1]:windows.before[1] + windows.sizes[1]]
    channel, _, one = image.strides

    def work(number: int, part: slice) -> None:
        run = (part.stop - part.start) * width
        shape = channels, wide, run + (high - 1) * further
        unfolded = empty(shape, np.float32)
        np.copyto(unfolded, np.lib.stride_tricks.as_strided(image[:, part.start:], shape, (channel, one * windows.dilation[1], one)))
        unfolded = unfolded.reshape(groups, rows.shape[3], -1)
        total = np.matmul(rows[0], unfolded[..., :run], out=empty((groups, rows.shape[2], run), np.float32))
        product = empty(total.shape, np.float32) if high > 1 else total
        for at in range(1, high):
            np.matmul(rows[at], unfolded[..., at * further:at * further + run], out=product)
            total += product
        if shift is not None:
            total += shift
        index = slice(number, number + 1), slice(None), part
        out = y[index]
        np.copyto(out, total.reshape(1, out.shape[1], -1, width)[..., :columns])
        finish(out, index)

    height = max(1, min(RUN // width, UNFOLDED // (channels * wide * width)))
    for number, sample in enumerate(samples):
        np.copyto(inner, sample)
        in_blocks(count, height, partial(work, number), products=True)


def _channel_by_channel(samples: Array, weight: Array, bias: Array | None, windows: Windows, groups: int, y: Array,
                        finish: Finish) -> None:
    each, counts = weight.shape[0] // groups, windows.counts
    scales = weight.reshape(groups, each, *windows.kernel)
    shift = None if bias is None else bias.reshape(groups, each)
    channels = max(1, BLOCK // max(prod(windows.padded), prod(counts)))
    ones = (-1, *[1] * len(counts))

    def compute(number: int, part: slice) -> None:
        out = y[number].reshape(groups, each, *counts)
        laid = windows.lay_out(samples[number, part], 0)
        product = np.empty((len(laid), *counts), np.float32)
        for one in range(each):
            total = out[part, one]
            for place, position in enumerate(kernel_positions(windows.kernel)):
                at: Any = (part, one, *position)
                scale = scales[at].reshape(ones)
                if place == 0:
                    np.multiply(windows.tap(laid, position), scale, out=total)
                else:
                    np.multiply(windows.tap(laid, position), scale, out=product)
                    total += product
            if shift is not None:
                total += shift[part, one].reshape(ones)
        index = slice(number, number + 1), slice(part.start * each, part.stop * each)
        finish(y[index], index)

    for number in range(len(samples)):
        in_blocks(groups, channels, partial(compute, number))


@prepares("convolution")
def packed(constants: Sequence[Array | None], attributes: Mapping[str, Any]) -> Callable[..., Any] | None:
    """What a constant weight is made for: bands where channels are alone, else a matrix for each row of windows that lie flat."""
    weight, groups = constants[1], attributes.get("groups", 1)
    if weight is None or weight.dtype != np.float32 or weight.ndim != 4 or not weight.size:
        return None
    if weight.shape[:2] == (groups, 1) and groups > 1:
        return alone(constants, attributes)
    if weight.shape[1] == 1 and groups > 1 or weight.shape[2:] == (1, 1) or set(attributes.get("stride", ())) - {1}:
        return None
    return partial(convolution, **attributes, rows=by_rows(weight, groups))


def alone(constants: Sequence[Array | None], attributes: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Channels each convolved alone, as products with banded matrices that are made once: `TILE` neighbours of a row at a time.

    A tile of t neighbours is a product of the k rows above it, each of t + k - 1 elements, with a matrix [k (t + k - 1), t] that
    has the weights along its diagonals: more multiplications than there are, at many times the speed.
    """
    weight, bias = constants[1], (*constants, None)[2]
    groups = attributes.get("groups", 1)
    if weight is None:
        return None
    stride, dilation = filled(attributes.get("stride", ()), 2, 1, "stride", 1), filled(attributes.get("dilation", ()), 2, 1, "dilation", 1)
    pads, (high, wide) = padding_pairs(attributes.get("padding", ()), 2), weight.shape[2:]
    plain: Callable[..., Array] = partial(convolution, **attributes)
    bands: dict[int, Array] = {}

    def band(tile: int) -> Array:
        if tile not in bands:
            length = (tile - 1) * stride[1] + (wide - 1) * dilation[1] + 1
            made = np.zeros((groups, high, length, tile), np.float32)
            for place in range(tile):
                for column in range(wide):
                    made[:, :, place * stride[1] + column * dilation[1], place] = weight[:, 0, :, column]
            bands[tile] = made.reshape(groups, high * length, tile)
        return bands[tile]

    def compute(x: Array, kernel: Array, shift: Array | None = None, *, tail: Tail | None = None) -> Array:
        if x.ndim != 4 or not x.size:
            return plain(x, kernel, shift, tail=tail)
        windows = Windows(x.shape[2:], (high, wide), (1, 1), pads, dilation)
        rows, columns = window_counts(x.shape[2:], (high, wide), stride, pads, dilation)
        tiles = -(-columns // TILE)
        tile = -(-columns // tiles)
        length = (tile - 1) * stride[1] + (wide - 1) * dilation[1] + 1
        if rows * tiles * high * length * tile < WORTH:
            return plain(x, kernel, shift, tail=tail)
        y = empty((x.shape[0], groups, rows, columns), np.float32)
        padded = (windows.padded[0], max(windows.padded[1], (tiles - 1) * tile * stride[1] + length))
        each = rows * tiles * high * length
        finish = tail.within(y.shape) if tail is not None else _nothing

        def work(number: int, part: slice) -> None:
            count = part.stop - part.start
            image = np.zeros((count, *padded), np.float32)
            image[:, pads[0][0]:pads[0][0] + x.shape[2], pads[1][0]:pads[1][0] + x.shape[3]] = x[number, part]
            c, h, w = image.strides
            view = np.lib.stride_tricks.as_strided(image, (count, rows, tiles, high, length),
                                                   (c, h * stride[0], w * tile * stride[1], h * dilation[0], w))
            unfolded = np.ascontiguousarray(view).reshape(count, rows * tiles, high * length)
            product = np.matmul(unfolded, matrix[part]).reshape(count, rows, tiles * tile)
            if bias is not None:
                product += bias[part, None, None]
            index = slice(number, number + 1), part
            y[index] = product[..., :columns]
            finish(y[index], index)

        matrix = band(tile)
        for number in range(len(x)):
            in_blocks(groups, max(1, 2 * BLOCK // each), partial(work, number), products=True)
        return y

    return compute
