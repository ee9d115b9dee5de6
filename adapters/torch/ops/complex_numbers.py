"""Complex numbers: their parts, and making them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
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


# Sums of exponentials --------------------------------------------------------------------------------------------------------


def logsumexp(g: Importer, x: Value, axes: tuple[int, ...] | None, keepdims: bool) -> Value:
    """log Σ eˣ of complex numbers: the largest real part is taken out of the sum first."""
    largest = g.op("max", g.op("real", x), axis=axes, keepdims=True)
    shift = g.op("where", g.op("isfinite", largest), largest, 0.0)
    total = g.op("sum", g.op("exp", g.op("subtract", x, g.op("complex", shift, 0.0))), axis=axes, keepdims=True)
    result = g.op("add", g.op("log", total), g.op("complex", shift, 0.0))
    if keepdims:
        return result
    places = range(x.rank) if axes is None else [axis % x.rank for axis in axes]
    return g.op("squeeze", result, axis=tuple(sorted(places))) if x.rank else result


def logaddexp(g: Importer, x: Value, y: Value) -> Value:
    """log(eˣ + eʸ) of complex numbers, from the one of the larger real part."""
    first = g.op("greater_equal", g.op("real", x), g.op("real", y))
    larger, smaller = g.op("where", first, x, y), g.op("where", first, y, x)
    return g.op("add", larger, g.op("log1p", g.op("exp", g.op("subtract", smaller, larger))))


# Back to torch ---------------------------------------------------------------------------------------------------------------

REBUILT: dict[str, Callable[..., torch.Tensor]] = {
    "real": torch.real, "imag": torch.imag, "angle": torch.angle, "complex": torch.complex,
    "view_as_complex": lambda x: torch.view_as_complex(x.contiguous()),
    "view_as_real": lambda x: torch.view_as_real(x.resolve_conj()), "conj": torch.conj_physical,
}
for _op, _function in REBUILT.items():
    rebuilds(_op)(_function)
