"""Rewrites of a graph that leave what it computes as it is: nothing twice, nothing that computes nothing.

One forward pass. A rule looks at a node and at the nodes that made its inputs, and answers with the name of a value
that is the same, with a node to put in its place, or with None. Rules are data-independent but for *constants*,
tensors of the module's code that no checkpoint can replace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from converter.dims import Dim
from converter.errors import GraphError
from converter.ir import DType, Graph, GraphOutput, Node, Operand, TensorSpec
from converter.opset import infer_node, lookup
from converter.parameters import ParameterStore

Rule = Callable[["Rewriter", Node], "str | Node | None"]
_RULES: dict[str, list[Rule]] = {}

# Constants past this many elements are not looked into.
SMALL = 1 << 16


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Registers a rule for nodes of these operators."""

    def register(function: Rule) -> Rule:
        for name in operators:
            _RULES.setdefault(name, []).append(function)
        return function

    return register


class Rewriter:
    """The pass: what has been emitted, and what rules ask about it."""

    def __init__(self, graph: Graph, specs: Mapping[str, TensorSpec], parameters: ParameterStore, constants: frozenset[str]) -> None:
        self.graph, self.parameters, self.constants = graph, parameters, constants
        self.specs = dict(specs)
        self.nodes: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.same: dict[str, str] = {}
        self._seen: dict[Any, Node] = {}
        self._uniform: dict[str, Any] = {}

    def run(self) -> Graph:
        """The rewritten graph, without nodes that no output needs."""
        for node in self.graph.nodes:
            self._visit(replace(node, inputs=tuple(self._resolved(item) for item in node.inputs)))
        outputs = tuple(GraphOutput(out.name, out.spec, self.same.get(out.value, out.value)) for out in self.graph.outputs)
        needed = {out.value for out in outputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.outputs):
                kept.append(node)
                needed.update(node.names)
        return replace(self.graph, nodes=tuple(reversed(kept)), outputs=outputs)

    def _resolved(self, operand: Operand) -> Operand:
        return self.same.get(operand, operand) if isinstance(operand, str) else operand

    def _visit(self, node: Node) -> None:
        for _ in range(8):
            for function in _RULES.get(node.op, ()):
                answer = function(self, node)
                if isinstance(answer, str):
                    self.same[node.outputs[0]] = answer  # type: ignore[index]
                    return
                if answer is not None:
                    node = answer
                    break
            else:
                break
        twin = self._twin(node)
        if twin is not None:
            for name, other in zip(node.outputs, twin.outputs, strict=False):
                if name is not None:
                    self.same[name] = other  # type: ignore[assignment]
            return
        self.nodes.append(node)
        for name in node.outputs:
            if name is not None:
                self.makers[name] = node

    def _twin(self, node: Node) -> Node | None:
        """An earlier node that computes the same and whose outputs cover this one's."""
        if lookup(node.op).binds:
            return None
        try:
            key = (node.op, tuple((type(item), item) for item in node.inputs), tuple(sorted(node.attributes.items())))
            twin = self._seen.setdefault(key, node)
        except TypeError:
            return None
        if twin is node:
            return None
        covered = all(name is None or index < len(twin.outputs) and twin.outputs[index] is not None
                      for index, name in enumerate(node.outputs))
        return twin if covered else None

    # For rules ---------------------------------------------------------------------------------------------------------

    def maker(self, operand: Operand, *operators: str) -> Node | None:
        """The node that made a value, when it is of one of these operators."""
        node = self.makers.get(operand) if isinstance(operand, str) else None
        return node if node is not None and node.op in operators else None

    def like(self, node: Node, op: str, inputs: tuple[Operand, ...], attributes: Mapping[str, Any] | None = None) -> Node | None:
        """A node for the same output, or None when its inferred spec would not be the same."""
        new = Node(op, inputs, node.outputs[:1], attributes or {}, node.source)
        try:
            (spec,) = infer_node(new, self.specs)
        except (GraphError, ValueError):
            return None
        return new if node.outputs[0] is not None and spec == self.specs[node.outputs[0]] else None

    def shape(self, operand: Operand) -> tuple[Dim, ...]:
        return self.specs[operand].shape if isinstance(operand, str) else ()

    def uniform(self, operand: Operand) -> Any:
        """The one value that all elements of an operand have, or None when that is not known."""
        if operand is None or not isinstance(operand, str):
            return operand
        if operand not in self._uniform:
            self._uniform[operand] = self._find_uniform(operand)
        return self._uniform[operand]

    def _find_uniform(self, name: str) -> Any:
        node = self.makers.get(name)
        if node is not None and node.op == "full":
            value = node.attributes["fill_value"]
            return value if isinstance(value, (bool, int, float)) else None
        if name in self.constants:
            spec = self.specs[name]
            size = int(np.prod([int(item) for item in spec.shape], dtype=np.int64))  # type: ignore[arg-type]
            if 0 < size <= SMALL and spec.dtype in (DType.BOOL, DType.INT64, DType.INT32, DType.FLOAT32, DType.FLOAT64):
                values = self.parameters.read(name)
                first = values.reshape(-1)[0]
                if np.all(values == first):
                    return first.item()
        return None


