"""Recurrent layers: stacks, directions, layouts, initial states, cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.op_cases import Case, f32, f64


class Shared(nn.Module):
    """One layer applied twice: its weights have two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 4, batch_first=True, bidirectional=True)
        self.back = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.back(self.layer(x)[0]))[0]


def last(layer: nn.Module) -> Any:
    """Only h_n of a layer."""
    return lambda *inputs: layer(*inputs)[1]


def with_states(layer: nn.LSTM) -> Any:
    return lambda x, h, c: layer(x, (h, c))


def zero_states(layer: nn.GRU) -> Any:
    return lambda x: layer(x, torch.zeros(1, x.shape[0], 5))[0]


class Layer(nn.Module):
    """Holds the layers of a function, so that their parameters are the model's."""

    def __init__(self, make: Any, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.call = make

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.call(self.layer)(*inputs)


torch.manual_seed(0)
CASES = [
    Case("rnn", nn.RNN(4, 5), f32("time", "batch", 4), name="tanh"),
    Case("rnn", nn.RNN(4, 5, 2, nonlinearity="relu", bidirectional=True), f32("time", "batch", 4), name="relu, two layers"),
    Case("rnn", nn.RNN(4, 5, bias=False, batch_first=True), f32("batch", "time", 4), name="no bias, batch first"),
    Case("rnn", nn.RNN(4, 5, 2), f32("time", "batch", 4), f32(2, "batch", 5), name="initial state"),
    Case("rnn", nn.RNN(4, 5, batch_first=True, bidirectional=True), f32("time", 4), name="no batch"),
    Case("rnn", nn.RNN(4, 5, 2, bidirectional=True).double(), f64("time", "batch", 4), name="float64"),
    Case("rnn", nn.RNNCell(4, 5), f32("batch", 4), name="cell"),
    Case("rnn", nn.RNNCell(4, 5, nonlinearity="relu", bias=False), f32("batch", 4), f32("batch", 5), name="cell, relu, no bias"),
    Case("lstm", nn.LSTM(4, 5), f32("time", "batch", 4)),
    Case("lstm", nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True), f32("batch", "time", 4), name="two layers, both ways"),
    Case("lstm", nn.LSTM(4, 5, 3, bias=False), f32("time", "batch", 4), name="three layers, no bias"),
    Case("lstm", Layer(with_states, nn.LSTM(4, 5, 2, bidirectional=True)), f32("time", "batch", 4), f32(4, "batch", 5),
         f32(4, "batch", 5), name="initial states"),
    Case("lstm", Layer(with_states, nn.LSTM(4, 5, 1)), f32("time", 4), f32(1, 5), f32(1, 5), name="no batch, initial states"),
    Case("lstm", nn.LSTM(4, 5, 2, bidirectional=True, proj_size=3), f32("time", "batch", 4), name="projections"),
    Case("lstm", Layer(with_states, nn.LSTM(4, 5, 2, proj_size=3, bias=False, bidirectional=True)), f32("time", "batch", 4),
         f32(4, "batch", 3), f32(4, "batch", 5), name="projections, initial states"),
    Case("lstm", Layer(with_states, nn.LSTM(4, 5, 1).double()), f64("time", "batch", 4), f64(1, "batch", 5), f64(1, "batch", 5),
         name="float64"),
    Case("lstm", Layer(last, nn.LSTM(4, 5, 2, batch_first=True)), f32("batch", "time", 4), name="only the last states"),
    Case("lstm", Shared(), f32("batch", "time", 4), name="shared weights"),
    Case("lstm", nn.LSTMCell(4, 5), f32("batch", 4), name="cell"),
    Case("lstm", Layer(with_states, nn.LSTMCell(4, 5)), f32("batch", 4), f32("batch", 5), f32("batch", 5), name="cell, states"),
    Case("gru", nn.GRU(4, 5), f32("time", "batch", 4)),
    Case("gru", nn.GRU(4, 5, 2, bidirectional=True, batch_first=True), f32("batch", "time", 4), f32(4, "batch", 5),
         name="two layers, both ways, initial state"),
    Case("gru", nn.GRU(4, 5, 2, bias=False), f32("time", "batch", 4), name="two layers, no bias"),
    Case("gru", nn.GRU(4, 5, 2, bidirectional=True).double(), f64("time", "batch", 4), name="float64"),
    Case("gru", nn.GRU(4, 5, 2, bidirectional=True), f32("time", 4), f32(4, 5), name="no batch, initial state"),
    Case("gru", Layer(zero_states, nn.GRU(4, 5, batch_first=True)), f32("batch", "time", 4), name="zero state given"),
    Case("gru", nn.GRUCell(4, 5), f32("batch", 4), name="cell"),
    Case("gru", nn.GRUCell(4, 5, bias=False), f32("batch", 4), f32("batch", 5), name="cell, state, no bias"),
]
