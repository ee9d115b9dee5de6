"""The operators of `torch.ops.quantized`, and torch's functions that make quantised tensors, as what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

import adapters.torch.quantized.dynamic as dynamic
import adapters.torch.quantized.pooling  # noqa: F401
import adapters.torch.quantized.recurrent as recurrent
from adapters.torch.quantized.layers import layer
from adapters.torch.quantized.rules import by_qnnpack, joined, moved, relu, tabled
from adapters.torch.quantized.unsteady import AT_THE_END, unsteady
from adapters.torch.quantized.values import (
    HOLDS,
    Quantized,
    centred,
    computing,
    cut,
    dequantize,
    float32,
    fused,
    inverse,
    limits,
    number,
    quantize_per_channel,
    quantize_per_tensor,
    refused,
    single,
)

OPERATORS: dict[str, Callable[..., Any]] = {}
"""What stands in for `torch.ops.quantized.NAME`."""


def operator(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers what stands in for operators."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


for _name in ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"):
    OPERATORS[_name] = layer(getattr(torch.ops.quantized, _name), False)
    if not _name.startswith("conv_t"):
        OPERATORS[f"{_name}_relu"] = layer(getattr(torch.ops.quantized, _name), True)

for _name in ("linear_dynamic", "linear_relu_dynamic"):
    OPERATORS[_name] = dynamic.linear("relu" in _name)
OPERATORS["linear_dynamic_fp16"] = OPERATORS["linear_dynamic"]
OPERATORS["linear_relu_dynamic_fp16"] = OPERATORS["linear_relu_dynamic"]

for _name, _step in recurrent.CELLS.items():
    OPERATORS[f"quantized_{_name}_cell_dynamic"] = recurrent.cell(_step)


# Of one tensor -----------------------------------------------------------------------------------------------------------

for _name in ("hardswish", "sigmoid", "elu", "celu", "leaky_relu", "relu6", "clamp", "threshold", "add_scalar", "mul_scalar",
              "add_scalar_relu", "mul_scalar_relu"):
    OPERATORS[_name] = partial(tabled, getattr(torch.ops.quantized, _name))

operator("dropout")(lambda x, *_, **__: x)
operator("max_pool1d")(partial(moved, torch.max_pool1d))
operator("max_pool2d")(partial(moved, torch.max_pool2d))


@operator("softmax")
def softmax(qx: Any, dim: int, output_scale: Any, output_zero_point: Any) -> Quantized:
    unsteady("softmax", "the step beside, where the last bit of an exponential decides")
    return quantize_per_tensor(torch.softmax(dequantize(qx), dim), output_scale, output_zero_point, qx.dtype)


# Of two ------------------------------------------------------------------------------------------------------------------


def _scalar(name: str, a: Any, b: Any) -> Any:
    return tabled(getattr(torch.ops.quantized, name), a, number(b)) if isinstance(a, Quantized) else _scalar(name, b, a)


def _two(name: str, a: Any, b: Any) -> None:
    if not isinstance(a, Quantized) or not isinstance(b, Quantized) or a.dtype is torch.qint32:
        raise refused(f"quantized::{name}", "its operands are not two quantised tensors")


def _sum(a: Quantized, b: Quantized, scale: Any, zero_point: Any) -> Quantized:
    """FBGEMM's kernel adds what the integers stand for, each a fused product and sum in float32; QNNPACK's in fixed point."""
    _two("add", a, b)
    scale, zero_point = float(number(scale)), int(number(zero_point))
    if by_qnnpack() and a.dtype is torch.quint8 and tuple(a.integers.shape) == tuple(b.integers.shape):
        return Quantized(cut(_fixed_point_sum(a, b, scale) + zero_point, a.dtype), scale, zero_point, a.dtype, a.channels_last)
    x, y = (fused(item.integers, (unit := single(item.scale)),
                  -float32(lambda s, z: s * z, unit, item.zero_point)) for item in (a, b))
    with computing():
        if other := _pairs_apart(a, b, scale, zero_point):
            unsteady("add", f"another step, by one, for {other:,} of the 65,536 pairs of integers {AT_THE_END}")
    return Quantized(cut(torch.round((x + y) * inverse(scale)) + zero_point, a.dtype), scale, zero_point, a.dtype, _layout(a, b))


def _pairs_apart(a: Quantized, b: Quantized, scale: float, zero_point: int) -> int:
    """The pairs of integers of which torch's kernel gives another sum within whole vectors than past them."""
    low, high = limits(a.dtype)
    every = torch.arange(low, high + 1, dtype=HOLDS[a.dtype])
    x, y = (torch._make_per_tensor_quantized_tensor(integers.flatten(), item.scale, item.zero_point)
            for item, integers in ((a, every.repeat(256, 1)), (b, every.repeat_interleave(256))))
    add = torch.ops.quantized.add
    alone = [add(one, other, scale, zero_point).int_repr() for one, other in zip(torch.split(x, PAST), torch.split(y, PAST), strict=True)]
    return int((torch.cat(alone) != add(x, y, scale, zero_point).int_repr()).sum())


