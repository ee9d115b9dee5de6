"""The parts of floating-point numbers."""

from __future__ import annotations

from adapters.c.registry import lowers
from adapters.c.types import ctype
from adapters.c.views import View
from adapters.c.writer import Lowered, Writer


@lowers("frexp")
def frexp(g: Writer, node: Lowered, x: View) -> tuple[View, View]:
    """Of 0, the infinities and NaN the number itself and 0."""
    mantissa, exponent = (g.new(spec, hint) for spec, hint in zip(node.specs, (*node.names, "exponent"), strict=False))
    at = g.loops(x.shape, [x, mantissa, exponent])
    value, power, form = g.variable("a"), g.variable("k"), ctype(x.dtype)
    g.emit(
        at.around(
            [
                f"const {form.scalar} {value} = {at.read(0)};",
                f"int {power} = 0;",
                f"{at.element(1)} = {g.written(x.dtype, f'isfinite({value}) ? frexp{form.math}({value}, &{power}) : {value}')};",
                f"{at.element(2)} = (int32_t){power};",
            ]
        ),
        [x],
        [mantissa, exponent],
    )
    return mantissa, exponent