def simplify(graph: Graph, specs: Mapping[str, TensorSpec], parameters: ParameterStore,
             constants: frozenset[str] = frozenset()) -> Graph:
    """The graph with fewer nodes and the same outputs.

    Args:
        specs: the spec of every value in the graph.
        parameters: where the values of `constants` are read.
        constants: names of parameters whose values are part of the graph, and not of a checkpoint.
    """
    return Rewriter(graph, specs, parameters, constants).run()


# Shapes ------------------------------------------------------------------------------------------------------------------

RESHAPES = ("reshape", "expand_dims", "squeeze")


@rule(*RESHAPES)
def _reshape_once(r: Rewriter, node: Node) -> str | Node | None:
    source = node.inputs[0]
    shape = r.shape(node.outputs[0])
    inner = r.maker(source, *RESHAPES)
    if inner is not None:
        source = inner.inputs[0]
    if r.shape(source) == shape:
        return source  # type: ignore[return-value]
    return r.like(node, "reshape", (source,), {"shape": shape}) if inner is not None else None


@rule("permute_dims")
def _permute_once(r: Rewriter, node: Node) -> str | Node | None:
    axes = node.attributes["axes"]
    if axes == tuple(range(len(axes))):
        return node.inputs[0]  # type: ignore[return-value]
    inner = r.maker(node.inputs[0], "permute_dims")
    if inner is None:
        return None
    return replace(node, inputs=inner.inputs, attributes={"axes": tuple(inner.attributes["axes"][axis] for axis in axes)})


@rule("broadcast_to")
def _broadcast_once(r: Rewriter, node: Node) -> str | Node | None:
    if r.shape(node.inputs[0]) == r.shape(node.outputs[0]):
        return node.inputs[0]  # type: ignore[return-value]
    inner = r.maker(node.inputs[0], "broadcast_to")
    return replace(node, inputs=inner.inputs) if inner is not None else None


@rule("astype")
def _cast_once(r: Rewriter, node: Node) -> str | None:
    return node.inputs[0] if r.specs[node.inputs[0]] == r.specs[node.outputs[0]] else None  # type: ignore[index,return-value]


BROADCASTING = ("add", "subtract", "multiply", "divide", "where", "maximum", "minimum", "power", "equal", "not_equal", "less",
                "less_equal", "greater", "greater_equal", "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or",
                "bitwise_xor", "scaled_dot_product_attention")


@rule(*BROADCASTING)
def _no_broadcast_before_broadcasting(r: Rewriter, node: Node) -> Node | None:
    """An operand need not be expanded for an operator that expands it itself."""
    for index, operand in enumerate(node.inputs):
        inner = r.maker(operand, "broadcast_to")
        if inner is None or node.op == "scaled_dot_product_attention" and index != 3:
            continue
        if len(r.shape(inner.inputs[0])) != len(r.shape(operand)) and node.op == "scaled_dot_product_attention":
            continue
        new = r.like(node, node.op, (*node.inputs[:index], inner.inputs[0], *node.inputs[index + 1:]), node.attributes)
        if new is not None:
            return new
    return None


# Values that are known ---------------------------------------------------------------------------------------------------


