"""Graphs written by hand, by an importer, or by an architecture.

    b = GraphBuilder("classifier")
    x = b.input("x", "float32", ["batch", 64])
    h = b.op("relu", b.op("linear", x, b.parameter("0.weight", "float32", [32, 64]), b.parameter("0.bias", "float32", [32])))
    b.output("y", h)
    graph = b.graph()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converter.attributes import attribute_symbols, normalize_attributes
from converter.checking import infer_node
from converter.conditions import Condition, ordered, parse_condition
from converter.dims import Dim, Expr, evaluate, symbols
from converter.errors import GraphError
from converter.ir import DimRange, DType, Graph, GraphInput, GraphOutput, Literal, Node, TensorSpec
from converter.opset import lookup


@dataclass(frozen=True, slots=True)
class Value:
    """A named value of a graph being built, with its inferred spec."""

    name: str
    spec: TensorSpec

    @property
    def dtype(self) -> DType:
        return self.spec.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.spec.shape

    @property
    def rank(self) -> int:
        return self.spec.rank


BuilderOperand = Value | Literal | None
LARGEST_LEAST = 4096


class GraphBuilder:
    """Collects inputs, parameters, nodes and outputs; every node's output is inferred, and refused, as it is added."""

    def __init__(self, name: str, dims: Mapping[str, DimRange] | None = None) -> None:
        self.name = name
        self.dims: dict[str, DimRange] = dict(dims or {})
        self.specs: dict[str, TensorSpec] = {}
        self.parameters: dict[str, TensorSpec] = {}
        self.requires: list[Condition] = []
        self._inputs: list[GraphInput] = []
        self._outputs: list[GraphOutput] = []
        self._nodes: list[Node] = []
        self._counts: dict[str, int] = {}

    def _declare(self, name: str, spec: TensorSpec) -> Value:
        if name in self.specs:
            raise GraphError(f"the name {name!r} is given twice", where=f"graph {self.name!r}")
        self.specs[name] = spec
        return Value(name, spec)

    def input(self, name: str, dtype: Any, shape: Any) -> Value:
        """A graph input. Symbols in `shape` that have no range yet get 1 and up."""
        spec = TensorSpec.of(dtype, shape)
        for size in spec.shape:
            for symbol in sorted(symbols(size)):
                self.dims.setdefault(symbol, DimRange())
        value = self._declare(name, spec)
        self._inputs.append(GraphInput(name, spec))
        return value

    def parameter(self, name: str, dtype: Any, shape: Any) -> Value:
        """A parameter; the same name twice is the same value."""
        spec = TensorSpec.of(dtype, shape)
        if name in self.parameters:
            if self.parameters[name] != spec:
                raise GraphError(f"the parameter {name!r} is declared twice, differently", expected=str(self.parameters[name]),
                                 received=str(spec))
            return Value(name, spec)
        value = self._declare(name, spec)
        self.parameters[name] = spec
        return value

    def unique(self, stem: str) -> str:
        """A value name that is free: `stem`, or `stem_1`, `stem_2`, …"""
        name = stem
        while name in self.specs:
            self._counts[stem] = self._counts.get(stem, 0) + 1
            name = f"{stem}_{self._counts[stem]}"
        return name

    def add(self, op: str, inputs: tuple[BuilderOperand, ...], attributes: Mapping[str, Any] | None = None, *,
            names: tuple[str | None, ...] | None = None, source: str | None = None) -> tuple[Value, ...]:
        """A node, with all its outputs. `names` gives the outputs' names (made unique); default: after the operator."""
        operands = tuple(operand.name if isinstance(operand, Value) else operand for operand in inputs)
        while operands and operands[-1] is None:
            operands = operands[:-1]
        operator = lookup(op)
        attributes = normalize_attributes(operator, dict(attributes or {}))
        probe = Node(op, operands, ("y",), attributes, source)
        inferred = infer_node(probe, self.specs)
        if names is None:
            names = (op,) if len(inferred) == 1 else tuple(
                f"{op}_{label}" for label in (operator.outputs or map(str, range(len(inferred)))))
        values = []
        for name, spec in zip(names, inferred, strict=False):
            unique = self.unique(name or op)
            self.specs[unique] = spec
            values.append(Value(unique, spec))
        self._nodes.append(Node(op, operands, tuple(value.name for value in values), attributes, source))
        for attribute in operator.binds:
            if attribute in attributes:
                self.dims.setdefault(attributes[attribute].symbol, DimRange(min=0))
        return tuple(values)

    def op(self, op: str, *inputs: BuilderOperand, name: str | None = None, source: str | None = None, **attributes: Any) -> Value:
        """A node of which only the first output matters."""
        names = None if name is None else (name,)
        return self.add(op, inputs, attributes, names=names, source=source)[0]

    def require(self, condition: Condition | str) -> None:
        """Adds a condition between sizes of the inputs: `require("past + time <= 512")`."""
        self.requires.append(parse_condition(condition) if isinstance(condition, str) else condition)

    def producer(self, value: Value) -> Node | None:
        """The node that makes a value; None for an input or a parameter."""
        return next((node for node in reversed(self._nodes) if value.name in node.outputs), None)

    def output(self, name: str, value: Value) -> None:
        """Declares `value` as the graph's output `name`."""
        self._outputs.append(GraphOutput(name, value.spec, value.name))

    def least(self, name: str) -> int:
        """The least value of a symbol at which no size that it alone decides is less than 1; at most `LARGEST_LEAST`."""
        sizes = {size for spec in self.specs.values() for size in spec.shape if symbols(size) == {name}}
        low, high = 1, LARGEST_LEAST
        while low < high:
            middle = (low + high) // 2
            fits = all(evaluate(size, {name: middle}) >= 1 for size in sizes)
            low, high = (low, middle) if fits else (middle + 1, high)
        return low

    @property
    def made(self) -> tuple[Node, ...]:
        """All nodes so far, those that no output needs too."""
        return tuple(self._nodes)

    def graph(self) -> Graph:
        """The graph so far, without nodes that no output needs, and with unused outputs dropped."""
        nodes = live_nodes(self._nodes, self._inputs, self._outputs)
        return Graph(self.name, tuple(self._inputs), tuple(self._outputs), nodes, dict(self.dims), ordered(self.requires))


