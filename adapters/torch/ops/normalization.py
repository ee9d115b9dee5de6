"""Normalization of activations and of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import product
from converter.ir import DType


def _needed(g: Importer, output: int) -> bool:
    """Whether the graph reads that output of the current node."""
    return any(user.args[1] == output for user in g.node.users)


def _in_one_dtype(g: Importer, op: str, x: Value, *operands: Value | None, **attributes: Any) -> Value:
    """The operator in the parameters' dtype where that is not x's (float32 statistics of a smaller float), then back."""
    present = [operand for operand in operands if operand is not None]
    if all(operand.dtype is x.dtype for operand in present):
        return g.op(op, x, *operands, **attributes)
    widest = max([x, *present], key=lambda value: value.dtype.itemsize).dtype
    cast = [None if operand is None else g.cast(operand, widest) for operand in operands]
    return g.cast(g.op(op, g.cast(x, widest), *cast, **attributes), x.dtype)


def _moments(g: Importer, x: Value, axes: tuple[int, ...], eps: float, dtype: DType) -> tuple[Value, Value]:
    """(mean, 1 / √(biased variance + eps)) over `axes`, which stay with size 1."""
    x = g.cast(x, dtype)
    mean = g.op("mean", x, axis=axes, keepdims=True)
    variance = g.op("mean", g.op("square", g.op("subtract", x, mean)), axis=axes, keepdims=True)
    return mean, g.op("reciprocal", g.op("sqrt", g.op("add", variance, float(eps))))


def _statistics(g: Importer, x: Value, axes: tuple[int, ...], eps: float, first: int) -> tuple[Value | None, Value | None]:
    """Outputs `first` and `first + 1`, mean and inverse deviation, where the graph reads them."""
    if not (_needed(g, first) or _needed(g, first + 1)):
        return None, None
    mean, inverse = _moments(g, x, axes, eps, g.result_dtype(first))
    shape = g.result_shape(first)
    return tuple(value if value.shape == shape else g.op("reshape", value, shape=shape) for value in (mean, inverse))  # type: ignore[return-value]


# Over the batch ------------------------------------------------------------------------------------------------------


@imports("aten.batch_norm.default")
def batch_norm(g: Importer, input: Value, weight: Value | None, bias: Value | None, running_mean: Value | None,
               running_var: Value | None, training: bool, momentum: float, eps: float, cudnn_enabled: bool = False) -> Value:
    if training:
        running_mean = running_var = None
    if 0 in input.shape and input.rank == 1:
        return g.cast(input, g.result_dtype())
    return _in_one_dtype(g, "batch_norm", input, running_mean, running_var, weight, bias, eps=float(eps))


def _batch_norm_outputs(g: Importer, y: Value, input: Value, training: bool, eps: float, count: int) -> tuple[Value | None, ...]:
    """y, then the saved statistics where the graph reads them: the batch's, or empty ones where it does not train."""
    if training:
        return (y, *_statistics(g, input, (0, *range(2, input.rank)), eps, 1), *[None] * (count - 3))
    saved = [g.op("full", shape=g.result_shape(output), fill_value=0.0, dtype=g.result_dtype(output)) if _needed(g, output) else None
             for output in range(1, count)]
    return (y, *saved)


def _updated(g: Importer, input: Value, running: Value, output: int, momentum: float) -> Value | None:
    """Output 3 or 4, the running mean or variance after a batch: (1 - momentum) · running + momentum · the batch's."""
    if not _needed(g, output):
        return None
    dtype, axes = running.dtype, (0, *range(2, input.rank))
    batch, places = g.cast(input, dtype), product([size for axis, size in enumerate(input.shape) if axis != 1])
    value = g.op("mean", batch, axis=axes, keepdims=output == 4)
    if output == 4:
        total = g.op("sum", g.op("square", g.op("subtract", batch, value)), axis=axes, keepdims=False)
        value = g.op("divide", total, g.operand(places - 1, dtype))
    kept = g.op("multiply", running, 1.0 - momentum)
    return g.op("add", kept, g.op("multiply", value, float(momentum)))


