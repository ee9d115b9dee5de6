"""Python loops over a size: scans of free length, at lengths that were not traced, in every runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import converter
from adapters.torch.live import convert
from converter.errors import RunError, UnsupportedError
from tests.support_modules import assert_same


class Net(nn.Module):
    """A function of layers, a table of transitions, and inputs."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function
        self.transitions, self.first, self.last = (nn.Parameter(torch.randn(*shape)) for shape in ((5, 5), (5,), (5,)))

    def forward(self, *x: torch.Tensor) -> Any:
        return self.function(self, *x)


def cells(net: Net, x: torch.Tensor) -> Any:
    h, c, outputs = x.new_zeros(x.shape[0], 5), x.new_zeros(x.shape[0], 5), []
    for step in range(x.size(1)):
        h, c = net.layers[0](x[:, step], (h, c))
        outputs.append(h)
    return torch.stack(outputs, 1), h, c


def backwards(net: Net, x: torch.Tensor) -> Any:
    h, outputs = x.new_zeros(x.shape[0], 5), []
    for step in range(x.size(1) - 1, -1, -1):
        h = net.layers[0](x[:, step], h)
        outputs.insert(0, h.unsqueeze(1))
    return torch.cat(outputs, 1)


def as_long_as_there_is_more(net: Net, x: torch.Tensor) -> Any:
    step, h = 0, torch.zeros_like(x[:, 0])
    while step < x.shape[1]:
        h = torch.tanh(net.layers[0](h) + x[:, step])
        step += 1
    return h


def viterbi(net: Net, emissions: torch.Tensor, mask: torch.Tensor) -> Any:
    score, history = net.first + emissions[:, 0], []
    for step in range(1, emissions.shape[1]):
        following, best = (score[:, :, None] + net.transitions + emissions[:, step, None]).max(1)
        score = torch.where(mask[:, step, None], following, score)
        history.append(best)
    score = score + net.last
    tags = [score.argmax(1)]
    for best in reversed(history):
        tags.append(best.gather(1, tags[-1][:, None]).squeeze(1))
    tags.reverse()
    return torch.stack(tags, 1), score.amax(1)


def log_partition(net: Net, emissions: torch.Tensor, mask: torch.Tensor) -> Any:
    emissions, mask = emissions.transpose(0, 1), mask.transpose(0, 1)
    alpha = net.first + emissions[0]
    for step in range(1, emissions.shape[0]):
        alpha = torch.where(mask[step, :, None], torch.logsumexp(alpha[:, :, None] + net.transitions + emissions[step, :, None], 1), alpha)
    return torch.logsumexp(alpha + net.last, 1)


def selective_scan(net: Net, x: torch.Tensor) -> Any:
    u = F.silu(net.layers[0](x.transpose(1, 2))[..., :x.shape[1]]).transpose(1, 2)
    delta, into, out = F.softplus(net.layers[1](u)), net.layers[2](u), net.layers[3](u)
    decay = torch.exp(delta[..., None] * -torch.exp(net.transitions[:4, :3]))
    entering = delta[..., None] * into[:, :, None, :] * u[..., None]
    state, outputs = x.new_zeros(x.shape[0], 4, 3), []
    for step in range(x.shape[1]):
        state = decay[:, step] * state + entering[:, step]
        outputs.append((state * out[:, step, None]).sum(-1))
    return torch.stack(outputs, 1) + u


def layers_in_turn(net: Net, x: torch.Tensor) -> Any:
    for layer in net.layers:
        state, outputs = x.new_zeros(x.shape[0], 4), []
        for row in x.unbind(1):
            state = torch.tanh(layer(state) + row)
            outputs.append(state)
        x = torch.stack(outputs, 1)
    return x


def first_differs(net: Net, x: torch.Tensor) -> Any:
    outputs: list[torch.Tensor] = []
    for step in range(x.shape[1]):
        outputs.append(x[:, 0] if step == 0 else torch.tanh(net.layers[0](outputs[-1]) + x[:, step] - x[:, step - 1]))
    return torch.stack(outputs, 1)


def written(net: Net, x: torch.Tensor) -> Any:
    outputs, a, b = torch.zeros(x.shape[0], x.shape[1], 4), x[:, 0] * 0, x[:, 0] * 0
    for step in range(x.shape[1]):
        a, b = torch.tanh(0.5 * a - 0.3 * b + x[:, step] * (step + 1) / x.shape[1]), a
        outputs[:, step] = a
    return outputs


def within_lengths(net: Net, x: torch.Tensor, lengths: torch.Tensor) -> Any:
    state, outputs = x.new_zeros(x.shape[0], 4), []
    for step in range(x.shape[1]):
        state = torch.where((step < lengths)[:, None], torch.tanh(net.layers[0](state) + x[:, step]), state)
        outputs.append(state)
    return torch.stack(outputs, -1)


def windows(net: Net, x: torch.Tensor) -> Any:
    return torch.stack([x[:, step:step + 3].mean(1) for step in range(x.shape[1] - 2)], 1)


def floats(features: int = 4, least: int = 1) -> list[tuple[torch.Tensor, ...]]:
    return [(torch.randn(2, 6, features),), (torch.randn(1, 9, features),), (torch.randn(3, least, features),),
            (torch.randn(3, 13, features),)]


