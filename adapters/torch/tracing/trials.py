"""Whether a graph computes what its module does at sizes that its trace does not show: both are run there and compared.

The tracer takes a size of 1 for a constant, so a trace is made at larger sizes; at 1 the module's code may go another way.
So it may at an example's own sizes, where the trace was made at others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import sympy
import torch
import torch.utils._pytree as pytree

from adapters.torch.dtypes import to_numpy
from adapters.torch.sizes.domains import Domain
from adapters.torch.sizes.requirements import failing
from adapters.torch.state.memory import unchanged
from adapters.torch.tracing.effort import RUNS, Effort, current
from adapters.torch.tracing.inputs import call, call_arguments
from adapters.torch.tracing.retracing import at_sizes, points, sizes_of
from adapters.torch.tracing.unions import Condition, size_symbol
from converter import reference
from converter.conditions import Condition as Requirement
from converter.conditions import unmet
from converter.dims import Expr, evaluate
from converter.errors import UnsupportedError
from converter.ir import DimRange, Model

CLOSE = 1e-3
"""How far, against the largest value of an output, the module's own rounding may lie from the reference's."""

LONG = 120
"""So much of a condition is said in a note."""

SECONDS, LOOKS, ENOUGH = 20, 3, 2
"""For trials of what torch took for true: the processor time for all; for each condition the least and the nearest sizes looked at, and as
many agreements as do."""


MOST_CHANGED = 4
"""Of how many other sizes small values are looked at, so that conditions hold where one is 1."""

LARGEST, TIMES = 4096, 16
"""A trial takes no more elements of input than so many, or so many times those of the example: beyond, one run may take hours."""


def agrees_at(model: Model, sizes: Mapping[str, int], module: torch.nn.Module, example: Mapping[str, Any],
              input_names: tuple[str | None, ...], output_names: tuple[str | None, ...]) -> bool | None:
    """Runs the module and its graph on an example brought to the given sizes. None where the module does not run, they are too large, or
    there is no time left for it.

    Args:
        sizes: of some of the graph's symbols; the others keep the example's.
        example: arguments by the names in `forward`.
        input_names, output_names: as in `Program`.
    """
    own = sizes_of(example, model.graph, input_names)
    if _elements(model, {**own, **sizes}) > max(LARGEST, TIMES * _elements(model, own)):
        return None
    changed = at_sizes(example, model.graph, input_names, {**own, **sizes})
    if changed is None or current().left() <= current().cost(changed, RUNS):
        return None
    leaves = pytree.tree_leaves(changed)
    inputs = {name: np.array(to_numpy(leaf)) for name, leaf in zip(input_names, leaves, strict=True) if name is not None}
    args, kwargs = call_arguments(module, changed)
    try:
        with unchanged(module), torch.no_grad():
            wanted = [_array(leaf) for leaf in pytree.tree_leaves(call(module, args, kwargs))]
    except Exception:  # a module raises anything at a size that it does not allow
        return None
    try:
        found = reference.run(model, inputs)
    except Exception:  # a graph that cannot run does not agree
        return False
    if len(wanted) != len(output_names):
        return False
    return all(_close(value, found[name])
               for name, value in zip(output_names, wanted, strict=True) if name is not None)


def _elements(model: Model, sizes: Mapping[str, int]) -> int:
    return sum(math.prod(evaluate(size, sizes) for size in port.spec.shape) for port in model.graph.inputs)


def _array(leaf: Any) -> Any:
    """A result in memory of its own; None for what is neither a tensor nor a number."""
    if isinstance(leaf, (bool, int, float, complex)):
        leaf = torch.tensor(leaf)
    return np.array(to_numpy(leaf)) if isinstance(leaf, torch.Tensor) else None


def _close(wanted: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> bool:
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        return False
    if wanted.dtype.kind in "biu":
        return bool(np.array_equal(wanted, found))
    wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
    wanted, found = wanted.astype(wide), found.astype(wide)
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)):
        return False
    scale = float(np.abs(wanted[finite]).max()) if finite.any() else 0.0
    return bool(np.all(np.abs(wanted[finite] - found[finite]) <= CLOSE * scale))


def try_ones(domain: Domain, model: Model, module: torch.nn.Module, example: Mapping[str, Any], input_names: tuple[str | None, ...],
             output_names: tuple[str | None, ...], notes: list[str]) -> dict[str, DimRange]:
    """The domain's ranges, without each 1 at which the module was found to compute something else."""
    ranges = dict(model.graph.dims)
    for name, place in domain.reasons.items():
        if name in domain.relations:
            other, more = domain.relations[name]
            notes.append(f"{name} is {other}{f' + {more}' if more else ''}: the module's code compares them ({place}), and was traced so")
        elif name in ranges:
            notes.append(f"{name} in {ranges[name]}: the module's code decides by that size ({place}), and was traced at one side")
    notes += [f"requires {said if len(said := str(condition)) < LONG else said[:LONG] + '…'}: the module's code decides by that ({place}), "
              "and was traced at one side" for condition, place in domain.requires.items()]
    own = sizes_of(example, model.graph, input_names)
    for name in sorted(domain.trials & ranges.keys()):
        if ranges[name].min != 1:
            continue
        verdicts: list[bool | None] = []
        for sizes in _with_one(name, model, own):
            verdicts.append(agrees_at(model, sizes, module, example, input_names, output_names))
            if verdicts[-1] is not None:
                break
        if True not in verdicts:
            seen = "computes something else" if False in verdicts else "was not seen to compute the same"
            notes.append(f"{name} is 2 or more: at 1 the module {seen}")
            ranges[name] = replace(ranges[name], min=2)
    return ranges


