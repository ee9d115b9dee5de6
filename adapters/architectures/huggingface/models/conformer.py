"""Conformers (Gulati et al. 2020) for speech: wav2vec 2.0's (Wang et al. 2020) and Wav2Vec2-BERT's (Barrault et al. 2023).

Each layer: half a feed-forward part, attention, a convolution, half a feed-forward part, a norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from adapters.architectures.huggingface.layers.distances import LARGEST_DISTANCE
from adapters.architectures.huggingface.layers.rotary import angles_of, plain_rotary, rotate
from adapters.architectures.huggingface.models.wav2vec2 import EPS, FAMILY, MASK, Convolutions, Kind, build, finish, hidden, start, visible
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed
from converter.ir import DimRange, DType

LAYER = "encoder.layers.{layer}"
ATTENTION, MODULE = f"{LAYER}.self_attn", f"{LAYER}.conv_module"
PARTS = {
    **{f"{role}_{part}": f"{LAYER}.ffn{number}.{name}" for number, role in ((1, "first"), (2, "second"))
       for part, name in (("up", "intermediate_dense"), ("down", "output_dense"))},
    "first_norm": f"{LAYER}.ffn1_layer_norm",
    "second_norm": f"{LAYER}.ffn2_layer_norm",
    "attention_norm": f"{LAYER}.self_attn_layer_norm",
    **{role: f"{ATTENTION}.linear_{name}" for role, name in
       (("query", "q"), ("key", "k"), ("value", "v"), ("attention_out", "out"), ("places", "pos"))},
    "key_offset": f"{ATTENTION}.pos_bias_u",
    "place_offset": f"{ATTENTION}.pos_bias_v",
    "distances": f"{ATTENTION}.distance_embedding",
    "mixed_norm": f"{MODULE}.layer_norm",
    "mixed_in": f"{MODULE}.pointwise_conv1",
    "mixed": f"{MODULE}.depthwise_conv",
    "mixed_out": f"{MODULE}.pointwise_conv2",
    "outer_norm": f"{LAYER}.final_layer_norm",
    "frequencies": "encoder.embed_positions",
}
# What is done to the words before queries and keys are made of them, and to queries; and what is added to scores.
Turn = Callable[[Value], Value]
Scores = Callable[[Value, int], tuple[Value, Value]]


@dataclass(frozen=True, slots=True)
class Conformer:
    """causal: a word's convolution is over it and those before it, and has a layer norm; else over both sides, with a batch norm."""

    causal: bool
    places: str
    activation: str


def layers(kind: Conformer, net: Net, x: Value, mask: Value | None) -> list[Value]:
    """The words before the first layer and after each, and the result: [batch, time, width] each. mask: bool [batch, time]."""
    config = net.config
    last = config.number("layer_norm_eps", EPS)
    # The norms of wav2vec 2.0's layers have PyTorch's own number, whatever the config says.
    eps = last if kind.causal else EPS
    x, seen = hidden(net, x, mask)
    turn, scores = _positions(net, kind, x)
    states = [x]
    for layer in range(config.size("num_hidden_layers")):
        x = states[-1]
        x = net.op("add", net.op("multiply", _feed_forward(net, kind, x, "first", eps, layer), 0.5), x)
        x = net.op("add", _attention(net, net.layer_norm(x, "attention_norm", eps, layer=layer), seen, turn, scores, layer=layer), x)
        x = net.op("add", x, _convolved(net, kind, x, mask, eps, layer))
        x = net.op("add", net.op("multiply", _feed_forward(net, kind, x, "second", eps, layer), 0.5), x)
        states.append(net.layer_norm(x, "outer_norm", eps, layer=layer, name=f"layer_{layer}"))
    return [*states, states[-1] if kind.causal else net.layer_norm(states[-1], "norm", last)]


def _feed_forward(net: Net, kind: Conformer, x: Value, role: str, eps: float, layer: int) -> Value:
    x = net.layer_norm(x, f"{role}_norm", eps, layer=layer)
    return _two_maps(net, x, role, net.config.choice("hidden_act", ACTIVATIONS, kind.activation), layer=layer)


def _two_maps(net: Net, x: Value, role: str, activation: Any, **places: Any) -> Value:
    y = net.activation(net.linear(x, f"{role}_up", net.config.size("intermediate_size"), **places), activation)
    return net.linear(y, f"{role}_down", fixed(x.shape[-1]), **places)


