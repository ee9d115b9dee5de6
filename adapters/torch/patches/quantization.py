"""Fake quantisation (training that is aware of quantisation), which `torch.export` cannot hold, as the arithmetic that it is.

torch's kernels give clip(round(x · (1 / scale)) + zero_point, quant_min, quant_max), less zero_point, times scale, in the
precision of x; the round is to even. While `traceable_quantization()` is active, the functions compute just that, and the
modules of `torch.ao.quantization` take the ways that their flags say, which are numbers in buffers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization.fake_quantize import FakeQuantize, FakeQuantizeBase

from adapters.torch.quantized.operators import functions
from adapters.torch.quantized.packed import unpacked
from converter.errors import UnsupportedError


def per_tensor(input: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Tensor:
    """torch.fake_quantize_per_tensor_affine; a scale that is a number is rounded to float32 first, as torch's kernel takes it."""
    given = scale if isinstance(scale, Tensor) else torch.tensor(scale, dtype=torch.float32)
    zero_point = zero_point.reshape(()) if isinstance(zero_point, Tensor) else zero_point
    return _rounded(input, given.reshape(()), zero_point, quant_min, quant_max)


def per_channel(input: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int) -> Tensor:
    """torch.fake_quantize_per_channel_affine: a scale and a zero point, which may be a float, for each place along an axis."""
    shape = [1] * input.dim()
    shape[axis] = -1
    zero_point = zero_point.reshape(shape)
    return _rounded(input, scale.reshape(shape), zero_point.round() if zero_point.is_floating_point() else zero_point, quant_min, quant_max)


def _rounded(x: Tensor, scale: Tensor, zero_point: Any, low: int, high: int) -> Tensor:
    scale = scale.to(x.dtype)
    zero_point = zero_point.to(x.dtype) if isinstance(zero_point, Tensor) else zero_point
    return ((torch.round(x * (1.0 / scale)) + zero_point).clamp(low, high) - zero_point) * scale


FUNCTIONS: Mapping[Any, Any] = {torch.fake_quantize_per_tensor_affine: per_tensor, torch.fake_quantize_per_channel_affine: per_channel,
                                **functions()}


def _forward(part: FakeQuantize, quantizes: bool) -> Any:
    def forward(X: Tensor) -> Tensor:
        if not quantizes:
            return X
        span = part.activation_post_process.quant_min, part.activation_post_process.quant_max
        if part.is_per_channel:
            return per_channel(X, part.scale, part.zero_point, part.ch_axis, *span)
        return per_tensor(X, part.scale, part.zero_point, *span)

    return forward


def refuse_observers(module: torch.nn.Module) -> None:
    """Raises `UnsupportedError` where a fake quantiser still observes: each run of the module would change what the next computes."""
    observing = [path for path, part in module.named_modules() if isinstance(part, FakeQuantizeBase) and part.observer_enabled[0] == 1]
    if observing:
        raise UnsupportedError("fake quantisers still observe: each run changes the scales of the next", where=observing[0],
                               received=f"{len(observing)} of them with observer_enabled", expected="observers that are switched off",
                               fix="call module.apply(torch.ao.quantization.disable_observer) first")


@contextmanager
def traceable_quantization(module: torch.nn.Module) -> Iterator[None]:
    """While active, the fake quantisers of a module are traced as what they compute with their flags as they are."""
    changed = [part for part in module.modules() if isinstance(part, FakeQuantize) and "forward" not in vars(part)]
    for part in changed:
        part.forward = _forward(part, bool(part.fake_quant_enabled[0] == 1))  # type: ignore[method-assign]
    try:
        with unpacked(module):
            yield
    finally:
        for part in changed:
            vars(part).pop("forward", None)
