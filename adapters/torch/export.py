"""Live modules in: `torch.export` traces them, and the importers turn the trace into a neutral graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import Dim as ExportDim
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

import adapters.torch.answers as answers
import adapters.torch.decisions as decisions
import adapters.torch.linear_algebra as linear_algebra
import adapters.torch.losses as losses
import adapters.torch.masks as masks
import adapters.torch.pooling_1d as pooling_1d
import adapters.torch.preparation as preparation
import adapters.torch.recurrent as recurrent
import adapters.torch.retracing as retracing
import adapters.torch.views as views
from adapters.torch.decisions import Decisions
from adapters.torch.domains import Domain, domain_of
from adapters.torch.dtypes import from_torch_dtype, to_dim
from adapters.torch.importer import CHECKS, Importer, target_name
from adapters.torch.inplace import without_inplace
from adapters.torch.inputs import enlarge, flat_names, mapped
from adapters.torch.parameters import TorchParameters
from adapters.torch.ranges import possible_ranges, traced_ranges, with_empty
from adapters.torch.registry import importers
from adapters.torch.trials import agrees_at
from converter.builder import GraphBuilder, Value
from converter.checking import check
from converter.dims import symbol
from converter.errors import ConverterError, RunError, UnsupportedError
from converter.ir import DimRange, Graph, Model
from converter.rewriting import simplify
from converter.sizes import bind, check_shape

AUTO = ExportDim.AUTO
STATIC = ExportDim.STATIC


@dataclass(frozen=True)
class Program:
    """A traced module with its neutral graph: the two things that a proof of equivalence compares.

    `input_names` are the graph inputs in the order of the flattened call; None marks an argument that is no tensor.
    `notes` says in words what a person should know: dims that stayed fixed and why, modules switched to evaluation.
    """

    module: torch.nn.Module
    exported: ExportedProgram
    model: Model
    input_names: tuple[str | None, ...]
    output_names: tuple[str | None, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)


def from_torch(module: torch.nn.Module, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None,
               dims: Any = "auto", name: str | None = None) -> Model:
    """Converts a live module. See `trace` for the arguments; gives the model alone."""
    return trace(module, args, kwargs, dims=dims, name=name).model


def trace(module: torch.nn.Module, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *,
          dims: Any = "auto", name: str | None = None) -> Program:
    """Traces a module and builds its neutral model.

    Args:
        module: traced in evaluation mode (it is switched back afterwards).
        args, kwargs: example arguments of `forward`.
        dims: `"auto"` frees every size that the module allows; `"static"` fixes all; a mapping from an input's name to
            the names of its axes (`{"tokens": ["batch", "time"]}`, an integer or None for a fixed one) frees those;
            anything else is given to `torch.export` as `dynamic_shapes`.
        name: the graph's name; default: the module's class.

    Raises:
        UnsupportedError: the trace failed, or holds operators that cannot be converted; all are listed.
    """
    notes: list[str] = []
    module = preparation.unwrapped(module, notes)
    preparation.refuse_uncarried(module)
    args, kwargs = preparation.distinct((tuple(args), dict(kwargs or {})))
    preparation.register_dataclasses((args, kwargs))
    if isinstance(module, torch.jit.ScriptModule):
        module = preparation.from_script(module, args, kwargs, notes)
    with _evaluation(module), _quiet():
        preparation.initialized(module, args, kwargs, notes)
    arguments = preparation.bound(module, args, kwargs)
    preparation.note_frozen(arguments, notes)
    if module.training:
        notes.append(f"{type(module).__name__} was in training mode and was traced in evaluation mode")
    try:
        return _program(module, arguments, dims, name, notes)
    except ConverterError as error:
        if dims != "auto":
            raise
        for fewer in (_first_axes(arguments), "static"):
            try:
                program = _program(module, arguments, fewer, name, [*notes])
            except ConverterError:
                continue
            kept = "only the first axis of each input is free" if fewer != "static" else "all sizes stay fixed"
            return replace(program, notes=(*program.notes, f"{kept}: {' '.join(str(error).split())[:300]}"))
        raise


def from_exported(exported: ExportedProgram, *, name: str | None = None) -> Program:
    """The neutral model of a program that `torch.export` made, with the sizes and ranges that were given to it there.

    Raises:
        UnsupportedError: operators that cannot be converted, all listed; or a program without example inputs.
    """
    if exported.example_inputs is None:
        raise UnsupportedError("the exported program has no example inputs", expected="what torch.export.export was given",
                               fix="export the module again, or set program.example_inputs to (args, kwargs)")
    args, kwargs = preparation.distinct(exported.example_inputs)
    module = preparation.as_module(exported, name or "ExportedProgram")
    arguments = preparation.bound(module, args, kwargs)
    with _quiet(), torch.no_grad(), decisions.recorded() as decided:
        return _import(module, prepare(exported), arguments, arguments, "auto", name or "ExportedProgram", [], decided).program


def _first_axes(arguments: dict[str, Any]) -> dict[str, list[str | None]]:
    """`dims` that frees the first axis of every input."""
    tensors = [(name, leaf) for name, leaf in zip(flat_names(arguments), pytree.tree_leaves(arguments), strict=True)
               if isinstance(leaf, torch.Tensor) and leaf.dim()]
    return {name: ["batch" if not index else f"{_identifier(name)}_0", *[None] * (leaf.dim() - 1)]
            for index, (name, leaf) in enumerate(tensors)}


@dataclass(frozen=True)
class _Traced:
    """A program, the example it was traced at, and what its module decided there."""

    program: Program
    example: dict[str, Any]
    domain: Domain
    sizes: Mapping[str, int]
    took_integers: bool


def _program(module: torch.nn.Module, arguments: dict[str, Any], dims: Any, name: str | None, notes: list[str]) -> Program:
    names_sizes = isinstance(dims, str) and dims == "auto" or isinstance(dims, Mapping) and _names_axes(dims)
    for skip in range(3):
        traced = _traced(module, arguments, arguments, dims, name, notes, skip)
        if dims == "static" or _takes(traced.program.model.graph, arguments, traced.program.input_names):
            return _freer(module, arguments, dims, name, notes, traced) if names_sizes else traced.program
    if dims == "auto":
        raise UnsupportedError("traced with free sizes, the module does not take its own example", where=type(module).__name__,
                               fix="pass dims= to fix some of the sizes")
    return traced.program


def _traced(module: torch.nn.Module, arguments: dict[str, Any], given: dict[str, Any], dims: Any, name: str | None, notes: list[str],
            skip: int = 0, *, strict: bool = False, kept: Mapping[str, Any] | None = None) -> _Traced:
    with _evaluation(module), _quiet(), torch.no_grad(), recurrent.whole_recurrent_layers(), masks.masks_as_given(), \
            pooling_1d.free_lengths(), losses.traceable_losses(), linear_algebra.traceable_linear_algebra(), \
            answers.answers_as_tensors(), views.quick_views(), decisions.recorded() as decided:
        exported, example = _export(module, arguments, dims, skip, (True,) if strict else (False, True))
        exported = prepare(exported)
        return _import(module, exported, example, given, dims, name or type(module).__name__, [*notes], decided, kept)


def _freer(module: torch.nn.Module, arguments: dict[str, Any], dims: Any, name: str | None, notes: list[str], first: _Traced) -> Program:
    """The program, or one traced another way that holds at the example too and at more sizes: by torch's strict way, which
    keeps `int(size)` and `len(tensor)` free, or at sizes where the module's decisions go another way."""
    best = first

    def better(other: _Traced) -> _Traced:
        rooms = [retracing.freedom(item.program.model.graph, arguments, item.program.input_names) for item in (best, other)]
        return other if rooms[1] > rooms[0] and _takes(other.program.model.graph, arguments, other.program.input_names) else best

    if first.took_integers:
        with suppress(ConverterError):
            best = better(_traced(module, arguments, arguments, dims, name, notes, strict=True))
    own = retracing.sizes_of(first.example, best.program.model.graph, best.program.input_names)
    for sizes in retracing.other_sizes(best.domain, best.sizes):
        example = retracing.at_sizes(first.example, best.program.model.graph, best.program.input_names, {**own, **sizes})
        if example is None:
            continue
        try:
            best = better(_traced(module, example, arguments, dims, name, notes, kept=first.example))
        except ConverterError:
            continue
        if not retracing.narrowed(best.domain, best.sizes):
            break
    return best.program


