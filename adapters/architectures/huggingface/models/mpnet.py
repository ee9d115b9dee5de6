"""MPNet (Song et al. 2020): BERT with RoBERTa's positions, and a bias for each head by the distance of two words."""

from __future__ import annotations

import math

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.distances import distance_bias
from adapters.architectures.huggingface.layers.encoders import (
    BUFFERS,
    GAMMA_BETA,
    TASKS,
    embed,
    give,
    layers,
    masked_lm_scores,
    padding_mask,
    positions_after_padding,
    refuse_decoder,
    sizes,
    text_inputs,
    two_layer_classifier,
)
from adapters.architectures.huggingface.net import Net

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


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_decoder(config)
    if config.size("relative_attention_num_buckets", BUCKETS) < BUCKETS:
        raise config.refuse("relative_attention_num_buckets", f"{BUCKETS} and up", config.get("relative_attention_num_buckets"))
    width, given, rows = config.size("hidden_size"), sizes(config), config.size("max_position_embeddings")
    if rows <= PADDING + 1:
        raise config.refuse("max_position_embeddings", f"{PADDING + 2} and up", rows)
    ids = text_inputs(net, rows - PADDING - 1, task)
    x = embed(net, ids, width, lambda: positions_after_padding(net, ids, width, PADDING), types=False, eps=given.eps)
    table = net.tensor("distances", (config.size("relative_attention_num_buckets", BUCKETS), given.heads))
    bias, mask = distance_bias(net, table, BUCKETS, FARTHEST, 0, ids.shape[1]), padding_mask(net)
    if mask is not None:
        bias = net.op("where", mask, bias, -math.inf, name="bias")
    x = layers(net, x, bias, given)
    give(net, x, task, lambda: masked_lm_scores(net, x, width, "gelu", given.eps),
         {"text-classification": lambda: two_layer_classifier(net, x, "tanh")})


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
