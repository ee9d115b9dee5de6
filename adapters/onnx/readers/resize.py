"""Images at other sizes and places: `Resize`, `Upsample`, `GridSample`, `AffineGrid`.

Axes of known sizes are resized by a matrix of weights or a list of places, made here by ONNX's formulas; axes of free sizes by
`interpolate`, where that has the same formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import Dim, Expr
from converter.ir import Array, DType

MOST = 1 << 22
"""Places along an axis of which each says where it lies in the input."""


def coordinates(size: int, out: int, scale: float, mode: str, span: tuple[float, float]) -> Array:
    """float64[out]: where each place of the result lies in the input."""
    at = np.arange(out, dtype=np.float64)
    if mode == "half_pixel":
        return (at + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return size / 2 * (1 - out / (scale * size)) + (at + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (at + 0.5) / scale - 0.5 if out > 1 else np.zeros(1)
    if mode == "align_corners":
        return at * (size - 1) / (out - 1) if out > 1 else np.zeros(out)
    if mode == "asymmetric":
        return at / scale
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if mode == "tf_crop_and_resize":
        start, end = span
        if out > 1:
            return start * (size - 1) + at * (end - start) * (size - 1) / (out - 1)
        return np.full(out, 0.5 * (start + end) * (size - 1))
    raise ValueError(mode)


def nearest(at: Array, size: int, mode: str) -> Array:
    """int64[out]: the place of the input that is taken."""
    rounding: dict[str, Any] = {"round_prefer_floor": lambda x: np.ceil(x - 0.5), "round_prefer_ceil": lambda x: np.floor(x + 0.5),
                "floor": np.floor, "ceil": np.ceil}
    return np.clip(rounding[mode](at), 0, size - 1).astype(np.int64)


def _kernel(mode: str, a: float) -> tuple[Any, float]:
    def triangle(x: Array) -> Array:
        return np.maximum(1 - np.abs(x), 0)

    def cubic(x: Array) -> Array:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((x - 5) * x + 8) * x * a - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    return (triangle, 1.0) if mode == "linear" else (cubic, 2.0)


def weights(at: Array, size: int, scale: float, mode: str, a: float, antialias: bool, exclude_outside: bool) -> Array:
    """float64[out, size]: how much of each place of the input is in each of the result; edges stand for what lies outside."""
    kernel, reach = _kernel(mode, a)
    stretch = min(scale, 1.0) if antialias else 1.0
    found = np.zeros((len(at), size))
    count = math.ceil(reach / stretch)
    first = np.floor(at).astype(np.int64) - count
    for step in range(2 * count + 2):
        place = first + step
        value = kernel((place - at) * stretch)
        inside = (place >= 0) & (place < size)
        if antialias or exclude_outside:
            value = np.where(inside, value, 0)
        np.add.at(found, (np.arange(len(at)), np.clip(place, 0, size - 1)), value)
    if antialias or exclude_outside:
        total = found.sum(1, keepdims=True)
        found = np.divide(found, total, out=found, where=total != 0)
    return found


def _apply(g: Reader, value: Value, axis: int, matrix: Array) -> Value:
    """Sums over one axis by a matrix of weights [out, size]."""
    order = (*(at for at in range(value.rank) if at != axis), axis)
    moved = value if order[-1] == value.rank - 1 and axis == value.rank - 1 else g.op("permute_dims", value, axes=order)
    table = g.constant(np.ascontiguousarray(matrix).astype(value.dtype.numpy))
    found = g.op("linear", moved, table)
    return found if moved is value else g.op("permute_dims", found, axes=tuple(order.index(at) for at in range(value.rank)))


@reads("Resize")
def resize(g: Reader, x: Item, *operands: Item | None, mode: str = "nearest", antialias: int = 0, axes: Sequence[int] | None = None,
           coordinate_transformation_mode: str = "half_pixel", cubic_coeff_a: float = -0.75, exclude_outside: int = 0,
           extrapolation_value: float = 0.0, keep_aspect_ratio_policy: str = "stretch", nearest_mode: str = "round_prefer_floor") -> Value:
    if g.version < 11:
        roi, scales, sizes = None, operands[0], None
        coordinate_transformation_mode, nearest_mode = "asymmetric", "floor"
    else:
        roi, scales, sizes = (*operands, None, None, None)[:3]
    shape = g.shape(x)
    along = list(range(len(shape))) if axes is None else [g.axis(axis, len(shape)) for axis in axes]
    factors: dict[int, float | None] = {}
    outs: dict[int, Dim] = {}
    if scales is not None and g.shape(scales) != (0,):
        for axis, factor in zip(along, g.numbers(scales, "scales").tolist(), strict=True):
            factors[axis], outs[axis] = factor, _times(g, shape[axis], factor)
    elif sizes is not None:
        wanted = g.sizes(sizes, "sizes")
        factors, outs = _of_sizes(g, shape, along, wanted, keep_aspect_ratio_policy)
    else:
        raise g.refuse("neither scales nor sizes")
    spans = dict.fromkeys(along, (0.0, 1.0))
    if coordinate_transformation_mode == "tf_crop_and_resize":
        corners = g.numbers(roi, "a region").tolist()
        spans = {axis: (corners[at], corners[at + len(along)]) for at, axis in enumerate(along)}
    changed = [axis for axis in along if outs[axis] != shape[axis] or factors[axis] not in (None, 1)
               or coordinate_transformation_mode == "tf_crop_and_resize" and spans[axis] != (0.0, 1.0)]
    free = [axis for axis in changed if isinstance(shape[axis], Expr) or isinstance(outs[axis], Expr)]
    if free:
        return _interpolated(g, x, changed, outs, factors, mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a,
                             bool(antialias), bool(exclude_outside))
    if antialias and not exclude_outside:
        raise g.refuse("antialias with edges, which ONNX's text and its runtimes compute differently")
    value = g.tensor(x)
    outside: list[tuple[int, Array]] = []
    for axis in changed:
        size, out = int(str(shape[axis])), int(str(outs[axis]))
        if out > MOST:
            raise g.refuse(f"an axis that becomes {out} long, where at most {MOST} are read")
        factor = factors[axis]
        scale = out / size if factor is None else factor
        if coordinate_transformation_mode == "align_corners" and scale * size != out:
            raise g.refuse("align_corners with a scale that gives no whole size, which ONNX's tests and its runtimes compute differently")
        at = coordinates(size, out, scale, coordinate_transformation_mode, spans[axis])
        if coordinate_transformation_mode == "tf_crop_and_resize":
            outside.append((axis, (at < 0) | (at > size - 1)))
        if mode == "nearest":
            value = g.op("take", value, g.constant(nearest(at, size, nearest_mode)), axis=axis)
        else:
            value = _apply(g, value, axis, weights(at, size, scale, mode, cubic_coeff_a, bool(antialias), bool(exclude_outside)))
    for axis, mask in outside:
        if mask.any():
            where = g.constant(mask.reshape(tuple(len(mask) if at == axis else 1 for at in range(value.rank))))
            value = g.op("where", where, g.like(extrapolation_value, value), value)
    return value


def _times(g: Reader, size: Dim, factor: float) -> Dim:
    if isinstance(size, int):
        return math.floor(np.float32(size) * np.float32(factor))  # as ONNX infers shapes: 5 times the float nearest to 1.8 is 9
    if float(factor).is_integer():
        return size * int(factor)
    if (1 / factor).is_integer():
        return size // int(1 / factor)
    raise g.refuse(f"a free size times {factor}")


def _of_sizes(g: Reader, shape: Sequence[Dim], along: list[int], wanted: list[Dim],
              policy: str) -> tuple[dict[int, float | None], dict[int, Dim]]:
    factors: dict[int, float | None] = dict.fromkeys(along)
    if policy == "stretch":
        return factors, dict(zip(along, wanted, strict=True))
    if any(isinstance(item, Expr) for item in (*wanted, *(shape[axis] for axis in along))):
        raise g.refuse("an aspect ratio of free sizes that is to be kept")
    ratios = [int(str(want)) / int(str(shape[axis])) for axis, want in zip(along, wanted, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return dict.fromkeys(along, scale), {axis: math.floor(scale * int(str(shape[axis])) + 0.5) for axis in along}


def _interpolated(g: Reader, x: Item, changed: list[int], outs: dict[int, Dim], factors: dict[int, float | None], mode: str,
                  coordinate: str, rounding: str, a: float, antialias: bool, exclude: bool) -> Value:
    """By `interpolate`, whose formulas are torch's: batch and channels stay, the other axes change."""
    shape = g.shape(x)
    if any(axis < 2 for axis in changed) or exclude or mode == "cubic" and a != -0.75 or antialias:
        raise g.refuse("a resize of free sizes along the batch or channels, or with edges left out")
    whole = all(factor is not None and (float(factor).is_integer()) for factor in (factors[axis] for axis in changed))
    aligned = coordinate == "align_corners"
    if mode == "nearest":
        if coordinate == "asymmetric" and rounding == "floor":
            kind = "nearest"
        elif coordinate in ("half_pixel", "pytorch_half_pixel") and whole and rounding in ("round_prefer_floor", "round_prefer_ceil"):
            kind = "nearest-exact"  # no place lies in the middle of two where each becomes a whole number of them
        elif coordinate == "asymmetric" and whole and rounding == "floor":
            kind = "nearest"
        else:
            raise g.refuse(f"a resize of free sizes with {coordinate} and {rounding}")
    elif coordinate in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        kind = mode
    elif coordinate == "asymmetric":
        raise g.refuse("a resize of free sizes with asymmetric places")
    else:
        raise g.refuse(f"a resize of free sizes with {coordinate}")
    spatial = range(2, len(shape))
    size = tuple(outs.get(axis, shape[axis]) for axis in spatial)
    scale = tuple(None if aligned else factors.get(axis) for axis in spatial)
    return g.op("interpolate", x, size=size, mode=kind, align_corners=aligned and mode != "nearest", scale=scale if any(scale) else ())


@reads("Upsample")
def upsample(g: Reader, x: Item, operand: Item | None = None, *, mode: str = "nearest", scales: Sequence[float] | None = None) -> Value:
    """The older `Resize`: places over the scale, rounded down. The scales were an attribute up to version 8."""
    if operand is None:
        if scales is None:
            raise g.refuse("scales that are not given")
        operand = Item(DType.FLOAT32, (len(scales),), None, np.asarray(scales, np.float32))
    kind = {"bilinear": "linear"}.get(mode, mode)
    if g.version < 11:
        return resize(g, x, operand, mode=kind)
    return resize(g, x, None, operand, mode=kind, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


@reads("GridSample")
def grid_sample(g: Reader, x: Item, grid: Item, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros") -> Value:
    kind = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return g.op("grid_sample", x, grid, mode=kind, padding=padding_mode, align_corners=bool(align_corners))


@reads("AffineGrid")
def affine_grid(g: Reader, theta: Item, size: Item, *, align_corners: int = 0) -> Value:
    return g.op("affine_grid", theta, size=tuple(g.sizes(size, "a size")), align_corners=bool(align_corners))
