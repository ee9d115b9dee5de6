"""Tensors made from sizes and numbers, and the triangles of matrices."""

from __future__ import annotations

import torch

from tests.op_cases import Case, boolean, f32, f64, i32, i64

CASES = [
    Case("full", lambda x: torch.zeros(x.shape[0], 3) + x, f32("batch", 3), name="zeros"),
    Case("full", lambda x: torch.ones_like(x) + x.shape[1], f32("batch", "time"), name="ones_like"),
    Case("full", lambda x: x.new_full((x.shape[0], x.shape[1] + 1), 7), i64("batch", "time"), name="new_full"),
    Case("full", lambda x: torch.full((2, x.shape[0]), 2.5), f32("batch"), name="float"),
    Case("full", lambda x: torch.full((2, x.shape[0]), float("-inf"), dtype=torch.float64), f32("batch"), name="infinity float64"),
    Case("full", lambda x: torch.zeros_like(x, dtype=torch.bool), f32("batch", 3), name="booleans"),
    Case("full", lambda x: torch.full((3,), x.shape[0]), f32("batch"), name="size as value"),
    Case("full", lambda x: x / torch.tensor(3.0) + torch.scalar_tensor(2), f32("batch"), name="scalar"),
    Case("full", lambda x: torch.full((400,), 3, dtype=torch.int32) + x, i32("batch", 1), name="long"),
    Case("arange", lambda x: torch.arange(x.shape[1]) + x, i64("batch", "time"), name="size"),
    Case("linspace", lambda x: x + torch.linspace(-1, 1, 5), f32("batch", 5), name="known"),
    Case("arange", lambda x: x[:, torch.arange(x.shape[1] - 1, -1, -1)], i64("batch", "time"), name="places from the end"),
    Case("arange", lambda x: x[:, torch.arange(-x.shape[1], 0)], i64("batch", "time"), name="negative places"),
    Case("arange", lambda x: torch.arange(2, 2 * x.shape[1] + 3, 3), f32("batch", "time"), name="steps"),
    Case("arange", lambda x: torch.arange(x.shape[1], -1, -1), f32("batch", "time"), name="down"),
    Case("arange", lambda x: torch.arange(5, dtype=torch.float32) * x, f32("batch", 5), name="static"),
    Case("arange", lambda x: torch.arange(x.shape[0], dtype=torch.float32), f32("batch"), name="floats"),
    Case("arange", lambda x: torch.arange(0, 0.3, 0.1, dtype=torch.float32) * x, f32("batch", 1), name="tenths"),
    Case("arange", lambda x: torch.arange(0, x.shape[0], 0.5), f32("batch"), name="halves of a size"),
    Case("arange", lambda x: torch.arange(x.shape[0], device=x.device, dtype=torch.int32), f32("batch"), name="int32"),
    Case("linspace", lambda x: torch.linspace(-1, 2, 7) * x, f32("batch", 7), name="static"),
    Case("linspace", lambda x: torch.linspace(0, 1, 1, dtype=torch.float64) + x, f32("batch", 1), name="one"),
    Case("arange", lambda x: torch.linspace(0, x.shape[0] - 1, 6), f32("batch"), name="linspace to a size"),
    Case("eye", lambda x: torch.eye(x.shape[1]) + x, f32("batch", "time", 1), name="size"),
    Case("eye", lambda x: torch.eye(3, 4, dtype=torch.int64) * x, i64("batch", 1, 4), name="rectangular"),
    Case("tril", torch.tril, f32("batch", "time", 5)),
    Case("tril", lambda x: x.tril(-1), i32("batch", "time"), name="int32"),
    Case("tril", lambda x: x.tril(1), boolean("batch", "time"), name="booleans"),
    Case("triu", lambda x: torch.triu(x, 2), f64("batch", "time"), name="float64"),
    Case("triu", lambda x: torch.triu(torch.ones(x.shape[0], x.shape[1]), x.shape[1] - x.shape[0] + 1), f32("batch", "time"),
         name="size as diagonal"),
    Case("triu", lambda x: torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1), f32("batch", "time"), name="causal mask"),
    Case("tril_indices", lambda x: torch.tril_indices(4, 5, 1) + x, i64("batch", 1, 1)),
    Case("triu_indices", lambda x: torch.triu_indices(4, 3, -1) + x, i64("batch", 1, 1)),
]
