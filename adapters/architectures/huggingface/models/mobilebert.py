"""MobileBERT (Sun et al. 2020): layers that work on a narrower copy of the words, several feed-forward parts, norms without statistics."""

from __future__ import annotations

from typing import Any

from adapters.architectures.huggingface.layers import encoders
from adapters.architectures.huggingface.layers.bidirectional import BERT_HEADS, LAYER, LIKE_BERT, NAMES, PRETRAINED, Head, Style, family
from adapters.architectures.huggingface.layers.causal import Norm, Sizes, layer_norm
from adapters.architectures.huggingface.layers.encoders import padding_mask, plain_positions, taken, text_inputs
from adapters.architectures.huggingface.models.bert_kin import like_bert
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value

EPS = 1e-5


def scaled(net: Net, x: Value, role: str, **places: Any) -> Value:
    """x · weight + bias: what stands for a norm."""
    shape = (x.shape[-1],)
    return net.op("add", net.op("multiply", x, net.tensor(role, shape, **places)), net.tensor(role, shape, "bias", **places))


def build(net: Net, task: str) -> None:
    config = net.config
    encoders.refuse_decoder(config)
    width, narrow, heads = config.size("hidden_size", 512), config.size("embedding_size", 128), config.size("num_attention_heads", 4)
    bottleneck = config.flag("use_bottleneck", True)
    inside = config.size("intra_bottleneck_size", 128) if bottleneck else width
    config.get("intra_bottleneck_size")
    config.only("true_hidden_size", inside)
    if inside % heads:
        raise config.refuse("num_attention_heads", f"a divisor of {inside}", heads)
    sizes = Sizes(width, config.size("num_hidden_layers", 24), heads, heads, inside // heads, config.size("intermediate_size", 512),
                  config.choice("hidden_act", ACTIVATIONS, "relu"))
    eps = config.number("layer_norm_eps", 1e-12)
    plain = config.choice("normalization_type", {"no_norm": True, "layer_norm": False}, "no_norm")
    # Two norms have PyTorch's own number, whatever the config says.
    norm, first = (scaled, scaled) if plain else (layer_norm(eps), layer_norm(EPS))
    ids = text_inputs(net, config.size("max_position_embeddings", 512), task)
    x = first(net, _embedded(net, ids, narrow, width), "first_norm")
    mask = padding_mask(net)
    for layer in range(sizes.layers):
        x = _layer(net, x, mask, sizes, inside, norm, first, bottleneck, layer)
    pooled = encoders.pooled if config.flag("classifier_activation", True) else _first
    style = Style(layer_norm(eps), like_bert(config, sizes).feed, [None] * sizes.layers, narrow=narrow, pooled=pooled)
    HEADS[task](net, x, sizes, style)


def _first(net: Net, x: Value) -> Value:
    return net.first(x)


def _embedded(net: Net, ids: Value, narrow: int, width: int) -> Value:
    """Each word beside those after and before it, mapped to the layers' width, with its type and its position."""
    config = net.config
    x = net.embedding(ids, "words", config.size("vocab_size", 30522), narrow)
    three = config.flag("trigram_input", True)
    if three:
        _, time, _ = x.shape
        around = net.op("pad", x, pads=((0, 0), (1, 1), (0, 0)))
        after, before = (net.op("slice", around, axes=(1,), starts=(start,), stops=(start + time,)) for start in (2, 0))
        x = net.op("concat", after, x, before, axis=2)
    if three or narrow != width:
        x = net.linear(x, "projection", width)
    else:
        net.leaves("embeddings.embedding_transformation.*")
    given, table = taken(net, "token_type_ids"), net.tensor("types", (config.size("type_vocab_size", 2), width))
    types = net.op("select", table, axis=0, index=0) if given is None else net.op("embedding", given, table)
    return net.op("add", net.op("add", x, plain_positions(net, ids, width)), types)