def _with_one(name: str, model: Model, own: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Sizes at which one is 1, and as few others changed as the conditions ask for; and those that equal it in the example with it."""
    sizes = dict.fromkeys(_equal_to(name, model.graph.requires), 1)
    conditions = [condition for condition in model.graph.requires if condition.symbols <= {**own, **sizes}.keys()]
    alike = {other: 1 for other in own if own[other] == own.get(name) and other in model.graph.dims and 1 in model.graph.dims[other]}
    for start in (sizes, {**alike, **sizes}):
        broken = unmet(conditions, {**own, **start})
        others = sorted(set().union(*(condition.symbols for condition in broken)) - start.keys())[:MOST_CHANGED]
        small = [[size for size in dict.fromkeys((own[other], 1, 2, 3)) if other not in model.graph.dims or size in model.graph.dims[other]]
                 for other in others]
        points = (start | dict(zip(others, values, strict=True)) for values in product(*small))
        yield next((point for point in points if not unmet(conditions, {**own, **point})), start)


def _equal_to(name: str, requires: Iterable[Requirement]) -> set[str]:
    """A size and those that have to be equal to it."""
    pairs = [{left.symbol, right.symbol} for item in requires if item.relation == "=="
             for left, right in [item.sides] if isinstance(left, Expr) and isinstance(right, Expr)]
    found = {name}
    while more := {other for pair in pairs if None not in pair and pair & found for other in pair if other is not None} - found:
        found |= more
    return found


class Trials:
    """What module and graph compute at sizes that a trace says nothing certain of. The arguments are those of `agrees_at`."""

    def __init__(self, model: Model, module: torch.nn.Module, example: Mapping[str, Any], input_names: tuple[str | None, ...],
                 output_names: tuple[str | None, ...]) -> None:
        self.graph = model.graph
        self.own = sizes_of(example, model.graph, input_names)
        self._agrees = partial(agrees_at, module=module, example=example, input_names=input_names, output_names=output_names)
        self._model, self._effort, self._cost = model, Effort(min(SECONDS, current().left())), current().cost(example, RUNS)
        self._known: dict[tuple[tuple[str, int], ...], bool | None] = {}

    def agree(self, sizes: Mapping[str, int]) -> bool | None:
        """Whether both compute the same. None where the module does not run, or there is no more time."""
        key = tuple(sorted(sizes.items()))
        if key not in self._known:
            if self._effort.left() <= self._cost:
                return None
            self._known[key] = self._agrees(self._model, sizes)
        return self._known[key]

    def that_matter(self, doubtful: Iterable[Condition]) -> list[Condition]:
        """Of conditions that torch took for true, those at whose failing module and graph do not compute the same.

        An equation may matter on one side alone. A condition that no trial could be made of is kept.
        """
        found = []
        for place, condition in doubtful:
            if not all(str(item) in self.graph.dims and str(item) in self.own for item in condition.free_symbols):
                continue
            sides = [sympy.Le(*condition.args), sympy.Ge(*condition.args)] if isinstance(condition, sympy.Eq) else [condition]
            verdicts = [self._matters(side) for side in sides]
            if True in verdicts:
                found += [(place, condition)] if False not in verdicts else [(place, sides[verdicts.index(True)])]
        return found

    def _matters(self, condition: Any) -> bool | None:
        """Whether module and graph differ where a condition fails; None where it fails nowhere."""
        points = [sizes for sizes in failing(condition, self.graph.dims, self.own) if self._allowed(sizes)]
        nearest = sorted(points, key=lambda sizes: sum(abs(size - self.own[name]) for name, size in sizes.items()))
        verdicts: list[bool | None] = []
        for sizes in (sizes for pair in zip(points[:LOOKS], nearest, strict=False) for sizes in pair):
            verdicts.append(self.agree(sizes))
            if verdicts[-1] is False or verdicts.count(True) == ENOUGH:
                break
        return (False in verdicts or True not in verdicts) if verdicts else None

    def _allowed(self, sizes: Mapping[str, int]) -> bool:
        """Whether the graph's own conditions hold at sizes."""
        own = {**self.own, **sizes}
        return not unmet([condition for condition in self.graph.requires if condition.symbols <= own.keys()], own)

    def _moves(self, name: str) -> bool:
        """Whether a size can be a larger or a smaller one alone, or the graph's conditions, which are known, are what keeps it."""
        span, size = self.graph.dims[name], self.own[name]
        others = [other for other in (size + span.step, size - span.step) if other in span]
        allowed = [other for other in others if self._allowed({name: other})]
        return bool(others) and all(self.agree({name: other}) is True for other in allowed)

    def tied(self, groups: Iterable[list[str]]) -> list[Condition]:
        """That sizes are equal, of each group those of which none can be another while the rest stay as they are."""
        found: list[Condition] = []
        for group in groups:
            bound = [name for name in group if name in self.graph.dims and name in self.own and not self._moves(name)]
            found += [("they are equal in the example", sympy.Eq(size_symbol(bound[0]), size_symbol(name))) for name in bound[1:]]
        return found


def require_agreement(domain: Domain, model: Model, module: torch.nn.Module, kept: Mapping[str, Any],
                      input_names: tuple[str | None, ...], output_names: tuple[str | None, ...]) -> None:
    """Refuses a trace that computes something else where the decisions fail that were left out of its ranges."""
    own = sizes_of(kept, model.graph, input_names)
    for sizes in points(domain.doubtful, model.graph, own):
        found = agrees_at(model, sizes, module, kept, input_names, output_names)
        if found is False or found is None and sizes == own:
            raise UnsupportedError("a trace at other sizes does not hold at the example's", where=type(module).__name__,
                                   received=str(sizes))
