"""DistilBERT (Sanh et al. 2019): half of BERT's layers, no token types."""

from __future__ import annotations

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.encoders import (
    BUFFERS,
    TASKS,
    embed,
    give,
    layers,
    masked_lm_scores,
    padding_mask,
    plain_positions,
    sizes,
    text_inputs,
)
from adapters.architectures.huggingface.net import Net
from converter.builder import Value

NAMES = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "query": "transformer.layer.{layer}.attention.q_lin",
    "key": "transformer.layer.{layer}.attention.k_lin",
    "value": "transformer.layer.{layer}.attention.v_lin",
    "attention_out": "transformer.layer.{layer}.attention.out_lin",
    "attention_norm": "transformer.layer.{layer}.sa_layer_norm",
    "inner": "transformer.layer.{layer}.ffn.lin1",
    "outer": "transformer.layer.{layer}.ffn.lin2",
    "outer_norm": "transformer.layer.{layer}.output_layer_norm",
}

HEADS = {
    "lm_dense": "vocab_transform",
    "lm_norm": "vocab_layer_norm",
    "lm_decoder": "vocab_projector",
    "classifier_dense": "pre_classifier",
    "classifier": "classifier",
    "span": "qa_outputs",
}

# The code has this number, and no config field for it.
EPS = 1e-12


def build(net: Net, task: str) -> None:
    config = net.config
    width, given = config.size("hidden_size"), sizes(config, eps=EPS)
    ids = text_inputs(net, config.size("max_position_embeddings"), task)
    x = embed(net, ids, width, lambda: plain_positions(net, ids, width), types=False, eps=EPS)
    x = layers(net, x, padding_mask(net), given)

    def first() -> Value:
        return net.op("relu", net.linear(net.first(x), "classifier_dense", width))

    give(net, x, task, lambda: masked_lm_scores(net, x, width, given.activation, EPS),
         {"text-classification": lambda: net.output("logits", net.linear(first(), "classifier", config.labels()))},
         pooler=False, chosen=first)


FAMILY = Family(
    classes={"distilbert": "DistilBert"},
    names=NAMES,
    heads=HEADS,
    tasks=TASKS,
    build=build,
    prefixes=("distilbert.",),
    leftovers=(*BUFFERS, "vocab_*", "pre_classifier.*", "classifier.*", "qa_outputs.*"),
    renamed={"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers",
             "intermediate_size": "hidden_dim", "hidden_act": "activation"},
    optional=("position_ids",),
)