def live_nodes(nodes: Sequence[Node], inputs: Sequence[GraphInput], outputs: Sequence[GraphOutput]) -> tuple[Node, ...]:
    """The nodes that some output needs, with outputs that nothing uses dropped.

    A node is needed too where it alone gives a value to a size that a later node names.
    """
    needed = {output.value for output in outputs}
    given = {size.symbol for port in inputs for size in port.spec.shape if isinstance(size, Expr)}
    sizes = {name for output in outputs for size in output.spec.shape for name in symbols(size)} - given
    kept: list[Node] = []
    for node in reversed(nodes):
        binds = {node.attributes[attribute].symbol: output for attribute, (output, _) in lookup(node.op).binds.items()
                 if attribute in node.attributes}
        bound = {output for name, output in binds.items() if name in sizes}
        names = tuple(name if name in needed or position in bound else None for position, name in enumerate(node.outputs))
        if not any(names):
            continue
        while names and names[-1] is None:
            names = names[:-1]
        node = Node(node.op, node.inputs, names, node.attributes, node.source)
        node = _without_idle_states(node) if node.op == "while_loop" else node
        kept.append(node)
        needed.update(node.names)
        sizes -= {name for name, output in binds.items() if output < len(names) and names[output] is not None}
        sizes |= attribute_symbols(tuple(node.attributes.values())) - given - binds.keys()
    return tuple(reversed(kept))


def _without_idle_states(node: Node) -> Node:
    """A loop without the states that nothing uses but their own next values."""
    carried, condition, body = (node.attributes[name] for name in ("carried", "condition", "body"))
    ports = body.inputs
    asked = {name for inner in condition.nodes for name in inner.names} | {output.value for output in condition.outputs}
    idle = {index for index in range(carried) if (*node.outputs, *[None] * carried)[index] is None
            and condition.inputs[index].name not in asked}
    while idle:
        kept = [index for index in range(len(ports)) if index not in idle]
        outputs = tuple(output for index, output in enumerate(body.outputs) if index not in idle)
        nodes = live_nodes(body.nodes, ports, outputs)
        read = {name for inner in nodes for name in inner.names} | {output.value for output in outputs}
        bound = {size.symbol for index in kept for size in ports[index].spec.shape if isinstance(size, Expr)}
        used = {index for index in idle if ports[index].name in read
                or any(isinstance(size, Expr) and size.symbol not in bound for size in ports[index].spec.shape)}
        if not used:
            attributes = {"carried": carried - len(idle), "condition": replace(condition, inputs=tuple(condition.inputs[i] for i in kept)),
                          "body": replace(body, inputs=tuple(ports[i] for i in kept), outputs=outputs, nodes=nodes)}
            return Node(node.op, tuple(node.inputs[i] for i in kept), tuple(name for i, name in enumerate(node.outputs) if i not in idle),
                        attributes, node.source)
        idle -= used
    return node
