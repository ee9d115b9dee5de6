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
from adapters.torch.tracing.exporting import names_axes
from adapters.torch.tracing.importer import Importer
from adapters.torch.tracing.inputs import flat_names, identifier
from adapters.torch.tracing.refusals import axes_of_refused
from adapters.torch.tracing.specializing import Axis, Place
from adapters.torch.tracing.trials import Trials, agrees_at, require_agreement, try_ones
from adapters.torch.tracing.unions import Axes, axes_of, over
from converter.builder import GraphBuilder, Value
from converter.checking import bound_sizes, check
from converter.conditions import strongest
from converter.dims import Dim, symbol
from converter.equal_sizes import taken_as_equal
from converter.errors import UnsupportedError
from converter.ir import DimRange, DType, Graph, Model, Node, TensorSpec
from converter.passes.rewriting import simplify
from converter.ports import Concern

PAST = "past_key_values."
"""What the names of a cache's tensors begin with."""


@dataclass(frozen=True)
class Program:
    """A traced module with its neutral graph: the two things that a proof of equivalence compares.

    `input_names` are the graph inputs in the order of the flattened call; None marks an argument that is no tensor.
    `notes` says in words what a person should know: dims that stayed fixed and why, modules switched to evaluation.
    `unrolled` is the example of a trace whose loops were rolled up: `exported` holds at its length alone, the module at others.
    """

    module: torch.nn.Module
    exported: ExportedProgram
    model: Model
    input_names: tuple[str | None, ...]
    output_names: tuple[str | None, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)
    unrolled: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Traced:
    """A program, the example it was traced at, what its module decided there, where it gave sizes up, and the nodes as they were made."""

    program: Program
    example: dict[str, Any]
    domain: Domain
    sizes: Mapping[str, int]
    axes: Axes
    took_integers: bool
    places: Mapping[Axis, Place] = field(default_factory=dict)
    decided: Decisions = field(default_factory=Decisions)
    made: tuple[Node, ...] = ()


Roll = Callable[[GraphBuilder], tuple[Graph, dict[str, TensorSpec]]]


