"""A step of a plan: one node, or a group of nodes that run as one kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from converter.attributes import concrete_attributes
from converter.errors import ConverterError, RunError
from converter.ir import Array
from converter.resolved import ResolvedNode

Attributes = Mapping[str, Any]
Values = list[Any]
ABSENT, NOWHERE = 0, 1
"""The slots of an operand that was left out, and of a result that nothing reads."""
ERRORS = (ConverterError, ValueError, IndexError, TypeError, ZeroDivisionError, np.exceptions.AxisError, MemoryError)


class SubPlan(Protocol):
    """What a step needs of the plan of a sub-graph."""

    def function(self, bindings: Mapping[str, int]) -> Callable[..., tuple[Array, ...]]: ...


class Call(NamedTuple):
    """A step in known sizes: a function of operands, and the slots of these, of its results, and of what nothing reads later."""

    function: Callable[..., Any]
    operands: tuple[int, ...]
    outputs: tuple[int, ...]
    drop: tuple[int, ...]
    step: Step

    def run(self, values: Values) -> None:
        """Puts the results where they belong. Raises `ConverterError`, which names the node."""
        try:
            result = self.function(*[values[slot] for slot in self.operands])
        except ERRORS as error:
            self.step.explain(error, values)
        else:
            for slot, array in zip(self.outputs, result if isinstance(result, tuple) else (result,), strict=False):
                values[slot] = array
        for slot in self.drop:
            values[slot] = None


@dataclass(frozen=True, slots=True)
class Step:
    """`operands` and `outputs` are slots; `members` are the nodes of a group, one by one; `way` is that of `profile.PlannedStep`."""

    resolved: ResolvedNode
    kernel: Callable[..., Any]
    operands: tuple[int, ...]
    outputs: tuple[int, ...]
    way: str
    drop: tuple[int, ...] = ()
    attributes: Attributes = field(default_factory=dict)
    sized: Attributes = field(default_factory=dict)
    plans: Mapping[str, SubPlan] = field(default_factory=dict)
    members: tuple[Step, ...] = ()

    def call(self, bindings: Mapping[str, int]) -> Call:
        """The step as these sizes have it."""
        attributes = dict(self.attributes)
        if self.sized or self.plans:
            attributes |= {**concrete_attributes(self.sized, bindings),
                           **{name: plan.function(bindings) for name, plan in self.plans.items()}}
        return Call(partial(self.kernel, **attributes) if attributes else self.kernel, self.operands, self.outputs, self.drop, self)

    def explain(self, error: Exception, values: Values) -> None:
        """Raises an error as one of the node. Of a group the nodes run one after another, which names the one that fails."""
        for member in self.members:
            member.call({}).run(values)
        if not self.members:
            raise failure(f"node {self.resolved.node}", error) from error


def failure(where: str | None, error: Exception) -> ConverterError:
    """What a run raises for an error there."""
    if isinstance(error, ConverterError):
        return error.within(where) if where else error
    return RunError(f"cannot run on these operands ({type(error).__name__}: {error})", where=where)
