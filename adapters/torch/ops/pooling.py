"""Pooling over windows of a fixed size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from adapters.torch.ops.convolution import fixed, trimmed
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType

MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
AVERAGE = (F.avg_pool2d, F.avg_pool3d)


def spatial_axes(g: Importer) -> int:
    """The digit in `aten.avg_pool2d.default`."""
    name = g.schema.name
    return int(next(name[index - 1] for index in range(len(name) - 1, 0, -1) if name[index] == "d" and name[index - 1].isdigit()))


def _window(g: Importer, kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> dict[str, Any]:
    axes = spatial_axes(g)
    kernel = fixed(g, kernel, axes, "the kernel")
    found = {"kernel": kernel, "padding": trimmed(fixed(g, padding, axes, "the padding"), 0),
             "stride": trimmed(fixed(g, stride, axes, "the stride"), kernel) if stride not in ([], (), None) else ()}
    dilation = trimmed(fixed(g, dilation, axes, "the dilation"), 1)
    return {**found, "dilation": dilation} if dilation else found


@imports("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default", "neutral_model.max_pool1d.default")
def max_pool(g: Importer, self: Value, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
             ceil_mode: bool = False) -> Value:
    return g.op("max_pool", self, **_window(g, kernel_size, stride, padding, dilation), ceil_mode=ceil_mode)


@imports("aten.max_pool1d_with_indices.default", "aten.max_pool2d_with_indices.default", "aten.max_pool3d_with_indices.default")
def max_pool_with_indices(g: Importer, self: Value, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
                          ceil_mode: bool = False) -> tuple[Value, ...]:
    return g.add("max_pool", self, **_window(g, kernel_size, stride, padding, dilation), ceil_mode=ceil_mode)


@imports("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
def avg_pool(g: Importer, self: Value, kernel_size: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
             count_include_pad: bool = True, divisor_override: int | None = None) -> Value:
    window = _window(g, kernel_size, stride, padding)
    if not self.dtype.is_float:
        # torch divides a window's integer sum towards zero; float64 holds both exactly.
        mean = avg_pool(g, g.cast(self, DType.FLOAT64), kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        return g.cast(g.op("trunc", mean), self.dtype)
    # Without padding the two ways to count are one.
    return g.op("avg_pool", self, **window, ceil_mode=ceil_mode, divisor_override=divisor_override,
                count_include_pad=count_include_pad or not window["padding"] or divisor_override is not None)


@imports("aten.max_unpool2d.default", "aten.max_unpool3d.default")
def max_unpool(g: Importer, self: Value, indices: Value, output_size: Any, stride: Any = None, padding: Any = None) -> Value:
    return g.op("max_unpool", self, indices, size=tuple(output_size))


@rebuilds("max_pool")
def rebuild_max_pool(x: torch.Tensor, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
                     dilation: tuple[int, ...] = (), ceil_mode: bool = False) -> Any:
    axes = len(kernel)
    if len(padding) < 2 * axes:
        return MAX[axes - 1](x, kernel, stride or kernel, padding or 0, dilation or 1, ceil_mode, True)
    lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    padded = padded_apart(x, padding, ceil_mode, lowest)
    y, places = MAX[axes - 1](padded, kernel, stride or kernel, 0, dilation or 1, False, True)
    found, step = torch.zeros_like(places), 1
    for axis in range(-1, -axes - 1, -1):  # places in what is padded as places in x
        found = found + step * (places % padded.shape[axis] - padding[axes + axis]).clamp(0, x.shape[axis] - 1)
        places, step = places // padded.shape[axis], step * x.shape[axis]
    return y, found


def padded_apart(x: torch.Tensor, padding: tuple[int, ...], ceil_mode: bool, value: float = 0) -> torch.Tensor:
    """x with what a window's padding adds before and after each axis, which torch's pools take as one number."""
    if ceil_mode:
        raise NotImplementedError("padding that differs between the two sides, where the last window may stick out")
    axes = len(padding) // 2
    return F.pad(x, [padding[place] for axis in range(axes - 1, -1, -1) for place in (axis, axes + axis)], value=value)


@rebuilds("avg_pool")
def rebuild_avg_pool(x: torch.Tensor, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
                     ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> torch.Tensor:
    axes, counts = len(kernel), None
    if len(padding) == 2 * axes:
        if not count_include_pad and divisor_override is None:
            counts, divisor_override = padded_apart(torch.ones_like(x), padding, ceil_mode), 1
        x, padding = padded_apart(x, padding, ceil_mode), ()
    kernel, stride, padding = tuple(kernel), tuple(stride or kernel), tuple(padding or (0,) * axes)
    if axes == 1:  # torch's own takes no divisor
        kernel, stride, padding = (1, *kernel), (1, *stride), (0, *padding)

    def averaged(values: torch.Tensor) -> torch.Tensor:
        values = values.unsqueeze(-2) if axes == 1 else values
        found = AVERAGE[len(kernel) - 2](values, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
        return found.squeeze(-2) if axes == 1 else found

    return averaged(x) if counts is None else averaged(x) / averaged(counts)


@rebuilds("max_unpool")
def rebuild_max_unpool(x: torch.Tensor, indices: torch.Tensor, *, size: tuple[int, ...]) -> torch.Tensor:
    lead = x.shape[:-len(size)]
    places = torch.Size(size).numel()
    y = x.new_zeros((*lead, places)).scatter(-1, indices.flatten(len(lead)), x.flatten(len(lead)))
    return y.reshape(*lead, *size)
