"""ALBERT (Lan et al. 2019): narrow embeddings, and groups of layers that share their weights."""

from __future__ import annotations

from adapters.architectures.huggingface.config import MOST_LAYERS
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.encoders import (
    BUFFERS,
    TASKS,
    embed,
    give,
    layer,
    masked_lm_scores,
    padding_mask,
    plain_positions,
    pooled,
    refuse_decoder,
    sizes,
    text_inputs,
)
from adapters.architectures.huggingface.net import Net
from converter.builder import Value

LAYER = "encoder.albert_layer_groups.{group}.albert_layers.{inner}"
NAMES = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "projection": "encoder.embedding_hidden_mapping_in",
    "query": f"{LAYER}.attention.query",
    "key": f"{LAYER}.attention.key",
    "value": f"{LAYER}.attention.value",
    "attention_out": f"{LAYER}.attention.dense",
    "attention_norm": f"{LAYER}.attention.LayerNorm",
    "inner": f"{LAYER}.ffn",
    "outer": f"{LAYER}.ffn_output",
    "outer_norm": f"{LAYER}.full_layer_layer_norm",
    "pooler": "pooler",
}

HEADS = {
    "lm_dense": "predictions.dense",
    "lm_norm": "predictions.LayerNorm",
    "lm_decoder": "predictions.decoder",
    "lm_bias": "predictions.bias",
    "sentence_order": "sop_classifier.classifier",
    "classifier": "classifier",
    "span": "qa_outputs",
}


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_decoder(config)
    width, narrow, given = config.size("hidden_size"), config.size("embedding_size"), sizes(config, activation="gelu_new")
    count, groups, inner = config.size("num_hidden_layers"), config.size("num_hidden_groups", 1), config.size("inner_group_num", 1)
    if count * inner > MOST_LAYERS:
        raise config.refuse("inner_group_num", f"at most {MOST_LAYERS} layers in all", inner)
    ids = text_inputs(net, config.size("max_position_embeddings"), task)
    x = embed(net, ids, narrow, lambda: plain_positions(net, ids, narrow), eps=given.eps)
    x, mask = net.linear(x, "projection", width), padding_mask(net)
    for index in range(count):
        for part in range(inner):
            # The very expression of the library: its rounding decides the group.
            x = layer(net, x, mask, given, f"layer_{index}", group=int(index / (count / groups)), inner=part)

    def scores() -> Value:
        return masked_lm_scores(net, x, narrow, given.activation, given.eps)

    def pretrained() -> None:
        net.output("prediction_logits", scores())
        net.output("sop_logits", net.linear(pooled(net, x), "sentence_order", config.labels()))

    give(net, x, task, scores, {"pretraining": pretrained})


FAMILY = Family(
    classes={"albert": "Albert"},
    names=NAMES,
    heads=HEADS,
    tasks={**TASKS, "pretraining": "ForPreTraining"},
    build=build,
    prefixes=("albert.",),
    leftovers=(*BUFFERS, "pooler.*", "predictions.*", "sop_classifier.*", "classifier.*", "qa_outputs.*"),
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    optional=("position_ids",),
)
