"""A traced program as a neutral graph: its inputs and outputs with names, its sizes with ranges, and what a person should know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

import adapters.torch.sizes.decisions as decisions
from adapters.torch.dtypes import from_torch_dtype, to_dim
from adapters.torch.parameters import TorchParameters
from adapters.torch.sizes.decisions import Decisions
from adapters.torch.sizes.domains import Domain, conditions_of, domain_of, narrowed_by
from adapters.torch.sizes.guards import guards_of
from adapters.torch.sizes.ranges import ends_of, equations, held_equal, opened, possible_ranges, traced_ranges, with_empty
from adapters.torch.tracing.effort import current
from adapters.torch.tracing.exporting import names_axes
from adapters.torch.tracing.importer import Importer
from adapters.torch.tracing.inputs import flat_names, identifier
from adapters.torch.tracing.refusals import axes_of_refused
from adapters.torch.tracing.specializing import Axis, Place
from adapters.torch.tracing.trials import Trials, agrees_at, require_agreement, tried
from adapters.torch.tracing.unions import Axes, axes_of, over
from converter.builder import GraphBuilder, Value
from converter.checking import bound_sizes, check
from converter.conditions import ordered
from converter.dims import symbol, taken_as_equal
from converter.errors import UnsupportedError
from converter.ir import DType, Graph, Model, TensorSpec
from converter.passes.rewriting import simplify
from converter.ports import Concern

PAST = "past_key_values."
"""What the names of a cache's tensors begin with."""


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


@dataclass(frozen=True)
class Traced:
    """A program, the example it was traced at, what its module decided there, and where it gave sizes up."""

    program: Program
    example: dict[str, Any]
    domain: Domain
    sizes: Mapping[str, int]
    axes: Axes
    took_integers: bool
    places: Mapping[Axis, Place] = field(default_factory=dict)
    decided: Decisions = field(default_factory=Decisions)


Roll = Callable[[GraphBuilder], tuple[Graph, dict[str, TensorSpec]]]


