"""Images to another size."""

from __future__ import annotations

import math

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.ops.convolution import batched, like_input
from adapters.onnx.registry import lowers
from converter.dims import Dim, evaluate, symbols
from converter.ir import DType, TensorSpec
from converter.ops import resize
from converter.opset import ARRAYS

NATIVE = frozenset({DType.FLOAT32, DType.FLOAT16})


def _replaced(x: Tensor, axis: int, size: Dim) -> TensorSpec:
    return TensorSpec(x.dtype, (*x.shape[:axis], size, *x.shape[axis + 1:]))


def _power_of_two(scale: float | None) -> bool:
    return scale is not None and float(np.log2(scale)).is_integer()


def _gives(incoming: Dim, outgoing: Dim, scale: float) -> bool:
    """Whether a size is what the scale makes of the one before, at every size tried: else ONNX's Resize, which is told one of the two
    only, would give another size."""
    names = symbols(incoming) | symbols(outgoing)
    return all(evaluate(outgoing, dict.fromkeys(names, size)) == math.floor(evaluate(incoming, dict.fromkeys(names, size)) * scale)
               for size in (8, 13, 24))


def _indices(g: Lowering, incoming: Dim, outgoing: Dim, scale: float | None, exact: bool) -> Tensor:
    """The input's index for each output, by the reference kernel's float32 arithmetic."""
    if isinstance(incoming, int) and isinstance(outgoing, int):
        return g.constant(resize.nearest(ARRAYS, incoming, outgoing, scale, exact))
    float32 = DType.FLOAT32
    vector, one = TensorSpec(float32, (outgoing,)), TensorSpec(float32, (1,))
    whole = TensorSpec(DType.INT64, (outgoing,))
    places = g.cast(g.node("Range", g.constant(0), g.scalar_size(outgoing), g.constant(1), spec=whole), float32)
    if exact:
        places = g.node("Add", places, g.constant(0.5, float32), spec=vector)
    step = g.constant([1.0 / scale], float32) if scale else g.node(
        "Div", g.cast(g.size(incoming), float32), g.cast(g.size(outgoing), float32), spec=one)
    source = g.node("Floor", g.node("Mul", places, step, spec=vector), spec=vector)
    last = g.size(incoming - 1)
    return g.node("Min", g.cast(source, DType.INT64), last, spec=whole)


@lowers("interpolate")
@through_float32
def interpolate(g: Lowering, x: Tensor, *, size: tuple[Dim, ...], mode: str, align_corners: bool, antialias: bool,
                scale: tuple[float | None, ...]) -> Tensor:
    axes = len(size)
    factors = scale or (None,) * axes
    fits = all(factor is None or _gives(incoming, outgoing, factor)
               for incoming, outgoing, factor in zip(x.shape[-axes:], size, factors, strict=True))
    source, x = x, batched(g, x, axes)
    spec = TensorSpec(x.dtype, (*x.shape[:2], *size))
    if mode.startswith("nearest"):
        exact = mode == "nearest-exact"
        if x.dtype in NATIVE and not exact and fits and all(map(_power_of_two, factors)):
            # These ratios are exact in float32, so ONNX Runtime finds the same neighbours.
            y = g.node("Resize", x, None, g.constant([1, 1, *factors], DType.FLOAT32), spec=spec, mode="nearest",
                       coordinate_transformation_mode="asymmetric", nearest_mode="floor")
            return like_input(g, y, source)
        for axis, factor in zip(range(2, 2 + axes), factors, strict=True):
            if x.shape[axis] == size[axis - 2] and factor in (None, 1.0):
                continue
            places = _indices(g, x.shape[axis], size[axis - 2], factor, exact)
            x = g.node("Gather", x, places, spec=_replaced(x, axis, size[axis - 2]), axis=axis)
        return like_input(g, x, source)
    if x.dtype not in NATIVE:
        return like_input(g, _mixed(g, x, size, mode, align_corners, antialias, factors), source)
    scales = sizes = None
    if scale and fits and all(factor is not None for factor in factors):
        scales = g.constant([1, 1, *factors], DType.FLOAT32)
    elif scale:
        return like_input(g, _mixed(g, x, size, mode, align_corners, antialias, factors), source)
    else:
        sizes = g.sizes([*x.shape[:2], *size])
    y = g.node("Resize", x, None, scales, sizes, spec=spec, mode=mode, antialias=1 if antialias else None,
               coordinate_transformation_mode="align_corners" if align_corners else "half_pixel",
               cubic_coeff_a=(-0.5 if antialias else -0.75) if mode == "cubic" else None, exclude_outside=1 if antialias else None)
    return like_input(g, y, source)


