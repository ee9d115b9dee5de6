"""Which nodes of one graph another has too, whatever its values, sizes and parameters are called."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converter.dims import Dim, substitute, symbol, symbols
from converter.format.document import graph_to_document
from converter.ir import Graph, Node
from converter.opset import lookup

MOST = 20_000
"""Nodes of two graphs together that are aligned."""


def graph_changes(a: Graph, b: Graph, same: Mapping[str, str]) -> dict[str, Any]:
    """Nodes added, removed and changed, in order, by operator and by what their file calls them.

    Args:
        same: parameters of a by the name that b has for them.

    A node is the same where its operator, its attributes and what its operands are agree: which input, which parameter, or a result of
    which operator. Where one stands in another's place with the same operator, it is changed.
    """
    ours, theirs = _signatures(a, {}), _signatures(b, {other: name for name, other in same.items()})
    if len(ours) + len(theirs) > MOST:
        return {"a": len(ours), "b": len(theirs), "removed": [], "added": [], "changed": [], "aligned": False}
    removed: list[str] = []
    added: list[str] = []
    changed: list[str] = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        before, after = list(a.nodes[i:j]), list(b.nodes[k:m])
        for node in list(before):
            twin = next((other for other in after if other.op == node.op), None)
            if twin is not None:
                before.remove(node)
                after.remove(twin)
                changed.append(_called(node))
        removed += map(_called, before)
        added += map(_called, after)
    return {"a": len(ours), "b": len(theirs), "removed": removed, "added": added, "changed": changed, "aligned": True}


def paired_values(a: Graph, b: Graph, same: Mapping[str, str]) -> dict[str, str]:
    """Values of a by the names that b has for them, of nodes that are the same (see `graph_changes`)."""
    ours, theirs = _signatures(a, {}), _signatures(b, {other: name for name, other in same.items()})
    if len(ours) + len(theirs) > MOST:
        return {}
    return {name: other for kind, i, j, k, m in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes() if kind == "equal"
            for node, twin in zip(a.nodes[i:j], b.nodes[k:m], strict=True)
            for name, other in zip(node.outputs, twin.outputs, strict=False) if name is not None and other is not None}


def only_bias(graph: Graph, name: str) -> bool:
    """Whether a graph takes a parameter as what its operators call a bias, and as nothing else: one of zeros does nothing."""
    used = [place for node in graph.nodes for operand, place in zip(node.inputs, _operand_names(node), strict=False) if operand == name]
    return bool(used) and set(used) == {"bias"} and all(output.value != name for output in graph.outputs)


def _operand_names(node: Node) -> list[str]:
    return [operand.name for operand in lookup(node.op).operands]


def _called(node: Node) -> str:
    return f"{node.op} {node.outputs[0] or ''}".strip() + (f" ({node.source})" if node.source else "")


def _signatures(graph: Graph, names: Mapping[str, str]) -> list[str]:
    """A text for each node that says what it is and what it works on, and no name that is only a name."""
    renamed: dict[str, Dim] = {}
    for port in graph.inputs:
        for size in port.spec.shape:
            for name in sorted(symbols(size)):
                renamed.setdefault(name, symbol(f"size_{len(renamed)}"))
    made: dict[str, str] = {port.name: f"input {place}" for place, port in enumerate(graph.inputs)}
    for node in graph.nodes:
        made.update({name: f"{node.op} {place}" for place, name in enumerate(node.outputs) if name is not None})
    document = graph_to_document(_with_sizes(graph, renamed), source=False)
    found = []
    for node, item in zip(graph.nodes, document["nodes"], strict=True):
        operands = [made.get(operand, f"parameter {names.get(operand, operand)}") if isinstance(operand, str) else repr(operand)
                    for operand in node.inputs]
        found.append(f"{node.op} {json.dumps(item.get('attributes', {}), sort_keys=True, default=str)} {operands}")
    return found


def _with_sizes(graph: Graph, renamed: Mapping[str, Dim]) -> Graph:
    """The graph with sizes in attributes called by what they are, and no names of its own."""
    def changed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(changed, value))
        return substitute(value, renamed) if hasattr(value, "terms") else value

    return replace(graph, nodes=tuple(replace(node, attributes={name: changed(value) for name, value in node.attributes.items()})
                                      for node in graph.nodes))
