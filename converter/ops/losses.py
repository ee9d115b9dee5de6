"""Losses that are no plain formula of elementwise operators and reductions."""

from __future__ import annotations

import numpy as np

from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, require, require_rank, require_size
from converter.opset import op


def _ctc_loss(log_probs: TensorSpec, targets: TensorSpec, input_lengths: TensorSpec, target_lengths: TensorSpec, *,
              blank: int = 0) -> TensorSpec:
    require_rank(log_probs, 3)
    require(log_probs.dtype.is_float, "wrong dtype of the input", expected="a float dtype", received=log_probs)
    require_rank(targets, 2, what="the targets")
    for lengths in (input_lengths, target_lengths):
        require_rank(lengths, 1, what="the lengths")
        require_size(lengths.shape[0], log_probs.shape[1], "the lengths")
    for item in (targets, input_lengths, target_lengths):
        require(item.dtype is DType.INT64, "wrong dtype of the targets or lengths", expected="int64", received=item)
    require_size(targets.shape[0], log_probs.shape[1], "the targets")
    return TensorSpec(log_probs.dtype, (log_probs.shape[1],))


@op(infer=_ctc_loss)
def ctc_loss(log_probs: Array, targets: Array, input_lengths: Array, target_lengths: Array, *, blank: int = 0) -> Array:
    """Connectionist temporal classification (Graves et al. 2006): -log of the probability of all alignments of a target.

    log_probs: [time, batch, classes]; targets: [batch, length], int64, padded with any class; input_lengths and
    target_lengths: [batch], int64. y: [batch], infinite where a target does not fit its input.

    With l' the target between blanks (blank, l₁, blank, l₂, …, blank), in logarithms:
    α₀(0) = p₀(blank), α₀(1) = p₀(l₁); αₜ(s) = (αₜ₋₁(s) + αₜ₋₁(s-1) + [l'ₛ is no blank and not l'ₛ₋₂] αₜ₋₁(s-2)) pₜ(l'ₛ);
    y = -log(α(2n) + α(2n-1)) at the last time of the input, n being the target's length.
    """
    if np.any(target_lengths < 0) or np.any(target_lengths > targets.shape[1]):
        raise ValueError(f"a target's length is not from 0 to {targets.shape[1]}")
    read = targets[np.arange(targets.shape[1]) < target_lengths[:, None]]
    if read.size and not 0 <= read.min() <= read.max() < log_probs.shape[2]:
        raise IndexError(f"a label is not from 0 to {log_probs.shape[2] - 1}")
    wide = np.result_type(log_probs.dtype, np.float32) if log_probs.dtype.itemsize > 2 else np.dtype(np.float32)
    count, states = targets.shape[0], 2 * targets.shape[1] + 1
    labels = np.full((count, states), blank)
    labels[:, 1::2] = targets
    again = np.zeros((count, states), bool)
    again[:, 3::2] = targets[:, 1:] != targets[:, :-1]
    again &= labels != blank
    # Nothing is read at a label past the target, which may be no class at all.
    classes = np.where(np.arange(states) < 2 * target_lengths[:, None] + 1, labels, blank)
    emitted = np.take_along_axis(log_probs.astype(wide), np.broadcast_to(classes, (len(log_probs), *classes.shape)), axis=2)
    alpha = np.full((count, states), -np.inf, wide)
    alpha[:, 0] = 0.0  # before any time, at the first blank, from where the first label is reached too
    for time, logs in enumerate(emitted):
        one, two = np.full_like(alpha, -np.inf), np.full_like(alpha, -np.inf)
        one[:, 1:], two[:, 2:] = alpha[:, :-1], alpha[:, :-2]
        moved = np.logaddexp(np.logaddexp(alpha, one), np.where(again, two, -np.inf)) + logs
        alpha = np.where((time < input_lengths)[:, None], moved, alpha)
    last = np.take_along_axis(alpha, 2 * target_lengths[:, None], axis=1)[:, 0]
    before = np.take_along_axis(alpha, np.maximum(2 * target_lengths - 1, 0)[:, None], axis=1)[:, 0]
    total = np.logaddexp(last, np.where(target_lengths > 0, before, -np.inf))
    return np.asarray(-total, log_probs.dtype)
