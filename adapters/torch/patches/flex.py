"""`flex_attention` as the attention that it is, with what its functions give for every pair of places.

torch compiles the functions of scores and masks into an operator of its own, with tables of blocks that a kernel may leave
out. While `dense_flex_attention()` is active, both functions are mapped over all batches, heads, queries and keys, as torch's
own plain implementation does, and block masks carry their function alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.attention.flex_attention as flex
from torch import Tensor
from torch._higher_order_ops.flex_attention import _math_attention_inner


def _attention(query: Tensor, key: Tensor, value: Tensor, score_mod: Any, block_mask: tuple[Any, ...], scale: float,
               kernel_options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """[batch, heads, queries, size], … -> the result, and the logarithm to base 2 of the sums and the largest scores of its rows."""
    heads = query.shape[1]
    if key.shape[1] != heads:
        key, value = (item.unsqueeze(2).expand(-1, -1, heads // key.shape[1], -1, -1).flatten(1, 2) for item in (key, value))
    _, scores = _math_attention_inner(query, key, value, score_mod, block_mask, scale, kernel_options)
    sums = torch.where((scores == -math.inf).all(-1), -math.inf, scores.logsumexp(-1))
    result = torch._safe_softmax(scores, -1).to(query.dtype) @ value
    return result, sums / math.log(2), scores.amax(-1) / math.log(2)


def _no_blocks(mask: Tensor, Q_BLOCK_SIZE: int = 0, KV_BLOCK_SIZE: int = 0, separate_full_blocks: bool = False) -> Any:
    return mask, None


def _block_mask(blocks: Any, mask_mod: Any, seq_lengths: Any, Q_BLOCK_SIZE: int, KV_BLOCK_SIZE: int) -> flex.BlockMask:
    """A mask of one block, which may be looked into everywhere."""
    batch, heads = blocks[0].shape[:2]
    counts, places = torch.ones([batch, heads, 1], dtype=torch.int32), torch.zeros([batch, heads, 1, 1], dtype=torch.int32)
    return flex.BlockMask.from_kv_blocks(counts, places, BLOCK_SIZE=(Q_BLOCK_SIZE, KV_BLOCK_SIZE), mask_mod=mask_mod,
                                         seq_lengths=seq_lengths)


EXCHANGED = {"flex_attention_hop": _attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG": True, "_convert_mask_to_block_mask": _no_blocks,
             "_create_sparse_block_from_block_mask": _block_mask}


@contextmanager
def dense_flex_attention() -> Iterator[None]:
    """While active, `flex_attention` and `create_block_mask` are traced as plain operators."""
    with ExitStack() as stack:
        for name, value in EXCHANGED.items():
            stack.enter_context(patch.object(flex, name, value))
        yield
