"""Qwen3-Next (Qwen Team 2025): gated delta nets (Yang et al. 2024) in most layers, attention with gates in the others; experts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Sizes, Style, Usual, family, rms_from_one
from adapters.architectures.huggingface.layers.decoders import Sequence as Words
from adapters.architectures.huggingface.layers.recurrent import convolved, keep, masked, scanned, state_of
from adapters.architectures.huggingface.models.experts import EXPERTS, SHARED, by_layer, read_router, with_shared
from adapters.architectures.huggingface.net import Net
from converter.builder import GraphBuilder, Value
from converter.dims import fixed

EVERY = 4


def qwen3_next(config: Config, sizes: Sizes) -> Style:
    eps, bias = config.number("rms_norm_eps", 1e-6), config.flag("attention_bias", False)
    router = read_router(config, sizes.layers, 512, 10, config.flag("norm_topk_prob", True))
    feed = by_layer(config, sizes, router, with_shared(config, sizes, router, 512, 512))
    delta = Delta.read(config, sizes, eps)
    return Style(rms_from_one(eps), feed, [None] * sizes.layers, bias=bias, out_bias=bias, normed="heads", split=_split, opened=_opened,
                 mixers={layer: delta.mixed for layer in range(sizes.layers) if layer not in _attention(config, sizes.layers)})


def _attention(config: Config, layers: int) -> set[int]:
    """The layers with attention."""
    every, types = config.size("full_attention_interval", EVERY), config.get("layer_types")
    if types is None:
        return {layer for layer in range(layers) if (layer + 1) % every == 0}
    known = ("linear_attention", "full_attention")
    if not isinstance(types, list) or len(types) != layers or any(item not in known for item in types):
        raise config.refuse("layer_types", f"{' or '.join(known)} for each of {layers} layers", types)
    return {layer for layer, item in enumerate(types) if item == known[1]}


def _split(net: Net, x: Value, bias: bool, sizes: Sizes, layer: int) -> tuple[Value, Value, Value]:
    """Beside each head's query lies what gates what it sees."""
    both = net.split_heads(net.linear(x, "query", 2 * sizes.heads * sizes.size, bias=bias, layer=layer), sizes.heads)
    query, gate = net.b.add("split", (both,), {"sizes": (sizes.size, sizes.size), "axis": 3}, names=("query", "gate"))
    net.flat[f"gate_{layer}"] = net.op("sigmoid", net.join_heads(gate))
    key, value = (net.split_heads(net.linear(x, role, sizes.groups * sizes.size, bias=bias, layer=layer), sizes.groups)
                  for role in ("key", "value"))
    return query, key, value


def _opened(net: Net, seen: Value, layer: int) -> Value:
    return net.op("multiply", seen, net.flat[f"gate_{layer}"])


