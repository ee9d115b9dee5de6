"""Matrix products and affine maps."""

import torch
import torch.nn.functional as F

from tests.op_cases import Case, f32

CASES = [
    Case("linear", F.linear, f32("batch", 4), f32(3, 4), f32(3), name="matrix"),
    Case("linear", torch.nn.Linear(4, 3), f32("batch", "time", 4), name="batches"),
    Case("linear", torch.nn.Linear(4, 3, bias=False), f32("batch", "time", 4), name="no bias"),
]
