"""Conditions whose other side lies far from the example: what the module takes there is told too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import converter
from converter.errors import ConversionWarning


class Pyramid(nn.Module):
    """Halves an image until its shorter side is below 4."""

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        while min(x.shape[-2:]) >= 4:
            x = F.avg_pool2d(x, 2)
            levels.append(x.mean((2, 3)))
        return torch.cat(levels, 1)


def test_both_ends_are_told() -> None:
    with pytest.warns(ConversionWarning) as told:
        converter.from_torch(Pyramid().eval(), (torch.randn(2, 3, 17, 20),))
    messages = [str(item.message) for item in told]
    for condition in ("min(x_2 // 4, x_3 // 4) >= 4", "min(x_2 // 8, x_3 // 8) <= 3"):
        assert any(f"requires {condition}: the module takes" in message for message in messages), messages
