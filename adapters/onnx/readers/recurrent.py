"""LSTM, GRU and RNN with ONNX's order of gates and biases side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.onnx.readers.linear import weight_name
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.reading.spelled_recurrent import USUAL, activations_of, spelled_out
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import Dim
from converter.ir import DType

ORDER = {"lstm": (0, 2, 3, 1), "gru": (1, 0, 2), "rnn": (0,)}
"""Where the gates of the neutral operator (torch's: i f g o, r z n) stand among ONNX's (i o f c, z r h)."""


def _recurrent(g: Reader, kind: str, inputs: Sequence[Item | None], hidden_size: int, direction: str, layout: int,
               **options: Any) -> tuple[Value | None, ...]:
    given_all: list[Item | None] = [*inputs, *[None] * (7 - len(inputs))]
    x, weight, recurrence, bias, lengths = given_all[:5]
    states = given_all[5:]
    if x is None or weight is None or recurrence is None:
        raise g.refuse("no weights")
    value = g.op("permute_dims", x, axes=(1, 0, 2)) if layout else g.tensor(x)
    time, batch = value.shape[:2]
    order, count = ORDER[kind], 2 if direction == "bidirectional" else 1
    backwards = direction == "reverse"

    rows, scope = hidden_size * len(order), weight_name(g, "")
    layer = _layer(g, scope, weight)

    def part(item: Item, name: str, *steps: tuple[Any, ...]) -> Value:
        """A weight of one direction with its gates in the neutral operator's order."""
        made = g.arranged(item, steps, ".".join(filter(None, (scope, name))))
        if made is not None:
            return made
        value = g.tensor(item)
        for step, axis, *given in steps:
            if step == "select":
                value = g.op("select", value, axis=axis, index=given[0])
            elif step == "part":
                value = g.op("slice", value, axes=(axis,), starts=(given[0],), stops=(given[1],))
            else:
                blocks = g.add("split", value, sizes=(hidden_size,) * len(order), axis=axis)
                value = g.op("concat", *(blocks[gate] for gate in order), axis=axis)
        return value

    tensors: list[Value] = []
    for place in range(count):
        end = f"_l{layer}_reverse" if place else f"_l{layer}"
        turn = (("blocks", 0, order),) if len(order) > 1 else ()
        tensors.append(part(weight, f"weight_ih{end}", ("select", 0, place), *turn))
        tensors.append(part(recurrence, f"weight_hh{end}", ("select", 0, place), *turn))
        if bias is not None:
            tensors.append(part(bias, f"bias_ih{end}", ("select", 0, place), ("part", 0, 0, rows), *turn))
            tensors.append(part(bias, f"bias_hh{end}", ("select", 0, place), ("part", 0, rows, 2 * rows), *turn))
    wanted = 2 if kind == "lstm" else 1
    given = [g.tensor(item) for item in states[:wanted] if item is not None]
    if layout:
        given = [g.op("permute_dims", item, axes=(1, 0, 2)) for item in given]
    if given and len(given) < wanted or wanted == 2 and states[0] is None and states[1] is not None:
        present = list(states[:wanted])
        given = [g.op("full", shape=(count, batch, hidden_size), fill_value=0.0, dtype=value.dtype) if item is None
                 else g.op("permute_dims", item, axes=(1, 0, 2)) if layout else g.tensor(item) for item in present]
    ends: Item | Value | None = None
    if lengths is not None and not is_full(g, lengths, time):
        ends = g.cast(lengths, DType.INT64)
    if backwards:
        value = turned(g, value, ends)
    extra = () if ends is None else (ends,)
    y, *last = g.add(kind, value, *tensors, *given, *extra, bidirectional=count == 2, bias=bias is not None, lengths=ends is not None,
                     **options)
    if backwards:
        y = turned(g, y, ends)
    # [time, batch, directions · hidden] -> [time, directions, batch, hidden]
    y = g.op("reshape", y, shape=(time, batch, count, hidden_size))
    if layout:
        y = g.op("permute_dims", y, axes=(1, 0, 2, 3))
        last = [g.op("permute_dims", item, axes=(1, 0, 2)) for item in last]
    else:
        y = g.op("permute_dims", y, axes=(0, 2, 1, 3))
    return (y, *last)


def _layer(g: Reader, scope: str, weight: Item) -> int:
    """Which layer of its module a node is: the first whose names no other node's weights have."""
    store = g.top().store
    taken = {name: initializer for (initializer, _), name in store.arranged.items()}
    layer = 0
    while taken.get(".".join(filter(None, (scope, f"weight_ih_l{layer}"))), weight.initializer) != weight.initializer:
        layer += 1
    return layer


def is_full(g: Reader, lengths: Item, time: Dim) -> bool:
    known = g.known(lengths)
    return known is not None and all(item == time for item in known.reshape(-1))


def turned(g: Reader, x: Value, ends: Item | Value | None) -> Value:
    if ends is None:
        return g.op("flip", x, axis=(0,))
    time, batch = x.shape[:2]
    steps = g.op("reshape", g.op("arange", start=0, stop=time, step=1, dtype=DType.INT64), shape=(time, 1))
    last = g.op("reshape", ends, shape=(1, batch))
    back = g.op("subtract", g.op("subtract", last, g.like(1, last)), steps)
    index = g.op("where", g.op("less", steps, last), back, steps)
    index = g.op("broadcast_to", g.op("reshape", index, shape=(time, batch, 1)), shape=x.shape)
    return g.op("take_along_axis", x, index, axis=0)


def _step_by_step(g: Reader, kind: str, inputs: Sequence[Item | None], hidden_size: int, direction: str, layout: int,
                  activations: Sequence[str] | None, alphas: Sequence[float] | None, betas: Sequence[float] | None, clip: float | None,
                  resets_late: bool = False) -> tuple[Value | None, ...]:
    count = 2 if direction == "bidirectional" else 1
    functions = activations_of(g, kind, count, activations, alphas, betas, clip)
    return spelled_out(g, kind, inputs, hidden_size, direction, layout, functions, turned, resets_late)


def _is_usual(kind: str, activations: Sequence[str] | None, direction: str, clip: float | None) -> bool:
    count = 2 if direction == "bidirectional" else 1
    return not clip and (not activations or tuple(item.lower() for item in activations) == USUAL[kind] * count)


@reads("LSTM")
def lstm(g: Reader, *inputs: Item | None, hidden_size: int, direction: str = "forward", layout: int = 0, input_forget: int = 0,
         activations: Sequence[str] | None = None, activation_alpha: Sequence[float] | None = None,
         activation_beta: Sequence[float] | None = None, clip: float | None = None) -> tuple[Value | None, ...]:
    if input_forget:
        raise g.refuse("an input gate that is the forget gate's rest")
    if clip:
        raise g.refuse("a bound on what goes into the activations, which ONNX's text and its runtimes apply differently")
    peepholes = inputs[7] if len(inputs) > 7 else None
    without = peepholes is None or g.known(peepholes) is not None and not np.any(g.numbers(peepholes, "peepholes"))
    if not without or not _is_usual("lstm", activations, direction, clip):
        return _step_by_step(g, "lstm", inputs if not without else inputs[:7], hidden_size, direction, layout, activations,
                             activation_alpha, activation_beta, clip)
    return _recurrent(g, "lstm", inputs[:7], hidden_size, direction, layout)


@reads("GRU")
def gru(g: Reader, *inputs: Item | None, hidden_size: int, direction: str = "forward", layout: int = 0, linear_before_reset: int = 0,
        activations: Sequence[str] | None = None, activation_alpha: Sequence[float] | None = None,
        activation_beta: Sequence[float] | None = None, clip: float | None = None) -> tuple[Value | None, ...]:
    if not linear_before_reset or not _is_usual("gru", activations, direction, clip):
        return _step_by_step(g, "gru", inputs, hidden_size, direction, layout, activations, activation_alpha, activation_beta, clip,
                             bool(linear_before_reset))
    return _recurrent(g, "gru", inputs, hidden_size, direction, layout)


@reads("RNN")
def rnn(g: Reader, *inputs: Item | None, hidden_size: int, direction: str = "forward", layout: int = 0,
        activations: Sequence[str] | None = None, activation_alpha: Sequence[float] | None = None,
        activation_beta: Sequence[float] | None = None, clip: float | None = None, output_sequence: int = 0) -> tuple[Value | None, ...]:
    count = 2 if direction == "bidirectional" else 1
    names = tuple(item.lower() for item in activations or ("tanh",) * count)
    if len(set(names)) != 1 or names[0] not in ("tanh", "relu") or clip:
        return _step_by_step(g, "rnn", inputs, hidden_size, direction, layout, activations, activation_alpha, activation_beta, clip)
    return _recurrent(g, "rnn", inputs, hidden_size, direction, layout, nonlinearity=names[0])
