"""A neutral graph to ONNX nodes: the walk over it, and the parameters that its nodes read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx

from adapters.onnx.lowering.border import spec_at_border, spec_within
from adapters.onnx.lowering.emitter import CONVERTED, ONNX_DTYPES, Emitter, Tensor, once
from adapters.onnx.lowering.layouts import BYTES, Initializer, Layout
from adapters.onnx.registry import lowerings
from converter.attributes import attribute_symbols
from converter.checking import check
from converter.dims import Expr, fixed
from converter.errors import UnsupportedError
from converter.ir import Array, DType, Graph, Node, TensorSpec
from converter.parameters import InMemoryParameters, ParameterStore
from converter.ports.refusals import Refusals
from converter.resolved import ResolvedNode

__all__ = ["ONNX_DTYPES", "Array", "Lowering", "Tensor", "once"]


class Lowering(Emitter):
    """Lowers a graph with its parameters. Once all is lowered, `unread` has the initializers that no node needs."""

    def __init__(self, graph: Graph, parameters: ParameterStore, opset: int, *, outer: Iterable[str] = ()) -> None:
        super().__init__(graph, check(graph, parameters, outer=outer), opset)
        self.parameters = parameters
        self.initializers: dict[str, Initializer] = {}
        self.unread: dict[str, Initializer] = {}
        self.values: dict[str, Tensor] = {}
        self._in_body = False

    def is_parameter(self, x: Tensor) -> bool:
        return x.name in self.initializers

    def parameter_values(self, x: Tensor) -> Array | None:
        """A parameter's or a constant's values where a lowering must look at them (small tensors only), else None."""
        if x.name in self.constants:
            return self.constants[x.name]
        if self.is_parameter(x) and self.initializers[x.name].layout.is_plain:
            return self.parameters.read(x.name)
        return None

    def rearranged(self, sources: Sequence[Tensor], layout: Layout, name: str) -> Tensor | None:
        """A new initializer whose values are parameters rearranged by `layout` when the file is written.

        None when a source is no plain parameter, or other nodes need a source too: then emit nodes instead.
        The file holds the rearranged values in place of the sources, and its metadata how to get them back.
        """
        names = [source.name for source in sources]
        if self._in_body:
            return None  # another body may read the parameter too
        for source in names:
            plain = source in self.initializers and self.initializers[source].layout.is_plain
            if not plain or self.graph.uses[source] > 1 or self.parameters.alias_of(source) or self._has_alias(source):
                return None
        shape = layout.shape([tuple(fixed(size) for size in source.shape) for source in sources])
        dtype = sources[0].dtype
        for source in names:
            del self.initializers[source]
        key = name if name in names else self.unique(name)
        self.initializers[key] = Initializer(key, TensorSpec(dtype, shape), tuple(names), layout)
        return Tensor(key, TensorSpec(dtype, shape))

    def _has_alias(self, name: str) -> bool:
        return name in self.memo("aliased", lambda: {self.parameters.alias_of(other) for other in self.parameters.names()})

    # The walk ------------------------------------------------------------------------------------------------------------

    def lower(self) -> dict[str, Tensor]:
        """Lowers every node. Gives each graph output's tensor by its name.

        Raises `UnsupportedError` that lists every node that has no lowering.
        """
        for port in self.graph.inputs:
            self._define(port.name, Tensor(port.name, spec_at_border(port.spec)))
        for name in self.parameters.names():
            target = self.parameters.alias_of(name)
            spec = self.specs[name]
            if target is None or self.graph.uses[name]:
                if target is None:
                    steps = (("pairs", -1),) if spec.dtype.is_complex else (("bytes", str(spec.dtype)),) if spec.dtype in BYTES else ()
                    self.initializers[name] = Initializer(name, spec_at_border(spec), (name,), Layout(steps))
                self.values[name] = Tensor(target or name, spec_within(spec))
        self._lower_nodes()
        results: dict[str, Tensor] = {}
        for output in self.graph.outputs:
            self.wanted = [output.name]
            results[output.name] = self.values[output.value]
        self._drop_unused({tensor.name for tensor in results.values()})
        return results

    def within(self, graph: Graph, operands: Sequence[Tensor], nodes: list[onnx.NodeProto]) -> list[Tensor]:
        """Lowers a sub-graph on operands, its nodes appended to `nodes`: this graph's own, or those of a body, which may
        read every value that there is by now. Gives the sub-graph's outputs.

        Raises `UnsupportedError` for one that requires conditions between sizes: nothing in ONNX checks them there.
        """
        if graph.requires:
            raise UnsupportedError(f"the graph {graph.name!r} requires {', '.join(map(str, graph.requires))} each time that it runs, "
                                   "which ONNX cannot check")
        inner = Lowering(graph, InMemoryParameters(), self.opset, outer=attribute_symbols(graph))
        inner.parameters = self.parameters
        inner.nodes, inner.initializers, inner.constants, inner._names = nodes, self.initializers, self.constants, self._names
        inner._shared, inner._memo, inner.made = self._shared, dict(self._memo), dict(self.made)
        inner._symbol_sources, inner._in_body = dict(self._symbol_sources), True
        for port, operand in zip(graph.inputs, operands, strict=True):
            for size, found in zip(port.spec.shape, operand.shape, strict=True):
                if isinstance(size, Expr) and size.symbol and size != found:
                    # The symbol means another size here than outside, so that no size computed outside can be used.
                    inner._symbol_sources.pop(size.symbol, None)
                    inner._memo, inner.made = {}, {}
        for port, operand in zip(graph.inputs, operands, strict=True):
            inner._define(port.name, Tensor(operand.name, spec_within(port.spec)))
        inner._lower_nodes()
        return [inner.values[output.value] for output in graph.outputs]

    def _lower_nodes(self) -> None:
        refusals = Refusals()
        refusals.walk(self.graph, self._lower, self._stand_in)
        if refusals:
            raise refusals.error(lambda count: f"{count} operators cannot be written as ONNX opset {self.opset}",
                                 "try a newer --opset, or run the model with NumPy")

    def _stand_in(self, node: Node) -> None:
        for name in filter(None, node.outputs):
            self._define(name, Tensor(name, spec_within(self.specs[name])))

    def _drop_unused(self, needed: set[str]) -> None:
        """Removes nodes and constants that no output needs, and sets initializers apart that none needs."""
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(_reads(node))
        self.nodes = kept[::-1]
        self.constants = {name: values for name, values in self.constants.items() if name in needed}
        self.unread = {name: item for name, item in self.initializers.items() if name not in needed}
        self.initializers = {name: item for name, item in self.initializers.items() if name in needed}

    def _lower(self, resolved: ResolvedNode) -> None:
        node = resolved.node
        self.current, self.wanted = node, [name for name in node.outputs if name] or [node.op]
        lowering = lowerings().get(node.op)
        if lowering is None:
            raise self.refuse("no ONNX lowering for this operator")
        values = [item for item in (*node.inputs, *node.outputs) if isinstance(item, str)]
        if node.op != "astype" and any(self.specs[item].dtype in CONVERTED for item in values):
            raise self.refuse("ONNX Runtime converts float8, and does little else with it")
        if any(self.specs[item].dtype.is_complex for item in values) and lowering is not lowerings()["view_as_real"]:
            raise self.refuse("ONNX has no complex arithmetic")
        if not resolved.operator.binds and all(self._is_empty(name) for name in node.outputs if name is not None):
            for name in filter(None, node.outputs):
                self._define(name, self._empty(name))
            return
        operands = [self.values[item] if isinstance(item, str) else item if item is None
                    else self.constant(item, resolved.number_dtype(self.specs)) for item in resolved.operands]
        result = lowering(self, *operands, **resolved.filled)
        results = result if isinstance(result, tuple) else (result,)
        if len(results) < len(node.outputs):
            raise self.refuse(f"output {len(results)} of this operator is not available in ONNX")
        for output, tensor in zip(node.outputs, results, strict=False):
            if output is not None:
                self._define(output, Tensor(tensor.name, spec_within(self.specs[output])))
        for symbol, place, axis in resolved.binds:
            if axis is None:
                self._symbol_sources.setdefault(symbol, (results[place], None))

    def _is_empty(self, name: str) -> bool:
        return 0 in self.specs[name].shape

    def _empty(self, name: str) -> Tensor:
        """A tensor without elements, whatever it is computed from: many of ONNX Runtime's kernels get those wrong."""
        spec = spec_within(self.specs[name])
        if all(isinstance(size, int) for size in spec.shape):
            return self.constant(np.zeros([fixed(size) for size in spec.shape]), spec.dtype)
        zero = onnx.helper.make_tensor("value", self.onnx_dtype(DType.FLOAT32), [1], [0.0])
        filled = self.node("ConstantOfShape", self.sizes(spec.shape), spec=TensorSpec(DType.FLOAT32, spec.shape), value=zero)
        return self.cast(filled, spec.dtype)

    def _define(self, name: str, tensor: Tensor) -> None:
        self.values[name] = tensor
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, Expr) and size.symbol is not None:
                self._symbol_sources.setdefault(size.symbol, (tensor, axis))


def _reads(node: onnx.NodeProto) -> set[str]:
    """The values a node reads, those that its sub-graphs read from outside included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _reads(inner)
            names.update(output.name for output in graph.output)
    return names