def _takes(graph: Graph, arguments: Mapping[str, Any], names: tuple[str | None, ...]) -> bool:
    """Whether the graph runs at the sizes of the example as it was given: two that broadcast are one size where both were enlarged."""
    leaves = dict(zip(names, pytree.tree_leaves(dict(arguments)), strict=True))
    bindings: dict[str, int] = {}
    try:
        for port in graph.inputs:
            bind(port.spec, tuple(leaves[port.name].shape), bindings)
        for port in graph.inputs:
            check_shape(port.spec, tuple(leaves[port.name].shape), bindings, port.name)
    except RunError:
        return False
    return all(name not in graph.dims or size in graph.dims[name] for name, size in bindings.items())


# Tracing -----------------------------------------------------------------------------------------------------------------


def _export(module: torch.nn.Module, arguments: dict[str, Any], dims: Any, skip: int = 0,
            ways: Sequence[bool] = (False, True)) -> tuple[ExportedProgram, dict[str, Any]]:
    """The trace, and the example it was made at. `skip` leaves out as many ways to enlarge the example, and keeps one."""
    attempts: list[tuple[dict[str, Any], Any]] = []
    if dims == "static":
        attempts.append((arguments, None))
    elif dims == "auto" or isinstance(dims, Mapping) and _names_axes(dims):
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
                args, kwargs, ordered = _call(module, example, shapes)
                return torch.export.export(module, args, kwargs, dynamic_shapes=ordered, strict=strict), example
            except Exception as error:  # torch.export raises anything, from any depth
                failures.append(error)
                if "not a known type" in str(error) and _knows_results(module, example):
                    return _export(module, arguments, dims, skip, ways)
    raise UnsupportedError("torch.export cannot trace the module", where=type(module).__name__,
                           received=_first_line(failures[0]),
                           fix="make the forward pass traceable, or pass dims= to fix the sizes it depends on") from failures[0]


