"""Causal language models of one plan: norms, rotary positions, attention with shared key heads, a feed-forward part, residuals.

A family says in a `Style` how it differs; its tensors' names are data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers import decoders
from adapters.architectures.huggingface.layers.decoders import OPTIONAL, TASKS, attend, head, learned_positions, refuse_encoder, sequence
from adapters.architectures.huggingface.layers.encoders import taken
from adapters.architectures.huggingface.layers.rotary import Rotary, angles, parameters, rotary, rotate
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value

NAMES = {
    "words": "embed_tokens",
    "attention_norm": "layers.{layer}.input_layernorm",
    "query": "layers.{layer}.self_attn.q_proj",
    "key": "layers.{layer}.self_attn.k_proj",
    "value": "layers.{layer}.self_attn.v_proj",
    "query_key_value": "layers.{layer}.self_attn.qkv_proj",
    "query_norm": "layers.{layer}.self_attn.q_norm",
    "key_norm": "layers.{layer}.self_attn.k_norm",
    "attention_out": "layers.{layer}.self_attn.o_proj",
    "inner_norm": "layers.{layer}.post_attention_layernorm",
    "gate": "layers.{layer}.mlp.gate_proj",
    "up": "layers.{layer}.mlp.up_proj",
    "gate_up": "layers.{layer}.mlp.gate_up_proj",
    "down": "layers.{layer}.mlp.down_proj",
    "norm": "norm",
}
HEADS = {"lm_head": "lm_head", "score": "score", "token_score": "score", "span": "qa_outputs"}
# Frequencies that older versions saved with the weights.
LEFTOVERS = ("layers.*.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq", "lm_head.*", "score.*", "qa_outputs.*")
# A question answerer calls its base model otherwise.
PREFIXES = ("model.", "transformer.")


class Norm(Protocol):
    """A norm of the last axis, with a role's parameters."""

    def __call__(self, net: Net, x: Value, role: str, **places: Any) -> Value: ...


