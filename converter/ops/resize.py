"""Images to another size: nearest, linear and cubic interpolation on one, two or three spatial axes."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from converter.dims import Dim, maximum
from converter.facts import Facts
from converter.formulas import Space, Term, counted, dtype_of, widened
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import require
from converter.ops._spatial import spatial_rank, wide
from converter.opset import ARRAYS, op

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


def _step(f: Space, incoming: Dim, outgoing: Dim, scale: float | None, align_corners: bool, dtype: DType) -> Term:
    """How far apart in the input two neighbours of the output lie (torch's `area_pixel_compute_scale`), in `dtype`."""
    if align_corners:
        return f.full(shape=(), fill_value=incoming - 1, dtype=dtype) / maximum(outgoing - 1, 1)
    return f.full(shape=(), fill_value=1.0 / scale, dtype=dtype) if scale else f.full(shape=(), fill_value=incoming, dtype=dtype) / outgoing


def nearest(f: Space, incoming: Dim, outgoing: Dim, scale: float | None, exact: bool) -> Term:
    """The input's index for each output: float32 arithmetic whatever the data's dtype, as torch has it, done in float64."""
    ratio = _rounded(f, _step(f, incoming, outgoing, scale, False, DType.FLOAT64))
    places = f.astype(counted(f, outgoing), dtype=DType.FLOAT64) + (0.5 if exact else 0.0)
    return f.minimum(f.astype(f.floor(_rounded(f, places * ratio)), dtype=DType.INT64), incoming - 1)


def _rounded(f: Space, x: Term) -> Term:
    """Positive float64 numbers rounded to the 24 digits of float32."""
    mantissa, exponent = f.frexp(x)
    return f.round(mantissa * 2.0 ** 24) * f.power(2.0, f.astype(exponent, dtype=DType.FLOAT64) - 24.0)


def cubic(f: Space, distance: Term, a: float) -> Term:
    """Keys' kernel."""
    near = (distance * (a + 2) - (a + 3)) * distance * distance + 1.0
    far = ((distance * a - 5 * a) * distance + 8 * a) * distance - 4 * a
    return f.where(distance <= 1.0, near, f.where(distance < 2.0, far, 0.0))


def weights(f: Space, incoming: Dim, outgoing: Dim, mode: str, align_corners: bool, antialias: bool, scale: float | None,
            dtype: DType) -> tuple[Term, Term, Term | None]:
    """(places, shares, which of them count) of [outgoing, taps]: what each output takes from which of the input's indices."""
    ratio = _step(f, incoming, outgoing, scale, align_corners, dtype)
    index = f.astype(counted(f, outgoing, 0, 2), dtype=dtype)
    if antialias:
        reach = 1 if mode == "linear" else 2
        stretch = f.maximum(ratio, 1.0)
        support, centre = stretch * float(reach), ratio * (index + 0.5)
        start = f.maximum(f.astype(centre - support + 0.5, dtype=DType.INT64), 0)
        end = f.minimum(f.astype(centre + support + 0.5, dtype=DType.INT64), incoming)
        # As many as a window is wide at most, and two for its ends.
        width = 2 * reach * math.ceil(max(1.0 / scale, 1.0)) if scale and not align_corners else 2 * reach * (
            (maximum(incoming, outgoing) + outgoing - 1) // outgoing if not align_corners else
            (maximum(incoming, outgoing) - 1) // maximum(outgoing - 1, 1) + 1)
        places = start + counted(f, width + 2, 1, 2)
        distance = f.abs((f.astype(places, dtype=dtype) - centre + 0.5) / stretch)
        shares = f.maximum(f.subtract(1.0, distance), 0.0) if mode == "linear" else cubic(f, distance, -0.5)
        held = places < end
        shares = f.where(held, shares, 0.0)
        return f.minimum(places, incoming - 1), shares / f.sum(shares, axis=(1,), keepdims=True), held
    source = ratio * index if align_corners else ratio * (index + 0.5) - 0.5
    if mode == "linear":
        source = f.maximum(source, 0.0)
        lower = f.minimum(f.astype(f.floor(source), dtype=DType.INT64), incoming - 1)
        share = f.clip(source - f.astype(lower, dtype=dtype), 0.0, 1.0)
        return f.concat(lower, f.minimum(lower + 1, incoming - 1), axis=1), f.concat(f.subtract(1.0, share), share, axis=1), None
    lower = f.floor(source)
    offset = source - lower
    distance = f.concat(offset + 1.0, offset, f.subtract(1.0, offset), f.subtract(2.0, offset), axis=1)
    places = f.astype(lower, dtype=DType.INT64) + (counted(f, 4, 1, 2) - 1)
    return f.minimum(f.maximum(places, 0), incoming - 1), cubic(f, distance, -0.75), None


@widened
def _mixed(f: Space, x: Term, *, size: tuple[Dim, ...], mode: str, align_corners: bool, antialias: bool,
           scale: tuple[float | None, ...]) -> Term:
    for axis, outgoing, factor in zip(range(x.ndim - len(size), x.ndim), size, scale or (None,) * len(size), strict=True):
        incoming = x.shape[axis]
        if mode in ("nearest", "nearest-exact"):
            x = f.take(x, nearest(f, incoming, outgoing, factor, mode == "nearest-exact"), axis=axis)
        elif incoming != outgoing or factor and not align_corners:
            places, shares, held = (None if item is None else f.reshape(item, shape=(*item.shape, *[1] * (x.ndim - axis - 1))) if number
                                    else item for number, item in enumerate(weights(f, incoming, outgoing, mode, align_corners, antialias,
                                                                                     factor, dtype_of(x))))
            taken = f.take(x, places, axis=axis)
            x = f.sum((taken if held is None else f.where(held, taken, 0.0)) * shares, axis=(axis + 1,))
    return x


@op(infer=_interpolate, formula=_mixed, facts=Facts(finite=True))
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
        return np.asarray(_mixed(ARRAYS, x, size=size, mode=mode, align_corners=False, antialias=False, scale=scale))
    dtype = wide(x.dtype)
    y = x.astype(dtype, copy=False)
    for axis, outgoing, factor in zip(range(x.ndim - axes, x.ndim), size, factors, strict=True):
        incoming = y.shape[axis]
        if incoming == outgoing and (not factor or align_corners):
            continue
        places, shares, held = weights(ARRAYS, incoming, outgoing, mode, align_corners, antialias, factor, DType.of(dtype))
        moved = np.moveaxis(y, axis, -1)
        total = np.zeros((*moved.shape[:-1], len(places)), dtype)
        for tap in range(places.shape[1]):
            taken = moved[..., places[:, tap]]
            total += (taken if held is None else np.where(held[:, tap], taken, 0)) * shares[:, tap]
        y = np.moveaxis(total, -1, axis)
    return y.astype(x.dtype, copy=False)