def _call(module: torch.nn.Module, example: dict[str, Any], shapes: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional and keyword arguments for `torch.export`, with `dynamic_shapes` in the same structure."""
    import inspect

    parameters = inspect.signature(module.forward).parameters
    kinds = {parameter.kind for name, parameter in parameters.items() if name in example}
    if inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.POSITIONAL_ONLY in kinds:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, value in example.items():
            kind = parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return tuple(args), kwargs, shapes
    kwargs = {}
    for name, value in example.items():
        kwargs.update(value if parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    return (), kwargs, shapes


def _knows_results(module: torch.nn.Module, example: dict[str, Any]) -> bool:
    """Runs the module to find the dataclasses that it gives; whether the tracer knows more of them now."""
    args, kwargs, _ = _call(module, example, None)
    with preparation.unchanged(module):
        return preparation.register_dataclasses(module(*args, **kwargs))


def _names_axes(dims: Mapping[str, Any]) -> bool:
    return all(isinstance(axes, (list, tuple)) and all(isinstance(axis, (str, int, type(None))) and not isinstance(axis, bool)
                                                      and type(axis) in (str, int, type(None)) for axis in axes)
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
    """Decomposes the operators that no importer knows, and makes in-place operators functional where there are any."""
    without_inplace(exported)
    for _ in range(4):
        unknown, mutates = _unknown(exported)
        if not unknown and not mutates:
            break
        default = torch.export.default_decompositions()
        known = {**torch._decomp.decomposition_table, **default}
        before = {str(operator) for operator in unknown}
        try:
            decomposed = exported.run_decompositions({operator: known[operator] for operator in unknown if operator in known})
            if any(operator.namespace == "prims" for operator in _unknown(decomposed)[0]):
                # Down there nobody recognises the operator that the user wrote, and the refusal is to name that one.
                decomposed = exported.run_decompositions({operator: default[operator] for operator in unknown if operator in default})
            exported = decomposed
        except Exception as error:  # torch decomposes by tracing again, which raises anything
            what = ", ".join(sorted(before)) or "operators that work in place"
            raise UnsupportedError(f"torch cannot decompose {what}", received=_first_line(error),
                                   items=[{"operator": name, "reason": "no importer, and torch cannot decompose it"}
                                          for name in sorted(before)],
                                   fix="write the forward pass without them") from error
        if not mutates and before == {str(operator) for operator in _unknown(exported)[0]}:
            break
    return exported


def _unknown(exported: ExportedProgram) -> tuple[set[Any], bool]:
    known = importers()
    unknown, mutates = set(), False
    graphs = [part.graph for part in exported.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if node.target._schema.is_mutable and target_name(node.target) not in known:
            mutates = True
        elif target_name(node.target) not in known and target_name(node.target) not in CHECKS and isinstance(
                node.meta.get("val"), (torch.Tensor, tuple, list)):
            unknown.add(node.target)
    return unknown, mutates


@contextmanager
def _evaluation(module: torch.nn.Module):  # type: ignore[no-untyped-def]
    held = [(item, dict(vars(item))) for item in module.modules()]
    training = [item for item in module.modules() if item.training]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    module.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for item in training:
            item.training = True
        for item, before in held:
            _forget_fakes(item, before)


def _forget_fakes(module: torch.nn.Module, before: dict[str, Any]) -> None:
    """Takes back the attributes in which a module kept values of its own trace, which nothing else can compute with."""
    for name, value in list(vars(module).items()):
        if before.get(name, _forget_fakes) is value or name.startswith("_"):
            continue
        if any(isinstance(leaf, (torch._subclasses.FakeTensor, torch.SymInt, torch.SymFloat, torch.SymBool))
               for leaf in pytree.tree_leaves(value)):
            if name in before:
                setattr(module, name, before[name])
            else:
                delattr(module, name)


@contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """torch.export warns about matters that are handled here."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else ''}"


# Importing ---------------------------------------------------------------------------------------------------------------


def _import(module: torch.nn.Module, exported: ExportedProgram, example: dict[str, Any], given: dict[str, Any], dims: Any, name: str,
            notes: list[str], decided: Decisions, kept: Mapping[str, Any] | None = None) -> _Traced:
    signature = exported.graph_signature
    placeholders = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    user_nodes = [placeholders[spec.arg.name] if hasattr(spec.arg, "name") and spec.arg.name in placeholders else None
                  for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
    names = flat_names(example)
    decisions.add_bounds(exported.graph, decided)
    named = _symbol_names(user_nodes, names, dims)
    sizes = _traced_sizes(user_nodes, named)
    domain = domain_of(decided, named, sizes, traced_ranges(exported, named), None if kept is None else _sizes_in(kept, user_nodes, named))
    symbols = {key: symbol(domain.relations[own][0]) + domain.relations[own][1] if own in domain.relations else own
               for key, own in named.items()}
    builder = GraphBuilder(name, domain.ranges)
    environment: dict[torch.fx.Node, Any] = {}
    input_names: list[str | None] = []
    for node, input_name in zip(user_nodes, names, strict=True):
        value = node.meta.get("val") if node is not None else None
        if node is not None and isinstance(value, torch.Tensor):
            environment[node] = builder.input(builder.unique(input_name), from_torch_dtype(value.dtype),
                                              [to_dim(size, symbols) for size in value.shape])
            input_names.append(environment[node].name)
        else:
            if node is not None:
                environment[node] = value
            input_names.append(None)
    store = TorchParameters.of(module, exported)
    for spec in signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            parameter = store.spec(spec.target)
            node = placeholders[spec.arg.name]
            environment[node] = builder.parameter(spec.target, parameter.dtype, parameter.shape)
    importer = Importer(builder, symbols)
    results = importer.walk(exported.graph, environment)
    output_names = _outputs(builder, exported, results)
    store = store.with_constants(importer.constants)
    graph, specs = simplify(builder.graph(), builder.specs, store, store.constants)
    graph = replace(graph, dims=possible_ranges(graph, specs, set(named.values()), notes))
    model = Model(graph, store, (), {}, store.constants)
    graph = replace(graph, dims=_tried(domain, model, module, example, tuple(input_names), output_names, notes))
    if kept is not None:
        _agrees_elsewhere(domain, Model(graph, store, (), {}, store.constants), module, kept, tuple(input_names), output_names)
    graph = replace(graph, dims=with_empty(graph, given, flat_names(example)))
    _report_fixed(graph, dims, notes)
    _report_changed(exported, notes)
    metadata: dict[str, Any] = {"source": {"framework": f"torch {torch.__version__}",
                                           "module": f"{type(module).__module__}.{type(module).__qualname__}"}}
    store = store.needed_by(graph)
    held = [spec.target for spec in signature.input_specs if spec.kind is InputKind.BUFFER and spec.target in store
            and spec.target not in store.constants and store.spec(spec.target).dtype.is_float]
    if held:
        metadata["buffers"] = held
    check(graph, store)
    program = Program(module, exported, Model(graph, store, (), metadata, store.constants), tuple(input_names), output_names,
                      tuple(notes))
    return _Traced(program, example, domain, sizes, any(not isinstance(decision.answer, bool) for decision in decided.found))


def _sizes_in(example: Mapping[str, Any], nodes: list[torch.fx.Node | None], symbols: Mapping[str, str]) -> dict[str, int]:
    """The size that each of the graph's symbols has in an example."""
    leaves = zip(nodes, pytree.tree_leaves(dict(example)), strict=True)
    axes = ((size, leaf.shape[axis]) for node, leaf in leaves if node is not None and isinstance(leaf, torch.Tensor)
            for axis, size in enumerate(node.meta["val"].shape))
    return {symbols[str(size.node.expr)]: int(count) for size, count in axes
            if isinstance(size, torch.SymInt) and str(size.node.expr) in symbols}


def _traced_sizes(nodes: list[torch.fx.Node | None], symbols: Mapping[str, str]) -> dict[str, int]:
    """The size that each of the graph's symbols had in the trace."""
    sizes: dict[str, int] = {}
    for node in nodes:
        value = node.meta.get("val") if node is not None else None
        for size in value.shape if isinstance(value, torch.Tensor) else ():
            if isinstance(size, torch.SymInt) and str(size.node.expr) in symbols and size.node.hint is not None:
                sizes.setdefault(symbols[str(size.node.expr)], int(size.node.hint))
    return sizes


def _tried(domain: Domain, model: Model, module: torch.nn.Module, example: Mapping[str, Any], input_names: tuple[str | None, ...],
           output_names: tuple[str | None, ...], notes: list[str]) -> dict[str, DimRange]:
    """The domain's ranges, without each 1 at which the module was found to compute something else."""
    from adapters.torch.record import call_arguments

    ranges = dict(model.graph.dims)
    for name, place in domain.reasons.items():
        if name in domain.relations:
            other, more = domain.relations[name]
            notes.append(f"{name} is {other}{f' + {more}' if more else ''}: the module's code compares them ({place}), and was traced so")
        elif name in ranges:
            notes.append(f"{name} in {ranges[name]}: the module's code decides by that size ({place}), and was traced at one side")
    for name in sorted(domain.trials & ranges.keys()):
        if ranges[name].min != 1:
            continue
        if not agrees_at(model, {name: 1}, module, example, call_arguments, input_names, output_names):
            notes.append(f"{name} is 2 or more: at 1 the module computes something else")
            ranges[name] = replace(ranges[name], min=2)
    return ranges


def _agrees_elsewhere(domain: Domain, model: Model, module: torch.nn.Module, kept: Mapping[str, Any],
                      input_names: tuple[str | None, ...], output_names: tuple[str | None, ...]) -> None:
    """Refuses a trace that computes something else where the decisions fail that were left out of its ranges."""
    from adapters.torch.record import call_arguments

    own = retracing.sizes_of(kept, model.graph, input_names)
    for sizes in retracing.points(domain.doubtful, model.graph.dims, own):
        found = agrees_at(model, sizes, module, kept, call_arguments, input_names, output_names)
        if found is False or found is None and sizes == own:
            raise UnsupportedError("a trace at other sizes does not hold at the example's", where=type(module).__name__,
                                   received=str(sizes))


def _symbol_names(nodes: list[torch.fx.Node | None], names: list[str], dims: Any) -> dict[str, str]:
    """torch's symbols (`s72`) to names that a person reads: those given, else `batch` and `<input>_<axis>`."""
    symbols: dict[str, str] = {}
    hints: dict[tuple[int, str], str] = {}
    for node, name in zip(nodes, names, strict=True):
        value = node.meta.get("val") if node is not None else None
        if not isinstance(value, torch.Tensor):
            continue
        for axis, size in enumerate(value.shape):
            if not isinstance(size, torch.SymInt) or not size.node.expr.is_Symbol:
                continue
            key = str(size.node.expr)
            if isinstance(dims, Mapping) and _names_axes(dims):
                wanted = dims.get(name, ())[axis] if name in dims else None
                if isinstance(wanted, str):
                    symbols.setdefault(key, wanted)
                    continue
            if key in symbols:
                continue
            # Sizes that the module does not relate, but that stand on one axis of several inputs and are equal in
            # the example, are taken to be one size.
            hint = size.node.hint
            given = hints.get((axis, str(hint)))
            fresh = "batch" if axis == 0 and "batch" not in symbols.values() else f"{_identifier(name)}_{axis}"
            symbols[key] = given or fresh
            hints.setdefault((axis, str(hint)), symbols[key])
    return symbols


def _identifier(name: str) -> str:
    text = "".join(char if char.isalnum() and char.isascii() else "_" for char in name)
    return text if text and not text[0].isdigit() else f"_{text}"


def _outputs(builder: GraphBuilder, exported: ExportedProgram, results: list[Any]) -> tuple[str | None, ...]:
    """Declares the user's outputs under names from the result's structure."""
    specs = exported.graph_signature.output_specs
    user = [result for spec, result in zip(specs, results, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
    tree = pytree.tree_unflatten(list(range(len(user))), exported.call_spec.out_spec)
    names = [path or "output" for path in flat_names(tree)] if not isinstance(tree, int) else ["output"]
    taken: set[str] = set()
    declared: list[str | None] = []
    for name, result in zip(names, user, strict=True):
        if name.isdigit():
            name = f"output_{name}"
        if result is None or isinstance(result, str):
            declared.append(None)
            continue
        if not isinstance(result, Value):
            from converter.ir import DType

            dtype = DType.BOOL if isinstance(result, bool) else DType.FLOAT64 if isinstance(result, float) else DType.INT64
            result = builder.op("full", shape=(), fill_value=result, dtype=dtype)
        while name in taken:
            name += "_"
        taken.add(name)
        declared.append(name)
        builder.output(name, result)
    if not taken:
        raise UnsupportedError("the module gives no tensor", where=builder.name, expected="at least one tensor output")
    return tuple(declared)


def _report_changed(exported: ExportedProgram, notes: list[str]) -> None:
    """A graph has no state: what forward writes to its buffers is not part of it."""
    changed = [str(spec.target) for spec in exported.graph_signature.output_specs if spec.kind is OutputKind.BUFFER_MUTATION]
    if changed:
        notes.append(f"forward changes its buffers {', '.join(changed)}: each run of the model starts from their values at conversion")


def _report_fixed(graph: Graph, dims: Any, notes: list[str]) -> None:
    if dims == "static":
        return
    for port in graph.inputs:
        wanted = dims.get(port.name, ()) if isinstance(dims, Mapping) and _names_axes(dims) else [None] * port.spec.rank
        for axis, size in enumerate(port.spec.shape):
            asked = isinstance(dims, str) or axis < len(wanted) and isinstance(wanted[axis], str)
            if isinstance(size, int) and asked:
                notes.append(f"axis {axis} of {port.name!r} stays fixed at {size}: the module's code or its weights need "
                             "that size")


