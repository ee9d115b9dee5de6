"""Convolutions whose groups or filters are a size of the input: each image has filters of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import converter


class Modulated(nn.Module):
    """StyleGAN's convolution: one convolution of the whole batch, a group for each image."""

    def __init__(self, axes: int, bias: bool, **settings: Any) -> None:
        super().__init__()
        kernel = (3, 2)[:axes]
        self.weight, self.style = nn.Parameter(torch.randn(1, 6, 4, *kernel)), nn.Linear(8, 4)
        self.bias = nn.Parameter(torch.randn(6)) if bias else None
        self.settings, self.convolve = settings, (F.conv1d, F.conv2d)[axes - 1]

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        ones = [1] * (x.dim() - 2)
        weight = (self.weight * self.style(style).view(batch, 1, channels, *ones)).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat(batch)
        found = self.convolve(x.reshape(1, -1, *x.shape[2:]), weight, bias, groups=batch, **self.settings)
        return found.view(batch, 6, *found.shape[2:])


class Filters(nn.Module):
    """As many filters as an input has, which every image goes through."""

    def forward(self, x: Tensor, filters: Tensor) -> Tensor:
        return F.conv2d(x, filters, padding=1)


class Shared(nn.Module):
    """Two groups of a free number of filters each."""

    def forward(self, x: Tensor, filters: Tensor) -> Tensor:
        return F.conv2d(x, torch.cat([filters, filters * 2]), groups=2)


def check(module: nn.Module, calls: Sequence[tuple[Tensor, ...]], dims: Any = "auto") -> None:
    module.eval()
    model = converter.from_torch(module, calls[0], dims=dims, examples=False)
    for runtime in ("reference", "numpy", "onnxruntime", "torch"):
        session = converter.session(model, runtime)
        for call in calls:
            with torch.no_grad():
                wanted = module(*call).numpy()
            found = session.run({port.name: value.numpy() for port, value in zip(model.graph.inputs, call, strict=True)})["output"]
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=runtime)


@pytest.mark.parametrize(("axes", "bias", "settings"), [
    (2, False, {"padding": 1}), (2, True, {"stride": 2, "dilation": (1, 2)}), (2, True, {"padding": "valid"}),
    (1, True, {"padding": "same"}), (1, False, {"stride": 3, "padding": 2})])
def test_a_group_for_each_image(axes: int, bias: bool, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    sizes = [(2, (8, 8)), (3, (5, 9)), (1, (7, 6)), (5, (6, 11))]
    check(Modulated(axes, bias, **settings), [(torch.randn(batch, 4, *image[:axes]), torch.randn(batch, 8)) for batch, image in sizes])


@pytest.mark.parametrize(("module", "channels"), [(Filters(), 4), (Shared(), 8)], ids=["filters", "groups"])
def test_a_free_number_of_filters(module: nn.Module, channels: int) -> None:
    torch.manual_seed(0)
    check(module, [(torch.randn(batch, channels, 6, height), torch.randn(count, 4, 3, 3))
                   for batch, height, count in ((2, 7, 5), (3, 5, 2), (1, 9, 8))],
          {"x": ["batch", None, None, "width"], "filters": ["count", None, None, None]})
