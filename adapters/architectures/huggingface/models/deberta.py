"""DeBERTa (He et al. 2020) and DeBERTa v2 and v3 (He et al. 2021): words and their distances attend to each other.

A score is that of two words, of a word with the distance to another ("c2p"), and of the distance with the other word ("p2c").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.bidirectional import BERT_HEADS, LAYER, LIKE_BERT, NAMES, Head, Style, family, fill
from adapters.architectures.huggingface.layers.causal import Mixer, Sizes, Usual, by_group, layer_norm, plain
from adapters.architectures.huggingface.layers.decoders import INPUTS, Sequence
from adapters.architectures.huggingface.layers.distances import LARGEST_DISTANCE
from adapters.architectures.huggingface.layers.encoders import choice_head, taken
from adapters.architectures.huggingface.models.t5 import LOWEST
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed
from converter.ir import DType

EPS = 1e-7
Places = np.ndarray[tuple[int], np.dtype[np.int64]]
# Query, key and value of x in a layer, [batch, heads, time, size] each.
Parts = Callable[[Net, Sizes, Value, int], tuple[Value, Value, Value]]


@dataclass(frozen=True, slots=True)
class Distances:
    """What attention has of distances: the kinds of scores, and by how much all are divided beside the size of a head.

    span: rows of the table for each direction, 0 for no distances at all. buckets: how many ranges distances have, 0 for one each.
    farthest: where the ranges end. shared: distances have the words' own maps. normed: the table has a norm. bias: of c2p's map.
    """

    kinds: frozenset[str]
    factor: int
    span: int = 0
    buckets: int = 0
    farthest: int = 0
    shared: bool = False
    normed: bool = False
    bias: bool = True


def places(given: Distances) -> tuple[Places, Places]:
    """The row of the table for each distance from -n to n (position of the query - that of the key), for c2p and for p2c.

    What is beyond n has the row of n. Distances up to half of the buckets have one each, those after it ranges that grow as the
    logarithm does, in float32, whose rounding decides the bounds.
    """
    most, middle = given.span, given.buckets // 2
    if given.buckets:
        far = (given.farthest - 1) / middle
        most = middle + 1 if middle == 1 else math.ceil(middle * far ** ((given.span - middle + 1) / (middle - 1))) + 2
    if most > LARGEST_DISTANCE:
        most = LARGEST_DISTANCE
    distance = np.arange(-most, most + 1)
    found = distance
    if given.buckets:
        size = np.where(np.abs(distance) < middle, middle - 1, np.abs(distance))
        share, whole = ((np.log(np.maximum(item, np.float32(1e-30)).astype(np.float64))).astype(np.float32)
                        for item in (size.astype(np.float32) / np.float32(middle), np.float32((given.farthest - 1) / middle)))
        log = np.ceil(share / whole * np.float32(middle - 1)) + np.float32(middle)
        found = np.where(size <= middle, distance, (log * np.sign(distance)).astype(np.int64))
    rows = [np.clip(item + given.span, 0, 2 * given.span - 1) for item in (found, -found)]
    return rows[0].astype(np.int64), rows[1].astype(np.int64)


def attention(given: Distances, parts: Parts, sizes: Sizes) -> Mixer:
    """What a layer's words see, [batch, time, width]. Words that the mask hides see all alike, as in the library."""
    scale = 1 / math.sqrt(sizes.size * given.factor)
    kinds = [kind for kind in ("c2p", "p2c") if kind in given.kinds and given.span]
    at = dict(zip(("c2p", "p2c"), places(given), strict=True)) if kinds else {}

    def attends(net: Net, words: Sequence, x: Value, layer: int) -> Value:
        query, key, value = parts(net, sizes, x, layer)
        table, bias = _table(net, given, sizes) if given.span else x, None
        for kind in kinds:
            role = ("key" if kind == "c2p" else "query") if given.shared else f"distance_{kind}"
            mapped = net.linear(table, role, sizes.heads * sizes.size, bias=given.bias or kind == "p2c", layer=layer)
            found = _looked_up(net, words, query if kind == "c2p" else key, mapped, sizes, at[kind], kind)
            found = found if kind == "c2p" else net.op("permute_dims", found, axes=(0, 1, 3, 2))
            bias = found if bias is None else net.op("add", bias, found)
        if bias is not None:
            bias = net.op("multiply", bias, scale)
        seen = net.op("scaled_dot_product_attention", query, key, value, _masked(net, words, bias), scale=scale)
        return net.linear(net.join_heads(seen), "attention_out", sizes.width, layer=layer)

    return attends


def _table(net: Net, given: Distances, sizes: Sizes) -> Value:
    """A row for each distance or range of them, [2 · span, width]."""
    name, normed = net.name("distances"), "normed_distances"
    if normed in net.flat:
        return net.flat[normed]
    table = Value(name, net.b.specs[name]) if name in net.declared else net.tensor("distances", (2 * given.span, sizes.width))
    if given.normed:
        table = net.flat[normed] = net.layer_norm(table, "distance_norm", net.config.number("layer_norm_eps", EPS))
    return table


