"""Special functions. The importers of those that are operators stand in tables of `elementwise`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from adapters.torch.ops.elementwise import Operand, in_float
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

REBUILT: dict[str, Callable[..., torch.Tensor]] = {
    "erf": torch.erf, "erfc": torch.erfc, "erfinv": torch.erfinv, "xlogy": torch.xlogy, "erfcx": torch.special.erfcx,
    "ndtri": torch.special.ndtri,
}
for _op, _function in REBUILT.items():
    rebuilds(_op)(_function)


@imports("aten.special_xlog1py.default", "aten.special_xlog1py.other_scalar", "aten.special_xlog1py.self_scalar")
def xlog1py(g: Importer, self: Operand, other: Operand) -> Value:
    """x · log1p(y), 0 where x is 0, NaN where y is NaN."""
    dtype = g.result_dtype()
    x, y = (in_float(g, g.tensor(item, dtype), dtype) for item in (self, other))
    product = g.op("where", g.op("equal", x, 0.0), 0.0, g.op("multiply", x, g.op("log1p", y)))
    return g.cast(g.op("where", g.op("isnan", y), y, product), dtype)


@imports("aten.special_entr.default")
def entr(g: Importer, self: Value) -> Value:
    """-x log x, 0 at 0, -inf below."""
    dtype = g.result_dtype()
    x = in_float(g, self, dtype)
    entropy = g.op("negative", g.op("xlogy", x, x))
    return g.cast(g.op("where", g.op("less", x, 0.0), float("-inf"), entropy), dtype)


@imports("aten.special_ndtr.default")
def ndtr(g: Importer, self: Value) -> Value:
    """The normal distribution's cumulative function: (1 + erf(x/√2)) / 2, as PyTorch computes it."""
    dtype = g.result_dtype()
    x = g.op("multiply", g.cast(self, dtype), 0.7071067811865476)
    return g.op("multiply", g.op("add", g.op("erf", x), 1.0), 0.5)


@imports("aten.special_erfcx.default")
def erfcx(g: Importer, self: Value) -> Value:
    dtype = g.result_dtype()
    return g.cast(g.op("erfcx", in_float(g, self, dtype)), dtype)


@imports("aten.special_ndtri.default")
def ndtri(g: Importer, self: Value) -> Value:
    dtype = g.result_dtype()
    return g.cast(g.op("ndtri", in_float(g, self, dtype)), dtype)


@imports("aten.special_log_ndtr.default")
def log_ndtr(g: Importer, self: Value) -> Value:
    """The logarithm of the normal distribution's cumulative function; below -1, where that vanishes, through erfcx."""
    dtype = g.result_dtype()
    x = in_float(g, self, dtype)
    t = g.op("multiply", x, 0.7071067811865476)
    below = g.op("subtract", g.op("log", g.op("multiply", g.op("erfcx", g.op("negative", t)), 0.5)), g.op("square", t))
    above = g.op("log1p", g.op("multiply", g.op("erfc", t), -0.5))
    return g.cast(g.op("where", g.op("less", x, -1.0), below, above), dtype)
