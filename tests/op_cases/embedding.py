"""Tables looked up by index."""

import numpy as np
import torch
import torch.nn.functional as F

from tests.op_cases import Case, Input, f32, i32, i64


def offsets(*shape: int | str) -> Input:
    """Where bags of two indices start, but one empty bag."""
    return Input(shape, lambda rng, size: np.maximum(np.arange(size[0]) - 1, 0) * 2)


WORDS = i64("batch", "time", low=0, high=7)

CASES = [
    Case("embedding", torch.nn.Embedding(7, 3), WORDS),
    Case("embedding", torch.nn.Embedding(7, 3, padding_idx=2), i32("batch", low=0, high=7), name="padding, int32"),
    Case("embedding", F.embedding, i64(low=0, high=7), f32(7, 3), name="one index"),
    *(Case("embedding_bag", torch.nn.EmbeddingBag(7, 3, mode=mode, padding_idx=padding), WORDS, name=f"{mode}, padding {padding}")
      for mode in ("sum", "mean", "max") for padding in (None, 2)),
    *(Case("embedding_bag", lambda i, w, o, mode=mode, padding=padding: F.embedding_bag(i, w, o, mode=mode, padding_idx=padding),
           i64(14, low=0, high=7), f32(7, 3), offsets("batch"), name=f"offsets, {mode}, padding {padding}")
      for mode in ("sum", "mean", "max") for padding in (None, 2)),
    Case("embedding_bag", lambda i, w, s: F.embedding_bag(i, w, mode="sum", per_sample_weights=s), WORDS, f32(7, 3),
         f32("batch", "time"), name="weights"),
    Case("embedding_bag", lambda i, w, o, s: F.embedding_bag(i, w, o, mode="sum", per_sample_weights=s), i64("length", low=0, high=7),
         f32(7, 3), offsets(2), f32("length"), name="offsets, weights"),
    Case("embedding_bag", lambda i, w, o: F.embedding_bag(i, w, o, mode="mean", include_last_offset=True), i64(8, low=0, high=7),
         f32(7, 3), offsets(6), name="last offset"),
    Case("embedding", lambda i, w: F.embedding(i, w, max_norm=1.5), WORDS, f32(7, 3), name="largest norm"),
    Case("embedding_bag", lambda i, w: F.embedding_bag(i, w, max_norm=1.5, norm_type=1.0), WORDS, f32(7, 3), name="largest norm"),
]
