"""Arithmetic, comparison and logic, element by element."""

from __future__ import annotations

import torch

from adapters.torch.importer import Importer
from adapters.torch.registry import imports, rebuilds
from converter.builder import Value


@imports("aten.add.Tensor", "aten.add.Scalar")
def add(g: Importer, self: Value, other: object, *, alpha: object = 1) -> Value:
    dtype = g.result_dtype()
    right = g.operand(other, dtype)
    if alpha != 1:
        right = g.op("multiply", g.tensor(right, dtype), g.operand(alpha, dtype))
    return g.op("add", g.cast(self, dtype), right)


rebuilds("add")(torch.add)
rebuilds("subtract")(torch.sub)
rebuilds("multiply")(torch.mul)
rebuilds("where")(torch.where)
rebuilds("negative")(torch.neg)
