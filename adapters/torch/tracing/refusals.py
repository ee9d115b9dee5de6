"""The free sizes that what cannot be converted depends on: they alone need to be fixed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree


def axes_of_refused(refused: Iterable[torch.fx.Node], inputs: Mapping[str, torch.fx.Node | None]) -> tuple[tuple[str, int], ...]:
    """The axes of the inputs whose sizes refused nodes depend on: by their arguments that are sizes, and where one has none, by the
    shapes of its tensors."""
    symbols: set[Any] = set()
    for node in refused:
        given = pytree.tree_leaves((node.args, node.kwargs))
        values = [item.meta.get("val") if isinstance(item, torch.fx.Node) else item for item in given]
        numbers: list[Any] = [size for size in values if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool))]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        sizes = numbers or [size for tensor in tensors for size in tensor.shape if isinstance(size, torch.SymInt)]
        symbols.update(item for size in sizes for item in size.node.expr.free_symbols)
    found: list[tuple[str, int]] = []
    for name, placeholder in inputs.items():
        value = placeholder.meta.get("val") if placeholder is not None else None
        for axis, size in enumerate(value.shape if isinstance(value, torch.Tensor) else ()):
            if isinstance(size, torch.SymInt) and not symbols.isdisjoint(size.node.expr.free_symbols):
                found.append((name, axis))
    return tuple(found)
