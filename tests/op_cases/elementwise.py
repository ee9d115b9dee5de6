"""Arithmetic, comparison and logic."""

import torch

from tests.op_cases import Case, f32

CASES = [
    Case("add", torch.add, f32("batch", 4), f32(4)),
    Case("add", lambda x: x + 2.5, f32("batch", 4), name="literal"),
]