# [batch, time, width] of a layer to the same: net, x, the layer.
Feed = Callable[[Net, Value, int], Value]
# The same, in the place of attention: net, the words, x, the layer.
Mixer = Callable[[Net, decoders.Sequence, Value, int], Value]
# Keys and values, [batch, heads, time, size] each, of what is kept: net, key, value, the layer.
Expanded = Callable[[Net, Value, Value, int], tuple[Value, Value]]
# Query, key and value, [batch, heads, time, size] each: net, x, whether the projection has a bias, the sizes, the layer.
Split = Callable[[Net, Value, bool, "Sizes", int], tuple[Value, Value, Value]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a config says of every layer. `groups`: key heads; `size`: numbers of a head; `inner`: of the feed-forward part."""

    width: int
    layers: int
    heads: int
    groups: int
    size: int
    inner: int
    activation: Activation


@dataclass(frozen=True, slots=True)
class Usual:
    """What holds where a config says nothing. `size`, `groups`: None for the width by the heads, and for as many as heads.

    fraction: the part of a head that is rotated; None for families that rotate all of it and have no field for it.
    rope: the fields of rotary positions. meant: activations that mean another one here.
    bounded: whether `max_position_embeddings` bounds what a model can read; longest: what it is, for a config that does not say it.
    inner: the field of the feed-forward part's size, `times` the width where that is null.
    """

    size: int | None = None
    groups: int | None = None
    activation: str = "silu"
    activation_field: str = "hidden_act"
    theta: float = 10000.0
    fraction: float | None = None
    rope: Mapping[str, Any] = field(default_factory=dict)
    meant: Mapping[str, str] = field(default_factory=dict)
    bounded: bool = True
    longest: int | None = None
    inner: str = "intermediate_size"
    times: int | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """How the layers of a model differ from the others' of this plan.

    place: norms before each part, after it, around it, or of its sum with its input; both parts side by side, of one norm ("beside"),
        or each of its own ("apart").
    split: how the queries, keys and values of one projection lie, None where there are three.
    bias, out_bias, lm_bias: of the projections to heads, from them, and to the scores of words.
    normed: whether queries and keys have a norm: by head ([batch, heads, time, size]), after they are turned, or of a whole projection.
    clip: bounds queries, keys and values. scale: of scores, 1 / √size for None; cap bounds them, last_cap those of words.
    embedded, residual, scores: factors of the words' vectors, of what a part adds, and of the scores of words.
    turns: rotary positions by name, None for those of the config; turned: the name for each layer, None for none.
    biased: what is added to scores; sinks: each head has a score beside those of keys, for nothing. first_norm: of the words' vectors.
    learned: a table of positions is added to the words' vectors, with so many rows before the first word's; None for no table.
    mixers: what layers have in the place of attention, by the layer.
    from_norm: what a part makes is added to what it was given, not to what the norm before it was given.
    turned_values: values are turned as queries and keys are. expanded: what keys and values are made of those that are kept, in a
        cache too, whose heads are one and whose sizes are `kept`, where they are not heads' own.
    opened: what becomes of what attention sees, [batch, time, heads · size]; between: of the words after attention.
    followed: what becomes of a layer's result, given what the layer was given.
    """

    norm: Norm
    feed: Feed
    windows: Sequence[int | None]
    place: Literal["before", "after", "around", "sum", "beside", "apart"] = "before"
    split: Split | None = None
    bias: bool = False
    out_bias: bool = False
    lm_bias: bool = False
    normed: Literal["", "heads", "turned", "projection"] = ""
    head_norm: Norm | None = None
    clip: float | None = None
    scale: float | None = None
    cap: float | None = None
    last_cap: float | None = None
    embedded: float | None = None
    residual: float = 1.0
    scores: float = 1.0
    interleaved: bool = False
    turns: Mapping[str, Rotary] | None = None
    turned: Sequence[str | None] | None = None
    tie: bool = False
    biased: Callable[[Net, decoders.Sequence, Sizes], Value] | None = None
    sinks: bool = False
    learned: int | None = None
    first_norm: bool = False
    from_norm: bool = False
    mixers: Mapping[int, Mixer] = field(default_factory=dict)
    turned_values: bool = False
    expanded: Expanded | None = None
    kept: tuple[int, int] | None = None
    opened: Callable[[Net, Value, int], Value] | None = None
    between: Callable[[Net, Value, int], Value] | None = None
    followed: Callable[[Net, Value, Value, int], Value] | None = None


def build(styled: Callable[[Config, Sizes], Style], usual: Usual, read: Callable[[Config, Usual], Sizes], net: Net, task: str) -> None:
    config = net.config
    refuse_encoder(config)
    sizes = read(config, usual)
    style = styled(config, sizes)
    given = () if usual.longest is None else (usual.longest,)
    longest = config.size("max_position_embeddings", *given) if usual.bounded else None
    turns = frequencies(config, style, usual, sizes)
    grows = any(item.growth is not None for item in turns.values())
    cached = [layer for layer in range(sizes.layers) if layer not in style.mixers]
    words = sequence(net, None if grows else longest, cached, *((sizes.groups, sizes.size) if style.kept is None else (1, style.kept)))
    places = {name: angles(net, given, words.past, words.total, taken(net, "position_ids"), name) for name, given in turns.items()}
    bias = None if style.biased is None else net.op("where", words.order(None), style.biased(net, words, sizes), -math.inf, name="bias")
    x = stack(net, words, _embedded(net, words, style, sizes, longest), style, sizes, places, bias)
    head(net, words, style.norm(net, x, "norm"), task, tie=style.tie, cap=style.last_cap, scale=style.scores, bias=style.lm_bias)


def _turned(style: Style, sizes: Sizes) -> Sequence[str | None]:
    return [""] * sizes.layers if style.turned is None else style.turned


def frequencies(config: Config, style: Style, usual: Usual, sizes: Sizes) -> dict[str, Rotary]:
    """The rotary positions that layers have, by name, in the order of the layers."""
    names = [name for name in dict.fromkeys(_turned(style, sizes)) if name is not None]
    if style.turns is None and names:
        return {"": rotary(config, parameters(config, usual.fraction, theta=usual.theta, usual=usual.rope), sizes.size)}
    return {name: (style.turns or {})[name] for name in names}


def stack(net: Net, words: decoders.Sequence, x: Value, style: Style, sizes: Sizes, places: Mapping[str, tuple[Value, Value]],
          bias: Value | None = None) -> Value:
    """All layers, one after another, [batch, time, width]. `places`: cosines and sines by name; `bias`: what is added to scores."""
    turned = _turned(style, sizes)
    for layer in range(sizes.layers):
        normed = x if style.place in ("after", "sum") else style.norm(net, x, "attention_norm", layer=layer)
        if layer in style.mixers:
            seen = style.mixers[layer](net, words, normed, layer)
        else:
            name = turned[layer]
            seen = _attention(net, words, normed, style, sizes, layer, None if name is None else places[name], bias)
        made = _added(net, style, x, seen, normed, layer)
        x = made if style.followed is None else style.followed(net, x, made, layer)
    return x


def _attention(net: Net, words: decoders.Sequence, x: Value, style: Style, sizes: Sizes, layer: int,
               places: tuple[Value, Value] | None, bias: Value | None) -> Value:
    """What attention sees, [batch, time, width]. `places`: cosines and sines; `bias`: what is added to scores."""
    query, key, value = heads_of(net, x, style, sizes, layer)
    if places is not None:
        query, key = (rotate(net, item, *places, style.interleaved) for item in (query, key))
        value = rotate(net, value, *places, style.interleaved) if style.turned_values else value
        query, key, value = _normed(net, (query, key, value), style, "turned", layer)
    sinks = net.tensor("sinks", (sizes.heads,), "", layer=layer) if style.sinks else None
    made = style.expanded
    expanded = None if made is None else lambda key, value: made(net, key, value, layer)
    seen = attend(net, words, layer, query, key, value, window=style.windows[layer], scale=style.scale, cap=style.cap, bias=bias,
                  sinks=sinks, expanded=expanded)
    seen = seen if style.opened is None else style.opened(net, seen, layer)
    return net.linear(seen, "attention_out", sizes.width, bias=style.out_bias, layer=layer)


def _embedded(net: Net, words: decoders.Sequence, style: Style, sizes: Sizes, longest: int | None) -> Value:
    """What the first layer is given, [batch, time, width]."""
    x = net.embedding(words.ids, "words", net.config.size("vocab_size"), sizes.width)
    if style.embedded is not None:
        x = net.op("multiply", x, style.embedded, name="embeddings")
    if style.learned is not None and longest is not None:
        x = net.op("add", x, learned_positions(net, words, longest + style.learned, sizes.width, style.learned), name="embeddings")
    return style.norm(net, x, "first_norm") if style.first_norm else x


def read_sizes(config: Config, usual: Usual) -> Sizes:
    """The sizes that a config says. Raises `UnsupportedError` for those that do not fit each other."""
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    size = decoders.head_size(config) if usual.size is None else config.optional_size("head_dim", usual.size) or decoders.head_size(config)
    groups = config.optional_size("num_key_value_heads", usual.groups) or heads
    if heads % groups:
        raise config.refuse("num_key_value_heads", f"a divisor of {heads}", groups)
    meant = {name: ACTIVATIONS[other] for name, other in usual.meant.items()}
    inner = usual.times * width if usual.times is not None and config.get(usual.inner) is None else config.size(usual.inner)
    return Sizes(width, config.size("num_hidden_layers"), heads, groups, size, inner,
                 config.choice(usual.activation_field, {**ACTIVATIONS, **meant}, usual.activation))


def _added(net: Net, style: Style, x: Value, seen: Value, normed: Value, layer: int) -> Value:
    """x with what attention saw, and what the feed-forward part makes of it, [batch, time, width]."""

    def scaled(value: Value) -> Value:
        return value if style.residual == 1 else net.op("multiply", value, style.residual)

    name = f"layer_{layer}"
    if style.place == "sum":
        x = style.norm(net, net.op("add", x, scaled(seen)), "attention_norm", layer=layer)
        return style.norm(net, net.op("add", x, scaled(style.feed(net, x, layer))), "outer_norm", layer=layer)
    if style.place in ("beside", "apart"):
        given = normed if style.place == "beside" else style.norm(net, x, "inner_norm", layer=layer)
        return net.op("add", net.op("add", x, seen), style.feed(net, given, layer), name=name)
    after = style.place in ("after", "around")
    seen = scaled(style.norm(net, seen, "attention_out_norm", layer=layer) if after else seen)
    x = net.op("add", normed if style.from_norm else x, seen)
    x = x if style.between is None else style.between(net, x, layer)
    normed = x if style.place == "after" else style.norm(net, x, "inner_norm", layer=layer)
    hidden = style.feed(net, normed, layer)
    hidden = scaled(style.norm(net, hidden, "outer_norm", layer=layer) if after else hidden)
    return net.op("add", normed if style.from_norm else x, hidden, name=name)


def heads_of(net: Net, x: Value, style: Style, sizes: Sizes, layer: int) -> tuple[Value, Value, Value]:
    """Query, key and value, [batch, heads, time, size] each."""
    counts = (sizes.heads, sizes.groups, sizes.groups)
    if style.split is None:
        query, key, value = (net.linear(x, role, count * sizes.size, bias=style.bias, layer=layer)
                             for role, count in zip(("query", "key", "value"), counts, strict=True))
        query, key, value = _normed(net, (query, key, value), style, "projection", layer)
        query, key, value = (net.split_heads(part, count) for part, count in zip((query, key, value), counts, strict=True))
    else:
        query, key, value = style.split(net, x, style.bias, sizes, layer)
    if style.clip is not None:
        query, key, value = (net.op("clip", part, -style.clip, style.clip) for part in (query, key, value))
    return _normed(net, (query, key, value), style, "heads", layer)


def in_turn(net: Net, x: Value, bias: bool, sizes: Sizes, layer: int) -> tuple[Value, Value, Value]:
    """One projection, to all queries, then all keys, then all values."""
    counts = (sizes.heads, sizes.groups, sizes.groups)
    fused = net.linear(x, "query_key_value", sum(counts) * sizes.size, bias=bias, layer=layer)
    parts = net.b.add("split", (fused,), {"sizes": tuple(count * sizes.size for count in counts), "axis": -1},
                      names=("query", "key", "value"))
    query, key, value = (net.split_heads(part, count) for part, count in zip(parts, counts, strict=True))
    return query, key, value


def by_group(net: Net, x: Value, bias: bool, sizes: Sizes, layer: int) -> tuple[Value, Value, Value]:
    """One projection, in which the queries of a group of heads lie beside the key and the value that they share."""
    groups, shared = sizes.groups, sizes.heads // sizes.groups
    fused = net.linear(x, "query_key_value", groups * (shared + 2) * sizes.size, bias=bias, layer=layer)
    batch, time, _ = fused.shape
    split = net.op("permute_dims", net.op("reshape", fused, shape=(batch, time, groups, shared + 2, sizes.size)), axes=(0, 2, 3, 1, 4))
    query, key, value = net.b.add("split", (split,), {"sizes": (shared, 1, 1), "axis": 2}, names=("query", "key", "value"))
    query = net.op("reshape", query, shape=(batch, sizes.heads, time, sizes.size))
    return query, net.op("squeeze", key, axis=(2,)), net.op("squeeze", value, axis=(2,))


def _normed(net: Net, parts: tuple[Value, Value, Value], style: Style, here: str, layer: int) -> tuple[Value, Value, Value]:
    if style.normed != here:
        return parts
    (query, key, value), norm = parts, style.norm if style.head_norm is None else style.head_norm
    return norm(net, query, "query_norm", layer=layer), norm(net, key, "key_norm", layer=layer), value


# Norms -------------------------------------------------------------------------------------------------------------------


def rms(eps: float) -> Norm:
    """x / √(mean(x²) + eps) · weight."""
    return lambda net, x, role, **places: net.rms_norm(x, role, eps, **places)


def layer_norm(eps: float, bias: bool = True) -> Norm:
    """(x - mean) / √(variance + eps) · weight + bias."""
    return lambda net, x, role, **places: net.layer_norm(x, role, eps, bias=bias, **places)


def layer_norm_from_one(eps: float) -> Norm:
    """(x - mean) / √(variance + eps) · (1 + weight) + bias."""

    def norm(net: Net, x: Value, role: str, **places: Any) -> Value:
        shape = (x.shape[-1],)
        weight = net.op("add", net.tensor(role, shape, **places), 1.0)
        return net.op("layer_norm", x, weight, net.tensor(role, shape, "bias", **places), normalized_shape=shape, eps=eps)

    return norm


def rms_from_one(eps: float) -> Norm:
    """x / √(mean(x²) + eps) · (1 + weight), in float32 at least."""

    def norm(net: Net, x: Value, role: str, **places: Any) -> Value:
        weight = net.op("add", net.cast(net.tensor(role, (x.shape[-1],), **places), net.wide), 1.0)
        return net.cast(net.op("rms_norm", net.cast(x, net.wide), weight, normalized_shape=(x.shape[-1],), eps=eps))

    return norm


# Feed-forward parts ------------------------------------------------------------------------------------------------------


def gated(sizes: Sizes, *, bias: bool = False, fused: bool = False, roles: tuple[str, str, str] = ("gate", "up", "down"),
          **places: Any) -> Feed:
    """down(activation(gate(x)) · up(x)); fused: gate and up are one projection. `roles`, `places`: of one among several."""

    def feed(net: Net, x: Value, layer: int) -> Value:
        if fused:
            both = net.linear(x, "gate_up", 2 * sizes.inner, bias=bias, layer=layer)
            gate, up = net.b.add("split", (both,), {"sizes": (sizes.inner, sizes.inner), "axis": -1}, names=("gate", "up"))
        else:
            gate, up = (net.linear(x, role, sizes.inner, bias=bias, layer=layer, **places) for role in roles[:2])
        hidden = net.op("multiply", net.activation(gate, sizes.activation), up)
        return net.linear(hidden, roles[2], sizes.width, bias=bias, layer=layer, **places)

    return feed


def plain(sizes: Sizes, *, bias: bool = True) -> Feed:
    """down(activation(up(x)))."""

    def feed(net: Net, x: Value, layer: int) -> Value:
        hidden = net.activation(net.linear(x, "up", sizes.inner, bias=bias, layer=layer), sizes.activation)
        return net.linear(hidden, "down", sizes.width, bias=bias, layer=layer)

    return feed


# Families ----------------------------------------------------------------------------------------------------------------


def family(model_type: str, stem: str, styled: Callable[[Config, Sizes], Style], *, usual: Usual | None = None,
           read: Callable[[Config, Usual], Sizes] = read_sizes, names: Mapping[str, str] | None = None, without: Sequence[str] = (),
           endings: Mapping[str, str] | None = None, heads: Mapping[str, str] | None = None, renamed: Mapping[str, str] | None = None,
           leftovers: Sequence[str] = (), prefixes: Sequence[str] = PREFIXES, optional: Sequence[str] = OPTIONAL) -> Family:
    """A family of this plan. `names`, `endings`, `heads`: those that differ; `without`: tasks that the library has no class for."""
    return Family(
        classes={model_type: stem},
        names={**NAMES, **(names or {})},
        heads={**HEADS, **(heads or {})},
        tasks={task: ending for task, ending in {**TASKS, **(endings or {})}.items() if task not in without},
        build=partial(build, styled, usual or Usual(), read),
        prefixes=tuple(prefixes),
        leftovers=(*LEFTOVERS, *leftovers),
        renamed=renamed or {},
        optional=tuple(optional),
        caches=True,
    )
