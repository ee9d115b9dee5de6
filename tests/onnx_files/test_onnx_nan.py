"""NaN and infinities through ONNX Runtime as torch gives them, where its own kernels lose them; at a size that was not traced."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import converter
from adapters.onnx.export import build

NAN = float("nan")
RECURRENT = {
    "lstm": nn.LSTM(3, 4), "gru": nn.GRU(3, 4), "rnn": nn.RNN(3, 4), "relu": nn.RNN(3, 4, nonlinearity="relu"),
    "both ways": nn.LSTM(3, 4, bidirectional=True), "two layers": nn.GRU(3, 4, num_layers=2, bidirectional=True),
    "batch first": nn.LSTM(3, 4, num_layers=2, batch_first=True),
}


class First(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, h = self.body(x, *state)
        return (y, *(h if isinstance(h, tuple) else (h,)))


def check(module: nn.Module, traced: tuple[torch.Tensor, ...], given: tuple[torch.Tensor, ...]) -> converter.Model:
    """Runs the traced module on other inputs in every runtime beside torch; gives the model."""
    model = converter.from_torch(module.eval(), traced)
    with torch.no_grad():
        wanted = module(*given)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    feeds = {port.name: item.numpy() for port, item in zip(model.graph.inputs, given, strict=True)}
    for runtime in ("reference", "numpy", "onnxruntime"):
        for found, truth in zip(converter.session(model, runtime).run(feeds).values(), wanted, strict=True):
            np.testing.assert_allclose(found, truth.numpy(), rtol=1e-5, atol=1e-5, err_msg=runtime)
    return model


@pytest.mark.parametrize("values", [(NAN, NAN), (math.inf, -math.inf), (-math.inf, NAN), (3e38, -3e38)])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name: str, values: tuple[float, float]) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 5, 3)
    x[2, 1, 0], x[4, 3, 2], x[3, 2, :2] = *values, torch.tensor(values)
    check(First(RECURRENT[name]), (torch.randn(4, 2, 3),), (x,))
    check(First(RECURRENT[name]), (torch.randn(4, 2, 3),), (torch.randn(6, 5, 3),))


@pytest.mark.parametrize("value", [NAN, math.inf])
@pytest.mark.parametrize("body", [nn.GRU(3, 4), nn.RNN(3, 4), nn.GRU(3, 4, bias=False)], ids=["gru", "rnn", "no biases"])
def test_states(body: nn.Module, value: float) -> None:
    torch.manual_seed(0)
    h = torch.randn(1, 5, 4)
    h[0, 2, 1] = value
    check(First(body), (torch.randn(4, 2, 3), torch.randn(1, 2, 4)), (torch.randn(6, 5, 3), h))


def test_infinities_in_sequences_of_different_lengths() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.GRU(3, 4, bidirectional=True)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(self.body(packed)[0], total_length=x.shape[0])[0]  # type: ignore[no-any-return]

    torch.manual_seed(0)
    x, lengths = torch.randn(6, 4, 3), torch.tensor([6, 2, 4, 3])
    x[3, 1], x[1, 2, :2], x[2, 3, 0] = math.inf, torch.tensor([math.inf, -math.inf]), NAN
    check(Packed(), (torch.randn(5, 3, 3), torch.tensor([5, 3, 1])), (x, lengths))


class Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)  # type: ignore[operator]


FUNCTIONS = {
    "max_pool1d": lambda x: F.max_pool1d(x, 2), "max_pool2d": lambda x: F.max_pool2d(x[None], 3, 1, 1),
    "dilated": lambda x: F.max_pool1d(x, 2, stride=1, dilation=2), "ceil": lambda x: F.max_pool1d(x, 3, ceil_mode=True),
    "with places": lambda x: F.max_pool1d(x, 2, return_indices=True), "double": lambda x: F.max_pool1d(x.double(), 2),
    "normalize": F.normalize, "clamp min": lambda x: x.clamp(min=0.5), "clamp max": lambda x: x.clamp(max=0.5),
    "clamp": lambda x: x.clamp(-1, 1), "elu": F.elu, "relu6": F.relu6,
    "adaptive": lambda x: F.adaptive_max_pool1d(x, 3), "adaptive to one": lambda x: F.adaptive_max_pool2d(x[None], 1),
    "adaptive with places": lambda x: F.adaptive_max_pool2d(x[None], (2, 3), return_indices=True),
    "fractional": lambda x: F.fractional_max_pool2d(x[None], 2, (2, 3), _random_samples=torch.full((1, 1, 2), 0.3)),
    "log_softmax": lambda x: F.log_softmax(x, -1), "log_softmax of doubles": lambda x: F.log_softmax(x.double(), -1),
    **{f"distances {p}": partial(lambda x, p: torch.cdist(x, x.flip(0), p), p=p) for p in (0.0, 1.0, 2.0, 3.0, float("inf"))},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 11)
    x[0, 0], x[1, 1], x[2, 2], x[3, 4], x[3, 5] = NAN, float("inf"), -float("inf"), float("inf"), -float("inf")
    check(Function(FUNCTIONS[name]), (torch.randn(4, 8),), (x,))


LOWEST = {name: FUNCTIONS[name] for name in ("max_pool1d", "max_pool2d", "dilated", "ceil", "with places", "double", "adaptive",
                                             "adaptive to one", "adaptive with places", "fractional")}


@pytest.mark.parametrize("name", LOWEST)
def test_windows_that_hold_minus_infinity_alone(name: str) -> None:
    """ONNX Runtime gives the lowest finite number, which a window may hold as well."""
    torch.manual_seed(0)
    x = torch.full((6, 11), -math.inf)
    x[:2, :4], x[3, 5] = torch.finfo(torch.float32).min, 1.0
    check(Function(LOWEST[name]), (torch.randn(4, 8),), (x,))


def test_the_largest_with_infinity_beside_nan() -> None:
    x = torch.tensor([[1.0, math.inf, 2.0, NAN, -math.inf, 0.0], [math.inf, 3.0, NAN, 1.0, NAN, 2.0]])
    check(Function(lambda x: (x.topk(3).values, x.topk(5, largest=False).values, x.sort(-1).values)), (torch.randn(2, 6),), (x,))


def test_nothing_is_paid_behind_convolutions() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    model = converter.from_torch(body.eval(), (torch.randn(1, 3, 8, 8),))
    assert "If" not in {node.op_type for node in build(model)[0].graph.node}
    # So may an infinity that is brought: 0 times it is NaN.
    for brought in (lambda x: F.pad(x, (2, 2), value=-math.inf) * 0.0, lambda x: x * math.inf * 0.0):
        infinite = nn.Sequential(nn.Conv1d(3, 4, 3), Function(brought), nn.MaxPool1d(2))
        check(infinite, (torch.randn(1, 3, 8),), (torch.randn(2, 3, 10),))
    # A division may make NaN.
    divided = nn.Sequential(nn.Conv2d(3, 4, 3), Function(lambda x: x / (x.abs().sum(1, keepdim=True) + 1)), nn.MaxPool2d(2))
    model = check(divided, (torch.randn(1, 3, 8, 8),), (torch.randn(2, 3, 10, 8),))
    assert "If" in {node.op_type for node in build(model)[0].graph.node}
