"""Keeps `nn.RNN`, `nn.LSTM` and `nn.GRU` whole while a module is traced.

`torch.export` looks inside recurrent layers and unrolls them at the traced length, which freezes the time axis. While
`whole_recurrent_layers()` is active, the functions that these layers call are custom operators, opaque to the tracer,
whose fake implementations keep batch and time symbolic. They compute what the originals compute.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import _VF, Tensor

NAMESPACE = "neutral_model"
ORIGINALS = {name: getattr(_VF, name) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")}


@contextmanager
def quiet_projections() -> Iterator[None]:
    """torch warns that projections take its plain implementation, which is what is wanted."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections is not supported")
        yield


def _fake(x: Tensor, states: list[Tensor], params: list[Tensor], bidirectional: bool, batch_first: bool) -> list[Tensor]:
    hidden = states[0].shape[-1] * (2 if bidirectional else 1)
    return [x.new_empty((*x.shape[:-1], hidden)), *(torch.empty_like(state) for state in states)]


def _define(kind: str) -> None:
    original = ORIGINALS[kind]

    def compute(x: Tensor, states: list[Tensor], params: list[Tensor], bias: bool, layers: int, bidirectional: bool,
                batch_first: bool) -> list[Tensor]:
        # The layers refuse states that are not contiguous in some builds.
        whole = [item.contiguous() for item in states]
        state = whole if kind == "lstm" else whole[0]
        with quiet_projections():
            outputs = original(x, state, params, bias, layers, 0.0, False, bidirectional, batch_first)
        return [item.clone() for item in outputs]

    def fake(x: Tensor, states: list[Tensor], params: list[Tensor], bias: bool, layers: int, bidirectional: bool,
             batch_first: bool) -> list[Tensor]:
        return _fake(x, states, params, bidirectional, batch_first)

    annotations = {"x": Tensor, "states": list[Tensor], "params": list[Tensor], "bias": bool, "layers": int,
                   "bidirectional": bool, "batch_first": bool, "return": list[Tensor]}
    compute.__annotations__ = fake.__annotations__ = annotations
    operator = torch.library.custom_op(f"{NAMESPACE}::{kind}", compute, mutates_args=())
    operator.register_fake(fake)


for _kind in ORIGINALS:
    _define(_kind)


def packed_call(kind: str, data: Tensor, batch_sizes: Tensor, states: Any, params: Sequence[Tensor], bias: bool, count: int,
                dropout: float, train: bool, bidirectional: bool) -> tuple[Tensor, ...]:
    """What `torch._VF.lstm` and its kin compute of packed sequences, as one operator."""
    operator = getattr(getattr(torch.ops, NAMESPACE), f"packed_{kind}")
    return tuple(operator(data, batch_sizes, list(states) if kind == "lstm" else [states], list(params), bias, count, bidirectional))


@contextmanager
def whole_recurrent_layers() -> Iterator[None]:
    """While active, recurrent layers are traced as single operators."""

    def replacement(kind: str) -> Callable[..., tuple[Tensor, ...]]:
        operator = getattr(getattr(torch.ops, NAMESPACE), kind)

        def call(x: Tensor, states: Any, params: Any, *rest: Any) -> tuple[Tensor, ...]:
            # The form for packed sequences takes (data, batch_sizes, states, params, bias, …): a list where bias stands here.
            if len(rest) != 6 or not isinstance(rest[0], bool):
                return packed_call(kind, x, states, params, *rest)
            bias, layers, _dropout, _train, bidirectional, batch_first = rest
            outputs = operator(x, list(states) if kind == "lstm" else [states], list(params), bias, layers, bidirectional,
                               batch_first)
            return tuple(outputs)

        return call

    try:
        for kind in ORIGINALS:
            setattr(_VF, kind, replacement(kind))
        # torch.nn.modules.rnn keeps a table of the plain RNN's functions.
        import torch.nn.modules.rnn as rnn

        table = dict(rnn._rnn_impls)
        rnn._rnn_impls.update({"RNN_TANH": _VF.rnn_tanh, "RNN_RELU": _VF.rnn_relu})
        yield
    finally:
        for kind, original in ORIGINALS.items():
            setattr(_VF, kind, original)
        rnn._rnn_impls.update(table)
