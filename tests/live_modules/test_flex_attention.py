"""`flex_attention` with score and mask functions of all kinds, at free sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import and_masks, create_block_mask, flex_attention

from tests.support_modules import assert_same

pytestmark = pytest.mark.filterwarnings("ignore")


class Alibi(nn.Module):
    """A captured parameter by head, with a log of sums."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.1, 0.5]))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Any:
        return flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score - self.slope[h] * (i - j).abs(), return_lse=True)


def window(q: Tensor, k: Tensor, v: Tensor) -> Any:
    mask = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < 3) & (i > 0), None, None, q.shape[-2], k.shape[-2], device="cpu")
    return flex_attention(q, k, v, block_mask=mask)


def documents(q: Tensor, k: Tensor, v: Tensor, document: Tensor) -> Any:
    causal: Callable[..., Tensor] = lambda b, h, i, j: i >= j  # noqa: E731
    same: Callable[..., Tensor] = lambda b, h, i, j: document[b, i] == document[b, j]  # noqa: E731
    mask = create_block_mask(and_masks(causal, same), q.shape[0], None, q.shape[-2], k.shape[-2], device="cpu")
    return flex_attention(q, k, v, block_mask=mask, scale=0.3)


def grouped(q: Tensor, k: Tensor, v: Tensor) -> Any:
    return flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: torch.tanh(score / 5) * 5, enable_gqa=True)


def heads(batch: int, queries: int, keys: int, count: int = 2, key_heads: int = 2) -> tuple[Tensor, ...]:
    return (torch.randn(batch, count, queries, 8), torch.randn(batch, key_heads, keys, 8), torch.randn(batch, key_heads, keys, 8))


def with_documents(batch: int, time: int) -> tuple[Tensor, ...]:
    return (*heads(batch, time, time), torch.randint(0, 3, (batch, time)).sort().values)


CASES: dict[str, tuple[Any, tuple[Tensor, ...], tuple[Tensor, ...]]] = {
    "slopes across": (Alibi(), heads(2, 6, 8), heads(1, 9, 4)),
    "a window past one block, a row without anything": (window, heads(2, 6, 6), heads(1, 140, 140)),
    "documents": (documents, with_documents(2, 6), with_documents(3, 9)),
    "fewer heads of keys": (grouped, heads(2, 6, 7, 4, 2), heads(1, 9, 5, 4, 2)),
}


LONG = ("slopes across", "documents")
"""Seconds each, of kinds that others stand for: a score of what is held, a mask of what is given."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in LONG else []) for name in CASES])
def test_flex_attention(name: str) -> None:
    function, *calls = CASES[name]
    assert_same(function, *calls)
