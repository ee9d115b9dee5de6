"""Complex numbers at the border of a graph: in C they are pairs of real ones, so that nothing is done."""

from __future__ import annotations

from adapters.c.registry import lowers
from adapters.c.views import View
from adapters.c.writer import Lowered, Writer


@lowers("view_as_real", "view_as_complex")
def as_pairs(g: Writer, node: Lowered, x: View) -> View:
    return x
