"""Convolutions and their transposes."""

from __future__ import annotations

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.registry import lowers
from converter.dims import Dim, fixed, product
from converter.ir import DType, TensorSpec

# ONNX Runtime convolves these (float16 through float32); others go through matrix products.
NATIVE = frozenset({DType.FLOAT32, DType.FLOAT16})


def batched(g: Lowering, x: Tensor, axes: int) -> Tensor:
    """x with a batch axis of 1 in front where it has none."""
    if x.rank == axes + 2:
        return x
    return g.node("Unsqueeze", x, g.constant([0]), spec=TensorSpec(x.dtype, (1, *x.shape)))


def like_input(g: Lowering, y: Tensor, x: Tensor) -> Tensor:
    """y without its batch axis where x has none."""
    return y if y.rank == x.rank else g.node("Squeeze", y, g.constant([0]), spec=TensorSpec(y.dtype, y.shape[1:]))


def pads_of(padding: tuple[int, ...], axes: int) -> list[int]:
    """ONNX's pads: those before each axis, then those after each."""
    padding = padding or (0,) * axes
    return list(padding[:axes] + padding[-axes:])


def pad_spatial(g: Lowering, x: Tensor, pads: list[int], fill: float | int = 0) -> Tensor:
    """x [batch, channels, *spatial] with constant padding; negative pads cut off."""
    if not any(pads):
        return x
    axes = len(pads) // 2
    spatial = tuple(size + before + after for size, before, after in zip(x.shape[2:], pads[:axes], pads[axes:], strict=True))
    return g.node("Pad", x, g.constant([0, 0, *pads[:axes], 0, 0, *pads[axes:]]), g.constant(fill, x.dtype),
                  spec=TensorSpec(x.dtype, x.shape[:2] + spatial), mode="constant")


def window_slice(g: Lowering, x: Tensor, position: int, axis: int, kernel: int, stride: int, dilation: int, count: Dim) -> Tensor:
    """What every window has at `position` of its `kernel` elements along an axis of a padded tensor."""
    end = position * dilation - dilation * (kernel - 1)
    if kernel == 1 and stride == 1:
        return x
    spec = TensorSpec(x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1:]))
    return g.node("Slice", x, g.constant([position * dilation]), g.constant([end or np.iinfo(np.int64).max]), g.constant([axis]),
                  g.constant([stride]), spec=spec)


