"""Conversion between dtypes, and what computes nothing."""

from __future__ import annotations

import torch

from tests.op_cases import Case, boolean, f32, f64, i64
from tests.op_cases.bitwise import huge
from tests.op_cases.elementwise import edges

CASES = [
    Case("astype", lambda x: (x * 3).to(torch.int64), f32("batch", 9), name="float to integer"),
    Case("astype", lambda x: (x * 100).to(torch.uint8), f32("batch", 9), name="float to uint8"),
    Case("astype", lambda x: x.to(torch.bool), edges("batch", 9), name="float to bool"),
    Case("astype", lambda x: x.double(), f32("batch", 9), name="wider"),
    Case("astype", lambda x: x.float(), f64("batch", 9), name="narrower"),
    Case("astype", lambda x: x.half().float(), f32("batch", 9), name="through half"),
    Case("astype", lambda x: x.bfloat16().float(), f32("batch", 9), name="through bfloat16"),
    Case("astype", lambda x: x.to(torch.int16), huge("batch", 9), name="integers wrap"),
    Case("astype", lambda x: x.long() + 1, boolean("batch", 9), name="bool to integer"),
    Case("astype", lambda x, y: x.type_as(y), i64("batch", 9), f32(1), name="type_as"),
    Case("size_of", lambda x, n: x[:, :n.max()], f32("batch", 4), i64("time", low=-5, high=6), name="the end of a slice"),
    Case("size_of", lambda x, n: x[:, -n.max():], f32("batch", 4), i64("time", low=-5, high=6), name="the start of a slice, backwards"),
    Case("size_of", lambda n: torch.arange(n.max().item()) * 2, i64("batch", low=0, high=6), name="a number of elements"),
    Case("size_of", lambda x, n: x.roll(n[0].item(), 1), f32("batch", 4), i64("time", low=-5, high=6), name="a shift"),
    Case("negative", lambda x: -torch.dropout(x.clone().contiguous().detach().float(), 0.5, False), f32("batch", 9), name="copies"),
]
