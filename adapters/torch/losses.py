"""Lets two losses be traced that `torch.export` stumbles over.

`gaussian_nll_loss` refuses negative variances, a check on values that no trace can hold; `multilabel_margin_loss` of one
unbatched sample is traced to the shape [1] and computed with the shape []. While `traceable_losses()` is active the first
takes its variances as they are, and the second is computed with a batch of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MULTILABEL = F.multilabel_margin_loss
GAUSSIAN = F.gaussian_nll_loss


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


@contextmanager
def traceable_losses() -> Iterator[None]:
    """While active, both losses are traced as what they compute."""
    F.gaussian_nll_loss, F.multilabel_margin_loss = _gaussian_nll_loss, _multilabel_margin_loss
    try:
        yield
    finally:
        F.gaussian_nll_loss, F.multilabel_margin_loss = GAUSSIAN, MULTILABEL
