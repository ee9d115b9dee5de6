"""Nodes in an order in which they can run: some writers put a node before those that it reads, which ONNX Runtime takes."""

from __future__ import annotations

import heapq

import onnx

from adapters.onnx.load import text_of
from converter.errors import FormatError


def sort_nodes(proto: onnx.ModelProto) -> bool:
    """Sorts the nodes of every graph and function that are out of order, and leaves all others where they are; whether there were any.

    Raises `FormatError` for nodes that wait for each other.
    """
    found = [_sort(graph)[1] for graph in (proto.graph, *proto.functions)]
    return any(found)


def _sort(graph: onnx.GraphProto | onnx.FunctionProto) -> tuple[set[str], bool]:
    """What a graph reads of the graph around it, and whether nodes were moved, in it or in graphs within it."""
    given = _given(graph)
    makers = {name: place for place, node in reversed(list(enumerate(graph.node))) for name in node.output if name and name not in given}
    read: set[str] = set()
    waits: list[set[int]] = []
    moved = False
    for place, node in enumerate(graph.node):
        names = set(filter(None, node.input))
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                found, within = _sort(inner)
                names |= found
                moved |= within
        if any(makers.get(name) == place for name in names):
            raise _circle(node)
        read |= names
        waits.append({makers[name] for name in names if name in makers})
    if isinstance(graph, onnx.GraphProto):
        read |= {output.name for output in graph.output}
    if any(earlier > place for place, needed in enumerate(waits) for earlier in needed):
        order = _order(graph, waits)
        nodes = [graph.node[place] for place in order]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
        moved = True
    return read - makers.keys() - given, moved


def _order(graph: onnx.GraphProto | onnx.FunctionProto, waits: list[set[int]]) -> list[int]:
    """The places of nodes, each as early as what it reads and those that stood before it allow."""
    left = [len(needed) for needed in waits]
    readers: list[list[int]] = [[] for _ in waits]
    for place, needed in enumerate(waits):
        for earlier in needed:
            readers[earlier].append(place)
    ready = [place for place, count in enumerate(left) if not count]
    order = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for later in readers[place]:
            left[later] -= 1
            if not left[later]:
                heapq.heappush(ready, later)
    if len(order) < len(waits):
        raise _circle(graph.node[next(place for place, count in enumerate(left) if count)])
    return order


def _circle(node: onnx.NodeProto) -> FormatError:
    name = text_of(node.name) or next(map(text_of, node.output), "")
    return FormatError("a damaged ONNX file: nodes that wait for each other", where=f"node {text_of(node.op_type)} {name}"[:200],
                       expected="a graph without cycles", fix="make the file again")


def _given(graph: onnx.GraphProto | onnx.FunctionProto) -> set[str]:
    """The names of inputs and constants."""
    if isinstance(graph, onnx.FunctionProto):
        return set(graph.input)
    return {item.name for item in (*graph.input, *graph.initializer)} | {item.values.name for item in graph.sparse_initializer}
