"""Exponentials, logarithms, roots, trigonometric and hyperbolic functions. Their importers stand in a table of `elementwise`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from adapters.torch.ops.complex_numbers import logaddexp as complex_logaddexp
from adapters.torch.ops.elementwise import in_float
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

REBUILT: dict[str, Callable[..., torch.Tensor]] = {
    "exp": torch.exp, "expm1": torch.expm1, "exp2": torch.exp2, "log": torch.log, "log1p": torch.log1p, "log2": torch.log2,
    "log10": torch.log10, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan,
    "asin": torch.asin, "acos": torch.acos, "atan": torch.atan, "sinh": torch.sinh, "cosh": torch.cosh, "tanh": torch.tanh,
    "asinh": torch.asinh, "acosh": torch.acosh, "atanh": torch.atanh, "atan2": torch.atan2, "hypot": torch.hypot,
    "logaddexp": torch.logaddexp, "sigmoid": torch.sigmoid,
}
for _op, _function in REBUILT.items():
    rebuilds(_op)(_function)


@imports("aten.logaddexp.default")
def logaddexp(g: Importer, self: Value, other: Value) -> Value:
    dtype = g.result_dtype()
    x, y = g.cast(self, dtype), g.cast(other, dtype)
    return complex_logaddexp(g, x, y) if dtype.is_complex else g.op("logaddexp", x, y)


@imports("aten.logaddexp2.default")
def logaddexp2(g: Importer, self: Value, other: Value) -> Value:
    """log2(2ˣ + 2ʸ) = logaddexp(x ln 2, y ln 2) / ln 2."""
    dtype, ln2 = g.result_dtype(), 0.6931471805599453
    x, y = (g.op("multiply", in_float(g, item, dtype), ln2) for item in (self, other))
    return g.cast(g.op("divide", g.op("logaddexp", x, y), ln2), dtype)


@imports("aten.sinc.default", "aten.special_sinc.default")
def sinc(g: Importer, self: Value) -> Value:
    """sin(πx) / (πx), 1 at 0."""
    dtype = g.result_dtype()
    x = g.op("multiply", in_float(g, self, dtype), 3.141592653589793)
    return g.cast(g.op("where", g.op("equal", x, 0.0), 1.0, g.op("divide", g.op("sin", x), x)), dtype)


@imports("aten.logit.default", "aten.special_logit.default")
def logit(g: Importer, self: Value, eps: float | None = None) -> Value:
    """log(x / (1 - x)), x kept in [eps, 1 - eps]."""
    dtype = g.result_dtype()
    x = in_float(g, self, dtype)
    if eps is not None:
        x = g.op("clip", x, eps, 1.0 - eps)
    return g.cast(g.op("log", g.op("divide", x, g.op("subtract", 1.0, x))), dtype)
