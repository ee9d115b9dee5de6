"""Recurrent layers: whole stacks of Elman, LSTM and GRU layers, in PyTorch's weight layouts and gate orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from converter.dims import Dim
from converter.facts import Facts
from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, require, require_float, require_rank, require_size, same_dtype
from converter.opset import op

Step = Callable[[Array, Sequence[Array], Sequence[Array | None]], tuple[Array, ...]]


def count(num_layers: int, bidirectional: bool, bias: bool, proj_size: int = 0) -> tuple[int, int]:
    """(weights of one layer and direction, weights of the whole stack)."""
    each = 2 + 2 * bias + (proj_size > 0)
    return each, each * num_layers * (2 if bidirectional else 1)


def cut(tensors: Sequence[Any], num_layers: int, bidirectional: bool, bias: bool, proj_size: int = 0,
        ) -> tuple[list[list[tuple[Any, Any, Any, Any, Any]]], list[Any]]:
    """Weights by layer and direction, as (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr), None where there is none;
    and the initial states that follow them."""
    each, total = count(num_layers, bidirectional, bias, proj_size)
    layers, position = [], 0
    for _ in range(num_layers):
        directions = []
        for _ in range(2 if bidirectional else 1):
            group = list(tensors[position:position + each])
            projection = group.pop() if proj_size else None
            directions.append((*group, *([] if bias else [None, None]), projection))
            position += each
        layers.append(directions)
    return layers, list(tensors[total:])


def _rule(gates: int, states: int) -> Callable[..., tuple[TensorSpec, ...]]:
    def infer(x: TensorSpec, *tensors: TensorSpec | None, num_layers: int = 1, bidirectional: bool = False,
              batch_first: bool = False, bias: bool = True, proj_size: int = 0, nonlinearity: str = "tanh",
              lengths: bool = False) -> tuple[TensorSpec, ...]:
        require_rank(x, *((3,) if lengths else (2, 3)))
        require_float(x)
        require(num_layers >= 1, "a recurrent stack needs a layer", expected="num_layers of 1 and up", received=num_layers)
        require(proj_size >= 0, "a negative size", expected="proj_size of 0 and up", received=proj_size)
        _, total = count(num_layers, bidirectional, bias, proj_size)
        if lengths:
            require(len(tensors) > 0 and tensors[-1] is not None, "the lengths are missing", expected="the last operand", received="null")
            _require_lengths(tensors[-1], x.shape[0 if batch_first else 1])  # type: ignore[arg-type]
            tensors = tensors[:-1]
        require(len(tensors) in (total, total + states), "wrong number of weights and initial states",
                expected=f"{total} weights, or {total} and {states} initial state{'s' * (states > 1)}", received=len(tensors))
        require(None not in tensors, "a weight or an initial state is missing", expected="tensors", received="null")
        dtype = same_dtype(x, *tensors)
        layers, initial = cut(tensors, num_layers, bidirectional, bias, proj_size)
        require_rank(layers[0][0][0], 2, what="weight_ih")
        hidden = layers[0][0][0].shape[0] // gates
        output: Dim = proj_size or hidden
        width = x.shape[-1]
        for directions in layers:
            for weight_ih, weight_hh, bias_ih, bias_hh, weight_hr in directions:
                _same(weight_ih, (gates * hidden, width), "weight_ih")
                _same(weight_hh, (gates * hidden, output), "weight_hh")
                _same(bias_ih, (gates * hidden,), "bias_ih")
                _same(bias_hh, (gates * hidden,), "bias_hh")
                _same(weight_hr, (output, hidden), "weight_hr")
            width = output * len(directions)
        batch = () if x.rank == 2 else (x.shape[0 if batch_first else 1],)
        shapes = [(num_layers * len(layers[0]), *batch, size) for size in (output, hidden)[:states]]
        for state, shape, name in zip(initial, shapes, ("h_0", "c_0"), strict=False):
            _same(state, shape, name)
        return (TensorSpec(dtype, (*x.shape[:-1], width)), *(TensorSpec(dtype, shape) for shape in shapes))

    return infer


def _require_lengths(spec: TensorSpec, batch: Dim) -> None:
    require(spec.dtype is DType.INT64, "wrong dtype of the lengths", expected="int64", received=spec)
    require_rank(spec, 1, what="lengths")
    require_size(spec.shape[0], batch, "lengths")


def _same(spec: TensorSpec | None, shape: tuple[Dim, ...], what: str) -> None:
    if spec is not None:
        require_rank(spec, len(shape), what=what)
        for found, expected in zip(spec.shape, shape, strict=True):
            require_size(found, expected, what)


def _stack(step: Step, states: int, x: Array, tensors: Sequence[Array], num_layers: int, bidirectional: bool,
           batch_first: bool, bias: bool, proj_size: int = 0, lengths: bool = False) -> tuple[Array, ...]:
    """Every layer over every time step. Half precision is computed in float32."""
    dtype = x.dtype
    inside = None
    if lengths:
        *tensors, ends_at = tensors
        inside = _inside(ends_at, x.shape[1 if batch_first else 0])
    wide = np.promote_types(dtype, np.float32) if dtype.kind == "f" else np.dtype(np.float32)
    layers, initial = cut([tensor.astype(wide, copy=False) for tensor in tensors], num_layers, bidirectional, bias, proj_size)
    unbatched = x.ndim == 2
    y = x.astype(wide, copy=False)
    if unbatched:
        y = y[:, None]
        initial = [state[:, None] for state in initial]
    elif batch_first:
        y = y.swapaxes(0, 1)
    final: list[list[Array]] = [[] for _ in range(states)]
    for layer, directions in enumerate(layers):
        outputs = []
        for direction, weights in enumerate(directions):
            weight_ih, weight_hh, bias_ih, _, weight_hr = weights
            index = layer * len(directions) + direction
            widths = (weight_hh.shape[1], weight_hr.shape[1] if weight_hr is not None else weight_hh.shape[1])
            state = (tuple(item[index] for item in initial) if initial
                     else tuple(np.zeros((y.shape[1], width), wide) for width in widths[:states]))
            entering = np.matmul(y, weight_ih.T)
            if bias_ih is not None:
                entering = entering + bias_ih
            result = np.empty((y.shape[0], y.shape[1], widths[0]), wide)
            times = range(y.shape[0])
            for time in reversed(times) if direction else times:
                after = step(entering[time], state, weights)
                state = after if inside is None else tuple(
                    np.where(inside[time], new, old) for new, old in zip(after, state, strict=True))
                result[time] = state[0] if inside is None else np.where(inside[time], state[0], 0)
            outputs.append(result)
            for collected, item in zip(final, state, strict=True):
                collected.append(item)
        y = np.concatenate(outputs, axis=-1)
    ends = [np.stack(collected) for collected in final]
    if unbatched:
        y, ends = y[:, 0], [end[:, 0] for end in ends]
    elif batch_first:
        y = y.swapaxes(0, 1)
    return tuple(item.astype(dtype, copy=False) for item in (y, *ends))


def _inside(lengths: Array, time: int) -> Array:
    """[time, batch, 1]: whether a step lies within a row. Raises `ValueError` for rows of no steps and of more than there are."""
    if lengths.size and not 1 <= lengths.min() <= lengths.max() <= time:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} of rows of {time} steps; expected 1 to {time}")
    return (np.arange(time)[:, None] < lengths)[..., None]


def _recurrence(state: Array, weights: Sequence[Array | None]) -> Array:
    """weight_hh · h + bias_hh."""
    _, weight_hh, _, bias_hh, _ = weights
    product = np.matmul(state, weight_hh.T)  # type: ignore[union-attr]
    return product if bias_hh is None else product + bias_hh


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _tanh_step(entering: Array, state: Sequence[Array], weights: Sequence[Array | None]) -> tuple[Array, ...]:
    return (np.tanh(entering + _recurrence(state[0], weights)),)


def _relu_step(entering: Array, state: Sequence[Array], weights: Sequence[Array | None]) -> tuple[Array, ...]:
    return (np.maximum(entering + _recurrence(state[0], weights), 0),)


def _lstm_step(entering: Array, state: Sequence[Array], weights: Sequence[Array | None]) -> tuple[Array, ...]:
    i, f, g, o = np.split(entering + _recurrence(state[0], weights), 4, axis=-1)
    cell = _sigmoid(f) * state[1] + _sigmoid(i) * np.tanh(g)
    hidden = _sigmoid(o) * np.tanh(cell)
    projection = weights[4]
    return (hidden if projection is None else np.matmul(hidden, projection.T), cell)


def _gru_step(entering: Array, state: Sequence[Array], weights: Sequence[Array | None]) -> tuple[Array, ...]:
    r, z, n = np.split(entering, 3, axis=-1)
    hr, hz, hn = np.split(_recurrence(state[0], weights), 3, axis=-1)
    update = _sigmoid(z + hz)
    new = np.tanh(n + _sigmoid(r + hr) * hn)
    return ((1 - update) * new + update * state[0],)


@op(infer=_rule(1, 1), outputs=("y", "h_n"), facts=Facts(states=((-1.0, 1.0),)))
def rnn(x: Array, *tensors: Array, nonlinearity: Literal["tanh", "relu"] = "tanh", num_layers: int = 1,
        bidirectional: bool = False, batch_first: bool = False, bias: bool = True, lengths: bool = False) -> tuple[Array, ...]:
    """A stack of Elman layers: h_t = nonlinearity(weight_ih · x_t + bias_ih + weight_hh · h_{t-1} + bias_hh), as torch.nn.RNN.

    x: [time, batch, in]; [batch, time, in] with batch_first; [time, in] without a batch. tensors: for each layer, and in
    it for each direction (forward, then reverse): weight_ih [hidden, in], weight_hh [hidden, hidden] and, with bias,
    bias_ih [hidden], bias_hh [hidden]; in of a further layer is hidden · directions. After them, optionally, h_0
    [layers · directions, batch, hidden] ([layers · directions, hidden] without a batch); without it, zeros.

    y: x's shape with hidden · directions at its end (directions side by side); h_n: like h_0, the last state of each
    layer and direction (of the reverse one, that at time 0).

    With `lengths`, x has a batch, and the last of the tensors is int64 [batch]: row b of x ends after lengths[b] steps, 1 to
    time. The forward direction stops there and the reverse one starts there; y is 0 past the end, and h_n is the state that
    each row ends with. It is what torch computes of packed sequences.
    """
    step = _tanh_step if nonlinearity == "tanh" else _relu_step
    return _stack(step, 1, x, tensors, num_layers, bidirectional, batch_first, bias, lengths=lengths)


@op(infer=_rule(4, 2), outputs=("y", "h_n", "c_n"), facts=Facts(states=((-1.0, 1.0), (-4.0, 4.0))))
def lstm(x: Array, *tensors: Array, num_layers: int = 1, bidirectional: bool = False, batch_first: bool = False,
         bias: bool = True, proj_size: int = 0, lengths: bool = False) -> tuple[Array, ...]:
    """A stack of LSTM layers, as torch.nn.LSTM.

    With [i, f, g, o] = weight_ih · x_t + bias_ih + weight_hh · h_{t-1} + bias_hh (four blocks of rows):
    c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g); h_t = sigmoid(o) * tanh(c_t); with proj_size > 0,
    h_t = weight_hr · (sigmoid(o) * tanh(c_t)).

    x: as in `rnn`. tensors: for each layer, and in it for each direction: weight_ih [4 hidden, in], weight_hh
    [4 hidden, out] and, with bias, bias_ih [4 hidden], bias_hh [4 hidden], and, with proj_size, weight_hr [out, hidden];
    out is proj_size where that is not 0, else hidden. After them, optionally, h_0 [layers · directions, batch, out] and
    c_0 [layers · directions, batch, hidden]; without them, zeros.

    y: x's shape with out · directions at its end; h_n, c_n: like h_0 and c_0. lengths: as in `rnn`.
    """
    return _stack(_lstm_step, 2, x, tensors, num_layers, bidirectional, batch_first, bias, proj_size, lengths)


@op(infer=_rule(3, 1), outputs=("y", "h_n"), facts=Facts(states=((-1.0, 1.0),)))
def gru(x: Array, *tensors: Array, num_layers: int = 1, bidirectional: bool = False, batch_first: bool = False,
        bias: bool = True, lengths: bool = False) -> tuple[Array, ...]:
    """A stack of GRU layers, as torch.nn.GRU (the reset gate acts after the recurrent product).

    With [r, z, n] = weight_ih · x_t + bias_ih and [r', z', n'] = weight_hh · h_{t-1} + bias_hh (three blocks of rows):
    u = sigmoid(z + z'); h_t = (1 - u) * tanh(n + sigmoid(r + r') * n') + u * h_{t-1}.

    x, y, h_n, lengths: as in `rnn`. tensors: as in `rnn`, with 3 hidden rows in place of hidden.
    """
    return _stack(_gru_step, 1, x, tensors, num_layers, bidirectional, batch_first, bias, lengths=lengths)
