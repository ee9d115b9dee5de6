"""Lets losses be traced that `torch.export` stumbles over.

`gaussian_nll_loss` refuses negative variances, a check on values that no trace can hold; `multilabel_margin_loss` of one
unbatched sample is traced to the shape [1] and computed with the shape []; the inner result of `ctc_loss` has a size that
depends on values; `linear_cross_entropy` in chunks does not say that there is a target for each row. While
`traceable_losses()` is active the first takes its variances as they are, the second is computed with a batch of one, the
third is an operator of its own, and the fourth says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.torch.patches.exchanging import exchanged

MULTILABEL = F.multilabel_margin_loss
GAUSSIAN = F.gaussian_nll_loss
CTC = F.ctc_loss
LINEAR = getattr(F, "linear_cross_entropy", None)  # since PyTorch 2.13


def _gaussian_nll_loss(input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6,
                       reduction: str = "mean") -> Tensor:
    """(log var + (input - target)² / var) / 2, and log(2π) / 2 where `full`; torch.nn.functional's, its check of signs aside."""
    if not isinstance(var, Tensor):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = var * torch.ones_like(input)
    if var.size() != input.size():
        if input.size()[:-1] == var.size():
            var = var.unsqueeze(-1)
        elif not (input.ndim == var.ndim and sum(mine for whole, mine in zip(input.size(), var.size(), strict=True) if whole != mine) == 1):
            raise ValueError("var is of incorrect size")
    var = var.clamp(min=eps)
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not valid")
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def _multilabel_margin_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Tensor:
    if input.dim() != 1 or target.dim() != 1:
        return MULTILABEL(input, target, size_average, reduce, reduction)
    loss = MULTILABEL(input.unsqueeze(0), target.unsqueeze(0), size_average, reduce, reduction)
    return loss.reshape(())


@torch.library.custom_op("neutral_model::ctc_loss", mutates_args=())
def _ctc(log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    return CTC(log_probs, targets, input_lengths, target_lengths, blank, reduction="none")


@_ctc.register_fake
def _fake(log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    for item in (targets, input_lengths, target_lengths):
        torch._check(item.shape[0] == log_probs.shape[1])
    return log_probs.new_empty((log_probs.shape[1],))


def _ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: str = "mean",
              zero_infinity: bool = False) -> Tensor:
    """torch.nn.functional.ctc_loss with the recursion over time as one operator on a padded matrix of targets."""
    unbatched = log_probs.dim() == 2
    if unbatched:
        log_probs = log_probs.unsqueeze(1)
    count = log_probs.shape[1]
    inputs, lengths = (torch.as_tensor(item, dtype=torch.int64).reshape(-1) for item in (input_lengths, target_lengths))
    targets = targets.to(torch.int64)
    if unbatched:
        targets = targets.reshape(1, -1)
    elif targets.dim() == 1:
        # One after another: row n starts where the lengths before it end; what lies past its own length is not read.
        places = (torch.cumsum(lengths, 0) - lengths).unsqueeze(1) + torch.arange(targets.shape[0])
        targets = targets[places.clamp(max=max(targets.shape[0] - 1, 0))] if targets.shape[0] else targets.reshape(1, 0).expand(count, 0)
    loss = torch.ops.neutral_model.ctc_loss(log_probs, targets, inputs, lengths, blank)
    if zero_infinity:
        loss = torch.where(loss == math.inf, 0.0, loss)
    if reduction == "mean":
        return (loss / lengths.clamp(min=1).to(loss.dtype)).mean()
    if reduction == "sum":
        return loss.sum()
    return loss.squeeze(0) if unbatched else loss


def _linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, **options: Any) -> Tensor:
    assert LINEAR is not None
    if input.dim() == 2 and target.dim():
        torch._check(target.shape[0] == input.shape[0])
    return LINEAR(input, linear_weight, target, **options)


@contextmanager
def traceable_losses() -> Iterator[None]:
    """While active, the losses are traced as what they compute."""
    newer = [(F, "linear_cross_entropy", _linear_cross_entropy)] if LINEAR is not None else []
    with exchanged((F, "gaussian_nll_loss", _gaussian_nll_loss), (F, "multilabel_margin_loss", _multilabel_margin_loss),
                   (F, "ctc_loss", _ctc_loss), *newer):
        yield
