"""The table neutral operator -> lowering, filled by the modules of `adapters/onnx/ops`, one per family.

    @lowers("linear")
    def linear(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return g.node("Gemm", x, weight, bias, transB=1)

A lowering takes what the operator's kernel takes: operands as `Tensor` (a literal number is already a constant), absent
ones as None, and attributes as keywords with their defaults filled in; sizes are `int` or `Expr`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from converter.tables import Table

_LOWERINGS = Table("adapters.onnx.ops", "is lowered twice")

lowers = _LOWERINGS.register
"""Registers a lowering for neutral operators."""


def lowerings() -> Mapping[str, Callable[..., Any]]:
    """Every lowering by operator."""
    return _LOWERINGS
