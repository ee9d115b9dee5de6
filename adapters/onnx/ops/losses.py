"""Losses that are no plain formula: a Scan over time."""

from __future__ import annotations

import onnx
from onnx import helper

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.indices import from_zero
from adapters.onnx.registry import lowers
from converter.ir import DType, TensorSpec


@lowers("ctc_loss")
def ctc_loss(g: Lowering, log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, *, blank: int) -> Tensor:
    """The forward recursion in logarithms; minus infinity is the logarithm of nothing throughout."""
    dtype = log_probs.dtype if log_probs.dtype in (DType.FLOAT32, DType.FLOAT64) else DType.FLOAT32
    logs, integers = g.cast(log_probs, dtype), DType.INT64
    time, batch, _ = logs.shape
    length = targets.shape[1]
    states = 2 * length + 1
    row, table, truth = TensorSpec(integers, (batch, 1)), TensorSpec(integers, (batch, states)), TensorSpec(DType.BOOL, (batch, states))
    nothing, blanks = g.constant(float("-inf"), dtype), g.constant(blank)

    # blank, l1, blank, l2, …, blank
    pairs = g.node("Unsqueeze", targets, g.constant([2]), spec=TensorSpec(integers, (batch, length, 1)))
    pairs = g.node("Pad", pairs, g.constant([0, 0, 1, 0, 0, 0]), blanks, spec=TensorSpec(integers, (batch, length, 2)))
    flat = g.node("Reshape", pairs, g.sizes((batch, 2 * length)), spec=TensorSpec(integers, (batch, 2 * length)), allowzero=1)
    labels = g.node("Pad", flat, g.constant([0, 0, 0, 1]), blanks, spec=table)
    # Two steps at once only to a label that is no blank and not the one before.
    before = g.node("Slice", g.node("Pad", labels, g.constant([0, 2, 0, 0]), blanks, spec=TensorSpec(integers, (batch, states + 2))),
                    g.constant([0]), g.constant([-2]), g.constant([1]), spec=table)
    same = g.node("Or", g.node("Equal", labels, before, spec=truth), g.node("Equal", labels, blanks, spec=truth), spec=truth)
    places = g.node("Range", g.constant(0), g.scalar_size(states), g.constant(1), spec=TensorSpec(integers, (states,)))
    ends = g.node("Mul", g.node("Unsqueeze", target_lengths, g.constant([1]), spec=row), g.constant(2), spec=row)
    inside = g.node("LessOrEqual", places, ends, spec=truth)
    classes = from_zero(g, g.node("Where", inside, labels, blanks, spec=table), log_probs.shape[2])
    classes = g.node("Expand", g.node("Unsqueeze", classes, g.constant([0]), spec=TensorSpec(integers, (1, batch, states))),
                     g.sizes((time, 1, 1)), spec=TensorSpec(integers, (time, batch, states)))
    emitted = g.node("GatherElements", logs, classes, spec=TensorSpec(dtype, (time, batch, states)), axis=2)
    times = g.node("Range", g.constant(0), g.scalar_size(time), g.constant(1), spec=TensorSpec(integers, (time,)))
    times = g.node("Reshape", times, g.constant([-1, 1, 1]), spec=TensorSpec(integers, (time, 1, 1)))
    active = g.node("Less", times, g.node("Unsqueeze", input_lengths, g.constant([1]), spec=row), spec=TensorSpec(
        DType.BOOL, (time, batch, 1)))

    start = g.node("Where", g.node("Equal", places, g.constant(0), spec=TensorSpec(DType.BOOL, (states,))), g.constant(0.0, dtype), nothing,
                   spec=TensorSpec(dtype, (states,)))
    start = g.node("Expand", start, g.sizes((batch, 1)), spec=TensorSpec(dtype, (batch, states)))
    body = _body(g, dtype, nothing, same)
    alpha, = g.nodes_out("Scan", start, emitted, active, specs=[TensorSpec(dtype, (batch, states))], body=body, num_scan_inputs=2)

    chosen = TensorSpec(dtype, (batch, 1))
    last = g.node("GatherElements", alpha, from_zero(g, ends, states), spec=chosen, axis=1)
    previous = g.node("Max", g.node("Sub", ends, g.constant(1), spec=row), g.constant(0), spec=row)
    other = g.node("GatherElements", alpha, previous, spec=chosen, axis=1)
    other = g.node("Where", g.node("Greater", ends, g.constant(0), spec=TensorSpec(DType.BOOL, (batch, 1))), other, nothing, spec=chosen)
    larger = g.node("Max", last, other, spec=chosen)
    finite = _finite(g, larger, nothing, chosen)
    terms = [g.node("Exp", g.node("Sub", item, finite, spec=chosen), spec=chosen) for item in (last, other)]
    total = g.node("Add", g.node("Log", g.node("Add", *terms, spec=chosen), spec=chosen), finite, spec=chosen)
    result = g.node("Squeeze", g.node("Neg", total, spec=chosen), g.constant([1]), spec=TensorSpec(dtype, (batch,)))
    return g.cast(result, log_probs.dtype)


