"""Graphs as documents: the dicts, lists and strings that both encodings hold, with everything but tensors' values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.attributes import normalize_attributes
from converter.conditions import Condition, ordered, parse_condition
from converter.dims import Dim, Expr
from converter.errors import ConverterError, FormatError
from converter.format.fields import describe, fixed_shape, members, name_of, typed
from converter.format.limits import MAX_CONDITIONS, MAX_GRAPH_DEPTH, MAX_RANK, MAX_SIZE
from converter.format.literals import number_from_document, number_to_document
from converter.ir import DimRange, DType, Graph, GraphInput, GraphOutput, Node, Operand, TensorSpec
from converter.opset import lookup
from converter.size_text import parse

Document = dict[str, Any]

# Graph to document -------------------------------------------------------------------------------------------------


def graph_to_document(graph: Graph, *, source: bool = True) -> Document:
    """The document of a graph. Attributes equal to their default are left out; `source` keeps the nodes' code lines."""
    return {
        "name": graph.name,
        "dims": {name: _range_to_document(allowed) for name, allowed in graph.dims.items()},
        **({"requires": [str(condition) for condition in ordered(graph.requires)]} if graph.requires else {}),
        "inputs": [{"name": port.name, **spec_to_document(port.spec)} for port in graph.inputs],
        "nodes": [_node_to_document(node, source) for node in graph.nodes],
        "outputs": [{"name": port.name, **spec_to_document(port.spec),
                     **({"value": port.value} if port.value != port.name else {})} for port in graph.outputs],
    }


def _range_to_document(allowed: DimRange) -> Document:
    return {"min": allowed.min, **({} if allowed.max is None else {"max": allowed.max}),
            **({} if allowed.step == 1 else {"step": allowed.step})}


def spec_to_document(spec: TensorSpec) -> Document:
    """`{"dtype": ..., "shape": [...]}`."""
    return {"dtype": spec.dtype.value, "shape": [size_to_document(size) for size in spec.shape]}


def size_to_document(size: Dim) -> int | str:
    """An integer, or an expression's text."""
    return str(size) if isinstance(size, Expr) else int(size)


def _node_to_document(node: Node, source: bool) -> Document:
    document: Document = {"op": node.op, "inputs": [_operand_to_document(operand) for operand in node.inputs]}
    attributes = normalize_attributes(lookup(node.op), node.attributes)
    if attributes:
        document["attributes"] = {name: _attribute_to_document(value, source) for name, value in attributes.items()}
    document["outputs"] = list(node.outputs)
    if source and node.source is not None:
        document["source"] = node.source
    return document


def _operand_to_document(operand: Operand) -> Any:
    return operand if operand is None or isinstance(operand, str) else number_to_document(operand)


def _attribute_to_document(value: Any, source: bool) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Expr):
        return str(value)
    if isinstance(value, DType):
        return value.value
    if isinstance(value, Graph):
        return graph_to_document(value, source=source)
    if isinstance(value, tuple):
        return [_attribute_to_document(item, source) for item in value]
    return number_to_document(value)


def subgraphs(graph: Graph) -> list[Graph]:
    """The graphs in the attributes of a graph's nodes, one level down."""
    found: list[Graph] = []

    def collect(value: Any) -> None:
        if isinstance(value, Graph):
            found.append(value)
        elif isinstance(value, tuple):
            for item in value:
                collect(item)

    for node in graph.nodes:
        collect(tuple(node.attributes.values()))
    return found


def required_opset(graph: Graph) -> int:
    """The first opset that knows every operator of a graph and its sub-graphs."""
    return max([1, *(lookup(node.op).since for node in graph.nodes), *map(required_opset, subgraphs(graph))])


# Document to graph -------------------------------------------------------------------------------------------------


def graph_from_document(document: Any, where: str = "graph", depth: int = 0) -> Graph:
    """The graph of a document. Whether it is a valid graph is for `converter.checking.check` to say.

    Raises:
        FormatError: an unknown, missing or ill-typed field.
        GraphError: an operator, attribute, dtype or size that does not exist.
    """
    if depth > MAX_GRAPH_DEPTH:
        raise FormatError("graphs within graphs, too deep", where=where, expected=f"at most {MAX_GRAPH_DEPTH} levels")
    document = members(document, where, ("name", "inputs", "nodes", "outputs"), ("dims", "requires"))
    dims = typed(document.get("dims", {}), dict, f"{where}.dims")
    return Graph(
        name=typed(document["name"], str, f"{where}.name"),
        inputs=tuple(_input(item, f"{where}.inputs[{index}]") for index, item in _items(document, "inputs", where)),
        outputs=tuple(_output(item, f"{where}.outputs[{index}]") for index, item in _items(document, "outputs", where)),
        nodes=tuple(_node(item, f"{where}.nodes[{index}]", depth) for index, item in _items(document, "nodes", where)),
        dims={_symbol(name, f"{where}.dims"): _range(item, f"{where}.dims.{name[:80]}") for name, item in dims.items()},
        requires=_conditions(document.get("requires", []), f"{where}.requires"),
    )


def _conditions(value: Any, where: str) -> tuple[Condition, ...]:
    texts = typed(value, list, where)
    if len(texts) > MAX_CONDITIONS:
        raise FormatError("too many conditions", where=where, expected=f"at most {MAX_CONDITIONS}", received=str(len(texts)))
    found = []
    for index, text in enumerate(texts):
        try:
            found.append(parse_condition(text))
        except ConverterError as error:
            raise error.within(f"{where}[{index}]") from error
    return ordered(found)


