"""Llama (Touvron et al. 2023) and its kin: Mistral, Qwen2, Qwen3, Phi-3. Gemma 2 has a file of its own.

Root mean square norms, rotary positions, shared key heads, a gated feed-forward part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adapters.huggingface.config import Config
from adapters.huggingface.decoders import (
    OPTIONAL,
    TASKS,
    attend,
    head,
    head_size,
    refuse_encoder,
    sequence,
    window_of,
    windows,
)
from adapters.huggingface.encoders import taken
from adapters.huggingface.family import Family
from adapters.huggingface.net import ACTIVATIONS, Net
from adapters.huggingface.rotary import angles, parameters, rotary, rotate
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


@dataclass(frozen=True, slots=True)
class Layer:
    """How the layers of a model differ from the others' of this kind."""

    windows: list[int | None]
    bias: bool = False
    out_bias: bool = False
    inner_bias: bool = False
    normed_heads: bool = False
    fused: bool = False
    eps: float = 1e-6


def llama(config: Config, layers: int) -> Layer:
    bias = config.flag("attention_bias", False)
    config.only("sliding_window")
    return Layer([None] * layers, bias, bias, config.flag("mlp_bias", False), eps=config.number("rms_norm_eps", 1e-6))


def mistral(config: Config, layers: int) -> Layer:
    config.only("layer_types")
    config.only("attention_bias", False)
    return Layer([window_of(config, 4096)] * layers, eps=config.number("rms_norm_eps", 1e-6))


def _qwen_windows(config: Config, layers: int) -> list[int | None]:
    window = window_of(config, 4096) if config.flag("use_sliding_window", False) else None
    first = config.size("max_window_layers", 28, least=0)
    return windows(config, [window is not None and layer >= first for layer in range(layers)], window)


def qwen2(config: Config, layers: int) -> Layer:
    return Layer(_qwen_windows(config, layers), bias=True, eps=config.number("rms_norm_eps", 1e-6))


def qwen3(config: Config, layers: int) -> Layer:
    bias = config.flag("attention_bias", False)
    return Layer(_qwen_windows(config, layers), bias, bias, normed_heads=True, eps=config.number("rms_norm_eps", 1e-6))


def phi3(config: Config, layers: int) -> Layer:
    config.only("attention_bias", False)
    return Layer([window_of(config, None)] * layers, fused=True, eps=config.number("rms_norm_eps", 1e-5))


KINDS: dict[str, Callable[[Config, int], Layer]] = {"llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3, "phi3": phi3}


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_encoder(config)
    kind = str(config.get("model_type"))
    width, layers = config.size("hidden_size"), config.size("num_hidden_layers")
    heads, size, groups = head_sizes(config, kind)
    inner, longest = config.size("intermediate_size"), config.size("max_position_embeddings")
    activation = config.choice("hidden_act", ACTIVATIONS, "silu")
    given = KINDS[kind](config, layers)
    fields = parameters(config)
    if kind == "phi3" and fields.get("rope_type") in ("su", "yarn"):
        # The names of longrope before it had one.
        fields.fields["rope_type"] = "longrope"
        config.fields.setdefault("original_max_position_embeddings", 4096)
    turns = rotary(config, fields, size)
    words = sequence(net, longest if turns.growth is None else None, layers, groups, size)
    cosine, sine = angles(net, turns, words.past, words.total, taken(net, "position_ids"))
    x = net.embedding(words.ids, "words", config.size("vocab_size"), width)
    for layer in range(layers):
        normed = net.rms_norm(x, "attention_norm", given.eps, layer=layer)
        query, key, value = _heads(net, normed, given, heads, groups, size, layer)
        query, key = rotate(net, query, cosine, sine), rotate(net, key, cosine, sine)
        seen = attend(net, words, layer, query, key, value, window=given.windows[layer])
        x = net.op("add", x, net.linear(seen, "attention_out", width, bias=given.out_bias, layer=layer))
        hidden = _gated(net, net.rms_norm(x, "inner_norm", given.eps, layer=layer), activation, inner, given, layer)
        x = net.op("add", x, net.linear(hidden, "down", width, bias=given.inner_bias, layer=layer), name=f"layer_{layer}")
    head(net, words, net.rms_norm(x, "norm", given.eps), task)


def head_sizes(config: Config, kind: str) -> tuple[int, int, int]:
    """Heads, their size, and the key heads that they share."""
    heads = config.size("num_attention_heads")
    # Qwen3's heads have a size of their own by default, Mistral shares its key heads.
    size = config.size("head_dim", 128) if kind == "qwen3" else head_size(config)
    groups = config.optional_size("num_key_value_heads", {"mistral": 8, "qwen2": 32, "qwen3": 32}.get(kind)) or heads
    if heads % groups:
        raise config.refuse("num_key_value_heads", f"a divisor of {heads}", groups)
    return heads, size, groups


def _heads(net: Net, x: Value, given: Layer, heads: int, groups: int, size: int, layer: int) -> tuple[Value, Value, Value]:
    """Query, key and value, [batch, heads, time, size] each."""
    counts = (heads, groups, groups)
    if given.fused:
        fused = net.linear(x, "query_key_value", (heads + 2 * groups) * size, bias=False, layer=layer)
        sizes = tuple(count * size for count in counts)
        parts = net.b.add("split", (fused,), {"sizes": sizes, "axis": -1}, names=("query", "key", "value"))
    else:
        parts = tuple(net.linear(x, role, count * size, bias=given.bias, layer=layer)
                      for role, count in zip(("query", "key", "value"), counts, strict=True))
    query, key, value = (net.split_heads(part, count) for part, count in zip(parts, counts, strict=True))
    if given.normed_heads:
        query = net.rms_norm(query, "query_norm", given.eps, layer=layer)
        key = net.rms_norm(key, "key_norm", given.eps, layer=layer)
    return query, key, value


def _gated(net: Net, x: Value, activation: tuple, inner: int, given: Layer, layer: int) -> Value:  # type: ignore[type-arg]
    if given.fused:
        fused = net.linear(x, "gate_up", 2 * inner, bias=False, layer=layer)
        gate, up = net.b.add("split", (fused,), {"sizes": (inner, inner), "axis": -1}, names=("gate", "up"))
    else:
        gate = net.linear(x, "gate", inner, bias=given.inner_bias, layer=layer)
        up = net.linear(x, "up", inner, bias=given.inner_bias, layer=layer)
    return net.op("multiply", net.activation(gate, activation), up)


FAMILY = Family(
    classes={"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "phi3": "Phi3"},
    names=NAMES,
    heads=HEADS,
    tasks=TASKS,
    build=build,
    prefixes=PREFIXES,
    leftovers=LEFTOVERS,
    optional=OPTIONAL,
    caches=True,
)
