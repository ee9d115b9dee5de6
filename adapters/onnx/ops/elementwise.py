"""Arithmetic, comparison and logic, element by element."""

from __future__ import annotations

from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.registry import lowers


@lowers("add")
def add(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    return g.node("Add", x, y)
