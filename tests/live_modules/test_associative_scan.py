"""`associative_scan` at a free length, as one loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan

from tests.support_modules import assert_same


def recurrence(a: Tensor, b: Tensor) -> Any:
    """x[t] = a[t] · x[t - 1] + b[t], as state space models compute it."""
    return associative_scan(lambda left, right: (left[0] * right[0], left[1] * right[0] + right[1]), (a, b), 1, combine_mode="generic")[1]


def test_a_recurrence_at_lengths_that_were_not_traced() -> None:
    torch.manual_seed(0)
    calls = [(torch.rand(batch, time, 4), torch.randn(batch, time, 4)) for batch, time in ((2, 6), (3, 9), (4, 2))]
    model = assert_same(recurrence, *calls)
    assert "scan" in {node.op for node in model.graph.nodes}