def _mixed(g: Lowering, x: Tensor, size: tuple[Dim, ...], mode: str, align_corners: bool, antialias: bool,
           factors: tuple[float | None, ...]) -> Tensor:
    """Each axis as a product with the matrix of what every output takes of every input; where sizes are free, linear
    interpolation between two gathered neighbours."""
    dtype = x.dtype if x.dtype is DType.FLOAT64 else DType.FLOAT32
    given, x = x.dtype, g.cast(x, dtype)
    for axis, outgoing, factor in zip(range(2, 2 + len(size)), size, factors, strict=True):
        incoming = x.shape[axis]
        if incoming == outgoing and (not factor or align_corners):
            continue
        if isinstance(incoming, int) and isinstance(outgoing, int):
            places, shares, _ = resize.weights(ARRAYS, incoming, outgoing, mode, align_corners, antialias, factor, dtype)
            matrix = np.zeros((outgoing, incoming), dtype.numpy)
            np.add.at(matrix, (np.arange(outgoing)[:, None], places), shares)
            order = [*(other for other in range(x.rank) if other != axis), axis]
            moved = g.transpose(x, order)
            moved = g.node("MatMul", moved, g.constant(matrix.T, dtype), spec=TensorSpec(dtype, (*moved.shape[:-1], outgoing)))
            x = g.transpose(moved, np.argsort(order).tolist())
        elif mode == "linear" and not antialias:
            x = _between(g, x, axis, outgoing, align_corners, factor)
        else:
            raise g.refuse(f"{mode} interpolation of {given} between sizes that are free")
    return g.cast(x, given)


def _between(g: Lowering, x: Tensor, axis: int, outgoing: Dim, align_corners: bool, factor: float | None) -> Tensor:
    """Linear interpolation along one axis of free size."""
    dtype, incoming = x.dtype, x.shape[axis]
    vector, one, whole = TensorSpec(dtype, (outgoing,)), TensorSpec(dtype, (1,)), TensorSpec(DType.INT64, (outgoing,))
    places = g.cast(g.node("Range", g.constant(0), g.scalar_size(outgoing), g.constant(1), spec=whole), dtype)
    last = g.size(incoming - 1)
    if align_corners:
        gaps = g.node("Max", g.size(outgoing - 1), g.constant([1]), spec=TensorSpec(DType.INT64, (1,)))
        step = g.node("Div", g.cast(last, dtype), g.cast(gaps, dtype), spec=one)
        source = g.node("Mul", places, step, spec=vector)
    else:
        step = g.constant([1.0 / factor], dtype) if factor else g.node(
            "Div", g.cast(g.size(incoming), dtype), g.cast(g.size(outgoing), dtype), spec=one)
        half = g.constant(0.5, dtype)
        source = g.node("Sub", g.node("Mul", g.node("Add", places, half, spec=vector), step, spec=vector), half, spec=vector)
        source = g.node("Max", source, g.constant(0, dtype), spec=vector)
    lower = g.node("Min", g.cast(g.node("Floor", source, spec=vector), DType.INT64), last, spec=whole)
    upper = g.node("Min", g.node("Add", lower, g.constant([1]), spec=whole), last, spec=whole)
    share = g.node("Min", g.node("Sub", source, g.cast(lower, dtype), spec=vector), g.constant(1, dtype), spec=vector)
    share = g.reshape(share, (outgoing, *[1] * (x.rank - 1 - axis)))
    spec = _replaced(x, axis, outgoing)
    first, second = (g.node("Gather", x, index, spec=spec, axis=axis) for index in (lower, upper))
    rest = g.node("Sub", g.constant(1, dtype), share, spec=share.spec)
    return g.node("Add", g.node("Mul", first, rest, spec=spec), g.node("Mul", second, share, spec=spec), spec=spec)
