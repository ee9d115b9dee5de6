"""Recurrent layers: one LSTM, GRU or RNN node a layer, both directions in it.

ONNX orders the gates otherwise than PyTorch (i o f c for i f g o, z r h for r z n), stacks the directions, and joins the
two biases; parameters are rearranged as the file is written. What ONNX Runtime's nodes do not compute (float64,
projections, small results of a tanh that are given out, NaN and infinities) is a Scan over time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from adapters.onnx.lowering.context import Lowering, Tensor, once
from adapters.onnx.lowering.layouts import Layout
from adapters.onnx.lowering.nan import where_not_finite
from adapters.onnx.registry import lowers
from converter.dims import Dim, fixed
from converter.ir import DType, TensorSpec
from converter.ops.recurrent import cut

# For each operator: ONNX's name, and where ONNX's gates stand among PyTorch's.
KINDS: dict[str, tuple[str, tuple[int, ...]]] = {"rnn": ("RNN", (0,)), "lstm": ("LSTM", (0, 3, 1, 2)), "gru": ("GRU", (1, 0, 2))}
Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Layer:
    """One layer's part of the work: x is [time, batch, in], each direction has its weights and states [1, batch, size]; `lengths`
    int64 [batch] says where rows end."""

    kind: str
    activation: str
    x: Tensor
    directions: Sequence[Weights]
    states: Sequence[Tensor]
    used: tuple[bool, ...]
    lengths: Tensor | None

    @property
    def gates(self) -> tuple[int, ...]:
        return KINDS[self.kind][1]

    @property
    def widths(self) -> tuple[int, ...]:
        """The sizes of h and c."""
        _, weight_hh, _, _, weight_hr = self.directions[0]
        out = fixed(weight_hh.shape[1])
        return (out, fixed(weight_hr.shape[1]) if weight_hr is not None else out)[:2 if self.kind == "lstm" else 1]


@lowers("rnn", "lstm", "gru")
def recurrent(g: Lowering, x: Tensor, *tensors: Tensor, num_layers: int, bidirectional: bool, batch_first: bool, bias: bool,
              proj_size: int = 0, nonlinearity: str = "", lengths: bool = False) -> tuple[Tensor, ...]:
    kind = g.current.op
    ends = tensors[-1] if lengths else None
    tensors = tensors[:-1] if lengths else tensors
    dtype, unbatched = x.dtype, x.rank == 2
    layers, initial = cut(tensors, num_layers, bidirectional, bias, proj_size)
    count = 2 if bidirectional else 1
    used = tuple(map(g.wants, range(3 if kind == "lstm" else 2)))
    time, batch = (x.shape[0], 1) if unbatched else (x.shape[1], x.shape[0]) if batch_first else x.shape[:2]
    if unbatched:
        x = g.node("Unsqueeze", x, g.constant([1]), spec=TensorSpec(dtype, (time, 1, x.shape[1])))
        initial = [g.node("Unsqueeze", state, g.constant([1]), spec=TensorSpec(dtype, (state.shape[0], 1, state.shape[1])))
                   for state in initial]
    elif batch_first:
        x = g.transpose(x, (1, 0, 2))
    checked = None if ends is None else _checked(g, ends, time)
    per_layer = [_parts(g, state, num_layers, count) for state in initial]
    # ONNX Runtime's RNN has tanh as a quotient of exponentials: of a small result, which without biases there can be, no digit is right.
    coarse = nonlinearity == "tanh" and not bias and g.is_given_out
    final: list[list[Tensor]] = [[] for _ in used[1:]]
    for index, directions in enumerate(layers):
        layer = Layer(kind, {"relu": "Relu", "tanh": "Tanh"}.get(nonlinearity, ""), x, directions,
                      [parts[index] for parts in per_layer], used, checked)
        whole = dtype is DType.FLOAT32 and not proj_size and not (coarse and index == num_layers - 1)
        y, *last_states = _node(g, layer, time, batch) if whole else _scans(g, layer, time, batch)
        for collected, end in zip(final, last_states, strict=True):
            collected.append(end)
        last = index == num_layers - 1
        x = _join(g, y, batch_first and last and not unbatched)
    outputs = [g.node("Squeeze", x, g.constant([1]), spec=TensorSpec(dtype, (time, x.shape[2]))) if unbatched else x]
    for collected, wanted in zip(final, used[1:], strict=True):
        if wanted:
            rows = TensorSpec(dtype, (num_layers * count, batch, collected[0].shape[2]))
            end = collected[0] if num_layers == 1 else g.node("Concat", *collected, spec=rows, axis=0)
            if unbatched:
                end = g.node("Squeeze", end, g.constant([1]), spec=TensorSpec(dtype, (rows.shape[0], rows.shape[2])))
            outputs.append(end)
        else:
            outputs.append(x)
    return tuple(outputs)


def _parts(g: Lowering, state: Tensor, layers: int, count: int) -> list[Tensor]:
    """[layers · directions, batch, size] as one [directions, batch, size] a layer."""
    if layers == 1:
        return [state]
    spec = TensorSpec(state.dtype, (count, *state.shape[1:]))
    return list(g.nodes_out("Split", state, specs=[spec] * layers, axis=0, num_outputs=layers))


def _join(g: Lowering, y: Tensor, batch_first: bool) -> Tensor:
    """[time, directions, batch, size] as [time, batch, directions · size], or with the batch in front."""
    time, count, batch, size = y.shape
    if count == 1 and not batch_first:
        return g.node("Squeeze", y, g.constant([1]), spec=TensorSpec(y.dtype, (time, batch, size)))
    y = g.transpose(y, (2, 0, 1, 3) if batch_first else (0, 2, 1, 3))
    return g.reshape(y, (*y.shape[:2], count * size))


# One node a layer ----------------------------------------------------------------------------------------------------


def _node(g: Lowering, layer: Layer, time: Dim, batch: Dim) -> tuple[Tensor, ...]:
    count, (hidden, *_) = len(layer.directions), layer.widths
    order = layer.gates
    blocks = (("blocks", 0, order),) if len(order) > 1 else ()
    weights = [_built(g, matrices, (*blocks, ("stack", 0)), None)
               for matrices in ([direction[0] for direction in layer.directions], [direction[1] for direction in layer.directions])]
    biases = [item for direction in layer.directions for item in direction[2:4] if item is not None]
    bias = _built(g, biases, (*blocks, ("concat", 0), ("reshape", (count, 2 * len(order) * hidden))),
                  (count, 2 * len(order) * hidden)) if biases else None
    x, dtype = layer.x, layer.x.dtype
    state = TensorSpec(dtype, (count, batch, hidden))
    specs = [TensorSpec(dtype, (time, count, batch, hidden)), *[state] * len(layer.widths)]
    activations = {"rnn": [layer.activation] * count}.get(layer.kind)
    lengths = None if layer.lengths is None else g.cast(layer.lengths, DType.INT32)
    results = g.nodes_out(KINDS[layer.kind][0], x, *weights, bias, lengths, *layer.states, specs=specs, hidden_size=hidden,
                          direction="bidirectional" if count == 2 else None, activations=activations,
                          linear_before_reset=1 if layer.kind == "gru" else None)

    def exact() -> tuple[Tensor, ...]:
        return _scans(g, replace(layer, directions=_restored(g, weights, bias, layer)), time, batch)

    return tuple(where_not_finite(g, [x, *layer.states], results, exact))


def _restored(g: Lowering, weights: Sequence[Tensor], bias: Tensor | None, layer: Layer) -> list[Weights]:
    """Each direction's weights out of those of ONNX's node: the gates in PyTorch's order, two biases."""
    order = tuple(layer.gates.index(gate) for gate in range(len(layer.gates)))

    def of_direction(x: Tensor, at: int) -> Tensor:
        return g.node("Gather", x, g.constant(at), spec=TensorSpec(x.dtype, x.shape[1:]), axis=0)

    def rows(x: Tensor) -> Tensor:
        return _blocks(g, x, order) if len(order) > 1 else x

    found: list[Weights] = []
    for at in range(len(layer.directions)):
        weight_ih, weight_hh = (rows(of_direction(matrix, at)) for matrix in weights)
        both = None if bias is None else of_direction(bias, at)
        half = TensorSpec(layer.x.dtype, weight_ih.shape[:1])
        biases = [None, None] if both is None else [rows(item) for item in g.nodes_out(
            "Split", both, specs=[half] * 2, axis=0, num_outputs=2)]
        found.append((weight_ih, weight_hh, biases[0], biases[1], None))
    return found


