"""Modified Bessel functions of the first kind."""

from __future__ import annotations

import torch

from adapters.torch.ops.elementwise import in_float
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

rebuilds("i0e")(torch.special.i0e)
rebuilds("i1e")(torch.special.i1e)

SCALED = {"aten.special_i0e.default": "i0e", "aten.special_i1e.default": "i1e"}
PLAIN = {"aten.i0.default": "i0e", "aten.special_i0.default": "i0e", "aten.special_i1.default": "i1e",
         "aten.special_modified_bessel_i0.default": "i0e", "aten.special_modified_bessel_i1.default": "i1e"}


def _register(name: str, op: str, scaled: bool) -> None:
    @imports(name)
    def bessel(g: Importer, self: Value) -> Value:
        dtype = g.result_dtype()
        x = in_float(g, self, dtype)
        value = g.op(op, x)
        if not scaled:
            value = g.op("multiply", value, g.op("exp", g.op("abs", x)))
        return g.cast(value, dtype)


for _name, _op in SCALED.items():
    _register(_name, _op, True)
for _name, _op in PLAIN.items():
    _register(_name, _op, False)
