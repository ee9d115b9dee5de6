"""Operators in terms of simpler ones: a graph in which what a target lacks is put together of what it has.

    decompose(graph, parameters, lambda node, specs: node.op not in lowerings())

`to_core` leaves operators without a formula only: the core, which every target and every reader has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from converter.attributes import attribute_symbols, graphs_in
from converter.builder import live_nodes
from converter.checking import check
from converter.ir import Graph, GraphOutput, Model, Node
from converter.opset import lookup
from converter.parameters import ParameterStore
from converter.passes.complex_numbers import without_complex
from converter.passes.nodes import Lacks, Nodes, expand, settle


def decompose(graph: Graph, parameters: ParameterStore | None, lacks: Lacks, outer: Iterable[str] = ()) -> Graph:
    """The graph with every node that is lacked, and has a formula, in terms of simpler ones; those of sub-graphs too.

    Args:
        parameters: the graph's own.
        lacks: whether a node is to be replaced, of it and of the specs that there are by name.
        outer: for a sub-graph, the symbols that its surroundings bind.
    """
    if not any(lookup(node.op).formula is not None or graphs_in(node) for node in graph.nodes):
        return graph
    specs = dict(check(graph, parameters, outer=outer))
    taken, nodes, same = {*specs, *(output.name for output in graph.outputs)}, list[Node](), dict[str, str]()
    for node in graph.nodes:
        inputs = tuple(same.get(item, item) if isinstance(item, str) else item for item in node.inputs)
        node = replace(node, inputs=inputs, attributes={name: _within(value, lacks) for name, value in node.attributes.items()})
        space = Nodes(specs, graph.dims, lacks, taken, f"{next(filter(None, node.outputs), node.op)}/", node.source)
        results = expand(space, node) if lacks(node, specs) else None
        if results is None:
            nodes.append(node)
            continue
        made, _, called = settle(space, node.outputs, [result.name for result in results])
        nodes += made
        same.update(called)
    if not same and nodes == list(graph.nodes):
        return graph
    outputs = tuple(GraphOutput(out.name, out.spec, same.get(out.value, out.value)) for out in graph.outputs)
    return replace(graph, nodes=live_nodes(nodes, graph.inputs, outputs), outputs=outputs)


def _within(value: Any, lacks: Lacks) -> Any:
    """An attribute whose graphs are decomposed."""
    if isinstance(value, tuple):
        return tuple(_within(item, lacks) for item in value)
    return decompose(value, None, lacks, attribute_symbols(value)) if isinstance(value, Graph) else value


def is_core(operator: str) -> bool:
    """Whether some nodes of an operator stay as they are."""
    return lookup(operator).is_core


def to_core(model: Model) -> Model:
    """The model in operators of the core alone, but for those whose formulas do not cover what their nodes ask for.

    Its arithmetic is one of real numbers. Complex inputs, outputs and parameters stay, read by `view_as_real` and given by
    `view_as_complex`: the bytes are the same.

    Its metadata says of which model it was made; one that has the core's operators only is given as it is.
    """
    from converter.format import model_digest

    graph = without_complex(model.graph, model.parameters)
    graph = decompose(graph, model.parameters, lambda node, _: lookup(node.op).formula is not None)
    if graph.nodes == model.graph.nodes:
        return model
    return replace(model, graph=graph, metadata={**model.metadata, "core": {"from": model_digest(model)}})
