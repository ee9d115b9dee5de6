"""What a conversion leaves of the example arguments: all, whatever the module writes to."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import converter


class Writes(nn.Module):
    """Changes what it is given."""

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x + nn.functional.embedding(torch.tensor([0, 2]), table, max_norm=1.0)


def test_the_example_arguments_are_as_they_were() -> None:
    """And the recorded ones are what the module was given, not what it left."""
    x, table = torch.arange(4.0), torch.arange(12.0).reshape(3, 4)
    before = x.clone(), table.clone()
    model = converter.from_torch(Writes(), (x, table))
    assert torch.equal(x, before[0])
    assert torch.equal(table, before[1])
    np.testing.assert_array_equal(model.examples[0].inputs["x"], before[0].numpy())
    assert converter.verify(model)
