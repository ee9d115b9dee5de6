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

from collections.abc import Callable, Mapping
from typing import Any

from converter.tables import Table

_IMPORTERS = Table("adapters.torch.ops", "is imported twice")
_REBUILDERS = Table("adapters.torch.ops", "is rebuilt twice")

imports = _IMPORTERS.register
"""Registers an importer for ATen overloads by their qualified names, such as `aten.add.Tensor`."""

rebuilds = _REBUILDERS.register
"""Registers the torch function for neutral operators."""


def importers() -> Mapping[str, Callable[..., Any]]:
    """Every importer by ATen name."""
    return _IMPORTERS


def rebuilders() -> Mapping[str, Callable[..., Any]]:
    """Every torch function by neutral operator."""
    return _REBUILDERS
