"""The graphs inside an exported graph: bodies of loops and branches, as sub-graphs of the neutral one.

A body's symbols are those of the graph around it, so only tensors are passed. Tensors that a body's code makes are the
model's constants, and every body of the operator takes them after its own operands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from adapters.torch.dtypes import from_torch_dtype, to_dim
from adapters.torch.sizes.size_numbers import SizeNumber, emit
from adapters.torch.tracing.importer import Importer, attribute
from converter.builder import GraphBuilder, Value
from converter.errors import UnsupportedError
from converter.ir import DType, Graph
from converter.passes.rewriting import simplify
from converter.ports.refusals import Refusals


def bodies(g: Importer, modules: Sequence[GraphModule], operands: Sequence[Any]) -> tuple[list[Graph], list[Value]]:
    """The bodies of one operator as graphs, and the tensors that its node passes to each of them."""
    tensors: dict[int, torch.Tensor] = {id(tensor): tensor for module in modules for tensor in _tensors(module)}
    captured = {key: g.constant(tensor) for key, tensor in tensors.items()}
    graphs: list[Graph] = []
    refusals = Refusals()
    for module in modules:
        try:
            graphs.append(_body(g, module, operands, captured))
        except UnsupportedError as error:
            refusals.add(error, g.operator)
    if refusals:
        raise refusals.error(lambda count: "a body cannot be converted")
    return graphs, [*(item for item in operands if isinstance(item, Value)), *captured.values()]


def _tensors(module: GraphModule) -> Iterator[torch.Tensor]:
    """The tensors that a body and those within it hold."""
    for node in module.graph.nodes:
        if node.op == "get_attr":
            found = attribute(module, str(node.target))
            if isinstance(found, GraphModule):
                yield from _tensors(found)
            elif isinstance(found, torch.Tensor):
                yield found


def _body(g: Importer, module: GraphModule, operands: Sequence[Any], captured: dict[int, Value]) -> Graph:
    builder = GraphBuilder(g.builder.unique("body"))
    inner = Importer(builder, g.symbols)
    environment: dict[torch.fx.Node, Any] = {}
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, operand in zip(nodes, operands, strict=True):
        if isinstance(operand, Value):
            value = node.meta["val"]
            shape = [to_dim(size, g.symbols) for size in value.shape]
            environment[node] = builder.input(builder.unique(node.name), from_torch_dtype(value.dtype), shape)
        else:
            environment[node] = operand
    for key, value in captured.items():
        inner.attached[key] = builder.input(builder.unique(f"constant_{len(inner.attached)}"), value.dtype, value.shape)
    results = inner.walk(module.graph, environment)
    for position, result in enumerate(results):
        if result is None:
            raise g.refuse("a body that gives None")
        if not isinstance(result, Value):
            dtype = DType.BOOL if isinstance(result, bool) else DType.FLOAT32 if isinstance(result, float) else DType.INT64
            result = builder.op("full", shape=(), fill_value=result, dtype=dtype)
        builder.output(f"output_{position}", result)
    graph, _ = simplify(builder.graph(), builder.specs, g.no_parameters)
    return graph


def inline(g: Importer, module: GraphModule, operands: Sequence[Any]) -> list[Any]:
    """What a body gives, its nodes emitted where the current node stands."""
    inner = Importer(g.builder, g.symbols)
    inner.attached = {id(tensor): g.constant(tensor) for tensor in _tensors(module)}
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    return inner.walk(module.graph, dict(zip(nodes, operands, strict=True)))


def flag(g: Importer, value: bool | SizeNumber) -> Value:
    """A condition on sizes as bool[]."""
    return g.op("full", shape=(), fill_value=value, dtype=DType.BOOL) if isinstance(value, bool) else g.cast(emit(g, value), DType.BOOL)
