"""Encoders of BERT's plan whose words are mixed otherwise, or whose maps are of groups.

FNet (Lee-Thorp et al. 2021), Nyströmformer (Xiong et al. 2021), ConvBERT (Jiang et al. 2020), SqueezeBERT (Iandola et al. 2020).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.bidirectional import (
    BERT_HEADS,
    LAYER,
    LIKE_BERT,
    LIKE_ROBERTA,
    NAMES,
    PRETRAINED,
    Lm,
    Style,
    classified_twice,
    family,
)
from adapters.architectures.huggingface.layers.causal import Feed, Mixer, Norm, Sizes, Usual, layer_norm, read_sizes
from adapters.architectures.huggingface.layers.decoders import Sequence
from adapters.architectures.huggingface.layers.encoders import choice_head, taken
from adapters.architectures.huggingface.models import electra
from adapters.architectures.huggingface.models.bert_kin import GELU, chosen_by_summary, like_bert
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import fixed
from converter.ir import DimRange


def mixed(style: Style, sizes: Sizes, mixer: Mixer) -> Style:
    """The style with one mixer in all layers."""
    return replace(style, mixers=dict.fromkeys(range(sizes.layers), mixer))


def _no_pooler(names: dict[str, str]) -> dict[str, str]:
    return {role: name for role, name in names.items() if role != "pooler"}


# FNet --------------------------------------------------------------------------------------------------------------------


def fnet(config: Config, sizes: Sizes) -> Style:
    """A Fourier transform over words and their numbers."""
    config.only("use_tpu_fourier_optimizations", False)
    config.get("tpu_short_seq_length")

    def mixer(net: Net, words: Sequence, x: Value, layer: int) -> Value:
        x = net.cast(x, net.wide)
        both = net.op("complex", x, net.op("multiply", x, 0.0))
        return net.cast(net.op("real", net.op("fftn", both, axes=(1, 2))))

    style = replace(like_bert(config, sizes), types=config.size("type_vocab_size", 4), narrow=sizes.width)
    return mixed(style, sizes, mixer)


def _without_heads(config: Config, usual: Usual) -> Sizes:
    return read_sizes(Config({**config.fields, "num_attention_heads": 1}, config.where, asked=config.asked), usual)


FNET = family("fnet", "FNet", fnet, {**LIKE_BERT, **PRETRAINED}, prefixes=("fnet.",), usual=Usual(activation="gelu_new"),
              read=_without_heads, inputs=("input_ids", "token_type_ids"),
              names={**NAMES, "attention_norm": f"{LAYER}.fourier.output.LayerNorm", "projection": "embeddings.projection"})


# Nyströmformer -----------------------------------------------------------------------------------------------------------

TURNS = 6
PAST = 2


def nystromformer(config: Config, sizes: Sizes) -> Style:
    """Attention by a few words that stand for stretches of the text, or to all words where there are as many of them."""
    marks, length = config.size("num_landmarks", 64), config.size("segment_means_seq_len", 64)
    kernel = config.optional_size("conv_kernel_size", 65)
    config.only("inv_coeff_init_option", False)
    if length % marks:
        raise config.refuse("num_landmarks", f"a divisor of segment_means_seq_len, {length}", marks)
    if kernel is not None and kernel % 2 == 0:
        raise config.refuse("conv_kernel_size", "an odd number", kernel)
    longest = config.size("max_position_embeddings")

    def added(net: Net, ids: Value, width: int) -> list[Value]:
        given, table = taken(net, "position_ids"), net.tensor("positions", (longest + PAST, width))
        return [net.op("slice", table, axes=(0,), starts=(PAST,), stops=(PAST + ids.shape[1],)) if given is None
                else net.op("embedding", given, table)]

    def mixer(net: Net, words: Sequence, x: Value, layer: int) -> Value:
        query, key, value = (net.split_heads(net.linear(x, role, sizes.width, layer=layer), sizes.heads)
                             for role in ("query", "key", "value"))
        if marks == length:
            seen = net.op("scaled_dot_product_attention", query, key, value, words.visible)
        else:
            net.b.dims["time"] = DimRange(length, length)
            seen = _by_landmarks(net, query, key, value, words.visible, marks, length // marks)
        if kernel is not None:
            weight = net.tensor("convolution", (sizes.heads, 1, kernel, 1), layer=layer)
            seen = net.op("add", seen, net.op("convolution", value, weight, None, padding=(kernel // 2, 0), groups=sizes.heads))
        return net.linear(net.join_heads(seen), "attention_out", sizes.width, layer=layer)

    if marks != length and length > longest:
        raise config.refuse("segment_means_seq_len", f"at most max_position_embeddings, {longest}", length)
    norm = layer_norm(config.number("layer_norm_eps", 1e-5))
    return mixed(replace(like_bert(config, sizes), norm=norm, positions="", longest=longest, added=added), sizes, mixer)


def _by_landmarks(net: Net, query: Value, key: Value, value: Value, mask: Value | None, marks: int, stretch: int) -> Value:
    """Scores of words with landmarks, an inverse of those of landmarks, and those of landmarks with words, multiplied."""
    batch, heads, _, size = query.shape
    scale = 1 / math.sqrt(fixed(size))
    queries, keys = (net.op("mean", net.op("reshape", x, shape=(batch, heads, marks, stretch, size)), axis=(3,)) for x in (query, key))

    def shares(x: Value, y: Value) -> Value:
        scores = net.op("multiply", net.op("matmul", x, net.op("permute_dims", y, axes=(0, 1, 3, 2))), scale)
        return net.op("softmax", scores, axis=-1)

    near, between = shares(query, keys), shares(queries, keys)
    far = net.op("scaled_dot_product_attention", queries, key, value, mask)
    # An iteration to the inverse, which begins with what the largest sum of a column of the whole batch says.
    largest = net.op("max", net.op("sum", between, axis=(2,)), axis=(0, 1, 2))
    inverse = net.op("divide", net.op("permute_dims", between, axes=(0, 1, 3, 2)), largest)
    one = net.op("eye", rows=marks, columns=marks, dtype=net.dtype)
    for _ in range(TURNS):
        both = net.op("matmul", between, inverse)
        inner = net.op("subtract", net.op("multiply", one, 7.0), both)
        inner = net.op("subtract", net.op("multiply", one, 15.0), net.op("matmul", both, inner))
        inner = net.op("subtract", net.op("multiply", one, 13.0), net.op("matmul", both, inner))
        inverse = net.op("matmul", net.op("multiply", inverse, 0.25), inner)
    return net.op("matmul", net.op("matmul", near, inverse), far)


def _chosen_twice(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    choice_head(net, net.op("relu", net.linear(net.first(x), "before_choice", sizes.width)))


NYSTROMFORMER = family(
    "nystromformer", "Nystromformer", nystromformer, {**LIKE_BERT, "text-classification": classified_twice(None),
                                                     "multiple-choice": _chosen_twice},
    prefixes=("nystromformer.",), usual=Usual(activation="gelu_new"),
    names=_no_pooler({**NAMES, "convolution": f"{LAYER}.attention.self.conv"}),
    head_names={**BERT_HEADS, "classifier_dense": "classifier.dense", "classifier_out": "classifier.out_proj",
                "before_choice": "pre_classifier"})


# ConvBERT ----------------------------------------------------------------------------------------------------------------


def convbert(config: Config, sizes: Sizes) -> Style:
    """Half of the heads see all words; in their place others have weights of the words around, which each word gives itself."""
    ratio, kernel, groups = config.size("head_ratio", 2), config.size("conv_kernel_size", 9), config.size("num_groups", 1)
    heads, narrow = max(1, sizes.heads // ratio), config.size("embedding_size", 768)
    size = sizes.width // heads // 2
    if heads * size * 2 != sizes.width:
        raise config.refuse("num_attention_heads", f"one that gives heads of an even size of {sizes.width}", sizes.heads)
    if kernel % 2 == 0:
        raise config.refuse("conv_kernel_size", "an odd number", kernel)
    if sizes.width % groups or sizes.inner % groups:
        raise config.refuse("num_groups", f"a divisor of {sizes.width} and {sizes.inner}", groups)
    half = heads * size

    def mixer(net: Net, words: Sequence, x: Value, layer: int) -> Value:
        batch, time, width = x.shape
        query, key, value, around = (net.linear(x, role, half, layer=layer) for role in ("query", "key", "value", "around"))
        seen = net.op("scaled_dot_product_attention", *(net.split_heads(part, heads) for part in (query, key, value)), words.visible)
        near = net.op("permute_dims", x, axes=(0, 2, 1))
        near = net.op("convolution", near, net.tensor("near", (width, 1, kernel), "depthwise.weight", layer=layer), None,
                      padding=(kernel // 2,), groups=width)
        near = net.op("convolution", near, net.tensor("near", (half, width, 1), "pointwise.weight", layer=layer), None)
        near = net.op("permute_dims", net.op("add", near, net.tensor("near", (half, 1), "bias", layer=layer)), axes=(0, 2, 1))
        shares = net.linear(net.op("multiply", near, query), "shares", heads * kernel, layer=layer)
        shares = net.op("softmax", net.op("reshape", shares, shape=(batch, time, heads, kernel, 1)), axis=3)
        around = net.op("pad", around, pads=((0, 0), (kernel // 2, kernel // 2), (0, 0)))
        windows = net.op("reshape", net.op("unfold", around, axis=1, size=kernel, step=1), shape=(batch, time, heads, size, kernel))
        found = net.op("squeeze", net.op("matmul", windows, shares), axis=(4,))
        both = net.op("concat", net.op("permute_dims", seen, axes=(0, 2, 1, 3)), found, axis=2)
        return net.linear(net.op("reshape", both, shape=(batch, time, width)), "attention_out", sizes.width, layer=layer)

    lm = Lm(width=narrow, activation=GELU, biases=(("lm_decoder", "bias"),))
    style = mixed(replace(like_bert(config, sizes), narrow=None if narrow == sizes.width else narrow, lm=lm), sizes, mixer)
    return style if groups == 1 else replace(style, feed=_grouped(sizes, groups))


def _grouped(sizes: Sizes, groups: int) -> Feed:
    def linear(net: Net, x: Value, role: str, out: int, layer: int) -> Value:
        batch, time, width = x.shape
        weight = net.tensor(role, (groups, width // groups, out // groups), layer=layer)
        y = net.op("matmul", net.op("reshape", x, shape=(batch, time, groups, 1, width // groups)), weight)
        return net.op("add", net.op("reshape", y, shape=(batch, time, out)), net.tensor(role, (out,), "bias", layer=layer))

    return lambda net, x, layer: linear(net, net.activation(linear(net, x, "up", sizes.inner, layer), sizes.activation), "down",
                                        sizes.width, layer)


CONVBERT = family(
    "convbert", "ConvBert", convbert, {**LIKE_ROBERTA, "text-classification": classified_twice(None),
                                       "multiple-choice": chosen_by_summary}, prefixes=("convbert.",),
    names=_no_pooler({**NAMES, "projection": "embeddings_project", "near": f"{LAYER}.attention.self.key_conv_attn_layer",
                      "shares": f"{LAYER}.attention.self.conv_kernel_layer", "around": f"{LAYER}.attention.self.conv_out_layer"}),
    head_names={**{role: name for role, name in electra.HEADS.items() if role not in ("discriminator", "replaced")}})


# SqueezeBERT -------------------------------------------------------------------------------------------------------------

MAPS = {"query": "q", "key": "k", "value": "v", "attention_out": "post_attention", "up": "intermediate", "down": "output"}


def squeezebert(config: Config, sizes: Sizes) -> Style:
    """Maps of groups, but of that after attention."""
    config.only("embedding_size", sizes.width)
    groups = {role: config.size(f"{name}_groups", 1 if name == "post_attention" else 4) for role, name in MAPS.items()}
    widths = {role: (sizes.inner if role == "down" else sizes.width, sizes.inner if role == "up" else sizes.width) for role in MAPS}
    for role, (before, after) in widths.items():
        if before % groups[role] or after % groups[role]:
            raise config.refuse(f"{MAPS[role]}_groups", f"a divisor of {before} and {after}", groups[role])

    def linear(net: Net, x: Value, role: str, layer: int) -> Value:
        before, after = widths[role]
        weight, bias = net.tensor(role, (after, before // groups[role], 1), layer=layer), net.tensor(role, (after,), "bias", layer=layer)
        y = net.op("convolution", net.op("permute_dims", x, axes=(0, 2, 1)), weight, bias, groups=groups[role])
        return net.op("permute_dims", y, axes=(0, 2, 1))

    def mixer(net: Net, words: Sequence, x: Value, layer: int) -> Value:
        query, key, value = (net.split_heads(linear(net, x, role, layer), sizes.heads) for role in ("query", "key", "value"))
        seen = net.op("scaled_dot_product_attention", query, key, value, words.visible)
        return linear(net, net.join_heads(seen), "attention_out", layer)

    def feed(net: Net, x: Value, layer: int) -> Value:
        return linear(net, net.activation(linear(net, x, "up", layer), sizes.activation), "down", layer)

    style = replace(like_bert(config, sizes), feed=feed)
    return replace(mixed(style, sizes, mixer), norm=_by_role(style.norm, layer_norm(1e-12)))


def _by_role(norm: Norm, within: Norm) -> Norm:
    """The layers' norms have the library's own number, whatever the config says."""

    def found(net: Net, x: Value, role: str, **places: Any) -> Value:
        return (within if places else norm)(net, x, role, **places)

    return found


INSIDE = "encoder.layers.{layer}"
SQUEEZEBERT = family("squeezebert", "SqueezeBert", squeezebert, prefixes=("transformer.",), names={
    **NAMES, **{role: f"{INSIDE}.attention.{role}" for role in ("query", "key", "value")},
    "attention_out": f"{INSIDE}.post_attention.conv1d", "attention_norm": f"{INSIDE}.post_attention.layernorm",
    "up": f"{INSIDE}.intermediate.conv1d", "down": f"{INSIDE}.output.conv1d", "outer_norm": f"{INSIDE}.output.layernorm"})
