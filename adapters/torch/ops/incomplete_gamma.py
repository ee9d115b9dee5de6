"""The regularized incomplete gamma functions."""

from __future__ import annotations

import torch

from adapters.torch.ops.elementwise import Operand, in_float
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

rebuilds("igamma")(torch.special.gammainc)
rebuilds("igammac")(torch.special.gammaincc)


def _both(g: Importer, op: str, a: Operand, x: Operand) -> Value:
    dtype = g.result_dtype()
    return g.cast(g.op(op, *(in_float(g, g.tensor(item, dtype), dtype) for item in (a, x))), dtype)


@imports("aten.igamma.default", "aten.special_gammainc.default", "prims.igamma.default")
def igamma(g: Importer, self: Operand, other: Operand) -> Value:
    return _both(g, "igamma", self, other)


@imports("aten.igammac.default", "aten.special_gammaincc.default", "prims.igammac.default")
def igammac(g: Importer, self: Operand, other: Operand) -> Value:
    return _both(g, "igammac", self, other)
