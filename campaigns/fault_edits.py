"""Edits of a model, from which faults are made: a parameter, a node, a value that goes through other nodes, a size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converter.attributes import filled_attributes
from converter.checking import check, infer_node
from converter.dims import Expr, substitute, symbols
from converter.ir import Graph, GraphInput, GraphOutput, Model, Node, TensorSpec
from converter.opset import lookup
from converter.parameters import InMemoryParameters

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Subject:
    """What faults are put into: a model, the sizes it was traced at, and the spec of every value."""

    model: Model
    sizes: Mapping[str, int]
    specs: Mapping[str, TensorSpec]


def rebuilt(model: Model, nodes: Sequence[Node], outputs: Sequence[GraphOutput] | None = None, arrays: Mapping[str, Array] | None = None,
            inputs: Sequence[GraphInput] | None = None) -> Model:
    """The model with other nodes, its outputs declared as what these compute. Raises `GraphError` where they do not fit."""
    parameters = model.parameters
    if arrays:
        parameters = InMemoryParameters({**{name: parameters.read(name) for name in parameters.names()}, **arrays},
                                        {name: alias for name in parameters.names() if (alias := parameters.alias_of(name))})
    graph = replace(model.graph, nodes=tuple(nodes), inputs=tuple(inputs or model.graph.inputs))
    specs = {name: parameters.spec(name) for name in parameters.names()} | {port.name: port.spec for port in graph.inputs}
    for node in nodes:
        specs |= {name: spec for name, spec in zip(node.outputs, infer_node(node, specs), strict=False) if name}
    graph = replace(graph, outputs=tuple(replace(port, spec=specs[port.value]) for port in outputs or graph.outputs))
    check(graph, parameters)
    return replace(model, graph=graph, parameters=parameters)


def with_array(model: Model, name: str, change: Callable[[Array], Array]) -> Model:
    """The model with one parameter changed; those that share its memory change with it."""
    store = model.parameters
    source = store.alias_of(name) or name
    array = change(np.array(store.read(source)))
    arrays = {other: np.array(store.read(other)) for other in store.names() if store.alias_of(other) is None}
    arrays[source] = np.ascontiguousarray(array).astype(store.spec(name).dtype.numpy, copy=False)
    aliases = {other: alias for other in store.names() if (alias := store.alias_of(other))}
    return model.with_parameters(InMemoryParameters(arrays, aliases))


def edited(model: Model, index: int, **changes: Any) -> Model:
    """The model with one node changed."""
    nodes = list(model.graph.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return rebuilt(model, nodes)


def attributed(model: Model, index: int, **attributes: Any) -> Model:
    """The model with some attributes of one node changed."""
    return edited(model, index, attributes={**model.graph.nodes[index].attributes, **attributes})


def passed_through(model: Model, value: str, steps: Callable[[str, str], Sequence[Node]]) -> Model:
    """The model in which a value goes through further nodes, made for (its name, that of the result), before it is used."""
    fresh = f"{value}.faulty"
    place = next((index + 1 for index, node in enumerate(model.graph.nodes) if value in node.outputs), 0)
    nodes = [*model.graph.nodes[:place], *steps(value, fresh)]
    nodes += [replace(node, inputs=tuple(fresh if operand == value else operand for operand in node.inputs))
              for node in model.graph.nodes[place:]]
    outputs = [replace(port, value=fresh) if port.value == value else port for port in model.graph.outputs]
    return rebuilt(model, nodes, outputs)


def nodes_of(subject: Subject, *names: str) -> Iterator[tuple[int, Node]]:
    """Nodes of these operators, or all."""
    for index, node in enumerate(subject.model.graph.nodes):
        if not names or node.op in names:
            yield index, node


def attributes_of(node: Node) -> dict[str, Any]:
    return filled_attributes(lookup(node.op), node.attributes)


def at(index: int, node: Node) -> str:
    return f"node {index} {node.op}"


def values_of(subject: Subject) -> list[str]:
    """What nodes make, and the graph's inputs: the outputs first, then the others."""
    outputs = [port.value for port in subject.model.graph.outputs]
    made = [name for node in subject.model.graph.nodes for name in node.outputs if name]
    return list(dict.fromkeys([name for name in outputs if name not in subject.model.parameters] + made
                              + [port.name for port in subject.model.graph.inputs]))


def with_operand(model: Model, index: int, place: int, operand: Any) -> Model:
    """The model with one operand of one node replaced."""
    inputs = list(model.graph.nodes[index].inputs)
    inputs[place] = operand
    return edited(model, index, inputs=tuple(inputs))


def fixed(value: Any, sizes: Mapping[str, int]) -> Any:
    """A size, or sizes within tuples, with symbols replaced."""
    if isinstance(value, Expr):
        return substitute(value, {name: size for name, size in sizes.items() if name in symbols(value)})
    return tuple(fixed(item, sizes) for item in value) if isinstance(value, tuple) else value


def without_symbol(model: Model, sizes: Mapping[str, int]) -> Model:
    """The model with symbols replaced by numbers everywhere."""
    inputs = [replace(port, spec=replace(port.spec, shape=fixed(port.spec.shape, sizes))) for port in model.graph.inputs]
    nodes = [replace(node, attributes={name: value if isinstance(value, Graph) else fixed(value, sizes)
                                       for name, value in node.attributes.items()}) for node in model.graph.nodes]
    dims = {name: span for name, span in model.graph.dims.items() if name not in sizes}
    return rebuilt(replace(model, graph=replace(model.graph, dims=dims)), nodes, inputs=inputs)


def passed_through_output(model: Model, port: GraphOutput, steps: Callable[[str, str], Sequence[Node]]) -> Model:
    """The model in which one output alone goes through further nodes."""
    fresh = f"{port.value}.faulty"
    outputs = [replace(other, value=fresh) if other is port else other for other in model.graph.outputs]
    return rebuilt(model, [*model.graph.nodes, *steps(port.value, fresh)], outputs)


def same_model(first: Model, second: Model) -> bool:
    """Whether nothing was changed after all: a bias that is zero, a weight that is symmetric."""
    if first.graph != second.graph or first.parameters.names() != second.parameters.names():
        return False
    return all(first.parameters.sha256(name) == second.parameters.sha256(name) for name in first.parameters.names())
