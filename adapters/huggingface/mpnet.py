"""MPNet (Song et al. 2020): BERT with RoBERTa's positions, and a bias for each head by the distance of two words."""

from __future__ import annotations

import math

import numpy as np

from adapters.huggingface.encoders import (
    BUFFERS,
    GAMMA_BETA,
    TASKS,
    embed,
    layers,
    masked_lm_scores,
    padding_mask,
    plain_head,
    positions_after_padding,
    refuse_decoder,
    sizes,
    span_head,
    text_inputs,
    token_head,
    two_layer_classifier,
)
from adapters.huggingface.family import Family
from adapters.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim
from converter.ir import DType

NAMES = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "distances": "encoder.relative_attention_bias",
    "query": "encoder.layer.{layer}.attention.attn.q",
    "key": "encoder.layer.{layer}.attention.attn.k",
    "value": "encoder.layer.{layer}.attention.attn.v",
    "attention_out": "encoder.layer.{layer}.attention.attn.o",
    "attention_norm": "encoder.layer.{layer}.attention.LayerNorm",
    "inner": "encoder.layer.{layer}.intermediate.dense",
    "outer": "encoder.layer.{layer}.output.dense",
    "outer_norm": "encoder.layer.{layer}.output.LayerNorm",
    "pooler": "pooler.dense",
}

HEADS = {
    "lm_dense": "lm_head.dense",
    "lm_norm": "lm_head.layer_norm",
    "lm_decoder": "lm_head.decoder",
    "lm_bias": "lm_head.bias",
    "classifier_dense": "classifier.dense",
    "classifier_out": "classifier.out_proj",
    "classifier": "classifier",
    "span": "qa_outputs",
}

# The library's code has these numbers, whatever the config says.
PADDING = 1
BUCKETS = 32
FARTHEST = 128


def distance_buckets(buckets: int = BUCKETS, farthest: int = FARTHEST) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The bucket of each distance from -farthest to farthest (position of the key - that of the query): int64 [2 · farthest + 1].

    Raffel et al. 2019, section 2.1, in both directions: half of the buckets for each sign, half of those for single
    distances, the others for ranges that grow as the logarithm does; in float32, whose rounding decides the bounds.
    """
    distance = -np.arange(-farthest, farthest + 1)
    half = buckets // 2
    near = half // 2
    size = np.abs(distance)
    with np.errstate(divide="ignore"):
        far = np.log(size.astype(np.float32) / np.float32(near)) / np.float32(math.log(farthest / near)) * np.float32(half - near)
    far = np.minimum(near + np.where(size < near, 0, far).astype(np.int64), half - 1)
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = (distance < 0) * half + np.where(size < near, size, far)
    return found


def distance_bias(net: Net, time: Dim, heads: int) -> Value:
    """What to add to the scores: [heads, time, time]."""
    table = net.tensor("distances", (net.config.size("relative_attention_num_buckets", BUCKETS), heads))
    buckets = net.constant("distance_buckets", distance_buckets())
    place = net.op("arange", stop=time, dtype=DType.INT64)
    keys, queries = net.op("reshape", place, shape=(1, time)), net.op("reshape", place, shape=(time, 1))
    distance = net.op("add", net.op("clip", net.op("subtract", keys, queries), -FARTHEST, FARTHEST), FARTHEST)
    # Looked up by distance first: [2 · farthest + 1, heads], then one row for each pair of words.
    rows = net.op("embedding", buckets, table)
    return net.op("permute_dims", net.op("embedding", distance, rows), axes=(2, 0, 1), name="distance_bias")


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_decoder(config)
    if config.size("relative_attention_num_buckets", BUCKETS) < BUCKETS:
        raise config.refuse("relative_attention_num_buckets", f"{BUCKETS} and up", config.get("relative_attention_num_buckets"))
    width, given, rows = config.size("hidden_size"), sizes(config), config.size("max_position_embeddings")
    if rows <= PADDING + 1:
        raise config.refuse("max_position_embeddings", f"{PADDING + 2} and up", rows)
    ids = text_inputs(net, rows - PADDING - 1)
    x = embed(net, ids, width, lambda: positions_after_padding(net, ids, width, PADDING), types=False, eps=given.eps)
    bias, mask = distance_bias(net, ids.shape[1], given.heads), padding_mask(net)
    if mask is not None:
        bias = net.op("where", mask, bias, -math.inf, name="bias")
    x = layers(net, x, bias, given)
    if task == "feature-extraction":
        plain_head(net, x)
    elif task == "fill-mask":
        net.output("logits", masked_lm_scores(net, x, width, "gelu", given.eps))
    elif task == "text-classification":
        two_layer_classifier(net, x, "tanh")
    elif task == "token-classification":
        token_head(net, x)
    else:
        span_head(net, x)


FAMILY = Family(
    classes={"mpnet": "MPNet"},
    names=NAMES,
    heads=HEADS,
    tasks=TASKS,
    build=build,
    prefixes=("mpnet.",),
    leftovers=(*BUFFERS, "pooler.*", "lm_head.*", "classifier.*", "qa_outputs.*"),
    legacy=GAMMA_BETA,
    optional=("position_ids",),
)
