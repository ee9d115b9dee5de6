"""Where a trace made at other sizes holds: where its own decisions do, and where those of the trace at the example's sizes do.

The second trace stands for both once trials have shown that it computes the same where the code takes the first one's way.
Where a size belongs to neither, nobody knows what the module's code would do there, and it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy
import torch

Axes = tuple[tuple[Any, ...], ...]
"""The size of each axis of each input, as sympy expressions over the graph's names."""

Condition = tuple[str, Any]
"""The place in the module's code that decided, and the condition that held there."""


def size_symbol(name: str) -> Any:
    """The sympy symbol of a size."""
    return sympy.Symbol(name, integer=True, positive=True)


def holds_at(condition: Any, sizes: Mapping[str, int]) -> bool:
    """Whether a condition holds at given sizes; not where it cannot be told, as where it divides by zero."""
    try:
        found = condition.subs({symbol: sizes[str(symbol)] for symbol in condition.free_symbols if str(symbol) in sizes})
    except ZeroDivisionError:
        return False
    return bool(found) if found in (sympy.true, sympy.false) else False


def axes_of(nodes: Iterable[torch.fx.Node | None], names: Mapping[str, str]) -> Axes:
    """The axes of a trace's inputs. `names` has the graph's name for each of torch's symbols."""
    def size(value: Any) -> Any:
        if not isinstance(value, torch.SymInt):
            return sympy.Integer(int(value))
        expression = value.node.expr
        return expression.xreplace({item: size_symbol(names[str(item)]) for item in expression.free_symbols if str(item) in names})

    values = (node.meta.get("val") if node is not None else None for node in nodes)
    return tuple(tuple(map(size, value.shape)) for value in values if isinstance(value, torch.Tensor))


def over(axes: Axes, other: Axes, conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions of another trace, with those that its own axes set, over the names of the trace that has `axes`.

    A condition on a size that `axes` does not show is false: it cannot be told.
    """
    pairs = [pair for own, others in zip(axes, other, strict=True) for pair in zip(own, others, strict=True)]
    renamed: dict[Any, Any] = {}
    for own, size in pairs:
        if size.is_Symbol:
            renamed.setdefault(size, own)
    missing = {item for _, size in pairs for item in size.free_symbols}.union(
        *(item.free_symbols for _, item in conditions)) - renamed.keys()
    found = [("", sympy.Eq(own, size.subs(renamed, simultaneous=True))) for own, size in pairs if size.free_symbols.isdisjoint(missing)]
    for place, condition in conditions:
        found.append((place, condition.subs(renamed, simultaneous=True) if condition.free_symbols.isdisjoint(missing) else sympy.false))
    return [item for item in dict.fromkeys(found) if item[1] is not sympy.true]


def unite(found: Sequence[Condition], kept: Mapping[str, int], others: Sequence[Condition]) -> tuple[list[Condition], list[Any]]:
    """What has to hold at a size for one of two traces to hold there.

    A decision of the second that fails at the sizes `kept` is doubtful. Most often the first trace has its opposite, or
    another answer of the same line of code: then either way on was traced, and each of the first trace's further conditions
    has to hold where the doubtful one fails. A doubtful decision that the first trace never came to leads where neither
    was, unless all of the first's hold.

    Args:
        found: the second trace's conditions.
        others: those of the first trace, which all hold at `kept`, over the same names.

    Returns: the conditions, and the doubtful ones.
    """
    held = [item for item in found if holds_at(item[1], kept)]
    doubtful = [item for item in found if not holds_at(item[1], kept)]
    enforced = {condition for _, condition in held}
    left = [(place, condition) for place, condition in others if condition not in enforced]
    opposites = [{condition for where, condition in left if where == place or sympy.Or(own, condition) is sympy.true}
                 for place, own in doubtful]
    answered = set().union(*opposites)
    for (place, own), opposite in zip(doubtful, opposites, strict=True):
        held += [(place, sympy.Or(own, condition)) for _, condition in left if not opposite or condition not in answered]
    return [item for item in dict.fromkeys(held) if item[1] is not sympy.true], [condition for _, condition in doubtful]
