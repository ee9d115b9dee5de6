"""The reading of formulas as nodes of a graph: what a formula makes, each node once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converter.attributes import normalize_attributes
from converter.builder import live_nodes
from converter.checking import infer_node
from converter.dims import Dim, Expr, symbols
from converter.formulas import Term
from converter.ir import DimRange, DType, Graph, GraphInput, GraphOutput, Node, Operand, TensorSpec
from converter.opset import lookup
from converter.resolved import resolve

Lacks = Callable[[Node, Mapping[str, TensorSpec]], bool]


class Arithmetic:
    """Python's arithmetic and comparisons of terms, as operators of their space."""

    __slots__ = ()


class Symbol(Arithmetic):
    """A value of a graph in a formula."""

    __slots__ = ("name", "space", "spec")

    def __init__(self, space: Nodes, name: str, spec: TensorSpec) -> None:
        self.space, self.name, self.spec = space, name, spec

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.spec.shape

    @property
    def ndim(self) -> int:
        return self.spec.rank

    @property
    def dtype(self) -> DType:
        return self.spec.dtype


def _method(operator: str, turned: bool) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        return getattr(self.space, operator)(*((other, self) if turned else (self, other)))

    return method


for _name, _operator in (("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"), ("pow", "power"),
                         ("floordiv", "floor_divide"), ("mod", "remainder"), ("and", "logical_and"), ("or", "logical_or")):
    setattr(Arithmetic, f"__{_name}__", _method(_operator, False))
    setattr(Arithmetic, f"__r{_name}__", _method(_operator, True))
for _name, _operator in (("lt", "less"), ("le", "less_equal"), ("gt", "greater"), ("ge", "greater_equal")):
    setattr(Arithmetic, f"__{_name}__", _method(_operator, False))
for _name, _operator in (("neg", "negative"), ("invert", "logical_not")):
    setattr(Arithmetic, f"__{_name}__", lambda self, operator=_operator: getattr(self.space, operator)(self))


class Nodes:
    """The reading as nodes.

    Args:
        specs: of the values that there are; gains those of new ones.
        dims: the ranges of sizes.
        lacks: whether a node is to be put in simpler terms too.
        taken: names that values have; gains those of new ones.
        stem: what new names begin with.
        source: where the nodes come from.
    """

    def __init__(self, specs: dict[str, TensorSpec], dims: Mapping[str, DimRange], lacks: Lacks, taken: set[str],
                 stem: str, source: str | None) -> None:
        self.specs, self.dims, self.lacks, self.taken, self.stem, self.source = specs, dims, lacks, taken, stem, source
        self.counts: Counter[str] = Counter()
        self.nodes: list[Node] = []
        self._made: dict[Any, tuple[Symbol, ...]] = {}

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        return lambda *operands, **attributes: self.apply(operator, operands, attributes)

    def fresh(self, operator: str) -> str:
        """A name that is free."""
        name = f"{self.stem}{operator}"
        while name in self.taken:
            self.counts[operator] += 1
            name = f"{self.stem}{operator}_{self.counts[operator]}"
        self.taken.add(name)
        return name

    def operand(self, item: Operand, dtype: DType | None) -> Term:
        """What stands for an operand of the operator: a number becomes a tensor."""
        if item is None:
            return None
        return Symbol(self, item, self.specs[item]) if isinstance(item, str) else self.full(shape=(), fill_value=item, dtype=dtype)

    def apply(self, operator: str, operands: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        """One operator's results: a term, or a tuple of them."""
        dtype = next((item.dtype for item in reversed(operands) if isinstance(item, Symbol)), None)
        operands = [self.full(shape=(), fill_value=item, dtype=dtype) if isinstance(item, Expr) else item for item in operands]
        names = tuple(item.name if isinstance(item, Symbol) else item.item() if isinstance(item, np.generic) else item for item in operands)
        given = normalize_attributes(lookup(operator), {
            name: self._body(value, lookup(operator).passes([item.spec for item in operands], **attributes)) if callable(value) else value
            for name, value in attributes.items() if value is not None})
        key = (operator, tuple((type(name), name) for name in names), repr(sorted(given.items())))
        if key not in self._made:
            node = Node(operator, names, ("y",), given, self.source)
            found = expand(self, node) if self.lacks(node, self.specs) else None
            if found is None:
                specs = infer_node(node, self.specs)
                outputs = tuple(self.fresh(operator) for _ in specs)
                self.specs.update(zip(outputs, specs, strict=True))
                self.nodes.append(Node(operator, names, outputs, given, self.source))
                found = tuple(Symbol(self, name, spec) for name, spec in zip(outputs, specs, strict=True))
            self._made[key] = found
        results = self._made[key]
        return results[0] if len(results) == 1 and lookup(operator).outputs is not None else results

    def _body(self, function: Callable[..., Any], operands: Sequence[TensorSpec]) -> Graph:
        """A sub-graph that takes operands of these specs."""
        inputs = tuple(GraphInput(f"value_{position}", spec) for position, spec in enumerate(operands))
        specs = {port.name: port.spec for port in inputs}
        dims = {name: self.dims[name] for spec in operands for size in spec.shape for name in symbols(size)}
        inner = Nodes(specs, self.dims, self.lacks, set(specs), "", self.source)
        results = function(inner, *(Symbol(inner, port.name, port.spec) for port in inputs))
        outputs = tuple(GraphOutput(f"output_{position}", item.spec, item.name) for position, item in enumerate(results))
        return Graph("body", inputs, outputs, live_nodes(inner.nodes, inputs, outputs), dims)


def expand(space: Nodes, node: Node) -> tuple[Symbol, ...] | None:
    """A node's results by its operator's formula, or None where it has none."""
    formula = lookup(node.op).formula
    if formula is None:
        return None
    resolved = resolve(node)
    dtype = resolved.literal_dtype(space.specs)
    result = formula(space, *(space.operand(item, dtype) for item in resolved.operands), **resolved.filled)
    return None if result is None else result if isinstance(result, tuple) else (result,)


def settle(space: Nodes, outputs: Sequence[str | None], results: Sequence[str | None]) -> tuple[list[Node], dict[str, str], dict[str, str]]:
    """A space's nodes in the place of one node: `results` are its outputs, by their names in the space; None is left out.

    Returns: the nodes, whose results have the node's own names; those names by the space's; and of every output what it is called now:
    by its own name, or by that of a value that there was before.
    """
    made = {name for item in space.nodes for name in item.outputs}
    pairs = [(name, result) for name, result in zip(outputs, results, strict=False) if name is not None and result is not None]
    final = {result: name for name, result in pairs if result in made}
    nodes = [replace(item, inputs=tuple(final.get(name, name) if isinstance(name, str) else name for name in item.inputs),
                     outputs=tuple(final.get(str(name), name) for name in item.outputs)) for item in space.nodes]
    return nodes, final, {name: final.get(result, result) for name, result in pairs}
