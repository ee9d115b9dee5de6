"""A node as a runtime or a target takes it: operands in their places, attributes typed and complete, sizes that it binds."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from converter.attributes import filled_attributes, normalize_attributes
from converter.errors import GraphError
from converter.ir import DType, Graph, Node, Operand, TensorSpec
from converter.opset import Operator, lookup

Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True)
class ResolvedNode:
    """A node with its operator.

    `operands` are the inputs as the kernel takes them, optional ones that were left out as None. `attributes` are of their
    declared types, in the order of the signature, without those equal to their default.
    """

    node: Node
    operator: Operator
    operands: tuple[Operand, ...]
    attributes: Mapping[str, Any]

    @cached_property
    def filled(self) -> dict[str, Any]:
        """Every attribute, with the defaults of those left out."""
        return filled_attributes(self.operator, self.attributes)

    @cached_property
    def given(self) -> dict[str, Any]:
        """The attributes that a kernel is called with: all but those that name sizes which the node binds."""
        return {name: value for name, value in self.attributes.items() if name not in self.operator.binds}

    @cached_property
    def graphs(self) -> dict[str, Graph]:
        """The sub-graphs among the attributes."""
        return {name: value for name, value in self.attributes.items() if isinstance(value, Graph)}

    @cached_property
    def binds(self) -> tuple[tuple[str, int, int | None], ...]:
        """Sizes that only the data decide: the symbol, and the output and the axis that say it; no axis: the output itself."""
        return tuple((self.attributes[name].symbol, *place) for name, place in self.operator.binds.items() if name in self.attributes)

    def literal_dtype(self, specs: Specs) -> DType | None:
        """The dtype that numbers among the operands take: that of the last tensor beside them."""
        return next((specs[item].dtype for item in reversed(self.operands) if isinstance(item, str) and item in specs), None)

    def number_dtype(self, specs: Specs) -> DType:
        """`literal_dtype` of a node that has a number among its operands, beside which stands a tensor."""
        found = self.literal_dtype(specs)
        if found is None:
            raise GraphError("a number with no tensor beside it", where=str(self.node))
        return found

    def bind(self, results: Sequence[Any], bindings: MutableMapping[str, int]) -> None:
        """Tells `bindings` the sizes that a run's results have given a value."""
        for symbol, output, axis in self.binds:
            bindings[symbol] = int(results[output]) if axis is None else results[output].shape[axis]


def resolve(node: Node) -> ResolvedNode:
    """Raises `GraphError` for an unknown operator, operands that it does not take, and attributes that are not of its types."""
    operator = lookup(node.op)
    attributes = normalize_attributes(operator, node.attributes)
    return ResolvedNode(node, operator, _operands(operator, node.inputs), attributes)


def _operands(operator: Operator, inputs: tuple[Operand, ...]) -> tuple[Operand, ...]:
    fixed = [spec for spec in operator.operands if not spec.variadic]
    variadic = len(fixed) != len(operator.operands)
    needed = sum(not spec.optional for spec in fixed)
    if len(inputs) < needed or len(inputs) > len(fixed) and not variadic:
        bounds = f"at least {needed}" if variadic else f"{needed}" if needed == len(fixed) else f"{needed} to {len(fixed)}"
        raise GraphError(f"{operator.name} takes {bounds} inputs", received=str(len(inputs)),
                         expected=", ".join(f"{spec.name}{'?' if spec.optional else '…' if spec.variadic else ''}"
                                            for spec in operator.operands))
    for spec, operand in zip(fixed, inputs, strict=False):
        if operand is None and not spec.optional:
            raise GraphError(f"{operator.name} needs its input {spec.name!r}", received="null")
    return (*inputs, *([None] * max(0, len(fixed) - len(inputs))))
