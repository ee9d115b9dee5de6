"""The pass over a graph that rules work in: nothing twice, nothing that computes nothing.

One forward pass. A rule looks at a node and at the nodes that made its inputs, and answers with the name of a value
that is the same, with a node to put in its place, or with None. Rules are data-independent but for *constants*,
tensors of the module's code that no checkpoint can replace.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from converter.builder import live_nodes
from converter.checking import infer_node
from converter.dims import Dim, fixed
from converter.errors import GraphError
from converter.ir import DType, Graph, GraphOutput, Node, Operand, TensorSpec
from converter.opset import lookup
from converter.parameters import ParameterStore

Rule = Callable[["Rewriter", Node], "str | Node | None"]
_RULES: dict[str, list[Rule]] = {}
_LIFTING: dict[str, list[Rule]] = {}

# Constants past this many elements are not looked into.
SMALL = 1 << 16


def rule(*operators: str, lifting: bool = False) -> Callable[[Rule], Rule]:
    """Registers a rule for nodes of these operators. One that is `lifting` is for graphs whose layers were written as arithmetic."""

    def register(function: Rule) -> Rule:
        for name in operators:
            (_LIFTING if lifting else _RULES).setdefault(name, []).append(function)
        return function

    return register


@cache
def _load() -> None:
    import converter.passes.rewriting

    for module in pkgutil.iter_modules(converter.passes.rewriting.__path__):
        importlib.import_module(f"converter.passes.rewriting.{module.name}")


class Rewriter:
    """The pass: what has been emitted, and what rules ask about it."""

    def __init__(self, graph: Graph, specs: Mapping[str, TensorSpec], parameters: ParameterStore, constants: frozenset[str],
                 lift: bool = False) -> None:
        self.rules = {name: [*_RULES.get(name, ()), *(_LIFTING.get(name, ()) if lift else ())] for name in _RULES.keys() | _LIFTING.keys()}
        self.graph, self.parameters, self.constants = graph, parameters, constants
        self.specs = dict(specs)
        self.nodes: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.same: dict[str, str] = {}
        self._seen: dict[Any, Node] = {}
        self._uniform: dict[str, Any] = {}
        self.memory: dict[Any, Any] = {}
        """What rules remember of values."""

    def run(self) -> Graph:
        """The rewritten graph, without nodes that no output needs."""
        for node in self.graph.nodes:
            self._visit(replace(node, inputs=tuple(self._resolved(item) for item in node.inputs)))
        outputs = tuple(GraphOutput(out.name, out.spec, self.same.get(out.value, out.value)) for out in self.graph.outputs)
        return replace(self.graph, nodes=live_nodes(self.nodes, self.graph.inputs, outputs), outputs=outputs)

    def _resolved(self, operand: Operand) -> Operand:
        return self.same.get(operand, operand) if isinstance(operand, str) else operand

    def _visit(self, node: Node) -> None:
        for _ in range(8):
            for function in self.rules.get(node.op, ()):
                answer = function(self, node)
                if isinstance(answer, str):
                    if node.outputs[0] is not None:
                        self.same[node.outputs[0]] = answer
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

    def emit(self, op: str, inputs: tuple[Operand, ...], attributes: Mapping[str, Any] | None = None, stem: str | None = None,
             source: str | None = None) -> str:
        """A new node before the current one. Gives its output's name."""
        name = stem or op
        count = 0
        while name in self.specs:
            count += 1
            name = f"{stem or op}_{count}"
        node = Node(op, inputs, (name,), attributes or {}, source)
        self.specs[name] = infer_node(node, self.specs)[0]
        self._visit(node)
        return self.same.get(name, name)

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
            size = int(np.prod([fixed(item) for item in spec.shape], dtype=np.int64))
            if 0 < size <= SMALL and spec.dtype in (DType.BOOL, DType.INT64, DType.INT32, DType.FLOAT32, DType.FLOAT64):
                values = self.parameters.read(name)
                first = values.reshape(-1)[0]
                if np.all(values == first):
                    return first.item()
        return None


def simplify(graph: Graph, specs: Mapping[str, TensorSpec], parameters: ParameterStore,
             constants: frozenset[str] = frozenset(), *, lift: bool = False) -> tuple[Graph, dict[str, TensorSpec]]:
    """The graph with fewer nodes and the same outputs, and the spec of every value in it.

    Args:
        specs: the spec of every value in the graph.
        parameters: where the values of `constants` are read.
        constants: names of parameters whose values are part of the graph, and not of a checkpoint.
        lift: whether to read layers out of arithmetic that a framework's own trace would have kept whole.
    """
    _load()
    rewriter = Rewriter(graph, specs, parameters, constants, lift)
    return rewriter.run(), rewriter.specs
