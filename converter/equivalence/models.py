"""Whether two models are the same thing: the same parameters, bit for bit, and the same graph."""

from __future__ import annotations

import contextlib
from collections.abc import Container

import numpy as np

from converter.attributes import normalize_attributes
from converter.dims import Dim, symbols
from converter.equivalence.compare import Comparison
from converter.equivalence.report import Row, failure, row
from converter.errors import ConverterError
from converter.format import model_digest
from converter.ir import DimRange, Graph, GraphInput, Model, Node
from converter.opset import lookup
from converter.parameters import ParameterStore, as_bytes
from converter.passes.decomposing import to_core
from converter.passes.folding import fold

LISTED = 20


def compare_parameters(base: ParameterStore, other: ParameterStore, subject: str, constants: Container[str] = ()) -> list[Row]:
    """A failing row for each parameter that is missing, extra or different (the first 20), or one row that all are equal.

    Values are read a tensor at a time, and only where the digests differ. `constants` are tensors of a graph's making, of which
    each graph may have its own.
    """
    names, others = set(base.names()), set(other.names())
    reasons = {name: "missing" for name in base.names() if name not in others and name not in constants}
    reasons |= {name: "not in the model" for name in other.names() if name not in names and name not in constants}
    for name in base.names():
        if name in others:
            reason = _difference(base, other, name)
            if reason:
                reasons[name] = reason
    rows = [failure("model", subject, f"parameter {name}", reason) for name, reason in list(reasons.items())[:LISTED]]
    if len(reasons) > LISTED:
        rows.append(failure("model", subject, "parameters", f"{len(reasons) - LISTED} more differ"))
    if not reasons:
        rows.append(row("model", subject, f"parameters ({len(names)})", "", {}, Comparison(0.0, 0.0, "", len(names), "tensors")))
    return rows


def _difference(base: ParameterStore, other: ParameterStore, name: str) -> str:
    first, second = base.spec(name), other.spec(name)
    if first != second:
        return f"{second}, expected {first}"
    if base.alias_of(name) != other.alias_of(name):
        return f"shares memory with {other.alias_of(name) or 'none'}, expected {base.alias_of(name) or 'none'}"
    if base.sha256(name) == other.sha256(name):
        return ""
    left, right = base.read(name), other.read(name)
    itemsize = max(1, left.dtype.itemsize)
    bits = [np.frombuffer(as_bytes(values), np.uint8).reshape(-1, itemsize) for values in (left, right)]
    differs = np.any(bits[0] != bits[1], axis=1)
    count, place = int(np.count_nonzero(differs)), int(np.argmax(differs))
    index = [int(item) for item in np.unravel_index(place, left.shape)] if left.shape else []
    return f"{count} of {left.size} values differ, first at {index} ({right.reshape(-1)[place]} for {left.reshape(-1)[place]})"


def compare_inputs(base: Graph, other: Graph, subject: str) -> Row:
    """A row that a graph takes what its source takes: the inputs, their dtypes, and every size where the source leaves it free.

    Names of sizes do not count, nor ranges, which a user may narrow, unless but one size is left of one. A source that takes
    less is found when it is run.
    """
    reason = ""
    for index in range(max(len(base.inputs), len(other.inputs))):
        first, second = (graph.inputs[index] if index < len(graph.inputs) else None for graph in (base, other))
        if first is None or second is None or first.name != second.name or first.spec.dtype is not second.spec.dtype \
                or first.spec.rank != second.spec.rank:
            reason = f"input {index} is {_port(second)}, that of the source {_port(first)}"
            break
        frozen = [axis for axis, (left, right) in enumerate(zip(first.spec.shape, second.spec.shape, strict=True))
                  if _free(base, left) and not _free(other, right)]
        if frozen:
            left, right = first.spec.shape[frozen[0]], second.spec.shape[frozen[0]]
            least = right if isinstance(right, int) else other.dims[min(symbols(right))].min
            reason = f"input {first.name!r} takes only the size {least} on axis {frozen[0]}, where the source takes any {left}"
            break
    return row("model", subject, f"inputs ({len(base.inputs)})", "", {}, Comparison(0.0, 0.0, reason, len(base.inputs), "inputs"))


