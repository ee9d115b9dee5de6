"""Graphs within a graph: what they take from around them becomes operands of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from adapters.onnx.load import text_of
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from converter.builder import GraphBuilder, Value
from converter.dims import Dim
from converter.format.limits import MAX_GRAPH_DEPTH
from converter.ir import DType, Graph, GraphInput, Node

Kind = tuple[DType, tuple[Dim, ...]]


@dataclass
class Body:
    """A sub-graph that was read: its own inputs and results, and by name the tensors of the graph around that it takes."""

    reader: Reader
    inputs: list[Value]
    results: list[Value]

    @property
    def captured(self) -> dict[str, Value]:
        return self.reader.captured

    def graph(self, inputs: Sequence[Value], captured: Mapping[str, Value], results: Sequence[Value] | None = None) -> Graph:
        """The graph with these inputs, then one for each of `captured`, in that order, whether it takes it or not."""
        builder = self.reader.builder
        for number, result in enumerate(self.results if results is None else results):
            builder.output(f"result_{number}", result)
        graph = builder.graph()
        ports = {port.name: port for port in graph.inputs}
        order = [ports[value.name] for value in inputs]
        for name, value in captured.items():
            own = self.reader.ports.get(name)
            if own is None:
                order.append(GraphInput(builder.input(builder.unique("unused"), value.dtype, value.shape).name, value.spec))
            else:
                order.append(ports[own.name])
        return replace(graph, inputs=tuple(order))

    def as_scan(self) -> Graph:
        """The body of a `Loop` whose condition stays true as a `scan`'s: the states first, then the number of the step."""
        number, condition, *states = self.inputs
        graph = self.graph([*states, number], self.captured, self.results[1:])
        used = any(condition.name in node.inputs for node in graph.nodes) or any(out.value == condition.name for out in graph.outputs)
        true = Node("full", (), (condition.name,), {"shape": (), "fill_value": True, "dtype": DType.BOOL})
        return replace(graph, nodes=(true, *graph.nodes)) if used else graph

    def as_while(self) -> tuple[Graph, Graph]:
        """The condition and the body of a `while_loop` that carries number, condition and states, and takes a limit."""
        test = GraphBuilder("condition")
        number, going, *_ = [test.input(f"value_{place}", value.dtype, value.shape) for place, value in enumerate(self.inputs)]
        limit = test.input("limit", DType.INT64, ())
        for place, value in enumerate(self.captured.values()):
            test.input(f"more_{place}", value.dtype, value.shape)
        test.output("result_0", test.op("logical_and", going, test.op("less", number, limit)))
        builder = self.reader.builder
        own_limit = builder.input(builder.unique("limit"), DType.INT64, ())
        following = builder.op("add", self.inputs[0], 1)
        return test.graph(), self.graph([*self.inputs, own_limit], self.captured, [following, *self.results])


def read_body(outer: Reader, graph: onnx.GraphProto, kinds: Sequence[Kind]) -> Body:
    """A sub-graph whose inputs have these dtypes and shapes. Raises `UnsupportedError` for one that cannot be read."""
    if len(graph.input) != len(kinds):
        raise outer.refuse("a body that takes another number of values")
    reader = Reader(GraphBuilder("body"), outer.versions, outer.store, outer)
    if reader.depth > MAX_GRAPH_DEPTH:
        raise outer.refuse(f"graphs within graphs, too deep: a neutral model has {MAX_GRAPH_DEPTH} levels of them at most")
    inputs = []
    for item, (dtype, shape) in zip(graph.input, kinds, strict=True):
        name = text_of(item.name)
        inputs.append(reader.builder.input(reader.builder.unique(name), dtype, shape))
        reader.values[name] = Item.of(inputs[-1])
    reader.read_initializers(graph)
    reader.walk(graph)
    found = reader.results(graph)
    if not all(isinstance(item, Item) for item in found):
        raise outer.refuse("a branch that gives what is no tensor, whose choice only a run knows")
    results = [reader.tensor(item) for item in found]
    # A result is made in the body: what it only passes on is made anew.
    given = {value.name for value in (*inputs, *reader.ports.values())}
    results = [reader.op("astype", value, dtype=value.dtype) if value.name in given else value for value in results]
    return Body(reader, inputs, results)
