"""Normalization of activations and of weights."""

from __future__ import annotations

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute, number
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.ops.elementwise import apply
from adapters.onnx.registry import lowers
from converter.dims import Dim, product
from converter.ir import DType, TensorSpec
from converter.ops._spatial import integers


def _reduced(x: Tensor, axes: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(x.dtype, tuple(1 if axis in axes else size for axis, size in enumerate(x.shape)))


def _mean(g: Lowering, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return compute(g, "ReduceMean", x, extra=(g.constant(list(axes)),), spec=_reduced(x, axes), keepdims=1)


def _standardized(g: Lowering, x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """(x - mean) / √(variance + eps)."""
    centred = apply(g, "Sub", x, _mean(g, x, axes))
    variance = _mean(g, apply(g, "Mul", centred, centred), axes)
    return apply(g, "Div", centred, apply(g, "Sqrt", apply(g, "Add", variance, number(g, eps, x))))


def _per_channel(g: Lowering, y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """y · weight + bias along axis 1."""
    tail = [1] * (y.rank - 2)
    if weight is not None:
        y = apply(g, "Mul", y, g.reshape(weight, (weight.shape[0], *tail)))
    if bias is not None:
        y = apply(g, "Add", y, g.reshape(bias, (bias.shape[0], *tail)))
    return y


def _filled(g: Lowering, vector: Tensor | None, size: Dim, value: float, dtype: DType) -> Tensor | None:
    """A vector, or a constant one in its place; None where the size is not known."""
    if vector is not None:
        return vector
    return g.constant(np.full(size, value), dtype) if isinstance(size, int) else None


@lowers("batch_norm")
@through_float32
def batch_norm(g: Lowering, x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None,
               bias: Tensor | None, *, eps: float) -> Tensor:
    if running_mean is None or running_var is None:
        return _per_channel(g, _standardized(g, x, (0, *range(2, x.rank)), eps), weight, bias)
    channels = running_mean.shape[0]
    scale, offset = _filled(g, weight, channels, 1, x.dtype), _filled(g, bias, channels, 0, x.dtype)
    # ONNX holds eps in float32, which a float64 model would notice.
    if scale is not None and offset is not None and x.dtype is not DType.FLOAT64:
        return g.node("BatchNormalization", x, scale, offset, running_mean, running_var, spec=x.spec, epsilon=eps)
    tail = [1] * (x.rank - 2)
    deviation = apply(g, "Sqrt", apply(g, "Add", running_var, number(g, eps, x)))
    factor = apply(g, "Reciprocal", deviation) if weight is None else apply(g, "Div", weight, deviation)
    centred = apply(g, "Sub", x, g.reshape(running_mean, (channels, *tail)))
    return _per_channel(g, apply(g, "Mul", centred, g.reshape(factor, (channels, *tail))), None, bias)


@lowers("instance_norm")
@through_float32
def instance_norm(g: Lowering, x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float) -> Tensor:
    scale, offset = _filled(g, weight, x.shape[1], 1, x.dtype), _filled(g, bias, x.shape[1], 0, x.dtype)
    if scale is not None and offset is not None and x.dtype is not DType.FLOAT64:
        return g.node("InstanceNormalization", x, scale, offset, spec=x.spec, epsilon=eps)
    return _per_channel(g, _standardized(g, x, tuple(range(2, x.rank)), eps), weight, bias)


@lowers("group_norm")
@through_float32
def group_norm(g: Lowering, x: Tensor, weight: Tensor | None, bias: Tensor | None, *, num_groups: int, eps: float) -> Tensor:
    # ONNX Runtime has no kernel of GroupNormalization; it would expand it into more nodes than stand here.
    rest = product(x.shape[1:]) // num_groups
    grouped = g.reshape(x, (x.shape[0], num_groups, rest))
    if x.dtype is not DType.FLOAT64:
        one, zero = g.constant(np.ones(num_groups), x.dtype), g.constant(np.zeros(num_groups), x.dtype)
        y = g.node("InstanceNormalization", grouped, one, zero, spec=grouped.spec, epsilon=eps)
    else:
        y = _standardized(g, grouped, (2,), eps)
    return _per_channel(g, g.reshape(y, x.shape), weight, bias)


@lowers("layer_norm")
@through_float32
def layer_norm(g: Lowering, x: Tensor, weight: Tensor | None, bias: Tensor | None, *, normalized_shape: tuple[Dim, ...],
               eps: float) -> Tensor:
    rank = len(normalized_shape)
    fixed = all(isinstance(size, int) for size in normalized_shape)
    if x.dtype is not DType.FLOAT64 and (weight is not None or fixed):
        scale = weight if weight is not None else g.constant(np.ones(integers(normalized_shape)), x.dtype)
        return g.node("LayerNormalization", x, scale, bias, spec=x.spec, axis=-rank, epsilon=eps)
    y = _standardized(g, x, tuple(range(x.rank - rank, x.rank)), eps)
    y = y if weight is None else apply(g, "Mul", y, weight)
    return y if bias is None else apply(g, "Add", y, bias)


@lowers("rms_norm")
@through_float32
def rms_norm(g: Lowering, x: Tensor, weight: Tensor | None, *, normalized_shape: tuple[Dim, ...], eps: float | None) -> Tensor:
    rank = len(normalized_shape)
    wide = x.dtype if x.dtype.itemsize >= 4 else DType.FLOAT32
    if eps is None:
        eps = float(np.finfo(wide.numpy).eps)
    fixed = all(isinstance(size, int) for size in normalized_shape)
    if g.opset >= 23 and x.dtype is DType.FLOAT32 and (weight is not None or fixed):
        scale = weight if weight is not None else g.constant(np.ones(integers(normalized_shape)), x.dtype)
        return g.node("RMSNormalization", x, scale, spec=x.spec, axis=-rank, epsilon=eps)
    dtype, x = x.dtype, g.cast(x, wide)
    mean = _mean(g, apply(g, "Mul", x, x), tuple(range(x.rank - rank, x.rank)))
    y = apply(g, "Div", x, apply(g, "Sqrt", apply(g, "Add", mean, number(g, eps, x))))
    return g.cast(y if weight is None else apply(g, "Mul", y, g.cast(weight, wide)), dtype)


@lowers("weight_norm")
@through_float32
def weight_norm(g: Lowering, v: Tensor, magnitude: Tensor, *, axis: int | None) -> Tensor:
    axes = tuple(index for index in range(v.rank) if axis is None or index != axis % v.rank)
    if not axes:
        norm = apply(g, "Abs", v)
    else:
        norm = compute(g, "ReduceL2", v, extra=(g.constant(list(axes)),), spec=_reduced(v, axes), keepdims=1)
    return apply(g, "Mul", v, apply(g, "Div", magnitude, norm))
