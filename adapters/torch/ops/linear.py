"""Matrix products and affine maps."""

from __future__ import annotations

import torch

from adapters.torch.importer import Importer
from adapters.torch.registry import imports, rebuilds
from converter.builder import Value


@imports("aten.linear.default")
def linear(g: Importer, input: Value, weight: Value, bias: Value | None = None) -> Value:
    return g.op("linear", input, weight, bias)


rebuilds("linear")(torch.nn.functional.linear)
