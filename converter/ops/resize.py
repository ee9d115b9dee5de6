"""Images to another size: nearest, linear and cubic interpolation on one, two or three spatial axes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from converter.dims import Dim
from converter.facts import Facts
from converter.ir import TensorSpec
from converter.ops._rules import Array, require
from converter.ops._spatial import spatial_rank, wide
from converter.opset import op

Mode = Literal["nearest", "nearest-exact", "linear", "cubic"]


def _interpolate(x: TensorSpec, *, size: tuple[Dim, ...], mode: Mode, align_corners: bool = False, antialias: bool = False,
                 scale: tuple[float | None, ...] = ()) -> TensorSpec:
    axes = len(size)
    require(axes in (1, 2, 3), "wrong length of 'size'", expected="1 to 3 sizes", received=list(map(str, size)))
    spatial_rank(x, axes)
    require(len(scale) in (0, axes), "wrong length of 'scale'", expected=f"{axes} numbers", received=list(scale))
    require(all(item is None or item > 0 for item in scale), "'scale' out of range", expected="above 0", received=list(scale))
    require(x.dtype.is_float or mode in ("nearest", "nearest-exact"), "mixing values of a dtype that is not floating",
            expected="a float dtype, or mode 'nearest'", received=x)
    require(not (align_corners or antialias) or mode in ("linear", "cubic"), "an option that nearest neighbours do not have",
            expected="mode 'linear' or 'cubic'", received=mode)
    for item in size:
        require(not isinstance(item, int) or item > 0, "'size' out of range", expected="1 or more", received=item)
    return TensorSpec(x.dtype, x.shape[:-axes] + size)


def step(incoming: int, outgoing: int, scale: float | None, align_corners: bool, dtype: np.dtype[Any]) -> Any:
    """How far apart in the input two neighbours of the output lie (torch's `area_pixel_compute_scale`), in `dtype`."""
    if align_corners:
        return dtype.type(incoming - 1) / dtype.type(outgoing - 1) if outgoing > 1 else dtype.type(0)
    return dtype.type(1.0 / scale) if scale else dtype.type(incoming) / dtype.type(outgoing)


def nearest(incoming: int, outgoing: int, scale: float | None, exact: bool) -> Array:
    """The input's index for each output: float32 arithmetic whatever the data's dtype, as torch has it."""
    ratio = step(incoming, outgoing, scale, False, np.dtype(np.float32))
    places = np.arange(outgoing, dtype=np.float32)
    indices: Array = np.floor((places + np.float32(0.5)) * ratio if exact else places * ratio).astype(np.int64)
    return np.minimum(indices, incoming - 1)


def _cubic(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def weights(incoming: int, outgoing: int, mode: str, align_corners: bool, antialias: bool, scale: float | None,
            dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """(places, shares) of [outgoing, taps]: what each output takes from which of the input's indices."""
    ratio = step(incoming, outgoing, scale, align_corners, dtype)
    index = np.arange(outgoing).astype(dtype)
    half = dtype.type(0.5)
    if antialias:
        reach = 1.0 if mode == "linear" else 2.0
        stretch = max(ratio, dtype.type(1))
        support = dtype.type(reach) * stretch
        centre = ratio * (index + half)
        start = np.maximum((centre - support + half).astype(np.int64), 0)
        end = np.minimum((centre + support + half).astype(np.int64), incoming)
        places = start[:, None] + np.arange(int((end - start).max()))
        distance = np.abs((places - centre[:, None] + half) / stretch).astype(dtype)
        shares = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, -0.5)
        shares = np.where(places < end[:, None], shares, 0)
        return np.minimum(places, incoming - 1), (shares / shares.sum(1, keepdims=True)).astype(dtype)
    source = ratio * index if align_corners else ratio * (index + half) - half
    if mode == "linear":
        source = np.maximum(source, 0)
        lower = np.minimum(np.floor(source).astype(np.int64), incoming - 1)
        share = np.clip(source - lower, 0, 1)
        return np.stack([lower, np.minimum(lower + 1, incoming - 1)], 1), np.stack([1 - share, share], 1).astype(dtype)
    lower = np.floor(source).astype(np.int64)
    offset = (source - lower).astype(dtype)
    distance = np.stack([offset + 1, offset, 1 - offset, 2 - offset], 1)
    return np.clip(lower[:, None] + np.arange(-1, 3), 0, incoming - 1), _cubic(distance, -0.75).astype(dtype)


@op(infer=_interpolate, facts=Facts(finite=True))
def interpolate(x: Array, *, size: tuple[Dim, ...], mode: Mode, align_corners: bool = False, antialias: bool = False,
                scale: tuple[float | None, ...] = ()) -> Array:
    """x at another size: torch.nn.functional.interpolate.

    x: [batch, channels, *spatial] or [channels, *spatial]; y: [batch?, channels, *size]. `linear` and `cubic` work one
    axis after the other (bilinear, trilinear, bicubic). Output i of an axis lies in the input at
    s = r·(i + 0.5) - 0.5, with `align_corners` at r·i, where r = in / out (1 / `scale` where that is given) or, with
    `align_corners`, (in - 1) / (out - 1), 0 for one output.
    `nearest`: index floor(r·i); `nearest-exact`: floor(r·(i + 0.5)); both in float32 arithmetic, at most in - 1.
    `linear`: between floor(s) and its successor, s at least 0. `cubic`: Keys' kernel with a = -0.75 over four
    neighbours; indices outside the input are those of its edge.
    `antialias`: the triangle or Keys' kernel with a = -0.5, as wide as max(r, 1) says, cut off at the edges, its
    weights made to add up to 1.
    """
    axes = len(size)
    factors = scale or (None,) * axes
    if mode in ("nearest", "nearest-exact"):
        for axis, outgoing, factor in zip(range(x.ndim - axes, x.ndim), size, factors, strict=True):
            x = np.take(x, nearest(x.shape[axis], int(outgoing), factor, mode == "nearest-exact"), axis)  # type: ignore[arg-type]
        return x
    dtype = wide(x.dtype)
    y = x.astype(dtype, copy=False)
    for axis, outgoing, factor in zip(range(x.ndim - axes, x.ndim), size, factors, strict=True):
        incoming = y.shape[axis]
        if incoming == outgoing and (not factor or align_corners):
            continue
        places, shares = weights(incoming, int(outgoing), mode, align_corners, antialias, factor, dtype)  # type: ignore[arg-type]
        moved = np.moveaxis(y, axis, -1)
        total = np.zeros((*moved.shape[:-1], len(places)), dtype)
        for tap in range(places.shape[1]):
            total += moved[..., places[:, tap]] * shares[:, tap]
        y = np.moveaxis(total, -1, axis)
    return y.astype(x.dtype, copy=False)
