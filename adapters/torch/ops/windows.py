"""Sliding windows and blocks of images."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.ops.manipulation import reshaped
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import Dim

Tensor = torch.Tensor
Pair = tuple[int, int]


def _pair(value: list[int]) -> Pair:
    return (value[0], value[-1])


@imports("aten.unfold.default", "aten.unfold_copy.default")
def unfold(g: Importer, self: Value, dimension: int, size: int, step: int) -> Value:
    if self.rank == 0:
        return reshaped(g, self, g.result_shape()) if size == 1 else g.op("full", shape=(0,), fill_value=0, dtype=self.dtype)
    return g.op("unfold", self, axis=dimension % self.rank, size=size, step=step)


def _window(kernel_size: list[int], dilation: list[int], padding: list[int], stride: list[int]) -> dict[str, Any]:
    return {"kernel_size": _pair(kernel_size), "dilation": _pair(dilation), "padding": _pair(padding), "stride": _pair(stride)}


@imports("aten.im2col.default")
def im2col(g: Importer, self: Value, kernel_size: list[int], dilation: list[int], padding: list[int], stride: list[int]) -> Value:
    return g.op("im2col", self, **_window(kernel_size, dilation, padding, stride))


@imports("aten.col2im.default")
def col2im(g: Importer, self: Value, output_size: list[Dim], kernel_size: list[int], dilation: list[int], padding: list[int],
           stride: list[int]) -> Value:
    return g.op("col2im", self, output_size=(output_size[0], output_size[-1]), **_window(kernel_size, dilation, padding, stride))


@imports("aten.pixel_shuffle.default")
def pixel_shuffle(g: Importer, self: Value, upscale_factor: int) -> Value:
    return self if upscale_factor == 1 else g.op("pixel_shuffle", self, factor=upscale_factor)


@imports("aten.pixel_unshuffle.default")
def pixel_unshuffle(g: Importer, self: Value, downscale_factor: int) -> Value:
    return self if downscale_factor == 1 else g.op("pixel_unshuffle", self, factor=downscale_factor)


@imports("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def channel_shuffle(g: Importer, self: Value, groups: int) -> Value:
    return self if groups in (1, self.shape[1]) else g.op("channel_shuffle", self, groups=groups)


@rebuilds("unfold")
def rebuild_unfold(x: Tensor, *, axis: int, size: int, step: int) -> Tensor:
    return x.unfold(axis, size, step)


@rebuilds("im2col")
def rebuild_im2col(x: Tensor, *, kernel_size: Pair, dilation: Pair = (1, 1), padding: Pair = (0, 0), stride: Pair = (1, 1)) -> Tensor:
    return torch.nn.functional.unfold(x, kernel_size, dilation, padding, stride)


@rebuilds("col2im")
def rebuild_col2im(x: Tensor, *, output_size: Pair, kernel_size: Pair, dilation: Pair = (1, 1), padding: Pair = (0, 0),
                   stride: Pair = (1, 1)) -> Tensor:
    return torch.nn.functional.fold(x, output_size, kernel_size, dilation, padding, stride)


@rebuilds("pixel_shuffle")
def rebuild_pixel_shuffle(x: Tensor, *, factor: int) -> Tensor:
    return torch.nn.functional.pixel_shuffle(x, factor)


@rebuilds("pixel_unshuffle")
def rebuild_pixel_unshuffle(x: Tensor, *, factor: int) -> Tensor:
    return torch.nn.functional.pixel_unshuffle(x, factor)


@rebuilds("channel_shuffle")
def rebuild_channel_shuffle(x: Tensor, *, groups: int) -> Tensor:
    return torch.nn.functional.channel_shuffle(x, groups)
