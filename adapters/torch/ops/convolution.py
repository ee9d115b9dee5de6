"""Convolutions and their transposes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

import converter.dims as dims
from adapters.torch.ops.manipulation import reshaped
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import Dim, floor_divide

CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def fixed(g: Importer, values: Any, axes: int, what: str) -> tuple[int, ...]:
    """One integer per spatial axis from what ATen lets be one integer or a list."""
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    if not all(isinstance(value, int) for value in values):
        raise g.refuse(f"{what} depends on a size of the input")
    return tuple(values * axes if len(values) == 1 else values)


def require_fixed_weight(g: Importer, weight: Value) -> None:
    """Refuses a weight of free sizes, as one that is an input may have: a convolution is laid out by them."""
    if not all(isinstance(size, int) for size in weight.shape):
        raise g.refuse("the sizes of the weight are not fixed")


def trimmed(values: tuple[int, ...], neutral: int | tuple[int, ...]) -> tuple[int, ...]:
    """Empty where every value is the neutral one."""
    return () if values == ((neutral,) * len(values) if isinstance(neutral, int) else neutral) else values


@imports("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", "aten.conv1d.padding", "aten.conv2d.padding",
         "aten.conv3d.padding")
def convolve(g: Importer, input: Value, weight: Value, bias: Value | None = None, stride: Any = 1, padding: Any = 0,
             dilation: Any = 1, groups: Dim = 1) -> Value:
    free = not isinstance(groups, int) or not isinstance(weight.shape[0], int)
    if not free or weight.rank > 4:
        require_fixed_weight(g, weight)
    axes = weight.rank - 2
    stride, dilation = fixed(g, stride, axes, "the stride"), fixed(g, dilation, axes, "the dilation")
    if padding == "same":
        # An odd number of zeros in all: the one more stands at the end.
        totals = [d * (dims.fixed(k) - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        before = tuple(total // 2 for total in totals)
        after = tuple(total - total // 2 for total in totals)
        pads = before if before == after else before + after
    else:
        pads = fixed(g, 0 if padding == "valid" else padding, axes, "the padding")
    if free:
        return _free_groups(g, input, weight, bias, stride, pads, dilation, groups)
    return g.op("convolution", input, weight, bias, stride=trimmed(stride, 1), padding=trimmed(pads, 0),
                dilation=trimmed(dilation, 1), groups=groups)


def _free_groups(g: Importer, x: Value, weight: Value, bias: Value | None, stride: tuple[int, ...], pads: tuple[int, ...],
                 dilation: tuple[int, ...], groups: Dim) -> Value:
    """A convolution whose groups, or whose number of filters, is a size of the input, as where each image has filters of its own:
    the columns of windows times a matrix for each group."""
    if not all(isinstance(size, int) for size in weight.shape[1:]) or len(pads) > len(stride):
        raise g.refuse("the sizes of the weight, or zeros on one side, are not fixed")
    line = weight.rank == 3
    _, channels, *kernel = weight.shape
    x = g.op("expand_dims", x, axis=(2,)) if line else x
    x = reshaped(g, x, (x.shape[0] * groups, channels, *x.shape[2:]))
    window: dict[str, Any] = {name: ((neutral,) if line else ()) + values for name, values, neutral in (
        ("kernel_size", tuple(kernel), 1), ("dilation", dilation, 1), ("padding", pads, 0), ("stride", stride, 1))}
    columns = g.op("im2col", x, **window)
    shape = g.result_shape()
    columns = reshaped(g, columns, (shape[0], groups, *columns.shape[1:]))
    matrices = reshaped(g, weight, (groups, floor_divide(weight.shape[0], groups), columns.shape[2]))
    result = reshaped(g, g.op("matmul", matrices, columns), shape)
    return result if bias is None else g.op("add", result, reshaped(g, bias, (shape[1], *[1] * (weight.rank - 2))))


@imports("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def conv_transpose(g: Importer, input: Value, weight: Value, bias: Value | None = None, stride: Any = 1, padding: Any = 0,
                   output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Value:
    require_fixed_weight(g, weight)
    axes = weight.rank - 2
    return g.op("convolution_transpose", input, weight, bias, stride=trimmed(fixed(g, stride, axes, "the stride"), 1),
                padding=trimmed(fixed(g, padding, axes, "the padding"), 0),
                output_padding=trimmed(fixed(g, output_padding, axes, "the output padding"), 0),
                dilation=trimmed(fixed(g, dilation, axes, "the dilation"), 1), groups=groups)


@imports("aten.convolution.default", "aten._convolution.default", "aten._convolution.deprecated", "aten.convolution_overrideable.default")
def convolution(g: Importer, input: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any,
                transposed: bool, output_padding: Any, groups: int, *settings: bool) -> Value:
    if transposed:
        result: Value = conv_transpose(g, input, weight, bias, stride, padding, output_padding, groups, dilation)
    else:
        result = convolve(g, input, weight, bias, stride, padding, dilation, groups)
    return result


@imports("aten.mkldnn_convolution.default")
def mkldnn_convolution(g: Importer, self: Value, weight: Value, bias: Value | None, padding: Any, stride: Any, dilation: Any,
                       groups: int) -> Value:
    result: Value = convolve(g, self, weight, bias, stride, padding, dilation, groups)
    return result


@imports("aten.convolution_backward.default")
def convolution_backward(g: Importer, grad_output: Value, input: Value, weight: Value, bias_sizes: Any, stride: Any, padding: Any,
                         dilation: Any, transposed: bool, output_padding: Any, groups: int, output_mask: Any) -> tuple[Value | None, ...]:
    """The gradient in the input is the transposed convolution, with what it lacks or has too much at the ends."""
    if output_mask[1]:
        raise g.refuse("the gradient of a convolution in its weight")
    grad_bias = g.op("sum", grad_output, axis=(0, *range(2, grad_output.rank))) if output_mask[2] else None
    if not output_mask[0]:
        return None, None, grad_bias
    if transposed:
        return convolve(g, grad_output, weight, None, stride, padding, dilation, groups), None, grad_bias
    whole = conv_transpose(g, grad_output, weight, None, stride, 0, 0, groups, dilation)
    ends = [(-before, wanted - (found - before)) for before, wanted, found in zip(
        fixed(g, padding, weight.rank - 2, "the padding"), input.shape[2:], whole.shape[2:], strict=True)]
    whole = g.op("pad", whole, pads=((0, 0), (0, 0), *ends)) if any(end != (0, 0) for end in ends) else whole
    return whole, None, grad_bias


@rebuilds("convolution")
def rebuild_convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, stride: tuple[int, ...] = (),
                        padding: tuple[int, ...] = (), dilation: tuple[int, ...] = (), groups: int = 1) -> torch.Tensor:
    axes = weight.dim() - 2
    if len(padding) == 2 * axes:
        pairs = [(before, after) for before, after in zip(padding[:axes], padding[axes:], strict=True)]
        x, padding = F.pad(x, [number for pair in reversed(pairs) for number in pair]), ()
    if not (weight.is_floating_point() or weight.is_complex()) and any(step != 1 for step in dilation):
        # torch has no dilated kernel for integers: zeros stand between the elements of this one.
        spread = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilation, strict=True)]
        held = weight.new_zeros((*weight.shape[:2], *spread))
        places: tuple[Any, ...] = (..., *(slice(None, None, step) for step in dilation))
        held[places] = weight
        weight, dilation = held, ()
    return CONVOLVE[axes - 1](x, weight, bias, stride or 1, padding or 0, dilation or 1, groups)


@rebuilds("convolution_transpose")
def rebuild_transpose(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, stride: tuple[int, ...] = (),
                      padding: tuple[int, ...] = (), output_padding: tuple[int, ...] = (), dilation: tuple[int, ...] = (),
                      groups: int = 1) -> torch.Tensor:
    return TRANSPOSED[weight.dim() - 3](x, weight, bias, stride or 1, padding or 0, output_padding or 0, groups, dilation or 1)
