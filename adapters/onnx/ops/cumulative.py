"""Running sums, products and extremes along one axis. All but the sum are a `Scan` over the axis."""

from __future__ import annotations

import onnx
from onnx import helper

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute, computed_in
from adapters.onnx.registry import lowers
from converter.ir import DType, TensorSpec
from converter.ops._rules import axis_of


@lowers("cumulative_sum")
def cumulative_sum(g: Lowering, x: Tensor, *, axis: int) -> Tensor:
    return compute(g, "CumSum", x, extra=(g.constant(axis_of(axis, x.rank)),), spec=x.spec)


def _start(g: Lowering, x: Tensor, axis: int, value: float | int, dtype: DType) -> Tensor:
    """The state before the first element: `value` in the shape of one slice."""
    shape = tuple(size for place, size in enumerate(x.shape) if place != axis)
    filled = g.constant(value, dtype)
    return g.node("Expand", filled, g.sizes(shape), spec=TensorSpec(dtype, shape)) if shape else filled


def _scan(g: Lowering, x: Tensor, axis: int, states: list[Tensor], body: list[onnx.NodeProto], constants: list[onnx.TensorProto],
          outputs: list[TensorSpec]) -> list[Tensor]:
    """`Scan` over `axis`. The body reads `state0`, `state1`, … and `element`, and makes `next0`, …; all are given out again."""
    if x.shape[axis] == 0:
        # ONNX Runtime refuses a scan of no steps.
        return [g.node("Identity", x, spec=x.spec),
                *(g.node("Expand", g.constant(0, spec.dtype), g.sizes(spec.shape), spec=spec) for spec in outputs[1:])]

    # Each slice's shape is left open: names would collide with those outside.
    def info(name: str, dtype: DType) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, g.onnx_dtype(dtype), [None] * (x.rank - 1))

    numbered = list(enumerate(states))
    copies = [helper.make_node("Identity", [f"next{k}"], [f"out{k}"]) for k, _ in numbered]
    graph = helper.make_graph(
        [*body, *copies], "running", [*(info(f"state{k}", state.dtype) for k, state in numbered), info("element", x.dtype)],
        [*(info(f"next{k}", state.dtype) for k, state in numbered), *(info(f"out{k}", state.dtype) for k, state in numbered)],
        initializer=constants)
    specs = [state.spec for state in states] + outputs
    results = g.nodes_out("Scan", *states, x, specs=specs, body=graph, num_scan_inputs=1, scan_input_axes=[axis],
                          scan_output_axes=[axis] * len(states))
    return list(results[len(states):])


@lowers("cumulative_prod")
def cumulative_prod(g: Lowering, x: Tensor, *, axis: int) -> Tensor:
    inner = computed_in(g, "Mul", x.dtype)
    values, place = g.cast(x, inner), axis_of(axis, x.rank)
    body = [helper.make_node("Mul", ["state0", "element"], ["next0"])]
    result, = _scan(g, values, place, [_start(g, x, place, 1, inner)], body, [], [values.spec])
    return g.cast(result, x.dtype)


@lowers("logcumsumexp")
def logcumsumexp(g: Lowering, x: Tensor, *, axis: int) -> Tensor:
    """The state s and the element x make max(s, x) + log(1 + e^-|s - x|), summed in float64; equal infinities are 0 apart."""
    values, place = g.cast(x, DType.FLOAT64), axis_of(axis, x.rank)
    make = helper.make_node
    body = [make("Equal", ["state0", "element"], ["same"]), make("Sub", ["state0", "element"], ["difference"]),
            make("Where", ["same", "zero", "difference"], ["apart"]), make("Abs", ["apart"], ["distance"]),
            make("Neg", ["distance"], ["exponent"]), make("Exp", ["exponent"], ["share"]), make("Add", ["share", "one"], ["both"]),
            make("Log", ["both"], ["gain"]), make("Max", ["state0", "element"], ["larger"]), make("Add", ["larger", "gain"], ["next0"])]
    constants = [helper.make_tensor(name, onnx.TensorProto.DOUBLE, [], [value]) for name, value in (("zero", 0.0), ("one", 1.0))]
    result, = _scan(g, values, place, [_start(g, x, place, float("-inf"), DType.FLOAT64)], body, constants, [values.spec])
    return g.cast(result, x.dtype)


def _extreme(g: Lowering, x: Tensor, axis: int, reached: str) -> tuple[Tensor, Tensor]:
    """The state is the extreme, its index, and the position; an element takes over where it reaches the extreme or is NaN."""
    place = axis_of(axis, x.rank)
    inner = DType.INT32 if x.dtype is DType.BOOL else DType.INT64 if x.dtype is DType.UINT64 else computed_in(g, "Where", x.dtype)
    values = g.cast(x, inner)
    make = helper.make_node
    is_float = inner.is_float
    takes = "reaches"
    body = [make(reached, ["element", "state0"], ["reaches"])]
    if is_float:
        body += [make("IsNaN", ["element"], ["is_nan"]), make("IsNaN", ["state0"], ["was_nan"]), make("Not", ["was_nan"], ["solid"]),
                 make("And", ["reaches", "solid"], ["wins"]), make("Or", ["wins", "is_nan"], ["takes"])]
        takes = "takes"
    # The first element takes over whatever the state was.
    body += [make("Equal", ["state2", "zero"], ["first"]), make("Or", [takes, "first"], ["over"]),
             make("Where", ["over", "element", "state0"], ["next0"]), make("Where", ["over", "state2", "state1"], ["next1"]),
             make("Add", ["state2", "one"], ["next2"])]
    constants = [helper.make_tensor("zero", onnx.TensorProto.INT64, [], [0]), helper.make_tensor("one", onnx.TensorProto.INT64, [], [1])]
    index = _start(g, x, place, 0, DType.INT64)
    start = _start(g, x, place, 0, inner)
    order = TensorSpec(DType.INT64, x.shape)
    result, indices, _ = _scan(g, values, place, [start, index, index], body, constants, [values.spec, order, order])
    return g.cast(result, x.dtype), indices


@lowers("cummax")
def cummax(g: Lowering, x: Tensor, *, axis: int) -> tuple[Tensor, Tensor]:
    return _extreme(g, x, axis, "GreaterOrEqual")


@lowers("cummin")
def cummin(g: Lowering, x: Tensor, *, axis: int) -> tuple[Tensor, Tensor]:
    return _extreme(g, x, axis, "LessOrEqual")
