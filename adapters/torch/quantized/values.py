"""Quantised tensors inside of a trace: the integers that they hold, with a scale and a zero point beside them.

A trace cannot hold torch's own quantised tensors. `Quantized` stands in for one: its integers are an ordinary tensor of the
trace, scale and zero point are numbers, and each function that is called with it computes on the integers what torch's kernel
computes, to the bit. What there is no rule for is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from converter.errors import UnsupportedError

HOLDS: Mapping[torch.dtype, torch.dtype] = {torch.quint8: torch.uint8, torch.qint8: torch.int8, torch.qint32: torch.int32}
"""The dtype of the integers that a quantised dtype holds."""


class Quantized(Tensor):
    """Integers [*shape] that stand for `scale · (integer - zero_point)`, scale a float and zero point an integer.

    `channels_last`: whether torch's own tensor lies in memory that way; None where that is not known.
    """

    integers: Tensor
    scale: float
    zero_point: int
    channels_last: bool | None

    @staticmethod
    def __new__(cls, integers: Tensor, scale: float, zero_point: int, dtype: torch.dtype, channels_last: bool | None = None) -> Quantized:
        # Of no axes, as torch would ask free ones how they lie in memory: what asks for the shape is answered by the integers.
        made: Quantized = torch.Tensor._make_wrapper_subclass(cls, (), dtype=dtype, device=integers.device)
        made.integers, made.scale, made.zero_point, made.channels_last = integers, scale, zero_point, channels_last
        return made

    def like(self, integers: Tensor) -> Quantized:
        """Other integers on the same scale, one for each place."""
        return Quantized(integers, self.scale, self.zero_point, self.dtype, self.channels_last)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from adapters.torch.quantized.rules import answer

        return answer(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise refused(str(func))


def refused(name: str, reason: str = "no rule for it on quantised tensors") -> UnsupportedError:
    """The error for what cannot be done with quantised tensors."""
    return UnsupportedError("a function of quantised tensors cannot be converted", items=[{"operator": name, "reason": reason}],
                            fix="dequantize before it and quantize after it")


# Numbers -----------------------------------------------------------------------------------------------------------------


@contextmanager
def computing() -> Iterator[None]:
    """While active, torch computes: no mode of a trace takes part."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def number(value: Any) -> Any:
    """A Python number of what may be a tensor that the module holds."""
    return value.item() if isinstance(value, Tensor) else value


def float32(compute: Callable[..., Any], *values: float) -> float:
    """What a function gives of numbers in float32, as torch's kernels take it: `float32(lambda a, b: a / b, 1.0, scale)`."""
    with computing():
        return float(compute(*(torch.tensor(value, dtype=torch.float32) for value in values)))


def single(value: float) -> float:
    """The float32 next to a number."""
    return float32(torch.Tensor.clone, value)


def inverse(scale: float) -> float:
    """1 / scale in float32."""
    return float32(lambda value: 1 / value, scale)


# To quantised tensors and back -------------------------------------------------------------------------------------------


def limits(dtype: torch.dtype) -> tuple[int, int]:
    """The lowest and the highest integer of a quantised dtype."""
    info = torch.iinfo(HOLDS[dtype])
    return info.min, info.max


def cut(steps: Tensor, dtype: torch.dtype, low: int | None = None) -> Tensor:
    """Whole numbers as the integers of a quantised dtype."""
    lowest, highest = limits(dtype)
    return steps.clamp(lowest if low is None else low, highest).to(HOLDS[dtype])


def fused(x: Tensor, factor: Any, addend: Any) -> Tensor:
    """x · factor + addend, rounded once to float32: products of float32 are exact in float64."""
    return (x.to(torch.float64) * factor + addend).to(torch.float32)


def rounded(x: Tensor, factor: Any, zero_point: Any, dtype: torch.dtype, low: int | None = None) -> Tensor:
    """Integers of steps x · factor + zero_point, a fused product and sum in float32, rounded to the nearest, a half to even."""
    return cut(torch.round(fused(x, factor, zero_point)), dtype, low)


def quantize_per_tensor(input: Any, scale: Any, zero_point: Any, dtype: torch.dtype) -> Any:
    """float32 as steps of `scale`: torch.quantize_per_tensor, whose kernel multiplies by the float32 inverse of the scale."""
    if not isinstance(input, Tensor):
        return [quantize_per_tensor(*each, dtype) for each in zip(input, scale, zero_point, strict=True)]
    if dtype not in HOLDS:
        raise refused("torch.quantize_per_tensor", f"the dtype {dtype}")
    scale, zero_point = float(number(scale)), int(number(zero_point))
    return Quantized(rounded(input, inverse(scale), zero_point, dtype), scale, zero_point, dtype)


class ByChannel(Quantized):
    """Integers with a scale and a zero point for each place of an axis, which take the axes of the integers."""


def quantize_per_channel(input: Tensor, scales: Tensor, zero_points: Tensor, axis: int, dtype: torch.dtype) -> Quantized:
    """float32 in steps of a scale for each place of an axis: torch.quantize_per_channel."""
    if dtype not in HOLDS:
        raise refused("torch.quantize_per_channel", f"the dtype {dtype}")
    shape = [-1 if place == axis % input.dim() else 1 for place in range(input.dim())]
    scales, zero_points = scales.to(torch.float32).reshape(shape), zero_points.reshape(shape)
    integers = rounded(input, (1.0 / scales).to(torch.float64), zero_points, dtype)
    return ByChannel(integers, scales, zero_points, dtype)  # type: ignore[arg-type]


def dequantize(input: Any) -> Any:
    """The numbers that integers stand for: float32."""
    if not isinstance(input, Tensor):
        return type(input)(map(dequantize, input))
    if isinstance(input, ByChannel):
        return (input.integers.to(torch.float32) - input.zero_point) * input.scale
    return centred(input) * single(input.scale) if isinstance(input, Quantized) else input.to(torch.float32)


def centred(x: Quantized, dtype: torch.dtype = torch.float32) -> Tensor:
    """Integers less their zero point."""
    whole = x.integers.to(torch.float64 if x.dtype is torch.qint32 else dtype)
    return (whole - x.zero_point if x.zero_point else whole).to(dtype)