def masked(least: int) -> list[tuple[torch.Tensor, ...]]:
    return [(x, torch.arange(x.shape[1]) < torch.randint(1, x.shape[1] + 1, (x.shape[0], 1))) for (x,) in floats(5, least)]


torch.manual_seed(0)
NETS: dict[str, tuple[Net, list[tuple[torch.Tensor, ...]]]] = {
    "cells": (Net(cells, nn.LSTMCell(4, 5)), floats()),
    "backwards": (Net(backwards, nn.GRUCell(4, 5)), floats()),
    "while": (Net(as_long_as_there_is_more, nn.Linear(4, 4)), floats()),
    "viterbi": (Net(viterbi), masked(2)),
    "log partition": (Net(log_partition), masked(2)),
    "selective scan": (Net(selective_scan, nn.Conv1d(4, 4, 3, padding=2, groups=4), nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3)),
                       floats()),
    "layers in turn": (Net(layers_in_turn, nn.Linear(4, 4), nn.Linear(4, 4)), floats()),
    "the first step differs": (Net(first_differs, nn.Linear(4, 4)), floats(least=2)),
    "written to a buffer": (Net(written), floats()),
    "within lengths": (Net(within_lengths, nn.Linear(4, 4)),
                       [(x, torch.randint(1, x.shape[1] + 1, (x.shape[0],))) for (x,) in floats()]),
    "windows": (Net(windows), floats(least=3)),
}


LONG = ("backwards", "log partition", "selective scan", "layers in turn", "the first step differs")
"""Seconds each, of kinds that others stand for: cells, maxima over a table, steps that are written to a buffer."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in LONG else []) for name in NETS])
def test_the_same_as_torch(name: str) -> None:
    net, at = NETS[name]
    assert_same(net, *at)


def in_floats(net: Net, x: torch.Tensor) -> Any:
    state, scale = x.new_zeros(x.shape[0], 4), torch.linspace(0.1, 0.3, 4, dtype=torch.float32)
    for step in range(x.shape[1]):
        state = torch.tanh(net.layers[0](state).float() * scale + x[:, step] / 3)
    return state


@pytest.mark.parametrize("net", [NETS["viterbi"], (Net(in_floats, nn.Linear(4, 4)), floats())], ids=["viterbi", "floats by name"])
def test_verify_holds_a_scan_to_the_module_at_every_length(net: tuple[Net, list[tuple[torch.Tensor, ...]]]) -> None:
    """The trace holds at its own length alone: the module runs beside the model, in float64 too."""
    made = convert(net[0], net[1][0])
    before = {name: value.clone() for name, value in net[0].state_dict().items()}
    report = converter.verify(made.model, source=made.source, runtimes=["numpy"], cases=2, locate=False)
    assert report, report
    assert {row.stage for row in report.rows} >= {"structure", "rounding"}
    assert all(torch.equal(value, before[name]) for name, value in net[0].state_dict().items())


def test_a_length_asked_for_by_name_is_free() -> None:
    net, at = NETS["cells"]
    graph = converter.from_torch(net, at[0], dims={"x.0": ["batch", "time", 4]}).graph
    assert str(graph.inputs[0].spec) == "float32[batch, time, 4]"
    assert graph.dims["time"].min == 1
    assert [node.op for node in graph.nodes].count("scan") == 1


def test_steps_that_grow_stay_as_they_are() -> None:
    net = Net(lambda net, x: torch.stack([x[:, :step + 1].mean(1) for step in range(x.shape[1])], 1))
    with pytest.raises(UnsupportedError, match="time"):
        converter.from_torch(net, (torch.randn(2, 6, 4),), dims={"x.0": ["batch", "time", 4]})


def capped(net: Net, x: torch.Tensor) -> Any:
    state = x.new_zeros(x.shape[0], 4)
    for step in range(min(x.shape[1], 15)):
        state = torch.tanh(net.layers[0](state) + x[:, step])
    return state


def longer_ones_differ(net: Net, x: torch.Tensor) -> Any:
    state = x[:, 0] * 3 if x.shape[1] > 30 else x[:, 0]
    for step in range(1, x.shape[1]):
        state = torch.tanh(net.layers[0](state) + x[:, step])
    return state


def every_other(net: Net, x: torch.Tensor) -> Any:
    state = x.new_zeros(x.shape[0], 4)
    for step in range(x.shape[1]):
        state = torch.tanh(net.layers[0](state) + x[:, step]) * (2 if step % 2 else 1)
    return state


@pytest.mark.parametrize("function", [capped, longer_ones_differ, every_other])
def test_a_length_is_right_or_refused(function: Callable[..., Any]) -> None:
    net = Net(function, nn.Linear(4, 4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = converter.from_torch(net, (torch.randn(2, 6, 4),))
    session, right = converter.session(model, runtime="numpy"), 0
    for time in (2, 6, 9, 14, 15, 16, 30, 31, 60):
        x = torch.randn(2, time, 4)
        try:
            (found,) = session.run({"x.0": x.numpy()}).values()
        except RunError:
            continue
        with torch.no_grad():
            np.testing.assert_allclose(found, net(x).numpy(), atol=1e-5)
        right += 1
    assert right
