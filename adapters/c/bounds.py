"""Sizes that the data decide: the variable that holds one, and the most that it may be."""

from __future__ import annotations

from typing import Any

from adapters.c.writer import Lowered, Writer
from converter.errors import UnsupportedError

UNBOUNDED = (1 << 31) - 1


def bind(g: Writer, node: Lowered, most: int) -> str | None:
    """The variable for the size that a node binds; None where the node names none. A maximum that was stated holds too.

    Raises `UnsupportedError` where neither the operands nor a stated maximum say how large it can be.
    """
    size: Any = node.attributes.get("size")
    if size is None:
        return None
    name = str(size.symbol)
    stated = g.stated.get(name, most)
    if min(stated, most) >= UNBOUNDED:
        raise UnsupportedError(f"only the data say how large {name!r} is", fix=f"give --max {name}=SIZE")
    return g.bind(name, min(stated, most))
