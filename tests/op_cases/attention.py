"""Attention: masks of both kinds, rows that see nothing, causal masks of unequal lengths, grouped heads, whole layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.op_cases import Case, Input, boolean, f32, f64

HEADS = ("batch", 2, "time", 4)
SOURCE = ("batch", 2, "length", 4)


def sdpa(**options: Any) -> Any:
    return lambda *inputs: F.scaled_dot_product_attention(*inputs, **options)


def blind(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """A mask whose first row shows nothing."""
    mask = rng.random(size) < 0.6
    mask[..., 0, :] = False
    return mask


def blind_float(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return np.where(blind(rng, size), rng.standard_normal(size), -np.inf).astype(np.float32)


class Twice(nn.Module):
    """Two layers that share one mask."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        once = F.scaled_dot_product_attention(q, k, k, mask)
        return F.scaled_dot_product_attention(once, k, k, mask)


class ConstantMask(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, k, self.mask)


class SelfAttention(nn.Module):
    """nn.MultiheadAttention on one input."""

    def __init__(self, need_weights: bool = False, padding: bool = False, **options: Any) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.need_weights, self.padding = need_weights, padding

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        options = {"key_padding_mask": mask} if self.padding else {"attn_mask": mask}
        result = self.layer(x, x, x, need_weights=self.need_weights, **options)
        return result if self.need_weights else result[0]


def some_padding(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """True where a position is padding: never the first."""
    mask = rng.random(size) < 0.4
    mask[..., 0] = False
    return mask


class Encoder(nn.Module):
    """An encoder under a mask that the caller gives, and padding."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.layers(x, mask=mask, src_key_padding_mask=padding)


def upper(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """True above the diagonal: what nn.Transformer hides."""
    return np.triu(np.ones(size, np.bool_), 1)


class Decoder(nn.Module):
    """A decoder layer under a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
        return self.layer(x, memory, tgt_mask=mask, tgt_is_causal=True)


torch.manual_seed(0)
NAME = "scaled_dot_product_attention"
CASES = [
    Case(NAME, sdpa(), f32(*HEADS), f32(*SOURCE), f32(*SOURCE)),
    Case(NAME, sdpa(scale=0.3), f32("time", 4), f32("length", 4), f32("length", 3), name="matrices, scale"),
    Case(NAME, sdpa(scale=-0.3), f32(*HEADS), f32(*SOURCE), f32(*SOURCE), name="negative scale"),
    Case(NAME, sdpa(), f32(*HEADS), f32(*SOURCE), f32("batch", 2, "length", 3), boolean("batch", 1, "time", "length"), name="boolean mask"),
    Case(NAME, sdpa(), f32(*HEADS), f32(*SOURCE), f32(*SOURCE), Input(("time", "length"), blind), name="blind rows"),
    Case(NAME, sdpa(), f32(*HEADS), f32(*SOURCE), f32(*SOURCE), Input(("batch", 1, "time", "length"), blind_float),
         name="additive mask, blind rows"),
    Case(NAME, sdpa(), f32(*HEADS), f32(*SOURCE), f32(*SOURCE), boolean("batch", 1, 1, "length"), name="padding mask"),
    Case(NAME, sdpa(), f32(*HEADS), f32(*SOURCE), f32(*SOURCE), f32(2, "time", "length"), name="bias a head"),
    Case(NAME, sdpa(is_causal=True), f32(*HEADS), f32(*HEADS), f32(*HEADS), name="causal"),
    Case(NAME, sdpa(is_causal=True), f32(*HEADS), f32(*SOURCE), f32(*SOURCE), name="causal, two lengths"),
    Case(NAME, sdpa(is_causal=True), f32("batch", 2, 5, 4), f32("batch", 2, 5, 4), f32("batch", 2, 5, 4), name="causal, fixed length"),
    Case(NAME, sdpa(is_causal=True), f64(*HEADS), f64(*SOURCE), f64(*SOURCE), name="causal, float64"),
    Case(NAME, sdpa(), f64("batch", "time", 6), f64("batch", "length", 6), f64("batch", "length", 6), name="float64, inexact scale"),
    Case(NAME, sdpa(enable_gqa=True), f32("batch", 6, "time", 4), f32(*SOURCE), f32(*SOURCE), name="grouped heads"),
    Case(NAME, sdpa(enable_gqa=True), f32("batch", 6, "time", 4), f32(*SOURCE), f32(*SOURCE), f32("batch", 6, "time", "length"),
         name="grouped heads, mask a head"),
    Case(NAME, sdpa(enable_gqa=True, is_causal=True), f32("batch", 4, "time", 4), f32("batch", 2, "time", 4), f32("batch", 2, "time", 4),
         name="grouped heads, causal"),
    Case(NAME, sdpa(enable_gqa=True), f32("batch", 6, "time", 4), f32("batch", 2, "length", 4), f32("batch", 3, "length", 5),
         name="grouped heads, those of the value apart"),
    Case(NAME, sdpa(enable_gqa=True), f32("batch", 6, "time", 4), f32("batch", 3, "length", 4), f32("batch", 1, "length", 5),
         f32("batch", 6, "time", "length"), name="grouped heads, one of the value, mask a head"),
    Case(NAME, Twice(), f32(*HEADS), f32(*SOURCE), boolean("time", "length"), name="a mask for two layers"),
    Case(NAME, ConstantMask(torch.tensor([[True, False, True], [False, False, False], [True, True, True]])),
         f32("batch", 3, 4), f32("batch", 3, 4), name="mask in a buffer"),
    Case("matmul", SelfAttention(need_weights=True), f32("batch", "time", 8), name="multi-head attention with weights"),
    Case(NAME, SelfAttention(), f32("batch", "time", 8), f32("time", "time"), name="multi-head attention, additive mask"),
    Case(NAME, SelfAttention(padding=True, bias=False), f32("batch", "time", 8), Input(("batch", "time"), some_padding),
         name="multi-head attention, padding"),
    Case(NAME, SelfAttention(add_bias_kv=True, add_zero_attn=True), f32("batch", "time", 8), name="multi-head attention, bias_k"),
    Case(NAME, nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), f32("batch", "time", 8), name="encoder layer"),
    Case(NAME, nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, norm_first=True), 2, enable_nested_tensor=False),
         f32("time", "batch", 8), name="encoder, time first"),
    Case(NAME, Encoder(), f32("batch", "time", 8), Input(("time", "time"), upper), Input(("batch", "time"), some_padding),
         name="encoder, mask and padding"),
    Case(NAME, Decoder(), f32("batch", "time", 8), f32("batch", "length", 8), name="decoder layer"),
    Case(NAME, nn.Transformer(8, 2, 1, 1, 16, batch_first=True), f32("batch", "length", 8), f32("batch", "time", 8),
         name="whole transformer"),
    Case("scaled_dot_product_attention", lambda q, k: torch.nn.functional.scaled_dot_product_attention(
        q.bfloat16(), k.bfloat16(), k.bfloat16(), is_causal=True).float(), f32("batch", 2, 5, 4), f32("batch", 2, 5, 4), name="bfloat16"),
]
