"""Normalizations and losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapters.onnx.load import FROM_ONNX
from adapters.onnx.reading.items import Item, as_numbers, is_numeric
from adapters.onnx.reading.parameters import MADE_UP
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import product
from converter.ir import DType


@reads("BatchNormalization")
def batch_norm(g: Reader, x: Item, scale: Item, bias: Item, mean: Item, var: Item, *, epsilon: float = 1e-5, momentum: float = 0.9,
               training_mode: int = 0, spatial: int = 1, is_test: int = 1, consumed_inputs: object = None) -> Value | tuple[Value, ...]:
    if not spatial:
        raise g.refuse("statistics of each element")
    if not training_mode:
        return g.op("batch_norm", x, mean, var, scale, bias, eps=epsilon)
    axes = tuple(axis for axis in range(g.rank(x)) if axis != 1)
    own, spread = g.op("mean", x, axis=axes), g.op("var", x, axis=axes)

    def running(before: Item, now: Value) -> Value:
        return g.op("add", g.op("multiply", before, g.like(momentum, before)), g.op("multiply", now, g.like(1 - momentum, now)))

    return g.op("batch_norm", x, None, None, scale, bias, eps=epsilon), running(mean, own), running(var, spread)


@reads("InstanceNormalization")
def instance_norm(g: Reader, x: Item, scale: Item, bias: Item, *, epsilon: float = 1e-5) -> Value:
    """Exporters spell out a group norm as one whose weight is all ones and whose bias all zeros, made up for the purpose."""
    if _is_filled(g, scale, 1) and _is_filled(g, bias, 0):
        return g.op("instance_norm", x, eps=epsilon)
    return g.op("instance_norm", x, scale, bias, eps=epsilon)


def _is_filled(g: Reader, item: Item, number: float) -> bool:
    known = g.known(item)
    made_up = item.initializer is None or MADE_UP.search(item.initializer) is not None
    return made_up and known is not None and is_numeric(known) and bool(np.all(as_numbers(known, item.dtype) == number))


@reads("LayerNormalization")
def layer_norm(g: Reader, x: Item | Value, scale: Item, bias: Item | None = None, *, axis: int = -1, epsilon: float = 1e-5,
               stash_type: int = 1) -> Value | tuple[Value, ...]:
    shape = g.shape(x)
    place = g.axis(axis, len(shape))
    normalized = shape[place:]
    found = g.op("layer_norm", x, _shaped(g, scale, normalized), None if bias is None else _shaped(g, bias, normalized),
                 normalized_shape=normalized, eps=epsilon)
    if sum(bool(name) for name in g.node.output) < 2 or g.node.op_type != "LayerNormalization":
        return found
    kind = FROM_ONNX[stash_type]
    value = g.cast(x, kind)
    axes = tuple(range(place, len(shape)))
    mean = g.op("mean", value, axis=axes, keepdims=True)
    spread = g.op("var", value, axis=axes, keepdims=True)
    return found, mean, g.op("rsqrt", g.op("add", spread, g.like(epsilon, spread)))


def _shaped(g: Reader, weight: Item, shape: tuple[object, ...]) -> Value:
    value = g.tensor(weight)
    return value if value.shape == shape else g.op("broadcast_to", value, shape=shape)


@reads("RMSNormalization")
def rms_norm(g: Reader, x: Item, scale: Item, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Value:
    shape = g.shape(x)
    normalized = shape[g.axis(axis, len(shape)):]
    return g.op("rms_norm", x, _shaped(g, scale, normalized), normalized_shape=normalized, eps=epsilon)


@reads("GroupNormalization")
def group_norm(g: Reader, x: Item, scale: Item, bias: Item, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1) -> Value:
    """Scale and bias have a number for each group up to version 20, for each channel since."""
    channels = g.shape(x)[1]
    each = channels // num_groups

    def by_channel(item: Item) -> Value:
        if g.version >= 21 or g.shape(item)[0] == channels:
            return g.tensor(item)
        return g.op("repeat_interleave", item, repeats=each, axis=0)

    return g.op("group_norm", x, by_channel(scale), by_channel(bias), num_groups=num_groups, eps=epsilon)


@reads("LpNormalization")
def lp_normalization(g: Reader, x: Item, *, axis: int = -1, p: int = 2) -> Value:
    norm = g.op("vector_norm", x, axis=(g.axis(axis, g.rank(x)),), keepdims=True, ord=float(p))
    return g.op("where", g.op("equal", norm, g.like(0, norm)), g.like(0, norm), g.op("divide", x, norm))


@reads("MeanVarianceNormalization")
def mean_variance(g: Reader, x: Item, *, axes: Sequence[int] = (0, 2, 3)) -> Value:
    """(x - mean) / (√variance + 1e-9), as ONNX's function of it."""
    places = tuple(g.axis(axis, g.rank(x)) for axis in axes)
    mean = g.op("mean", x, axis=places, keepdims=True)
    square = g.op("mean", g.op("square", x), axis=places, keepdims=True)
    spread = g.op("sqrt", g.op("subtract", square, g.op("square", mean)))
    return g.op("divide", g.op("subtract", x, mean), g.op("add", spread, g.like(1e-9, spread)))