def imported(module: torch.nn.Module, exported: ExportedProgram, example: dict[str, Any], given: dict[str, Any], dims: Any, name: str,
            notes: list[str], decided: Decisions, kept: Traced | None = None, roll: Roll | None = None) -> Traced:
    """The neutral graph of a program.

    Args:
        example: what it was traced at; `given` is what the user gave.
        notes: gains what a person should know.
        decided: what the module decided while it was traced.
        kept: a trace at other sizes, which this one is to stand for as well.
        roll: gives the graph and the specs of its values in place of the builder.

    Raises `UnsupportedError` for operators that cannot be converted, and where it does not compute what `kept` does.
    """
    signature = exported.graph_signature
    placeholders = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    user_nodes = [placeholders[spec.arg.name] if hasattr(spec.arg, "name") and spec.arg.name in placeholders else None
                  for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
    names = flat_names(example)
    decisions.add_bounds(exported.graph, decided)
    certain, unsure = guards_of(exported)
    decided = Decisions([*decided.found, *certain])
    named = _symbol_names(user_nodes, names, dims)
    sizes = _traced_sizes(user_nodes, named)
    axes = axes_of(user_nodes, named)
    traced = traced_ranges(exported, named)
    spans = opened(traced, named) if dims == "auto" or isinstance(dims, Mapping) and names_axes(dims) else traced
    domain = domain_of(decided, named, sizes, spans) if kept is None else domain_of(
        decided, named, sizes, spans, _sizes_in(kept.example, user_nodes, named), over(axes, kept.axes, kept.domain.conditions))
    symbols = {key: symbol(domain.relations[own][0]) + domain.relations[own][1] if own in domain.relations else own
               for key, own in named.items()}
    builder = GraphBuilder(name, domain.ranges)
    builder.requires += domain.requires
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
        if spec.kind is InputKind.CUSTOM_OBJ:  # a generator: what takes it is random, and refused
            environment[placeholders[spec.arg.name]] = None
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            parameter = store.spec(spec.target)
            node = placeholders[spec.arg.name]
            environment[node] = builder.parameter(spec.target, parameter.dtype, parameter.shape)
    importer = Importer(builder, symbols)
    with taken_as_equal() as equal:
        try:
            results = importer.walk(exported.graph, environment)
        except UnsupportedError as error:
            error.axes = axes_of_refused(importer.refused, dict(zip(names, user_nodes, strict=True)))
            raise
    output_names = _outputs(builder, exported, results, {name for name in input_names if name is not None})
    store = store.with_constants(importer.constants)
    whole, every = (builder.graph(), builder.specs) if roll is None else roll(builder)
    graph, specs = simplify(whole, every, store, store.constants)
    bound = bound_sizes(graph)
    graph = replace(graph, dims={size: span for size, span in graph.dims.items() if size in bound})

    def agrees(name: str, size: int) -> bool:
        free = Model(graph, store, (), {}, store.constants)
        return current().left() > 0 and agrees_at(free, {name: size}, module, example, tuple(input_names), output_names) is True

    graph = replace(graph, dims=possible_ranges(graph, specs, {*named.values(), *(whole.dims.keys() - builder.dims.keys())}, notes, agrees))
    graph = replace(graph, dims=held_equal(graph.dims, equal, sizes, notes))
    graph = replace(graph, requires=ordered([*graph.requires, *equations(graph.dims, equal, sizes)]))
    added = set(graph.requires) - set(domain.requires)
    model = Model(graph, store, (), {}, store.constants)
    unsure_ones = [*conditions_of(Decisions(unsure), named, sizes), *ends_of(traced, graph.dims)]
    trials = Trials(model, module, given, tuple(input_names), output_names)
    if not trials.agree({}):  # the example was brought to other sizes before it was traced, most often for the better
        trials = Trials(model, module, example, tuple(input_names), output_names)
    mattering = [*trials.that_matter(unsure_ones), *trials.tied(_equal_in_the_example(axes, sizes))]
    domain = narrowed_by(domain, mattering, sizes, graph.dims)
    notes += [f"requires {condition}: an operator needs them to be equal" for condition in ordered(added - domain.requires.keys())]
    graph = replace(graph, dims=dict(domain.ranges), requires=ordered({*domain.requires, *added}))
    model = Model(graph, store, (), {}, store.constants)
    graph = replace(graph, dims=tried(domain, model, module, example, tuple(input_names), output_names, notes))
    if kept is not None:
        require_agreement(domain, Model(graph, store, (), {}, store.constants), module, kept.example, tuple(input_names),
                          output_names)
    graph = replace(graph, dims=with_empty(graph, given, flat_names(example)))
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
    took_integers = any(not isinstance(decision.answer, bool) for decision in decided.found)
    return Traced(program, example, domain, sizes, axes, took_integers, decided=decided)


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


def _equal_in_the_example(axes: Axes, sizes: Mapping[str, int]) -> list[list[str]]:
    """Sizes that the module does not relate, but which stand on one axis of several inputs and are equal in the example."""
    groups: dict[tuple[int, int], dict[str, None]] = {}
    for shape in axes:
        for axis, size in enumerate(shape):
            if size.is_Symbol and str(size) in sizes:
                groups.setdefault((axis, sizes[str(size)]), {})[str(size)] = None
    return [list(group) for group in groups.values() if len(group) > 1]


def _symbol_names(nodes: list[torch.fx.Node | None], names: list[str], dims: Any) -> dict[str, str]:
    """torch's symbols (`s72`) to names that a person reads: those given, else `batch` and `<input>_<axis>`."""
    symbols: dict[str, str] = {}
    for node, name in zip(nodes, names, strict=True):
        value = node.meta.get("val") if node is not None else None
        if not isinstance(value, torch.Tensor):
            continue
        for axis, size in enumerate(value.shape):
            if not isinstance(size, torch.SymInt) or not size.node.expr.is_Symbol:
                continue
            key = str(size.node.expr)
            if isinstance(dims, Mapping) and names_axes(dims):
                wanted = dims.get(name, ())[axis] if name in dims else None
                if isinstance(wanted, str):
                    symbols.setdefault(key, str(wanted))
                    continue
            if key in symbols:
                continue
            symbols[key] = "batch" if axis == 0 and "batch" not in symbols.values() else f"{identifier(name)}_{axis}"
    return symbols


def _outputs(builder: GraphBuilder, exported: ExportedProgram, results: list[Any], inputs: set[str]) -> tuple[str | None, ...]:
    """Declares the user's outputs under names from the result's structure, other ones than the inputs have."""
    specs = exported.graph_signature.output_specs
    user = [result for spec, result in zip(specs, results, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
    # A packed sequence takes nothing but tensors.
    tree = pytree.tree_unflatten([torch.empty(0)] * len(user), exported.call_spec.out_spec)
    names = [path or "output" for path in flat_names(tree)] if not isinstance(tree, torch.Tensor) else ["output"]
    taken: set[str] = set()
    declared: list[str | None] = []
    for name, result in zip(names, user, strict=True):
        if name.isdigit():
            name = f"output_{name}"
        if result is None or isinstance(result, str):
            declared.append(None)
            continue
        if not isinstance(result, Value):
            dtype = DType.BOOL if isinstance(result, bool) else DType.FLOAT64 if isinstance(result, float) else DType.INT64
            result = builder.op("full", shape=(), fill_value=result, dtype=dtype)
        if name in inputs:  # an updated cache, under the name that its users know
            name = f"present.{name.removeprefix(PAST)}" if name.startswith(PAST) else f"{name}_out"
        while name in taken | inputs:
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
    if changed and not any(note.startswith("forward keeps state") for note in notes):
        notes.append(Concern(f"forward keeps state in {', '.join(changed)}: a graph has none, so each run of the model starts from their "
                             "values at conversion"))
