"""Keeps `max_pool1d` free of the traced length.

`torch.export` fixes every size that goes through `aten.max_pool1d`, though not through its two-dimensional sibling. While
`free_lengths()` is active the function is a custom operator whose fake implementation keeps the sizes symbolic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

ORIGINAL = torch.max_pool1d


@torch.library.custom_op("neutral_model::max_pool1d", mutates_args=())
def _max_pool1d(x: Tensor, kernel_size: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Tensor:
    y = torch.max_pool2d(x.unsqueeze(-2), (1, kernel_size), (1, stride), (0, padding), (1, dilation), ceil_mode)
    return y.squeeze(-2).clone()


@_max_pool1d.register_fake
def _fake(x: Tensor, kernel_size: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Tensor:
    y = torch.max_pool2d(x.unsqueeze(-2), (1, kernel_size), (1, stride), (0, padding), (1, dilation), ceil_mode)
    return y.squeeze(-2)


def _one(value: int | Sequence[int]) -> Any:
    return value[0] if isinstance(value, Sequence) and len(value) == 1 else value


@contextmanager
def free_lengths() -> Iterator[None]:
    """While active, `torch.max_pool1d` (and with it `nn.MaxPool1d`) is traced as one operator of free length."""

    def max_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                   ceil_mode: bool = False) -> Tensor:
        kernel = _one(kernel_size)
        given = _one(stride) if stride not in (None, [], ()) else kernel
        settings = (kernel, given, _one(padding), _one(dilation))
        if not all(isinstance(value, int) for value in settings):
            return ORIGINAL(input, kernel_size, stride, padding, dilation, ceil_mode)
        return torch.ops.neutral_model.max_pool1d(input, *settings, ceil_mode)

    torch.max_pool1d = max_pool1d
    try:
        yield
    finally:
        torch.max_pool1d = ORIGINAL
