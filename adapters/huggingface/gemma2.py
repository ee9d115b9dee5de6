"""Gemma 2 (Gemma Team 2024): norms around each part, bounded scores, every other layer with a sliding window."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.huggingface import llama
from adapters.huggingface.decoders import OPTIONAL, TASKS, attend, head, refuse_encoder, sequence, window_of, windows
from adapters.huggingface.encoders import taken
from adapters.huggingface.family import Family
from adapters.huggingface.net import ACTIVATIONS, Net
from adapters.huggingface.rotary import angles, parameters, rotary, rotate
from converter.builder import Value
from converter.ir import DType

NAMES = {**llama.NAMES, "attention_out_norm": "layers.{layer}.post_attention_layernorm",
         "inner_norm": "layers.{layer}.pre_feedforward_layernorm", "outer_norm": "layers.{layer}.post_feedforward_layernorm"}


def _norm(net: Net, x: Value, role: str, eps: float, **places: Any) -> Value:
    """x / √(mean(x²) + eps) · (1 + weight), in float32 at least."""
    wide = DType.FLOAT32 if net.dtype in (DType.FLOAT16, DType.BFLOAT16) else net.dtype
    weight = net.op("add", net.cast(net.tensor(role, (x.shape[-1],), **places), wide), 1.0)
    return net.cast(net.op("rms_norm", net.cast(x, wide), weight, normalized_shape=(x.shape[-1],), eps=eps))


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_encoder(config)
    width, layers = config.size("hidden_size"), config.size("num_hidden_layers")
    heads, size, groups = config.size("num_attention_heads"), config.size("head_dim", 256), config.size("num_key_value_heads", 4)
    if heads % groups:
        raise config.refuse("num_key_value_heads", f"a divisor of {heads}", groups)
    inner, longest, eps = config.size("intermediate_size"), config.size("max_position_embeddings"), config.number("rms_norm_eps", 1e-6)
    activation = config.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh")
    bias, scale = config.flag("attention_bias", False), config.number("query_pre_attn_scalar", 256, above=0) ** -0.5
    cap, last_cap = (None if config.get(name, usual) is None else config.number(name, usual, above=0)
                     for name, usual in (("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)))
    spans = windows(config, [layer % 2 == 0 for layer in range(layers)], window_of(config, 4096))
    config.get("hidden_act")  # an older name, which the library does not read
    config.get("cache_implementation")
    words = sequence(net, longest, layers, groups, size)
    cosine, sine = angles(net, rotary(config, parameters(config), size), words.past, words.total, taken(net, "position_ids"))
    x = net.embedding(words.ids, "words", config.size("vocab_size"), width)
    x = net.op("multiply", x, float(np.float32(width**0.5)), name="embeddings")
    for layer in range(layers):
        normed = _norm(net, x, "attention_norm", eps, layer=layer)
        query, key, value = (net.split_heads(net.linear(normed, role, count * size, bias=bias, layer=layer), count)
                             for role, count in (("query", heads), ("key", groups), ("value", groups)))
        query, key = rotate(net, query, cosine, sine), rotate(net, key, cosine, sine)
        seen = attend(net, words, layer, query, key, value, window=spans[layer], scale=scale, cap=cap)
        seen = net.linear(seen, "attention_out", width, bias=bias, layer=layer)
        x = net.op("add", x, _norm(net, seen, "attention_out_norm", eps, layer=layer))
        normed = _norm(net, x, "inner_norm", eps, layer=layer)
        gate = net.activation(net.linear(normed, "gate", inner, bias=False, layer=layer), activation)
        hidden = net.op("multiply", gate, net.linear(normed, "up", inner, bias=False, layer=layer))
        outer = net.linear(hidden, "down", width, bias=False, layer=layer)
        x = net.op("add", x, _norm(net, outer, "outer_norm", eps, layer=layer), name=f"layer_{layer}")
    head(net, words, _norm(net, x, "norm", eps), task, tie=True, cap=last_cap)


FAMILY = Family(
    classes={"gemma2": "Gemma2"},
    names=NAMES,
    heads=llama.HEADS,
    tasks={task: ending for task, ending in TASKS.items() if task != "question-answering"},
    build=build,
    prefixes=("model.",),
    leftovers=llama.LEFTOVERS,
    optional=OPTIONAL,
    caches=True,
)
