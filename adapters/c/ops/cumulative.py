"""Running sums."""

from __future__ import annotations

from typing import Any

from adapters.c.elementwise import conversion
from adapters.c.registry import lowers
from adapters.c.types import ctype, sum_type
from adapters.c.views import View
from adapters.c.writer import Lowered, Writer
from converter.ir import DType


@lowers("cumulative_sum")
def cumulative_sum(g: Writer, node: Lowered, x: View) -> View:
    """Floats in float64."""
    axis: Any = node.attributes["axis"]
    y, dtype = g.new(node.spec, node.names[0]), node.spec.dtype
    place = axis % len(x.shape)
    others = [other for other in range(len(x.shape)) if other != place]
    views = [y, x]
    shape = tuple(x.shape[other] for other in others)
    outer = g.loops(shape, [View(item.buffer, shape, tuple(item.strides[other] for other in others), item.offset) for item in views])
    length = (x.shape[place],)
    inner = g.loops(length, [View(item.buffer, length, (item.strides[place],), item.offset) for item in views], outer, whole=True)
    wide, total = "double" if dtype.is_float else sum_type(dtype), g.variable("s")
    made = conversion(total, DType.FLOAT64, dtype) if dtype.is_float else None
    g.helpers.update(made.helpers if made else ())
    text = made.text if made else f"({ctype(dtype).scalar}){total}"
    lines = [
        f"{wide} {total} = 0;",
        *inner.around([f"{total} += ({wide}){inner.read(1)};", f"{inner.element(0)} = {g.written(dtype, text)};"]),
    ]
    g.emit(outer.around(lines) if outer.indices else ["{", *lines, "}"], [x], [y])
    return y
