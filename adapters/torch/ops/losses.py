"""Losses: CTC, and those of class indices or probabilities, whole as torch.export leaves them."""

from __future__ import annotations

import torch

from adapters.torch.dtypes import from_torch_dtype
from adapters.torch.patches.operand_checks import refuse_outside
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import product
from converter.ir import DType

NONE, MEAN, SUM = 0, 1, 2
"""torch's numbers for how losses are reduced."""


@imports("neutral_model.ctc_loss.default")
def ctc_loss(g: Importer, log_probs: Value, targets: Value, input_lengths: Value, target_lengths: Value, blank: int = 0) -> Value:
    return g.op("ctc_loss", log_probs, targets, input_lengths, target_lengths, blank=blank)


@rebuilds("ctc_loss")
def rebuild_ctc_loss(log_probs: torch.Tensor, targets: torch.Tensor, input_lengths: torch.Tensor, target_lengths: torch.Tensor, *,
                     blank: int = 0) -> torch.Tensor:
    refuse_outside(target_lengths, 0, targets.shape[1], "lengths of targets")
    refuse_outside(input_lengths, 0, log_probs.shape[0], "lengths of inputs")
    read = targets[torch.arange(targets.shape[1], device=targets.device) < target_lengths[:, None]]
    refuse_outside(read, 0, log_probs.shape[2] - 1, "labels")
    return torch.nn.functional.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, reduction="none")


# Of classes ------------------------------------------------------------------------------------------------------------------


def _class_axis(x: Value) -> int:
    return 0 if x.rank == 1 else 1


def _along_classes(g: Importer, weight: Value, x: Value) -> Value:
    """A weight for each class, ready to be multiplied with [N, C, ...]."""
    return weight if x.rank == 1 else g.op("reshape", weight, shape=(1, weight.shape[0], *[1] * (x.rank - 2)))


def _negative_log_likelihood(g: Importer, x: Value, target: Value, weight: Value | None, reduction: int,
                             ignore_index: int) -> tuple[Value, Value, Value]:
    """(loss, whether each target counts, the sum of the weights that count)."""
    axis = _class_axis(x)
    target = g.cast(target, DType.INT64)
    counts = g.op("not_equal", target, ignore_index)
    places = g.op("where", counts, target, 0)
    picked = g.op("take_along_axis", x, g.op("expand_dims", places, axis=(axis,)), axis=axis)
    loss = g.op("negative", g.op("squeeze", picked, axis=(axis,)))
    if weight is None:
        loss = g.op("where", counts, loss, 0.0)
        total = g.cast(g.op("sum", g.cast(counts, DType.INT64)), x.dtype)
    else:
        own = g.op("where", counts, g.op("take", g.cast(weight, x.dtype), places, axis=0), 0.0)
        loss = g.op("where", counts, g.op("multiply", loss, own), 0.0)
        total = g.op("sum", own)
    if reduction == NONE:
        return loss, counts, total
    whole = g.op("sum", loss)
    return (g.op("divide", whole, total) if reduction == MEAN else whole), counts, total


@imports("aten.nll_loss_nd.default", "aten.nll_loss.default", "aten.nll_loss2d.default")
def nll_loss(g: Importer, self: Value, target: Value, weight: Value | None = None, reduction: int = MEAN,
             ignore_index: int = -100) -> Value:
    """-x[target] · weight[target], their sum, or their sum over that of the weights; an ignored target is none."""
    return _negative_log_likelihood(g, self, target, weight, reduction, ignore_index)[0]


@imports("aten.cross_entropy_loss.default")
def cross_entropy_loss(g: Importer, self: Value, target: Value, weight: Value | None = None, reduction: int = MEAN,
                       ignore_index: int = -100, label_smoothing: float = 0.0) -> Value:
    """The loss of log_softmax(x); smoothing by ε mixes it with ε / C of the sum over all C classes."""
    axis = _class_axis(self)
    dtype, classes = g.result_dtype(), self.shape[axis]
    x = g.op("log_softmax", g.cast(self, dtype), axis=axis)
    share = g.op("divide", g.tensor(float(label_smoothing), dtype), g.tensor(classes, dtype)) if label_smoothing else None
    if target.dtype.is_float:
        return _of_probabilities(g, x, g.cast(target, dtype), weight, reduction, share, label_smoothing)
    loss, counts, total = _negative_log_likelihood(g, x, target, weight, reduction, ignore_index)
    if share is None:
        return loss
    every = x if weight is None else g.op("multiply", x, _along_classes(g, g.cast(weight, dtype), x))
    smooth = g.op("where", counts, g.op("negative", g.op("sum", every, axis=(axis,))), 0.0)
    if reduction != NONE:
        smooth = g.op("sum", smooth)
        smooth = g.op("divide", smooth, total) if reduction == MEAN else smooth
    return g.op("add", g.op("multiply", loss, 1.0 - float(label_smoothing)), g.op("multiply", smooth, share))