def import_program(module: torch.nn.Module, exported: ExportedProgram, example: dict[str, Any], given: dict[str, Any], dims: Any, name: str,
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
    sizes = _read_sizes(exported, example, dims, decided)
    domain = _domain(sizes, dims, kept)
    emitted = _emit(module, exported, sizes, domain, name, example)
    emitted = _simplify(emitted, sizes, roll, notes)
    domain, emitted = _settle(emitted, sizes, domain, given, kept, notes)
    _report_changed(exported, notes)
    program = Program(module, exported, emitted.with_metadata(), emitted.inputs, emitted.outputs, tuple(notes))
    took_integers = any(not isinstance(decision.answer, bool) for decision in sizes.decided.found)
    return Traced(program, example, domain, sizes.at, sizes.axes, took_integers, decided=sizes.decided, made=emitted.builder.made)


@dataclass(frozen=True)
class _Sizes:
    """What a trace says of sizes: the inputs' nodes and names, torch's symbols by their names here, their sizes in the trace, the axes
    that they stand on, the ranges that torch found, and what the module decided, for sure and perhaps."""

    nodes: list[torch.fx.Node | None]
    names: list[str]
    named: dict[str, str]
    at: dict[str, int]
    axes: Axes
    ranges: dict[str, DimRange]
    decided: Decisions
    unsure: Decisions


def _read_sizes(exported: ExportedProgram, example: dict[str, Any], dims: Any, decided: Decisions) -> _Sizes:
    placeholders = _placeholders(exported)
    nodes = [placeholders.get(getattr(spec.arg, "name", "")) for spec in exported.graph_signature.input_specs
             if spec.kind is InputKind.USER_INPUT]
    names = flat_names(example)
    decisions.add_bounds(exported.graph, decided)
    certain, unsure = guards_of(exported)
    named = _symbol_names(nodes, names, dims)
    return _Sizes(nodes, names, named, _traced_sizes(nodes, named), axes_of(nodes, named), traced_ranges(exported, named),
                  Decisions([*decided.found, *certain]), Decisions(unsure))


def _placeholders(exported: ExportedProgram) -> dict[str, torch.fx.Node]:
    return {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}


def _domain(sizes: _Sizes, dims: Any, kept: Traced | None) -> Domain:
    """The sizes for which the module decides as it did in the trace, and in `kept`."""
    free = dims == "auto" or isinstance(dims, Mapping) and names_axes(dims)
    spans = opened(sizes.ranges, sizes.named) if free else sizes.ranges
    if kept is None:
        return domain_of(sizes.decided, sizes.named, sizes.at, spans)
    return domain_of(sizes.decided, sizes.named, sizes.at, spans, _sizes_in(kept.example, sizes.nodes, sizes.named),
                     over(sizes.axes, kept.axes, kept.domain.conditions))


@dataclass(frozen=True)
class _Emitted:
    """A graph on its way: with the module, what it was traced at, its inputs and outputs by name, and its parameters.

    `equal` are the pairs of sizes that operators took to be equal.
    """

    module: torch.nn.Module
    exported: ExportedProgram
    example: dict[str, Any]
    builder: GraphBuilder
    graph: Graph
    store: TorchParameters
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    equal: Mapping[tuple[Dim, Dim], bool]

    @property
    def model(self) -> Model:
        return Model(self.graph, self.store, (), {}, self.store.constants)

    def changed(self, **fields: Any) -> _Emitted:
        """With other fields of the graph."""
        return replace(self, graph=replace(self.graph, **fields))

    def with_metadata(self) -> Model:
        """The model, with where it came from."""
        metadata: dict[str, Any] = {"source": {"framework": f"torch {torch.__version__}",
                                               "module": f"{type(self.module).__module__}.{type(self.module).__qualname__}"}}
        store = self.store.needed_by(self.graph)
        held = [spec.target for spec in self.exported.graph_signature.input_specs if spec.kind is InputKind.BUFFER
                and spec.target in store and spec.target not in store.constants and store.spec(spec.target).dtype.is_float]
        if held:
            metadata["buffers"] = held
        check(self.graph, store)
        return Model(self.graph, store, (), metadata, store.constants)


def _emit(module: torch.nn.Module, exported: ExportedProgram, sizes: _Sizes, domain: Domain, name: str,
          example: dict[str, Any]) -> _Emitted:
    """Every node. Raises `UnsupportedError` that lists what cannot be converted, with the axes that it depends on."""
    symbols = {key: symbol(domain.relations[own][0]) + domain.relations[own][1] if own in domain.relations else own
               for key, own in sizes.named.items()}
    builder = GraphBuilder(name, domain.ranges)
    builder.requires += domain.requires
    environment: dict[torch.fx.Node, Any] = {}
    inputs: list[str | None] = []
    for node, input_name in zip(sizes.nodes, sizes.names, strict=True):
        value = node.meta.get("val") if node is not None else None
        if node is not None and isinstance(value, torch.Tensor):
            environment[node] = builder.input(builder.unique(input_name), from_torch_dtype(value.dtype),
                                              [to_dim(size, symbols) for size in value.shape])
            inputs.append(environment[node].name)
        else:
            if node is not None:
                environment[node] = value
            inputs.append(None)
    store, placeholders = TorchParameters.of(module, exported), _placeholders(exported)
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.CUSTOM_OBJ:  # a generator: what takes it is random, and refused
            environment[placeholders[spec.arg.name]] = None
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            parameter = store.spec(spec.target)
            environment[placeholders[spec.arg.name]] = builder.parameter(spec.target, parameter.dtype, parameter.shape)
    importer = Importer(builder, symbols)
    with taken_as_equal() as equal:
        try:
            results = importer.walk(exported.graph, environment)
        except UnsupportedError as error:
            error.axes = axes_of_refused(importer.refused, dict(zip(sizes.names, sizes.nodes, strict=True)))
            raise
    outputs = _outputs(builder, exported, results, {name for name in inputs if name is not None})
    store = store.with_constants(importer.constants)
    return _Emitted(module, exported, example, builder, builder.graph(), store, tuple(inputs), outputs, equal)


def _simplify(emitted: _Emitted, sizes: _Sizes, roll: Roll | None, notes: list[str]) -> _Emitted:
    """The graph, rolled where there is a roll, in fewer nodes, with the ranges at which its values have sizes."""
    builder, store = emitted.builder, emitted.store
    whole, every = (emitted.graph, builder.specs) if roll is None else roll(builder)
    graph, specs = simplify(whole, every, store, store.constants)
    bound = bound_sizes(graph)
    free = replace(emitted, graph=replace(graph, dims={size: span for size, span in graph.dims.items() if size in bound}))

    def agrees(name: str, size: int) -> bool:
        return agrees_at(free.model, {name: size}, free.module, free.example, free.inputs, free.outputs) is True

    dims = possible_ranges(free.graph, specs, {*sizes.named.values(), *(whole.dims.keys() - builder.dims.keys())}, notes, agrees)
    dims = held_equal(dims, emitted.equal, sizes.at, notes)
    return free.changed(dims=dims, requires=strongest([*graph.requires, *equations(dims, emitted.equal, sizes.at)]))


def _settle(emitted: _Emitted, sizes: _Sizes, domain: Domain, given: dict[str, Any], kept: Traced | None,
            notes: list[str]) -> tuple[Domain, _Emitted]:
    """The sizes at which the graph computes what the module does, found by running both."""
    module, example, inputs, outputs = emitted.module, emitted.example, emitted.inputs, emitted.outputs
    added = set(emitted.graph.requires) - set(domain.requires)
    unsure = [*conditions_of(sizes.unsure, sizes.named, sizes.at), *ends_of(sizes.ranges, emitted.graph.dims)]
    alike = _equal_in_the_example(sizes.axes, sizes.at)
    trials = Trials(emitted.model, module, given, inputs, outputs)
    if (unsure or alike) and not trials.agree({}):  # the example was brought to other sizes for the trace, most often for the better
        trials = Trials(emitted.model, module, example, inputs, outputs)
    mattering = [*trials.that_matter(unsure), *trials.tied(alike)]
    domain = narrowed_by(domain, mattering, sizes.at, emitted.graph.dims)
    requires = strongest({*domain.requires, *added})
    notes += [f"requires {condition}: an operator {'needs them to be equal' if condition.relation == '==' else 'takes no others'}"
              for condition in requires if condition not in domain.requires]
    domain = replace(domain, requires={item: place for item, place in domain.requires.items() if item in requires})
    emitted = emitted.changed(dims=dict(domain.ranges), requires=requires)
    emitted = emitted.changed(dims=try_ones(domain, emitted.model, module, example, inputs, outputs, notes))
    if kept is not None:
        require_agreement(domain, emitted.model, module, kept.example, inputs, outputs)
    return domain, emitted.changed(dims=with_empty(emitted.graph, given, sizes.names))


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
