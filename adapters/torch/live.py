"""From a module to a model with its proof: build or take the module, load its checkpoint, trace it, record examples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from adapters.torch.dtypes import to_tensor
from adapters.torch.parameters import TorchParameters
from adapters.torch.run import ProgramSource
from adapters.torch.state.explicit import with_explicit_state, with_pairs, with_state_sizes
from adapters.torch.state.memory import evaluation, unchanged
from adapters.torch.tracing.arguments import full_name, nested
from adapters.torch.tracing.effort import SECONDS, Effort, budget
from adapters.torch.tracing.inputs import bind_arguments, call, call_arguments
from adapters.torch.tracing.record import Arrays, record
from adapters.torch.tracing.trace import Program, from_exported, prepared, traced
from converter.errors import ConverterError, ParameterError
from converter.ir import Array, DimRange, DType, Model, TensorSpec
from converter.matching import ADVICE, COUNTERS, match_names
from converter.parameters import ParameterStore
from converter.passes.casting import SOURCES, fit_dtypes
from converter.ports import Incoming
from converter.state_dict import describe_wrappers

CASES = 3
STATES = ("initial", "explicit")


def convert(module: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, dims: Any = "auto",
            name: str | None = None, examples: bool = True, ranges: Mapping[str, tuple[int, int]] | None = None,
            own: bool = False, state: str = "initial", effort: float = SECONDS,
            progress: Callable[[str], None] = lambda text: None) -> Incoming:
    """Traces a module and records what it gives. See `converter.from_torch` for the arguments.

    `ranges` maps inputs to the lowest and the highest integer to draw for them; default: what the graph's tables allow.
    `own`: nobody else holds the module, so that its parameters need not be copied. `progress` is told what is being done.
    """
    if isinstance(module, torch.export.ExportedProgram):
        if state == "explicit":
            raise ConverterError("an exported program's state cannot be made explicit", where="state='explicit'",
                                 received=type(module).__name__, fix="give the module that it was exported from")
        given, named = module.example_inputs or ((), {})
        return _finished(from_exported(module, name=name), given, named, examples, ranges)
    if not isinstance(module, torch.nn.Module):
        raise ConverterError("not a module", expected="a torch.nn.Module or a torch.export.ExportedProgram", received=type(module).__name__,
                             fix="wrap the function in a module whose forward calls it")
    if isinstance(args, (torch.Tensor, np.ndarray)) or not isinstance(args, Sequence):
        raise ConverterError("the example arguments are no tuple", expected="a tuple, (x,) for one", received=type(args).__name__)
    args = [_tensor(value) for value in args]
    kwargs = {key: _tensor(value) for key, value in (kwargs or {}).items()}
    if state not in STATES:
        raise ConverterError("no way to take a module's state", where="state", expected=" or ".join(map(repr, STATES)),
                             received=repr(state))
    ready = prepared(module, args, kwargs)
    with with_explicit_state(ready) if state == "explicit" else nullcontext(ready) as ready, evaluation(ready.module, own), \
            budget(Effort(effort, progress)):
        program = traced(ready, dims=with_state_sizes(dims, ready) if state == "explicit" else dims, name=name)
        if state == "explicit":
            program = replace(program, model=with_pairs(program.model))
        return _finished(program, ready.args, ready.kwargs, examples, ranges)


def _finished(program: Program, args: Sequence[Any], kwargs: Mapping[str, Any], examples: bool,
              ranges: Mapping[str, tuple[int, int]] | None) -> Incoming:
    model, notes = program.model, list(program.notes)
    if examples:
        recorded, more = record(program, bind_arguments(program.module, args, kwargs),
                                lambda given: _drawn(model, given, ranges or {}))
        model, notes = replace(model, examples=recorded), [*notes, *more]
    if notes:
        model = replace(model, metadata={**model.metadata, "notes": list(map(str, notes))})
    return Incoming(model, tuple(notes), ProgramSource(program))


def _tensor(value: Any) -> Any:
    return to_tensor(value) if isinstance(value, np.ndarray) else value


def _drawn(model: Model, given: Mapping[str, Array], ranges: Mapping[str, tuple[int, int]]) -> Iterator[Arrays]:
    """Inputs at other sizes than the given ones, as the proof of equivalence draws them."""
    from converter.equivalence.inputs import Planner

    overrides: dict[str, Any] = {name: partial(_integers, *span) for name, span in ranges.items() if name in given}
    planner = Planner(model.graph, model.parameters, overrides=overrides)
    for case in range(CASES):
        try:
            yield planner.case(case).inputs  # type: ignore[misc]
        except ConverterError:
            continue


def _integers(low: int, high: int, generator: Any, shape: tuple[int, ...]) -> Any:
    return generator.integers(low, high + 1, shape)


# From the command line -----------------------------------------------------------------------------------------------------


def convert_checkpoint(module: Any, store: ParameterStore | None, arrays: Mapping[str, Array] | None, inputs: Sequence[InputLike],
                       drawn: Iterator[Mapping[str, Array]], *, name: str | None = None, examples: bool = True,
                       state: str = "initial", allow_extra: bool = False, narrow: bool = False, effort: float = SECONDS,
                       progress: Callable[[str], None] = lambda text: None) -> Incoming:
    """Loads a state_dict into a module that was just built, and converts it.

    Args:
        module: what the user's callable gave; it is put into evaluation mode.
        store: the state_dict, or None for the module's own parameters.
        arrays: example arguments by name, where there are any.
        inputs: what was said of the arguments: `.name`, `.axes`, `.span`, `.spec`, `.ends`.
        drawn: example arguments to try otherwise, small ones first: the first that the module takes is traced.
        allow_extra: whether tensors that the module does not have are left out.
        narrow: whether floats may be rounded to the module's dtypes, as the model is cast afterwards.

    Raises:
        ParameterError: the state_dict is not the module's; all that is missing, extra or of another kind is listed.
        ConverterError: the module takes none of the example arguments.
    """
    notes: list[str] = []
    if store is not None:
        matched = match_names(store, module.state_dict().keys(), needed=_needed(module), allow_extra=allow_extra)
        floats = [item.spec.dtype for item in inputs] if arrays is None else [DType.of(value.dtype) for value in arrays.values()]
        store, cast = with_dtypes(module, matched.store, {dtype for dtype in floats if dtype.is_float}, narrow)
        load_into(module, store)
        if matched.wrappers:
            notes.append(f"names in the checkpoint hold {describe_wrappers(matched.wrappers)}: read without")
        notes += [*matched.notes, *cast]
    module.eval()
    if arrays is None:
        if not inputs:
            raise ConverterError("nothing says what the module takes", where="--module",
                                 expected=f"--input for each tensor of forward{inspect.signature(module.forward)}",
                                 fix="for example --input 'x:float32[batch,64]'")
        arrays = _first_accepted(module, drawn)
    else:
        _check_arrays(arrays, inputs)
    positional, keyword = _call(module, arrays)
    dims = {full_name(module, item.name): [_with_end(axis, item.ends) for axis in item.axes] for item in inputs} if inputs else "auto"
    ranges = {full_name(module, item.name): item.span for item in inputs if item.span is not None}
    found = convert(module, positional, keyword, dims=dims, name=name, examples=examples, ranges=ranges, own=True, state=state,
                    effort=effort, progress=progress)
    return replace(found, notes=(*found.notes, *notes))


def _with_end(axis: str | int, ends: Mapping[str, DimRange]) -> Any:
    """An axis as `dims=` takes it, with its range where it has one."""
    span = ends.get(axis) if isinstance(axis, str) else None
    return axis if span is None else torch.export.Dim(str(axis), min=span.min, max=span.max)


class InputLike(Protocol):
    """What the command line says of one argument."""

    name: str
    spec: TensorSpec
    span: tuple[int, int] | None
    ends: Mapping[str, DimRange]

    @property
    def axes(self) -> list[str | int]: ...


def _call(module: torch.nn.Module, arrays: Mapping[str, Array]) -> tuple[list[Any], dict[str, Any]]:
    """Arrays by their flat names as positional and keyword arguments. Raises `ConverterError` where they are not forward's."""
    args, kwargs = call_arguments(module, nested(module, {name: _tensor(array) for name, array in arrays.items()}))
    bind_arguments(module, args, kwargs)
    return args, kwargs


