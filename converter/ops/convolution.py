"""Convolutions over one, two or three spatial axes, and their transposes."""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.dims import Dim
from converter.facts import Facts
from converter.formulas import Space, Term
from converter.ir import Array, TensorSpec
from converter.ops._rules import require, require_rank, require_size, same_dtype
from converter.ops._spatial import (
    filled,
    kernel_positions,
    padded_for_windows,
    padding_pairs,
    spatial_rank,
    taps,
    wide,
    window_count,
    window_counts,
)
from converter.opset import op


def _kernel_sizes(weight: TensorSpec) -> tuple[int, ...]:
    require_rank(weight, 3, 4, 5, what="the weight")
    sizes = tuple(size for size in weight.shape[2:] if isinstance(size, int))
    require(len(sizes) == weight.rank - 2, "the kernel's size is not fixed", expected="integers", received=weight)
    return sizes


def _channels(x: TensorSpec, weight: TensorSpec, bias: TensorSpec | None, groups: int, incoming: Dim, outgoing: Dim) -> None:
    require(groups >= 1, "'groups' out of range", expected="1 or more", received=groups)
    require_size(x.shape[-(weight.rank - 1)], incoming, "the channels")
    require(not isinstance(weight.shape[0], int) or weight.shape[0] % groups == 0, "the weight does not divide into groups",
            expected=f"a first axis divisible by {groups}", received=weight)
    if bias is not None:
        require_rank(bias, 1, what="the bias")
        require_size(bias.shape[0], outgoing, "the bias")


def _convolution(x: TensorSpec, weight: TensorSpec, bias: TensorSpec | None, *, stride: tuple[int, ...] = (),
                 padding: tuple[int, ...] = (), dilation: tuple[int, ...] = (), groups: int = 1) -> TensorSpec:
    kernel = _kernel_sizes(weight)
    axes = len(kernel)
    spatial_rank(x, axes)
    stride, dilation = filled(stride, axes, 1, "stride", 1), filled(dilation, axes, 1, "dilation", 1)
    pads = padding_pairs(padding, axes)
    _channels(x, weight, bias, groups, weight.shape[1] * groups, weight.shape[0])
    sizes = tuple(window_count(*item) for item in zip(x.shape[-axes:], kernel, stride, pads, dilation, strict=True))
    return TensorSpec(same_dtype(x, weight, bias), (*x.shape[:-axes - 1], weight.shape[0], *sizes))


@op(infer=_convolution, facts=Facts(finite=True, layer=True))
def convolution(x: Array, weight: Array, bias: Array | None = None, *, stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
                dilation: tuple[int, ...] = (), groups: int = 1) -> Array:
    """Cross-correlation: torch.nn.functional.conv1d, conv2d, conv3d.

    y[n, o, p] = bias[o] + Σ over c, k of weight[o, c, k] · x[n, group(o)·C + c, p·stride + k·dilation - padding],
    where x is zero outside itself and C = in / groups.

    x: [batch, in, *spatial] or [in, *spatial]; weight: [out, in / groups, *kernel]; bias: [out].
    y: [batch?, out, *(size + padding before and after - dilation·(kernel - 1) - 1) // stride + 1].
    `stride` and `dilation`: one integer per spatial axis, empty for ones. `padding`: zeros on both sides, one integer
    per spatial axis, empty for none; or twice as many: those before each axis, then those after each.
    """
    kernel = weight.shape[2:]
    axes = len(kernel)
    stride, dilation = filled(stride, axes, 1, "stride", 1), filled(dilation, axes, 1, "dilation", 1)
    pads = padding_pairs(padding, axes)
    batched = x if x.ndim == axes + 2 else x[None]
    counts = window_counts(batched.shape[2:], kernel, stride, pads, dilation)
    dtype = wide(x.dtype)
    padded = padded_for_windows(batched, counts, kernel, stride, pads, dilation, 0).astype(dtype, copy=False)
    grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).astype(dtype, copy=False)
    places = int(np.prod(counts))
    y = np.zeros((batched.shape[0], groups, grouped.shape[1], places), dtype)
    for position in kernel_positions(kernel):
        window = padded[taps(position, counts, stride, dilation)].reshape(batched.shape[0], groups, weight.shape[1], places)
        at: Any = (..., *position)
        # Products of strided matrices would not go through BLAS.
        tap = np.ascontiguousarray(grouped[at])
        y += tap * window if weight.shape[1] == 1 else np.matmul(tap, window)
    y = y.reshape(batched.shape[0], weight.shape[0], *counts)
    if bias is not None:
        y += bias.reshape(-1, *[1] * axes).astype(dtype, copy=False)
    result: Array = y if x.ndim == axes + 2 else y[0]
    return result.astype(x.dtype, copy=False)


