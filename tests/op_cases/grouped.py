"""Cases of the operators of `converter/ops/grouped.py`."""

from __future__ import annotations

import torch
import transformers.integrations.moe  # noqa: F401  (registers the operator for dtypes that torch's own does not trace)

from tests.op_cases import Case, f32, f64, i64


def grouped(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    return torch.ops.transformers.grouped_mm_fallback(x, weight, ends)  # type: ignore[no-any-return]


def experts(x: torch.Tensor, weight: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    """Each row times the matrix it chose, as mixtures of experts do it."""
    order = choice.argsort()
    counts = torch.histc(choice.float(), bins=weight.shape[0], min=0, max=weight.shape[0] - 1)
    y = grouped(x[order], weight, counts.cumsum(0, dtype=torch.int32))
    return y[order.argsort()]


def wide_experts(x: torch.Tensor, weight: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    ends = torch.nn.functional.one_hot(choice, 4).sum(0).cumsum(0)[:3]
    return grouped(x[choice.argsort()], weight, ends)[: (x.shape[0] + 1) // 2]


CASES = [
    Case("grouped_matmul", experts, f32("batch", 8), f32(3, 8, 16), i64("batch", low=0, high=3)),
    Case("grouped_matmul", experts, f32("batch", 8), f32(1, 8, 16), i64("batch", low=0, high=1), name="one group"),
    Case("grouped_matmul", wide_experts, f64("batch", 4), f64(3, 4, 5), i64("batch", low=0, high=4), name="float64, int64 ends"),
    Case("equal", lambda x: torch.histc(x, 5, -1.5, 2), f32("batch", 7), name="histc"),
    Case("equal", lambda x: torch.histc(x, 4, 0, 3), f64("batch"), name="histc of whole bins"),
    Case("equal", lambda x: torch.histc(x, 6), f32("batch", 3), name="histc between the data's ends"),
]