def _looked_up(net: Net, words: Sequence, content: Value, mapped: Value, sizes: Sizes, at: Places, kind: str) -> Value:
    """Scores of each word with the distance to each other, [batch, heads, time, time]. mapped: [2 · span, heads · size]."""
    rows, time, batch = fixed(mapped.shape[0]), words.time, content.shape[0]
    heads = net.op("permute_dims", net.op("reshape", mapped, shape=(rows, sizes.heads, sizes.size)), axes=(1, 2, 0))
    scores = net.op("matmul", content, heads)
    farthest = len(at) // 2
    place = net.op("arange", stop=time, dtype=DType.INT64)
    here, there = (net.op("reshape", place, shape=shape) for shape in ((time, 1), (1, time)))
    distance = net.op("add", net.op("clip", net.op("subtract", here, there), -farthest, farthest), farthest)
    index = net.op("embedding", distance, net.constant(f"{net.prefix}{kind}_places", at[:, None]))
    index = net.op("broadcast_to", net.op("reshape", index, shape=(1, 1, time, time)), shape=(batch, sizes.heads, time, time))
    return net.op("take_along_axis", scores, index, axis=3)


def _masked(net: Net, words: Sequence, bias: Value | None) -> Value | None:
    """What is added to scores: the lowest number where a word or the one that it looks at is hidden."""
    mask = words.visible
    if mask is None:
        return bias
    both = net.op("logical_and", mask, net.op("permute_dims", mask, axes=(0, 1, 3, 2)))
    zero = net.op("full", shape=(), fill_value=0.0, dtype=net.dtype)
    return net.op("where", both, zero if bias is None else bias, LOWEST[net.dtype])


# Families ----------------------------------------------------------------------------------------------------------------


def _kinds(config: Config) -> list[str]:
    given = config.get("pos_att_type") or []
    found = [item.strip() for item in given.lower().split("|")] if isinstance(given, str) else given
    if not isinstance(found, list) or any(item not in ("c2p", "p2c") for item in found):
        raise config.refuse("pos_att_type", "c2p and p2c", given)
    return found


def _style(config: Config, sizes: Sizes, given: Distances, parts: Parts) -> Style:
    for name, known in (("embedding_size", sizes.width), ("pooler_hidden_size", sizes.width), ("attention_head_size", sizes.size),
                        ("talking_head", False)):
        config.only(name, known)
    for name in ("pooler_hidden_act", "legacy", "max_position_embeddings", "max_relative_positions"):
        config.get(name)  # of heads; and of tables that not all have
    return Style(layer_norm(config.number("layer_norm_eps", EPS)), plain(sizes), [None] * sizes.layers, "sum", first_norm=True, masked=True,
                 types=config.size("type_vocab_size", 0, least=0), turned=[None] * sizes.layers,
                 positions="plain" if config.flag("position_biased_input", True) else "",
                 mixers=dict.fromkeys(range(sizes.layers), attention(given, parts, sizes)))


def _span(config: Config) -> int:
    """How far distances are told apart."""
    given = config.get("max_relative_positions", -1)
    if type(given) is not int or given >= LARGEST_DISTANCE:
        raise config.refuse("max_relative_positions", f"an integer below {LARGEST_DISTANCE}", given)
    return given if given >= 1 else config.size("max_position_embeddings")


def deberta(config: Config, sizes: Sizes) -> Style:
    kinds, span = _kinds(config), _span(config) if config.flag("relative_attention", False) else 0
    return _style(config, sizes, Distances(frozenset(kinds), 1 + len(kinds), span, bias=False), _one_map)


def _one_map(net: Net, sizes: Sizes, x: Value, layer: int) -> tuple[Value, Value, Value]:
    """Of one map without a bias; queries and values have one each."""
    query, key, value = by_group(net, x, False, sizes, layer)
    width, shape = sizes.heads * sizes.size, (sizes.heads, 1, sizes.size)
    offsets = [net.op("reshape", net.tensor(role, (width,), "", layer=layer), shape=shape) for role in ("query_bias", "value_bias")]
    return net.op("add", query, offsets[0]), key, net.op("add", value, offsets[1])


def deberta_v2(config: Config, sizes: Sizes) -> Style:
    kinds = frozenset(_kinds(config))
    given, buckets = Distances(kinds, 1 + len(kinds)), config.get("position_buckets", -1)
    shared = config.flag("share_att_key", False)
    norms = {item.strip() for item in str(config.get("norm_rel_ebd", "none")).lower().split("|")}
    if config.flag("relative_attention", False):
        farthest = _span(config)
        if type(buckets) is not int or buckets > 0 and not 2 <= buckets < 2 * farthest - 3:
            raise config.refuse("position_buckets", f"2 to {2 * farthest - 4}, or -1", buckets)
        given = replace(given, span=buckets if buckets > 0 else farthest, buckets=max(buckets, 0), farthest=farthest, shared=shared,
                        normed="layer_norm" in norms)
    if not norms <= {"none", "layer_norm"} or "layer_norm" in norms and not given.span:
        raise config.refuse("norm_rel_ebd", "none, or layer_norm for relative attention", config.get("norm_rel_ebd"))
    style = _style(config, sizes, given, _three_maps)
    for name in ("conv_act", "conv_groups"):
        config.get(name)  # of a convolution that not all have
    kernel = config.size("conv_kernel_size", 0, least=0)
    return style if kernel == 0 else replace(style, followed=_convolved(config, sizes, style, kernel))


