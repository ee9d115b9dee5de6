"""A neutral graph to ONNX nodes: the context that the lowerings of `adapters/onnx/ops` work with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx

from adapters.onnx.complex_numbers import pairs as complex_pairs
from adapters.onnx.lowering.empty import IDENTITIES, reduced_empty
from adapters.onnx.lowering.layouts import BYTES, Initializer, Layout
from adapters.onnx.registry import lowerings
from converter import dims
from converter.attributes import attribute_symbols, filled_attributes, normalize_attributes
from converter.builder import Value
from converter.checking import bind_operands, check, literal_dtype
from converter.dims import Dim, Expr, fixed
from converter.errors import ConverterError, UnsupportedError
from converter.ir import DType, Graph, Node, TensorSpec
from converter.opset import lookup
from converter.parameters import InMemoryParameters, ParameterStore

Array = np.ndarray[Any, Any]

Tensor = Value
"""A value in the ONNX graph: its name there, and its neutral dtype and shape."""

CONVERTED = frozenset({DType.FLOAT8_E4M3FN, DType.FLOAT8_E4M3FNUZ, DType.FLOAT8_E5M2, DType.FLOAT8_E5M2FNUZ})
"""What ONNX Runtime converts from and to, and does little else with."""


def _number(dtype: DType) -> int | None:
    name = dtype.value.upper().replace("FLOAT32", "FLOAT").replace("FLOAT64", "DOUBLE")
    found = getattr(onnx.TensorProto, name.replace("_", "") if dtype in CONVERTED else name, None)
    return found if dtype.bits >= 8 else None


ONNX_DTYPES: dict[DType, int] = {dtype: number for dtype in DType if (number := _number(dtype)) is not None}


class Lowering:
    """Collects ONNX nodes, constants and initializers while a graph is lowered.

    `opset` is the ai.onnx version to write; a lowering chooses newer operators where it allows them. Once all is lowered, `unread` has
    the initializers that no node needs.
    """

    def __init__(self, graph: Graph, parameters: ParameterStore, opset: int, *, outer: Iterable[str] = ()) -> None:
        self.graph, self.parameters, self.opset = graph, parameters, opset
        self.specs = check(graph, parameters, outer=outer)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Initializer] = {}
        self.unread: dict[str, Initializer] = {}
        self.constants: dict[str, Array] = {}
        self.values: dict[str, Tensor] = {}
        self.uses = Counter(name for node in graph.nodes for name in node.names)
        self.uses.update(output.value for output in graph.outputs)
        self._names = Counter(self.specs.keys())
        self._names.update(output.name for output in graph.outputs)
        self._names.update(port.name for port in graph.inputs)
        self._cache: dict[Any, Any] = {}
        self._symbol_sources: dict[str, tuple[Tensor, int | None]] = {}
        self._permuted: dict[str, tuple[Tensor, tuple[int, ...]]] = {}
        self._current: Node | None = None
        self._wanted: list[str] = []
        self._in_body = False

    # Emitting --------------------------------------------------------------------------------------------------------

    def node(self, op_type: str, *inputs: Tensor | str | None, spec: TensorSpec | None = None, domain: str = "",
             **attributes: Any) -> Tensor:
        """One ONNX node with one output. `spec` is the output's, where later lowering steps ask for it; default: that
        of the neutral node's first output."""
        reduces = op_type in IDENTITIES and (len(inputs) == 2 or op_type == "ReduceMean")
        if reduces and isinstance(inputs[0], Tensor) and self.may_be_empty(inputs[0].shape):
            return reduced_empty(self, op_type, *inputs, spec=spec or self.result, **attributes)  # type: ignore[arg-type]
        return self.nodes_out(op_type, *inputs, specs=[spec], domain=domain, **attributes)[0]

    def nodes_out(self, op_type: str, *inputs: Tensor | str | None, specs: Sequence[TensorSpec | None], domain: str = "",
                  **attributes: Any) -> tuple[Tensor, ...]:
        """One ONNX node with `len(specs)` outputs, all named."""
        names = [item.name if isinstance(item, Tensor) else item or "" for item in inputs]
        while names and not names[-1]:
            names.pop()
        stem = self._wanted[0] if self._wanted else op_type.lower()
        outputs = [self.unique(f"{stem}/{op_type}") for _ in specs]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(onnx.helper.make_node(op_type, names, outputs, name=self.unique(f"{stem}/{op_type}_node"),
                                                domain=domain, **attributes))
        default = self.specs.get(self._wanted[0]) if self._wanted else None
        return tuple(Tensor(name, spec or default or TensorSpec(DType.FLOAT32, ())) for name, spec in zip(outputs, specs, strict=True))

    def unique(self, stem: str) -> str:
        """A name no other value has."""
        self._names[stem] += 1
        return stem if self._names[stem] == 1 else self.unique(f"{stem}_{self._names[stem] - 1}")

    def constant(self, values: Any, dtype: DType = DType.INT64) -> Tensor:
        """A constant tensor (an initializer); equal ones are shared. Default dtype: int64, for shapes and axes."""
        array = np.asarray(values, BYTES.get(dtype, dtype).numpy)
        key = ("constant", dtype, array.shape, array.tobytes())
        if key not in self._cache:
            name = self.unique(f"constant_{len(self.constants)}")
            self.constants[name] = array
            self._cache[key] = Tensor(name, TensorSpec(dtype, array.shape))
        return self._cache[key]

    def refuse(self, reason: str) -> UnsupportedError:
        """The error of a lowering that has no ONNX counterpart: `raise g.refuse("why")`."""
        op = self._current.op if self._current else "?"
        return UnsupportedError(reason, items=[{"operator": op, "reason": reason,
                                                "source": self._current.source if self._current else None}])

    @property
    def is_given_out(self) -> bool:
        """Whether the neutral node's first output is one of the graph's."""
        return any(output.value == self._wanted[0] for output in self.graph.outputs)

    @property
    def read(self) -> tuple[str, ...]:
        """The values that the neutral node reads."""
        return tuple(self._current.names) if self._current else ()

    @property
    def result(self) -> TensorSpec:
        """The spec of the neutral node's first output that is used."""
        return self.specs[self._wanted[0]]

    def wants(self, output: int) -> bool:
        """Whether anything uses that output of the neutral node."""
        outputs = self._current.outputs if self._current else ()
        return output < len(outputs) and outputs[output] is not None

    def may_be_empty(self, shape: Sequence[Dim]) -> bool:
        """Whether a tensor of that shape can be without elements at sizes that the graph allows."""
        return any(size == 0 if isinstance(size, int) else any(
            name not in self.graph.dims or self.graph.dims[name].min < 1 for name in dims.symbols(size)) for size in shape)

    # Sizes -------------------------------------------------------------------------------------------------------------

    def size(self, value: Dim) -> Tensor:
        """A size as an int64 tensor of shape [1]."""
        if isinstance(value, int):
            return self.constant([value])
        if ("size", value) not in self._cache:
            self._cache["size", value] = self._compute(value)
        return self._cache["size", value]

    def scalar_size(self, value: Dim) -> Tensor:
        """A size as a 0-d int64 tensor."""
        if isinstance(value, int):
            return self.constant(value)
        if ("scalar", value) not in self._cache:
            self._cache["scalar", value] = self.node("Squeeze", self.size(value), spec=TensorSpec(DType.INT64, ()))
        return self._cache["scalar", value]

    def sizes(self, values: Sequence[Dim]) -> Tensor:
        """Sizes as one int64 vector."""
        if all(isinstance(value, int) for value in values):
            return self.constant(list(values))
        key = ("sizes", tuple(values))
        if key not in self._cache:
            parts: list[Tensor] = []
            run: list[int] = []
            for value in values:
                if isinstance(value, int):
                    run.append(value)
                    continue
                if run:
                    parts.append(self.constant(run))
                    run = []
                parts.append(self.size(value))
            if run:
                parts.append(self.constant(run))
            spec = TensorSpec(DType.INT64, (len(values),))
            self._cache[key] = parts[0] if len(parts) == 1 else self.node("Concat", *parts, spec=spec, axis=0)
        return self._cache[key]

    def _compute(self, value: Expr) -> Tensor:
        vector = TensorSpec(DType.INT64, (1,))
        if value.symbol is not None:
            tensor, axis = self._symbol_sources[value.symbol]
            if axis is None:  # a number of the data
                return self.node("Reshape", tensor, self.constant([1]), spec=vector)
            # Shape with start and end (opset 15) reads one size without a Gather.
            return self.node("Shape", tensor, spec=vector, start=axis, end=axis + 1)
        total: Tensor | None = None
        for monomial, coefficient in value.terms.items():
            product: Tensor | None = None if coefficient == 1 and monomial else self.constant([coefficient])
            for atom, power in monomial:
                factor = self.size(dims.symbol(atom[1])) if atom[0] == "symbol" else self._function(*atom)
                for _ in range(power):
                    product = factor if product is None else self.node("Mul", product, factor, spec=vector)
            total = product if total is None else self.node("Add", total, product, spec=vector)
        return total  # type: ignore[return-value]

    def _function(self, function: str, left: Dim, right: Dim) -> Tensor:
        vector = TensorSpec(DType.INT64, (1,))
        a, b = self.size(left), self.size(right)
        if function in ("max", "min"):
            return self.node(function.capitalize(), a, b, spec=vector)
        remainder = self.node("Mod", a, b, spec=vector)
        if function == "%":
            return remainder
        # ONNX divides towards zero; a size expression floors. Taking the floored remainder off first makes it exact.
        return self.node("Div", self.node("Sub", a, remainder, spec=vector), b, spec=vector)

    def reshape(self, x: Tensor, shape: Sequence[Dim]) -> Tensor:
        """`x` in another shape, with as few size computations as the expressions allow; `x` itself when it has it."""
        shape = tuple(shape)
        if shape == x.shape:
            return x
        target: list[int] = []
        unknown = 0
        # In ONNX, 0 keeps the input's size at that position, and one -1 takes what remains.
        for axis, size in enumerate(shape):
            if isinstance(size, int):
                target.append(size)
            elif axis < x.rank and x.shape[axis] == size:
                target.append(0)
            else:
                target.append(-1)
                unknown += 1
        spec = TensorSpec(x.dtype, shape)
        holds_zero = any(size == 0 for size in shape)
        if unknown <= 1 and not holds_zero and not (unknown and self.may_be_empty(x.shape)):
            return self.node("Reshape", x, self.constant(target), spec=spec)
        return self.node("Reshape", x, self.sizes(shape), spec=spec, allowzero=1 if self.may_be_empty(shape) else None)

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """`x` with its axes permuted; `x` itself for the identity."""
        axes = tuple(axes)
        if axes == tuple(range(x.rank)):
            return x
        spec = TensorSpec(x.dtype, tuple(x.shape[axis] for axis in axes))
        # A permutation of a permutation is one permutation; the first is dropped later if nothing else reads it.
        source, before = self._permuted.get(x.name, (x, tuple(range(x.rank))))
        result = self.node("Transpose", source, spec=spec, perm=[before[axis] for axis in axes])
        self._permuted[result.name] = (source, tuple(before[axis] for axis in axes))
        return result

    def cast(self, x: Tensor, dtype: DType) -> Tensor:
        """`x` in another dtype; `x` itself when it has it."""
        return x if x.dtype is dtype else self.node("Cast", x, spec=TensorSpec(dtype, x.shape), to=self.onnx_dtype(dtype))

    def onnx_dtype(self, dtype: DType) -> int:
        """ONNX's number for a dtype. Raises `UnsupportedError` for one that ONNX lacks."""
        dtype = BYTES.get(dtype, dtype)
        if dtype not in ONNX_DTYPES or dtype in CONVERTED and self.opset < 19:
            raise self.refuse(f"ONNX has no {dtype} tensors here")
        return ONNX_DTYPES[dtype]

    # Parameters ----------------------------------------------------------------------------------------------------------

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
            if not plain or self.uses[source] > 1 or self.parameters.alias_of(source) or self._has_alias(source):
                return None
        shape = layout.shape([tuple(fixed(size) for size in source.shape) for source in sources])
        dtype = sources[0].dtype
        for source in names:
            del self.initializers[source]
        key = name if name in names else self.unique(name)
        self.initializers[key] = Initializer(key, TensorSpec(dtype, shape), tuple(names), layout)
        return Tensor(key, TensorSpec(dtype, shape))

    def _has_alias(self, name: str) -> bool:
        if "aliased" not in self._cache:
            self._cache["aliased"] = {self.parameters.alias_of(other) for other in self.parameters.names()}
        return name in self._cache["aliased"]

    # The walk ------------------------------------------------------------------------------------------------------------

    def lower(self) -> dict[str, Tensor]:
        """Lowers every node. Gives each graph output's tensor by its name.

        Raises `UnsupportedError` that lists every node that has no lowering.
        """
        for port in self.graph.inputs:
            tensor = Tensor(port.name, complex_pairs.bordered(port.spec))
            self._define(port.name, tensor)
            if port.spec.dtype.is_complex:
                self.values[port.name] = complex_pairs.split(self, tensor)  # type: ignore[assignment]
        for name in self.parameters.names():
            target = self.parameters.alias_of(name)
            spec = self.specs[name]
            if target is None or self.uses[name]:
                if target is None:
                    held = BYTES.get(spec.dtype)
                    layout = Layout((("bytes", str(spec.dtype)),) if held else ())
                    self.initializers[name] = Initializer(name, TensorSpec(held, spec.shape) if held else spec, (name,), layout)
                self.values[name] = Tensor(target or name, spec)
        self._lower_nodes()
        results: dict[str, Tensor] = {}
        for output in self.graph.outputs:
            self._wanted = [output.name]
            value = self._value(output.value)
            results[output.name] = complex_pairs.join(self, value) if isinstance(value, complex_pairs.Pair) else value
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
        inner._cache, inner._symbol_sources, inner._in_body = dict(self._cache), dict(self._symbol_sources), True
        for port, operand in zip(graph.inputs, operands, strict=True):
            for size, found in zip(port.spec.shape, operand.shape, strict=True):
                if isinstance(size, Expr) and size.symbol and size != found:
                    # The symbol means another size here than outside, so that no size computed outside can be used.
                    inner._symbol_sources.pop(size.symbol, None)
                    inner._cache = {key: value for key, value in inner._cache.items() if key[0] == "constant"}
        for port, operand in zip(graph.inputs, operands, strict=True):
            inner._define(port.name, Tensor(operand.name, port.spec))
        inner._lower_nodes()
        self._cache.update((key, value) for key, value in inner._cache.items() if key[0] == "constant")
        return [inner.values[output.value] for output in graph.outputs]

    def _lower_nodes(self) -> None:
        problems: dict[tuple[str, str], dict[str, object]] = {}
        for node in self.graph.nodes:
            try:
                self._lower(node)
            except UnsupportedError as error:
                for item in error.items or [{"operator": node.op, "reason": error.message}]:
                    key = (str(item["operator"]), str(item["reason"]))
                    entry = problems.setdefault(key, {**item, "count": 0})
                    entry["count"] = int(entry["count"]) + 1  # type: ignore[call-overload]
                for name in filter(None, node.outputs):
                    self._define_alike(name, Tensor(name, complex_pairs.real_spec(self.specs[name])))
            except ConverterError as error:
                raise error.within(f"node {node}") from error
        if problems:
            raise UnsupportedError(f"{len(problems)} operators cannot be written as ONNX opset {self.opset}",
                                   items=list(problems.values()), fix="try a newer --opset, or run the model with NumPy")

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

    def _lower(self, node: Node) -> None:
        self._current, self._wanted = node, [name for name in node.outputs if name] or [node.op]
        operator = lookup(node.op)
        lowering = lowerings().get(node.op)
        if lowering is None:
            raise self.refuse("no ONNX lowering for this operator")
        values = [item for item in (*node.inputs, *node.outputs) if isinstance(item, str)]
        if node.op != "astype" and any(self.specs[item].dtype in CONVERTED for item in values):
            raise self.refuse("ONNX Runtime converts float8, and does little else with it")
        is_complex = any(self.specs[item].dtype.is_complex for item in values)
        if not operator.binds and all(self._is_empty(name) for name in node.outputs if name is not None):
            for name in filter(None, node.outputs):
                with complex_pairs.as_real(self, [name]):
                    empty = self._empty(name)
                self._define_alike(name, empty)
            return
        dtype = literal_dtype(node.inputs, self.specs)
        make = complex_pairs.constant if dtype is not None and dtype.is_complex else Lowering.constant
        operands = [self._value(item) if isinstance(item, str) else item if item is None else make(self, item, dtype)  # type: ignore[arg-type]
                    for item in bind_operands(operator, node.inputs)]
        attributes = filled_attributes(operator, normalize_attributes(operator, node.attributes))
        if is_complex:
            lowering = complex_pairs.lowering_of(self, node.op, lowering)
        with complex_pairs.as_real(self, node.outputs):
            result = lowering(self, *operands, **attributes)
        results = result if isinstance(result, tuple) else (result,)
        if len(results) < len(node.outputs):
            raise self.refuse(f"output {len(results)} of this operator is not available in ONNX")
        for output, tensor in zip(node.outputs, results, strict=False):
            if output is None:
                continue
            if isinstance(tensor, complex_pairs.Pair):
                self._define(output, tensor.real)
                self.values[output] = tensor  # type: ignore[assignment]
            else:
                self._define(output, Tensor(tensor.name, self.specs[output]))
        for attribute, (place, axis) in operator.binds.items():
            if axis is None:
                self._symbol_sources.setdefault(attributes[attribute].symbol, (results[place], None))

    def _value(self, name: str) -> Tensor:
        """A value as lowerings take it. A complex parameter is kept as pairs of parts."""
        value = self.values[name]
        if isinstance(value, Tensor) and value.dtype.is_complex and value.name in self.initializers:
            spec = complex_pairs.bordered(self.specs[name])
            self.initializers[value.name] = Initializer(value.name, spec, (value.name,), Layout((("pairs", -1),)))
            if ("pair", value.name) not in self._cache:
                self._cache["pair", value.name] = complex_pairs.split(self, Tensor(value.name, spec))
            value = self._cache["pair", value.name]
        return value

    def _is_empty(self, name: str) -> bool:
        return 0 in self.specs[name].shape

    def _empty(self, name: str) -> Tensor:
        """A tensor without elements, whatever it is computed from: many of ONNX Runtime's kernels get those wrong."""
        spec = self.specs[name]
        if all(isinstance(size, int) for size in spec.shape):
            return self.constant(np.zeros([fixed(size) for size in spec.shape]), spec.dtype)
        zero = onnx.helper.make_tensor("value", self.onnx_dtype(DType.FLOAT32), [1], [0.0])
        filled = self.node("ConstantOfShape", self.sizes(spec.shape), spec=TensorSpec(DType.FLOAT32, spec.shape), value=zero)
        return self.cast(filled, spec.dtype)

    def _define_alike(self, name: str, tensor: Tensor) -> None:
        """Defines a value as `tensor`; both parts of a complex one."""
        self._define(name, tensor)
        if self.specs[name].dtype.is_complex:
            self.values[name] = complex_pairs.Pair(tensor, tensor)  # type: ignore[assignment]

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