@reads("LRN")
def lrn(g: Reader, x: Item, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Value:
    """x over a power of the squares of the channels near by: sums along axis 1 as differences of an average pool's windows."""
    shape = g.shape(x)
    square = g.op("reshape", g.op("square", x), shape=(shape[0], 1, shape[1], product(shape[2:])))
    low, high = (size - 1) // 2, size // 2
    padded = g.op("pad", square, pads=((0, 0), (0, 0), (low, high), (0, 0)), value=0.0)
    mean = g.op("avg_pool", padded, kernel=(size, 1), stride=(1, 1))
    near = g.op("reshape", mean, shape=shape)  # alpha / size times a sum is alpha times a mean
    base = g.op("add", g.op("multiply", near, g.like(alpha, near)), g.like(bias, near))
    return g.op("divide", x, g.op("power", base, g.like(beta, base)))


# Losses --------------------------------------------------------------------------------------------------------------------


def _loss(g: Reader, log_probabilities: Value, target: Item, weight: Item | None, ignore_index: int | None, reduction: str) -> Value:
    """-weight[target] · log p[target], 0 where the target is the one to ignore; a mean is over the weights."""
    index = g.cast(target, DType.INT64)
    kept = None
    if ignore_index is not None:
        kept = g.op("not_equal", index, g.like(ignore_index, index))
        index = g.op("where", kept, index, g.like(0, index))
    taken = g.op("take_along_axis", log_probabilities, g.op("expand_dims", index, axis=(1,)), axis=1)
    chosen = g.op("squeeze", taken, axis=(1,))
    share: Value | None = None
    if weight is not None:
        flat = g.op("reshape", index, shape=(product(index.shape),))
        share = g.op("reshape", g.op("take", weight, flat, axis=0), shape=index.shape)
    if kept is not None:
        ones = share if share is not None else g.op("full", shape=index.shape, fill_value=1.0, dtype=chosen.dtype)
        share = g.op("where", kept, ones, g.like(0, ones))
    loss = g.op("negative", chosen if share is None else g.op("multiply", chosen, share))
    if reduction == "none":
        return loss
    if reduction == "sum":
        return g.op("sum", loss)
    return g.op("mean", loss) if share is None else g.op("divide", g.op("sum", loss), g.op("sum", share))


@reads("NegativeLogLikelihoodLoss")
def nll_loss(g: Reader, x: Item, target: Item, weight: Item | None = None, *, ignore_index: int | None = None,
             reduction: str = "mean") -> Value:
    return _loss(g, g.tensor(x), target, weight, ignore_index, reduction)


@reads("SoftmaxCrossEntropyLoss")
def cross_entropy(g: Reader, scores: Item, target: Item, weight: Item | None = None, *, ignore_index: int | None = None,
                  reduction: str = "mean") -> tuple[Value, ...]:
    logs = g.op("log_softmax", scores, axis=1)
    return _loss(g, logs, target, weight, ignore_index, reduction), logs
