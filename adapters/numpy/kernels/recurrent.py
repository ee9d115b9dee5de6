"""Recurrent layers: one product for all inputs of a layer, both directions step by step together, no memory asked for in a step.

sigmoid(x) = (1 + tanh(x / 2)) / 2: the rows of a gate that a sigmoid follows are halved, exactly, when the weights are packed, so that
one tanh serves all gates of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.numpy.buffers import empty
from adapters.numpy.registry import prepares
from adapters.numpy.threads import spread
from converter.ir import Array
from converter.ops.recurrent import cut

Advance = Callable[[Array], None]
Step = Callable[[Array, list[Array], Array | None], Advance]
"""`step(gates, values, shift)`: what goes one step on with what enters; `values` are the state, and two arrays to work in."""
ZERO, HALF = np.float32(0), np.float32(0.5)
TOGETHER = 1 << 20
"""Bytes of the weights of both directions that one step reads."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Packed weights of a layer's directions: `entering` [in, gates · hidden] each, `held` [directions, hidden, gates · hidden]."""

    entering: tuple[Array, ...]
    shifts: tuple[Array | None, ...]
    held: Array
    held_shift: Array | None


def _pack(constants: Sequence[Array | None], attributes: Mapping[str, Any], halved: tuple[float, ...], apart: int) -> tuple[
        list[Layer], int] | None:
    """The layers, and how many operands hold weights; None where a weight is no constant, or of another dtype than float32.

    `halved`: the factor of each gate's rows; `apart`: how many gates, at the end, take the bias of the state by itself.
    """
    if attributes.get("lengths") or attributes.get("proj_size"):
        return None
    number, both, bias = attributes.get("num_layers", 1), attributes.get("bidirectional", False), attributes.get("bias", True)
    total = number * (2 if both else 1) * (4 if bias else 2)
    weights = constants[1:total + 1]
    if any(weight is None or weight.dtype != np.float32 for weight in weights):
        return None
    layers = []
    for directions in cut(weights, number, both, bias)[0]:
        hidden = directions[0][1].shape[1]
        factors = np.repeat(np.asarray(halved, np.float32), hidden)
        edge = hidden * (len(halved) - apart)
        entering, shifts, held, held_shifts = [], [], [], []
        for weight_ih, weight_hh, bias_ih, bias_hh, _ in directions:
            entering.append(np.ascontiguousarray((weight_ih * factors[:, None]).T))
            held.append((weight_hh * factors[:, None]).T)
            shift = bias_ih
            if bias_hh is not None:
                shift = bias_ih + bias_hh if not apart else bias_ih + np.where(np.arange(len(bias_hh)) < edge, bias_hh, np.float32(0))
                held_shifts.append(bias_hh[edge:] * factors[edge:])
            shifts.append(None if shift is None else shift * factors)
        layers.append(Layer(tuple(entering), tuple(shifts), np.ascontiguousarray(np.stack(held)),
                            np.stack(held_shifts)[:, None] if held_shifts and apart else None))
    return layers, total


def _entering(y: Array, layer: Layer) -> Array:
    """[directions, time, batch, gates · hidden]: what the inputs add to the gates, of each direction in its own order."""
    time, batch, size = y.shape
    width = layer.held.shape[2]
    entering = empty((len(layer.entering), time, batch, width), np.float32)
    for direction, weight in enumerate(layer.entering):
        rows = entering[direction].reshape(time * batch, width)
        np.matmul(np.ascontiguousarray(y if direction == 0 else y[::-1]).reshape(time * batch, size), weight, out=rows)
        shift = layer.shifts[direction]
        if shift is not None:
            rows += shift
    return entering


def _run_lane(lane: slice, layer: Layer, result: Array, entering: Array, state: list[Array], step: Step) -> None:
    """Steps of one direction, or of both; `state` is what they begin with, and at the end what they end with."""
    time = len(result)
    pick: Any = lane.start if lane.stop - lane.start == 1 else lane  # of one direction the axis of directions only costs
    held, shift = layer.held[pick], None if layer.held_shift is None else layer.held_shift[pick]
    state = [value[pick] for value in state]
    gates = np.empty((*state[0].shape[:-1], held.shape[-1]), np.float32)
    advance = step(gates, [*state, *[np.empty(state[0].shape, np.float32) for _ in range(2)]], shift)
    multiply, first = np.matmul, state[0]
    hidden = first.shape[-1]
    sides = [result[::-1 if direction else 1, :, hidden * direction:hidden * (direction + 1)] for direction in range(lane.start, lane.stop)]
    for at in range(time):
        multiply(first, held, out=gates)
        if pick is lane:
            advance(entering[:, at])
            for side, value in zip(sides, first, strict=True):
                side[at] = value
        else:
            advance(entering[pick, at])
            sides[0][at] = first


