"""ONNX's Loop around nodes that a Python function emits: what lowerings of iterative algorithms are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import onnx

from adapters.onnx.lowering.context import Lowering, Tensor
from converter.dims import Dim
from converter.ir import DType, TensorSpec

FLAG = TensorSpec(DType.BOOL, ())


@dataclass(frozen=True, slots=True)
class Step:
    """What one round of a loop gives: the next states, one element of each collected output, and whether to go on."""

    states: Sequence[Tensor]
    collected: Sequence[Tensor] = field(default=())
    again: Tensor | None = None


def loop(g: Lowering, count: Dim | Tensor, states: Sequence[Tensor], body: Callable[[Tensor, list[Tensor]], Step],
         ) -> tuple[list[Tensor], list[Tensor]]:
    """At most `count` rounds of `body(index, states)`. Gives the last states, and what was collected, stacked on a first axis.

    States keep their dtype and shape. `index` is a 0-d int64 tensor. The body may read every value that there is by now.
    """
    index, condition = Tensor(g.unique("index"), TensorSpec(DType.INT64, ())), Tensor(g.unique("go_on"), FLAG)
    inside = [Tensor(g.unique(f"{state.name}/state"), state.spec) for state in states]
    with g.inside() as nodes:
        step = body(index, inside)
        after = [Tensor(result.name, state.spec) for result, state in zip(step.states, states, strict=True)]
        graph = body_graph(g, "body", [index, condition, *inside], nodes, [step.again or condition, *after, *step.collected])
    trips = count if isinstance(count, Tensor) else g.scalar_size(count)
    length: Dim = count if not isinstance(count, Tensor) else 0
    stacked = [TensorSpec(item.dtype, (length, *item.shape)) for item in step.collected]
    results = g.nodes_out("Loop", trips, g.constant(True, DType.BOOL), *states, specs=[*(state.spec for state in states), *stacked],
                          body=graph)
    collected = list(results[len(states):])
    if not isinstance(count, Tensor) and g.may_be_empty((count,)):
        # Of no rounds, ONNX Runtime does not know what shape was to be stacked.
        collected = [g.node("Reshape", item, g.sizes(item.shape), spec=item.spec, allowzero=1) for item in collected]
    return list(results[:len(states)]), collected


def body_graph(g: Lowering, name: str, inputs: Sequence[Tensor], nodes: list[onnx.NodeProto], outputs: Sequence[Tensor]) -> onnx.GraphProto:
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