@imports("aten.native_batch_norm.default", "aten._native_batch_norm_legit.default")
def native_batch_norm(g: Importer, input: Value, weight: Value | None, bias: Value | None, running_mean: Value | None,
                      running_var: Value | None, training: bool, momentum: float, eps: float) -> tuple[Value | None, ...]:
    y = batch_norm(g, input, weight, bias, running_mean, running_var, training, momentum, eps)
    return _batch_norm_outputs(g, y, input, training, eps, 3)


@imports("aten._native_batch_norm_legit_functional.default")
def native_batch_norm_functional(g: Importer, input: Value, weight: Value | None, bias: Value | None, running_mean: Value,
                                 running_var: Value, training: bool, momentum: float, eps: float) -> tuple[Value | None, ...]:
    y = batch_norm(g, input, weight, bias, running_mean, running_var, training, momentum, eps)
    saved = _batch_norm_outputs(g, y, input, training, eps, 3)
    if not training:
        return (*saved, running_mean, running_var)
    return (*saved, _updated(g, input, running_mean, 3, momentum), _updated(g, input, running_var, 4, momentum))


@imports("aten._native_batch_norm_legit.no_stats")
def native_batch_norm_no_stats(g: Importer, input: Value, weight: Value | None, bias: Value | None, training: bool,
                               momentum: float, eps: float) -> tuple[Value | None, ...]:
    y = batch_norm(g, input, weight, bias, None, None, True, momentum, eps)
    return _batch_norm_outputs(g, y, input, True, eps, 3)


@imports("aten._native_batch_norm_legit_no_training.default")
def native_batch_norm_no_training(g: Importer, input: Value, weight: Value | None, bias: Value | None, running_mean: Value,
                                  running_var: Value, momentum: float, eps: float) -> tuple[Value | None, ...]:
    y = batch_norm(g, input, weight, bias, running_mean, running_var, False, momentum, eps)
    return _batch_norm_outputs(g, y, input, False, eps, 3)


@imports("aten._batch_norm_no_update.default")
def batch_norm_no_update(g: Importer, input: Value, weight: Value | None, bias: Value | None, running_mean: Value | None,
                         running_var: Value | None, momentum: float, eps: float) -> tuple[Value | None, ...]:
    y = batch_norm(g, input, weight, bias, running_mean, running_var, running_mean is None, momentum, eps)
    return _batch_norm_outputs(g, y, input, running_mean is None, eps, 4)


@imports("aten.cudnn_batch_norm.default", "aten.miopen_batch_norm.default")
def cudnn_batch_norm(g: Importer, input: Value, weight: Value, bias: Value | None, running_mean: Value | None,
                     running_var: Value | None, training: bool, exponential_average_factor: float,
                     epsilon: float) -> tuple[Value | None, ...]:
    y = batch_norm(g, input, weight, bias, running_mean, running_var, training, exponential_average_factor, epsilon)
    return _batch_norm_outputs(g, y, input, training, epsilon, 4)


@imports("aten.instance_norm.default")
def instance_norm(g: Importer, input: Value, weight: Value | None, bias: Value | None, running_mean: Value | None,
                  running_var: Value | None, use_input_stats: bool, momentum: float, eps: float, cudnn_enabled: bool) -> Value:
    if not use_input_stats:
        return _in_one_dtype(g, "batch_norm", input, running_mean, running_var, weight, bias, eps=float(eps))
    return _in_one_dtype(g, "instance_norm", input, weight, bias, eps=float(eps))


# Over a layer --------------------------------------------------------------------------------------------------------


@imports("aten.layer_norm.default")
def layer_norm(g: Importer, input: Value, normalized_shape: list[Any], weight: Value | None = None, bias: Value | None = None,
               eps: float = 1e-5, cudnn_enable: bool = True) -> Value:
    return _in_one_dtype(g, "layer_norm", input, weight, bias, normalized_shape=tuple(normalized_shape), eps=float(eps))


@imports("aten.native_layer_norm.default")
def native_layer_norm(g: Importer, input: Value, normalized_shape: list[Any], weight: Value | None, bias: Value | None,
                      eps: float) -> tuple[Value | None, ...]:
    y = layer_norm(g, input, normalized_shape, weight, bias, eps)
    return (y, *_statistics(g, input, tuple(range(input.rank - len(normalized_shape), input.rank)), eps, 1))


