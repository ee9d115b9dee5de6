"""Numbers at equal distances."""

from __future__ import annotations

from typing import Any

from adapters.c.elementwise import conversion
from adapters.c.registry import lowers
from adapters.c.views import View
from adapters.c.writer import Lowered, Writer
from converter.dims import Expr
from converter.ir import DType


@lowers("arange")
def arange(g: Writer, node: Lowered) -> View:
    """In float64 unless all numbers are integers."""
    start, step, stop = (node.attributes[name] for name in ("start", "step", "stop"))
    y = g.new(node.spec, node.names[0])
    at = g.loops(y.shape, [y], whole=True)
    whole = not any(isinstance(item, float) for item in (start, step, stop))
    wide = DType.INT64 if whole else DType.FLOAT64

    def number(value: Any) -> str:
        return g.number(value, wide) if isinstance(value, (int, float, Expr)) else str(value)

    made = conversion(f"(({'int64_t' if whole else 'double'}){at.indices[0]} * {number(step)} + {number(start)})", wide, node.spec.dtype)
    g.helpers.update(made.helpers)
    g.emit(at.around([f"{at.element(0)} = {g.written(node.spec.dtype, made.text)};"]), [], [y])
    return y
