"""What `dims=` asks of an example's sizes, in the forms that a person may write it, torch's own among them.

A name is a size that has to stay free. An expression of names, `"past + time"`, says that a size follows from others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import Dim

from adapters.torch.tracing.inputs import Unnamed, flat_names, identifier
from converter.dims import Expr
from converter.errors import ConverterError, GraphError
from converter.ir import DimRange
from converter.size_text import parse


def named_dims(dims: Any, arguments: Mapping[str, Any]) -> tuple[Any, dict[str, DimRange]]:
    """`dims` as names (or integers, or None) by input, where every argument is a tensor and it can be said so, else `dims`
    itself; and the ranges that its `Dim` objects give.

    Raises `ConverterError` for an input that is not there, another number of axes, or a fixed size that is not the example's.
    """
    if isinstance(dims, str) or not isinstance(dims, (Mapping, Sequence)):
        return dims, {}
    tensors = {name: leaf for name, leaf in zip(flat_names(dict(arguments)), pytree.tree_leaves(dict(arguments)), strict=True)
               if isinstance(leaf, torch.Tensor)}
    given = dims if isinstance(dims, Mapping) else dict(zip(arguments, dims, strict=False))
    ranges: dict[str, DimRange] = {}
    found: dict[str, list[str | int | None]] = {}
    for name, axes in given.items():
        if name not in tensors:
            if isinstance(axes, (list, tuple)) and all(isinstance(axis, (str, int)) for axis in axes) and name not in arguments:
                raise ConverterError(f"dims= names an input that is not there: {name!r}", expected=", ".join(tensors) or "a tensor")
            if axes is None:
                continue
            return dims, {}  # nested arguments, in torch's way
        entries = _entries(axes, tensors[name].dim())
        if entries is None:
            return dims, {}
        if len(entries) != tensors[name].dim():
            raise ConverterError("dims= names another number of axes than the example has", where=f"input {name!r}",
                                 expected=f"{tensors[name].dim()} axes", received=str(list(axes)))
        made = [_axis(entry, name, axis, ranges) for axis, entry in enumerate(entries)]
        if any(entry is NotImplemented for entry in made):
            return dims, {}
        for axis, entry in enumerate(made):
            if isinstance(entry, int) and entry != tensors[name].shape[axis]:
                raise ConverterError(f"dims= fixes axis {axis} at {entry}", where=f"input {name!r}",
                                     received=f"an example with {tensors[name].shape[axis]} there", fix="give an example of that size")
        found[name] = made
    return found, ranges


def _entries(axes: Any, rank: int) -> list[Any] | None:
    """One entry for each axis."""
    if axes is None:
        return [None] * rank
    if isinstance(axes, Mapping):
        if not all(isinstance(axis, int) and -rank <= axis < rank for axis in axes):
            return None
        entries: list[Any] = [None] * rank
        for axis, entry in axes.items():
            entries[axis] = entry
        return entries
    return list(axes) if isinstance(axes, (list, tuple)) else None


def _axis(entry: Any, name: str, axis: int, ranges: dict[str, DimRange]) -> Any:
    """What is asked of one axis; `NotImplemented` for what only torch knows."""
    if isinstance(entry, str):
        return Unnamed(f"{identifier(name)}_{axis}") if _is_made_of_others(entry) else entry
    if entry is None or type(entry) is int:
        return entry
    if entry is Dim.STATIC:
        return None
    if entry is Dim.AUTO:
        return Unnamed(f"{identifier(name)}_{axis}")
    if entry is Dim.DYNAMIC:
        return f"{identifier(name)}_{axis}"
    if type(entry) is Dim:
        low, high = int(entry.min), entry.max if isinstance(entry.max, int) else None  # torch has an infinite integer of its own
        if low > 0 or high is not None:
            ranges[entry.__name__] = DimRange(low, high)
        return str(entry.__name__)
    return NotImplemented


def _is_made_of_others(text: str) -> bool:
    try:
        size = parse(text)
    except GraphError:
        return False
    return isinstance(size, Expr) and size.symbol is None
