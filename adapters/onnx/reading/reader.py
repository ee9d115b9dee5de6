"""Walks a graph of ONNX's operators and emits neutral nodes through the readers of `adapters/onnx/readers`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from adapters.onnx.initializers import embedded_array
from adapters.onnx.load import FROM_ONNX, text_of
from adapters.onnx.reading.attributes import check_call, decoded
from adapters.onnx.reading.constants import ARITHMETIC, COMPUTED, evaluate_constants
from adapters.onnx.reading.damage import damage_of
from adapters.onnx.reading.items import SMALL, Item, as_numbers, as_sizes, from_sizes, is_numeric
from adapters.onnx.reading.known import evaluate
from adapters.onnx.reading.parameters import MADE_UP, ForeignParameters, Step, arrange
from adapters.onnx.registry import readers
from converter.builder import GraphBuilder, Value
from converter.dims import Dim, Expr, fixed
from converter.errors import ConverterError, FormatError, GraphError, UnsupportedError
from converter.ir import Array, DType
from converter.ports.importing import GraphImporter
from converter.ports.refusals import Refusals

STANDARD = ("", "ai.onnx")
MOST_LOOKED_AT = 5_000_000
"""Elements that are evaluated while a graph is read: arithmetic of sizes takes some thousands."""
Result = Value | Item | list[Any]


class Reader(GraphImporter):
    """What a reader works with: the builder, the current node, and helpers that emit nodes."""

    def __init__(self, builder: GraphBuilder, versions: Mapping[str, int], store: ForeignParameters, outer: Reader | None = None) -> None:
        """
        Args:
            builder: of the graph that is made.
            versions: the version of each domain's operators.
            store: the initializers; gains the parameters that the readers make.
            outer: of the graph around this one.
        """
        super().__init__(builder, Refusals(facts=()) if outer is None else outer.refusals)
        self.versions, self.store, self.outer = versions, store, outer
        self.values: dict[str, Any] = {}
        self.node = onnx.NodeProto()
        self.unknown: set[str] = set()
        self.notes: list[str] = []
        self.written_out = 0
        """Nodes that loops have become."""
        self.symbols: dict[str, int] = {}
        self.looked_at = 0
        """Elements of the operands that were evaluated so far, in the whole graph."""
        self.captured: dict[str, Value] = {}
        self.ports: dict[str, Value] = {}
        """By the name of a tensor of the graph around: the tensor, and the input of this graph that it is."""

    def top(self) -> Reader:
        """The reader of the whole graph."""
        found = self
        while found.outer is not None:
            found = found.outer
        return found

    @property
    def depth(self) -> int:
        """How many graphs lie around this one, itself counted."""
        return 0 if self.outer is None else self.outer.depth + 1

    # For readers -----------------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The version of the operators of the current node's domain."""
        return self.versions.get(_domain(self.node), 1)

    @property
    def source(self) -> str:
        """What the current node is called in its file."""
        return f"{self.node.op_type} {self.node.name or next((name for name in self.node.output if name), '')}"[:200]

    @property
    def operator(self) -> str:
        return qualified(self.node)

    def taken(self, value: Any) -> Any:
        return self.tensor(value) if isinstance(value, Item) else value

    def tensor(self, item: Item | Value | None) -> Value:
        """A value of the ONNX graph as a tensor of the neutral one."""
        if isinstance(item, Value):
            return item
        if not isinstance(item, Item):
            raise self.refuse("an operand that is no tensor")
        if item.value is None:
            if item.make is not None:
                item.value = item.make()
            elif item.known is not None and is_numeric(item.known):
                item.value = self.constant(as_numbers(item.known, item.dtype))
            else:
                item.value = self._sizes_as_tensor(item)
        return item.value

    def constant(self, values: Array, name: str | None = None) -> Value:
        """A tensor whose values are part of the graph: one number is a `full`, more are a parameter."""
        dtype = DType.of(values.dtype)
        if values.size == 1 and values.dtype.kind in "biuf" and np.isfinite(values).all():
            return self.op("full", shape=values.shape, fill_value=values.reshape(-1)[0].item(), dtype=dtype)
        if self.outer is not None:
            return self._take(self.outer.constant(values, name))
        name = self.builder.unique(name or f"{self.node.output[0] if self.node.output else 'graph'}.constant")
        self.store.constants[name] = np.array(values, order="C")
        return self.builder.parameter(name, dtype, values.shape)

    def learned(self, values: Array, stem: str) -> Value:
        """A parameter of what a node's attributes hold and training found: part of the state_dict, named after the node."""
        if self.outer is not None:
            return self._take(self.outer.learned(values, stem))
        name = self.builder.unique(f"{self.node.name or next(filter(None, self.node.output), 'graph')}.{stem}")
        self.store.constants[name] = np.array(values, order="C")
        self.store.learned.add(name)
        return self.builder.parameter(name, DType.of(values.dtype), values.shape)

    def arranged(self, item: Item, steps: tuple[Step, ...], stem: str, sure: bool = False) -> Value | None:
        """A weight in another layout, as a parameter of its own; None for what is no initializer.

        The parameter has the initializer's name where nothing else needs that as it is, and `stem` where that was made up, or is `sure`.
        """
        if item.initializer is None:
            return None
        if self.outer is not None:
            found = self.outer.arranged(item, steps, stem, sure)
            return None if found is None else self._take(found)
        key = (item.initializer, steps)
        if key not in self.store.arranged:
            name = stem if stem and (sure or MADE_UP.search(item.initializer)) else item.initializer
            self.store.arranged[key] = name if name not in self.builder.specs else self.builder.unique(f"{name}.arranged")
        name = self.store.arranged[key]
        return self.builder.parameter(name, item.dtype, arrange(np.broadcast_to(np.int8(0), tuple(map(fixed, item.shape))), steps).shape)

    def constant_item(self, values: Array, name: str | None = None) -> Item:
        """A constant: looked into where it is small, and a tensor of the graph where a node needs it."""
        name = name or (self.node.output[0] if self.node.output else None)
        item = Item(DType.of(values.dtype), values.shape, None, values if values.size <= SMALL else None)
        item.make = lambda: self.constant(values, name)
        return item

    def _sizes_as_tensor(self, item: Item) -> Value:
        known = item.known
        if known is None:
            raise self.refuse("an operand that has no value")
        parts = [self.op("full", shape=(), fill_value=size, dtype=item.dtype) for size in as_sizes(known)]
        if known.ndim == 0:
            return parts[0]
        found = self.op("stack", *parts, axis=0)
        return found if known.ndim == 1 else self.op("reshape", found, shape=known.shape)

    def shape(self, item: Item | Value | None) -> tuple[Dim, ...]:
        return self._some(item).shape

    def dtype(self, item: Item | Value | None) -> DType:
        return self._some(item).dtype

    def rank(self, item: Item | Value | None) -> int:
        return len(self.shape(item))

    def _some(self, item: Item | Value | None) -> Item | Value:
        if not isinstance(item, (Item, Value)):
            raise self.refuse("an operand that is no tensor")
        return item

    def known(self, item: Item | Value | None) -> Array | None:
        """The elements of an operand, numbers or sizes, where they are known."""
        return item.known if isinstance(item, Item) else None

    def numbers(self, item: Item | None, what: str) -> Array:
        """The elements of an operand, none of them a size. Raises where only a run knows them."""
        known = self.known(item)
        if known is None or not is_numeric(known):
            raise self.refuse(f"{what} that only a run knows")
        return as_numbers(known, self.dtype(item))

    def integers(self, item: Item | None, what: str) -> list[int]:
        """The elements of an integer operand."""
        return [int(value) for value in self.numbers(item, what).reshape(-1).tolist()]

    def sizes(self, item: Item | None, what: str) -> list[Dim]:
        """The elements of an integer operand, as sizes. Raises where only a run knows them."""
        known = self.known(item)
        if known is None:
            raise self.refuse(f"{what} that only a run knows")
        return as_sizes(known)

    def size_symbol(self, stem: str) -> str:
        """A name for a size that only the data decide."""
        name = stem
        while name in self.builder.dims:
            self.symbols[stem] = self.symbols.get(stem, 1) + 1
            name = f"{stem}_{self.symbols[stem]}"
        return name

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front. Raises for one that there is not."""
        if not -rank <= axis < rank:
            raise self.refuse(f"axis {axis} of {rank} axes")
        return axis % rank

    def like(self, number: float, item: Item | Value) -> Value:
        """A number as a tensor of no axes, of another tensor's dtype."""
        dtype = self.dtype(item)
        value: Any = int(number) if dtype.is_integer else float(number)
        return self.op("full", shape=(), fill_value=value, dtype=dtype)

    # For the walk ------------------------------------------------------------------------------------------------------------

    def walk(self, graph: onnx.GraphProto) -> None:
        """Reads every node; what cannot be expressed is noted, for `finish`."""
        made = _given(graph)
        for node in graph.node:
            twice = [name for name in node.output if name and name in made]
            if twice:
                raise FormatError("a damaged ONNX file: a value is made twice", where=repr(twice[0][:80]), fix="make the file again")
            made.update(node.output)
            outer, self.node = self.node, node
            try:
                self._visit(node)
            finally:
                self.node = outer

    def finish(self) -> None:
        """Raises `UnsupportedError` that lists all that cannot be expressed, if there is anything."""
        if self.unknown and not self.refusals:
            self.refusals.add(UnsupportedError("cannot be read"), f"what makes {min(filter(None, self.unknown), default='a value')!r}")
        if self.refusals:
            raise self.refusals.error(lambda count: f"{count} operator{'' if count == 1 else 's'} cannot be read",
                                      "report the operators as gaps; the tensors alone are read by convert onnx-to-safetensors")

    def _visit(self, node: onnx.NodeProto) -> None:
        name = qualified(node)
        if any(self.is_unknown(item) for item in node.input):
            self.unknown.update(node.output)
            if name not in readers():
                self.refusals.add(self.refuse("no reader for this operator"), name)
            return
        try:
            self._read(node, name)
        except UnsupportedError as error:
            if not any(item["operator"] == "" for item in error.items):  # what is behind it was told
                self.refusals.add(error, name)
            self.unknown.update(node.output)
        except ConverterError as error:
            raise error.within(f"node {self.source}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Readers are written for what an operator takes: what else a file gives them does not get a check of its own everywhere.
            damage = damage_of(node, [self.lookup(item) if item else None for item in node.input], self.versions)
            if damage != "":
                raise FormatError("operands or attributes that do not fit the operator", where=f"node {self.source}",
                                  received=damage or str(error)[:200], fix="the file is damaged: make it again") from error
            reason = f"its reader fails, which is a defect of the converter: {type(error).__name__}: {error}"
            self.refusals.add(self.refuse(reason[:200]), name)
            self.unknown.update(node.output)

    def _read(self, node: onnx.NodeProto, name: str) -> None:
        inputs = [self.lookup(text_of(item)) if item else None for item in node.input]
        attributes = decoded(node, self.version)
        result = self._evaluated(node, name, inputs, attributes)
        if result is None:
            function = readers().get(name)
            if function is None:
                raise self.refuse("no reader for this operator")
            check_call(self, function, inputs, attributes)
            result = function(self, *inputs, **attributes)
        results = result if isinstance(result, tuple) else (result,)
        if len(results) < sum(bool(item) for item in node.output):
            raise self.refuse(f"{len(node.output)} outputs, of which {len(results)} can be read")
        for output, found in zip(node.output, results, strict=False):
            if output:
                if found is None:
                    raise self.refuse(f"its output {text_of(output)!r}")
                self.values[text_of(output)] = Item.of(found) if isinstance(found, Value) else found

    def read_initializers(self, graph: onnx.GraphProto) -> None:
        """The constants of a branch or a body: tensors of the whole graph, which this one takes as it takes others."""
        for tensor in graph.initializer:
            if tensor.data_type not in FROM_ONNX:
                raise UnsupportedError("", items=[{"operator": "a branch or a body", "reason": "a constant that is no number"}])
            self.values[text_of(tensor.name)] = self.constant_item(embedded_array(tensor), text_of(tensor.name))

    def lookup(self, name: str) -> Any:
        """A value by its name, of this graph or of the one around it."""
        if name in self.values:
            return self.values[name]
        if self.outer is None:
            raise GraphError(f"no value {name!r} before this node", fix="the file is damaged: make it again")
        around, outer = self.outer.lookup(name), self.outer
        found = around
        if isinstance(around, Item):
            found = Item(around.dtype, around.shape, None, around.known, lambda: self._take(outer.tensor(around)), around.initializer)
        self.values[name] = found
        return found

    def is_unknown(self, name: str) -> bool:
        """Whether a value is one that could not be read."""
        return name in self.unknown or name not in self.values and self.outer is not None and self.outer.is_unknown(name)

    def results(self, graph: onnx.GraphProto) -> list[Any]:
        """What a branch or a body gives. Raises `UnsupportedError` where that could not be read."""
        names = [text_of(output.name) for output in graph.output]
        if any(self.is_unknown(name) for name in names):
            raise UnsupportedError("a branch or a body that cannot be read", items=[{"operator": "", "reason": ""}])
        return [self.lookup(name) for name in names]

    def _take(self, value: Value) -> Value:
        """A tensor of the graph around as an input of this one."""
        if value.name not in self.ports:
            self.captured[value.name] = value
            self.ports[value.name] = self.builder.input(self.builder.unique(value.name), value.dtype, value.shape)
        return self.ports[value.name]

    def _evaluated(self, node: onnx.NodeProto, name: str, inputs: Sequence[Any], attributes: dict[str, Any]) -> Item | None:
        """The node's result where the graph and its sizes decide it."""
        if name in ("Shape", "Size"):
            return _shape_of(self, name, inputs[0], **attributes)
        known = [item is None or isinstance(item, Item) and item.known is not None for item in inputs]
        if not inputs or len(node.output) != 1 or not all(known):
            return None
        top = self.top()
        top.looked_at += sum(item.known.size for item in inputs if item is not None)
        if top.looked_at > MOST_LOOKED_AT:
            return None
        held = [None if item is None else item.known for item in inputs]
        if name == "Cast":
            return _cast_known(inputs[0], held[0], FROM_ONNX.get(attributes["to"]))
        if all(item is None or is_numeric(item) for item in held) and name in COMPUTED:
            return evaluate_constants(node, inputs, self.version)
        if any(item is not None and item.dtype.is_float for item in inputs) and name in ARITHMETIC:
            return None  # Python's floats are not the tensor's
        found = evaluate(name, held, attributes)
        if found is None:
            return None
        if name == "ConstantOfShape":
            value = attributes.get("value")
            dtype = DType.FLOAT32 if value is None else DType.of(value.dtype)
        else:
            dtype = DType.BOOL if name in COMPARISONS else inputs[1 if name == "Where" else 0].dtype
        return Item(dtype, found.shape, None, found)


def _given(graph: onnx.GraphProto) -> set[str]:
    """The names of a graph's inputs and constants. Raises `FormatError` for two inputs, or two outputs, of one name."""
    for kind, ports in (("inputs", graph.input), ("outputs", graph.output)):
        twice = [name for name, count in Counter(text_of(port.name) for port in ports).items() if count > 1]
        if twice:
            raise FormatError(f"a damaged ONNX file: two {kind} have one name", where=repr(twice[0][:80]), fix="make the file again")
    return {item.name for item in (*graph.input, *graph.initializer)}


COMPARISONS = frozenset({"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or"})


def _shape_of(g: Reader, name: str, item: Item | None, *, start: int = 0, end: int | None = None) -> Item:
    sizes = g.shape(item)
    if name == "Size":
        total: Dim = 1
        for size in sizes:
            total = total * size
        return Item(DType.INT64, (), None, from_sizes([total], ()))
    sizes = sizes[slice(start, end)]
    return Item(DType.INT64, (len(sizes),), None, from_sizes(sizes))


def _cast_known(item: Item, known: Array | None, dtype: DType | None) -> Item | None:
    if known is None or dtype is None or dtype.is_complex:
        return None
    if not is_numeric(known):
        # A size as a float stays the whole number that it is.
        return Item(dtype, item.shape, None, known) if dtype in (DType.INT64, DType.INT32, DType.FLOAT32, DType.FLOAT64) else None
    values = as_numbers(known, item.dtype)
    if item.dtype.is_float and not dtype.is_float and not np.isfinite(values.astype(np.float64)).all():
        return None
    return Item(dtype, item.shape, None, values.astype(dtype.numpy))


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain in STANDARD else str(node.domain)


def qualified(node: onnx.NodeProto) -> str:
    """`Conv`, or `com.microsoft.FusedConv` for an operator of another domain than ONNX's own."""
    domain = _domain(node)
    return f"{text_of(domain)}.{text_of(node.op_type)}" if domain else text_of(node.op_type)


__all__ = ["Expr", "Reader", "Result", "qualified"]
