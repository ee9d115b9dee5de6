"""Sampling at the points of a grid."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

MODES = ("linear", "nearest", "cubic")
PADDINGS = ("zeros", "border", "reflection")


@imports("aten.grid_sampler.default", "aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def grid_sample(g: Importer, input: Value, grid: Value, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Value:
    return g.op("grid_sample", input, grid, mode=MODES[interpolation_mode], padding=PADDINGS[padding_mode],
                align_corners=bool(align_corners))


@imports("aten.affine_grid_generator.default", "neutral_model.affine_grid.default")
def affine_grid(g: Importer, theta: Value, size: list[Any], align_corners: bool) -> Value:
    return g.op("affine_grid", theta, size=tuple(size), align_corners=bool(align_corners))


@rebuilds("grid_sample")
def rebuild_grid_sample(x: torch.Tensor, grid: torch.Tensor, *, mode: str = "linear", padding: str = "zeros",
                        align_corners: bool = False) -> torch.Tensor:
    return F.grid_sample(x, grid, {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode), padding, align_corners)


@rebuilds("affine_grid")
def rebuild_affine_grid(theta: torch.Tensor, *, size: tuple[int, ...], align_corners: bool = False) -> torch.Tensor:
    return torch.affine_grid_generator(theta, list(size), align_corners)
