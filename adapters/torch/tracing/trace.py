"""Live modules in: `torch.export` traces them, and the importers turn the trace into a neutral graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import ExportedProgram

import adapters.torch.patches.batching as batching
import adapters.torch.patches.fast_path as fast_path
import adapters.torch.patches.together as patches
import adapters.torch.quantized.unsteady as unsteady
import adapters.torch.sizes.decisions as decisions
import adapters.torch.tracing.preparation as preparation
import adapters.torch.tracing.searching as searching
from adapters.torch.parameters import TorchParameters
from adapters.torch.state.kept import describe_state, find_state
from adapters.torch.state.memory import CONVERTING, Memory, evaluation
from adapters.torch.tracing.asked import named_dims
from adapters.torch.tracing.effort import FIRST, LAST, LEAST, SECOND, SECONDS, Effort, bounded, budget, current, require_time
from adapters.torch.tracing.exporting import exported_at, prepare, quiet
from adapters.torch.tracing.inputs import Unnamed, flat_names, identifier
from adapters.torch.tracing.programs import Program, Roll, Traced, import_program
from adapters.torch.tracing.specializing import recorded_places
from converter.errors import ConverterError, UnsupportedError
from converter.ir import DimRange
from converter.ports import Concern

__all__ = ["Prepared", "Program", "from_exported", "prepared", "trace", "traced"]


def trace(module: torch.nn.Module, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *,
          dims: Any = "auto", name: str | None = None, own: bool = False, effort: float = SECONDS) -> Program:
    """Traces a module and builds its neutral model.

    Args:
        module: traced in evaluation mode (it is switched back afterwards).
        args, kwargs: example arguments of `forward`.
        dims: `"auto"` frees every size that the module allows; `"static"` fixes all; a mapping from an input's name to
            the names of its axes (`{"tokens": ["batch", "time"]}`, an integer or None for a fixed one, or torch's own `Dim`
            objects) frees those; anything else is given to `torch.export` as `dynamic_shapes`.
        name: the graph's name; default: the module's class.
        own: whether nobody else holds the module: its parameters need no copies then.
        effort: processor seconds in which free sizes are sought.

    The module is left as it was, and the model keeps what it computes when the module is trained on.

    Raises:
        UnsupportedError: the trace failed, or holds operators that cannot be converted, or sizes that `dims` names cannot be
            free; all are listed.
    """
    ready = prepared(module, args, kwargs)
    with evaluation(ready.module, own), budget(Effort(effort)):
        return traced(ready, dims=dims, name=name)


@dataclass(frozen=True)
class Prepared:
    """A module ready for the tracer, its arguments, and what was done to it."""

    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    notes: tuple[str, ...]


def prepared(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Prepared:
    """Takes wrappers off, and makes TorchScript a plain module. Raises `UnsupportedError` for what cannot be carried."""
    notes: list[str] = []
    module = preparation.take_off_wrappers(module, notes)
    preparation.refuse_uncarried(module)
    positional, keyword = preparation.copy_repeated((tuple(args), dict(kwargs or {})))
    preparation.register_dataclasses((positional, keyword))
    if isinstance(module, torch.jit.ScriptModule):
        with evaluation(module):
            module = preparation.from_script(module, positional, keyword, notes)
    with quiet():
        preparation.initialized(module, positional, keyword, notes)
    if module.training:
        notes.append(f"{type(module).__name__} was in training mode and was traced in evaluation mode")
    return Prepared(module, positional, keyword, tuple(notes))


def traced(ready: Prepared, *, dims: Any = "auto", name: str | None = None) -> Program:
    """`trace` of a module that is prepared and in evaluation mode; the program's parameters are copies that nothing changes."""
    module, notes = ready.module, list(ready.notes)
    with evaluation(module) as memory:
        with quiet():
            fast_path.note_fast_path(module, ready.args, ready.kwargs, notes)
            state = find_state(module, ready.args, ready.kwargs, memory)
            notes += describe_state(state, module)
            memory.state = state.kept
        arguments = preparation.bind_call(module, ready.args, ready.kwargs)
        preparation.note_frozen(arguments, notes)
        program = _program_or_fewer(module, arguments, dims, name, notes)
        return program if memory.own else with_copies(program, memory)


def _program_or_fewer(module: torch.nn.Module, arguments: dict[str, Any], dims: Any, name: str | None, notes: list[str]) -> Program:
    """The program, with fewer free sizes where the module cannot be traced with all of them."""
    asked, ranges = named_dims(dims, arguments)
    try:
        return _program(module, arguments, asked, name, notes, ranges, FIRST if dims == "auto" else 1.0)
    except ConverterError as error:
        if dims != "auto":
            raise
        program = _without_refused(module, arguments, name, notes, error)
        if program is not None:
            return program
        for fewer in (_first_axes(arguments), "static"):
            try:
                program = _program(module, arguments, fewer, name, [*notes], ranges, SECOND)
            except ConverterError:
                continue
            kept = "only the first axis of each input is free" if fewer != "static" else "all sizes stay fixed"
            return replace(program, notes=(*program.notes, Concern(f"{kept}: {' '.join(str(error).split())[:300]}")))
        raise


def _without_refused(module: torch.nn.Module, arguments: dict[str, Any], name: str | None, notes: list[str],
                     error: ConverterError) -> Program | None:
    """The program with only those sizes fixed that what was refused depends on, or None where that is not known or not enough."""
    fixed: set[tuple[str, int]] = set()
    reasons: list[str] = []
    while isinstance(error, UnsupportedError) and not fixed.issuperset(error.axes):
        fixed |= set(error.axes)
        reasons.append(" ".join(str(error).split())[:300])
        try:
            program = _program(module, arguments, _all_axes_but(fixed, arguments), name, [*notes], {}, SECOND)
        except ConverterError as another:
            error = another
            continue
        if not program.model.graph.dims:
            return None  # those of the first axes alone may be more
        kept = ", ".join(f"axis {axis} of {port!r}" for port, axis in sorted(fixed))
        return replace(program, notes=(*program.notes, Concern(f"{kept} stay{'s' * (len(fixed) == 1)} fixed: {'; '.join(reasons)}")))
    return None


