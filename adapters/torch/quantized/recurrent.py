"""Recurrent layers with 8-bit weights: a layer's input is quantised by the range of the whole sequence, its state at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from adapters.torch.quantized.dynamic import product
from adapters.torch.quantized.packed import Cell, Packed
from adapters.torch.quantized.values import refused

Step = Callable[[Sequence[Tensor], Tensor, Tensor], tuple[Tensor, ...]]
"""The states, what the gates get from the input and from the state, to the next states, the one that is given first."""

def lstm_step(states: Sequence[Tensor], inputs: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
    """Gates in, forget, cell, out."""
    into, forget, cell, out = (inputs + hidden).chunk(4, -1)
    kept = forget.sigmoid() * states[1] + into.sigmoid() * cell.tanh()
    return out.sigmoid() * kept.tanh(), kept


def gru_step(states: Sequence[Tensor], inputs: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
    """Gates reset, update, new."""
    (reset, update, new), (by_reset, by_update, by_new) = inputs.chunk(3, -1), hidden.chunk(3, -1)
    share = (by_update + update).sigmoid()
    fresh = (new + by_new * (by_reset + reset).sigmoid()).tanh()
    return ((states[0] - fresh) * share + fresh,)


def _product(packed: Any, reduce_range: bool) -> Callable[[Tensor], Tensor]:
    return product(torch.ops.quantized.linear_dynamic, packed, reduce_range)


def _direction(step: Step, x: Tensor, states: Sequence[Tensor], cell: Cell, backwards: bool) -> tuple[tuple[Tensor, ...], Tensor]:
    """x [time, batch, in] -> the last states and [time, batch, hidden]."""
    from torch._higher_order_ops.scan import scan

    inputs, by_state = _product(cell.inputs, cell.reduce_range)(x), _product(cell.states, cell.reduce_range)

    def body(carried: tuple[Tensor, ...], element: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        following = step(carried, element, by_state(carried[0]))
        return following, following[0].clone()

    last, outputs = scan(body, tuple(states), inputs, dim=0, reverse=backwards)
    return last, outputs


def layers(step: Step, input: Tensor, hx: Sequence[Tensor], params: Sequence[Any], directions: int,
           batch_first: bool) -> tuple[Tensor, ...]:
    """Layers above each other; states [layers · directions, batch, hidden] each. Gives the output and the last states."""
    if not all(isinstance(item, Cell) for item in params):
        raise refused("torch.quantized_lstm", "its weights are not the module's")
    x, ends = input.transpose(0, 1) if batch_first else input, []
    for first in range(0, len(params), directions):
        places = range(first, first + directions)
        found = [_direction(step, x, [state[place] for state in hx], params[place], place > first) for place in places]
        x = torch.cat([outputs for _, outputs in found], -1)
        ends += [last for last, _ in found]
    last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
    return (x.transpose(0, 1) if batch_first else x, *last)


def quantized_lstm(input: Tensor, hx: Any, params: Any, has_biases: Any, num_layers: Any, dropout: Any = 0.0, train: bool = False,
                   bidirectional: bool = False, batch_first: bool = False, **options: Any) -> tuple[Tensor, ...]:
    """torch.quantized_lstm of a padded batch."""
    if isinstance(hx, Tensor):
        raise refused("torch.quantized_lstm", "packed sequences in a quantised layer")
    return layers(lstm_step, input, hx, params, 1 + bidirectional, batch_first)


def quantized_gru(input: Tensor, hx: Any, params: Any, has_biases: Any, num_layers: Any, dropout: Any = 0.0, train: bool = False,
                  bidirectional: bool = False, batch_first: bool = False) -> tuple[Tensor, ...]:
    """torch.quantized_gru of a padded batch."""
    if not isinstance(params, (list, tuple)):
        raise refused("torch.quantized_gru", "packed sequences in a quantised layer")
    return layers(gru_step, input, [hx], params, 1 + bidirectional, batch_first)


def cell(step: Step) -> Callable[..., Any]:
    """What stands in for one step of a layer whose weights are packed apart."""

    def compute(input: Tensor, hx: Any, w_ih: Packed, w_hh: Packed, b_ih: Tensor, b_hh: Tensor) -> Any:
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        following = step(states, _product(w_ih, True)(input), _product(w_hh, True)(states[0]))
        return following if len(following) > 1 else following[0]

    return compute


def plain_step(function: Callable[[Tensor], Tensor]) -> Step:
    """One gate."""
    return lambda states, inputs, hidden: (function(hidden + inputs),)


CELLS: dict[str, Step] = {"lstm": lstm_step, "gru": gru_step, "rnn_tanh": plain_step(torch.tanh), "rnn_relu": plain_step(torch.relu)}
