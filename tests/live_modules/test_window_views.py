"""Views that cut an image of free size into whole windows: as many questions as it takes, and the sizes that the module takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import converter
from adapters.torch.tracing.trace import trace
from converter import RunError


def windows(x: Tensor, side: int) -> Tensor:
    """[batch, height, width, channels] -> [windows, side, side, channels]."""
    batch, height, width, channels = x.shape
    parts = x.view(batch, height // side, side, width // side, side, channels)
    return parts.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, side, side, channels)


def whole(parts: Tensor, side: int, height: int, width: int) -> Tensor:
    """The image that `windows` cut."""
    x = parts.view(-1, height // side, width // side, side, side, parts.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, parts.shape[-1])


class Blocks(nn.Module):
    """Attention within windows of a patched image, several blocks of it."""

    def __init__(self, patch: int, side: int, blocks: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, patch, patch)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(blocks))
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1).contiguous()
        _, height, width, _ = x.shape
        for layer in self.layers:
            parts = windows(x, self.side).view(-1, self.side * self.side, 8)
            scores = (layer(parts) @ parts.transpose(1, 2)).softmax(-1)
            x = x + whole(scores @ parts, self.side, height, width)
        return x


def check(module: Callable[..., Tensor], model: converter.Model, x: Tensor) -> None:
    with torch.no_grad():
        wanted = module(x).numpy()
    for runtime in ("reference", "onnxruntime"):
        found = converter.session(model, runtime).run({"x": x.numpy()})["output"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_windows_take_a_question_for_each_axis() -> None:
    torch.manual_seed(0)
    module = Blocks(4, 7, 4).eval()
    started = time.thread_time()
    model = trace(module, (torch.randn(1, 3, 56, 28),)).model
    assert time.thread_time() - started < 20
    assert len(model.graph.requires) <= 2
    for height, width, batch in ((56, 28, 1), (28, 28, 2), (84, 56, 3), (31, 58, 1)):
        check(module, model, torch.randn(batch, 3, height, width))
    for height, width in ((56, 40), (27, 28), (32, 32)):
        x = torch.randn(1, 3, height, width)
        with pytest.raises(RuntimeError):
            module(x)
        with pytest.raises(RunError):
            converter.session(model, "reference").run({"x": x.numpy()})


class Halves(nn.Module):
    """A size that is halved and rounded down, which need not be even, beside one that is cut into parts of 3."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.avg_pool1d(x, 2)
        batch, channels, half = pooled.shape
        return pooled.view(batch, channels // 3, 3, half).sum(1).reshape(batch, -1)


def test_no_more_is_asked_than_a_view_takes() -> None:
    module = Halves()
    model = trace(module, (torch.randn(2, 6, 9),)).model
    for channels, length in ((6, 9), (9, 10), (3, 4), (12, 7)):
        check(module, model, torch.randn(2, channels, length))
    with pytest.raises(RunError):
        converter.session(model, "reference").run({"x": np.zeros((2, 7, 8), np.float32)})


class Tokens(nn.Module):
    """An image of as many places as a table has."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(12, 4))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        return x.view(batch, 12, 4) + self.table


def test_a_product_of_sizes_that_is_a_number_is_required() -> None:
    module = Tokens().eval()
    model = trace(module, (torch.randn(2, 3, 4, 4),)).model
    check(module, model, torch.randn(3, 3, 4, 4))
    for height, width in ((4, 4), (3, 3), (13, 1)):
        with pytest.raises(RunError):
            converter.session(model, "reference").run({"x": np.zeros((2, height, width, 4), np.float32)})
    taken = [shape for shape in ((4, 3), (2, 6), (12, 1)) if accepted(model, shape)]
    for height, width in taken:
        check(module, model, torch.randn(1, height, width, 4))


def accepted(model: converter.Model, shape: tuple[int, int]) -> bool:
    try:
        converter.session(model, "reference").run({"x": np.zeros((1, *shape, 4), np.float32)})
    except RunError:
        return False
    return True


class Uneven(nn.Module):
    """Sizes plus and minus something, in parts."""

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        longer = nn.functional.pad(x, (0, 0, 1, 2))
        parts = longer.view(batch, (time + 3) // 4, 4, width).mean(2)
        return parts.reshape(-1, width)


def test_the_size_in_a_quotient_may_have_more_beside_it() -> None:
    module = Uneven()
    model = trace(module, (torch.randn(2, 9, 3),)).model
    for time_, width in ((9, 3), (5, 2), (21, 1), (13, 4)):
        check(module, model, torch.randn(2, time_, width))
    for time_ in (8, 10, 11):
        with pytest.raises(RunError):
            converter.session(model, "reference").run({"x": np.zeros((2, time_, 3), np.float32)})
