"""Shapes of views while a module is traced, found by the normal form of size expressions.

torch finds the result of a `view` by asking one question after another about the divisibility of sizes, each of which goes
through a general simplification. Where a tensor is contiguous and the numbers of elements are equal in normal form, the
result is known without a question. The windows of an image of free size (Swin) are otherwise most of a trace's time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from adapters.torch.dtypes import to_dim
from adapters.torch.quotients import expression, floor_divide
from converter import dims
from converter.dims import Dim
from converter.errors import ConverterError

ORIGINAL = torch._refs._reshape_view_helper


@contextmanager
def quick_views() -> Iterator[None]:
    """While active, fake tensors of symbolic shapes are viewed by `_viewed` where that knows the answer."""

    def helper(a: torch.Tensor, *shape: Any, allow_copy: bool) -> torch.Tensor:
        found = _viewed(a, shape[0] if len(shape) == 1 and isinstance(shape[0], (list, tuple, torch.Size)) else shape)
        return ORIGINAL(a, *shape, allow_copy=allow_copy) if found is None else found

    torch._refs._reshape_view_helper = helper
    try:
        yield
    finally:
        torch._refs._reshape_view_helper = ORIGINAL


def _viewed(a: torch.Tensor, shape: Any) -> torch.Tensor | None:
    """`a` in another shape, or None where only the general way can tell."""
    before: list[Any] = list(a.shape)
    symbolic: list[Any] = [size for size in before if isinstance(size, torch.SymInt)]
    if not symbolic or not shape or not a.dim() or not a.is_contiguous():
        return None
    environment = symbolic[0].node.shape_env
    if any(isinstance(size, torch.SymInt) and (size.node.hint is None or size.node.shape_env is not environment)
           for size in (*before, *shape)):
        return None
    try:
        total = dims.product([_dim(size) for size in before])
        known = dims.product([_dim(size) for size in shape if not _is_open(size)])
        if known == 0:
            return None
        rest = floor_divide(total, known)
        if rest * known != total:
            return None
    except ConverterError:
        return None
    opened = [axis for axis, size in enumerate(shape) if _is_open(size)]
    if len(opened) > 1 or not opened and rest != 1:
        return None
    sizes = list(shape)
    if opened:
        symbols = {str(item): item for size in symbolic for item in size.node.expr.free_symbols}
        hint = _hint(before) // _hint(shape)
        sizes[opened[0]] = rest if isinstance(rest, int) else environment.create_symintnode(expression(rest, symbols), hint=hint)
    strides: list[Any] = [1]
    for size in sizes[:0:-1]:
        strides.insert(0, strides[0] * size)
    return torch.as_strided(a, sizes, strides)


def _is_open(size: Any) -> bool:
    return isinstance(size, int) and size == -1


def _hint(shape: Any) -> int:
    total = 1
    for size in shape:
        if not _is_open(size):
            total *= size.node.hint if isinstance(size, torch.SymInt) else size
    return total


def _dim(size: Any) -> Dim:
    return to_dim(size.node.shape_env.replace(size.node.expr)) if isinstance(size, torch.SymInt) else int(size)
