"""Control flow as ONNX's If, Loop and Scan. A body reads what it needs of the graph around it by name."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import literal
from adapters.onnx.ops.elementwise import apply
from adapters.onnx.registry import lowers
from converter.checking import infer_node
from converter.ir import DType, Graph, TensorSpec
from converter.ops import control

FLAG = TensorSpec(DType.BOOL, ())
COUNT = TensorSpec(DType.INT64, ())


@lowers("cond")
def cond(g: Lowering, predicate: Tensor, *operands: Tensor, then_branch: Graph, else_branch: Graph) -> tuple[Tensor, ...]:
    branches = {}
    for name, graph in (("then_branch", then_branch), ("else_branch", else_branch)):
        nodes: list[onnx.NodeProto] = []
        branches[name] = _graph(g, name, [], nodes, g.within(graph, operands, nodes))
    return g.nodes_out("If", predicate, specs=_specs(g), **branches)


@lowers("while_loop")
def while_loop(g: Lowering, *values: Tensor, carried: int, condition: Graph, body: Graph) -> tuple[Tensor, ...]:
    inner = [_inside(g, value) for value in values[:carried]]
    nodes: list[onnx.NodeProto] = []
    after = g.within(body, [*inner, *values[carried:]], nodes)
    counters = [Tensor(g.unique("iteration"), COUNT), Tensor(g.unique("condition"), FLAG)]
    states, specs = values[:carried], _specs(g)
    results = [Tensor(result.name, state.spec) for result, state in zip(after, states, strict=True)]
    limit = _limit(condition, body, carried)
    if limit is not None:
        graph = _graph(g, "body", [*counters, *inner], nodes, [counters[1], *results])
        rounds = _rounds(g, values[0], values[limit])
        return g.nodes_out("Loop", rounds, g.constant(True, DType.BOOL), *states, specs=specs, body=graph)
    (first,) = g.within(condition, values, g.nodes)
    (again,) = g.within(condition, [*after, *values[carried:]], nodes)
    graph = _graph(g, "body", [*counters, *inner, Tensor(g.unique("before"), FLAG)], nodes, [again, *results, again])
    most = g.scalar_size(control.MAX_STEPS)
    *found, left = g.nodes_out("Loop", most, first, *states, first, specs=[*specs, FLAG], body=graph)
    # Where the condition still holds after the last step, the results are looked up at a place that is not there: an error.
    place = g.cast(left, DType.INT64)
    return tuple(g.node("Gather", g.node("Unsqueeze", item, g.constant([0])), place, spec=item.spec) for item in found)


def _limit(condition: Graph, body: Graph, carried: int) -> int | None:
    """The position of the number that a loop counts to: where it runs as long as value 0, to which the body adds 1, is less."""
    names = [port.name for port in condition.inputs]
    step = next((node for node in body.nodes if body.outputs[0].value in node.outputs), None)
    if step is None or (step.op, step.inputs) != ("add", (body.inputs[0].name, 1)) or body.inputs[0].spec != COUNT:
        return None
    asked = [(node.op, node.inputs[0], node.inputs[-1] in names[carried:]) for node in condition.nodes]
    return names.index(str(condition.nodes[0].inputs[-1])) if asked == [("less", names[0], True)] else None


def _rounds(g: Lowering, start: Tensor, limit: Tensor) -> Tensor:
    """How often a loop counts; more steps than are allowed are looked up at a place that is not there: an error."""
    first, last = literal(g, start), literal(g, limit)
    if first is not None and last is not None and int(last) - int(first) <= control.MAX_STEPS:
        return g.constant(int(last) - int(first))
    rounds = apply(g, "Sub", limit, start)
    over = g.cast(apply(g, "Greater", rounds, g.constant(control.MAX_STEPS), dtype=DType.BOOL), DType.INT64)
    return g.node("Gather", g.node("Unsqueeze", rounds, g.constant([0]), spec=TensorSpec(DType.INT64, (1,))), over, spec=COUNT)


@lowers("scan")
def scan(g: Lowering, *values: Tensor, states: int, sequences: int, body: Graph) -> tuple[Tensor, ...]:
    initial, scanned, rest = values[:states], values[states:states + sequences], values[states + sequences:]
    inner = [*(_inside(g, value) for value in initial), *(_inside(g, value, 1) for value in scanned)]
    nodes: list[onnx.NodeProto] = []
    graph = _graph(g, "body", inner, nodes, g.within(body, [*inner, *rest], nodes))
    return g.nodes_out("Scan", *initial, *scanned, specs=_specs(g), num_scan_inputs=len(scanned), body=graph)


def _specs(g: Lowering) -> list[TensorSpec]:
    return list(infer_node(g.current, g.specs))


def _inside(g: Lowering, value: Tensor, drop: int = 0) -> Tensor:
    """What a body calls a value that it is given anew each time, without its first axes."""
    return Tensor(g.unique(f"{value.name}/inside"), TensorSpec(value.dtype, value.shape[drop:]))


def _graph(g: Lowering, name: str, inputs: Sequence[Tensor], nodes: list[onnx.NodeProto], outputs: Sequence[Tensor]) -> onnx.GraphProto:
    """A body of nodes. Its outputs are made by its own nodes, and each is another value."""
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
    # Symbols stay open: names would collide with those outside.
    shape = [size if isinstance(size, int) else None for size in value.shape]
    return onnx.helper.make_tensor_value_info(value.name, g.onnx_dtype(value.dtype), shape)