def _convolution_transpose(x: TensorSpec, weight: TensorSpec, bias: TensorSpec | None, *, stride: tuple[int, ...] = (),
                           padding: tuple[int, ...] = (), output_padding: tuple[int, ...] = (), dilation: tuple[int, ...] = (),
                           groups: int = 1) -> TensorSpec:
    kernel = _kernel_sizes(weight)
    axes = len(kernel)
    spatial_rank(x, axes)
    stride, dilation = filled(stride, axes, 1, "stride", 1), filled(dilation, axes, 1, "dilation", 1)
    extra = filled(output_padding, axes, 0, "output_padding", 0)
    padding = filled(padding, axes, 0, "padding", 0)
    require(all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)), "'output_padding' out of range",
            expected="less than the stride or the dilation", received=list(extra))
    _channels(x, weight, bias, groups, weight.shape[0], weight.shape[1] * groups)
    sizes = tuple((size - 1) * s - 2 * p + d * (k - 1) + e + 1 for size, s, p, d, k, e in
                  zip(x.shape[-axes:], stride, padding, dilation, kernel, extra, strict=True))
    require(all(not isinstance(size, int) or size > 0 for size in sizes), "the output is empty", received=x,
            expected="less padding, or a larger input")
    return TensorSpec(same_dtype(x, weight, bias), (*x.shape[:-axes - 1], weight.shape[1] * groups, *sizes))


def _transposed(f: Space, x: Term, weight: Term, bias: Term | None, *, stride: tuple[int, ...], padding: tuple[int, ...],
                output_padding: tuple[int, ...], dilation: tuple[int, ...], groups: int) -> Term:
    """A convolution with the mirrored kernel, of the input with zeros between its elements and around them."""
    kernel, axes, zeros = weight.shape[2:], weight.ndim - 2, (0, 0)
    stride, dilation = filled(stride, axes, 1, "stride", 1), filled(dilation, axes, 1, "dilation", 1)
    extra, padding = filled(output_padding, axes, 0, "output_padding", 0), filled(padding, axes, 0, "padding", 0)
    lead, sizes = x.shape[:-axes], x.shape[-axes:]
    if any(step > 1 for step in stride):
        apart = f.reshape(x, shape=(*lead, *(item for size in sizes for item in (size, 1))))
        apart = f.pad(apart, pads=(*(zeros,) * len(lead), *(pair for step in stride for pair in (zeros, (0, step - 1)))))
        x = f.reshape(apart, shape=(*lead, *(size * step for size, step in zip(sizes, stride, strict=True))))
    borders = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    x = f.pad(x, pads=(*(zeros,) * len(lead), *((border, border + more - (step - 1))
                                                for border, more, step in zip(borders, extra, stride, strict=True))))
    incoming, outgoing = weight.shape[:2]
    weight = f.reshape(weight, shape=(groups, incoming // groups, outgoing, *kernel))
    weight = f.permute_dims(weight, axes=(0, 2, 1, *range(3, weight.ndim)))
    weight = f.flip(f.reshape(weight, shape=(groups * outgoing, incoming // groups, *kernel)), axis=tuple(range(2, axes + 2)))
    return f.convolution(x, weight, bias, dilation=dilation, groups=groups)


@op(infer=_convolution_transpose, formula=_transposed, facts=Facts(finite=True))
def convolution_transpose(x: Array, weight: Array, bias: Array | None = None, *, stride: tuple[int, ...] = (),
                          padding: tuple[int, ...] = (), output_padding: tuple[int, ...] = (), dilation: tuple[int, ...] = (),
                          groups: int = 1) -> Array:
    """The transpose (gradient) of a convolution: torch.nn.functional.conv_transpose1d, 2d, 3d.

    Each x[n, c, p] adds x[n, c, p] · weight[c, o, k] to y[n, group(c)·O + o, p·stride + k·dilation - padding].

    x: [batch, in, *spatial] or [in, *spatial]; weight: [in, out / groups, *kernel]; bias: [out].
    y: [batch?, out, *(size - 1)·stride - 2·padding + dilation·(kernel - 1) + output_padding + 1].
    `output_padding` lengthens y at the end of each axis. All four: one integer per spatial axis, empty for the neutral one.
    """
    kernel = weight.shape[2:]
    axes = len(kernel)
    stride, dilation = filled(stride, axes, 1, "stride", 1), filled(dilation, axes, 1, "dilation", 1)
    extra, padding = filled(output_padding, axes, 0, "output_padding", 0), filled(padding, axes, 0, "padding", 0)
    batched = x if x.ndim == axes + 2 else x[None]
    dtype = wide(x.dtype)
    counts = batched.shape[2:]
    batch, incoming, outgoing = batched.shape[0], weight.shape[0], weight.shape[1] * groups
    columns = batched.reshape(batch, groups, incoming // groups, int(np.prod(counts))).astype(dtype, copy=False)
    grouped = weight.reshape(groups, incoming // groups, *weight.shape[1:]).astype(dtype, copy=False)
    whole = [(size - 1) * s + d * (k - 1) + 1 + e for size, s, d, k, e in zip(counts, stride, dilation, kernel, extra, strict=True)]
    y = np.zeros((batch, outgoing, *whole), dtype)
    for position in kernel_positions(kernel):
        at: Any = (..., *position)
        tap = np.ascontiguousarray(grouped[at].transpose(0, 2, 1))
        y[taps(position, counts, stride, dilation)] += np.matmul(tap, columns).reshape(batch, outgoing, *counts)
    kept: Any = (..., *(slice(p, size - p) for p, size in zip(padding, whole, strict=True)))
    y = y[kept]
    if bias is not None:
        y += bias.reshape(-1, *[1] * axes).astype(dtype, copy=False)
    result: Array = y if x.ndim == axes + 2 else y[0]
    return result.astype(x.dtype, copy=False)
