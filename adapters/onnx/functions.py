"""The functions of an ONNX file: how many nodes they stand for, told before anything writes them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from converter.errors import FormatError

FunctionKey = tuple[str, str, str]
MOST, TIMES = 50_000, 20
"""Nodes that a graph may have once its functions are written out: so many, or so many times those in the file."""


def check_functions(proto: onnx.ModelProto) -> None:
    """Raises `FormatError` for functions that call themselves, or that would be written out to too many nodes."""
    bodies: dict[FunctionKey, onnx.FunctionProto] = {}
    for item in proto.functions:
        if bodies.setdefault(_key(item.domain, item.name, item), item) is not item:
            raise FormatError("a damaged ONNX file: two functions of one name", where=f"function {item.name!r}"[:100])
    counts: dict[FunctionKey, int] = {}
    most = max(MOST, TIMES * sum(1 for graph in (proto.graph, *proto.functions) for _ in nodes_of(graph)))

    def count(key: FunctionKey, above: tuple[FunctionKey, ...]) -> int:
        if key in above or len(above) > 200:
            raise FormatError("a damaged ONNX file: a function calls itself", where=f"function {key[1]!r}"[:100])
        if key not in counts:
            counts[key] = total(bodies[key].node, (*above, key))
        return counts[key]

    def total(nodes: Iterable[onnx.NodeProto], above: tuple[FunctionKey, ...]) -> int:
        found = 0
        for node in nodes:
            key = _key(node.domain, node.op_type, node)
            found += count(key, above) if key in bodies else 1
            for attribute in node.attribute:
                found += sum(total(inner.node, above) for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs))
            if found > most:
                raise FormatError("an ONNX file whose functions grow too large", expected=f"at most {most} nodes")
        return found

    total(proto.graph.node, ())


def _key(domain: str, name: str, item: onnx.NodeProto | onnx.FunctionProto) -> FunctionKey:
    return domain, name, getattr(item, "overload", "")  # from IR version 10 on


def nodes_of(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph and of the graphs within it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from nodes_of(inner)
