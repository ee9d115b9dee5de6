"""Complex numbers: their parts, and making them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from adapters.torch.importer import Importer
from adapters.torch.registry import imports, rebuilds
from converter.builder import Value


@imports("aten.real.default")
def real(g: Importer, self: Value) -> Value:
    return g.op("real", self) if self.dtype.is_complex else self


@imports("aten.imag.default")
def imag(g: Importer, self: Value) -> Value:
    return g.op("imag", self)


@imports("aten._conj.default", "aten.conj.default", "aten.conj_physical.default", "aten._conj_physical.default")
def conj(g: Importer, self: Value) -> Value:
    return g.op("conj", self) if self.dtype.is_complex else self


@imports("aten.resolve_conj.default", "aten.resolve_neg.default")
def resolve(g: Importer, self: Value) -> Value:
    return self


@imports("aten.angle.default")
def angle(g: Importer, self: Value) -> Value:
    return g.op("angle", self if self.dtype.is_complex else g.cast(self, g.result_dtype()))


@imports("aten.complex.default")
def complex_(g: Importer, real: Value, imag: Value) -> Value:
    g.result_dtype()  # refuses halves of complex numbers, which the format lacks
    return g.op("complex", real, imag)


@imports("aten.polar.default")
def polar(g: Importer, abs: Value, angle: Value) -> Value:
    return g.op("complex", g.op("multiply", abs, g.op("cos", angle)), g.op("multiply", abs, g.op("sin", angle)))


@imports("aten.view_as_complex.default", "aten.view_as_complex_copy.default")
def view_as_complex(g: Importer, self: Value) -> Value:
    g.result_dtype()  # as in `complex_`
    return g.op("view_as_complex", self)


@imports("aten.view_as_real.default", "aten.view_as_real_copy.default")
def view_as_real(g: Importer, self: Value) -> Value:
    return g.op("view_as_real", self)


REBUILT: dict[str, Callable[..., torch.Tensor]] = {
    "real": torch.real, "imag": torch.imag, "angle": torch.angle, "complex": torch.complex,
    "view_as_complex": lambda x: torch.view_as_complex(x.contiguous()),
    "view_as_real": lambda x: torch.view_as_real(x.resolve_conj()), "conj": torch.conj_physical,
}
for _op, _function in REBUILT.items():
    rebuilds(_op)(_function)
