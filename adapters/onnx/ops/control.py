"""Control flow as ONNX's If, Loop and Scan. A body reads what it needs of the graph around it by name."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.registry import lowers
from converter.checking import infer_node
from converter.ir import DType, Graph, TensorSpec

FLAG = TensorSpec(DType.BOOL, ())


@lowers("cond")
def cond(g: Lowering, predicate: Tensor, *operands: Tensor, then_branch: Graph, else_branch: Graph) -> tuple[Tensor, ...]:
    branches = {}
    for name, graph in (("then_branch", then_branch), ("else_branch", else_branch)):
        nodes: list[onnx.NodeProto] = []
        branches[name] = _graph(g, name, [], nodes, g.within(graph, operands, nodes))
    return g.nodes_out("If", predicate, specs=_specs(g), **branches)


@lowers("while_loop")
def while_loop(g: Lowering, *values: Tensor, carried: int, condition: Graph, body: Graph) -> tuple[Tensor, ...]:
    (first,) = g.within(condition, values, g.nodes)
    inner = [_inside(g, value) for value in values[:carried]]
    nodes: list[onnx.NodeProto] = []
    results = g.within(body, [*inner, *values[carried:]], nodes)
    after = [Tensor(result.name, value.spec) for result, value in zip(results, values, strict=False)]
    (again,) = g.within(condition, [*after, *values[carried:]], nodes)
    counters = [Tensor(g.unique("iteration"), TensorSpec(DType.INT64, ())), Tensor(g.unique("condition"), FLAG)]
    graph = _graph(g, "body", [*counters, *inner], nodes, [again, *after])
    return g.nodes_out("Loop", None, first, *values[:carried], specs=_specs(g), body=graph)


@lowers("scan")
def scan(g: Lowering, *values: Tensor, states: int, sequences: int, body: Graph) -> tuple[Tensor, ...]:
    initial, scanned, rest = values[:states], values[states:states + sequences], values[states + sequences:]
    inner = [*(_inside(g, value) for value in initial),
             *(_inside(g, Tensor(value.name, TensorSpec(value.dtype, value.shape[1:]))) for value in scanned)]
    nodes: list[onnx.NodeProto] = []
    graph = _graph(g, "body", inner, nodes, g.within(body, [*inner, *rest], nodes))
    return g.nodes_out("Scan", *initial, *scanned, specs=_specs(g), num_scan_inputs=sequences, body=graph)


def _specs(g: Lowering) -> list[TensorSpec]:
    return list(infer_node(g._current, g.specs))  # type: ignore[arg-type]


def _inside(g: Lowering, value: Tensor) -> Tensor:
    """What a body calls a value that it is given anew each time."""
    return Tensor(g.unique(f"{value.name}/inside"), value.spec)


def _graph(g: Lowering, name: str, inputs: Sequence[Tensor], nodes: list[onnx.NodeProto], outputs: Sequence[Tensor]) -> onnx.GraphProto:
    """A body. Its outputs are made by its own nodes, and each is another value."""
    own = {item for node in nodes for item in node.output}
    named: list[Tensor] = []
    for output in outputs:
        if output.name not in own or any(output.name == other.name for other in named):
            fresh = Tensor(g.unique(f"{output.name}/result"), output.spec)
            nodes.append(onnx.helper.make_node("Identity", [output.name], [fresh.name], name=g.unique(f"{fresh.name}_node")))
            output = fresh
        named.append(output)
    return onnx.helper.make_graph(nodes, g.unique(name), [_info(g, item) for item in inputs], [_info(g, item) for item in named])


def _info(g: Lowering, value: Tensor) -> onnx.ValueInfoProto:
    shape = [size if isinstance(size, int) else None for size in value.shape]
    return onnx.helper.make_tensor_value_info(value.name, g.onnx_dtype(value.dtype), shape)
