"""The parts of floating-point numbers: sign, fraction and exponent, and neighbours."""

from __future__ import annotations

import torch

from adapters.torch.ops.elementwise import binary
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType


@imports("aten.signbit.default")
def signbit(g: Importer, self: Value) -> Value:
    if self.dtype.is_float:
        return g.op("signbit", self)
    if self.dtype is DType.BOOL:
        return g.op("full", shape=self.shape, fill_value=False, dtype=DType.BOOL)
    return g.op("less", self, 0)


@imports("aten.frexp.Tensor")
def frexp(g: Importer, self: Value) -> tuple[Value, ...]:
    return g.add("frexp", self)


@imports("aten.nextafter.default", "prims.nextafter.default")
def nextafter(g: Importer, self: Value, other: Value) -> Value:
    return binary(g, "nextafter", self, other)


@imports("aten.ldexp.Tensor")
def ldexp(g: Importer, self: Value, other: Value) -> Value:
    """x · 2^y."""
    dtype = g.result_dtype()
    return binary(g, "multiply", self, g.op("power", g.tensor(2.0, dtype), g.cast(other, dtype)))


@rebuilds("signbit")
def rebuild_signbit(x: torch.Tensor) -> torch.Tensor:
    return torch.signbit(x) & ~torch.isnan(x)


@rebuilds("frexp")
def rebuild_frexp(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mantissa, exponent = torch.frexp(x)
    return mantissa, torch.where(torch.isfinite(x), exponent, 0)


rebuilds("nextafter")(torch.nextafter)
