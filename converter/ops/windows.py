"""Sliding windows and blocks of images: unfold, fold, pixel shuffles."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from converter.dims import Dim, product
from converter.facts import Facts, moves
from converter.formulas import Space, Term, counted, dtype_of, nothing, widened
from converter.ir import Array, TensorSpec
from converter.ops._rules import Size, axis_of, require, require_rank, require_size
from converter.opset import op

Pair = tuple[int, int]


def _unfold(x: TensorSpec, axis: int, size: int, step: int) -> TensorSpec:
    place = axis_of(axis, x.rank)
    require(size >= 0 and step >= 1, "wrong size or step of a window", expected="a size of 0 and up, a step of 1 and up",
            received=f"{size}, {step}")
    length = x.shape[place]
    require(not isinstance(length, int) or size <= length, "a window wider than its axis", expected=f"at most {length}", received=size)
    return TensorSpec(x.dtype, (*x.shape[:place], (length - size) // step + 1, *x.shape[place + 1:], size))


def _windows(f: Space, x: Term, axis: int, count: Dim, size: int, step: int, dilation: int = 1) -> Term:
    """The axis as two: windows, and their elements."""
    return f.take(x, counted(f, count, 0, 2) * step + counted(f, size, 1, 2) * dilation, axis=axis)


def _unfolded(f: Space, x: Term, *, axis: int, size: int, step: int) -> Term:
    place = axis % x.ndim
    windows = _windows(f, x, place, (x.shape[place] - size) // step + 1, size, step)
    return f.permute_dims(windows, axes=(*(other for other in range(x.ndim + 1) if other != place + 1), place + 1))


@op(infer=_unfold, formula=_unfolded, facts=moves(0))
def unfold(x: Array, *, axis: int, size: int, step: int) -> Array:
    """Windows of `size` elements, `step` apart, along `axis`: torch.Tensor.unfold.

    The axis becomes the number of windows, (n - size) // step + 1; a new last axis holds each window's elements.
    """
    place = axis % x.ndim
    if size == 0:
        return np.zeros((*x.shape[:place], x.shape[place] // step + 1, *x.shape[place + 1:], 0), x.dtype)
    return sliding_window_view(x, size, place)[(*(slice(None),) * place, slice(None, None, step))]


def blocks(size: Dim, kernel: int, dilation: int, padding: int, stride: int) -> Dim:
    """How many windows fit an axis, after torch.nn.Unfold: (n + 2 padding - dilation (kernel - 1) - 1) // stride + 1."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _check_window(kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> None:
    require(min(*kernel_size, *dilation, *stride) >= 1 and min(padding) >= 0, "wrong window",
            expected="sizes, dilations and strides of 1 and up, paddings of 0 and up",
            received=f"{kernel_size}, {dilation}, {stride}, {padding}")


def _im2col(x: TensorSpec, kernel_size: Pair, dilation: Pair = (1, 1), padding: Pair = (0, 0), stride: Pair = (1, 1)) -> TensorSpec:
    require_rank(x, 3, 4)
    _check_window(kernel_size, dilation, padding, stride)
    counts = [blocks(size, *window) for size, window in
              zip(x.shape[-2:], zip(kernel_size, dilation, padding, stride, strict=True), strict=True)]
    require(not any(isinstance(count, int) and count < 1 for count in counts), "a window larger than the image", received=x)
    return TensorSpec(x.dtype, (*x.shape[:-3], x.shape[-3] * kernel_size[0] * kernel_size[1], counts[0] * counts[1]))


