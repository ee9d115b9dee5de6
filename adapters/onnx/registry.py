"""The tables neutral operator -> lowering, and operator of ONNX -> reader.

The first is filled by the modules of `adapters/onnx/ops`, one per family:

    @lowers("linear")
    def linear(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return g.node("Gemm", x, weight, bias, transB=1)

A lowering takes what the operator's kernel takes: operands as `Tensor` (a literal number is already a constant), absent
ones as None, and attributes as keywords with their defaults filled in; sizes are `int` or `Expr`.

The second is filled by the modules of `adapters/onnx/readers`:

    @reads("Gemm")
    def gemm(g: Reader, a: Item, b: Item, c: Item | None = None, *, alpha: float = 1.0, …) -> Value:

A reader takes the operands of a node as `Item`, absent ones as None, and its attributes as keywords, whose defaults are
ONNX's; operators of other domains than ONNX's own are called by it, `com.microsoft.FusedMatMul`.
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


_READERS = Table("adapters.onnx.readers", "is read twice")

reads = _READERS.register
"""Registers a reader for operators of ONNX."""


def forwards(target: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Says of a reader whose remaining attributes another one takes."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.forwards = target  # type: ignore[attr-defined]
        return function

    return mark


def readers() -> Mapping[str, Callable[..., Any]]:
    """Every reader by the operator's name."""
    return _READERS
