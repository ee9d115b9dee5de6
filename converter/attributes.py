"""The attributes of nodes: of their declared types, with their defaults, and the sizes and sub-graphs that they hold."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from converter.dims import Dim, Expr, evaluate, symbols
from converter.errors import GraphError
from converter.ir import DType, Graph, Node
from converter.opset import Operator, lookup
from converter.size_text import parse


def normalize_attributes(operator: Operator, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with every value of its declared type, those equal to their default left out, in signature order.

    Raises `GraphError` for an unknown, missing or ill-typed attribute.
    """
    for name in attributes:
        if name not in operator.attributes:
            raise GraphError(f"{operator.name} has no attribute {name!r}", received=repr(name),
                             expected=", ".join(operator.attributes) or "no attributes")
    result = {}
    for name, spec in operator.attributes.items():
        if name in attributes:
            value = _coerce(spec.type, attributes[name], f"attribute {name!r}")
            if spec.required or repr(value) != repr(spec.default):  # repr tells -0.0 from 0.0 and 1 from True
                result[name] = value
        elif spec.required:
            raise GraphError(f"{operator.name} needs the attribute {name!r}", received=", ".join(attributes) or "none")
    return result


def filled_attributes(operator: Operator, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Normalized attributes with the defaults of those left out."""
    return {name: attributes.get(name, spec.default) for name, spec in operator.attributes.items()}


def _coerce(annotation: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation == Dim:
        if isinstance(value, Expr):
            return value
        return parse(value)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        if isinstance(value, bool) and bool in args:
            return value
        kinds = [arg for arg in args if arg not in (type(None), bool)]
        if int in kinds and Expr in kinds:
            kinds = [Dim, *(kind for kind in kinds if kind not in (int, Expr))]
        for kind in kinds:
            try:
                return _coerce(kind, value, where)
            except GraphError:
                continue
        raise _ill_typed(where, annotation, value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _ill_typed(where, annotation, value)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_coerce(args[0], item, f"{where}[{index}]") for index, item in enumerate(value))
        if len(value) != len(args):
            raise _ill_typed(where, annotation, value)
        return tuple(_coerce(arg, item, f"{where}[{index}]") for index, (arg, item) in enumerate(zip(args, value, strict=True)))
    if origin is typing.Literal:
        if value not in args or isinstance(value, bool) != isinstance(args[args.index(value)], bool):
            raise _ill_typed(where, annotation, value)
        return value
    if annotation is DType:
        return DType.of(value)
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if annotation is complex and isinstance(value, (int, float, complex)) and not isinstance(value, bool):
        return complex(value)
    if annotation is int and isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if annotation in (bool, str) and isinstance(value, annotation):
        return value
    if annotation is Graph and isinstance(value, Graph):
        return value
    raise _ill_typed(where, annotation, value)


def describe_type(annotation: Any) -> str:
    """An attribute's type in words that the format uses: `size`, `list of size`, `"constant" | "reflect"`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation == Dim:
        return "size"
    if origin in (typing.Union, types.UnionType):
        kinds = [arg for arg in args if arg is not type(None)]
        if int in kinds and Expr in kinds:
            words = ["size", *(describe_type(arg) for arg in kinds if arg not in (int, Expr))]
        else:
            words = [describe_type(arg) for arg in kinds]
        return " | ".join(words + (["null"] if type(None) in args else []))
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"list of {describe_type(args[0])}"
        return f"[{', '.join(map(describe_type, args))}]"
    if origin is typing.Literal:
        return " | ".join(f'"{arg}"' if isinstance(arg, str) else str(arg) for arg in args)
    return {bool: "boolean", int: "integer", float: "number", complex: "complex", str: "string", DType: "dtype",
            Graph: "graph"}.get(annotation, str(annotation))


def _ill_typed(where: str, annotation: Any, value: Any) -> GraphError:
    return GraphError("wrong type", where=where, expected=describe_type(annotation), received=repr(value)[:80])


def concrete_attributes(attributes: Mapping[str, Any], bindings: Mapping[str, int]) -> dict[str, Any]:
    """Attributes as a kernel takes them: every size an integer. Raises `GraphError` for an unbound symbol."""
    return {name: replace_sizes(value, lambda size: evaluate(size, bindings)) for name, value in attributes.items()}


def replace_sizes(value: Any, function: Callable[[Expr], Any]) -> Any:
    """An attribute's value with each size that has symbols replaced by what a function gives for it."""
    if isinstance(value, Expr):
        return function(value)
    if isinstance(value, tuple):
        return tuple(replace_sizes(item, function) for item in value)
    return value


def attribute_symbols(value: Any) -> set[str]:
    """The symbols in an attribute's value."""
    if isinstance(value, Expr):
        return symbols(value)
    if isinstance(value, tuple):
        return {name for item in value for name in attribute_symbols(item)}
    if isinstance(value, Graph):
        return free_symbols(value)
    return set()


def free_symbols(graph: Graph) -> set[str]:
    """The symbols that a sub-graph takes from the graph around it: those that it names and does not bind."""
    own = {size.symbol for item in graph.inputs for size in item.spec.shape if isinstance(size, Expr) and size.symbol}
    named = {name for spec in (*(item.spec for item in graph.inputs), *(item.spec for item in graph.outputs))
             for size in spec.shape for name in symbols(size)}
    named |= {name for condition in graph.requires for name in condition.symbols}
    for node in graph.nodes:
        named |= attribute_symbols(tuple(node.attributes.values()))
        bound = (node.attributes.get(name) for name in lookup(node.op).binds)
        own |= {size.symbol for size in bound if isinstance(size, Expr) and size.symbol}
    return named - own


def graphs_in(node: Node) -> list[Graph]:
    """The sub-graphs of a node."""
    return [value for value in node.attributes.values() if isinstance(value, Graph)]
