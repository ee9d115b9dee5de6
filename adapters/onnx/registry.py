"""The table neutral operator -> lowering, filled by the modules of `adapters/onnx/ops`, one per family.

    @lowers("linear")
    def linear(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return g.node("Gemm", x, weight, bias, transB=1)

A lowering takes what the operator's kernel takes: operands as `Tensor` (a literal number is already a constant), absent
ones as None, and attributes as keywords with their defaults filled in; sizes are `int` or `Expr`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

_LOWERINGS: dict[str, Callable[..., Any]] = {}


def lowers(*operators: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a lowering for neutral operators."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in operators:
            if name in _LOWERINGS:
                raise RuntimeError(f"operator {name!r} is lowered twice")
            _LOWERINGS[name] = function
        return function

    return register


@cache
def _load() -> None:
    import adapters.onnx.ops

    for module in pkgutil.iter_modules(adapters.onnx.ops.__path__):
        importlib.import_module(f"adapters.onnx.ops.{module.name}")


def lowerings() -> Mapping[str, Callable[..., Any]]:
    """Every lowering by operator."""
    _load()
    return _LOWERINGS
