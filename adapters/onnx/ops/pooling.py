"""Pooling over windows of a fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.nan import with_nan
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.ops.convolution import batched, like_input, pad_spatial, pads_of, window_slice
from adapters.onnx.registry import lowers
from converter.dims import Dim, product
from converter.ir import DType, TensorSpec

NATIVE_MAX = frozenset({DType.FLOAT32, DType.FLOAT16, DType.FLOAT64, DType.INT8, DType.UINT8})
EXACT_IN_FLOAT64 = frozenset({DType.INT16, DType.INT32, DType.UINT16, DType.UINT32})


def _shape(g: Lowering, x: Tensor) -> tuple[Dim, ...]:
    """The neutral output's shape, with a batch axis of 1 where it has none and x does."""
    shape = g.result.shape
    return shape if len(shape) == x.rank else (1, *shape)


def _rounding(g: Lowering, x: Tensor, counts: tuple[Dim, ...], kernel: tuple[int, ...], stride: tuple[int, ...],
              padding: tuple[int, ...], dilation: tuple[int, ...]) -> bool | None:
    """ONNX's `ceil_mode` that gives these counts of windows under `ceil_mode`; None where neither does.

    Before opset 22 ONNX's own shape inference keeps a last window that starts in the padding after.
    """
    pads = pads_of(padding, len(kernel))
    whole, stretched = True, True
    for axis, (size, count, k, s, d) in enumerate(zip(x.shape[2:], counts, kernel, stride, dilation, strict=True)):
        room = size + pads[axis] + pads[axis + len(kernel)] - d * (k - 1) - 1
        whole = whole and count == room // s + 1
        stretched = stretched and (count == (room + s - 1) // s + 1 or g.opset >= 22 or not isinstance(count, int))
    return False if whole else True if stretched else None


@lowers("max_pool")
@through_float32
def max_pool(g: Lowering, x: Tensor, *, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
             dilation: tuple[int, ...], ceil_mode: bool) -> Tensor | tuple[Tensor, ...]:
    axes = len(kernel)
    source, x = x, batched(g, x, axes)
    dtype = x.dtype
    if dtype not in NATIVE_MAX:
        if dtype in EXACT_IN_FLOAT64:
            x = g.cast(x, DType.FLOAT64)
        elif dtype in (DType.INT64, DType.UINT64):
            y, places = _largest(g, x, kernel, stride or kernel, padding, dilation or (1,) * axes)
            return like_input(g, y, source) if places is None else (like_input(g, y, source), like_input(g, places, source))
        else:
            raise g.refuse(f"ONNX Runtime has no {dtype} max pooling")
    shape = _shape(g, x)
    stride, dilation = stride or kernel, dilation or (1,) * axes
    rounding = _rounding(g, x, shape[2:], kernel, stride, padding, dilation) if ceil_mode else False
    if rounding is None:
        before = pads_of(padding, axes)[:axes]
        ends = zip(x.shape[2:], shape[2:], kernel, stride, before, dilation, strict=True)
        after = [max(0, int((count - 1) * s + d * (k - 1) + 1 - size - start)) for size, count, k, s, start, d in ends]
        padding = (*before, *after)
    settings: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(stride), "pads": pads_of(padding, axes) if padding else None,
                "dilations": list(dilation) if set(dilation) != {1} else None, "ceil_mode": 1 if rounding else None}
    keep_padding(g, x)

    def pooled(item: Tensor) -> Sequence[Tensor]:
        specs = [TensorSpec(item.dtype, shape), TensorSpec(DType.INT64, shape)]
        return g.nodes_out("MaxPool", item, specs=specs if g.wants(1) else specs[:1], **settings)

    found, *indices = with_nan(g, x, pooled)
    found = like_input(g, g.cast(found, dtype), source)
    if not indices:
        return found
    # ONNX counts through the whole tensor; the neutral indices through one channel's places.
    return found, like_input(g, g.node("Mod", indices[0], g.size(product(x.shape[2:])), spec=indices[0].spec), source)


def keep_padding(g: Lowering, x: Tensor) -> None:
    """Keeps ONNX Runtime from merging a Pad with zeros into the MaxPool that reads it, which pads with the lowest number
    instead: it leaves alone a Pad that names its axes."""
    for node in reversed(g.nodes):
        if x.name in node.output:
            if node.op_type == "Pad" and len(node.input) < 4:
                axes = g.constant(list(range(x.rank)))
                node.input.extend([*[""] * (3 - len(node.input)), axes.name])
            return