def _attention(net: Net, x: Value, seen: Value | None, turn: Turn | None, scores: Scores | None, role: str = "", **places: Any) -> Value:
    """seen: bool [batch, 1, 1, time]."""
    width, heads = fixed(x.shape[-1]), net.config.size("num_attention_heads")
    if width % heads:
        raise net.config.refuse("num_attention_heads", f"a divisor of {width}", heads)
    asking = x if turn is None else turn(x)
    query, key, value = (net.split_heads(net.linear(given, role + name, width, **places), heads)
                         for name, given in (("query", asking), ("key", asking), ("value", x)))
    if scores is not None:
        query, added = scores(query, places["layer"])
        added = net.op("multiply", added, 1 / math.sqrt(width // heads))
        seen = added if seen is None else net.op("where", seen, added, -math.inf)
    y = net.join_heads(net.op("scaled_dot_product_attention", query, key, value, seen))
    return net.linear(y, f"{role}attention_out", width, **places)


def _convolved(net: Net, kind: Conformer, x: Value, mask: Value | None, eps: float, layer: int) -> Value:
    width, kernel = fixed(x.shape[-1]), net.config.size("conv_depthwise_kernel_size", 31)
    if kernel % 2 == 0:
        raise net.config.refuse("conv_depthwise_kernel_size", "an odd number", kernel)
    x = net.layer_norm(x, "mixed_norm", eps, layer=layer)
    if kind.causal and mask is not None:
        x = net.op("where", net.op("expand_dims", mask, axis=(2,)), x, 0.0)
    x = net.op("permute_dims", x, axes=(0, 2, 1))
    x = net.op("glu", net.op("convolution", x, net.tensor("mixed_in", (2 * width, width, 1), layer=layer), None), axis=1)
    padding = (kernel - 1, 0) if kind.causal else (kernel // 2,) * 2
    x = net.op("convolution", x, net.tensor("mixed", (width, 1, kernel), layer=layer), None, padding=padding, groups=width)
    if kind.causal:
        x = net.layer_norm(net.op("permute_dims", x, axes=(0, 2, 1)), "mixed_inner_norm", eps, layer=layer)
        x = net.op("permute_dims", x, axes=(0, 2, 1))
    else:
        x = net.batch_norm(x, "mixed_inner_norm", layer=layer)
    x = net.activation(x, net.config.choice("hidden_act", ACTIVATIONS, kind.activation))
    x = net.op("convolution", x, net.tensor("mixed_out", (width, width, 1), layer=layer), None)
    return net.op("permute_dims", x, axes=(0, 2, 1))


# Positions ---------------------------------------------------------------------------------------------------------------


def _positions(net: Net, kind: Conformer, x: Value) -> tuple[Turn | None, Scores | None]:
    config, width, time = net.config, fixed(x.shape[-1]), x.shape[1]
    heads = config.size("num_attention_heads")
    given = config.get("position_embeddings_type", kind.places)
    for name in ("num_conv_pos_embeddings", "num_conv_pos_embedding_groups") if not kind.causal else ():
        config.get(name)  # of a convolution that the library's layers have and do not use
    for name in ("rotary_embedding_base", "max_source_positions", "left_max_position_embeddings", "right_max_position_embeddings"):
        config.get(name)  # each of one kind
    if given is None:
        return None, None
    if given == "rotary":
        if width // heads % 2:
            raise config.refuse("num_attention_heads", f"heads of an even size of {width}", heads)
        base = config.number("rotary_embedding_base", 10000, above=0)
        frequencies = (net.tensor("frequencies", (width // heads // 2,), "inv_freq") if net.has("frequencies", "inv_freq")
                       else net.constant("inv_freq", plain_rotary(width // heads, base).frequencies))
        cosine, sine = angles_of(net, frequencies, 0, time, None)
        return lambda words: net.join_heads(rotate(net, net.split_heads(words, heads), cosine, sine)), None
    if given == "relative":
        return None, partial(_relative, net, _sines(net, x))
    if given == "relative_key" and kind.causal:
        return None, partial(_near, net, x)
    raise config.refuse("position_embeddings_type", "rotary, relative" + ", relative_key" * kind.causal + " or null", given)


def _sines(net: Net, x: Value) -> Value:
    """Sines and cosines in turn of each distance from time - 1 to 1 - time: [2 · time - 1, width]."""
    width, time = fixed(x.shape[-1]), x.shape[1]
    if width % 2:
        raise net.config.refuse("hidden_size", "an even number", width)
    steps = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-(math.log(10000.0) / width)))
    cosine, sine = angles_of(net, net.constant("distance_steps", steps), 1 - time, time, None)
    both = net.op("stack", net.op("negative", sine), cosine, axis=2)
    return net.op("reshape", both, shape=(2 * time - 1, width))


def _relative(net: Net, table: Value, query: Value, layer: int) -> tuple[Value, Value]:
    """Queries with an offset, and the scores of queries with another offset and each distance (Dai et al. 2019)."""
    _, heads, time, size = query.shape
    width = fixed(table.shape[-1])
    weight = net.tensor("places", (width, width), layer=layer)
    places = net.op("permute_dims", net.op("reshape", net.op("linear", table, weight), shape=(2 * time - 1, heads, size)), axes=(1, 2, 0))
    by_key, by_place = (net.op("add", query, net.op("reshape", net.tensor(role, (heads, size), "", layer=layer), shape=(heads, 1, size)))
                        for role in ("key_offset", "place_offset"))
    return by_key, shifted(net, net.op("matmul", by_place, places))


def shifted(net: Net, scores: Value) -> Value:
    """[batch, heads, time, 2 · time - 1] of distances from time - 1 down as [batch, heads, time, time] of keys from the first on."""
    batch, heads, time, _ = scores.shape
    x = net.op("pad", scores, pads=((0, 0), (0, 0), (0, 0), (1, 0)))
    x = net.op("reshape", x, shape=(batch, heads, 2 * time, time))
    x = net.op("reshape", net.op("slice", x, axes=(2,), starts=(1,), stops=(None,)), shape=(batch, heads, time, 2 * time - 1))
    return net.op("slice", x, axes=(3,), starts=(0,), stops=(time,))


def _near(net: Net, x: Value, query: Value, layer: int) -> tuple[Value, Value]:
    """Queries, and their scores with a vector for each distance that is not too far (Shaw et al. 2018)."""
    batch, heads, time, size = query.shape
    left, right = (net.config.size(f"{side}_max_position_embeddings", usual, least=0) for side, usual in (("left", 64), ("right", 8)))
    if max(left, right) > LARGEST_DISTANCE:
        raise net.config.refuse("left_max_position_embeddings", f"at most {LARGEST_DISTANCE}", max(left, right))
    table = net.tensor("distances", (left + right + 1, size), layer=layer)
    place = net.op("arange", stop=time, dtype=DType.INT64)
    keys, queries = (net.op("reshape", place, shape=shape) for shape in ((1, time), (time, 1)))
    index = net.op("add", net.op("clip", net.op("subtract", keys, queries), -left, right), left)
    index = net.op("broadcast_to", net.op("reshape", index, shape=(1, 1, time, time)), shape=(batch, heads, time, time))
    return query, net.op("take_along_axis", net.op("linear", query, table), index, axis=3)


# Wav2Vec2-BERT -----------------------------------------------------------------------------------------------------------

FEATURES = "input_features"
# No convolutions make words of samples: the words are given.
NONE = Convolutions([], [], [], False, "", ())


def build_bert(net: Net, task: str) -> None:
    """`input_features` [batch, time, features]."""
    config = net.config
    start(net, task)
    config.get("adapter_act")  # of adapters
    kind = Conformer(True, "relative_key", "swish")
    adapted, between = (config.flag(name, False) for name in ("add_adapter", "use_intermediate_ffn_before_adapter"))
    if between and not adapted:
        raise config.refuse("use_intermediate_ffn_before_adapter", "false without add_adapter", True)
    net.dim("batch", None)
    net.dim("time", None)
    given = net.b.input(FEATURES, net.dtype, ["batch", "time", config.size("feature_projection_input_dim", 160)])
    mask = net.cast(net.b.input(MASK, DType.INT64, ["batch", "time"]), DType.BOOL) if net.takes(MASK) else None
    normed = net.layer_norm(given, "projection_norm", config.number("layer_norm_eps", EPS), name="extract_features")
    states = layers(kind, net, net.linear(normed, "projection", config.size("hidden_size")), mask)
    x = states.pop()
    if between:
        x = net.op("add", x, net.op("multiply", _two_maps(net, x, "between", ACTIVATIONS["relu"]), 0.5))
    if adapted:
        x = _adapted(net, x, mask)
        net.b.dims["time"] = DimRange(net.b.least("time"))
    finish(net, task, x, states, visible(net, NONE, given), normed)


def _adapted(net: Net, x: Value, mask: Value | None) -> Value:
    """Fewer words by layers that begin with a convolution."""
    config, eps, activation = net.config, net.config.number("layer_norm_eps", EPS), net.config.choice("adapter_act", ACTIVATIONS, "relu")
    width = config.optional_size("output_hidden_size")
    kernel, stride = config.size("adapter_kernel_size", 3), config.size("adapter_stride", 2)
    if width is not None and width != x.shape[-1]:
        x = net.layer_norm(net.linear(x, "adapter", width), "adapter_norm", eps)
    count = None if mask is None else net.op("sum", net.cast(mask, DType.INT64), axis=(1,), keepdims=True)
    for layer in range(config.size("num_adapter_layers", 1, least=0)):
        words, rest = (_fewer(net, net.layer_norm(x, f"adapter_{role}_norm", eps, layer=layer), f"adapter_{role}", kernel, stride, layer)
                       for role in ("attention", "residual"))
        seen = None
        if count is not None:
            count = net.op("add", net.op("floor_divide", net.op("add", count, 2 * (kernel // 2) - kernel), stride), 1)
            seen = net.op("less", net.op("arange", stop=words.shape[1], dtype=DType.INT64), count)
            seen = net.op("reshape", seen, shape=(seen.shape[0], 1, 1, seen.shape[1]))
        x = net.op("add", _attention(net, words, seen, None, None, "adapter_", layer=layer), rest)
        x = net.op("add", _two_maps(net, net.layer_norm(x, "adapter_inner_norm", eps, layer=layer), "adapter", activation, layer=layer), x)
    return x


def _fewer(net: Net, x: Value, role: str, kernel: int, stride: int, layer: int) -> Value:
    width = fixed(x.shape[-1])
    weight, bias = net.tensor(role, (2 * width, width, kernel), layer=layer), net.tensor(role, (2 * width,), "bias", layer=layer)
    y = net.op("convolution", net.op("permute_dims", x, axes=(0, 2, 1)), weight, bias, stride=(stride,), padding=(stride // 2,))
    return net.op("permute_dims", net.op("glu", y, axis=1), axes=(0, 2, 1))


ADAPTER = "adapter.layers.{layer}"
CONFORMER = replace(
    FAMILY, classes={"wav2vec2-conformer": "Wav2Vec2Conformer"}, prefixes=("wav2vec2_conformer.",),
    leftovers=(*FAMILY.leftovers, "encoder.pos_conv_embed.*", "*.num_batches_tracked"),
    names={**FAMILY.names, **PARTS, "mixed_inner_norm": f"{MODULE}.batch_norm"},
    build=partial(build, kind=Kind(languages=False, layers=partial(layers, Conformer(False, "relative", "gelu")))))
BERT = replace(
    FAMILY, classes={"wav2vec2-bert": "Wav2Vec2Bert"}, prefixes=("wav2vec2_bert.",), build=build_bert, inputs=(FEATURES, MASK),
    names={**FAMILY.names, **PARTS, "mixed_inner_norm": f"{MODULE}.depthwise_layer_norm",
           "between_up": "intermediate_ffn.intermediate_dense", "between_down": "intermediate_ffn.output_dense",
           "adapter_attention_norm": f"{ADAPTER}.self_attn_layer_norm", "adapter_attention": f"{ADAPTER}.self_attn_conv",
           "adapter_residual_norm": f"{ADAPTER}.residual_layer_norm", "adapter_residual": f"{ADAPTER}.residual_conv",
           **{f"adapter_{role}": f"{ADAPTER}.self_attn.linear_{name}"
              for role, name in (("query", "q"), ("key", "k"), ("value", "v"), ("attention_out", "out"))},
           "adapter_inner_norm": f"{ADAPTER}.ffn_layer_norm", "adapter_up": f"{ADAPTER}.ffn.intermediate_dense",
           "adapter_down": f"{ADAPTER}.ffn.output_dense"})
