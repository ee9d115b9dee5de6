"""A graph whose complex arithmetic is one of real numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from converter.attributes import attribute_symbols, graphs_in
from converter.builder import live_nodes
from converter.checking import check
from converter.ir import Graph, GraphInput, GraphOutput, Node, TensorSpec
from converter.ops.complex_numbers import REAL_OF
from converter.parameters import ParameterStore
from converter.passes.complex_numbers.pairs import Pair, Pairs, join, split
from converter.passes.nodes import Nodes, Symbol, settle
from converter.resolved import resolve

Names = tuple[str, str, str | None]
"""Of a complex value: the real part, the imaginary part, and both along a last axis, where that is there."""


def without_complex(graph: Graph, parameters: ParameterStore | None, outer: Iterable[str] = ()) -> Graph:
    """The graph with its complex arithmetic in terms of real numbers, that of sub-graphs too.

    Inputs, outputs and parameters stay what they are: a complex one is read by `view_as_real` and given by `view_as_complex`, which
    change no bit, so that a target needs those two alone. What nothing simpler is known of stays as it is.
    """
    return _Replacing(graph, check(graph, parameters, outer=outer)).graph(in_parts=False)


def real_body(graph: Graph) -> Graph:
    """A sub-graph likewise, that takes and gives two real values for each complex one."""
    return _Replacing(graph, check(graph, None, outer=attribute_symbols(graph))).graph(in_parts=True)


class _Replacing:
    """One graph on its way. `values` has the parts of complex values, `same` what real ones are called now."""

    def __init__(self, graph: Graph, specs: Mapping[str, TensorSpec]) -> None:
        self.old, self.specs = graph, dict(specs)
        self.taken = {*specs, *(output.name for output in graph.outputs)}
        self.nodes: list[Node] = []
        self.values: dict[str, Names] = {}
        self.same: dict[str, str] = {}

    def graph(self, in_parts: bool) -> Graph:
        if not any(spec.dtype.is_complex for spec in self.specs.values()) and not any(map(graphs_in, self.old.nodes)):
            return self.old
        inputs = self._inputs() if in_parts else self.old.inputs
        for node in self.old.nodes:
            self._node(node)
        outputs = self._outputs(in_parts)
        return replace(self.old, inputs=inputs, outputs=outputs, nodes=live_nodes(self.nodes, inputs, outputs))

    def _fresh(self, stem: str) -> str:
        name, count = stem, 0
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        self.taken.add(name)
        return name

    def _inputs(self) -> tuple[GraphInput, ...]:
        ports: list[GraphInput] = []
        for port in self.old.inputs:
            if port.spec.dtype.is_complex:
                names = tuple(self._fresh(f"{port.name}/{part}") for part in ("real", "imag"))
                parts = [GraphInput(name, TensorSpec(REAL_OF[port.spec.dtype], port.spec.shape)) for name in names]
                self.specs.update((part.name, part.spec) for part in parts)
                self.values[port.name] = (names[0], names[1], None)
                ports += parts
            else:
                ports.append(port)
        return tuple(ports)

    def _outputs(self, in_parts: bool) -> tuple[GraphOutput, ...]:
        outputs: list[GraphOutput] = []
        made = {name for node in self.old.nodes for name in node.outputs}
        for output in self.old.outputs:
            if not output.spec.dtype.is_complex or not in_parts and output.value not in made:
                outputs.append(replace(output, value=self.same.get(output.value, output.value)))
            elif in_parts:
                spec = TensorSpec(REAL_OF[output.spec.dtype], output.spec.shape)
                outputs += [GraphOutput(self._fresh(f"{output.name}/{part}"), spec, name)
                            for part, name in zip(("real", "imag"), self.values[output.value][:2], strict=True)]
            else:
                outputs.append(output)
                if not any(output.value in node.outputs for node in self.nodes):
                    self._joined(output.value)
        return tuple(outputs)

    def _joined(self, name: str) -> None:
        """Makes the complex value that an output gives."""
        space = self._space(f"{name}/", None)
        whole = join(space, self._pair(space, name))
        self.nodes += [*space.nodes, Node("view_as_complex", (whole.name,), (name,))]

    def _space(self, stem: str, source: str | None) -> Nodes:
        return Nodes(self.specs, self.old.dims, lambda *_: False, self.taken, stem, source)

    def _pair(self, space: Nodes, name: str) -> Pair:
        """The parts of a complex value, in a space; an input or a parameter is taken apart where it is first read."""
        if name not in self.values:
            border = self._space(f"{name}/", None)
            pair = split(border, border.view_as_real(Symbol(border, name, self.specs[name])))
            self.nodes += border.nodes
            self.values[name] = (pair.real.name, pair.imag.name, pair.whole.name)
        real, imag, whole = (None if part is None else Symbol(space, part, self.specs[part]) for part in self.values[name])
        return Pair(real, imag, whole=whole)

    def _node(self, node: Node) -> None:
        if not any(self.specs[name].dtype.is_complex for name in (*node.names, *filter(None, node.outputs))):
            inputs = tuple(self.same.get(item, item) if isinstance(item, str) else item for item in node.inputs)
            self.nodes.append(replace(node, inputs=inputs, attributes={name: _real(value) for name, value in node.attributes.items()}))
            return
        space = self._space(f"{next(filter(None, node.outputs), node.op)}/", node.source)
        pairs, resolved = Pairs(space), resolve(node)
        results = pairs.apply(node.op, [self._operand(pairs, item) for item in resolved.operands], resolved.filled)
        results = results if isinstance(results, tuple) else (results,)
        made, final, called = settle(space, node.outputs, [None if isinstance(item, Pair) else item.name for item in results])
        self.nodes += made
        self.same.update(called)
        for name, item in zip(node.outputs, results, strict=False):
            if name is not None and isinstance(item, Pair):
                parts = (item.real, item.imag, item.whole)
                real, imag, whole = (None if part is None else final.get(part.name, part.name) for part in parts)
                self.values[name] = (str(real), str(imag), whole)

    def _operand(self, pairs: Pairs, item: Any) -> Any:
        if not isinstance(item, str):
            return item
        if self.specs[item].dtype.is_complex:
            pair = self._pair(pairs.inner, item)
            pair.space = pairs
            return pair
        name = self.same.get(item, item)
        return Symbol(pairs.inner, name, self.specs[name])


def _real(value: Any) -> Any:
    """An attribute whose graphs know real numbers only."""
    if isinstance(value, tuple):
        return tuple(map(_real, value))
    return real_body(value) if isinstance(value, Graph) else value
