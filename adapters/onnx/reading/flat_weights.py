"""Weights of group norms, which exporters keep with an axis for each of the input's, as the vectors that the layers have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx

from adapters.onnx.readers.linear import weight_name
from adapters.onnx.reading.reader import Reader
from converter.ir import Graph, Node


def flatten_weights(reader: Reader, proto: onnx.GraphProto, graph: Graph) -> Graph:
    """The graph with a parameter in the place of each that is only reshaped for a `group_norm`, called after its module."""
    uses = graph.uses
    reshapes: dict[Any, Node] = {node.outputs[0]: node for node in graph.nodes if node.op == "reshape" and node.inputs[0] in graph.uses
                and node.inputs[0] in reader.store}
    sources: dict[str | None, onnx.NodeProto] = {}
    for item in proto.node if reshapes else ():
        reader.node = item
        sources.setdefault(reader.source, item)
    names: dict[Any, str] = {}
    for node in graph.nodes:
        if node.op != "group_norm":
            continue
        for value, kind in zip(node.inputs[1:], ("weight", "bias"), strict=False):
            made = reshapes.get(value) if isinstance(value, str) and value not in names and uses[value] == 1 else None
            if made is not None:
                reader.node, tensor = sources.get(node.source, onnx.NodeProto()), str(made.inputs[0])
                names[value] = reader.store.reshape(tensor, made.attributes["shape"], weight_name(reader, kind), alone=uses[tensor] == 1)
    nodes = tuple(Node(node.op, tuple(names.get(item, item) for item in node.inputs), node.outputs, node.attributes, node.source)
                  for node in graph.nodes if not (node.op == "reshape" and node.outputs[0] in names))
    return replace(graph, nodes=nodes) if names else graph
