"""BERT (Devlin et al. 2018)."""

from __future__ import annotations

from adapters.huggingface.family import Family
from adapters.huggingface.layers import bidirectional
from adapters.huggingface.layers.encoders import (
    BUFFERS,
    GAMMA_BETA,
    TASKS,
    choice_head,
    embed,
    layers,
    masked_lm_scores,
    padding_mask,
    plain_head,
    plain_positions,
    pooled,
    refuse_decoder,
    sizes,
    span_head,
    text_inputs,
    token_head,
)
from adapters.huggingface.net import Net

# The roles that these layers call otherwise than those of `bidirectional` do.
ROLES = {"first_norm": "embedding_norm", "up": "inner", "down": "outer"}
NAMES = {ROLES.get(role, role): name for role, name in bidirectional.NAMES.items()}


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_decoder(config)
    width, given = config.size("hidden_size"), sizes(config)
    ids = text_inputs(net, config.size("max_position_embeddings"), task)
    x = embed(net, ids, width, lambda: plain_positions(net, ids, width), eps=given.eps)
    x = layers(net, x, padding_mask(net), given)
    if task == "feature-extraction":
        plain_head(net, x)
    elif task == "fill-mask":
        net.output("logits", masked_lm_scores(net, x, width, given.activation, given.eps))
    elif task == "pretraining":
        net.output("prediction_logits", masked_lm_scores(net, x, width, given.activation, given.eps))
        net.output("seq_relationship_logits", net.linear(pooled(net, x), "next_sentence", 2))
    elif task == "next-sentence":
        net.output("logits", net.linear(pooled(net, x), "next_sentence", 2))
    elif task == "text-classification":
        net.output("logits", net.linear(pooled(net, x), "classifier", config.labels()))
    elif task == "token-classification":
        token_head(net, x)
    elif task == "multiple-choice":
        choice_head(net, pooled(net, x))
    else:
        span_head(net, x)


FAMILY = Family(
    classes={"bert": "Bert"},
    names=NAMES,
    heads=bidirectional.BERT_HEADS,
    tasks={**TASKS, "pretraining": "ForPreTraining", "next-sentence": "ForNextSentencePrediction"},
    build=build,
    prefixes=("bert.",),
    leftovers=(*BUFFERS, "pooler.*", "cls.*", "classifier.*", "qa_outputs.*"),
    legacy=GAMMA_BETA,
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    optional=("position_ids",),
)
