"""Sampling an image at given points, and the grids of points that affine maps make."""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np

from converter.dims import Dim
from converter.ir import TensorSpec
from converter.ops._rules import Array, require, require_float, require_rank, require_size, same_dtype
from converter.ops._spatial import wide
from converter.opset import op

Mode = Literal["linear", "nearest", "cubic"]
Padding = Literal["zeros", "border", "reflection"]


def _grid_sample(x: TensorSpec, grid: TensorSpec, *, mode: Mode = "linear", padding: Padding = "zeros",
                 align_corners: bool = False) -> TensorSpec:
    require_float(x)
    require_rank(x, 4, 5)
    require_rank(grid, x.rank, what="the grid")
    require_size(grid.shape[0], x.shape[0], "the grid's batch")
    require_size(grid.shape[-1], x.rank - 2, "the grid's last axis")
    require(mode != "cubic" or x.rank == 4, "cubic sampling of a volume", expected="an image of 4 axes", received=x)
    return TensorSpec(same_dtype(x, grid), (*x.shape[:2], *grid.shape[1:-1]))


def _reflect(place: Array, low: float, high: float) -> Array:
    """Back and forth between `low` and `high`."""
    if high == low:
        return np.zeros_like(place)
    span = place.dtype.type(high - low)
    distance = np.abs(place - place.dtype.type(low))
    over = np.fmod(distance, span)
    y: Array = np.where(np.floor(distance / span) % 2 == 0, over, span - over) + place.dtype.type(low)
    return y


def _placed(place: Array, size: int, padding: str, align_corners: bool) -> Array:
    """Coordinates brought inside as `padding` says, NaN to the first element."""
    if padding == "reflection":
        place = _reflect(place, 0, size - 1) if align_corners else _reflect(place, -0.5, size - 0.5)
    if padding != "zeros":
        place = np.minimum(np.maximum(np.where(np.isnan(place), 0, place), 0), place.dtype.type(size - 1))
    return place


def _picked(x: Array, places: list[Array]) -> Array:
    """x[n, c, places...] for whole-numbered coordinates of [n, ...]; zero for those outside."""
    batch = x.shape[0]
    inside = np.ones(places[0].shape, bool)
    indices = []
    for place, size in zip(places, x.shape[2:], strict=True):
        held = (place >= 0) & (place < size)
        inside &= held
        indices.append(np.where(held, place, 0).astype(np.int64))
    rows = np.arange(batch).reshape(-1, *[1] * (places[0].ndim - 1))
    values = np.moveaxis(x, 1, -1)[(rows, *indices)]
    return np.moveaxis(np.where(inside[..., None], values, 0), -1, 1)


@op(infer=_grid_sample)
def grid_sample(x: Array, grid: Array, *, mode: Mode = "linear", padding: Padding = "zeros", align_corners: bool = False) -> Array:
    """x at the points of `grid`: torch.nn.functional.grid_sample.

    x: [batch, channels, (depth,) height, width]; grid: [batch, *out, 2 or 3] in the order x, y(, z), -1 and 1 being the
    centres of the first and last element with `align_corners`, else their outer edges. y: [batch, channels, *out].
    A coordinate g becomes (g + 1) / 2 · (size - 1), or ((g + 1) · size - 1) / 2. `linear` mixes the neighbours of each
    axis, `nearest` rounds half to even, `cubic` uses Keys' kernel with a = -0.75 (images only).
    Outside: `zeros` are zero, `border` is the nearest element, `reflection` mirrors at the edges.
    """
    dtype = wide(x.dtype)
    wider, half = x.astype(dtype, copy=False), dtype.type(0.5)
    sizes = x.shape[2:]
    points = np.moveaxis(grid.astype(dtype, copy=False), -1, 0)[::-1]
    places = [((point + 1) * half * dtype.type(size - 1)) if align_corners else ((point + 1) * dtype.type(size) - 1) * half
              for point, size in zip(points, sizes, strict=True)]
    if mode == "cubic":
        y = _cubic_sample(wider, places, padding, align_corners)
        return y.astype(x.dtype, copy=False)
    places = [_placed(place, size, padding, align_corners) for place, size in zip(places, sizes, strict=True)]
    if mode == "nearest":
        return _picked(wider, [np.rint(place) for place in places]).astype(x.dtype, copy=False)
    lower = [np.floor(place) for place in places]
    total = np.zeros((*x.shape[:2], *grid.shape[1:-1]), dtype)
    for corner in product((0, 1), repeat=len(sizes)):
        share = np.ones(places[0].shape, dtype)
        for place, low, side in zip(places, lower, corner, strict=True):
            share = share * (place - low if side else low + 1 - place)
        # Where no neighbour lies inside, zero times an infinite share is zero.
        value = _picked(wider, [low + side for low, side in zip(lower, corner, strict=True)])
        total += np.where(np.isfinite(share[:, None]), value * share[:, None], 0)
    return total.astype(x.dtype, copy=False)


