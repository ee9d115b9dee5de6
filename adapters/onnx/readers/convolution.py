"""Convolutions and pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from adapters.onnx.readers.linear import centred, named
from adapters.onnx.readers.reduction import lowest
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import Dim, Expr, fixed, product
from converter.ir import DType

Ints = Sequence[int]


def padding_of(g: Reader, auto_pad: str, pads: Ints | None, sizes: Sequence[Dim], kernel: Ints, strides: Ints,
               dilations: Ints) -> tuple[int, ...]:
    """Padding before each axis, then after each."""
    rank = len(kernel)
    if auto_pad in ("NOTSET", ""):
        return tuple(pads or (0,) * (2 * rank))
    if auto_pad == "VALID":
        return (0,) * (2 * rank)
    before, after = [], []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = dilation * (window - 1) + 1
        if stride == 1:
            total = reach - 1
        elif isinstance(size, Expr):
            raise g.refuse(f"auto_pad {auto_pad} of a free size with a stride")
        else:
            total = max(((size + stride - 1) // stride - 1) * stride + reach - size, 0)
        less, more = total // 2, total - total // 2
        before.append(less if auto_pad == "SAME_UPPER" else more)
        after.append(more if auto_pad == "SAME_UPPER" else less)
    return (*before, *after)


def both_sides(pads: tuple[int, ...]) -> tuple[int, ...]:
    """Padding that is the same on both sides, written once."""
    half = len(pads) // 2
    return pads[:half] if pads[:half] == pads[half:] else pads


@reads("Conv")
def conv(g: Reader, x: Item | Value, weight: Item | Value, bias: Item | Value | None = None, *, auto_pad: str = "NOTSET",
         dilations: Ints | None = None, group: int = 1, kernel_shape: Ints | None = None, pads: Ints | None = None,
         strides: Ints | None = None) -> Value:
    kernel = tuple(fixed(size) for size in g.shape(weight)[2:])
    ones = (1,) * len(kernel)
    stride, dilation = tuple(strides or ones), tuple(dilations or ones)
    padding = padding_of(g, auto_pad, pads, g.shape(x)[2:], kernel, stride, dilation)
    weight, bias = named(g, weight, "weight"), None if bias is None else named(g, bias, "bias")
    return g.op("convolution", x, weight, bias, stride=stride, padding=both_sides(padding), dilation=dilation, groups=group)


@reads("ConvInteger")
def conv_integer(g: Reader, x: Item, weight: Item, x_zero: Item | None = None, w_zero: Item | None = None, **options: Any) -> Value:
    """In int32. The padding is of zero points, which are zero once they are taken away."""
    return conv(g, centred(g, x, x_zero, None), centred(g, weight, w_zero, 0), **options)


@reads("ConvTranspose")
def conv_transpose(g: Reader, x: Item, weight: Item, bias: Item | None = None, *, auto_pad: str = "NOTSET", dilations: Ints | None = None,
                   group: int = 1, kernel_shape: Ints | None = None, output_padding: Ints | None = None, output_shape: Ints | None = None,
                   pads: Ints | None = None, strides: Ints | None = None) -> Value:
    kernel = tuple(fixed(size) for size in g.shape(weight)[2:])
    rank = len(kernel)
    ones, zeros = (1,) * rank, (0,) * rank
    stride, dilation, extra = tuple(strides or ones), tuple(dilations or ones), tuple(output_padding or zeros)
    begin, end = list((pads or zeros * 2)[:rank]), list((pads or zeros * 2)[rank:])
    sizes = g.shape(x)[2:]
    if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        for axis, size in enumerate(sizes):
            if isinstance(size, Expr) and output_shape:
                raise g.refuse("an output shape that is given, of free sizes")
            full = stride[axis] * (size - 1) + extra[axis] + (kernel[axis] - 1) * dilation[axis] + 1
            total = full - (tuple(output_shape)[-rank:][axis] if output_shape else size * stride[axis])
            if isinstance(total, Expr):
                raise g.refuse("auto_pad of a free size")
            if total < 0:
                extra = tuple(item - total if at == axis else item for at, item in enumerate(extra))
                total = 0
            less, more = total // 2, total - total // 2
            begin[axis], end[axis] = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    # Other padding at the end than at the start makes the result longer, or is cut off it.
    uneven = [start - stop for start, stop in zip(begin, end, strict=True)]
    longer = tuple(item + max(by, 0) for item, by in zip(extra, uneven, strict=True))
    found = g.op("convolution_transpose", x, weight, bias, stride=stride, padding=tuple(begin), dilation=dilation, groups=group,
                 output_padding=longer)
    cut = [(axis + 2, by) for axis, by in enumerate(uneven) if by < 0]
    if not cut:
        return found
    return g.op("slice", found, axes=tuple(axis for axis, _ in cut), starts=(0,) * len(cut),
                stops=tuple(found.shape[axis] + by for axis, by in cut))


# Pools ---------------------------------------------------------------------------------------------------------------------


def padded(g: Reader, x: Item | Value, padding: tuple[int, ...], value: float) -> Value:
    half = len(padding) // 2
    return g.op("pad", x, pads=((0, 0), (0, 0), *zip(padding[:half], padding[half:], strict=True)), value=value)


@reads("MaxPool")
def max_pool(g: Reader, x: Item, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Ints | None = None,
             pads: Ints | None = None, strides: Ints | None = None, storage_order: int = 0) -> tuple[Value, ...]:
    ones = (1,) * len(kernel_shape)
    stride, dilation = tuple(strides or ones), tuple(dilations or ones)
    shape = g.shape(x)
    padding = padding_of(g, auto_pad, pads, shape[2:], kernel_shape, stride, dilation)
    wide = any(2 * by > size for by, size in zip(padding, (*kernel_shape, *kernel_shape), strict=True))
    asked = len(g.node.output) > 1 and bool(g.node.output[1])
    value: Item | Value = x
    if wide:
        if asked or ceil_mode:
            raise g.refuse("padding of more than half a window, with places or windows that end past it")
        value, padding = padded(g, x, padding, lowest(g.dtype(x), False)), (0,) * len(padding)
    values, places = g.add("max_pool", value, kernel=tuple(kernel_shape), stride=stride, padding=both_sides(padding), dilation=dilation,
                           ceil_mode=bool(ceil_mode) and auto_pad in ("NOTSET", ""))
    if len(g.node.output) < 2 or not g.node.output[1]:
        return (values,)
    if storage_order:
        places = _column_major(g, places, shape[2:])
    # ONNX counts through the whole tensor.
    plane = product(shape[2:])
    count = g.op("arange", start=0, stop=shape[0] * shape[1], step=1, dtype=DType.INT64)
    start = g.op("multiply", count, g.op("full", shape=(), fill_value=plane, dtype=DType.INT64))
    return values, g.op("add", places, g.op("reshape", start, shape=(shape[0], shape[1], *(1,) * (len(shape) - 2))))


def _column_major(g: Reader, places: Value, sizes: Sequence[Dim]) -> Value:
    """Places h · width + w of an image as w · height + h."""
    if len(sizes) != 2:
        raise g.refuse("places in column-major order of other than images")
    height, width = (g.op("full", shape=(), fill_value=size, dtype=DType.INT64) for size in sizes)
    column, row = g.op("remainder", places, width), g.op("floor_divide", places, width)
    return g.op("add", g.op("multiply", column, height), row)


@reads("AveragePool")
def average_pool(g: Reader, x: Item, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
                 dilations: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None) -> Value:
    ones = (1,) * len(kernel_shape)
    stride, dilation = tuple(strides or ones), tuple(dilations or ones)
    padding = padding_of(g, auto_pad, pads, g.shape(x)[2:], kernel_shape, stride, dilation)
    wide = any(2 * by > size for by, size in zip(padding, (*kernel_shape, *kernel_shape), strict=True))
    if wide or any(item != 1 for item in dilation):
        return _summed_average(g, g.tensor(x), kernel_shape, stride, dilation, padding, bool(ceil_mode), bool(count_include_pad))
    return g.op("avg_pool", x, kernel=tuple(kernel_shape), stride=stride, padding=both_sides(padding),
                ceil_mode=bool(ceil_mode) and auto_pad in ("NOTSET", ""), count_include_pad=bool(count_include_pad))


def _summed_average(g: Reader, x: Value, kernel: Ints, stride: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[int, ...],
                    ceil_mode: bool, count_include_pad: bool) -> Value:
    """Sums of windows, by a convolution of ones channel by channel, over how many elements each has.

    Windows that end past the padding (`ceil_mode`) have no elements there; those that begin there are none.
    """
    half, given = len(kernel), padding
    if ceil_mode:
        if any(isinstance(size, Expr) for size in x.shape[2:]):
            raise g.refuse("an average of dilated windows that end past the padding, of free sizes")
        more = [_past_the_end(fixed(size), kernel[at], stride[at], dilation[at], padding[at], padding[at + half])
                for at, size in enumerate(x.shape[2:])]
        padding = (*padding[:half], *(own + by for own, by in zip(padding[half:], more, strict=True)))
    ones = g.op("full", shape=(1, 1, *kernel), fill_value=1.0, dtype=x.dtype)

    def summed(value: Value, padding: tuple[int, ...] = padding) -> Value:
        batch, channels = value.shape[:2]
        flat = g.op("reshape", value, shape=(batch * channels, 1, *value.shape[2:]))
        found = g.op("convolution", flat, ones, stride=stride, padding=both_sides(padding), dilation=dilation)
        return g.op("reshape", found, shape=(batch, channels, *found.shape[2:]))

    if count_include_pad and padding == given:
        return g.op("divide", summed(x), g.like(prod(kernel), x))
    inside, rest = x, padding
    if count_include_pad:  # of what is padded only the part that was asked for counts
        inside, rest = padded(g, x, given, 0.0), tuple(own - before for own, before in zip(padding, given, strict=True))
    there = g.op("full", shape=(1, 1, *inside.shape[2:]), fill_value=1.0, dtype=x.dtype)
    return g.op("divide", summed(x), summed(there, rest))


def _past_the_end(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """How much longer an axis is where its last window ends past the padding; a window that begins there is none."""
    room = size + before + after - dilation * (kernel - 1) - 1
    count = -(-room // stride)
    if count * stride >= size + before:
        count -= 1
    return max(0, count * stride - room)


def _whole(op: str) -> Callable[..., Value]:
    def read(g: Reader, x: Item) -> Value:
        return g.op(op, x, axis=tuple(range(2, g.rank(x))), keepdims=True)

    return read


reads("GlobalAveragePool")(_whole("mean"))
reads("GlobalMaxPool")(_whole("max"))


@reads("GlobalLpPool")
def global_lp_pool(g: Reader, x: Item, *, p: float = 2) -> Value:
    return g.op("vector_norm", x, axis=tuple(range(2, g.rank(x))), keepdims=True, ord=float(p))


@reads("LpPool")
def lp_pool(g: Reader, x: Item, *, kernel_shape: Ints, p: float = 2, auto_pad: str = "NOTSET", ceil_mode: int = 0,
            dilations: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None) -> Value:
    """(Σ |x|ᵖ)^(1/p) of each window: a mean of powers, padding counted, times the window's size."""
    powers = g.op("abs", x)
    if p == 2:
        powers = g.op("square", powers)
    elif p != 1:
        powers = g.op("power", powers, g.like(p, powers))
    ones = (1,) * len(kernel_shape)
    stride, dilation = tuple(strides or ones), tuple(dilations or ones)
    padding = padding_of(g, auto_pad, pads, g.shape(x)[2:], kernel_shape, stride, dilation)
    wide = any(2 * by > size for by, size in zip(padding, (*kernel_shape, *kernel_shape), strict=True))
    if any(item != 1 for item in dilation) or ceil_mode or wide:
        if ceil_mode:
            raise g.refuse("windows that end past the padding")
        mean = _summed_average(g, powers, kernel_shape, stride, dilation, padding, False, True)
    else:
        mean = g.op("avg_pool", powers, kernel=tuple(kernel_shape), stride=stride, padding=both_sides(padding), count_include_pad=True)
    total = g.op("multiply", mean, g.like(prod(kernel_shape), powers))
    return total if p == 1 else g.op("sqrt", total) if p == 2 else g.op("power", total, g.like(1 / p, total))


