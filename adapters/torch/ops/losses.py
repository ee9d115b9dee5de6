"""Losses that are no plain formula of elementwise operators and reductions."""

from __future__ import annotations

import torch

from adapters.torch.importer import Importer
from adapters.torch.registry import imports, rebuilds
from converter.builder import Value


@imports("neutral_model.ctc_loss.default")
def ctc_loss(g: Importer, log_probs: Value, targets: Value, input_lengths: Value, target_lengths: Value, blank: int = 0) -> Value:
    return g.op("ctc_loss", log_probs, targets, input_lengths, target_lengths, blank=blank)


@rebuilds("ctc_loss")
def rebuild_ctc_loss(log_probs: torch.Tensor, targets: torch.Tensor, input_lengths: torch.Tensor, target_lengths: torch.Tensor, *,
                     blank: int = 0) -> torch.Tensor:
    return torch.nn.functional.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, reduction="none")
