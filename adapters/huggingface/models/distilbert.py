"""DistilBERT (Sanh et al. 2019): half of BERT's layers, no token types."""

from __future__ import annotations

from adapters.huggingface.family import Family
from adapters.huggingface.layers.encoders import (
    BUFFERS,
    TASKS,
    choice_head,
    embed,
    layers,
    masked_lm_scores,
    padding_mask,
    plain_head,
    plain_positions,
    sizes,
    span_head,
    text_inputs,
    token_head,
)
from adapters.huggingface.net import Net

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
    if task == "feature-extraction":
        plain_head(net, x, pooler=False)
    elif task == "fill-mask":
        net.output("logits", masked_lm_scores(net, x, width, given.activation, EPS))
    elif task == "text-classification":
        inner = net.op("relu", net.linear(net.first(x), "classifier_dense", width))
        net.output("logits", net.linear(inner, "classifier", config.labels()))
    elif task == "token-classification":
        token_head(net, x)
    elif task == "multiple-choice":
        choice_head(net, net.op("relu", net.linear(net.first(x), "classifier_dense", width)))
    else:
        span_head(net, x)


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
