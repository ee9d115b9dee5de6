"""Attention: softmax(query · keyᵀ) · value, with masks."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType


@imports("aten.scaled_dot_product_attention.default")
def scaled_dot_product_attention(g: Importer, query: Value, key: Value, value: Value, attn_mask: Value | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, *, scale: Any = None,
                                 enable_gqa: bool = False) -> Value:
    if dropout_p:
        raise g.refuse("dropout in attention is random: pass dropout_p=0 in evaluation mode", "random")
    if scale is not None and not isinstance(scale, (int, float)):
        raise g.refuse("a scale that depends on a free size")
    if attn_mask is not None and attn_mask.dtype is not DType.BOOL:
        attn_mask = g.cast(attn_mask, query.dtype)
    # Equal heads need no groups.
    grouped = enable_gqa and query.shape[-3] != key.shape[-3]
    size = query.shape[-1]
    usual = scale is None or isinstance(size, int) and size > 0 and scale == size ** -0.5
    return g.op("scaled_dot_product_attention", query, key, value, attn_mask, is_causal=is_causal,
                scale=None if usual or scale is None else float(scale), enable_gqa=grouped)


@imports("aten._scaled_dot_product_flash_attention_for_cpu.default")
def flash_attention_for_cpu(g: Importer, query: Value, key: Value, value: Value, dropout_p: float = 0.0,
                            is_causal: bool = False, *, attn_mask: Value | None = None, scale: Any = None) -> tuple[Any, ...]:
    return _first_output(g, scaled_dot_product_attention(g, query, key, value, attn_mask, dropout_p, is_causal, scale=scale,
                                                         enable_gqa=query.shape[-3] != key.shape[-3]))


@imports("aten._scaled_dot_product_attention_math.default")
def attention_math(g: Importer, query: Value, key: Value, value: Value, attn_mask: Value | None = None,
                   dropout_p: float = 0.0, is_causal: bool = False, dropout_mask: Value | None = None, *, scale: Any = None,
                   enable_gqa: bool = False) -> tuple[Any, ...]:
    if dropout_mask is not None:
        raise g.refuse("dropout in attention", "random")
    return _first_output(g, scaled_dot_product_attention(g, query, key, value, attn_mask, dropout_p, is_causal, scale=scale,
                                                         enable_gqa=enable_gqa))


def _first_output(g: Importer, y: Value) -> tuple[Any, ...]:
    """The output alone; the weights and their logarithms serve training only."""
    others = [user for user in g.node.users if user.args[1:] and user.args[1] != 0]
    if any(user.users for user in others):
        raise g.refuse("the attention's second output is used")
    return (y, None)


@rebuilds("scaled_dot_product_attention")
def rebuild_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None, *,
                      is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> torch.Tensor:
    if mask is not None and is_causal:
        causal = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        mask, is_causal = (mask & causal if mask.dtype is torch.bool else mask.masked_fill(~causal, -torch.inf)), False
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, 0.0, is_causal, scale=scale,
                                                            enable_gqa=enable_gqa)
