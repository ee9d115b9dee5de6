"""Into `torch.export`, and the program that comes out made ready for the importers."""

from __future__ import annotations

import inspect
import linecache
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import Dim as ExportDim
from torch.export import ExportedProgram, _trace

import adapters.torch
import adapters.torch.patches.gradients as gradients
import adapters.torch.tracing.preparation as preparation
from adapters.torch.ops.control import casts
from adapters.torch.patches.quantization import traceable_quantization
from adapters.torch.registry import importers
from adapters.torch.state.kept import begin_with_copies
from adapters.torch.state.memory import find_memory, unchanged
from adapters.torch.tracing.custom_operators import decompositions
from adapters.torch.tracing.importer import CHECKS, needed, target_name
from adapters.torch.tracing.inplace import without_inplace
from adapters.torch.tracing.inputs import Unnamed, call, enlarge, flat_names, mapped
from converter.errors import ConverterError, UnsupportedError

AUTO = ExportDim.AUTO
STATIC = ExportDim.STATIC
NORMALIZATIONS = ("aten.batch_norm.default", "aten.instance_norm.default")
"""(input, weight, bias, running_mean, running_var, by the batch's own statistics, …)."""

TRANSFORMS = ("torch._functorch.predispatch", "torch.amp.autocast_mode")
"""Where the calls are from that stand around what `torch.vmap` maps and `autocast` casts, until the graph is traced once more."""


def exported_at(module: torch.nn.Module, arguments: dict[str, Any], dims: Any, skip: int = 0,
                ways: Sequence[bool] = (False, True)) -> tuple[ExportedProgram, dict[str, Any]]:
    """The trace, and the example it was made at. `skip` leaves out as many ways to enlarge the example, and keeps one."""
    attempts: list[tuple[dict[str, Any], Any]] = []
    if dims == "static":
        attempts.append((arguments, None))
    elif dims == "auto" or isinstance(dims, Mapping) and names_axes(dims):
        for sizes in ({0: 2, **dict.fromkeys(range(1, 8), 3)}, {0: 2}, {}):
            grown = enlarge(arguments, sizes, dims if isinstance(dims, Mapping) else None)
            attempts.append((grown, _free(grown, dims)))
    else:
        attempts.append((arguments, dims))
    failures: list[Exception] = []
    seen: set[str] = set()
    for example, shapes in attempts[skip:] or attempts[-1:]:
        key = str([tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else leaf for leaf in pytree.tree_leaves(example)])
        if key in seen:
            continue
        seen.add(key)
        for strict in ways:
            try:
                _unmark(example)
                call = _call(module, example, shapes)
                with unchanged(module), traceable_quantization(module):
                    _name_keywords(module, example)
                    begin_with_copies(module, getattr(find_memory(module), "state", ()))
                    return _exported(module, *call, strict), example
            except Exception as error:  # torch.export raises anything, from any depth
                failures.append(error)
                if "not a known type" in str(error) and _knows_results(module, example):
                    return exported_at(module, arguments, dims, skip, ways)
    if isinstance(failures[0], UnsupportedError) and failures[0].items:
        raise failures[0]
    raise _untraceable(module, failures)


def _unmark(example: Mapping[str, Any]) -> None:
    """Takes the marks of free axes off tensors, which torch leaves there when a trace fails, and obeys in the next one."""
    for leaf in pytree.tree_leaves(dict(example)):
        if isinstance(leaf, torch.Tensor):
            for name in [name for name in vars(leaf) if name.startswith("_dynamo_")]:
                delattr(leaf, name)


REASONS = {
    "branch": ("the code decides by values that only the data give", "compute both ways and choose with torch.where, or use torch.cond"),
    "fixed": ("a number that only the data give stands where a fixed one must",
              "give a fixed number; for a loop as long as the number, use torch.while_loop, or run to a fixed end under a mask"),
    "other": ("torch.export cannot trace the module", "make the forward pass traceable, or pass dims= to fix the sizes it depends on"),
}
"""Why a module cannot be traced, and what to do."""


def _untraceable(module: torch.nn.Module, failures: Sequence[Exception]) -> UnsupportedError:
    """The error for a module that no way into `torch.export` takes, with the line of its code where the first one failed."""
    first = failures[0]
    place, code = users_line(first)
    of_data = type(first).__name__ == "GuardOnDataDependentSymNode"
    kind = "fixed" if of_data and "specialized integer" in str(first) else "branch" if of_data else "other"
    reason, fix = REASONS[kind]
    error = UnsupportedError(reason, where=f"{type(module).__name__}{f', {place}' if place else ''}",
                             received=code if of_data and code else first_line(first), fix=fix,
                             cause="untraceable" if all(map(_is_torchs, failures)) else None)
    error.__cause__ = first
    return error


