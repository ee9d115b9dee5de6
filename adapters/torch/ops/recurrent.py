"""Recurrent layers: whole stacks of Elman, LSTM and GRU layers, and single cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from adapters.torch.patches.recurrent import quiet_projections
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ops.recurrent import count
from converter.opset import facts_of

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("lstm", {}), "gru": ("gru", {}), "rnn_tanh": ("rnn", {}), "rnn_relu": ("rnn", {"nonlinearity": "relu"}),
}


def is_zeros(g: Importer, value: Value) -> bool:
    """Whether a value is made by a `full` of zeros, through operators that only rearrange it."""
    node = g.builder.producer(value)
    while node is not None and facts_of(node.op).whole and isinstance(node.inputs[0], str):
        node = g.builder.producer(Value(node.inputs[0], value.spec))
    return node is not None and node.op == "full" and node.attributes["fill_value"] == 0


def settings(g: Importer, kind: str, states: Sequence[Value], params: Sequence[Value], bias: bool, layers: int,
             bidirectional: bool) -> tuple[str, tuple[Value, ...], dict[str, Any]]:
    """The operator of a stack, the initial states that it is to be given, and its attributes."""
    operator, fixed = KINDS[kind]
    attributes = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias, **fixed}
    if kind == "lstm" and len(params) > count(layers, bidirectional, bias)[1]:
        attributes["proj_size"] = params[4 if bias else 2].shape[0]
    return operator, () if all(is_zeros(g, state) for state in states) else tuple(states), attributes


def _stack(kind: str) -> Callable[..., Any]:
    def importer(g: Importer, x: Value, states: Sequence[Value], params: Sequence[Value], bias: bool, layers: int,
                 bidirectional: bool, batch_first: bool) -> tuple[Value, ...]:
        operator, initial, attributes = settings(g, kind, states, params, bias, layers, bidirectional)
        return g.add(operator, x, *params, *initial, batch_first=batch_first, **attributes)

    return importer


def _aten(kind: str) -> Callable[..., Any]:
    stack = _stack(kind)

    def importer(g: Importer, x: Value, hx: Any, params: Sequence[Value], has_biases: bool, num_layers: int, dropout: float,
                 train: bool, bidirectional: bool, batch_first: bool) -> Any:
        if train and dropout:
            raise g.refuse("dropout in training mode", "random")
        return stack(g, x, hx if kind == "lstm" else [hx], params, has_biases, num_layers, bidirectional, batch_first)

    return importer


def _packed() -> Callable[..., Any]:
    def importer(g: Importer, *args: Any, **kwargs: Any) -> Any:
        raise g.refuse("packed sequences are not carried: give the layer padded tensors")

    return importer


def _cell(kind: str) -> Callable[..., Any]:
    operator, fixed = KINDS[kind]

    def importer(g: Importer, input: Value, hx: Any, w_ih: Value, w_hh: Value, b_ih: Value | None = None,
                 b_hh: Value | None = None) -> Any:
        """A cell is a layer over one time step."""
        states = list(hx) if kind == "lstm" else [hx]
        if (b_ih is None) != (b_hh is None):
            raise g.refuse("a cell with one bias of two")
        weights = [w_ih, w_hh] + ([b_ih, b_hh] if b_ih is not None else [])
        # Zeros stay: the first step of a loop is to be like the others.
        initial = [g.op("reshape", state, shape=(1, *state.shape)) for state in states]
        outputs = g.add(operator, g.op("reshape", input, shape=(1, *input.shape)), *weights, *initial,
                        bias=b_ih is not None, **fixed)
        results = tuple(g.op("reshape", output, shape=output.shape[1:]) for output in outputs[1:])
        return results if kind == "lstm" else results[0]

    return importer


for _kind in KINDS:
    imports(f"neutral_model.{_kind}.default")(_stack(_kind))
    imports(f"aten.{_kind}.input")(_aten(_kind))
    imports(f"aten.{_kind}.data")(_packed())
    imports(f"aten.{_kind}_cell.default")(_cell(_kind))
imports("aten._pack_padded_sequence.default", "aten._pad_packed_sequence.default")(_packed())


# Back to torch -----------------------------------------------------------------------------------------------------------


def _rebuild(kind: str) -> Callable[..., Any]:
    def function(x: torch.Tensor, *tensors: torch.Tensor, num_layers: int = 1, bidirectional: bool = False,
                 batch_first: bool = False, bias: bool = True, proj_size: int = 0,
                 nonlinearity: str = "tanh", lengths: bool = False) -> tuple[torch.Tensor, ...]:
        _, total = count(num_layers, bidirectional, bias, proj_size)
        packed = None
        if lengths:
            time = x.shape[1 if batch_first else 0]
            packed = pack_padded_sequence(x, tensors[-1].cpu(), batch_first, enforce_sorted=False)
            tensors = tensors[:-1]
        params, states = list(tensors[:total]), list(tensors[total:])
        unbatched = x.dim() == 2
        if unbatched:
            x, states = x.unsqueeze(0 if batch_first else 1), [state.unsqueeze(1) for state in states]
        if not states:
            rows, batch = num_layers * (2 if bidirectional else 1), x.shape[0 if batch_first else 1]
            widths = [params[1].shape[1], params[4 if bias else 2].shape[1] if proj_size else params[1].shape[1]]
            states = [x.new_zeros((rows, batch, width)) for width in widths[:2 if kind == "lstm" else 1]]
        call = getattr(torch._VF, f"rnn_{nonlinearity}" if kind == "rnn" else kind)  # where a trace keeps layers whole
        if packed is not None:
            given = [state.index_select(1, packed.sorted_indices) for state in states]  # type: ignore[arg-type]
            with quiet_projections():
                data, *ends = call(packed.data, packed.batch_sizes, given if kind == "lstm" else given[0], params, bias, num_layers,
                                   0.0, False, bidirectional)
            y, _ = pad_packed_sequence(PackedSequence(data, *packed[1:]), batch_first, total_length=time)
            return (y, *(end.index_select(1, packed.unsorted_indices) for end in ends))
        with quiet_projections():
            outputs = call(x, states if kind == "lstm" else states[0], params, bias, num_layers, 0.0, False, bidirectional,
                           batch_first)
        if unbatched:
            outputs = (outputs[0].squeeze(0 if batch_first else 1), *(output.squeeze(1) for output in outputs[1:]))
        return tuple(outputs)

    return function


for _operator in ("rnn", "lstm", "gru"):
    rebuilds(_operator)(_rebuild(_operator))
