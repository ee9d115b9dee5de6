"""A converted encoder computes what `eval()` under `no_grad` gives: zeros at padded places, masks of numbers, places that see nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import converter

RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")
D = 8


def layer(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(D, 2, 12, batch_first=True, **options)


def ends(lengths: list[int], size: int) -> torch.Tensor:
    """True at the padded places of rows of these lengths, [batch, size]."""
    return torch.arange(size) >= torch.tensor(lengths)[:, None]


class Padded(nn.Module):
    """An encoder inside a model, with the padding as its second input."""

    def __init__(self, encoder: nn.Module, head: bool = False) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(D, 3) if head else nn.Identity()

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding))


class Masked(nn.Module):
    """A layer or an encoder with a mask between places as its second input."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.part(x, mask)


class Attention(nn.Module):
    """Attention alone."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, 2, batch_first=True)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]


class Translator(nn.Module):
    """A decoder that is not told of the padding attends to the zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Transformer(D, 2, 1, 1, 12, batch_first=True)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.net(x, x[:, :2], src_key_padding_mask=padding)


AT_ENDS = [ends([5, 3, 1], 5), ends([2, 4], 4), ends([7, 7], 7)]
AT_STARTS = [ends([5, 3, 4], 5).flip(1), ends([6, 2], 6).flip(1)]
WHOLE_ROW = [ends([5, 0, 3], 5)]
MIXED = [torch.cat([ends([0, 3], 5), ends([4], 5).flip(1)])]
EVERY = [*AT_ENDS, *AT_STARTS, *WHOLE_ROW, *MIXED]


def as_numbers(masks: list[torch.Tensor], value: float) -> list[torch.Tensor]:
    return [torch.zeros(mask.shape).masked_fill(mask, value) for mask in masks]


def alibi(size: int) -> torch.Tensor:
    return -(torch.arange(size)[:, None] - torch.arange(size)).abs().float() * 0.3


def holds(module: nn.Module, masks: list[torch.Tensor]) -> None:
    """Converts at the first mask's sizes, and holds every runtime to the module in evaluation at every mask."""
    module.eval()

    def at(mask: torch.Tensor) -> torch.Tensor:
        batch = mask.shape[0] if mask.shape[0] != mask.shape[-1] else 3
        return torch.randn(batch, mask.shape[-1], D, generator=torch.Generator().manual_seed(1))

    model = converter.from_torch(module, (at(masks[0]), masks[0]))
    assert converter.verify(model, runtimes=RUNTIMES)
    names = [port.name for port in model.graph.inputs]
    for runtime in RUNTIMES:
        session = converter.session(model, runtime)
        for mask in masks:
            with torch.no_grad():
                wanted = module(at(mask), mask).numpy()
            found = next(iter(session.run(dict(zip(names, (at(mask).numpy(), mask.numpy()), strict=True))).values()))
            np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5, err_msg=f"{runtime} {mask.tolist()}")


PADDED: list[Any] = [
    pytest.param(lambda: Padded(nn.TransformerEncoder(layer(), 2), head=True), EVERY, id="packed"),
    pytest.param(lambda: Padded(nn.TransformerEncoder(layer(), 1, norm=nn.LayerNorm(D))), EVERY, id="norm after the zeros"),
    pytest.param(lambda: Padded(nn.TransformerEncoder(layer(), 2, mask_check=False)), EVERY, id="packed unchecked", marks=pytest.mark.long),
    pytest.param(lambda: Padded(nn.TransformerEncoder(layer(), 1, enable_nested_tensor=False)), EVERY, id="never packed",
                 marks=pytest.mark.long),
    pytest.param(lambda: Padded(nn.TransformerEncoder(layer(activation=torch.tanh), 1, enable_nested_tensor=False)), EVERY,
                 id="no fast path"),
    pytest.param(lambda: Padded(nn.TransformerEncoder(layer(norm_first=True), 1, enable_nested_tensor=False)), EVERY,
                 id="norm first", marks=pytest.mark.long),
    pytest.param(lambda: Padded(nn.TransformerEncoder(layer(), 1)), as_numbers(EVERY, -2.0), id="padding of numbers"),
    pytest.param(lambda: Padded(layer()), as_numbers(EVERY, float("-inf")), id="a layer alone"),
    pytest.param(Attention, EVERY, id="attention alone"),
    pytest.param(Translator, AT_ENDS[:2], id="decoder over zeros"),
]


@pytest.mark.parametrize(("build", "masks"), PADDED)
def test_padding(build: Callable[[], nn.Module], masks: list[torch.Tensor]) -> None:
    torch.manual_seed(0)
    holds(build(), masks)


def test_masks_of_numbers_are_taken_as_the_fast_path_takes_them() -> None:
    torch.manual_seed(0)
    causal = torch.full((6, 6), float("-inf")).triu(1)
    blind = torch.zeros(4, 4)
    blind[2] = float("-inf")
    holds(Masked(nn.TransformerEncoder(layer(), 2)), [alibi(5), causal, alibi(6) + causal, blind])


def test_without_the_fast_path_the_ordinary_one_is_converted() -> None:
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        holds(Padded(nn.TransformerEncoder(layer(), 1)), EVERY)
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