def _of_probabilities(g: Importer, x: Value, target: Value, weight: Value | None, reduction: int, share: Value | None,
                      label_smoothing: float) -> Value:
    """-Σ target · log_softmax(x) · weight over the classes, and its mean over everything else."""
    axis = _class_axis(x)
    if share is not None:
        target = g.op("add", g.op("multiply", target, 1.0 - float(label_smoothing)), share)
    products = g.op("multiply", x, target)
    if weight is not None:
        products = g.op("multiply", products, _along_classes(g, g.cast(weight, x.dtype), x))
    if reduction == NONE:
        return g.op("negative", g.op("sum", products, axis=(axis,)))
    whole = g.op("negative", g.op("sum", products))
    count = product([size for place, size in enumerate(x.shape) if place != axis])
    return g.op("divide", whole, g.operand(count, x.dtype)) if reduction == MEAN else whole


# Of classes, with the last layer ---------------------------------------------------------------------------------------------


@imports("torch_nn._linear_cross_entropy_batch_chunked.default")
def linear_cross_entropy(g: Importer, input: Value, linear_weight: Value, target: Value, linear_bias: Value | None, weight: Value | None,
                         reduction: str, ignore_index: int, label_smoothing: float, batch_chunk_size: int, acc_policy: str,
                         acc_dtype: torch.dtype, *gradients: bool) -> tuple[Value | None, ...]:
    """The loss alone: torch computes gradients with it, chunk by chunk of the batch."""
    others = [user for user in g.node.users if user.args[1:] and user.args[1] != 0]
    if label_smoothing or any(user.users for user in others):
        raise g.refuse("label smoothing" if label_smoothing else "the gradients that come with the loss are used")
    losses, weights = _linear_losses(g, input, linear_weight, target, linear_bias, weight, ignore_index, acc_dtype)
    whole = g.op("sum", losses)
    whole = g.op("divide", whole, g.op("sum", weights)) if reduction == "mean" else whole
    return g.cast(whole, input.dtype), None, None, None


@imports("torch_nn._linear_cross_entropy_batch_chunked_no_reduction.default")
def linear_cross_entropy_each(g: Importer, input: Value, linear_weight: Value, target: Value, linear_bias: Value | None,
                              weight: Value | None, ignore_index: int, batch_chunk_size: int, acc_policy: str,
                              acc_dtype: torch.dtype) -> Value:
    losses, _ = _linear_losses(g, input, linear_weight, target, linear_bias, weight, ignore_index, acc_dtype)
    return g.cast(losses, input.dtype)


def _linear_losses(g: Importer, input: Value, linear_weight: Value, target: Value, linear_bias: Value | None, weight: Value | None,
                   ignore_index: int, acc_dtype: torch.dtype) -> tuple[Value, Value]:
    """(the weighted loss of each row, its weight: 0 where the target is ignored). Of such a row, 0 times NaN is NaN, as in torch."""
    dtype = from_torch_dtype(acc_dtype)
    operands = [None if item is None else g.cast(item, dtype) for item in (input, linear_weight, linear_bias)]
    x = g.op("log_softmax", g.op("linear", *operands), axis=1)
    counts = g.op("not_equal", target, ignore_index)
    places = g.op("where", counts, target, 0)
    picked = g.op("take_along_axis", x, g.op("expand_dims", places, axis=(1,)), axis=1)
    losses = g.op("negative", g.op("squeeze", picked, axis=(1,)))
    own = g.cast(counts, dtype) if weight is None else g.op("where", counts, g.op("take", g.cast(weight, dtype), places, axis=0), 0.0)
    return g.op("multiply", losses, own), own
