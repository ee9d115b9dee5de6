"""Pooling to a given number of windows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from adapters.torch.ops.pooling import spatial_axes
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

AVERAGE: tuple[Any, ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
MAX = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)


def _size(g: Importer, size: Any) -> tuple[Any, ...]:
    sizes = tuple(size) if isinstance(size, (list, tuple)) else (size,)
    return sizes * spatial_axes(g) if len(sizes) == 1 else sizes


@imports("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", "aten.adaptive_avg_pool3d.default",
         "aten._adaptive_avg_pool2d.default", "aten._adaptive_avg_pool3d.default")
def adaptive_avg_pool(g: Importer, self: Value, output_size: Any) -> Value:
    return g.op("adaptive_avg_pool", self, size=_size(g, output_size))


@imports("aten.adaptive_max_pool1d.default", "aten.adaptive_max_pool2d.default", "aten.adaptive_max_pool3d.default")
def adaptive_max_pool(g: Importer, self: Value, output_size: Any) -> tuple[Value, ...]:
    return g.add("adaptive_max_pool", self, size=_size(g, output_size))


@rebuilds("adaptive_avg_pool")
def rebuild_average(x: torch.Tensor, *, size: tuple[int, ...]) -> torch.Tensor:
    y: torch.Tensor = AVERAGE[len(size) - 1](x, size)
    return y


@rebuilds("adaptive_max_pool")
def rebuild_max(x: torch.Tensor, *, size: tuple[int, ...]) -> Any:
    return MAX[len(size) - 1](x, size, return_indices=True)