def _kernel(constants: Sequence[Array | None], attributes: Mapping[str, Any], halved: tuple[float, ...], states: int, step: Step,
            apart: int = 0) -> Callable[..., Any] | None:
    packed = _pack(constants, attributes, halved, apart)
    if packed is None:
        return None
    layers, total = packed
    first = attributes.get("batch_first", False)

    def compute(x: Array, *tensors: Array) -> tuple[Array, ...]:
        initial = tensors[total:]
        unbatched = x.ndim == 2
        y = x[:, None] if unbatched else x.swapaxes(0, 1) if first else x
        time, batch = y.shape[:2]
        hidden = layers[0].held.shape[1]
        count = len(layers[0].entering)
        ends = [empty((len(layers) * count, batch, hidden), np.float32) for _ in range(states)]
        for number, layer in enumerate(layers):
            result = empty((time, batch, count * hidden), np.float32)
            entering = _entering(y, layer)
            place = slice(number * count, (number + 1) * count)
            state = [end[place] for end in ends]
            for position, value in enumerate(state):
                value[...] = initial[position][place].reshape(value.shape) if initial else 0

            def directions(lanes: Iterable[slice], layer: Layer = layer, result: Array = result, entering: Array = entering,
                           state: list[Array] = state) -> None:
                for lane in lanes:
                    _run_lane(lane, layer, result, entering, state, step)

            # Both step together where that saves calls; one after the other where the weights of one fill the cache.
            together = count == 1 or layer.held.nbytes <= TOGETHER
            spread([slice(0, count)] if together else [slice(0, 1), slice(1, 2)], directions, products=True, least=2)
            y = result
        if unbatched:
            return (y[:, 0], *(end[:, 0] for end in ends))
        return (y.swapaxes(0, 1) if first else y, *ends)

    return compute


def _lstm_step(gates: Array, values: list[Array], shift: Array | None) -> Advance:
    state, cell, one, two = values
    hidden = state.shape[-1]
    i, f, g, o = (gates[..., hidden * gate:hidden * (gate + 1)] for gate in range(4))
    add, multiply, tanh = np.add, np.multiply, np.tanh

    def advance(entering: Array) -> None:
        add(gates, entering, out=gates)
        tanh(gates, out=gates)
        multiply(i, g, out=one)
        add(one, g, out=one)
        multiply(f, cell, out=two)
        add(cell, two, out=cell)
        add(cell, one, out=cell)
        multiply(cell, HALF, out=cell)
        tanh(cell, out=one)
        multiply(o, one, out=state)
        add(state, one, out=state)
        multiply(state, HALF, out=state)

    return advance


def _gru_step(gates: Array, values: list[Array], shift: Array | None) -> Advance:
    state, one, two = values
    hidden = state.shape[-1]
    both, last = gates[..., :2 * hidden], gates[..., 2 * hidden:]
    r, z = both[..., :hidden], both[..., hidden:]
    add, multiply, tanh = np.add, np.multiply, np.tanh

    def advance(entering: Array) -> None:
        add(both, entering[..., :2 * hidden], out=both)
        tanh(both, out=both)
        if shift is not None:
            add(last, shift, out=last)
        multiply(r, last, out=one)
        add(one, last, out=one)
        multiply(one, HALF, out=one)
        add(one, entering[..., 2 * hidden:], out=one)
        tanh(one, out=one)
        # h = n + u (h - n), with u = (1 + z) / 2
        np.subtract(state, one, out=two)
        multiply(two, z, out=state)
        add(state, two, out=state)
        multiply(state, HALF, out=state)
        add(state, one, out=state)

    return advance


def _plain_step(function: Callable[..., Any]) -> Step:
    def make(gates: Array, values: list[Array], shift: Array | None) -> Advance:
        state = values[0]

        def advance(entering: Array) -> None:
            np.add(gates, entering, out=gates)
            function(gates, out=state)

        return advance

    return make


def _relu(x: Array, out: Array) -> None:
    np.maximum(x, ZERO, out=out)


@prepares("lstm")
def lstm(constants: Sequence[Array | None], attributes: Mapping[str, Any]) -> Callable[..., Any] | None:
    return _kernel(constants, attributes, (0.5, 0.5, 1.0, 0.5), 2, _lstm_step)


@prepares("gru")
def gru(constants: Sequence[Array | None], attributes: Mapping[str, Any]) -> Callable[..., Any] | None:
    return _kernel(constants, attributes, (0.5, 0.5, 1.0), 1, _gru_step, apart=1)


@prepares("rnn")
def rnn(constants: Sequence[Array | None], attributes: Mapping[str, Any]) -> Callable[..., Any] | None:
    return _kernel(constants, attributes, (1.0,), 1, _plain_step(_relu if attributes.get("nonlinearity") == "relu" else np.tanh))
