"""Normalization: over a batch, a layer's axes, groups of channels, or the root mean square; and of weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converter.dims import Dim
from converter.facts import Facts
from converter.formulas import Space, Term, dtype_of, widened
from converter.ir import Array, TensorSpec
from converter.ops._rules import axis_of, require, require_float, require_rank, require_size, same_dtype
from converter.ops._spatial import wide
from converter.ops.complex_numbers import REAL_OF
from converter.opset import op


def _per_channel(x: TensorSpec, *vectors: TensorSpec | None) -> TensorSpec:
    require_float(x)
    require(x.rank >= 2, "wrong number of axes of the input", expected="[batch, channels, ...]", received=x)
    for vector in vectors:
        if vector is not None:
            require_rank(vector, 1, what="a value per channel")
            require_size(vector.shape[0], x.shape[1], "a value per channel")
    return TensorSpec(same_dtype(x, *vectors), x.shape)


def _standardized(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    centred = x - x.mean(axis=axes, keepdims=True)
    y: Array = centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + np.asarray(eps, x.dtype))
    return y


def _channels(vector: Array, x: Array) -> Array:
    return vector.astype(wide(x.dtype), copy=False).reshape(-1, *[1] * (x.ndim - 2))


def _affine(y: Array, weight: Array | None, bias: Array | None, x: Array) -> Array:
    if weight is not None:
        y = y * _channels(weight, x)
    if bias is not None:
        y = y + _channels(bias, x)
    return y.astype(x.dtype, copy=False)


def _standard(f: Space, x: Term, axes: Sequence[int], eps: float | Term) -> Term:
    """(x - mean) / √(variance + eps)."""
    centred = x - f.mean(x, axis=tuple(axes), keepdims=True)
    return centred / f.sqrt(f.mean(centred * centred, axis=tuple(axes), keepdims=True) + eps)


def _along_channels(f: Space, vector: Term | None, x: Term) -> Term | None:
    return None if vector is None else f.reshape(vector, shape=(vector.shape[0], *[1] * (x.ndim - 2)))


def _scaled(y: Term, weight: Term | None, bias: Term | None) -> Term:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _batch_norm(x: TensorSpec, running_mean: TensorSpec | None, running_var: TensorSpec | None, weight: TensorSpec | None,
                bias: TensorSpec | None, *, eps: float = 1e-5) -> TensorSpec:
    require((running_mean is None) == (running_var is None), "a running mean without a running variance, or the other way round",
            expected="both, or none")
    return _per_channel(x, running_mean, running_var, weight, bias)


@widened
def _of_batch(f: Space, x: Term, *vectors: Term | None, eps: float) -> Term:
    mean, variance, weight, bias = (_along_channels(f, vector, x) for vector in vectors)
    y = _standard(f, x, (0, *range(2, x.ndim)), eps) if mean is None or variance is None else (x - mean) / f.sqrt(variance + eps)
    return _scaled(y, weight, bias)


@op(infer=_batch_norm, formula=_of_batch, facts=Facts(finite=True, statistics=(1, 2)))
def batch_norm(x: Array, running_mean: Array | None = None, running_var: Array | None = None, weight: Array | None = None,
               bias: Array | None = None, *, eps: float = 1e-5) -> Array:
    """(x - running_mean) / √(running_var + eps) · weight + bias, channel by channel: torch.nn.functional.batch_norm.

    x: [batch, channels, ...]; the vectors: [channels]; y like x. Without running statistics those of the batch stand in:
    mean and biased variance over every axis but the channels'.
    """
    wider = x.astype(wide(x.dtype), copy=False)
    if running_mean is None or running_var is None:
        y = _standardized(wider, (0, *range(2, x.ndim)), eps)
    else:
        y = (wider - _channels(running_mean, x)) / np.sqrt(_channels(running_var, x) + np.asarray(eps, wider.dtype))
    return _affine(y, weight, bias, x)


def _instance_norm(x: TensorSpec, weight: TensorSpec | None, bias: TensorSpec | None, *, eps: float = 1e-5) -> TensorSpec:
    require(x.rank >= 3, "wrong number of axes of the input", expected="[batch, channels, *spatial]", received=x)
    return _per_channel(x, weight, bias)


@widened
def _of_instances(f: Space, x: Term, weight: Term | None, bias: Term | None, *, eps: float) -> Term:
    return _scaled(_standard(f, x, range(2, x.ndim), eps), _along_channels(f, weight, x), _along_channels(f, bias, x))


@op(infer=_instance_norm, formula=_of_instances)
def instance_norm(x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5) -> Array:
    """Each channel of each sample to mean 0 and biased variance 1, · weight + bias: torch.nn.functional.instance_norm.

    x: [batch, channels, *spatial]; weight, bias: [channels]; y like x. With running statistics it is `batch_norm`.
    """
    return _affine(_standardized(x.astype(wide(x.dtype), copy=False), tuple(range(2, x.ndim)), eps), weight, bias, x)


def _group_norm(x: TensorSpec, weight: TensorSpec | None, bias: TensorSpec | None, *, num_groups: int,
                eps: float = 1e-5) -> TensorSpec:
    y = _per_channel(x, weight, bias)
    channels = x.shape[1]
    require(num_groups >= 1 and (not isinstance(channels, int) or channels % num_groups == 0), "the channels do not divide into groups",
            expected=f"channels divisible by {num_groups}", received=x)
    return y


@widened
def _of_groups(f: Space, x: Term, weight: Term | None, bias: Term | None, *, num_groups: int, eps: float) -> Term:
    grouped = f.reshape(x, shape=(x.shape[0], num_groups, x.shape[1] // num_groups, *x.shape[2:]))
    y = f.reshape(_standard(f, grouped, range(2, grouped.ndim), eps), shape=x.shape)
    return _scaled(y, _along_channels(f, weight, x), _along_channels(f, bias, x))


@op(infer=_group_norm, formula=_of_groups)
def group_norm(x: Array, weight: Array | None = None, bias: Array | None = None, *, num_groups: int, eps: float = 1e-5) -> Array:
    """Each group of channels of each sample to mean 0 and biased variance 1, · weight + bias: torch.nn.functional.group_norm.

    x: [batch, channels, ...]; weight, bias: [channels]; y like x.
    """
    grouped = x.astype(wide(x.dtype), copy=False).reshape(x.shape[0], num_groups, x.shape[1] // num_groups, *x.shape[2:])
    return _affine(_standardized(grouped, tuple(range(2, grouped.ndim)), eps).reshape(x.shape), weight, bias, x)


def _normalized(x: TensorSpec, normalized_shape: tuple[Dim, ...], *operands: TensorSpec | None, complex_too: bool = False) -> TensorSpec:
    require_float(x, complex_too=complex_too)
    rank = len(normalized_shape)
    require(1 <= rank <= x.rank, "wrong length of 'normalized_shape'", expected=f"1 to {x.rank} sizes", received=rank)
    for size, found in zip(normalized_shape, x.shape[-rank:], strict=True):
        require_size(found, size, "a normalized axis")
    for operand in operands:
        if operand is not None:
            require_rank(operand, rank, what="the weight or bias")
            for size, found in zip(normalized_shape, operand.shape, strict=True):
                require_size(found, size, "the weight or bias")
    return TensorSpec(same_dtype(x, *operands), x.shape)


def _layer_norm(x: TensorSpec, weight: TensorSpec | None, bias: TensorSpec | None, *, normalized_shape: tuple[Dim, ...],
                eps: float = 1e-5) -> TensorSpec:
    return _normalized(x, normalized_shape, weight, bias)


@widened
def _of_layer(f: Space, x: Term, weight: Term | None, bias: Term | None, *, normalized_shape: tuple[Dim, ...], eps: float) -> Term:
    return _scaled(_standard(f, x, range(-len(normalized_shape), 0), eps), weight, bias)


@op(infer=_layer_norm, formula=_of_layer)
def layer_norm(x: Array, weight: Array | None = None, bias: Array | None = None, *, normalized_shape: tuple[Dim, ...],
               eps: float = 1e-5) -> Array:
    """The last axes to mean 0 and biased variance 1, · weight + bias: torch.nn.functional.layer_norm.

    y = (x - mean) / √(variance + eps) · weight + bias, mean and variance over the axes of `normalized_shape`.
    x: [..., *normalized_shape]; weight, bias: [*normalized_shape]; y like x.
    """
    wider = x.astype(wide(x.dtype), copy=False)
    y = _standardized(wider, tuple(range(-len(normalized_shape), 0)), eps)
    if weight is not None:
        y = y * weight.astype(y.dtype, copy=False)
    if bias is not None:
        y = y + bias.astype(y.dtype, copy=False)
    return y.astype(x.dtype, copy=False)


def _rms_norm(x: TensorSpec, weight: TensorSpec | None, *, normalized_shape: tuple[Dim, ...], eps: float | None = None) -> TensorSpec:
    return _normalized(x, normalized_shape, weight, complex_too=True)


@widened
def _of_squares(f: Space, x: Term, weight: Term | None, *, normalized_shape: tuple[Dim, ...], eps: float | None) -> Term:
    square = f.mean(x * x, axis=tuple(range(-len(normalized_shape), 0)), keepdims=True)
    if eps is None:
        one = f.full(shape=(), fill_value=1.0, dtype=REAL_OF.get(dtype_of(x), dtype_of(x)))
        square = square + f.astype(f.nextafter(one, one * 2.0) - one, dtype=dtype_of(x))
    else:
        square = square + eps
    return _scaled(x / f.sqrt(square), weight, None)


@op(infer=_rms_norm, formula=_of_squares)
def rms_norm(x: Array, weight: Array | None = None, *, normalized_shape: tuple[Dim, ...], eps: float | None = None) -> Array:
    """x / √(mean(x²) + eps) · weight over the last axes: torch.nn.functional.rms_norm.

    x: [..., *normalized_shape], whose complex numbers are squared as they are; weight: [*normalized_shape]; y like x.
    `eps` null: the distance from 1 to the next number of the dtype computed in, which is float32 for the smaller floats, else x's.
    """
    wider = x.astype(wide(x.dtype), copy=False)
    square = np.square(wider).mean(axis=tuple(range(-len(normalized_shape), 0)), keepdims=True)
    y: Array = wider / np.sqrt(square + np.asarray(np.finfo(wider.dtype).eps if eps is None else eps, wider.dtype))
    if weight is not None:
        y = y * weight.astype(y.dtype, copy=False)
    return y.astype(x.dtype, copy=False)


def _weight_norm(v: TensorSpec, g: TensorSpec, *, axis: int | None = 0) -> TensorSpec:
    require_float(v)
    kept = None if axis is None else axis_of(axis, v.rank)
    require(g.rank in (0, v.rank), "wrong number of axes of the magnitude", expected=f"{v.rank}", received=g)
    for index, (size, found) in enumerate(zip(v.shape, g.shape, strict=False)):
        require_size(found, size if index == kept else 1, "the magnitude")
    return TensorSpec(same_dtype(v, g), v.shape)


@widened
def _directed(f: Space, v: Term, g: Term, *, axis: int | None) -> Term:
    axes = tuple(index for index in range(v.ndim) if axis is None or index != axis % v.ndim)
    return v * (g / f.sqrt(f.sum(v * v, axis=axes, keepdims=True)))


@op(infer=_weight_norm, formula=_directed)
def weight_norm(v: Array, g: Array, *, axis: int | None = 0) -> Array:
    """v / ‖v‖ · g, the 2-norm over every axis but `axis` (null: over all): torch.nn.utils.weight_norm.

    v: any shape; g: v's shape with 1 for every axis but `axis` (or 0-d for null); y like v.
    """
    wider = v.astype(wide(v.dtype), copy=False)
    kept = None if axis is None else axis % v.ndim
    norm = np.sqrt(np.square(wider).sum(axis=tuple(index for index in range(v.ndim) if index != kept), keepdims=True))
    w: Array = wider * (g.astype(wider.dtype, copy=False) / norm)
    return w.astype(v.dtype, copy=False)