@reads("MaxUnpool")
def max_unpool(g: Reader, x: Item, places: Item, output_shape: Item | None = None, *, kernel_shape: Ints, pads: Ints | None = None,
               strides: Ints | None = None) -> Value:
    shape, rank = g.shape(x), len(kernel_shape)
    stride, padding = tuple(strides or (1,) * rank), tuple(pads or (0,) * (2 * rank))
    sizes: list[Dim] = [(size - 1) * stride[at] + kernel_shape[at] - padding[at] - padding[at + rank] for at, size in enumerate(shape[2:])]
    plane = product(sizes)
    own = g.op("remainder", places, g.op("full", shape=(), fill_value=plane, dtype=DType.INT64))
    if output_shape is None:
        return g.op("max_unpool", x, own, size=tuple(sizes))
    wanted = g.sizes(output_shape, "a shape")[2:]
    # The places count in the shape that the kernel and the strides say; more of it is zeros at the end.
    found = g.op("max_unpool", x, own, size=tuple(sizes))
    return g.op("pad", found, pads=((0, 0), (0, 0), *((0, size - own) for own, size in zip(sizes, wanted, strict=True))))


@reads("Col2Im")
def col2im(g: Reader, x: Item, image: Item, block: Item, *, dilations: Ints | None = None, pads: Ints | None = None,
           strides: Ints | None = None) -> Value:
    size, kernel = g.sizes(image, "a shape"), g.integers(block, "a shape")
    if len(kernel) != 2 or pads is not None and tuple(pads[:2]) != tuple(pads[2:]):
        return _added_up(g, g.tensor(x), size, kernel, dilations, pads, strides)
    return g.op("col2im", x, output_size=tuple(size), kernel_size=tuple(kernel), dilation=tuple(dilations or (1, 1)),
                padding=tuple(pads or (0, 0))[:2], stride=tuple(strides or (1, 1)))


