"""Control flow as ONNX's If, Loop and Scan. A body reads what it needs of the graph around it by name."""

from __future__ import annotations

import onnx

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.loops import FLAG, body_graph
from adapters.onnx.registry import lowers
from converter.checking import infer_node
from converter.ir import DType, Graph, TensorSpec
from converter.ops import control


@lowers("cond")
def cond(g: Lowering, predicate: Tensor, *operands: Tensor, then_branch: Graph, else_branch: Graph) -> tuple[Tensor, ...]:
    branches = {}
    for name, graph in (("then_branch", then_branch), ("else_branch", else_branch)):
        nodes: list[onnx.NodeProto] = []
        branches[name] = body_graph(g, name, [], nodes, g.within(graph, operands, nodes))
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
    unread = Tensor(g.unique("before"), FLAG)
    graph = body_graph(g, "body", [*counters, *inner, unread], nodes, [again, *after, again])
    most = g.scalar_size(control.MAX_STEPS)
    *found, left = g.nodes_out("Loop", most, first, *values[:carried], first, specs=[*_specs(g), FLAG], body=graph)
    # Where the condition still holds after the last step, the results are looked up at a place that is not there: an error.
    place = g.cast(left, DType.INT64)
    return tuple(g.node("Gather", g.node("Unsqueeze", item, g.constant([0])), place, spec=item.spec) for item in found)


@lowers("scan")
def scan(g: Lowering, *values: Tensor, states: int, sequences: int, body: Graph) -> tuple[Tensor, ...]:
    initial, scanned, rest = values[:states], values[states:states + sequences], values[states + sequences:]
    inner = [*(_inside(g, value) for value in initial),
             *(_inside(g, Tensor(value.name, TensorSpec(value.dtype, value.shape[1:]))) for value in scanned)]
    nodes: list[onnx.NodeProto] = []
    graph = body_graph(g, "body", inner, nodes, g.within(body, [*inner, *rest], nodes))
    return g.nodes_out("Scan", *initial, *scanned, specs=_specs(g), num_scan_inputs=sequences, body=graph)


def _specs(g: Lowering) -> list[TensorSpec]:
    return list(infer_node(g.current, g.specs))


def _inside(g: Lowering, value: Tensor) -> Tensor:
    """What a body calls a value that it is given anew each time."""
    return Tensor(g.unique(f"{value.name}/inside"), value.spec)
