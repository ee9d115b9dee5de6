"""The trace of a module that leaves most sizes free: traced the strict way too, or at other sizes, where the first leaves some fixed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.utils._pytree as pytree

import adapters.torch.tracing.free_sizes as free_sizes
import adapters.torch.tracing.loops as loops
import adapters.torch.tracing.retracing as retracing
import adapters.torch.tracing.told_sizes as told_sizes
from adapters.torch.sizes.domains import meet
from adapters.torch.tracing.effort import EffortSpent, require_time
from adapters.torch.tracing.exporting import names_axes
from adapters.torch.tracing.programs import Program, Roll, Traced
from adapters.torch.tracing.trials import agrees_at
from converter.conditions import unmet
from converter.errors import ConverterError, RunError
from converter.ir import DimRange
from converter.ports import Concern
from converter.sizes import bind, check_shape

ROUNDS = 2
"""Traces at sizes where none falls short, at most."""


FURTHER = (1, 2, 5, 24)
"""How much larger sizes are at which a trace of the strict way is tried."""


class Attempt(Protocol):
    """Traces the module at an example; `kept` is a trace that it has to stand for as well."""

    def __call__(self, example: dict[str, Any], *, skip: int = 0, strict: bool = False, kept: Traced | None = None,
                 roll: Roll | None = None) -> Traced: ...


def freest(module: torch.nn.Module, arguments: dict[str, Any], dims: Any, ranges: Mapping[str, DimRange], attempt: Attempt,
           first: Traced) -> Program:
    """The first trace's program, or one that holds at the example too and at more sizes, with notes on what is not free.

    Args:
        arguments: the example as it was given.
        dims: what was asked for: `"auto"`, names by input, or something else, for which there is no search.
        ranges: those that were asked for, by name.

    Raises `UnsupportedError` for sizes that were asked for by name and cannot be free.
    """
    if dims != "auto" and not (isinstance(dims, Mapping) and names_axes(dims)):
        return first.program
    best = _with_scans(module, arguments, attempt, _other_ways(module, arguments, attempt, first), dims, ranges)
    base, own, short = best, set[free_sizes.Shortfall](), _short(best, arguments, dims, ranges)
    more: tuple[str, ...] = ()
    for _ in range(ROUNDS):
        rest = [item for item in short if item not in own]
        if not rest:
            break
        try:
            example, limits = free_sizes.other_sizes(module, base.example, best.program.model.graph, best.program.input_names, rest)
            own |= limits
            if example is None:
                break
            found = _better(best, attempt(example, kept=base), arguments)
        except EffortSpent as error:
            more = (Concern(str(error)),)
            break
        except ConverterError:
            break
        if found is best:
            break
        best, short = found, _short(found, arguments, dims, ranges)
    graph = best.program.model.graph
    left_out = told_sizes.omissions(module, best.example, graph, best.program.input_names, ranges, best.domain)
    told_sizes.refuse_named(module, short, own, best.places, left_out, graph, best.domain, dims)
    notes = told_sizes.describe_all(short, own, best.places, left_out)
    return _within(replace(best.program, notes=(*best.program.notes, *notes, *more)), ranges)


def _with_scans(module: torch.nn.Module, arguments: dict[str, Any], attempt: Attempt, best: Traced, dims: Any,
                ranges: Mapping[str, DimRange]) -> Traced:
    """The trace, or one whose loops over a size that is not free are scans."""
    short = _short(best, arguments, dims, ranges)
    try:
        rolled = loops.with_scans(module, best, short, attempt)
    except EffortSpent:
        rolled = None
    return best if rolled is None else _better(best, rolled, arguments)


def _short(traced: Traced, arguments: dict[str, Any], dims: Any, ranges: Mapping[str, DimRange]) -> list[free_sizes.Shortfall]:
    program = traced.program
    return free_sizes.shortfalls(program.model.graph, arguments, program.input_names, dims, ranges)


def _within(program: Program, ranges: Mapping[str, DimRange]) -> Program:
    """The program with no more sizes than were asked for."""
    graph = program.model.graph
    narrowed = {name: meet(ranges[name], span) if name in ranges else span for name, span in graph.dims.items()}
    return replace(program, model=replace(program.model, graph=replace(graph, dims=narrowed)))


def _better(best: Traced, other: Traced, arguments: dict[str, Any]) -> Traced:
    """The one that takes more sizes, if it takes those of the example."""
    rooms = [retracing.freedom(item.program.model.graph, arguments, item.program.input_names) for item in (best, other)]
    return other if rooms[1] > rooms[0] and accepts(other.program, arguments) else best


def _other_ways(module: torch.nn.Module, arguments: dict[str, Any], attempt: Attempt, first: Traced) -> Traced:
    """The best of the first trace and others: torch's strict way keeps `int(size)` and `len(tensor)` free, and at other sizes
    the module's decisions go another way."""
    best = first
    if first.took_integers:
        with suppress(ConverterError):
            strict = attempt(arguments, strict=True)
            best = _better(best, strict, arguments) if _holds(module, strict) else best
    base = best
    own = retracing.sizes_of(base.example, best.program.model.graph, best.program.input_names)
    for sizes in retracing.other_sizes(best.domain, best.sizes):
        example = retracing.at_sizes(base.example, best.program.model.graph, best.program.input_names, {**own, **sizes})
        if example is None:
            continue
        try:
            best = _better(best, attempt(example, kept=base), arguments)
        except ConverterError:
            continue
        if not retracing.narrowed(best.domain, best.sizes):
            break
    return best


def _holds(module: torch.nn.Module, traced: Traced) -> bool:
    """Whether a trace computes what the module does at more sizes than its own. The strict way takes `range(min(size, 15))` for a
    number without a word."""
    program, graph = traced.program, traced.program.model.graph
    for name, size in retracing.sizes_of(traced.example, graph, program.input_names).items():
        for more in FURTHER:
            span = graph.dims.get(name)
            require_time()
            if span is not None and size + more in span and agrees_at(
                    program.model, {name: size + more}, module, traced.example, program.input_names, program.output_names) is False:
                return False
    return True


def accepts(program: Program, arguments: Mapping[str, Any]) -> bool:
    """Whether the graph runs at the sizes of the example as it was given: two that broadcast are one size where both were enlarged."""
    graph = program.model.graph
    leaves = dict(zip(program.input_names, pytree.tree_leaves(dict(arguments)), strict=True))
    bindings: dict[str, int] = {}
    try:
        for port in graph.inputs:
            bind(port.spec, tuple(leaves[port.name].shape), bindings)
        for port in graph.inputs:
            check_shape(port.spec, tuple(leaves[port.name].shape), bindings, port.name)
    except RunError:
        return False
    within = all(name not in graph.dims or size in graph.dims[name] for name, size in bindings.items())
    return within and not unmet(graph.requires, bindings)