@rule("reshape", "expand_dims", "squeeze", "permute_dims", "broadcast_to", "slice", "take", "take_along_axis", "index", "select", "flip")
def _rearranged_uniform(r: Rewriter, node: Node) -> Node | None:
    value = r.uniform(node.inputs[0])
    if value is None:
        return None
    spec = r.specs[node.outputs[0]]  # type: ignore[index]
    return r.like(node, "full", (), {"shape": spec.shape, "fill_value": value, "dtype": spec.dtype})


@rule("logical_and", "bitwise_and", "logical_or", "bitwise_or")
def _neutral_boolean(r: Rewriter, node: Node) -> str | Node | None:
    neutral = node.op.endswith("and")
    out = node.outputs[0]
    if out is None or r.specs[out].dtype is not DType.BOOL:
        return None
    for operand, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        if r.uniform(operand) is neutral and isinstance(other, str):
            return other if r.specs[other] == r.specs[out] else r.like(node, "broadcast_to", (other,), {"shape": r.shape(out)})
    return None


@rule("greater_equal")
def _index_is_not_negative(r: Rewriter, node: Node) -> Node | None:
    """`arange(…) >= 0` holds everywhere."""
    source, bound = node.inputs
    value = r.uniform(bound)
    while True:
        inner = r.maker(source, *RESHAPES, "broadcast_to")
        if inner is None:
            break
        source = inner.inputs[0]
    start = _counts_from(r, source)
    if start is None or not isinstance(value, (int, float)) or value > start:
        return None
    return r.like(node, "full", (), {"shape": r.shape(node.outputs[0]), "fill_value": True, "dtype": DType.BOOL})


def _counts_from(r: Rewriter, operand: Operand) -> int | None:
    """The start of an ascending `arange`, or None."""
    node = r.maker(operand, "arange")
    if node is None:
        return None
    start, step = node.attributes.get("start", 0), node.attributes.get("step", 1)
    return start if isinstance(start, int) and isinstance(step, int) and step > 0 else None


@rule("where")
def _where_known(r: Rewriter, node: Node) -> str | None:
    condition = r.uniform(node.inputs[0])
    if not isinstance(condition, bool):
        return None
    chosen = node.inputs[1] if condition else node.inputs[2]
    return chosen if isinstance(chosen, str) and r.specs[chosen] == r.specs[node.outputs[0]] else None  # type: ignore[index]


@rule("add", "subtract", "multiply", "divide")
def _neutral_arithmetic(r: Rewriter, node: Node) -> str | None:
    """x + 0 and x - 0 of integers (a float's -0.0 would change), x * 1 and x / 1."""
    operands = [(node.inputs[0], node.inputs[1])]
    if node.op in ("add", "multiply"):
        operands.append((node.inputs[1], node.inputs[0]))
    for x, other in operands:
        if isinstance(x, str) and not isinstance(other, str) and r.specs[x] == r.specs[node.outputs[0]]:  # type: ignore[index]
            additive = node.op in ("add", "subtract")
            if other == (0 if additive else 1) and not isinstance(other, bool) and (not additive or r.specs[x].dtype.is_integer):
                return x
    return None


@rule("scaled_dot_product_attention")
def _no_mask(r: Rewriter, node: Node) -> Node | None:
    if len(node.inputs) > 3 and r.uniform(node.inputs[3]) is True:
        return replace(node, inputs=node.inputs[:3])
    return None


@rule("index")
def _grid_of_positions(r: Rewriter, node: Node) -> Node | None:
    """`x[arange(a)[:, None], arange(b)[None, :]]` is x itself, with axes of size 1 between its own."""
    x, *indices = node.inputs
    shape, rank = r.shape(x), len(r.shape(node.outputs[0]))
    if len(indices) != len(shape) or rank < len(shape):
        return None
    place = -1
    for size, index in zip(shape, indices, strict=True):
        if index is None:
            return None
        source = index
        found = r.shape(index)
        own = [axis - len(found) + rank for axis, item in enumerate(found) if item != 1]
        inner = r.maker(source, *RESHAPES)
        if inner is not None:
            source = inner.inputs[0]
        counter = r.maker(source, "arange")
        if (counter is None or _counts_from(r, source) != 0 or counter.attributes.get("step", 1) != 1
                or r.shape(source) != (size,) or len(own) != 1 or own[0] <= place):
            return None
        place = own[0]
    return r.like(node, "reshape", (x,), {"shape": r.shape(node.outputs[0])})