def _finite(g: Lowering, x: Tensor, nothing: Tensor, spec: TensorSpec) -> Tensor:
    """`x`, and 0 where it is minus infinity, so that differences from it are no NaN."""
    empty = g.node("Equal", x, nothing, spec=TensorSpec(DType.BOOL, spec.shape))
    return g.node("Where", empty, g.constant(0.0, spec.dtype), x, spec=spec)


def _body(g: Lowering, dtype: DType, nothing: Tensor, same: Tensor) -> onnx.GraphProto:
    """One time: α and the emissions to the next α, kept as it is past an input's end. Reads `same` from the graph around."""
    n = {name: g.unique(f"ctc/{name}") for name in (
        "alpha", "logs", "active", "one_wide", "two_wide", "one", "two_any", "two", "largest", "empty", "finite",
        "a", "b", "c", "ea", "eb", "ec", "sum", "sums", "log", "joined", "moved", "next")}
    make, one_pad, two_pad = helper.make_node, g.constant([0, 1, 0, 0]), g.constant([0, 2, 0, 0])
    zero, axis = g.constant(0.0, dtype), g.constant([1])
    begin, end_one, end_two = g.constant([0]), g.constant([-1]), g.constant([-2])
    nodes = [
        make("Pad", [n["alpha"], one_pad.name, nothing.name], [n["one_wide"]]),
        make("Pad", [n["alpha"], two_pad.name, nothing.name], [n["two_wide"]]),
        make("Slice", [n["one_wide"], begin.name, end_one.name, axis.name], [n["one"]]),
        make("Slice", [n["two_wide"], begin.name, end_two.name, axis.name], [n["two_any"]]),
        make("Where", [same.name, nothing.name, n["two_any"]], [n["two"]]),
        make("Max", [n["alpha"], n["one"], n["two"]], [n["largest"]]),
        make("Equal", [n["largest"], nothing.name], [n["empty"]]), make("Where", [n["empty"], zero.name, n["largest"]], [n["finite"]]),
        *(node for source, difference, power in (("alpha", "a", "ea"), ("one", "b", "eb"), ("two", "c", "ec"))
          for node in (make("Sub", [n[source], n["finite"]], [n[difference]]), make("Exp", [n[difference]], [n[power]]))),
        make("Add", [n["ea"], n["eb"]], [n["sum"]]), make("Add", [n["sum"], n["ec"]], [n["sums"]]), make("Log", [n["sums"]], [n["log"]]),
        make("Add", [n["log"], n["finite"]], [n["joined"]]), make("Add", [n["joined"], n["logs"]], [n["moved"]]),
        make("Where", [n["active"], n["moved"], n["alpha"]], [n["next"]]),
    ]

    def port(name: str, kind: DType) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(n[name], g.onnx_dtype(kind), [None, None])

    return helper.make_graph(nodes, g.unique("ctc"), [port("alpha", dtype), port("logs", dtype), port("active", DType.BOOL)],
                             [port("next", dtype)])
