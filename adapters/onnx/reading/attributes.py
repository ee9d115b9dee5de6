"""The attributes of a node: their values, held against what ONNX says of its operator, and against what a reader takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import onnx

from adapters.onnx.initializers import embedded_array, sparse_array
from adapters.onnx.load import text_of
from converter.errors import FormatError


def decoded(node: onnx.NodeProto, version: int) -> dict[str, Any]:
    """A node's attributes by name. Raises `FormatError` for one that is there twice, or of another type than the operator's."""
    types = attribute_types(node.op_type, node.domain, version)
    found: dict[str, Any] = {}
    for item in node.attribute:
        name = text_of(item.name)
        if types and name not in types:
            raise FormatError("an attribute that the operator does not have", where=f"attribute {name[:80]!r}",
                              expected=", ".join(sorted(types)))
        wanted = types.get(name, item.type)
        if name in found or item.type != wanted:
            raise FormatError("an attribute that is there twice" if name in found else "an attribute of another type than the operator's",
                              where=f"attribute {name[:80]!r}", expected=_type_name(wanted), received=_type_name(item.type))
        found[name] = decode(item)
    return found


def _type_name(number: int) -> str:
    return onnx.AttributeProto.AttributeType.Name(number) if number in onnx.AttributeProto.AttributeType.values() else f"the type {number}"


@cache
def attribute_types(operator: str, domain: str, version: int) -> Mapping[str, int]:
    """The type of each attribute of one of ONNX's own operators; nothing of others."""
    try:
        schema = onnx.defs.get_schema(operator, version, "" if domain == "ai.onnx" else domain)
    except (onnx.defs.SchemaError, TypeError):
        return {}
    kinds = onnx.AttributeProto.AttributeType
    return {name: kinds.Value(item.type.name) for name, item in schema.attributes.items()}  # type: ignore[attr-defined]


def decode(attribute: onnx.AttributeProto) -> Any:
    """An attribute's value: numbers, texts, tensors as arrays, graphs as they are."""
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return embedded_array(value)
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        return sparse_array(value)
    if attribute.type == onnx.AttributeProto.STRING:
        return text_of(value.decode("utf-8", "replace"))
    if attribute.type == onnx.AttributeProto.STRINGS:
        return tuple(item.decode("utf-8", "replace") for item in value)
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return tuple(value)
    return value


@cache
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


@cache
def _attributes(function: Any) -> frozenset[str] | None:
    """The attributes that a reader takes, those that it hands on among them; None: any."""
    parameters = _signature(function).parameters.values()
    own = frozenset(item.name for item in parameters if item.kind is item.KEYWORD_ONLY)
    if all(item.kind is not item.VAR_KEYWORD for item in parameters):
        return own
    target = getattr(function, "forwards", None)
    others = None if target is None else _attributes(target)
    return None if others is None else own | others


def check_call(g: Any, function: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> None:
    """Raises `UnsupportedError` for attributes or operands that a reader does not take."""
    known = _attributes(function)
    unknown = [] if known is None else sorted(attributes.keys() - known)
    if unknown:
        raise g.refuse(f"the attribute {unknown[0]!r}")
    try:
        _signature(function).bind(g, *inputs, **attributes)
    except TypeError as error:
        raise g.refuse(str(error).replace("keyword argument", "attribute").replace("positional argument", "operand")) from error