def _first_accepted(module: torch.nn.Module, drawn: Iterator[Mapping[str, Array]]) -> Mapping[str, Array]:
    failure: tuple[Mapping[str, Array], Exception] | None = None
    for arrays in drawn:
        args, kwargs = _call(module, arrays)
        try:
            with evaluation(module, own=True), unchanged(module), torch.no_grad():
                call(module, args, kwargs)
        except Exception as error:  # a module may raise anything at a size that it does not allow
            failure = failure or (arrays, error)
            continue
        return arrays
    if failure is None:
        raise ConverterError("no example arguments were drawn", where=type(module).__name__)
    arrays, reason = failure
    raise ConverterError("the module fails on example arguments drawn from --input", where=type(module).__name__,
                         expected="arguments that forward" + str(inspect.signature(module.forward)) + " takes",
                         received=", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in arrays.items())
                         + f"; {type(reason).__name__}: {str(reason).strip().partition(chr(10))[0][:200]}",
                         fix="correct --input, or give real arguments with --input-file") from reason


def _check_arrays(arrays: Mapping[str, Array], inputs: Sequence[InputLike]) -> None:
    for item in inputs:
        found = arrays.get(item.name)
        if found is None or DType.of(found.dtype) is not item.spec.dtype or found.ndim != item.spec.rank:
            raise ConverterError("the example does not fit what --input says", where=f"input {item.name!r}", expected=str(item.spec),
                                 received="nothing" if found is None else f"{found.dtype}{list(found.shape)}")