def _free(graph: Graph, size: Dim) -> bool:
    """Whether a size can be more than one number."""
    ranges = [graph.dims.get(name, DimRange()) for name in symbols(size)]
    return any(span.max is None or span.max >= span.min + span.step for span in ranges)


def _port(port: GraphInput | None) -> str:
    return "missing" if port is None else f"{port.name}: {port.spec}"


def compare_graphs(base: Graph, other: Graph, subject: str) -> Row:
    """A row that two graphs are the same, or what the first difference is. Code lines and default attributes do not count."""
    reason = _graph_difference(base, other)
    found = Comparison(0.0, 0.0, reason, len(base.nodes), "nodes")
    return row("model", subject, f"graph ({len(base.nodes)} nodes)", "", {}, found)


def _graph_difference(base: Graph, other: Graph) -> str:
    for what, left, right in (("input", base.inputs, other.inputs), ("output", base.outputs, other.outputs)):
        for index in range(max(len(left), len(right))):
            first, second = (str(items[index]) if index < len(items) else "none" for items in (left, right))
            if first != second:
                return f"{what} {index} is {second}, expected {first}"
    if dict(base.dims) != dict(other.dims):
        return f"dims {_ranges(other)}, expected {_ranges(base)}"
    if set(base.requires) != set(other.requires):
        first, second = (", ".join(map(str, graph.requires)) or "nothing" for graph in (base, other))
        return f"requires {second}, expected {first}"
    for index in range(max(len(base.nodes), len(other.nodes))):
        first, second = (_text(graph.nodes[index]) if index < len(graph.nodes) else "none" for graph in (base, other))
        if first != second:
            return f"node {index} is {second}, expected {first}"
    return ""


def _ranges(graph: Graph) -> str:
    return ", ".join(f"{name} in {span}" for name, span in graph.dims.items()) or "none"


def _text(node: Node) -> str:
    attributes = node.attributes
    with contextlib.suppress(ConverterError):  # An unknown operator: its attributes are compared as they are written.
        attributes = normalize_attributes(lookup(node.op), attributes)
    written = ", ".join([*map(repr, node.inputs), *(f"{name}={_value(value)}" for name, value in sorted(attributes.items()))])
    outputs = list(node.outputs)
    while outputs and outputs[-1] is None:
        outputs.pop()
    return f"{node.op}({written}) -> {', '.join(name or '_' for name in outputs)}"


def _value(value: object) -> str:
    if isinstance(value, Graph):
        nodes = "; ".join(map(_text, value.nodes))
        return f"graph({', '.join(map(str, value.inputs))}: {nodes} -> {', '.join(map(str, value.outputs))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    return str(value) if not isinstance(value, str) else repr(value)


def compare_models(base: Model, other: Model, subject: str) -> list[Row]:
    """The rows that say whether `other` is `base`: parameters, then the graph.

    What was folded of `base` must be all of its folding, and what was put in terms of the core what `to_core` makes.
    """
    folded = other.metadata.get("folded")
    if isinstance(folded, dict) and "folded" not in base.metadata and folded.get("from") == model_digest(base):
        base = fold(base)
    if _is_core_of(other, base):
        base = to_core(base)
    elif _is_core_of(base, other):
        other = to_core(other)
    return [*compare_parameters(base.parameters, other.parameters, subject), compare_graphs(base.graph, other.graph, subject)]


def _is_core_of(core: Model, plain: Model) -> bool:
    """Whether a model says that it is another one in the core's operators."""
    made = core.metadata.get("core")
    return isinstance(made, dict) and "core" not in plain.metadata and made.get("from") == model_digest(plain)
