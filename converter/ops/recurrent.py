"""Recurrent layers: whole stacks of Elman, LSTM and GRU layers, in PyTorch's weight layouts and gate orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from converter.dims import Dim
from converter.facts import Facts
from converter.formulas import Space, Term, counted, dtype_of, refuse, widened
from converter.ir import DType, TensorSpec
from converter.ops._rules import require, require_float, require_rank, require_size, same_dtype
from converter.opset import op

Step = Callable[[Space, Term, Term, Sequence[Term], Term | None], tuple[Term, ...]]
"""(space, what enters, what recurs, states, projection) to the new states."""


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


@widened
def _stack(f: Space, x: Term, *tensors: Term, step: Step, states: int, num_layers: int, bidirectional: bool, batch_first: bool,
           bias: bool, proj_size: int = 0, lengths: bool = False) -> tuple[Term, ...]:
    """Every layer over every time step."""
    unbatched = x.ndim == 2
    y = f.expand_dims(x, axis=(1,)) if unbatched else f.permute_dims(x, axes=(1, 0, 2)) if batch_first else x
    inside: tuple[Term, ...] = ()
    if lengths:
        *tensors, ends_at = tensors  # type: ignore[assignment]
        inside = (_inside(f, ends_at, y.shape[0]),)
    layers, initial = cut(tensors, num_layers, bidirectional, bias, proj_size)
    initial = [f.expand_dims(state, axis=(1,)) for state in initial] if unbatched else initial

    def body(f: Space, *values: Term) -> tuple[Term, ...]:
        state, (entering, *now), rest = values[:states], values[states:states + 1 + lengths], iter(values[states + 1 + lengths:])
        recurring = f.linear(state[0], next(rest), next(rest) if bias else None)
        after = step(f, entering, recurring, state, next(rest) if proj_size else None)
        if not now:
            return (*after, after[0])
        after = tuple(f.where(now[0], new, old) for new, old in zip(after, state, strict=True))
        return (*after, f.where(now[0], after[0], 0.0))

    final: list[list[Term]] = [[] for _ in range(states)]
    for layer, directions in enumerate(layers):
        outputs = []
        for direction, (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr) in enumerate(directions):
            index = layer * len(directions) + direction
            widths = (weight_hh.shape[1], weight_hr.shape[1] if proj_size else weight_hh.shape[1])
            state = (tuple(f.select(item, axis=0, index=index) for item in initial) if initial else
                     tuple(f.full(shape=(y.shape[1], width), fill_value=0.0, dtype=dtype_of(y)) for width in widths[:states]))
            sequences = (f.linear(y, weight_ih, bias_ih), *inside)
            sequences = tuple(f.flip(item, axis=(0,)) for item in sequences) if direction else sequences
            weights = [item for item in (weight_hh, bias_hh, weight_hr) if item is not None]
            *state, result = f.scan(*state, *sequences, *weights, states=states, sequences=len(sequences), body=body)
            outputs.append(f.flip(result, axis=(0,)) if direction else result)
            for collected, item in zip(final, state, strict=True):
                collected.append(item)
        y = f.concat(*outputs, axis=-1)
    ends = [f.stack(*collected, axis=0) for collected in final]
    if unbatched:
        return tuple(f.squeeze(item, axis=(1,)) for item in (y, *ends))
    return (f.permute_dims(y, axes=(1, 0, 2)) if batch_first else y, *ends)


def _inside(f: Space, lengths: Term, time: Dim) -> Term:
    """[time, batch, 1]: whether a step lies within a row. Rows of no steps and of more than there are are refused."""
    lengths = refuse(f, (lengths < 1) | f.greater(lengths, time), lengths)
    return f.expand_dims(f.less(counted(f, time, 0, 2), lengths), axis=(2,))


def _sigmoid(f: Space, x: Term) -> Term:
    return f.reciprocal(f.exp(-x) + 1.0)


def _tanh_step(f: Space, entering: Term, recurring: Term, state: Sequence[Term], projection: Term | None) -> tuple[Term, ...]:
    return (f.tanh(entering + recurring),)


def _relu_step(f: Space, entering: Term, recurring: Term, state: Sequence[Term], projection: Term | None) -> tuple[Term, ...]:
    return (f.maximum(entering + recurring, 0.0),)


def _lstm_step(f: Space, entering: Term, recurring: Term, state: Sequence[Term], projection: Term | None) -> tuple[Term, ...]:
    taken, kept, new, shown = f.split(entering + recurring, sizes=(state[1].shape[-1],) * 4, axis=-1)
    cell = _sigmoid(f, kept) * state[1] + _sigmoid(f, taken) * f.tanh(new)
    hidden = _sigmoid(f, shown) * f.tanh(cell)
    return (hidden if projection is None else f.linear(hidden, projection), cell)


def _gru_step(f: Space, entering: Term, recurring: Term, state: Sequence[Term], projection: Term | None) -> tuple[Term, ...]:
    sizes = (state[0].shape[-1],) * 3
    (r, z, n), (hr, hz, hn) = f.split(entering, sizes=sizes, axis=-1), f.split(recurring, sizes=sizes, axis=-1)
    update = _sigmoid(f, z + hz)
    new = f.tanh(n + _sigmoid(f, r + hr) * hn)
    return (f.subtract(1.0, update) * new + update * state[0],)


@op(infer=_rule(1, 1), outputs=("y", "h_n"), facts=Facts(states=((-1.0, 1.0),)))
def rnn(f: Space, x: Term, *tensors: Term, nonlinearity: Literal["tanh", "relu"] = "tanh", num_layers: int = 1,
        bidirectional: bool = False, batch_first: bool = False, bias: bool = True, lengths: bool = False) -> tuple[Term, ...]:
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
    return _stack(f, x, *tensors, step=step, states=1, num_layers=num_layers, bidirectional=bidirectional, batch_first=batch_first,
                  bias=bias, lengths=lengths)


@op(infer=_rule(4, 2), outputs=("y", "h_n", "c_n"), facts=Facts(states=((-1.0, 1.0), (-4.0, 4.0))))
def lstm(f: Space, x: Term, *tensors: Term, num_layers: int = 1, bidirectional: bool = False, batch_first: bool = False,
         bias: bool = True, proj_size: int = 0, lengths: bool = False) -> tuple[Term, ...]:
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
    return _stack(f, x, *tensors, step=_lstm_step, states=2, num_layers=num_layers, bidirectional=bidirectional, batch_first=batch_first,
                  bias=bias, proj_size=proj_size, lengths=lengths)


@op(infer=_rule(3, 1), outputs=("y", "h_n"), facts=Facts(states=((-1.0, 1.0),)))
def gru(f: Space, x: Term, *tensors: Term, num_layers: int = 1, bidirectional: bool = False, batch_first: bool = False,
        bias: bool = True, lengths: bool = False) -> tuple[Term, ...]:
    """A stack of GRU layers, as torch.nn.GRU (the reset gate acts after the recurrent product).

    With [r, z, n] = weight_ih · x_t + bias_ih and [r', z', n'] = weight_hh · h_{t-1} + bias_hh (three blocks of rows):
    u = sigmoid(z + z'); h_t = (1 - u) * tanh(n + sigmoid(r + r') * n') + u * h_{t-1}.

    x, y, h_n, lengths: as in `rnn`. tensors: as in `rnn`, with 3 hidden rows in place of hidden.
    """
    return _stack(f, x, *tensors, step=_gru_step, states=1, num_layers=num_layers, bidirectional=bidirectional, batch_first=batch_first,
                  bias=bias, lengths=lengths)