def _columns(f: Space, x: Term, *, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Term:
    *lead, channels, height, width = x.shape
    rank = len(lead)
    counts = [blocks(*item) for item in zip((height, width), kernel_size, dilation, padding, stride, strict=True)]
    x = f.pad(x, pads=(*((0, 0),) * (rank + 1), *((edge, edge) for edge in padding)), value=nothing(x))
    for axis in (0, 1):
        x = _windows(f, x, rank + 1 + 2 * axis, counts[axis], kernel_size[axis], stride[axis], dilation[axis])
    x = f.permute_dims(x, axes=(*range(rank + 1), rank + 2, rank + 4, rank + 1, rank + 3))
    return f.reshape(x, shape=(*lead, channels * kernel_size[0] * kernel_size[1], counts[0] * counts[1]))


@op(infer=_im2col, formula=_columns, facts=moves(0, fills=True))
def im2col(x: Array, *, kernel_size: Pair, dilation: Pair = (1, 1), padding: Pair = (0, 0), stride: Pair = (1, 1)) -> Array:
    """The windows of an image as columns: torch.nn.functional.unfold.

    x: [..., C, H, W], with one leading axis or none. y: [..., C * kernel height * kernel width, number of windows].
    The border of `padding` elements holds zeros.
    """
    height, width = kernel_size
    x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(edge, edge) for edge in padding])
    windows = sliding_window_view(x, [dilation[0] * (height - 1) + 1, dilation[1] * (width - 1) + 1], (-2, -1))
    windows = windows[..., ::stride[0], ::stride[1], ::dilation[0], ::dilation[1]]
    y = np.moveaxis(windows, (-2, -1), (-4, -3))
    return y.reshape(*x.shape[:-3], x.shape[-3] * height * width, y.shape[-2] * y.shape[-1])