PAST = 31
"""So few elements fill no vector."""


def _layout(a: Quantized, b: Quantized) -> bool | None:
    """How a result of both lies in memory."""
    return a.channels_last if a.channels_last is b.channels_last else None


def _fixed_point_sum(a: Quantized, b: Quantized, scale: float) -> Tensor:
    """Each tensor times its scale over the result's as an integer of 22 bits, the sum shifted back; halves go away from zero."""
    ratios = [float32(lambda s, t: s / t, item.scale, scale) for item in (a, b)]
    shift = 22 - math.frexp(max(ratios))[1]
    left, right = (float(round(math.ldexp(ratio, shift))) for ratio in ratios)
    exact = (centred(a, torch.float64) * left + centred(b, torch.float64) * right) * math.ldexp(1.0, -shift)
    return torch.sign(exact) * torch.floor(exact.abs() + 0.5)


@operator("add")
def add(qa: Any, qb: Any, scale: Any = None, zero_point: Any = None) -> Quantized:
    return _scalar("add_scalar", qa, qb) if scale is None else _sum(qa, qb, scale, zero_point)


@operator("add_relu")
def add_relu(qa: Any, qb: Any, scale: Any = None, zero_point: Any = None) -> Quantized:
    return relu(add(qa, qb, scale, zero_point))


@operator("mul")
def mul(qa: Any, qb: Any, scale: Any = None, zero_point: Any = None) -> Quantized:
    """The product of the integers, exact in float32, times a scale of both over the result's."""
    if scale is None:
        return _scalar("mul_scalar", qa, qb)
    _two("mul", qa, qb)
    scale, zero_point = float(number(scale)), int(number(zero_point))
    factor = float32(lambda a, b, c: a * b * (1 / c), qa.scale, qb.scale, scale)
    steps = cut(torch.round(centred(qa) * centred(qb) * factor) + zero_point, qa.dtype)
    return Quantized(steps, scale, zero_point, qa.dtype, _layout(qa, qb))


@operator("mul_relu")
def mul_relu(qa: Any, qb: Any, scale: Any = None, zero_point: Any = None) -> Quantized:
    return relu(mul(qa, qb, scale, zero_point))


@operator("cat")
def cat(qx: Any, dim: int, scale: Any = None, zero_point: Any = None) -> Quantized:
    scale, zero_point = (qx[0].scale, qx[0].zero_point) if scale is None else (float(number(scale)), int(number(zero_point)))
    return joined(qx, dim, scale, zero_point)


@operator("cat_relu")
def cat_relu(qx: Any, dim: int, scale: Any = None, zero_point: Any = None) -> Quantized:
    return relu(cat(qx, dim, scale, zero_point))


# Tables ------------------------------------------------------------------------------------------------------------------


def _rows(packed: Any, indices: Tensor) -> Tensor:
    """Rows of a table whose scale and zero point, a float, each row has for itself: a fused product and sum in float32."""
    offset = -(packed.zero_point * packed.scale) if packed.zero_point is not None else torch.zeros_like(packed.scale)
    places = indices.to(torch.int64)
    return fused(packed.weight[places], packed.scale[places].unsqueeze(-1), offset[places].unsqueeze(-1))


@operator("embedding_byte", "embedding_4bit")
def embedding(weight: Any, indices: Tensor, pruned_weights: bool = False) -> Tensor:
    return _rows(weight, indices)


def functions() -> Mapping[Any, Callable[..., Any]]:
    """What a trace calls in place of torch's functions."""
    found: dict[Any, Callable[..., Any]] = {torch.quantize_per_tensor: quantize_per_tensor,
                                              torch.quantize_per_channel: quantize_per_channel}
    packets = {getattr(torch.ops.quantized, name): function for name, function in OPERATORS.items()}
    packets |= {torch.ops.aten.quantized_lstm: recurrent.quantized_lstm, torch.ops.aten.quantized_gru: recurrent.quantized_gru}
    for packet, function in packets.items():
        found[packet] = function
        found.update({getattr(packet, overload): function for overload in packet.overloads()})
    return found
