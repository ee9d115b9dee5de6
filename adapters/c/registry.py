"""The table of lowerings, filled by the modules of `adapters/c/ops`, one per family:

    @lowers("permute_dims")
    def permute_dims(g: Writer, node: Lowered, x: View) -> View:
        return x.permuted(node.attributes["axes"])

A lowering takes the node and its operands, each in memory (`View`), absent ones as None, and gives a value for each output. Operators
that compute element by element are rows of `adapters.c.elementwise`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from converter.tables import Table

Function = TypeVar("Function", bound=Callable[..., Any])

_LOWERINGS = Table("adapters.c.ops", "is lowered twice")

lowers = _LOWERINGS.register
"""Registers a lowering for operators."""


def fuses(function: Function) -> Function:
    """Says of a lowering that it takes operands that are not computed yet (`adapters.c.fusion.Value`)."""
    function.fuses = True  # type: ignore[attr-defined]
    return function


def lowerings() -> Mapping[str, Callable[..., Any]]:
    """Every lowering by operator."""
    return _LOWERINGS
