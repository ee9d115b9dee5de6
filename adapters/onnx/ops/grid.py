"""Sampling at the points of a grid."""

from __future__ import annotations

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import number
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.ops.elementwise import apply
from adapters.onnx.registry import lowers
from converter.dims import Dim, product
from converter.ir import DType, TensorSpec

OLD_MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


@lowers("grid_sample")
@through_float32
def grid_sample(g: Lowering, x: Tensor, grid: Tensor, *, mode: str, padding: str, align_corners: bool) -> Tensor:
    if g.opset < 20 and x.rank != 4:
        raise g.refuse("sampling of volumes needs opset 20")
    if g.opset < 20 and x.dtype is DType.FLOAT64:
        raise g.refuse("sampling in float64 needs opset 20")
    return g.node("GridSample", x, grid, mode=mode if g.opset >= 20 else OLD_MODES[mode], padding_mode=padding,
                  align_corners=int(align_corners))


def _steps(g: Lowering, count: Dim, align_corners: bool, dtype: DType) -> Tensor:
    """[count] coordinates from -1 to 1."""
    if isinstance(count, int):
        end = 1.0 if align_corners else (count - 1) / count
        return g.constant(np.linspace(-end, end, count) if count > 1 else np.zeros(count), dtype)
    spec = TensorSpec(dtype, (count,))
    index = g.cast(g.node("Range", g.constant(0), g.scalar_size(count), g.constant(1), spec=TensorSpec(DType.INT64, (count,))), dtype)
    total = g.cast(g.size(count), dtype)
    one, two = number(g, 1, index), number(g, 2, index)
    if align_corners:
        # Of one element the coordinate is 0: 2·0 / 1 - 0.
        last = apply(g, "Sub", total, one)
        whole = g.node("Max", last, one, spec=last.spec)
        shift = g.node("Min", last, one, spec=last.spec)
        return g.node("Sub", g.node("Div", apply(g, "Mul", index, two), whole, spec=spec), shift, spec=spec)
    middle = apply(g, "Add", apply(g, "Mul", index, two), one)
    return g.node("Sub", g.node("Div", middle, total, spec=spec), one, spec=spec)


@lowers("affine_grid")
@through_float32
def affine_grid(g: Lowering, theta: Tensor, *, size: tuple[Dim, ...], align_corners: bool) -> Tensor:
    if g.opset >= 20 and (not align_corners or all(isinstance(count, int) and count > 1 for count in size[2:])):
        return g.node("AffineGrid", theta, g.sizes(size), align_corners=int(align_corners))
    spatial = size[2:]
    axes = len(spatial)
    columns = []
    for axis in range(axes - 1, -1, -1):
        steps = _steps(g, spatial[axis], align_corners, theta.dtype)
        steps = g.reshape(steps, (*(spatial[axis] if other == axis else 1 for other in range(axes)), 1))
        columns.append(g.node("Expand", steps, g.sizes([*spatial, 1]), spec=TensorSpec(theta.dtype, (*spatial, 1))))
    columns.append(g.node("Expand", g.constant(1.0, theta.dtype), g.sizes([*spatial, 1]), spec=TensorSpec(theta.dtype, (*spatial, 1))))
    points = g.node("Concat", *columns, spec=TensorSpec(theta.dtype, (*spatial, axes + 1)), axis=-1)
    points = g.reshape(points, (product(spatial), axes + 1))
    y = g.node("MatMul", points, g.transpose(theta, (0, 2, 1)), spec=TensorSpec(theta.dtype, (theta.shape[0], product(spatial), axes)))
    return g.reshape(y, (theta.shape[0], *spatial, axes))
