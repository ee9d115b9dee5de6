"""A graph of the core as statements of C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from adapters.c.elementwise import NAMES
from adapters.c.fusion import Number, Pending, Value, pending, placed
from adapters.c.registry import lowerings
from adapters.c.types import all_types, ctype, spec_in_memory
from adapters.c.views import View, row_major
from adapters.c.writer import Lowered, Writer
from converter.attributes import attribute_symbols, replace_sizes
from converter.checking import check, infer_node
from converter.dims import Dim, Expr, substitute, symbol
from converter.errors import UnsupportedError
from converter.ir import Array, DType, Graph, Node, TensorSpec
from converter.parameters import ParameterStore
from converter.passes.complex_numbers import without_complex
from converter.passes.decomposing import decompose
from converter.ports.refusals import Refusals
from converter.resolved import ResolvedNode, resolve

PAIRED = ("view_as_real", "view_as_complex")
"""What takes and gives complex numbers, at the border of a graph."""
SPARE = 4096
"""Elements that what is known beforehand may take beyond what it is made of, to be computed here and not by the code."""


def known_operators() -> frozenset[str]:
    """Every operator that has a lowering of its own."""
    return frozenset({*lowerings(), *NAMES, "full"})


def in_known_operators(graph: Graph, parameters: ParameterStore) -> Graph:
    """The graph with all that has no lowering in terms of what has one, where its formula says so."""
    known = known_operators()
    return decompose(
        without_complex(graph, parameters), parameters, lambda node, _: node.op not in known or node.op in ("prod", "pad", "round")
    )


class Lowering:
    """Lowers a graph, and those within it.

    Args:
        g: what is written to.
        refusals: where what C lacks is collected.
    """

    def __init__(self, g: Writer, refusals: Refusals) -> None:
        self.g, self.refusals = g, refusals

    def run(self, graph: Graph, values: dict[str, Value], specs: Mapping[str, TensorSpec], sizes: dict[str, Dim]) -> list[Value]:
        """The values of the graph's outputs. `values` has those of its inputs and parameters; `sizes` what its symbols are around it."""

        def lower(resolved: ResolvedNode) -> None:
            found = self._lower(graph, resolved, values, specs, sizes)
            values.update({name: value for name, value in zip(resolved.node.outputs, found, strict=False) if name is not None})

        def stand_in(node: Node) -> None:
            for name, _, _ in resolve(node).binds:
                if name not in self.g.symbols:
                    self.g.bind(name, 1)
                sizes.setdefault(name, symbol(name))
            for name in filter(None, node.outputs):
                spec = spec_in_memory(_sized(specs[name], sizes))
                values[name] = View(
                    self.g.buffer("refused", spec.dtype if spec.dtype in _ALL else _ANY, 1), spec.shape, row_major(spec.shape)
                )

        self.refusals.walk(graph, lower, stand_in)
        return [values[output.value] for output in graph.outputs]

    def body(self, graph: Graph, operands: Sequence[View], sizes: Mapping[str, Dim]) -> list[Value]:
        """The results of a graph within a node."""
        inner = dict(sizes)
        for port, operand in zip(graph.inputs, operands, strict=True):
            for size, found in zip(port.spec.shape, operand.shape, strict=True):
                if isinstance(size, Expr) and size.symbol:
                    inner[size.symbol] = found
        specs = check(graph, None, outer=set(inner))
        return self.run(graph, {port.name: item for port, item in zip(graph.inputs, operands, strict=True)}, specs, inner)

    def _lower(
        self, graph: Graph, resolved: ResolvedNode, values: Mapping[str, Value], specs: Mapping[str, TensorSpec], sizes: dict[str, Dim]
    ) -> Sequence[Value]:
        g, node = self.g, resolved.node
        names = tuple(name or node.op for name in node.outputs)
        g.label = f"{names[0]}: {node.op}"
        for name, _, _ in resolved.binds:
            if name not in sizes:
                fresh = name if name not in g.symbols else f"{name}_{len(g.symbols)}"
                sizes[name] = symbol(fresh)
        inferred = infer_node(node, specs)
        if node.op not in PAIRED and any(spec.dtype.is_complex for spec in (*inferred, *(specs[name] for name in node.names))):
            raise UnsupportedError("no code in C for complex numbers")
        found = [spec_in_memory(_sized(spec, sizes)) for spec in inferred]
        for spec in found:
            ctype(spec.dtype)
        operands: list[Value | None] = [
            None if item is None else values[item] if isinstance(item, str) else _number(item, resolved.number_dtype(specs))
            for item in resolved.operands
        ]
        attributes = {name: replace_sizes(value, lambda size: substitute(size, sizes)) for name, value in resolved.filled.items()}
        known = self._known(resolved, operands, attributes)
        if known is not None:
            moved = operands[0] if node.op in ("permute_dims", "reshape") else None
            hints = names if not isinstance(moved, View) else (f"{moved.buffer.name}_t",)
            return [self._constant(array, name) for array, name in zip(known, hints, strict=False)]
        if node.op == "full":
            return [Number(attributes["fill_value"], found[0].dtype, found[0].shape)]
        if node.op in NAMES:
            uses = graph.uses[node.outputs[0]] if node.outputs[0] is not None else 0
            return [pending(g, node.op, [item for item in operands if item is not None], found[0], names[0], uses)]
        lowering = lowerings().get(node.op)
        if lowering is None:
            raise UnsupportedError("no code in C")
        lowered = Lowered(resolved, tuple(found), resolved.operands, attributes, names)
        if getattr(lowering, "fuses", False):
            result = lowering(g, lowered, *operands)
        elif resolved.graphs:
            result = lowering(self, lowered, sizes, *(placed(g, item) for item in operands if item is not None))
        else:
            result = lowering(g, lowered, *(None if item is None else placed(g, item) for item in operands))
        return result if isinstance(result, (tuple, list)) else (result,)

    def _constant(self, array: Array, name: str) -> Value:
        spec = TensorSpec.of(array.dtype, array.shape)
        if array.size == 1 and not spec.dtype.bits < 8:
            return Number(array.reshape(()).astype(np.float64).item() if spec.dtype.is_float else array.item(), spec.dtype, spec.shape)
        return self.g.constant(np.ascontiguousarray(array), name)

    def _known(self, resolved: ResolvedNode, operands: Sequence[Value | None], attributes: Mapping[str, Any]) -> Sequence[Array] | None:
        """What the node gives, where neither inputs nor free sizes have a part in it."""
        if resolved.graphs or resolved.binds or any(attribute_symbols(value) for value in attributes.values()):
            return None
        arrays: list[Array | None] = []
        for item in operands:
            array = None if item is None else _array_of(item)
            if item is not None and array is None:
                return None
            arrays.append(array)
        if resolved.node.op in ("full", "broadcast_to", *PAIRED):
            return None
        given = {name: value for name, value in attributes.items() if name not in resolved.operator.binds}
        if resolved.node.op == "permute_dims" and arrays[0] is not None and id(operands[0]) in self.kept:
            return None
        with np.errstate(all="ignore"):
            result = resolved.operator.kernel(*arrays, **given)
        results = [np.asarray(item) for item in (result if isinstance(result, tuple) else (result,))]
        whole = sum(item.size for item in results)
        return results if whole <= SPARE + sum(item.size for item in arrays if item is not None) else None

    kept: frozenset[int] = frozenset()
    """Values, by identity, that something reads as they lie, so that a copy in another order would take memory twice."""


def _array_of(value: Value) -> Array | None:
    if isinstance(value, Number):
        shape = tuple(size for size in value.shape if isinstance(size, int))
        if isinstance(value.value, Expr) or len(shape) < len(value.shape) or prod(shape) > SPARE:
            return None
        return np.full(shape, np.asarray(value.value).astype(value.dtype.numpy))
    if isinstance(value, Pending) or value.buffer.array is None or not value.is_whole:
        return None
    return value.buffer.array.reshape(value.shape)


def _number(value: float | complex, dtype: DType) -> Number:
    if isinstance(value, complex):
        raise UnsupportedError("no code in C for complex numbers")
    return Number(value, dtype)


def _sized(spec: TensorSpec, sizes: Mapping[str, Dim]) -> TensorSpec:
    return TensorSpec(spec.dtype, tuple(substitute(size, sizes) for size in spec.shape))


_ALL = all_types()
_ANY = next(iter(_ALL))