def _columns(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[Dim, ...], stride: tuple[int, ...],
             dilation: tuple[int, ...], groups: int) -> Tensor:
    """The convolution of a padded x as one matrix product over slices laid beside each other."""
    kernel = tuple(fixed(size) for size in weight.shape[2:])
    outgoing, per_group = fixed(weight.shape[0]), fixed(weight.shape[1])
    places = product(shape[2:])
    taps = [x]
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        taps = [window_slice(g, tap, position, axis + 2, k, s, d, shape[axis + 2]) for tap in taps for position in range(k)]
    taps = [g.reshape(tap, (x.shape[0], groups, per_group, places)) for tap in taps]
    wide = per_group * len(taps)
    columns = taps[0] if len(taps) == 1 else g.node("Concat", *taps, axis=2, spec=TensorSpec(x.dtype, (x.shape[0], groups, wide, places)))
    matrix = g.reshape(weight, (groups, outgoing // groups, per_group, len(taps)))
    matrix = g.reshape(g.transpose(matrix, (0, 1, 3, 2)), (groups, outgoing // groups, wide))
    y = g.node("MatMul", matrix, columns, spec=TensorSpec(x.dtype, (x.shape[0], groups, outgoing // groups, places)))
    y = g.reshape(y, shape)
    if bias is None:
        return y
    return g.node("Add", y, g.reshape(bias, (outgoing, *[1] * len(kernel))), spec=y.spec)


def _output(g: Lowering, batch: Dim, x: Tensor) -> tuple[Dim, ...]:
    """The shape of the neutral node's output with a batch axis."""
    shape = g.result.shape
    return shape if len(shape) == x.rank else (batch, *shape)


@lowers("convolution")
@through_float32
def convolution(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: tuple[int, ...], padding: tuple[int, ...],
                dilation: tuple[int, ...], groups: int) -> Tensor:
    axes = weight.rank - 2
    source, x = x, batched(g, x, axes)
    spec = TensorSpec(x.dtype, _output(g, x.shape[0], x))
    if x.dtype not in NATIVE:
        padded = pad_spatial(g, x, pads_of(padding, axes))
        y = _columns(g, padded, weight, bias, spec.shape, stride or (1,) * axes, dilation or (1,) * axes, groups)
        return like_input(g, y, source)
    y = g.node("Conv", x, weight, bias, spec=spec, kernel_shape=[fixed(size) for size in weight.shape[2:]],
               strides=list(stride) or None, pads=pads_of(padding, axes) if padding else None, dilations=list(dilation) or None,
               group=groups if groups > 1 else None)
    return like_input(g, y, source)


@lowers("convolution_transpose")
@through_float32
def convolution_transpose(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: tuple[int, ...],
                          padding: tuple[int, ...], output_padding: tuple[int, ...], dilation: tuple[int, ...], groups: int) -> Tensor:
    axes = weight.rank - 2
    source, x = x, batched(g, x, axes)
    spec = TensorSpec(x.dtype, _output(g, x.shape[0], x))
    # ONNX Runtime takes no output padding that reaches the stride, as a dilation allows.
    reaching = any(extra >= s for extra, s in zip(output_padding, stride or (1,) * axes, strict=False))
    if x.dtype not in NATIVE or reaching:
        y = _transposed(g, x, weight, bias, spec.shape, stride or (1,) * axes, padding or (0,) * axes, output_padding or (0,) * axes,
                        dilation or (1,) * axes, groups)
        return like_input(g, y, source)
    y = g.node("ConvTranspose", x, weight, bias, spec=spec, kernel_shape=[fixed(size) for size in weight.shape[2:]],
               strides=list(stride) or None, pads=pads_of(padding, axes) if padding else None,
               output_padding=list(output_padding) or None, dilations=list(dilation) or None, group=groups if groups > 1 else None)
    return like_input(g, y, source)


def _transposed(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[Dim, ...], stride: tuple[int, ...],
                padding: tuple[int, ...], output_padding: tuple[int, ...], dilation: tuple[int, ...], groups: int) -> Tensor:
    """A plain convolution, with the kernel turned round, of x with stride - 1 zeros after each element."""
    axes = len(stride)
    kernel = tuple(fixed(size) for size in weight.shape[2:])
    if any(s > 1 for s in stride):
        apart = tuple(item for size in x.shape[2:] for item in (size, 1))
        spread = tuple(item for size, s in zip(x.shape[2:], stride, strict=True) for item in (size, s))
        x = g.reshape(x, (*x.shape[:2], *apart))
        after = [item for s in stride for item in (0, s - 1)]
        x = g.node("Pad", x, g.constant([0] * (2 + 2 * axes) + [0, 0, *after]), g.constant(0, x.dtype), mode="constant",
                   spec=TensorSpec(x.dtype, (*x.shape[:2], *spread)))
        x = g.reshape(x, (*x.shape[:2], *(size * s for size, s in zip(spread[::2], stride, strict=True))))
    before = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    after = [b + extra - (s - 1) for b, extra, s in zip(before, output_padding, stride, strict=True)]
    padded = pad_spatial(g, x, before + after)
    incoming, per_group = fixed(weight.shape[0]), fixed(weight.shape[1])
    limit = np.iinfo(np.int64)
    turned = weight if all(k == 1 for k in kernel) else g.node(
        "Slice", weight, g.constant([limit.max] * axes), g.constant([limit.min] * axes), g.constant(list(range(2, 2 + axes))),
        g.constant([-1] * axes), spec=weight.spec)
    turned = g.reshape(turned, (groups, incoming // groups, per_group, *kernel))
    turned = g.transpose(turned, (0, 2, 1, *range(3, 3 + axes)))
    turned = g.reshape(turned, (groups * per_group, incoming // groups, *kernel))
    return _columns(g, padded, turned, bias, shape, (1,) * axes, dilation, groups)
