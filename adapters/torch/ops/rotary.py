"""Rotary positions: PyTorch has no operator for them. Graphs have one where their arithmetic was recognised."""

from __future__ import annotations

import torch

from adapters.torch.registry import rebuilds


@rebuilds("rotary_embedding")
def rebuild_rotary_embedding(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, *, interleaved: bool = False) -> torch.Tensor:
    rotated = 2 * cosine.shape[-1]
    turned, kept = x[..., :rotated], x[..., rotated:]
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = a * cosine - b * sine, b * cosine + a * sine
    y = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat((y, kept), -1)