def _col2im(x: TensorSpec, output_size: tuple[Dim, Dim], kernel_size: Pair, dilation: Pair = (1, 1), padding: Pair = (0, 0),
            stride: Pair = (1, 1)) -> TensorSpec:
    require_rank(x, 2, 3)
    _check_window(kernel_size, dilation, padding, stride)
    counts = [blocks(size, *window) for size, window in
              zip(output_size, zip(kernel_size, dilation, padding, stride, strict=True), strict=True)]
    require_size(x.shape[-1], counts[0] * counts[1], "the last axis of the input")
    area = kernel_size[0] * kernel_size[1]
    require_size(x.shape[-2] % area, 0, "the remainder of the columns over the window")
    return TensorSpec(x.dtype, (*x.shape[:-2], x.shape[-2] // area, *output_size))


@widened
def _image(f: Space, x: Term, *, output_size: tuple[Dim, Dim], kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Term:
    """Every element added to the flattened, bordered image where it belongs."""
    counts = [blocks(*item) for item in zip(output_size, kernel_size, dilation, padding, stride, strict=True)]
    height, width = (size + 2 * edge for size, edge in zip(output_size, padding, strict=True))
    rows, columns = (counted(f, kernel_size[axis], axis, 4) * dilation[axis] + counted(f, counts[axis], 2 + axis, 4) * stride[axis]
                     for axis in (0, 1))
    lead, total = (*x.shape[:-2], x.shape[-2] // (kernel_size[0] * kernel_size[1])), product((*kernel_size, *counts))
    places = f.broadcast_to(f.reshape(rows * width + columns, shape=(*[1] * len(lead), total)), shape=(*lead, total))
    image = f.full(shape=(*lead, height * width), fill_value=nothing(x), dtype=dtype_of(x))
    image = f.scatter(image, places, f.reshape(x, shape=(*lead, total)), axis=-1, reduction="add")
    return f.slice(f.reshape(image, shape=(*lead, height, width)), axes=(-2, -1), starts=padding,
                   stops=tuple(size + edge for size, edge in zip(output_size, padding, strict=True)))


@op(infer=_col2im, formula=_image, facts=Facts(linear=(0,)))
def col2im(x: Array, *, output_size: tuple[Size, Size], kernel_size: Pair, dilation: Pair = (1, 1), padding: Pair = (0, 0),
           stride: Pair = (1, 1)) -> Array:
    """Columns added up into an image: torch.nn.functional.fold.

    x: [..., C * kernel height * kernel width, number of windows]. y: [..., C, *output_size]. Where windows overlap
    their values are added; what falls on the border of `padding` elements is dropped.
    """
    counts = [blocks(size, *window) for size, window in
              zip(output_size, zip(kernel_size, dilation, padding, stride, strict=True), strict=True)]
    lead, channels = x.shape[:-2], x.shape[-2] // (kernel_size[0] * kernel_size[1])
    wide = x.dtype if x.dtype.itemsize > 2 else np.dtype(np.float32)
    columns = x.reshape(*lead, channels, *kernel_size, *counts).astype(wide)  # type: ignore[arg-type]
    image = np.zeros((*lead, channels, output_size[0] + 2 * padding[0], output_size[1] + 2 * padding[1]), wide)
    for row in range(kernel_size[0]):
        for column in range(kernel_size[1]):
            top, left = row * dilation[0], column * dilation[1]
            image[..., top:top + stride[0] * counts[0]:stride[0], left:left + stride[1] * counts[1]:stride[1]] += (
                columns[..., row, column, :, :])
    image = image[..., padding[0]:padding[0] + output_size[0], padding[1]:padding[1] + output_size[1]]
    return image.astype(x.dtype)


def _pixel_shuffle(x: TensorSpec, factor: int) -> TensorSpec:
    require(x.rank >= 3 and factor >= 1, "wrong number of axes or factor", expected="[..., C, H, W] and 1 and up",
            received=f"{x}, {factor}")
    channels, height, width = x.shape[-3:]
    require_size(channels % (factor * factor), 0, "the remainder of the channels over factor squared")
    return TensorSpec(x.dtype, (*x.shape[:-3], channels // (factor * factor), height * factor, width * factor))


@op(infer=_pixel_shuffle, facts=moves(0, whole=True, finite=True))
def pixel_shuffle(f: Space, x: Term, *, factor: int) -> Term:
    """[..., C * factor², H, W] to [..., C, H * factor, W * factor]: torch.nn.functional.pixel_shuffle."""
    *lead, channels, height, width = x.shape
    rank, inner = len(lead), channels // (factor * factor)
    y = f.reshape(x, shape=(*lead, inner, factor, factor, height, width))
    y = f.permute_dims(y, axes=(*range(rank + 1), rank + 3, rank + 1, rank + 4, rank + 2))
    return f.reshape(y, shape=(*lead, inner, height * factor, width * factor))


def _pixel_unshuffle(x: TensorSpec, factor: int) -> TensorSpec:
    require(x.rank >= 3 and factor >= 1, "wrong number of axes or factor", expected="[..., C, H, W] and 1 and up",
            received=f"{x}, {factor}")
    channels, height, width = x.shape[-3:]
    require_size(height % factor, 0, "the remainder of the height over the factor")
    require_size(width % factor, 0, "the remainder of the width over the factor")
    return TensorSpec(x.dtype, (*x.shape[:-3], channels * factor * factor, height // factor, width // factor))


@op(infer=_pixel_unshuffle, facts=moves(0, whole=True))
def pixel_unshuffle(f: Space, x: Term, *, factor: int) -> Term:
    """[..., C, H * factor, W * factor] to [..., C * factor², H, W]: torch.nn.functional.pixel_unshuffle."""
    *lead, channels, height, width = x.shape
    rank = len(lead)
    y = f.reshape(x, shape=(*lead, channels, height // factor, factor, width // factor, factor))
    y = f.permute_dims(y, axes=(*range(rank + 1), rank + 2, rank + 4, rank + 1, rank + 3))
    return f.reshape(y, shape=(*lead, channels * factor * factor, height // factor, width // factor))


def _channel_shuffle(x: TensorSpec, groups: int) -> TensorSpec:
    require(x.rank >= 3 and groups >= 1, "wrong number of axes or groups", expected="[N, C, ...] and 1 and up", received=f"{x}, {groups}")
    require_size(x.shape[1] % groups, 0, "the remainder of the channels over the groups")
    return x


@op(infer=_channel_shuffle, facts=moves(0, whole=True, finite=True))
def channel_shuffle(f: Space, x: Term, *, groups: int) -> Term:
    """[N, groups * k, ...] with channel g * k + i moved to i * groups + g: torch.nn.functional.channel_shuffle."""
    y = f.reshape(x, shape=(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    return f.reshape(f.permute_dims(y, axes=(0, 2, 1, *range(3, y.ndim))), shape=x.shape)
