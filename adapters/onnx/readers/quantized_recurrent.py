"""ONNX Runtime's LSTM of 8 bits: what goes in, and the hidden state before each step, are quantised by their own ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.onnx.readers.linear import centred
from adapters.onnx.readers.quantization import dynamic_quantize
from adapters.onnx.readers.recurrent import is_full, turned
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.reading.spelled_recurrent import Activation, activations_of
from adapters.onnx.registry import reads
from converter.builder import GraphBuilder, Value

THREADS = "DynamicQuantizeLSTM is what ONNX Runtime computes with one thread: with more it quantises the hidden state of each part of " \
    "the batch by that part's own range"


@dataclass
class Quantized:
    """A matrix of one direction: int32 less its zero point [inputs, 4 · hidden], and its scale, of no axes or [4 · hidden]."""

    values: Value
    scale: Value

    def product(self, g: Reader, x: tuple[Value, Value, Value]) -> Value:
        """What was quantised (its values, scale and zero point) times the matrix, in floats."""
        values, scale, zero = x
        total = g.op("matmul", centred(g, values, zero, None), self.values)
        return g.op("multiply", g.cast(total, scale.dtype), g.op("multiply", scale, self.scale))


@reads("com.microsoft.DynamicQuantizeLSTM")
def dynamic_quantize_lstm(g: Reader, x: Item, weight: Item, recurrence: Item, bias: Item | None, lengths: Item | None, first_h: Item | None,
                          first_c: Item | None, peepholes: Item | None, w_scale: Item, w_zero: Item, r_scale: Item, r_zero: Item, *,
                          hidden_size: int, direction: str = "forward", activations: Sequence[str] | None = None,
                          activation_alpha: Sequence[float] | None = None, activation_beta: Sequence[float] | None = None,
                          clip: float | None = None, input_forget: int = 0) -> tuple[Value, ...]:
    """As `LSTM`, with W [directions, inputs, 4 · hidden] and R [directions, hidden, 4 · hidden] of integers."""
    value = g.tensor(x)
    if input_forget or clip or peepholes is not None or lengths is not None and not is_full(g, lengths, value.shape[0]):
        raise g.refuse("lengths, peepholes, a bound, or an input gate that is the forget gate's rest")
    if THREADS not in g.top().notes:
        g.top().notes.append(THREADS)
    count = 2 if direction == "bidirectional" else 1
    functions = activations_of(g, "lstm", count, activations, activation_alpha, activation_beta, None)
    quantised = dynamic_quantize(g, x)
    outputs: list[Sequence[Value]] = []
    for place in range(count):
        def own(item: Item | Value, place: int = place) -> Value:
            return g.op("select", item, axis=0, index=place)

        matrices = [Quantized(centred(g, own(matrix), own(zero), -1), own(scale))
                    for matrix, scale, zero in ((weight, w_scale, w_zero), (recurrence, r_scale, r_zero))]
        into = matrices[0].product(g, quantised)
        both = None if bias is None else own(bias)
        if both is not None:
            halves = [g.op("slice", both, axes=(0,), starts=(at * 4 * hidden_size,), stops=((at + 1) * 4 * hidden_size,)) for at in (0, 1)]
            into = g.op("add", into, g.op("add", *halves))
        states = [g.op("full", shape=(value.shape[1], hidden_size), fill_value=0.0, dtype=value.dtype) if item is None else own(item)
                  for item in (first_h, first_c)]
        backwards = direction == "reverse" or place == 1
        found = _run(g, turned(g, into, None) if backwards else into, states, matrices[1], hidden_size, functions[place])
        outputs.append((*found[:2], turned(g, found[2], None) if backwards else found[2]))
    last_h, last_c, every = ([item[at] for item in outputs] for at in range(3))
    return g.op("stack", *every, axis=1), g.op("stack", *last_h, axis=0), g.op("stack", *last_c, axis=0)


def _run(g: Reader, into: Value, states: Sequence[Value], recurrence: Quantized, hidden: int, functions: Sequence[Activation]) -> tuple[
        Value, ...]:
    """The last states, and the hidden state after each step [time, batch, hidden]."""
    more = (recurrence.values, recurrence.scale)
    step = Reader(GraphBuilder("step"), g.versions, g.store, g)
    step.node, b = g.node, step.builder
    before, cell = (b.input(name, item.dtype, item.shape) for name, item in zip(("h", "c"), states, strict=True))
    part = b.input("x", into.dtype, into.shape[1:])
    matrix = Quantized(*(b.input(name, item.dtype, item.shape) for name, item in zip(("matrix", "scale"), more, strict=True)))
    gates = b.op("add", part, matrix.product(step, dynamic_quantize(step, Item.of(before))))
    first, out, forget, new = (b.op("slice", gates, axes=(1,), starts=(at * hidden,), stops=((at + 1) * hidden,)) for at in range(4))
    f, inner, outer = functions
    after = b.op("add", b.op("multiply", f(b, forget), cell), b.op("multiply", f(b, first), inner(b, new)))
    result = b.op("multiply", f(b, out), outer(b, after))
    for name, item in (("h", result), ("c", after), ("every", b.op("astype", result, dtype=result.dtype))):
        b.output(f"next_{name}", item)
    return g.add("scan", *states, into, *more, states=2, sequences=1, body=b.graph())