def _cubic_sample(x: Array, places: list[Array], padding: str, align_corners: bool) -> Array:
    from converter.ops.resize import _cubic

    lower = [np.floor(place) for place in places]
    total = np.zeros((*x.shape[:2], *places[0].shape[1:]), x.dtype)
    for corner in product((-1, 0, 1, 2), repeat=2):
        share = np.ones(places[0].shape, x.dtype)
        spots = []
        for place, low, side, size in zip(places, lower, corner, x.shape[2:], strict=True):
            share = share * _cubic(np.abs(place - (low + side)), -0.75).astype(x.dtype)
            spots.append(_placed(low + side, size, padding, align_corners))
        spots = [np.rint(spot) if padding == "reflection" else spot for spot in spots]
        total += np.where(np.isfinite(share[:, None]), _picked(x, spots) * share[:, None], 0)
    return total


def _affine_grid(theta: TensorSpec, *, size: tuple[Dim, ...], align_corners: bool = False) -> TensorSpec:
    require_float(theta)
    require_rank(theta, 3, what="theta")
    require(len(size) in (4, 5), "wrong length of 'size'", expected="[batch, channels, (depth,) height, width]",
            received=list(map(str, size)))
    axes = len(size) - 2
    require_size(theta.shape[0], size[0], "theta's batch")
    require_size(theta.shape[1], axes, "theta's rows")
    require_size(theta.shape[2], axes + 1, "theta's columns")
    return TensorSpec(theta.dtype, (theta.shape[0], *size[2:], axes))


@op(infer=_affine_grid)
def affine_grid(theta: Array, *, size: tuple[Dim, ...], align_corners: bool = False) -> Array:
    """The points for `grid_sample` that affine maps make: torch.nn.functional.affine_grid.

    theta: [batch, 2, 3] or [batch, 3, 4]; size: [batch, channels, (depth,) height, width] of the image to make.
    y: [batch, (depth,) height, width, 2 or 3] = theta · (x, y(, z), 1), each coordinate going from -1 to 1 with
    `align_corners` (0 for one element), else in the middles of as many equal parts.
    """
    dtype = wide(theta.dtype)
    spatial = [int(item) for item in size[2:]]  # type: ignore[arg-type]
    ends = [1.0 if align_corners else (count - 1) / max(count, 1) for count in spatial]
    steps = [np.linspace(-end, end, count, dtype=dtype) if count > 1 else np.zeros(count, dtype)
             for end, count in zip(ends, spatial, strict=True)]
    axes = np.meshgrid(*steps, indexing="ij")
    points = np.stack([*axes[::-1], np.ones(spatial, dtype)], -1).reshape(-1, len(spatial) + 1)
    y: Array = np.matmul(points, theta.astype(dtype, copy=False).transpose(0, 2, 1))
    return y.reshape(theta.shape[0], *spatial, len(spatial)).astype(theta.dtype, copy=False)