_OWN = tuple(f"{path.parent}/" for item in (torch.__file__, adapters.torch.__file__) for path in (Path(item), Path(item).resolve()))
_FRAME = re.compile(r'File "([^"<]+)", line (\d+), in (\S+)')


def users_line(error: BaseException) -> tuple[str | None, str]:
    """`file.py:12 in forward`, the innermost line of neither torch nor this package that an error passed through, and what
    stands there; a trace of bytecode names it in its message."""
    frames = [(frame.filename, frame.lineno or 0, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    named = [(path, int(line), name) for path, line, name in _FRAME.findall(str(error))]
    for path, line, name in (*reversed(frames), *reversed(named)):
        if not path.startswith(("<", *_OWN)):
            return f"{'/'.join(Path(path).parts[-2:])}:{line} in {name}", linecache.getline(path, line).strip()
    return None, ""


def _exported(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any, strict: bool) -> ExportedProgram:
    failure: Exception | None = None
    with gradients.noticed() as asked:
        try:
            exported = torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=strict)
            if any(isinstance(value, torch._subclasses.FakeTensor) for value in exported.constants.values()):
                raise UnsupportedError("the trace holds a tensor without values", where=type(module).__name__)
        except Exception as error:  # torch.export raises anything, from any depth
            failure = error
    if asked and not strict and (failure is not None or set(asked) != {gradients.VMAP[1]}):
        return gradients.exported_below_autograd(module, args, kwargs, shapes)
    if failure is not None:
        raise failure
    return exported


def _is_torchs(error: Exception) -> bool:
    """Whether torch's own code raised an error, and not that of a module or of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(torch.__file__).parent)


def _call(module: torch.nn.Module, example: dict[str, Any], shapes: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional and keyword arguments for `torch.export`, with `dynamic_shapes` in the same structure."""
    parameters = inspect.signature(module.forward).parameters
    kinds = {parameter.kind for name, parameter in parameters.items() if name in example}
    # A hook takes its arguments by place; torch's own, on the modules of exported programs, take them as they were exported.
    hooked = any(not str(getattr(hook, "__module__", "")).startswith("torch.")
                 for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()))
    by_place = hooked or bool(kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY})
    # What comes after one that is left out has no place.
    placed = set(takewhile(lambda name: name in example, parameters)) - {
        name for name, item in parameters.items() if item.kind is inspect.Parameter.KEYWORD_ONLY}
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, value in example.items():
        kind = parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            kwargs.update(value)
            shapes = _with_names(shapes, name, value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            args.extend(value)
        elif by_place and name in placed:
            args.append(value)
        else:
            kwargs[name] = value
    return tuple(args), kwargs, shapes


def _with_names(shapes: Any, name: str, values: Mapping[str, Any]) -> Any:
    """`dynamic_shapes` in which what `**name` takes stands by its own names."""
    if not isinstance(shapes, Mapping):
        return shapes
    own = shapes.get(name)
    return {**{key: item for key, item in shapes.items() if key != name},
            **(own if isinstance(own, Mapping) else dict.fromkeys(values.keys() - shapes.keys()))}


def _name_keywords(module: torch.nn.Module, example: Mapping[str, Any]) -> None:
    """Gives `forward` a signature with the names that its `**kwargs` are called by, which the tracer cannot free otherwise."""
    signature = inspect.signature(module.forward)
    parameters = list(signature.parameters.values())
    last = parameters[-1] if parameters else None
    if last is None or last.kind is not inspect.Parameter.VAR_KEYWORD or not example.get(last.name):
        return
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in example[last.name]]
    forward.__signature__ = signature.replace(parameters=[*parameters[:-1], *named])  # type: ignore[attr-defined]
    vars(module)["forward"] = forward


def _knows_results(module: torch.nn.Module, example: dict[str, Any]) -> bool:
    """Runs the module to find the dataclasses that it gives; whether the tracer knows more of them now."""
    args, kwargs, _ = _call(module, example, None)
    with unchanged(module):
        return preparation.register_dataclasses(call(module, args, kwargs))


def names_axes(dims: Mapping[str, Any]) -> bool:
    """Whether `dims` gives each input's axes names, and not in torch's own way."""
    return all(isinstance(axes, (list, tuple)) and all(type(axis) in (str, Unnamed, int, type(None)) for axis in axes)
               for axes in dims.values())


