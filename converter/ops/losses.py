"""Losses that are no plain formula of elementwise operators and reductions."""

from __future__ import annotations

import math
from functools import reduce

from converter.dims import Dim
from converter.formulas import Space, Term, counted, dtype_of, widened
from converter.ir import DType, TensorSpec
from converter.ops._rules import require, require_rank, require_size
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
@widened
def ctc_loss(f: Space, log_probs: Term, targets: Term, input_lengths: Term, target_lengths: Term, *, blank: int = 0) -> Term:
    """Connectionist temporal classification (Graves et al. 2006): -log of the probability of all alignments of a target.

    log_probs: [time, batch, classes]; targets: [batch, length], int64, padded with any class; input_lengths and
    target_lengths: [batch], int64. y: [batch], infinite where a target does not fit its input.

    With l' the target between blanks (blank, l₁, blank, l₂, …, blank), in logarithms:
    α₀(0) = p₀(blank), α₀(1) = p₀(l₁); αₜ(s) = (αₜ₋₁(s) + αₜ₋₁(s-1) + [l'ₛ is no blank and not l'ₛ₋₂] αₜ₋₁(s-2)) pₜ(l'ₛ);
    y = -log(α(2n) + α(2n-1)) at the last time of the input, n being the target's length.
    """
    (time, batch, count), length = log_probs.shape, targets.shape[1]
    states, column = 2 * length + 1, f.expand_dims(target_lengths, axis=(1,))
    blanks = f.full(shape=(batch, length), fill_value=blank, dtype=DType.INT64)
    pairs = f.reshape(f.stack(blanks, targets, axis=2), shape=(batch, 2 * length))
    labels = f.pad(pairs, pads=((0, 0), (0, 1)), value=blank)
    before = f.slice(f.pad(labels, pads=((0, 0), (2, 0)), value=blank), axes=(1,), starts=(0,), stops=(-2,))
    again = f.not_equal(labels, before) & f.not_equal(labels, blank)
    # Nothing is read at a label past the target, which may be no class at all.
    classes = _inside(f, f.where(counted(f, states) <= column * 2, labels, blank), count)
    emitted = f.take_along_axis(log_probs, f.broadcast_to(classes, shape=(time, batch, states)), axis=2)
    active = counted(f, time, 0, 3) < f.expand_dims(input_lengths, axis=(1,))

    def step(f: Space, alpha: Term, logs: Term, active: Term, again: Term) -> tuple[Term]:
        shifted = f.pad(alpha, pads=((0, 0), (2, 0)), value=-math.inf)
        one, two = (f.slice(shifted, axes=(1,), starts=(start,), stops=(start - 2,)) for start in (1, 0))
        return (f.where(active, _log_of_sum(f, alpha, one, f.where(again, two, -math.inf)) + logs, alpha),)

    # Before any time it is at the first blank, from where the first label is reached too.
    start = f.where(f.equal(counted(f, states), 0), f.full(shape=(batch, states), fill_value=0.0, dtype=dtype_of(log_probs)), -math.inf)
    (alpha,) = f.scan(start, emitted, active, again, states=1, sequences=2, body=step)
    last = f.take_along_axis(alpha, _inside(f, column * 2, states), axis=1)
    previous = f.take_along_axis(alpha, f.maximum(column * 2 - 1, 0), axis=1)
    return -f.squeeze(_log_of_sum(f, last, f.where(column > 0, previous, -math.inf)), axis=(1,))


def _inside(f: Space, places: Term, size: Dim) -> Term:
    """A negative place, which would count from the end, becomes one outside."""
    return f.where(places < 0, size, places)


def _log_of_sum(f: Space, *logs: Term) -> Term:
    """log Σ eˣ, -infinity of nothing but that."""
    top = reduce(f.maximum, logs)
    top = f.where(f.equal(top, -math.inf), 0.0, top)
    return f.log(reduce(f.add, (f.exp(item - top) for item in logs))) + top