def _items(document: Document, field: str, where: str) -> list[tuple[int, Any]]:
    return list(enumerate(typed(document[field], list, f"{where}.{field}")))


def _symbol(name: str, where: str) -> str:
    size = _size(name, where)
    if not isinstance(size, Expr) or size.symbol != name:
        raise FormatError("not a name for a size", where=where, received=describe(name))
    return name


def _range(document: Any, where: str) -> DimRange:
    document = members(document, where, (), ("min", "max", "step"))
    low = typed(document.get("min", 1), int, f"{where}.min")
    high = None if "max" not in document else typed(document["max"], int, f"{where}.max")
    if low < -MAX_SIZE or (high is not None and not low <= high <= MAX_SIZE):
        raise FormatError("not a range of sizes", where=where, expected="min <= max", received=f"{low}..{high}")
    step = typed(document.get("step", 1), int, f"{where}.step")
    if not 1 <= step <= MAX_SIZE:
        raise FormatError("not a step between sizes", where=where, expected="1 or more", received=str(step))
    return DimRange(low, high, step)


def _size(value: Any, where: str) -> Dim:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise FormatError("not a size", where=where, expected="an integer or a text such as 'time // 2'",
                          received=describe(value))
    try:
        size = parse(value)
    except ConverterError as error:
        raise error.within(where) from error
    if isinstance(size, int) and not 0 <= size <= MAX_SIZE:
        raise FormatError("not a size", where=where, expected="an integer of 0 and up", received=str(size)[:40])
    return size


def spec_from_document(document: Document, where: str) -> TensorSpec:
    """The spec in the members `dtype` and `shape` of a document. Raises `FormatError` or `GraphError`."""
    sizes = typed(document["shape"], list, f"{where}.shape")
    if len(sizes) > MAX_RANK:
        raise FormatError("too many axes", where=f"{where}.shape", expected=f"at most {MAX_RANK}", received=str(len(sizes)))
    return TensorSpec(dtype_from_document(document["dtype"], f"{where}.dtype"),
                      tuple(_size(size, f"{where}.shape") for size in sizes))


def dtype_from_document(value: Any, where: str) -> DType:
    """The dtype of that exact name. Raises `FormatError`."""
    try:
        return DType(typed(value, str, where))
    except ValueError:
        raise FormatError("not a dtype of the format", where=where, received=describe(value),
                          expected=", ".join(dtype.value for dtype in DType)) from None


def _input(document: Any, where: str) -> GraphInput:
    document = members(document, where, ("name", "dtype", "shape"))
    return GraphInput(name_of(document["name"], f"{where}.name"), spec_from_document(document, where))


def _output(document: Any, where: str) -> GraphOutput:
    document = members(document, where, ("name", "dtype", "shape"), ("value",))
    name = name_of(document["name"], f"{where}.name")
    return GraphOutput(name, spec_from_document(document, where), name_of(document.get("value", name), f"{where}.value"))


def _node(document: Any, where: str, depth: int) -> Node:
    document = members(document, where, ("op", "inputs", "outputs"), ("attributes", "source"))
    op = typed(document["op"], str, f"{where}.op")
    source = None if "source" not in document else typed(document["source"], str, f"{where}.source")
    inputs = tuple(_operand(item, f"{where}.inputs[{index}]") for index, item in _items(document, "inputs", where))
    outputs = tuple(None if item is None else name_of(item, f"{where}.outputs[{index}]")
                    for index, item in _items(document, "outputs", where))
    attributes = {name: _attribute(value, f"{where}.attributes.{name[:80]}", depth)
                  for name, value in typed(document.get("attributes", {}), dict, f"{where}.attributes").items()}
    try:
        attributes = normalize_attributes(lookup(op), attributes)
    except ConverterError as error:
        raise error.within(f"{where} ({op[:80]})") from error
    return Node(op, inputs, outputs, attributes, source)


def _operand(value: Any, where: str) -> Operand:
    if value is None:
        return None
    return name_of(value, where) if isinstance(value, str) else number_from_document(value, where)


def _attribute(value: Any, where: str, depth: int) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return tuple(_attribute(item, f"{where}[{index}]", depth) for index, item in enumerate(value))
    if isinstance(value, dict) and "nodes" in value:
        return graph_from_document(value, where, depth + 1)
    return number_from_document(value, where)


# Parameter tables --------------------------------------------------------------------------------------------------


def parameter_to_document(spec: TensorSpec, alias: str | None) -> Document:
    """A parameter without its values: dtype, shape, and the name whose values it shares where it is an alias."""
    return {**spec_to_document(spec), **({} if alias is None else {"alias": alias})}


def parameter_spec(dtype: Any, shape: Any, where: str) -> TensorSpec:
    """A parameter's dtype and shape of integers, from a document. Raises `FormatError`."""
    return TensorSpec(dtype_from_document(dtype, f"{where}.dtype"), fixed_shape(shape, f"{where}.shape"))


def check_aliases(specs: Mapping[str, TensorSpec], aliases: Mapping[str, str], where: str = "parameters") -> None:
    """Raises `FormatError` for an alias of nothing, of another alias, or of another dtype or shape than its target."""
    for name, target in aliases.items():
        place = f"{where}[{name[:80]!r}].alias"
        if target not in specs or target in aliases:
            raise FormatError("an alias names no tensor", where=place, received=describe(target),
                              expected="the name of a parameter that is no alias itself")
        if specs[name] != specs[target]:
            raise FormatError("an alias differs from the tensor that it shares", where=place,
                              expected=str(specs[target]), received=str(specs[name]))
