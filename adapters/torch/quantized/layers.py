"""Quantised layers: exact sums of products of integers, brought to the scale of the result as torch's three engines do it.

FBGEMM multiplies what a sum and the bias are together by x_scale · w_scale / y_scale in float32 and adds the zero point to the
rounded product; the bias is divided by x_scale · w_scale, or multiplied by its inverse, fused with the sum, where there is one
scale of weights. QNNPACK rounds the bias to an integer first and multiplies by (w_scale · x_scale) · (1 / y_scale). oneDNN
multiplies by each scale, which it takes for the inverse of an inverse, by itself or, on some processors, by both as one, and adds bias
and zero point to the products. Which way a layer goes torch decides by the processor, so that its kernel is asked: `engine_of`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.torch.quantized.packed import Packed
from adapters.torch.quantized.unsteady import unsteady
from adapters.torch.quantized.values import (
    HOLDS,
    Quantized,
    centred,
    computing,
    cut,
    float32,
    fused,
    inverse,
    limits,
    number,
    refused,
    single,
)

Engine = Callable[[Tensor, float, Tensor, "Tensor | None", float, int], Tensor]
"""float64 sums, scales of x and of the weights, bias, scale and zero point of the result, to its steps before they are cut."""


def fbgemm(total: Tensor, x_scale: float, w_scale: Tensor, bias: Tensor | None, scale: float, zero_point: int) -> Tensor:
    product, whole = w_scale * single(x_scale), total.to(torch.float32)
    if bias is not None:
        whole = fused(bias, (1.0 / product).to(torch.float64), total) if product.dim() == 0 else whole + bias / product
    return torch.round(whole * (product / single(scale))) + zero_point


def qnnpack(total: Tensor, x_scale: float, w_scale: Tensor, bias: Tensor | None, scale: float, zero_point: int) -> Tensor:
    product = w_scale * single(x_scale)
    if bias is not None:
        total = total + torch.round(bias * (1.0 / product)).to(torch.float64)
    return torch.round(total.to(torch.float32) * (product * inverse(scale))) + zero_point


def onednn(total: Tensor, x_scale: float, w_scale: Tensor, bias: Tensor | None, scale: float, zero_point: int) -> Tensor:
    return _onednn(total.to(torch.float32) * inverse(1.0 / x_scale) * w_scale, bias, scale, zero_point)


def onednn_at_once(total: Tensor, x_scale: float, w_scale: Tensor, bias: Tensor | None, scale: float, zero_point: int) -> Tensor:
    return _onednn(total.to(torch.float32) * (w_scale * inverse(1.0 / x_scale)), bias, scale, zero_point)


def _onednn(whole: Tensor, bias: Tensor | None, scale: float, zero_point: int) -> Tensor:
    return torch.round((whole if bias is None else whole + bias) * inverse(inverse(1.0 / scale)) + zero_point)


ENGINES: tuple[Engine, ...] = (fbgemm, qnnpack, onednn, onednn_at_once)


# Sums --------------------------------------------------------------------------------------------------------------------


def sums_of(packed: Packed, x: Quantized) -> Tensor:
    """float64, exact: a convolution as torch packed it, or a linear layer."""
    weight = packed.weight.to(torch.float64)
    if packed.zero_point is not None:
        weight = weight - packed.along(packed.zero_point, weight.dim(), packed.axis)
    whole = centred(x, torch.float64)
    if packed.is_linear:
        return F.linear(whole, weight)
    axes, how = x.integers.dim() - 2, packed.original
    weight = weight.squeeze(2) if weight.dim() > x.integers.dim() else weight
    stride, padding, dilation = (list(item)[-axes:] for item in (how.stride(), how.padding(), how.dilation()))
    if how.transpose():
        function: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        return function(whole, weight, None, stride, padding, list(how.output_padding())[-axes:], how.groups(), dilation)
    function = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    return function(whole, weight, None, stride, padding, dilation, how.groups())


def steps_of(engine: Engine, packed: Packed, x: Quantized, total: Tensor, scale: float, zero_point: int) -> Tensor:
    """What an engine makes of sums: whole float32 numbers, not cut yet."""
    axis = -1 if packed.is_linear else 1
    scales, bias = (item if item is None or item.dim() == 0 else packed.along(item, x.integers.dim(), axis)
                    for item in (packed.scale, packed.bias))
    return engine(total, x.scale, scales, bias, scale, zero_point)  # type: ignore[arg-type]


# The kernel --------------------------------------------------------------------------------------------------------------

TRIALS, DRAWN = 12, 200


def engine_of(operator: Any, packed: Packed, x: Quantized, scale: float, zero_point: int) -> Engine:
    """The engine that a layer's kernel computes as: a copy of it is run where the engines differ, on results half-way between two steps.

    Raises `UnsupportedError` where it computes as none of them.
    """
    left, tried = list(ENGINES), 0
    with computing():
        packed, draw = packed.real(), torch.Generator().manual_seed(0)
        low, high = limits(x.dtype)
        # FBGEMM's kernels for one channel a group add pairs of products in 16 bits, which do not hold those of 8 and 8 bits.
        integers = torch.randint(low, low + (high - low) // 2, packed.example_shape(x.integers.dim()), generator=draw).to(HOLDS[x.dtype])
        given = Quantized(integers, x.scale, x.zero_point, x.dtype)
        total = sums_of(packed, given)
        own = _copy_of(operator, packed.original, given, scale, zero_point)
        for _ in range(DRAWN):
            # QNNPACK keeps what it made of a scale until x has another one.
            given.scale = float32(torch.Tensor.add, 0.02, float(torch.rand((), generator=draw)) / 16)
            exact = steps_of(fbgemm, packed, given, total, 1e-6, 0).flatten() * 1e-6
            place, step = (int(torch.randint(0, bound, (), generator=draw)) for bound in (exact.numel(), 60))
            scale = float32(torch.Tensor.abs, float(exact[place]) / (step + 0.5))
            if scale < 1e-12:
                continue
            steps = [cut(steps_of(engine, packed, given, total, scale, zero_point), x.dtype) for engine in left]
            if all(torch.equal(item, steps[0]) for item in steps):
                continue
            found = operator(_whole(given), own, scale, zero_point).int_repr()
            left = [engine for engine, item in zip(left, steps, strict=True) if torch.equal(item, found)]
            tried += 1
            if not left or tried == TRIALS:
                break
        if not left:
            raise refused(str(operator), "its kernel on this machine rounds in another way than FBGEMM, QNNPACK and oneDNN")
        if left[0] is fbgemm and _overflows(operator, own, packed, given):
            unsteady(str(operator), "FBGEMM's kernel for one channel a group overflows for integers above 127, the model does not")
    return left[0]


def _overflows(operator: Any, own: Any, packed: Packed, x: Quantized) -> bool:
    """Whether the kernel gives something else than FBGEMM's arithmetic for the highest integers that x may hold."""
    _, high = limits(x.dtype)
    full = x.like(torch.randint_like(x.integers, high // 2 + 1, high + 1))
    total = sums_of(packed, full)
    scale = float32(torch.Tensor.abs, float(steps_of(fbgemm, packed, full, total, 1e-6, 0).abs().max()) * 1e-8) or 1.0
    steps = cut(steps_of(fbgemm, packed, full, total, scale, 128), x.dtype)
    return not torch.equal(operator(_whole(full), own, scale, 128).int_repr(), steps)


def _whole(x: Quantized) -> Tensor:
    return torch._make_per_tensor_quantized_tensor(x.integers, x.scale, x.zero_point)


def _copy_of(operator: Any, packed: Any, x: Quantized, scale: float, zero_point: int) -> Any:
    """The packed weights once more, as a kernel keeps in them what it was called with; by the engine that they were packed by."""
    given, found = torch.backends.quantized.engine, operator(_whole(x), packed, scale, zero_point)
    try:
        for engine in (given, *torch.backends.quantized.supported_engines):
            torch.backends.quantized.engine = engine
            with suppress(RuntimeError):  # not every engine has every layer
                again = copy.deepcopy(packed)
                if torch.equal(operator(_whole(x), again, scale, zero_point).int_repr(), found.int_repr()):
                    return again
    finally:
        torch.backends.quantized.engine = given
    raise refused(str(operator), "its packed weights cannot be copied")


def layer(operator: Any, relu: bool) -> Callable[..., Quantized]:
    """What stands in for an operator of `torch.ops.quantized` that takes a quantised tensor, packed weights, a scale and a zero point."""

    def compute(x: Any, packed: Any, *output: Any) -> Quantized:
        if not isinstance(x, Quantized) or not isinstance(packed, Packed) or x.dtype is torch.qint32:
            raise refused(str(operator), "its operands are no quantised tensor and packed weights of the module")
        scale, zero_point = float(number(output[-2])), int(number(output[-1]))
        steps = steps_of(engine_of(operator, packed, x, scale, zero_point), packed, x, sums_of(packed, x), scale, zero_point)
        return Quantized(cut(steps, x.dtype, zero_point if relu else None), scale, zero_point, x.dtype, not packed.is_linear)

    return compute