def _free(example: dict[str, Any], dims: Any) -> dict[str, Any]:
    """`dynamic_shapes` that frees every axis of every tensor, or those that `dims` names."""
    names = iter(flat_names(example))

    def shapes(leaf: Any) -> Any:
        name = next(names)
        if not isinstance(leaf, torch.Tensor):
            return None
        if dims == "auto":
            return tuple(AUTO for _ in leaf.shape)
        axes = dims.get(name)
        if axes is None:
            return tuple(STATIC for _ in leaf.shape)
        if len(axes) != leaf.dim():
            raise ConverterError("dims= names another number of axes than the example has", where=f"input {name!r}",
                                 expected=f"{leaf.dim()} axes", received=str(list(axes)))
        return tuple(AUTO if isinstance(axis, str) else STATIC for axis in axes)

    return mapped(shapes, example)


def prepare(exported: ExportedProgram) -> ExportedProgram:
    """Decomposes the operators that no importer knows, makes in-place operators functional, batches what `vmap` maps
    and casts what `autocast` casts."""
    without_inplace(exported)
    refused: dict[Any, str] = {}
    for _ in range(4):
        # torch writes these into code, which asks again what the first trace was asked, its own questions of no effect among them;
        # the names of what it cannot spell break there.
        exported._guards_code = []
        unknown, transformed = _unknown(exported)
        unknown -= refused.keys()
        if not unknown and not transformed:
            break
        default = torch.export.default_decompositions()
        bodies = decompositions(unknown, refused)
        known = {**torch._decomp.decomposition_table, **default, **bodies}
        before = {str(operator) for operator in unknown}
        try:
            decomposed = exported.run_decompositions({operator: known[operator] for operator in unknown if operator in known})
            if any(operator.namespace == "prims" for operator in _unknown(decomposed)[0]):
                # Down there nobody recognises the operator that the user wrote, and the refusal is to name that one.
                known = {**default, **bodies}
                decomposed = exported.run_decompositions({operator: known[operator] for operator in unknown if operator in known})
            exported = decomposed
        except Exception as error:  # torch decomposes by tracing again, which raises anything
            what = ", ".join(sorted(before)) or "operators that work in place, or inside of vmap or autocast"
            raise UnsupportedError(f"torch cannot decompose {what}", received=first_line(error),
                                   cause=None if before else "untraceable",
                                   items=[{"operator": name, "reason": "no importer, and torch cannot decompose it"}
                                          for name in sorted(before)],
                                   fix="write the forward pass without them") from error
        if not transformed and before == {str(operator) for operator in _unknown(exported)[0]}:
            break
    for node in _nodes(exported):
        if node.op == "call_function" and node.target in refused:
            node.meta["refused"] = refused[node.target]
        if node.op == "call_function" and _writes_statistics(node):
            reason = "it writes running statistics that something else reads, which torch's trace does not hold"
            raise UnsupportedError("running statistics are not traced", items=[{"operator": target_name(node.target), "reason": reason}],
                                   fix="track_running_stats=False, or state='initial'")
    return exported


def _nodes(exported: ExportedProgram) -> list[torch.fx.Node]:
    """The nodes that count of a program's graph and of the graphs within it."""
    graphs = [part.graph for part in exported.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    return [node for graph in graphs for counted in (needed(graph),) for node in graph.nodes if node in counted]


def _unknown(exported: ExportedProgram) -> tuple[set[Any], bool]:
    known = importers()
    unknown, transformed = set(), False
    for node in _nodes(exported):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            transformed |= getattr(node.target, "__module__", "") in TRANSFORMS
            if node.op == "call_function" and target_name(node.target) == "higher_order.wrap_with_autocast":
                transformed |= casts(str(node.args[0]), bool(node.args[2]))
            continue
        if node.target._schema.is_mutable and target_name(node.target) not in known or _writes_statistics(node):
            transformed = True
        elif target_name(node.target) not in known and target_name(node.target) not in CHECKS and isinstance(
                node.meta.get("val"), (torch.Tensor, tuple, list)):
            unknown.add(node.target)
    return unknown, transformed


def _writes_statistics(node: torch.fx.Node) -> bool:
    """Whether a normalization by the batch writes running statistics that something else reads, of which its schema does not tell."""
    if not isinstance(node.target, torch._ops.OpOverload) or target_name(node.target) not in NORMALIZATIONS or not node.args[5]:
        return False
    return any(isinstance(held, torch.fx.Node) and len(held.users) > 1 for held in node.args[3:5])


@contextmanager
def quiet() -> Iterator[None]:
    """torch warns, logs and prints about matters that are handled here, the graphs of failed traces among them."""
    loggers = [item for name, item in logging.root.manager.loggerDict.items()
               if isinstance(item, logging.Logger) and f"{name}.".startswith("torch.") and not item.disabled]
    for logger in loggers:
        logger.disabled = True
    tracer = vars(_trace)
    prints = tracer.get("print", print)
    tracer["print"] = lambda *_, **__: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tracer["print"] = prints
        for logger in loggers:
            logger.disabled = False


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else ''}"