@dataclass(frozen=True, slots=True)
class Delta:
    """A gated delta net: for each head a map from keys to values, of which each word corrects what it gives for the word's key."""

    heads: int
    keys: int
    size: int
    key_size: int
    kernel: int
    eps: float
    activation: Activation

    @classmethod
    def read(cls, config: Config, sizes: Sizes, eps: float) -> Delta:
        heads, keys = config.size("linear_num_value_heads", 32), config.size("linear_num_key_heads", 16)
        if heads % keys:
            raise config.refuse("linear_num_value_heads", f"a multiple of linear_num_key_heads, {keys}", heads)
        return cls(heads, keys, config.size("linear_value_head_dim", 128), config.size("linear_key_head_dim", 128),
                   config.size("linear_conv_kernel_dim", 4, least=2), eps, sizes.activation)

    def mixed(self, net: Net, words: Words, x: Value, layer: int) -> Value:
        """What one layer makes of its words, [batch, time, width]."""
        (batch, time, width), kind, shared = x.shape, net.wide, self.heads // self.keys
        x = masked(net, words, x)
        wide_key, wide_value = self.keys * self.key_size, self.heads * self.size
        fused = net.linear(x, "delta_in", 2 * (wide_key + wide_value), bias=False, layer=layer)
        fused = net.op("reshape", fused, shape=(batch, time, self.keys, 2 * (self.key_size + shared * self.size)))
        parts = net.b.add("split", (fused,), {"sizes": (self.key_size, self.key_size, shared * self.size, shared * self.size), "axis": 3},
                          names=("query", "key", "value", "gate"))
        query, key, value = (net.op("reshape", part, shape=(batch, time, wide))
                             for part, wide in zip(parts, (wide_key, wide_key, wide_value), strict=False))
        gate = net.op("reshape", parts[3], shape=(batch, time, self.heads, self.size))
        both = net.op("reshape", net.linear(x, "delta_gates", 2 * self.heads, bias=False, layer=layer),
                      shape=(batch, time, self.keys, 2 * shared))
        share, pace = (net.cast(net.op("reshape", part, shape=(batch, time, self.heads)), kind) for part in
                       net.b.add("split", (both,), {"sizes": (shared, shared), "axis": 3}, names=("share", "pace")))
        y = convolved(net, words, net.op("concat", query, key, value, axis=2), self.kernel, False, layer)
        y = net.cast(net.activation(y, self.activation), kind)
        parts = net.b.add("split", (y,), {"sizes": (wide_key, wide_key, wide_value), "axis": 2}, names=("query", "key", "value"))
        query, key = (net.op("repeat_interleave", self._unit(net, part), repeats=shared, axis=2) for part in parts[:2])
        query = net.op("multiply", query, 1 / math.sqrt(self.key_size))
        value = net.op("reshape", parts[2], shape=(batch, time, self.heads, self.size))
        offset, decay = (net.cast(net.tensor(role, (self.heads,), "", layer=layer), kind) for role in ("delta_pace", "delta_decay"))
        kept = net.op("multiply", net.op("softplus", net.op("add", pace, offset)), net.op("negative", net.op("exp", decay)))
        state = state_of(net, layer, "state", (batch, self.heads, self.key_size, self.size), kind)
        state, seen = scanned(net, (state,), (net.op("exp", kept), net.op("sigmoid", share), query, key, value), (), _corrected)
        keep(words, layer, "state", state)
        seen = net.op("rms_norm", seen, None, normalized_shape=(self.size,), eps=self.eps)
        seen = net.op("multiply", net.cast(seen), net.tensor("delta_norm", (self.size,), layer=layer))
        seen = net.cast(net.op("multiply", net.cast(seen, kind), net.op("silu", net.cast(gate, kind))))
        return net.linear(net.op("reshape", seen, shape=(batch, time, wide_value)), "delta_out", fixed(width), bias=False, layer=layer)

    def _unit(self, net: Net, x: Value) -> Value:
        """Each head's vector with the length 1."""
        batch, time, _ = x.shape
        x = net.op("reshape", x, shape=(batch, time, self.keys, self.key_size))
        length = net.op("sum", net.op("square", x), axis=(3,), keepdims=True)
        return net.op("multiply", x, net.op("rsqrt", net.op("add", length, 1e-6)))


def _corrected(b: GraphBuilder, states: Sequence[Value], given: Sequence[Value], rest: Sequence[Value]) -> tuple[Sequence[Value], Value]:
    """The state times what is kept, and corrected at the key, [batch, heads, key size, size]; what it gives for the query."""
    kept, share, query, key, value = given
    state = b.op("multiply", states[0], b.op("expand_dims", kept, axis=(2, 3)))
    found = b.op("squeeze", b.op("matmul", b.op("expand_dims", key, axis=(2,)), state), axis=(2,))
    change = b.op("multiply", b.op("subtract", value, found), b.op("expand_dims", share, axis=(2,)))
    state = b.op("add", state, b.op("multiply", b.op("expand_dims", key, axis=(3,)), b.op("expand_dims", change, axis=(2,))))
    return (state,), b.op("squeeze", b.op("matmul", b.op("expand_dims", query, axis=(2,)), state), axis=(2,))


LINEAR = "layers.{layer}.linear_attn"
QWEN3_NEXT = family(
    "qwen3_next", "Qwen3Next", qwen3_next, usual=Usual(size=256, groups=2, fraction=0.25), leftovers=("mtp.*",),
    names={**EXPERTS, **SHARED, "delta_in": f"{LINEAR}.in_proj_qkvz", "delta_gates": f"{LINEAR}.in_proj_ba",
           "convolution": f"{LINEAR}.conv1d", "delta_pace": f"{LINEAR}.dt_bias", "delta_decay": f"{LINEAR}.A_log",
           "delta_norm": f"{LINEAR}.norm", "delta_out": f"{LINEAR}.out_proj"})
