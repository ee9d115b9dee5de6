"""The two tables of the torch adapter: ATen operator -> importer, and neutral operator -> torch function.

The modules of `adapters/torch/ops`, one per family, fill them:

    @imports("aten.linear.default")
    def linear(g: Importer, x: Value, weight: Value, bias: Value | None = None) -> Value:
        return g.op("linear", x, weight, bias)

    @rebuilds("linear")
    def rebuild_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return torch.nn.functional.linear(x, weight, bias)

An importer takes what the ATen schema lists, in its order and under its names: tensors as `Value`, sizes as `int` or
`Expr`, dtypes as `torch.dtype`, lists as lists. A rebuilder takes what the neutral operator's kernel takes, attributes
as keywords (dtypes as `DType`), and is called with tensors.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

_IMPORTERS: dict[str, Callable[..., Any]] = {}
_REBUILDERS: dict[str, Callable[..., Any]] = {}


def imports(*targets: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers an importer for ATen overloads by their qualified names, such as `aten.add.Tensor`."""
    return _register(_IMPORTERS, targets)


def rebuilds(*operators: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the torch function for neutral operators."""
    return _register(_REBUILDERS, operators)


def _register(table: dict[str, Callable[..., Any]], keys: tuple[str, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for key in keys:
            if key in table:
                raise RuntimeError(f"{key!r} is registered twice")
            table[key] = function
        return function

    return register


@cache
def _load() -> None:
    import adapters.torch.ops

    for module in pkgutil.iter_modules(adapters.torch.ops.__path__):
        importlib.import_module(f"adapters.torch.ops.{module.name}")


def importers() -> Mapping[str, Callable[..., Any]]:
    """Every importer by ATen name."""
    _load()
    return _IMPORTERS


def rebuilders() -> Mapping[str, Callable[..., Any]]:
    """Every torch function by neutral operator."""
    _load()
    return _REBUILDERS
