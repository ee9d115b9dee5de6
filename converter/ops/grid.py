"""Sampling an image at given points, and the grids of points that affine maps make."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product as product_of
from typing import Any, Literal

from converter.dims import Dim, maximum, product
from converter.formulas import Space, Term, counted, dtype_of, widened
from converter.ir import DType, TensorSpec
from converter.ops._rules import require, require_float, require_rank, require_size, same_dtype
from converter.ops.resize import cubic
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


def _placed(f: Space, place: Term, size: Dim, padding: str, align_corners: bool) -> Term:
    """Coordinates brought inside as `padding` says, NaN to the first element."""
    if padding == "zeros":
        return place
    if padding == "reflection":
        # Back and forth between the centres of the outer elements, or their edges.
        low, span = (0.0, maximum(size - 1, 1)) if align_corners else (-0.5, size)
        distance = f.abs(place - low)
        over = f.fmod(distance, span)
        even = f.equal(f.fmod(f.floor(distance / span), 2.0), 0.0)
        place = f.where(even, over, f.subtract(span, over)) + low
    return f.minimum(f.maximum(f.where(f.isnan(place), 0.0, place), 0.0), size - 1)


def _picked(f: Space, x: Term, places: list[Term]) -> Term:
    """x[n, c, places...] for whole-numbered coordinates of [n, ...]; zero for those outside."""
    inside: Any = None
    flat: Any = None
    for place, size in zip(places, x.shape[2:], strict=True):
        held = (place >= 0.0) & f.less(place, size)
        inside = held if inside is None else inside & held
        index = f.astype(f.where(held, place, 0.0), dtype=DType.INT64)
        flat = index if flat is None else flat * size + index
    out = flat.shape[1:]
    flat = f.broadcast_to(f.reshape(flat, shape=(flat.shape[0], 1, product(out))), shape=(*x.shape[:2], product(out)))
    values = f.take_along_axis(f.reshape(x, shape=(*x.shape[:2], product(x.shape[2:]))), flat, axis=2)
    return f.where(f.expand_dims(inside, axis=(1,)), f.reshape(values, shape=(*x.shape[:2], *out)), 0.0)


@op(infer=_grid_sample)
@widened
def grid_sample(f: Space, x: Term, grid: Term, *, mode: Mode = "linear", padding: Padding = "zeros", align_corners: bool = False) -> Term:
    """x at the points of `grid`: torch.nn.functional.grid_sample.

    x: [batch, channels, (depth,) height, width]; grid: [batch, *out, 2 or 3] in the order x, y(, z), -1 and 1 being the
    centres of the first and last element with `align_corners`, else their outer edges. y: [batch, channels, *out].
    A coordinate g becomes (g + 1) / 2 · (size - 1), or ((g + 1) · size - 1) / 2. `linear` mixes the neighbours of each
    axis, `nearest` rounds half to even, `cubic` uses Keys' kernel with a = -0.75 (images only).
    Outside: `zeros` are zero, `border` is the nearest element, `reflection` mirrors at the edges.
    """
    sizes = x.shape[2:]
    points = [f.select(grid, axis=-1, index=len(sizes) - 1 - axis) + 1.0 for axis in range(len(sizes))]
    places = [point * 0.5 * (size - 1) if align_corners else (point * size - 1.0) * 0.5 for point, size in zip(points, sizes, strict=True)]

    def inside(items: Iterable[Term]) -> list[Term]:
        return [_placed(f, item, size, padding, align_corners) for item, size in zip(items, sizes, strict=True)]

    places = places if mode == "cubic" else inside(places)
    if mode == "nearest":
        return _picked(f, x, [f.round(place) for place in places])
    lower = [f.floor(place) for place in places]
    total: Term = 0.0
    for corner in product_of((0, 1) if mode == "linear" else (-1, 0, 1, 2), repeat=len(sizes)):
        spots, share = [low + side for low, side in zip(lower, corner, strict=True)], None
        for place, low, spot, side in zip(places, lower, spots, corner, strict=True):
            part = cubic(f, f.abs(place - spot), -0.75) if mode == "cubic" else place - low if side else low + 1.0 - place
            share = part if share is None else share * part
        if mode == "cubic":
            spots = [f.round(spot) if padding == "reflection" else spot for spot in inside(spots)]
        # Where no neighbour lies inside, zero times an infinite share is zero.
        share = f.expand_dims(share, axis=(1,))
        total = f.where(f.isfinite(share), _picked(f, x, spots) * share, 0.0) + total
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
@widened
def affine_grid(f: Space, theta: Term, *, size: tuple[Dim, ...], align_corners: bool = False) -> Term:
    """The points for `grid_sample` that affine maps make: torch.nn.functional.affine_grid.

    theta: [batch, 2, 3] or [batch, 3, 4]; size: [batch, channels, (depth,) height, width] of the image to make.
    y: [batch, (depth,) height, width, 2 or 3] = theta · (x, y(, z), 1), each coordinate going from -1 to 1 with
    `align_corners` (0 for one element), else in the middles of as many equal parts.
    """
    spatial, rank = size[2:], len(size) - 2
    columns = []
    for axis in reversed(range(rank)):
        count = spatial[axis]
        # The whole numbers from 1 - count to count - 1 by twos.
        twice = f.astype(counted(f, count, axis, rank) * 2 - (count - 1), dtype=DType.FLOAT64)
        steps = f.astype(twice / maximum(count - 1 if align_corners else count, 1), dtype=dtype_of(theta))
        columns.append(f.broadcast_to(steps, shape=spatial))
    columns.append(f.full(shape=spatial, fill_value=1.0, dtype=dtype_of(theta)))
    points = f.reshape(f.stack(*columns, axis=-1), shape=(product(spatial), rank + 1))
    y = f.matmul(points, f.permute_dims(theta, axes=(0, 2, 1)))
    return f.reshape(y, shape=(theta.shape[0], *spatial, rank))