MOST_PLACES = 1 << 24
"""Elements of a table of places that is a constant of the graph."""


def _added_up(g: Reader, x: Value, image: Sequence[Dim], kernel: Ints, dilations: Ints | None, pads: Ints | None,
              strides: Ints | None) -> Value:
    """Columns of images of any number of axes, each element added where it belongs; what belongs to the padding is left out."""
    rank = len(kernel)
    dilation, stride, padding = dilations or (1,) * rank, strides or (1,) * rank, tuple(pads or (0,) * (2 * rank))
    if not all(isinstance(size, int) for size in (*image, x.shape[1])):
        raise g.refuse("columns of an image of a free size")
    sizes = [fixed(size) for size in image]
    counts = [(size + padding[at] + padding[at + rank] - dilation[at] * (kernel[at] - 1) - 1) // stride[at] + 1
              for at, size in enumerate(sizes)]
    if prod(counts) * prod(kernel) > MOST_PLACES:
        raise g.refuse(f"more than {MOST_PLACES} places of columns")
    total, inside, flat = prod(sizes), np.array(True), np.array(0)
    for at, size in enumerate(sizes):
        place = np.arange(kernel[at])[:, None] * dilation[at] + np.arange(counts[at]) * stride[at] - padding[at]
        shape = [1] * (2 * rank)
        shape[at], shape[at + rank] = place.shape
        place = place.reshape(shape)
        inside, flat = inside & (place >= 0) & (place < size), flat * size + place
    index = np.where(inside, flat, total).reshape(1, -1).astype(np.int64)
    batch, channels = x.shape[0], fixed(x.shape[1]) // prod(kernel)
    rows = g.op("reshape", x, shape=(batch * channels, index.size))
    empty = g.op("broadcast_to", g.like(0, x), shape=(batch * channels, total + 1))
    found = g.op("scatter", empty, g.op("broadcast_to", g.constant(index), shape=rows.shape), rows, axis=1, reduction="add")
    return g.op("reshape", g.op("slice", found, axes=(1,), starts=(0,), stops=(total,)), shape=(batch, channels, *sizes))