def _largest(g: Lowering, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
             dilation: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """The maximum of shifted slices, axis by axis, the last axis first; and its place in the channel where that is wanted.

    What is padded counts for less than any number, and of equal numbers the first one in the window is named.
    """
    counts, axes = _shape(g, x)[2:], len(kernel)
    sizes, before = x.shape[2:], pads_of(padding, axes)[:axes]
    # A last window that `ceil_mode` lets stick out ends in more padding.
    after = [(count - 1) * s + d * (k - 1) + 1 - size - start for count, s, d, k, size, start in zip(
        counts, stride, dilation, kernel, sizes, before, strict=True)]
    places: Tensor | None = None
    if g.wants(1):
        count = product(sizes)
        places = g.node("Range", g.constant(0), g.scalar_size(count), g.constant(1), spec=TensorSpec(DType.INT64, (count,)))
        places = g.node("Expand", g.reshape(places, (1, 1, *sizes)), g.sizes(x.shape), spec=TensorSpec(DType.INT64, x.shape))
        places = _bordered(g, places, before, after, -1)
    x = _bordered(g, x, before, after, int(np.iinfo(x.dtype.numpy).min))
    for axis in reversed(range(axes)):
        k, s, d = kernel[axis], stride[axis], dilation[axis]
        taps = [window_slice(g, x, position, axis + 2, k, s, d, counts[axis]) for position in range(k)]
        if places is None:
            x = taps[0] if k == 1 else g.node("Max", *taps, spec=taps[0].spec)
            continue
        named = [window_slice(g, places, position, axis + 2, k, s, d, counts[axis]) for position in range(k)]
        x, places = taps[0], named[0]
        for tap, name in zip(taps[1:], named[1:], strict=True):
            flag = TensorSpec(DType.BOOL, tap.shape)
            better = g.node("Or", g.node("Greater", tap, x, spec=flag), g.node("Less", places, g.constant(0), spec=flag), spec=flag)
            x = g.node("Where", better, tap, x, spec=tap.spec)
            places = g.node("Where", better, name, places, spec=name.spec)
    return x, places


def _bordered(g: Lowering, x: Tensor, before: Sequence[int], after: Sequence[Dim], value: int) -> Tensor:
    """`x` with its spatial axes padded. A negative number cuts off what no window reaches."""
    if all(size == 0 for size in (*before, *after)):
        return x
    spatial = tuple(start + size + end for start, size, end in zip(before, x.shape[2:], after, strict=True))
    spec = TensorSpec(x.dtype, (*x.shape[:2], *spatial))
    return g.node("Pad", x, g.sizes([0, 0, *before, 0, 0, *after]), g.constant(value, x.dtype), spec=spec, mode="constant")


@lowers("avg_pool")
@through_float32
def avg_pool(g: Lowering, x: Tensor, *, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
             ceil_mode: bool, count_include_pad: bool, divisor_override: int | None) -> Tensor:
    axes = len(kernel)
    stride = stride or kernel
    source, x = x, batched(g, x, axes)
    shape = _shape(g, x)
    spec = TensorSpec(x.dtype, shape)
    whole = int(np.prod(kernel))
    rounding = _rounding(g, x, shape[2:], kernel, stride, padding, (1,) * axes) if ceil_mode else False
    if x.dtype is DType.FLOAT64 or rounding is None or rounding and divisor_override is not None:
        total = _total(g, x, kernel, stride, padding, shape[2:])
        if divisor_override is not None:
            return like_input(g, g.node("Div", total, g.constant(float(divisor_override), x.dtype), spec=spec), source)
        if not ceil_mode and (count_include_pad or not padding):
            return like_input(g, g.node("Div", total, g.constant(float(whole), x.dtype), spec=spec), source)
        return like_input(g, g.node("Div", total, _lengths(g, x, kernel, stride, padding, shape[2:], count_include_pad), spec=spec), source)
    y = g.node("AveragePool", x, spec=spec, kernel_shape=list(kernel), strides=list(stride),
               pads=pads_of(padding, axes) if padding else None, ceil_mode=1 if rounding else None,
               count_include_pad=1 if padding and (count_include_pad or divisor_override is not None) else None)
    if divisor_override is not None:
        y = g.node("Mul", y, g.constant(whole / divisor_override, x.dtype), spec=spec)
    return like_input(g, y, source)


def _total(g: Lowering, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
           counts: tuple[Dim, ...]) -> Tensor:
    """The sums of windows: shifted slices added up, axis by axis."""
    pads = pads_of(padding, len(kernel))
    for axis, (k, s, count) in enumerate(zip(kernel, stride, counts, strict=True)):
        # A last window that `ceil_mode` lets stick out ends in more zeros.
        before, size = pads[axis], x.shape[axis + 2]
        extra = (count - 1) * s + k - size - before
        if extra != 0 or before:
            # Negative padding cuts off what no window reaches.
            spatial = TensorSpec(x.dtype, (*x.shape[:axis + 2], size + before + extra, *x.shape[axis + 3:]))
            widths = g.sizes([0] * (axis + 2) + [before] + [0] * (x.rank - 1) + [extra] + [0] * (x.rank - axis - 3))
            x = g.node("Pad", x, widths, g.constant(0.0, x.dtype), spec=spatial, mode="constant")
        taps = [window_slice(g, x, position, axis + 2, k, s, 1, count) for position in range(k)]
        x = taps[0] if k == 1 else g.node("Sum", *taps, spec=taps[0].spec)
    return x


def _lengths(g: Lowering, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
             counts: tuple[Dim, ...], include_pad: bool) -> Tensor:
    """How many elements each window holds, [1, 1, *counts]: the pooled sum of ones."""
    sizes = x.shape[2:]
    axes = len(kernel)
    pads = pads_of(padding, axes)
    ones = g.node("Expand", g.constant(1.0, x.dtype), g.sizes([1, 1, *sizes]), spec=TensorSpec(x.dtype, (1, 1, *sizes)))
    if include_pad and any(pads):
        ones = pad_spatial(g, ones, pads, 1.0)
        return _total(g, ones, kernel, stride, (), counts)
    return _total(g, ones, kernel, stride, padding, counts)


@lowers("max_unpool")
@through_float32
def max_unpool(g: Lowering, x: Tensor, indices: Tensor, *, size: tuple[Dim, ...]) -> Tensor:
    lead = x.shape[:-len(size)]
    places = product(size)
    zeros = g.node("Expand", g.constant(0, x.dtype), g.sizes([*lead, places]), spec=TensorSpec(x.dtype, (*lead, places)))
    flat = (*lead, product(x.shape[len(lead):]))
    y = g.node("ScatterElements", zeros, g.reshape(indices, flat), g.reshape(x, flat), spec=zeros.spec, axis=len(lead))
    return g.reshape(y, (*lead, *size))
