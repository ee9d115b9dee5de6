"""Special functions. The importers of those that are operators stand in tables of `elementwise`."""

from __future__ import annotations

import torch

from adapters.torch.importer import Importer
from adapters.torch.ops.elementwise import Operand
from adapters.torch.registry import imports, rebuilds
from converter.builder import Value

REBUILT = {"erf": torch.erf, "erfc": torch.erfc, "erfinv": torch.erfinv, "lgamma": torch.lgamma, "digamma": torch.digamma,
           "xlogy": torch.xlogy}
for _op, _function in REBUILT.items():
    rebuilds(_op)(_function)


@imports("aten.special_xlog1py.default", "aten.special_xlog1py.other_scalar", "aten.special_xlog1py.self_scalar")
def xlog1py(g: Importer, self: Operand, other: Operand) -> Value:
    """x · log1p(y), 0 where x is 0, NaN where y is NaN."""
    dtype = g.result_dtype()
    x, y = g.tensor(self, dtype), g.tensor(other, dtype)
    product = g.op("where", g.op("equal", x, 0.0), 0.0, g.op("multiply", x, g.op("log1p", y)))
    return g.op("where", g.op("isnan", y), y, product)


@imports("aten.special_entr.default")
def entr(g: Importer, self: Value) -> Value:
    """-x log x, 0 at 0, -inf below."""
    x = g.cast(self, g.result_dtype())
    entropy = g.op("negative", g.op("xlogy", x, x))
    return g.op("where", g.op("less", x, 0.0), float("-inf"), entropy)


@imports("aten.special_ndtr.default")
def ndtr(g: Importer, self: Value) -> Value:
    """The normal distribution's cumulative function: erfc(-x/√2) / 2."""
    x = g.op("multiply", g.cast(self, g.result_dtype()), -0.7071067811865476)
    return g.op("multiply", g.op("erfc", x), 0.5)