@imports("aten.group_norm.default")
def group_norm(g: Importer, input: Value, num_groups: int, weight: Value | None = None, bias: Value | None = None,
               eps: float = 1e-5, cudnn_enabled: bool = True) -> Value:
    return _in_one_dtype(g, "group_norm", input, weight, bias, num_groups=num_groups, eps=float(eps))


@imports("aten.native_group_norm.default")
def native_group_norm(g: Importer, input: Value, weight: Value | None, bias: Value | None, N: Any, C: Any, HxW: Any, group: int,
                      eps: float) -> tuple[Value | None, ...]:
    y = group_norm(g, input, group, weight, bias, eps)
    if not (_needed(g, 1) or _needed(g, 2)):
        return y, None, None
    grouped = g.op("reshape", input, shape=(N, group, C // group * HxW))
    return (y, *_statistics(g, grouped, (2,), eps, 1))


@imports("aten.rms_norm.default")
def rms_norm(g: Importer, input: Value, normalized_shape: list[Any], weight: Value | None = None, eps: float | None = None) -> Value:
    if weight is not None and weight.dtype is not input.dtype:
        # torch rounds to the input's dtype before the weight comes in, and promotes after.
        dtype = g.result_dtype()
        y = g.op("rms_norm", input, normalized_shape=tuple(normalized_shape), eps=eps)
        return g.op("multiply", g.cast(y, dtype), g.cast(weight, dtype))
    return g.op("rms_norm", input, weight, normalized_shape=tuple(normalized_shape), eps=eps)


@imports("aten._fused_rms_norm.default")
def fused_rms_norm(g: Importer, input: Value, normalized_shape: list[Any], weight: Value | None,
                   eps: float | None) -> tuple[Value | None, ...]:
    if _needed(g, 1):
        raise g.refuse("the inverse root mean square is used")
    return rms_norm(g, input, normalized_shape, weight, eps), None


# Of weights ----------------------------------------------------------------------------------------------------------


@imports("aten._weight_norm.default")
def weight_norm(g: Importer, v: Value, g_: Value, dim: int = 0) -> Value:
    return g.op("weight_norm", v, g_, axis=None if dim == -1 else dim)


@imports("aten._weight_norm_interface.default")
def weight_norm_interface(g: Importer, v: Value, g_: Value, dim: int = 0) -> tuple[Value | None, ...]:
    if _needed(g, 1):
        raise g.refuse("the norms of a weight norm are used")
    return weight_norm(g, v, g_, dim), None


def _rebuilt_norm(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def rebuilt(x: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None, *, eps: float = 1e-5,
                **attributes: Any) -> torch.Tensor:
        return function(x, *attributes.values(), weight=weight, bias=bias, eps=eps)

    return rebuilt


@rebuilds("batch_norm")
def rebuild_batch_norm(x: torch.Tensor, running_mean: torch.Tensor | None = None, running_var: torch.Tensor | None = None,
                       weight: torch.Tensor | None = None, bias: torch.Tensor | None = None, *, eps: float = 1e-5) -> torch.Tensor:
    if running_mean is None and x.dim() > 1 and x.numel() == x.shape[1]:
        # One value a channel, which torch refuses: it is its own mean.
        y, shape = x - x, (1, -1, *[1] * (x.dim() - 2))
        y = y if weight is None else y * weight.reshape(shape)
        return y if bias is None else y + bias.reshape(shape)
    return F.batch_norm(x, running_mean, running_var, weight, bias, running_mean is None, 0.0, eps)


rebuilds("instance_norm")(_rebuilt_norm(F.instance_norm))
rebuilds("group_norm")(_rebuilt_norm(F.group_norm))
rebuilds("layer_norm")(_rebuilt_norm(F.layer_norm))


@rebuilds("rms_norm")
def rebuild_rms_norm(x: torch.Tensor, weight: torch.Tensor | None = None, *, normalized_shape: tuple[int, ...],
                     eps: float | None = None) -> torch.Tensor:
    return F.rms_norm(x, normalized_shape, weight, eps)


@rebuilds("weight_norm")
def rebuild_weight_norm(v: torch.Tensor, g: torch.Tensor, *, axis: int | None = 0) -> torch.Tensor:
    return torch._weight_norm(v, g, -1 if axis is None else axis)