def _built(g: Lowering, sources: Sequence[Tensor], steps: tuple[Any, ...], shape: tuple[int, ...] | None) -> Tensor:
    """Parameters rearranged in the file; where they cannot be, the same steps as nodes, once for all that ask."""
    names = [source.name for source in sources]
    tails = [name.rpartition(".")[2] for name in names[1:]]
    built = g.rearranged(sources, Layout(steps), "+".join([names[0], *tails]))
    if built is not None:
        return built
    return _steps_as_nodes(g, tuple(sources), steps)


@once
def _steps_as_nodes(g: Lowering, sources: Sequence[Tensor], steps: tuple[Any, ...]) -> Tensor:
    current = list(sources)
    for step in steps:
        if step[0] == "blocks":
            current = [_blocks(g, item, step[2]) for item in current]
        elif step[0] == "stack":
            current = [g.reshape(item, (1, *item.shape)) for item in current]
        if step[0] in ("stack", "concat") and len(current) > 1:
            total = sum(int(item.shape[0]) for item in current)  # type: ignore[arg-type,misc]
            current = [g.node("Concat", *current, spec=TensorSpec(current[0].dtype, (total, *current[0].shape[1:])), axis=0)]
        elif step[0] == "reshape":
            current = [g.reshape(current[0], step[1])]
    return current[0]


