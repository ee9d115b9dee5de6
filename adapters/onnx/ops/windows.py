"""Sliding windows and blocks of images."""

from __future__ import annotations

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.manipulation import arange, cut, expand, unsqueeze, zeros
from adapters.onnx.registry import lowers
from converter.dims import Dim, Expr, product
from converter.ir import DType, TensorSpec
from converter.ops.windows import blocks

Pair = tuple[int, int]


def grid(g: Lowering, size: int, dilation: int, count: Dim, stride: int) -> Tensor:
    """Where window j has its element i, i * dilation + j * stride: int64 [size, count]."""
    column = np.arange(size)[:, np.newaxis] * dilation
    if not isinstance(count, Expr):
        return g.constant(column + np.arange(count) * stride)
    starts = arange(g, 0, count * stride, stride, count)
    return g.node("Add", g.constant(column), starts, spec=TensorSpec(DType.INT64, (size, count)))


@lowers("unfold")
def unfold(g: Lowering, x: Tensor, *, axis: int, size: int, step: int) -> Tensor:
    place = axis % x.rank
    count = (x.shape[place] - size) // step + 1
    spec = TensorSpec(x.dtype, (*x.shape[:place], size, count, *x.shape[place + 1:]))
    windows = g.node("Gather", x, grid(g, size, 1, count, step), spec=spec, axis=place)
    return g.transpose(windows, [*(other for other in range(x.rank + 1) if other != place), place])


@lowers("im2col")
def im2col(g: Lowering, x: Tensor, *, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Tensor:
    height = x.rank - 2
    counts = [blocks(size, *window) for size, window in
              zip(x.shape[-2:], zip(kernel_size, dilation, padding, stride, strict=True), strict=True)]
    if any(padding):
        spec = TensorSpec(x.dtype, (*x.shape[:-2], x.shape[-2] + 2 * padding[0], x.shape[-1] + 2 * padding[1]))
        zeros = [0] * (x.rank - 2)
        # Amounts for every axis: ONNX Runtime moves transposes past a Pad as though it named none.
        x = g.node("Pad", x, g.constant([*zeros, *padding, *zeros, *padding]), spec=spec)
    lead = x.shape[:-2]
    rows = g.node("Gather", x, grid(g, kernel_size[0], dilation[0], counts[0], stride[0]), axis=height,
                  spec=TensorSpec(x.dtype, (*lead, kernel_size[0], counts[0], x.shape[-1])))
    both = g.node("Gather", rows, grid(g, kernel_size[1], dilation[1], counts[1], stride[1]), axis=rows.rank - 1,
                  spec=TensorSpec(x.dtype, (*lead, kernel_size[0], counts[0], kernel_size[1], counts[1])))
    last = both.rank
    y = g.transpose(both, [*range(last - 4), last - 4, last - 2, last - 3, last - 1])
    return g.reshape(y, (*lead[:-1], lead[-1] * kernel_size[0] * kernel_size[1], counts[0] * counts[1]))


@lowers("col2im")
def col2im(g: Lowering, x: Tensor, *, output_size: tuple[Dim, Dim], kernel_size: Pair, dilation: Pair, padding: Pair,
           stride: Pair) -> Tensor:
    # ONNX Runtime has Col2Im for float32 alone.
    inner = DType.FLOAT32 if x.dtype in (DType.FLOAT16, DType.BFLOAT16) else x.dtype
    batch = g.cast(x if x.rank == 3 else unsqueeze(g, x, [0]), inner)
    shape = (batch.shape[0], x.shape[-2] // (kernel_size[0] * kernel_size[1]), *output_size)
    if inner is DType.FLOAT32:
        y = g.node("Col2Im", batch, g.sizes(output_size), g.constant(list(kernel_size)), spec=TensorSpec(inner, shape),
                   dilations=list(dilation), pads=[*padding, *padding], strides=list(stride))
    else:
        y = _added(g, batch, shape, kernel_size, dilation, padding, stride)
    y = g.cast(y, x.dtype)
    return y if x.rank == 3 else g.node("Squeeze", y, g.constant([0]))


def _added(g: Lowering, x: Tensor, shape: tuple[Dim, ...], kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Tensor:
    """Columns added up in the flattened, padded image."""
    height, width = shape[2] + 2 * padding[0], shape[3] + 2 * padding[1]
    counts = [blocks(size, *window) for size, window in
              zip(shape[2:], zip(kernel_size, dilation, padding, stride, strict=True), strict=True)]
    rows = unsqueeze(g, grid(g, kernel_size[0], dilation[0], counts[0], stride[0]), [1, 3])
    columns = unsqueeze(g, grid(g, kernel_size[1], dilation[1], counts[1], stride[1]), [0, 2])
    below = g.node("Mul", rows, g.scalar_size(width), spec=rows.spec)
    places = g.node("Add", below, columns, spec=TensorSpec(DType.INT64, (*kernel_size, *counts)))
    total = product((*kernel_size, *counts))
    flat = (*shape[:2], total)
    index = expand(g, g.reshape(places, (1, 1, total)), flat)
    image = TensorSpec(x.dtype, (*shape[:2], height * width))
    y = g.node("ScatterElements", zeros(g, image.shape, x.dtype), index, g.reshape(x, flat), spec=image, axis=2, reduction="add")
    y = g.reshape(y, (*shape[:2], height, width))
    return cut(g, y, [2, 3], padding, [padding[0] + shape[2], padding[1] + shape[3]], spec=TensorSpec(x.dtype, shape))


def _blocks(g: Lowering, x: Tensor, apart: tuple[Dim, ...], axes: tuple[int, ...], joined: tuple[Dim, ...]) -> Tensor:
    """The last three axes split, reordered and joined."""
    lead = x.shape[:-3]
    parts = g.reshape(x, (*lead, *apart))
    moved = g.transpose(parts, [*range(len(lead)), *(len(lead) + axis for axis in axes)])
    return g.reshape(moved, (*lead, *joined))


@lowers("pixel_shuffle")
def pixel_shuffle(g: Lowering, x: Tensor, *, factor: int) -> Tensor:
    channels, height, width = x.shape[-3:]
    inner = channels // (factor * factor)
    joined = (inner, height * factor, width * factor)
    if x.rank == 4 and x.dtype in (DType.FLOAT32, DType.FLOAT64):
        return g.node("DepthToSpace", x, blocksize=factor, mode="CRD")
    return _blocks(g, x, (inner, factor, factor, height, width), (0, 3, 1, 4, 2), joined)


@lowers("pixel_unshuffle")
def pixel_unshuffle(g: Lowering, x: Tensor, *, factor: int) -> Tensor:
    channels, height, width = x.shape[-3:]
    joined = (channels * factor * factor, height // factor, width // factor)
    if x.rank == 4 and channels == 1 and x.dtype in (DType.FLOAT32, DType.FLOAT64):
        return g.node("SpaceToDepth", x, blocksize=factor)
    return _blocks(g, x, (channels, height // factor, factor, width // factor, factor), (0, 2, 4, 1, 3), joined)


@lowers("channel_shuffle")
def channel_shuffle(g: Lowering, x: Tensor, *, groups: int) -> Tensor:
    channels = x.shape[1]
    if isinstance(channels, int):
        return g.node("Gather", x, g.constant(np.arange(channels).reshape(groups, -1).T.ravel()), axis=1)
    apart = g.reshape(x, (x.shape[0], groups, channels // groups, *x.shape[2:]))
    return g.reshape(g.transpose(apart, (0, 2, 1, *range(3, apart.rank))), x.shape)