def _needed(module: torch.nn.Module) -> list[str]:
    """The names without which the module's own loading fails: it does without counters, and with one name of what is tied."""
    own = TorchParameters({name: value for name, value in module.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)})
    return [name for name in own.names() if own.alias_of(name) is None and name.rpartition(".")[2] not in COUNTERS]


def with_dtypes(module: torch.nn.Module, store: ParameterStore, inputs: Collection[DType],
                narrow: bool) -> tuple[ParameterStore, tuple[str, ...]]:
    """The module and a state_dict brought to one another's dtypes, and a note where they differed.

    A checkpoint of one float dtype casts the module, unless the inputs are floats of another; else the tensors are widened to
    the module's dtypes, as `load_state_dict` does it, where that is exact.

    Args:
        module: what was built; it is cast in place.
        store: the state_dict, under the module's names.
        inputs: the float dtypes that the module is to take.
        narrow: whether the tensors may be rounded to the module's dtypes.
    """
    tensors = {name: value for name, value in module.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}
    specs = TorchParameters(tensors)
    held = {store.spec(name).dtype for name in store.names() if name in specs and store.spec(name).dtype.is_float}
    own = {specs.spec(name).dtype for name in specs.names() if specs.spec(name).dtype.is_float}
    if len(held) == 1 and held != own and set(inputs) <= held and not narrow and not any(value.is_complex() for value in tensors.values()):
        (dtype,) = held
        if dtype in SOURCES:
            module.to(getattr(torch, str(dtype)))
            return store, (f"the module is cast to {dtype}, the dtype of the checkpoint's floats",)
    return fit_dtypes(store, {name: specs.spec(name) for name in specs.names()}, narrow=narrow)


def load_into(module: torch.nn.Module, store: ParameterStore) -> None:
    """Loads a state_dict into a module, bit for bit, without a copy where the tensors are mapped.

    Raises:
        ParameterError: tensors that are missing, extra, of another shape or dtype, or tied in the module and not equal.
    """
    own = TorchParameters({name: value for name, value in module.state_dict(keep_vars=True).items()
                           if isinstance(value, torch.Tensor)})
    problems = [f"{name!r}: expected {own.spec(name)}, received {store.spec(name)}" for name in store.names()
                if name in own and own.spec(name) != store.spec(name)]
    for name in own.names():
        target = own.alias_of(name)
        if (target is not None and name in store and target in store and store.alias_of(name) != target
                and store.spec(name) == store.spec(target) and store.sha256(name) != store.sha256(target)):
            problems.append(f"{name!r}: tied to {target!r} in the module, but its values differ")
    state = _state(module, own, store)
    if problems:
        missing, extra = [name for name in own.names() if name not in state], [name for name in state if name not in own]
    else:
        # The module decides: its own loading may take names of an older version of its code.
        try:
            result = module.load_state_dict(state, strict=False, assign=True)
        except RuntimeError as error:
            raise _unfit([str(error).strip().replace("\n", " ")[:500]], own, store) from error
        missing, extra = result.missing_keys, result.unexpected_keys
    problems += [f"missing: {name!r} {own.spec(name) if name in own else ''}".rstrip() for name in missing]
    problems += [f"extra: {name!r} {store.spec(name) if name in store else ''}".rstrip() for name in extra]
    if problems:
        raise _unfit(problems, own, store)


def _state(module: torch.nn.Module, own: TorchParameters, store: ParameterStore) -> dict[str, torch.Tensor]:
    """The store's tensors under the module's names. What the module ties becomes one object, so that it stays tied, also
    where the file holds it under one of its names only; what the file ties shares its memory."""
    learned = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    tied: dict[str, list[str]] = {}
    for name in own.names():
        tied.setdefault(own.alias_of(name) or name, []).append(name)
    tensors: dict[str, torch.Tensor] = {}

    def read(name: str) -> torch.Tensor:
        first = store.alias_of(name) or name
        if first not in tensors:
            tensors[first] = (store.tensor(first).detach() if isinstance(store, TorchParameters)
                              else to_tensor(store.read_private(first), copy=False))
        return tensors[first]

    state = {name: read(name) for name in store.names() if name not in own}
    for names in tied.values():
        held = next((name for name in names if name in store), None)
        if held is not None:
            value = read(held)
            if names[0] in learned:
                value = torch.nn.Parameter(value, requires_grad=False)
            state.update(dict.fromkeys(names, value))
    return state


def _unfit(problems: list[str], own: ParameterStore, store: ParameterStore) -> ParameterError:
    most = 40
    lines = problems[:most] + ([f"and {len(problems) - most} more"] if len(problems) > most else [])
    dtypes = any(name in store and name in own and store.spec(name).dtype is not own.spec(name).dtype for name in own.names())
    fix = (f"give the callable that builds the module this checkpoint was saved from; {ADVICE}"
           + "; --dtype float32 casts the floats, or .half() and the like in the callable casts the module" * dtypes)
    return ParameterError("the checkpoint is not the module's\n  " + "\n  ".join(lines) + "\n", fix=fix)