def _all_axes_but(fixed: set[tuple[str, int]], arguments: dict[str, Any]) -> dict[str, list[str | None]]:
    """`dims` that frees every axis but some."""
    found: dict[str, list[str | None]] = {}
    for name, leaf in zip(flat_names(arguments), pytree.tree_leaves(arguments), strict=True):
        if isinstance(leaf, torch.Tensor):
            found[name] = [None if (name, axis) in fixed else Unnamed("batch" if not found and not axis else f"{identifier(name)}_{axis}")
                           for axis in range(leaf.dim())]
    return found


def with_copies(program: Program, memory: Memory) -> Program:
    """The program with parameters in memory of its own: a module that is trained on changes nothing of it."""
    copies: dict[int, torch.Tensor] = {}

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = memory.copy_of(tensor)
        return copies[id(tensor)]

    exported, parameters = program.exported, program.model.parameters
    for held in (exported._state_dict, exported._constants):
        for name, value in held.items():
            if isinstance(value, torch.nn.Parameter):
                held[name] = torch.nn.Parameter(copied(value), requires_grad=value.requires_grad)
            elif isinstance(value, torch.Tensor):
                held[name] = copied(value)
    if isinstance(parameters, TorchParameters):
        program = replace(program, model=replace(program.model, parameters=parameters.with_tensors(copied)))
    return program


def from_exported(exported: ExportedProgram, *, name: str | None = None) -> Program:
    """The neutral model of a program that `torch.export` made, with the sizes and ranges that were given to it there.

    Raises:
        UnsupportedError: operators that cannot be converted, all listed; or a program without example inputs.
    """
    if exported.example_inputs is None:
        raise UnsupportedError("the exported program has no example inputs", expected="what torch.export.export was given",
                               fix="export the module again, or set program.example_inputs to (args, kwargs)")
    exported = _copied(exported)
    args, kwargs = preparation.copy_repeated(exported.example_inputs)
    module = preparation.as_module(exported, name or "ExportedProgram")
    arguments = preparation.bind_call(module, args, kwargs)
    with CONVERTING, quiet(), torch.no_grad(), batching.free_batches(), decisions.recorded() as decided:
        return import_program(module, prepare(exported), arguments, arguments, "given", name or "ExportedProgram", [], decided).program


def _copied(exported: ExportedProgram) -> ExportedProgram:
    """A program of its own: what prepares it for the importers works in place."""
    with quiet():
        copied = copy.deepcopy(exported)
    for given, own in zip(exported.graph.nodes, copied.graph.nodes, strict=True):
        own.name = given.name  # the copy avoids names of Python's, the signature does not
    return copied


def _first_axes(arguments: dict[str, Any]) -> dict[str, list[str | None]]:
    """`dims` that frees the first axis of every input."""
    tensors = [(name, leaf) for name, leaf in zip(flat_names(arguments), pytree.tree_leaves(arguments), strict=True)
               if isinstance(leaf, torch.Tensor) and leaf.dim()]
    return {name: [Unnamed("batch" if not index else f"{identifier(name)}_0"), *[None] * (leaf.dim() - 1)]
            for index, (name, leaf) in enumerate(tensors)}


def _program(module: torch.nn.Module, arguments: dict[str, Any], dims: Any, name: str | None, notes: list[str],
             ranges: Mapping[str, DimRange], share: float) -> Program:
    effort, longest = current(), 0.0

    def attempt(example: dict[str, Any], **how: Any) -> Traced:
        nonlocal longest
        further = how.keys() - {"skip"}
        if further:
            require_time(longest)
        left = effort.left(LAST if further else share)
        effort.tell("seeking more free sizes" if further else "tracing" if dims == "static" else "tracing with free sizes")
        began = effort.spent
        with bounded(None if dims == "static" else max(left, LEAST * effort.seconds)):
            found = _traced(module, example, arguments, dims, name, notes, **how)
        longest = max(longest, effort.spent - began)
        return found

    for skip in range(3):
        traced = attempt(arguments, skip=skip)
        if dims == "static" or searching.accepts(traced.program, arguments):
            return searching.freest(module, arguments, dims, ranges, attempt, traced)
    if dims == "auto":
        raise UnsupportedError("traced with free sizes, the module does not take its own example", where=type(module).__name__,
                               fix="pass dims= to fix some of the sizes")
    return searching.freest(module, arguments, dims, ranges, attempt, traced)


def _traced(module: torch.nn.Module, arguments: dict[str, Any], given: dict[str, Any], dims: Any, name: str | None, notes: list[str],
            skip: int = 0, *, strict: bool = False, kept: Traced | None = None, roll: Roll | None = None) -> Traced:
    with evaluation(module), fast_path.as_in_evaluation(module), quiet(), torch.no_grad(), patches.traceable(), \
            decisions.recorded() as decided, recorded_places() as given_up:
        with unsteady.noted() as found:
            exported, example = exported_at(module, arguments, dims, skip, (True,) if strict else (False, True))
        places = given_up.places(exported, flat_names(example))
        exported = prepare(exported)
        told = [*notes, *unsteady.concerns(found)]
        traced = import_program(module, exported, example, given, dims, name or type(module).__name__, told, decided, kept, roll)
        return replace(traced, places=places)
