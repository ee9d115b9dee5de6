"""ELECTRA (Clark et al. 2020): BERT with narrow embeddings and no pooler."""

from __future__ import annotations

from adapters.architectures.huggingface.family import Family
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
    refuse_decoder,
    sizes,
    text_inputs,
    two_layer_classifier,
)
from adapters.architectures.huggingface.models import bert
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed

NAMES = {**{role: name for role, name in bert.NAMES.items() if role != "pooler"}, "projection": "embeddings_project"}

HEADS = {
    "lm_dense": "generator_predictions.dense",
    "lm_norm": "generator_predictions.LayerNorm",
    "lm_decoder": "generator_lm_head",
    "discriminator": "discriminator_predictions.dense",
    "replaced": "discriminator_predictions.dense_prediction",
    "classifier_dense": "classifier.dense",
    "classifier_out": "classifier.out_proj",
    "classifier": "classifier",
    "span": "qa_outputs",
    "summary": "sequence_summary.summary",
}


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_decoder(config)
    width, narrow, given = config.size("hidden_size"), config.size("embedding_size", 128), sizes(config)
    ids = text_inputs(net, config.size("max_position_embeddings"), task)
    x = embed(net, ids, narrow, lambda: plain_positions(net, ids, narrow), eps=given.eps)
    if narrow != width:
        x = net.linear(x, "projection", width)
    x = layers(net, x, padding_mask(net), given)

    def replaced() -> None:
        inner = net.activation(net.linear(x, "discriminator", width), ACTIVATIONS[given.activation])
        net.output("logits", net.op("squeeze", net.linear(inner, "replaced", 1), axis=(2,)))

    give(net, x, task, lambda: masked_lm_scores(net, x, narrow, "gelu", given.eps),
         {"pretraining": replaced, "text-classification": lambda: two_layer_classifier(net, x, "gelu")},
         pooler=False, chosen=lambda: summary(net, x))


def summary(net: Net, x: Value, kind: str = "first", *, mapped: bool = True, activation: str = "gelu") -> Value:
    """A vector of a text: one of its words, or their mean, through one more layer; kind, mapped, activation: where no field says them."""
    config, width = net.config, fixed(x.shape[-1])
    config.only("summary_proj_to_labels", False)
    place = config.choice("summary_type", {"first": 0, "last": -1, "mean": None}, kind)
    vector = net.op("mean", x, axis=(1,)) if place is None else net.op("select", x, axis=1, index=place)
    if config.flag("summary_use_proj", mapped):
        vector = net.linear(vector, "summary", width)
    return net.activation(vector, config.choice("summary_activation", ACTIVATIONS, activation))


FAMILY = Family(
    classes={"electra": "Electra"},
    names=NAMES,
    heads=HEADS,
    tasks={**TASKS, "pretraining": "ForPreTraining"},
    build=build,
    prefixes=("electra.",),
    leftovers=(*BUFFERS, "generator_predictions.*", "generator_lm_head.*", "discriminator_predictions.*", "classifier.*",
               "qa_outputs.*", "sequence_summary.*"),
    legacy=GAMMA_BETA,
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    optional=("position_ids",),
)
