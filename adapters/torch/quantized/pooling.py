"""Means of quantised tensors: sums of integers are exact, and a mean is one product and one rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.torch.quantized.rules import by_qnnpack, rule
from adapters.torch.quantized.unsteady import unsteady
from adapters.torch.quantized.values import Quantized, centred, cut, dequantize, inverse, quantize_per_tensor, refused


def _by_qnnpack(x: Quantized) -> bool:
    return by_qnnpack() and x.dtype is torch.quint8


def _mean(x: Quantized, total: Tensor, count: Any, qnnpack: bool = False) -> Quantized:
    """Sums over how many they sum, in steps. The zero point is added before the rounding, in QNNPACK after it."""
    if qnnpack:
        factor = inverse(count) if isinstance(count, int) else 1.0 / count.to(torch.float32)
        return x.like(cut(torch.round(total.to(torch.float32) * factor) + x.zero_point, x.dtype))
    return x.like(cut(torch.round(total / count + x.zero_point), x.dtype))


def _pool(function: Callable[..., Tensor], input: Quantized, kernel_size: Any, stride: Any = None, padding: Any = 0,
          ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> Quantized:
    """QNNPACK counts places outside, whatever is asked for."""
    axes = input.integers.dim() - 2
    qnnpack = _by_qnnpack(input) and axes == 2 and divisor_override is None
    if qnnpack and ceil_mode:
        raise refused("torch.nn.functional.avg_pool2d", "QNNPACK computes other means of windows past the end, with ceil_mode=True")
    whole = centred(input, torch.float64)
    total = function(whole, kernel_size, stride, padding, ceil_mode, True, 1)
    count: Any = divisor_override or (kernel_size**axes if isinstance(kernel_size, int) else prod(kernel_size))
    if divisor_override is None and not qnnpack and (ceil_mode or not count_include_pad):
        ones = torch.ones_like(whole)
        within = function(ones, kernel_size, stride, padding, ceil_mode, True, 1)
        count = within / function(ones, kernel_size, stride, padding, ceil_mode, count_include_pad)
    return _mean(input, total, count, qnnpack)


rule("avg_pool2d")(partial(_pool, F.avg_pool2d))
rule("avg_pool3d")(partial(_pool, F.avg_pool3d))


@rule("avg_pool1d")
def avg_pool1d(input: Quantized, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Quantized:
    """Of one row."""
    size, step, margin = (item if item is None or isinstance(item, int) else item[0] for item in (kernel_size, stride, padding))
    rows = input.like(input.integers.unsqueeze(-2))
    found = _pool(F.avg_pool2d, rows, (1, size), None if step is None else (1, step), (0, margin), ceil_mode, count_include_pad)
    return found.like(found.integers.squeeze(-2))


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d")
def adaptive_avg_pool(input: Quantized, output_size: Any) -> Quantized:
    """The windows along an axis of n, of which there are m, begin at i · n // m and end before (i + 1) · n / m rounded up."""
    function, axes = _ADAPTIVE[input.integers.dim()]
    if output_size == 1 or all(size == 1 for size in (output_size if isinstance(output_size, (tuple, list)) else ())):
        return mean(input, range(-axes, 0), True)
    total, count = function(centred(input, torch.float64), output_size), torch.ones((), dtype=torch.float64)
    sizes = zip(input.integers.shape[-axes:], total.shape[-axes:], strict=True)
    for axis, (size, windows) in enumerate(sizes):
        if _by_qnnpack(input) and size % windows:
            raise refused("torch.nn.functional.adaptive_avg_pool", "QNNPACK takes other windows where the result's size does not divide")
        places = torch.arange(windows)
        width = ((places + 1) * size + windows - 1) // windows - places * size // windows
        count = count * width.reshape(-1, *[1] * (axes - 1 - axis))
    return _mean(input, torch.round(total * count), count, _by_qnnpack(input) and axes == 2)


_ADAPTIVE = {3: (F.adaptive_avg_pool1d, 1), 4: (F.adaptive_avg_pool2d, 2), 5: (F.adaptive_avg_pool3d, 3)}


@rule("mean")
def mean(input: Quantized, dim: int | Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None) -> Quantized:
    """Over the last axes sums of integers. Over others, and where channels lie last in memory, torch adds up what they stand for in an
    order of its own, which decides where a mean is half-way between two steps: of an odd number of integers none is."""
    rank = input.integers.dim()
    axes = sorted(axis % rank for axis in (range(rank) if dim is None else (dim,) if isinstance(dim, int) else dim))
    count = prod(input.integers.shape[axis] for axis in axes)
    qnnpack = _by_qnnpack(input) and rank == 4 and axes == [2, 3]
    last = axes == list(range(rank - len(axes), rank))
    by_integers = qnnpack or last and (input.channels_last is False or rank < 4)
    if not by_integers and not (isinstance(count, int) and count % 2):
        unsteady("mean", "the step beside, where a mean is half-way between two steps and the order of its sum decides")
    if not last:
        return quantize_per_tensor(dequantize(input).mean(axes, keepdim), input.scale, input.zero_point, input.dtype)
    total = centred(input, torch.float64).sum(axes, keepdim)
    return _mean(input, total, count if isinstance(count, int) else torch.full((), count), qnnpack)
