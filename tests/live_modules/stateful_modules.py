"""Modules that keep state from call to call, each in its own way."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from adapters.torch.state.kept import fingerprint

RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")
X = torch.arange(12.0).reshape(4, 3) / 7


class Running(nn.Module):
    """A buffer that is written to in place, or given anew."""

    def __init__(self, in_place: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((3,), 2.0))
        self.in_place = in_place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.in_place:
            self.mean.mul_(0.5).add_(x.mean(0))
        else:
            self.mean = self.mean * 0.5 + x.mean(0)
        return x - self.mean


class Anew(Running):
    """The same with another buffer after each call."""

    def __init__(self) -> None:
        super().__init__(False)


class Streaming(nn.Module):
    """A causal convolution over chunks: the last two steps are kept for the next chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 2, 3)
        self.register_buffer("last", torch.zeros(1, 3, 2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = torch.cat([self.last, x.T[None]], 2)
        self.last.copy_(whole[..., -2:])
        return self.conv(whole)


class Attribute(nn.Module):
    """A recurrent layer whose state is a plain attribute of a part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Module()
        self.part.h = torch.ones(1, 4)
        self.rnn = nn.GRU(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, self.part.h = self.rnn(x, self.part.h)
        return y


class FirstCall(nn.Module):
    """State that is not there before the first call, a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.hidden = nn.LSTM(3, 4), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, self.hidden = self.rnn(x) if self.hidden is None else self.rnn(x, self.hidden)
        return y


class Counter(nn.Module):
    """A Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return x * self.steps


class History(nn.Module):
    """A list, a dict and a deque that grow."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.by_name, self.window = [torch.zeros(3)], {"n": 0}, deque([1.0], maxlen=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.mean(0))
        self.by_name["n"] += 1
        self.window.append(self.window[-1] * 2)
        return x + sum(self.seen) + self.by_name["n"] + sum(self.window)


class InPlace(nn.Module):
    """A plain attribute that is written to in place, at a place that a number tells."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.at = torch.zeros(4, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows[self.at] = x[0]
        self.at = (self.at + 1) % 4
        return x + self.rows.sum(0)


class Window(nn.Module):
    """The last means in a deque, and statistics that evaluation goes on with."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(3), deque([torch.zeros(3), torch.ones(3)], maxlen=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.norm.train()
        self.last.append(x.mean(0))
        return self.norm(x) + torch.stack(list(self.last)).sum(0)


class Holder:
    """State in an object of one's own, and in one of its class."""

    shared: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.total = torch.zeros(3)


class InObject(nn.Module):
    """State in an object that is no module."""

    calls: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.holder.total = self.holder.total + x.sum(0)
        self.calls.append(1)
        return x + self.holder.total + len(self.calls)


class Constrained(nn.Module):
    """A weight that is scaled before it is used, past torch's count of changes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        with torch.no_grad():
            self.linear.weight.mul_(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.linear.weight.data = torch.renorm(self.linear.weight.data, 2, 0, 1.0)
        return self.linear(x)


STATEFUL: list[tuple[Callable[[], nn.Module], tuple[str, ...]]] = [
    (Running, ("mean",)), (Anew, ("mean",)), (Streaming, ("last",)), (Attribute, ("part.h",)), (FirstCall, ("hidden",)),
    (Counter, ("steps",)), (History, ("seen", "by_name", "window")), (InObject, ("holder", "calls")),
    (InPlace, ("rows", "at")), (Window, ("norm.running_mean", "norm.running_var", "last")),
]


def picture(module: nn.Module) -> Any:
    """All that a module holds, for comparison, with what surrounds it."""
    parts = [(type(part), fingerprint({key: value for key, value in vars(part).items() if key != "_modules"}, 6))
             for part in module.modules()]
    flags = [(item.requires_grad, item.grad, id(item)) for item in [*module.parameters(), *module.buffers()]]
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    switches = (torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled(), torch.are_deterministic_algorithms_enabled(),
                torch.is_grad_enabled(), InObject.calls, Holder.shared)
    states = (torch.get_rng_state().tolist(), str(np.random.get_state()), str(random.getstate()))
    return parts, flags, hooks, [repr(item) for item in switches], states, module.state_dict().keys()
