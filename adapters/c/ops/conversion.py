"""Numbers of the data as sizes."""

from __future__ import annotations

from typing import Any

from adapters.c.bounds import bind
from adapters.c.registry import lowers
from adapters.c.views import View
from adapters.c.writer import Lowered, Writer


@lowers("size_of")
def size_of(g: Writer, node: Lowered, x: View) -> View:
    least: Any = node.attributes["least"]
    most: Any = node.attributes["most"]
    name = bind(g, node, g.most(most))
    y = g.new(node.spec, node.names[0])
    value = f"(int64_t){x.buffer.name}[{g.at(x, [])}]"
    g.emit(
        [
            f"{y.buffer.name}[0] = {value};",
            f"if ({y.buffer.name}[0] < {g.size(least)} || {y.buffer.name}[0] > {g.size(most)}) {{ return 2; }}",
            *(
                [f"if ({y.buffer.name}[0] > {g.known[symbol_of(node)].max}) {{ return 1; }}", f"{name} = (ptrdiff_t){y.buffer.name}[0];"]
                if name
                else []
            ),
        ],
        [x],
        [y],
    )
    return y


def symbol_of(node: Lowered) -> str:
    """The symbol that the node binds."""
    size: Any = node.attributes["size"]
    return str(size.symbol)
