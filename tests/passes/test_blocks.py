"""Blocks of `autocast`, `no_grad`, `inference_mode` and the like inside of a forward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support_modules import assert_same


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)


class Modes(Layers):
    """Blocks that change nothing of what is computed on a CPU."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            w = self.first(x).relu()
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            y = torch.cond(x.sum() > 0, lambda x: self.first(x.float()), lambda x: self.second(x.float()), (x,))
        with torch.set_grad_enabled(False):
            z = x * 3
        return w, y, z


class Mixed(Layers):
    """A block in lower precision, with one at full precision inside."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.first(x)
            with torch.autocast("cpu", enabled=False):
                z = self.second(y.float())
            scores = F.softmax(y @ y.T, -1)
        return y.float(), z, scores.float() + x.mean()


class Decorated(Layers):
    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.first(x).float(), lambda x: self.second(x).float(), (x,))


@pytest.mark.parametrize(("module", "tolerance"), [(Modes(), 1e-5), (Mixed(), 1e-2), (Decorated(), 1e-2)])
def test_blocks(module: nn.Module, tolerance: float) -> None:
    """To the rounding of bfloat16 where there is some."""
    calls = [(torch.randn(size, 4),) for size in (5, 3, 1)]
    model = assert_same(module, *calls, tolerance=tolerance)
    if isinstance(module, Mixed):
        assert "bfloat16" in {str(node.attributes.get("dtype")) for node in model.graph.nodes}
