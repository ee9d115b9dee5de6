"""Slices that are clamped at every size while a module is traced, as PyTorch clamps them when it runs.

torch asks at the traced sizes whether a bound lies inside its axis, and its trace then holds only where the answer is the same.
While `clamped_slices()` is active the shape of a slice says what happens at any size: `a[:, :n]` has `min(n, time)` elements.
Only the sign of a bound that may have either is still asked for, since it decides from which end is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch._subclasses.fake_impls import op_implementations_dict
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils._sympy.functions import FloorDiv
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from adapters.torch.dtypes import to_dim
from converter.errors import ConverterError
from converter.intervals import interval
from converter.ir import DimRange

SLICE = torch.ops.aten.slice.Tensor
END = 2**62
"""torch writes an open end as 2**63 - 1."""


def known(answer: Any) -> bool:
    """Whether a comparison holds whatever the sizes are, 1 among them, which the tracer leaves out of every range."""
    if not isinstance(answer, torch.SymBool):
        return bool(answer)
    environment, condition = answer.node.shape_env, answer.node.expr
    spans = {}
    for item in condition.free_symbols:
        span = environment.var_to_range.get(item, ValueRanges.unknown_int())
        spans[item] = ValueRanges(1, span.upper) if 1 < span.lower <= 2 else span
    if _within_bounds(condition, spans):
        return True
    return statically_known_true(answer) and (_certain(condition, spans) or isinstance(condition, sympy.core.relational.Relational)
                                              and _certain(condition.func(sympy.expand(condition.lhs - condition.rhs), 0), spans))


def _certain(condition: Any, spans: dict[Any, Any]) -> bool:
    if condition in (sympy.true, sympy.false):
        return condition is sympy.true
    found = bound_sympy(condition, spans)
    return bool(found.is_singleton() and found.lower in (True, sympy.true))


_SIGNS: dict[Any, Callable[[float, float], bool]] = {
    sympy.Ge: lambda least, most: least >= 0, sympy.Gt: lambda least, most: least > 0,
    sympy.Le: lambda least, most: most <= 0, sympy.Lt: lambda least, most: most < 0}


def _within_bounds(condition: Any, spans: Mapping[Any, Any]) -> bool:
    """Whether the difference of two sides has the sign that an inequality asks for, by what is known of quotients: 4 · (n // 4) <= n."""
    sign = _SIGNS.get(type(condition))
    if sign is None or not condition.atoms(FloorDiv):
        return False
    ranges = {str(item): DimRange(max(int(span.lower), 0), int(span.upper) if span.upper.is_Integer else None)
              for item, span in spans.items() if getattr(span.lower, "is_Integer", False)}
    try:
        return sign(*interval(to_dim(condition.lhs - condition.rhs), ranges))
    except (ConverterError, KeyError):
        return False


def _is_negative(bound: Any) -> bool:
    return True if known(bound < 0) else False if known(bound >= 0) else bool(bound < 0)


def _not_above(bound: Any, size: Any) -> Any:
    return bound if known(bound <= size) else size if known(bound >= size) else torch.sym_min(bound, size)


def _not_below(bound: Any, least: Any) -> Any:
    return bound if known(bound >= least) else least if known(bound <= least) else torch.sym_max(bound, least)


def _index(bound: Any, size: Any) -> Any:
    """A bound counted from the front, between 0 and the size."""
    return _not_below(size + bound, 0) if _is_negative(bound) else _not_above(bound, size)


def _length(size: Any, start: Any, end: Any) -> tuple[Any, Any]:
    """The first index of a slice, and how many follow it up to its end."""
    open_end = end is None or isinstance(end, int) and not isinstance(end, torch.SymInt) and end >= END
    begin = 0 if start is None else _index(start, size)
    if open_end and start is not None and known(start < 0):
        return begin, _not_above(-start, size)
    stop = size if open_end else _index(end, size)
    return begin, _not_below(stop - begin, 0)


def _sliced(mode: Any, function: Any, self: torch.Tensor, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> torch.Tensor:
    if self.dim() == 0 or self.is_quantized or not any(
            isinstance(item, torch.SymInt) for item in (*self.shape, start, end, step)) or any(
            isinstance(item, torch.SymInt) and item.node.hint is None for item in (*self.shape, start, end, step)):
        return ORIGINAL(mode, function, self, dim, start, end, step)
    if step <= 0:
        raise RuntimeError("slice step must be positive")
    axis = dim % self.dim() if -self.dim() <= dim < self.dim() else dim
    sizes, strides = list(self.shape), list(self.stride())
    begin, length = _length(sizes[axis], start, end)
    offset = self.storage_offset() + begin * strides[axis]
    sizes[axis], strides[axis] = (length + step - 1) // step, strides[axis] * step
    return self.as_strided(sizes, strides, offset)


ORIGINAL = op_implementations_dict[SLICE]


@contextmanager
def clamped_slices() -> Iterator[None]:
    """While active, the shapes of slices of free sizes hold at every size."""
    op_implementations_dict[SLICE] = _sliced
    try:
        yield
    finally:
        op_implementations_dict[SLICE] = ORIGINAL
