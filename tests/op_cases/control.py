"""Rows of `converter/ops/control.py`."""

from __future__ import annotations

import torch
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from tests.op_cases import Case, f32, i64


class Branches(torch.nn.Module):
    """Two layers, of which the data choose one; each with sizes and a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.first(x) * torch.tensor([1.0, 2.0, 3.0, 4.0]),
                          lambda x: torch.relu(self.second(x)) + x.shape[0], (x,))


def nested(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    def inner(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cond(y.sum() > 0, lambda x, y: (x + y, y.argmax(0)), lambda x, y: (x - y, y.argmin(0)), (x, y))

    return torch.cond(x.sum() > 0, inner, lambda x, y: (x * y, x.argmax(0)), (x, y))


def by_size(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.shape[0] > 3, lambda x: x.sin(), lambda x: x.reshape(x.shape[0] * 4).cos().reshape(x.shape[0], 4), (x,))


def count(n: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    def more(step: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return step < n

    def body(step: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return step + 1, torch.tanh(x.reshape(-1, 2).flip(0).reshape(x.shape)) * x.shape[0]

    return while_loop(more, body, (torch.zeros((), dtype=torch.int64), x))


class Newton(torch.nn.Module):
    """Iterates until the data say that it is enough; what it multiplies by is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.eye(4) * 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return while_loop(lambda x: x.abs().max() > 0.25, lambda x: (x @ self.matrix,), (x,))[0]


def cell(x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    def step(h: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        new = torch.tanh(h + x)
        return new, new * 2

    return scan(step, h, x, dim=0)


def backwards(x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    def step(state: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        total, steps = state
        return (total * 0.5 + x, steps + 1), (total * x).sum(-1)

    (total, _), rows = scan(step, (h, torch.zeros((), dtype=torch.int64)), x, dim=1, reverse=True)
    return total, rows


class Mapped(torch.nn.Module):
    """A layer for each element of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch_map(lambda row: self.layer(row).softmax(0), x)


FEW = ({"batch": 3, "time": 5}, {"batch": 1, "time": 8}, {"batch": 4, "time": 1})

CASES = [
    Case("cond", Branches(), f32("batch", 4)),
    Case("cond", nested, f32("batch", 4), f32("batch", 4), name="nested"),
    Case("cond", by_size, f32("batch", 4), name="on a size", sizes=({"batch": 3}, {"batch": 5}, {"batch": 1})),
    Case("while_loop", count, i64(low=0, high=4), f32("batch", 4)),
    Case("while_loop", Newton(), f32("batch", 4), name="until close"),
    Case("scan", cell, f32("time", "batch", 4), f32("batch", 4), sizes=FEW),
    Case("scan", backwards, f32("batch", "time", 4), f32("batch", 4), name="two states backwards", sizes=FEW),
    Case("scan", Mapped(), f32("time", "batch", 4), name="map", sizes=FEW),
]