def _layer(net: Net, x: Value, mask: Value | None, sizes: Sizes, inside: int, norm: Norm, first: Norm, bottleneck: bool,
           layer: int) -> Value:
    config, asking, whole, given = net.config, x, x, x
    whole_or_shared = config.flag("use_bottleneck_attention", False), config.flag("key_query_shared_bottleneck", True)
    if bottleneck and inside != sizes.width and not any(whole_or_shared):
        raise config.refuse("key_query_shared_bottleneck", "true, where use_bottleneck_attention is false", False)
    if bottleneck:
        given = norm(net, net.linear(x, "narrow", inside, layer=layer), "narrow_norm", layer=layer)
        if whole_or_shared[0]:
            asking = whole = given
            net.leaves(f"encoder.layer.{layer}.bottleneck.attention.*")
        elif whole_or_shared[1]:
            asking = norm(net, net.linear(x, "asking", inside, layer=layer), "asking_norm", layer=layer)
    query, key, value = (net.split_heads(net.linear(words, role, inside, layer=layer), sizes.heads)
                         for role, words in (("query", asking), ("key", asking), ("value", whole)))
    seen = net.join_heads(net.op("scaled_dot_product_attention", query, key, value, mask))
    y = norm(net, net.op("add", net.linear(seen, "attention_out", inside, layer=layer), given), "attention_norm", layer=layer)
    for index in range(config.size("num_feedforward_networks", 4) - 1):
        inner = net.activation(net.linear(y, "part_up", sizes.inner, layer=layer, index=index), sizes.activation)
        y = norm(net, net.op("add", net.linear(inner, "part_down", inside, layer=layer, index=index), y), "part_norm", layer=layer,
                 index=index)
    inner = net.activation(net.linear(y, "up", sizes.inner, layer=layer), sizes.activation)
    y = first(net, net.op("add", net.linear(inner, "down", inside, layer=layer), y), "outer_norm", layer=layer)
    if not bottleneck:
        return y
    return norm(net, net.op("add", net.linear(y, "wide", sizes.width, layer=layer), x), "wide_norm", layer=layer)


# Heads -------------------------------------------------------------------------------------------------------------------


def _scores(net: Net, x: Value, sizes: Sizes, style: Style) -> Value:
    """The product with the words' table, which further rows make as wide as the layers are."""
    x = style.norm(net, net.activation(net.linear(x, "lm_dense", sizes.width), sizes.activation), "lm_norm")
    return encoders.word_scores(net, x, narrow=style.narrow)


def _filled(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    net.output("logits", _scores(net, x, sizes, style))


def _pretrained(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    net.output("prediction_logits", _scores(net, x, sizes, style))
    net.output("seq_relationship_logits", net.linear(style.pooled(net, x), "next_sentence", 2))


def _features(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    net.output("last_hidden_state", x)
    if style.pooled is _first or net.has("pooler"):
        net.output("pooler_output", style.pooled(net, x))


HEADS: dict[str, Head] = {**LIKE_BERT, **PRETRAINED, "feature-extraction": _features, "fill-mask": _filled, "pretraining": _pretrained}
BETWEEN = f"{LAYER}.bottleneck"
FAMILY = family(
    "mobilebert", "MobileBert", like_bert, HEADS, prefixes=("mobilebert.",), built=build,
    head_names={**BERT_HEADS, "lm_rest": "cls.predictions.dense"},
    names={**NAMES, "projection": "embeddings.embedding_transformation",
           **{f"{role}{norm}": f"{BETWEEN}.{name}.{part}" for role, name in (("narrow", "input"), ("asking", "attention"))
              for norm, part in (("", "dense"), ("_norm", "LayerNorm"))},
           "part_up": f"{LAYER}.ffn.{{index}}.intermediate.dense", "part_down": f"{LAYER}.ffn.{{index}}.output.dense",
           "part_norm": f"{LAYER}.ffn.{{index}}.output.LayerNorm", "wide": f"{LAYER}.output.bottleneck.dense",
           "wide_norm": f"{LAYER}.output.bottleneck.LayerNorm"})
