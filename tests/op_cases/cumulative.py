"""Running sums, products and extremes."""

from __future__ import annotations

import torch

from tests.op_cases import Case, boolean, f32, f64, i32, i64
from tests.op_cases.elementwise import edges

CASES = [
    Case("cumulative_sum", lambda x: x.cumsum(1), f32("batch", "time", 3)),
    Case("cumulative_sum", lambda x: x.cumsum(-1), f64("batch", "time"), name="float64"),
    Case("cumulative_sum", lambda x: x.cumsum(-1), boolean("batch", "time"), name="booleans"),
    Case("cumulative_sum", lambda x: x.cumsum(0), i32("batch", 3), name="int32"),
    Case("cumulative_sum", lambda x: x.cumsum(0, dtype=torch.int32), i32("batch", 3), name="to int32"),
    Case("cumulative_prod", lambda x: x.cumprod(1), f32("batch", "time", 3)),
    Case("cumulative_prod", lambda x: x.cumprod(0), i64("batch"), name="vector"),
    Case("cumulative_prod", lambda x: x.cumprod(-1), f64("batch", 4), name="float64"),
    Case("cumulative_prod", lambda x: x[:0].cumprod(0), f32(4), name="of nothing"),
    Case("logcumsumexp", lambda x: torch.logcumsumexp(x, 1), f32("batch", "time", 3)),
    Case("logcumsumexp", lambda x: torch.logcumsumexp(torch.where(x > 0, x, float("-inf")), -1), f32("batch", 6), name="infinities"),
    Case("cummax", lambda x: tuple(x.cummax(1)), f32("batch", "time", 3)),
    Case("cummax", lambda x: tuple(x.cummax(-1)), edges("batch", 12), name="edges"),
    Case("cummax", lambda x: tuple(x.cummax(0)), i64("batch", low=0, high=3), name="ties"),
    Case("cummin", lambda x: tuple(x.cummin(1)), f32("batch", "time", 3)),
    Case("cummin", lambda x: tuple(x.cummin(-1)), edges("batch", 12), name="edges"),
    Case("cummin", lambda x: tuple(x.cummin(-1)), i32("batch", 6, low=0, high=3), name="ties"),
    Case("cummax", lambda x: tuple(x.cummax(-1)), boolean("batch", 6), name="booleans"),
]
