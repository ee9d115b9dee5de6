"""Sampling at the points of a grid."""

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from tests.op_cases import Case, Input, f32, f64


def points(*shape: int | str) -> Input:
    """Most inside, some outside, a few far outside."""
    return Input(shape, lambda rng, size: (rng.standard_normal(size) * 0.8).astype(np.float32))


def dyadic(*shape: int | str) -> Input:
    """float64 multiples of 1/32, so that coordinates in an image whose sides are powers of two are exact."""
    return Input(shape, lambda rng, size: rng.integers(-40, 41, size) / 32)


def sample(mode: str, padding: str, corners: bool) -> Any:
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, corners)


def turned(theta: Tensor, x: Tensor) -> Tensor:
    return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False)


CASES = [
    *(Case("grid_sample", sample(mode, padding, corners), f32("batch", 3, "height", "width"), points("batch", 6, 5, 2),
           name=f"{mode} {padding} {'corners' if corners else 'edges'}")
      for mode in ("bilinear", "nearest", "bicubic") for padding in ("zeros", "border", "reflection") for corners in (False, True)),
    *(Case("grid_sample", sample(mode, padding, corners), f32("batch", 2, 3, "height", "width"), points("batch", 4, 3, 5, 3),
           name=f"3d {mode} {padding} {'corners' if corners else 'edges'}")
      for mode in ("bilinear", "nearest") for padding, corners in (("zeros", False), ("border", True), ("reflection", False))),
    Case("grid_sample", sample("bilinear", "zeros", False), f64("batch", 3, 8, 16), dyadic("batch", 6, 5, 2), name="float64"),
    Case("affine_grid", lambda theta: F.affine_grid(theta, [theta.shape[0], 3, 5, 7], align_corners=False), f32("batch", 2, 3), name="2d"),
    Case("affine_grid", lambda theta: F.affine_grid(theta, [theta.shape[0], 3, 5, 2], align_corners=True), f32("batch", 2, 3),
         name="2d corners"),
    Case("affine_grid", lambda theta: F.affine_grid(theta, [theta.shape[0], 3, 4, 5, 7], align_corners=False), f32("batch", 3, 4),
         name="3d"),
    Case("affine_grid", turned, f32("batch", 2, 3), f32("batch", 3, 8, 9), name="spatial transformer"),
    Case("affine_grid", lambda theta: F.affine_grid(theta, [theta.shape[0], 3, 5, 7], align_corners=False), f64("batch", 2, 3),
         name="float64"),
]