def _three_maps(net: Net, sizes: Sizes, x: Value, layer: int) -> tuple[Value, Value, Value]:
    query, key, value = (net.split_heads(net.linear(x, role, sizes.heads * sizes.size, layer=layer), sizes.heads)
                         for role in ("query", "key", "value"))
    return query, key, value


def _convolved(config: Config, sizes: Sizes, style: Style, kernel: int) -> Callable[[Net, Value, Value, int], Value]:
    """To the first layer's result a convolution of the words is added, and the sum normalised."""
    groups, activation = config.size("conv_groups", 1), config.choice("conv_act", ACTIVATIONS, "tanh")
    if kernel % 2 == 0:
        raise config.refuse("conv_kernel_size", "an odd number", kernel)
    if sizes.width % groups:
        raise config.refuse("conv_groups", f"a divisor of hidden_size, {sizes.width}", groups)

    def followed(net: Net, given: Value, made: Value, layer: int) -> Value:
        if layer > 0:
            return made
        weight = net.tensor("convolution", (sizes.width, sizes.width // groups, kernel))
        bias = net.tensor("convolution", (sizes.width,), "bias")
        x = net.op("convolution", net.op("permute_dims", given, axes=(0, 2, 1)), weight, bias, stride=(1,), padding=(kernel // 2,),
                   groups=groups)
        x, mask = net.op("permute_dims", x, axes=(0, 2, 1)), taken(net, "attention_mask")
        kept = None if mask is None else net.op("expand_dims", net.cast(mask), axis=(2,))
        x = net.activation(x if kept is None else net.op("multiply", x, kept), activation)
        x = style.norm(net, net.op("add", made, x), "convolution_norm")
        return x if kept is None else net.op("multiply", x, kept)

    return followed


# Heads -------------------------------------------------------------------------------------------------------------------


def _filled(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    """By BERT's head, or by one that has always the words' own table."""
    if net.config.flag("legacy", True):
        fill(net, x, sizes, style)
        return
    x = style.norm(net, net.activation(net.linear(x, "own_dense", sizes.width), sizes.activation), "own_norm")
    words = Value(net.name("words"), net.b.specs[net.name("words")])
    net.output("logits", net.op("linear", x, words, net.tensor("own_bias", words.shape[:1], "")))


def _pooled(net: Net, x: Value) -> Value:
    inner = net.linear(net.first(x), "pooler", fixed(x.shape[-1]))
    return net.activation(inner, net.config.choice("pooler_hidden_act", ACTIVATIONS, "gelu"))


def _classified(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    net.output("logits", net.linear(_pooled(net, x), "classifier", net.config.labels()))


def _chosen(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    choice_head(net, _pooled(net, x))


HEADS: dict[str, Head] = {**LIKE_BERT, "fill-mask": _filled, "text-classification": _classified, "multiple-choice": _chosen}
OWN_HEAD = "lm_predictions.lm_head"
HEAD_NAMES = {**BERT_HEADS, "pooler": "pooler.dense", "own_dense": f"{OWN_HEAD}.dense", "own_norm": f"{OWN_HEAD}.LayerNorm",
              "own_bias": f"{OWN_HEAD}.bias"}
WORDS = {**{role: name for role, name in NAMES.items() if role != "pooler"}, "distances": "encoder.rel_embeddings"}
SELF = f"{LAYER}.attention.self"
OPTIONAL = ("token_type_ids", "position_ids")
LEFTOVERS = ("mask_predictions.*", "embeddings.position_embeddings.*")
DEBERTA = family("deberta", "Deberta", deberta, HEADS, prefixes=("deberta.",), usual=Usual(activation="gelu", bounded=False), inputs=INPUTS,
                 optional=OPTIONAL, head_names=HEAD_NAMES, without=("multiple-choice",), leftovers=LEFTOVERS, names={
    **WORDS, "query_key_value": f"{SELF}.in_proj", "query_bias": f"{SELF}.q_bias", "value_bias": f"{SELF}.v_bias",
    "distance_c2p": f"{SELF}.pos_proj", "distance_p2c": f"{SELF}.pos_q_proj"})
DEBERTA_V2 = family("deberta-v2", "DebertaV2", deberta_v2, HEADS, prefixes=("deberta.",), usual=Usual(activation="gelu", bounded=False),
                    inputs=INPUTS, optional=OPTIONAL, head_names=HEAD_NAMES, leftovers=LEFTOVERS, names={
    **WORDS, "query": f"{SELF}.query_proj", "key": f"{SELF}.key_proj", "value": f"{SELF}.value_proj",
    "distance_c2p": f"{SELF}.pos_key_proj", "distance_p2c": f"{SELF}.pos_query_proj", "distance_norm": "encoder.LayerNorm",
    "convolution": "encoder.conv.conv", "convolution_norm": "encoder.conv.LayerNorm"})
