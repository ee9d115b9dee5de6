"""BERT (Devlin et al. 2018)."""

from __future__ import annotations

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers import bidirectional
from adapters.architectures.huggingface.layers.encoders import (
    BUFFERS,
    GAMMA_BETA,
    TASKS,
    embed,
    give,
    layers,
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

    def scores() -> Value:
        return masked_lm_scores(net, x, width, given.activation, given.eps)

    def follows() -> Value:
        return net.linear(pooled(net, x), "next_sentence", 2)

    def pretrained() -> None:
        net.output("prediction_logits", scores())
        net.output("seq_relationship_logits", follows())

    give(net, x, task, scores, {"pretraining": pretrained, "next-sentence": lambda: net.output("logits", follows())})


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
