"""The gamma function's kin. The importers of lgamma and digamma stand in the tables of `elementwise`."""

from __future__ import annotations

import math

import torch

from adapters.torch.ops.elementwise import Operand, in_float
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

rebuilds("lgamma")(torch.lgamma)
rebuilds("digamma")(torch.digamma)
rebuilds("zeta")(torch.special.zeta)


@imports("aten.special_zeta.default", "aten.special_zeta.other_scalar", "aten.special_zeta.self_scalar")
def zeta(g: Importer, self: Operand, other: Operand) -> Value:
    dtype = g.result_dtype()
    s, q = (in_float(g, g.tensor(item, dtype), dtype) for item in (self, other))
    return g.cast(g.op("zeta", s, q), dtype)


@imports("aten.polygamma.default", "aten.special_polygamma.default")
def polygamma(g: Importer, n: int, self: Value) -> Value:
    """The digamma function's nth derivative: (-1)^(n + 1) · n! · ζ(n + 1, x)."""
    dtype = g.result_dtype()
    x = in_float(g, self, dtype)
    if n == 0:
        return g.cast(g.op("digamma", x), dtype)
    if n > 170:
        raise g.refuse("a derivative whose factorial no float holds")
    return g.cast(g.op("multiply", g.op("zeta", float(n + 1), x), (-1.0) ** (n + 1) * math.factorial(n)), dtype)