def _blocks(g: Lowering, x: Tensor, order: tuple[int, ...]) -> Tensor:
    part = TensorSpec(x.dtype, (fixed(x.shape[0]) // len(order), *x.shape[1:]))
    parts = g.nodes_out("Split", x, specs=[part] * len(order), axis=0, num_outputs=len(order))
    return g.node("Concat", *(parts[index] for index in order), spec=x.spec, axis=0)


# A Scan over time --------------------------------------------------------------------------------------------------------


def _scans(g: Lowering, layer: Layer, time: Dim, batch: Dim) -> tuple[Tensor, ...]:
    inside = None if layer.lengths is None else _inside(g, layer.lengths, time, batch)
    results = [_scan(g, layer, index, time, batch, inside) for index in range(len(layer.directions))]
    joined = []
    for position, parts in enumerate(zip(*results, strict=True)):
        axis = 1 if position == 0 else 0
        shape = list(parts[0].shape)
        parts = tuple(g.node("Unsqueeze", part, g.constant([axis]), spec=TensorSpec(part.dtype, (*shape[:axis], 1, *shape[axis:])))
                      for part in parts)
        spec = TensorSpec(parts[0].dtype, (*shape[:axis], len(parts), *shape[axis:]))
        joined.append(parts[0] if len(parts) == 1 else g.node("Concat", *parts, spec=spec, axis=axis))
    return tuple(joined)


def _checked(g: Lowering, lengths: Tensor, time: Dim) -> Tensor:
    """The lengths. One outside 1 to time, which ONNX's nodes take in part, is looked up where nothing is, an error."""
    every = g.node("Range", g.constant(1), g.scalar_size(time + 1), g.constant(1), spec=TensorSpec(DType.INT64, (time,)))
    nothing = g.node("Less", lengths, g.constant(1), spec=TensorSpec(DType.BOOL, lengths.shape))
    places = g.node("Where", nothing, g.scalar_size(time), g.node("Sub", lengths, g.constant(1), spec=lengths.spec), spec=lengths.spec)
    return g.node("Gather", every, places, spec=lengths.spec, axis=0)


def _inside(g: Lowering, lengths: Tensor, time: Dim, batch: Dim) -> Tensor:
    """bool [time, batch, 1]: whether a step lies within a row."""
    steps = g.node("Range", g.constant(0), g.scalar_size(time), g.constant(1), spec=TensorSpec(DType.INT64, (time,)))
    return g.node("Less", g.reshape(steps, (time, 1, 1)), g.reshape(lengths, (batch, 1)), spec=TensorSpec(DType.BOOL, (time, batch, 1)))


def _scan(g: Lowering, layer: Layer, direction: int, time: Dim, batch: Dim, inside: Tensor | None) -> tuple[Tensor, ...]:
    """One direction: y [time, batch, out], h [batch, out], and c [batch, hidden] for an LSTM."""
    weight_ih, weight_hh, bias_ih, bias_hh, weight_hr = layer.directions[direction]
    x, dtype = layer.x, layer.x.dtype
    specs = [TensorSpec(dtype, (batch, width)) for width in layer.widths]
    if layer.states:
        states = [state if state.shape[0] == 1 else g.node("Gather", state, g.constant([direction]), spec=TensorSpec(
            dtype, (1, *state.shape[1:])), axis=0) for state in layer.states]
        states = [g.reshape(state, spec.shape) for state, spec in zip(states, specs, strict=True)]
    else:
        zero = onnx.helper.make_tensor("value", g.onnx_dtype(dtype), [1], [0.0])
        states = [g.node("ConstantOfShape", g.sizes(spec.shape), spec=spec, value=zero) for spec in specs]
    rows = weight_ih.shape[:1]
    entering = g.node("MatMul", x, g.transpose(weight_ih, (1, 0)), spec=TensorSpec(dtype, (time, batch, *rows)))
    if bias_ih is not None:
        entering = g.node("Add", entering, bias_ih, spec=entering.spec)
    body = _Body(g, layer.kind, layer.activation or "Tanh", len(layer.gates))
    graph = body.build([state.spec for state in states], TensorSpec(dtype, (batch, *rows)), g.transpose(weight_hh, (1, 0)),
                       bias_hh, None if weight_hr is None else g.transpose(weight_hr, (1, 0)),
                       None if inside is None else TensorSpec(DType.BOOL, (batch, 1)))
    scanned = [entering] if inside is None else [entering, inside]
    *ends, y = g.nodes_out("Scan", *states, *scanned, specs=[*specs, TensorSpec(dtype, (time, batch, layer.widths[0]))],
                           body=graph, num_scan_inputs=len(scanned), scan_input_directions=[1] * len(scanned) if direction else None,
                           scan_output_directions=[1] if direction else None)
    return (y, *ends)


class _Body:
    """The graph of one time step, which reads the weights from the graph around it."""

    def __init__(self, g: Lowering, kind: str, activation: str, gates: int) -> None:
        self.g, self.kind, self.activation, self.gates = g, kind, activation, gates
        self.nodes: list[onnx.NodeProto] = []

    def do(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [self.g.unique(f"step/{op_type}") for _ in range(outputs)]
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), names, name=self.g.unique(f"step/{op_type}_node"), **attributes))
        return names if outputs > 1 else names[0]

    def build(self, states: Sequence[TensorSpec], entering: TensorSpec, weight: Tensor, bias: Tensor | None,
              projection: Tensor | None, inside: TensorSpec | None) -> onnx.GraphProto:
        carried = [self.g.unique("step/state") for _ in states]
        read = self.g.unique("step/entering")
        recurrence = self.do("MatMul", carried[0], weight.name)
        if bias is not None:
            recurrence = self.do("Add", recurrence, bias.name)
        results = {"rnn": self.rnn, "lstm": self.lstm, "gru": self.gru}[self.kind](read, recurrence, carried)
        if projection is not None:
            results[0] = self.do("MatMul", results[0], projection.name)
        scanned = [self.port(read, entering)]
        if inside is None:
            copy = self.do("Identity", results[0])
        else:
            within = self.g.unique("step/inside")
            scanned.append(self.port(within, inside))
            results = [self.do("Where", within, new, old) for new, old in zip(results, carried, strict=True)]
            copy = self.do("Where", within, results[0], self.g.constant(0.0, states[0].dtype).name)
        return onnx.helper.make_graph(
            self.nodes, self.g.unique("step"), [self.port(name, spec) for name, spec in zip(carried, states, strict=True)]
            + scanned,
            [self.port(name, spec) for name, spec in zip(results, states, strict=True)] + [self.port(copy, states[0])])

    def port(self, name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, self.g.onnx_dtype(spec.dtype), [
            size if isinstance(size, int) else None for size in spec.shape])

    def rnn(self, entering: str, recurrence: str, states: list[str]) -> list[str]:
        return [self.do(self.activation, self.do("Add", entering, recurrence))]

    def lstm(self, entering: str, recurrence: str, states: list[str]) -> list[str]:
        i, f, g, o = self.do("Split", self.do("Add", entering, recurrence), outputs=4, axis=-1, num_outputs=4)
        kept = self.do("Mul", self.do("Sigmoid", f), states[1])
        cell = self.do("Add", kept, self.do("Mul", self.do("Sigmoid", i), self.do("Tanh", g)))
        return [self.do("Mul", self.do("Sigmoid", o), self.do("Tanh", cell)), cell]

    def gru(self, entering: str, recurrence: str, states: list[str]) -> list[str]:
        r, z, n = self.do("Split", entering, outputs=3, axis=-1, num_outputs=3)
        hr, hz, hn = self.do("Split", recurrence, outputs=3, axis=-1, num_outputs=3)
        update = self.do("Sigmoid", self.do("Add", z, hz))
        reset = self.do("Sigmoid", self.do("Add", r, hr))
        new = self.do("Tanh", self.do("Add", n, self.do("Mul", reset, hn)))
        return [self.do("Add", new, self.do("Mul", update, self.do("Sub", states[0], new)))]
