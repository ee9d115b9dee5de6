"""Losses that are no plain formula of elementwise operators and reductions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

from tests.op_cases import Case, f32, f64, i64

SIZES = ({"batch": 3, "time": 9, "length": 4}, {"batch": 1, "time": 12, "length": 2}, {"batch": 4, "time": 5, "length": 3})


def _ctc(blank: int = 0, **options: object) -> object:
    def loss(x: torch.Tensor, targets: torch.Tensor, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        logs = x.transpose(0, 1).log_softmax(-1)
        inputs = torch.minimum(inputs, torch.full_like(inputs, x.shape[1]))
        lengths = torch.minimum(lengths, torch.full_like(lengths, targets.shape[1]))
        return F.ctc_loss(logs, targets, inputs, lengths, blank, **options)  # type: ignore[arg-type]

    return loss


def _linear(reduction: str, policy: Any) -> object:
    """With a weight for each class, in chunks of two rows."""
    options = LinearCrossEntropyOptions(batch_chunk_size=2, acc_policy=policy)

    def loss(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor, bias: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return F.linear_cross_entropy(x, w, y, linear_bias=bias, weight=classes.exp(), reduction=reduction, ignore_index=2, options=options)

    return loss


INPUTS = (f32("batch", "time", 6), i64("batch", "length", low=1, high=6), i64("batch", low=4, high=13), i64("batch", low=0, high=5))

CASES = [
    Case("ctc_loss", _ctc(reduction="none"), *INPUTS, name="each", sizes=SIZES),
    Case("ctc_loss", _ctc(reduction="mean", zero_infinity=True), *INPUTS, name="mean without infinities", sizes=SIZES),
    Case("ctc_loss", _ctc(5, reduction="sum"), f64("batch", "time", 6), i64("batch", "length", low=0, high=5), *INPUTS[2:],
         name="another blank, float64", sizes=SIZES),
    Case("ctc_loss", lambda x, y: F.ctc_loss(x.log_softmax(-1), y, (9, 7, 8), (3, 1, 2), reduction="none"), f32(9, 3, 5),
         i64(6, low=1, high=5), name="targets one after another"),
    Case("where", lambda x, y, v: F.gaussian_nll_loss(x, y, v.exp(), full=True).where(x > 0, 0.0), f32("batch", 4), f32("batch", 4),
         f32("batch", 4), name="gaussian_nll_loss"),
    *(Case("log_softmax", lambda x, y, r=reduction: F.cross_entropy(x, y % x.shape[1], reduction=r), f32("batch", "time", 3),
           i64("batch", 3, low=0, high=99), name=f"cross_entropy {reduction}") for reduction in ("none", "sum", "mean")),
    *(Case("log_softmax", lambda x, y, w, r=reduction: F.cross_entropy(x, y, w.exp(), ignore_index=2, label_smoothing=0.1, reduction=r),
           f32("batch", 5), i64("batch", low=0, high=5), f32(5), name=f"cross_entropy {reduction}, smooth and weighted")
      for reduction in ("none", "sum", "mean")),
    *(Case("log_softmax", lambda x, y, w, r=reduction: F.cross_entropy(x, y.softmax(1), w.exp(), label_smoothing=0.1, reduction=r),
           f32("batch", 5, "time"), f32("batch", 5, "time"), f32(5), name=f"cross_entropy {reduction} of probabilities")
      for reduction in ("none", "sum", "mean")),
    Case("log_softmax", lambda x, y: F.cross_entropy(x, y[0]), f32(5), i64(1, low=0, high=5), name="cross_entropy unbatched"),
    Case("take_along_axis", lambda x, y, w: F.nll_loss(x, y, w.exp(), ignore_index=1), f32("batch", 5, "time", 2),
         i64("batch", "time", 2, low=0, high=5), f32(5), name="nll_loss"),
    Case("take_along_axis", lambda x, y: F.nll_loss(x, y * 0 + 1, ignore_index=1), f32("batch", 5), i64("batch", low=0, high=5),
         name="nll_loss of nothing"),
    *(Case("linear", _linear(reduction, policy), f32("batch", 4), f32(5, 4), i64("batch", low=0, high=5), f32(5), f32(5),
           name=f"linear_cross_entropy {reduction}") for reduction, policy in (("none", "auto"), ("sum", "compact"), ("mean", "balanced"))),
    Case("linear", lambda x, w, y: F.linear_cross_entropy(x, w, y, options=LinearCrossEntropyOptions(batch_chunk_size=2)),
         f64("batch", 4), f64(5, 4), i64("batch", low=0, high=5), name="linear_cross_entropy, float64"),
]
