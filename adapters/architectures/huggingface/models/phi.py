"""Families with layer norms and rotary positions: Phi, Persimmon, StableLM, StarCoder2, Nemotron, Jais 2."""

from __future__ import annotations

from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import (
    Norm,
    Sizes,
    Style,
    Usual,
    by_group,
    family,
    gated,
    layer_norm,
    layer_norm_from_one,
    plain,
)
from adapters.architectures.huggingface.layers.decoders import window_of
from adapters.architectures.huggingface.models.llama_kin import ONLY_WORDS
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import fixed

# A graph has nodes for each of StableLM's norms of heads.
MOST_NORMS = 1 << 10


def phi(config: Config, sizes: Sizes) -> Style:
    """One norm before both parts, side by side; even the scores of words have a bias."""
    norm = layer_norm(config.number("layer_norm_eps", 1e-5))
    return Style(norm, plain(sizes), [None] * sizes.layers, "beside", bias=True, out_bias=True, lm_bias=True,
                 normed="heads" if config.flag("qk_layernorm", False) else "")


def persimmon(config: Config, sizes: Sizes) -> Style:
    norm = layer_norm(config.number("layer_norm_eps", 1e-5))
    config.only("num_key_value_heads", sizes.heads)
    return Style(norm, plain(sizes), [None] * sizes.layers, split=by_group, bias=True, out_bias=True,
                 normed="heads" if config.flag("qk_layernorm", True) else "")


def norms_of_heads(eps: float) -> Norm:
    """A layer norm without a bias for each head, of [batch, heads, time, size]."""

    def norm(net: Net, x: Value, role: str, **places: Any) -> Value:
        _, heads, _, size = x.shape
        weights = [net.tensor(role, (size,), head=head, **places) for head in range(fixed(heads))]
        weight = net.op("reshape", net.op("stack", *weights, axis=0), shape=(heads, 1, size))
        return net.op("multiply", net.op("layer_norm", x, None, None, normalized_shape=(size,), eps=eps), weight)

    return norm


def stablelm(config: Config, sizes: Sizes) -> Style:
    eps = config.number("layer_norm_eps", 1e-5)
    if config.flag("qk_layernorm", False) and sizes.heads > MOST_NORMS:
        raise config.refuse("num_attention_heads", f"at most {MOST_NORMS}, which have a norm each", sizes.heads)
    return Style(layer_norm(eps), gated(sizes), [None] * sizes.layers,
                 "beside" if config.flag("use_parallel_residual", False) else "before", bias=config.flag("use_qkv_bias", False),
                 normed="heads" if config.flag("qk_layernorm", False) else "", head_norm=norms_of_heads(eps))


def starcoder2(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("use_bias", True)
    return Style(layer_norm(config.number("norm_epsilon", 1e-5)), plain(sizes, bias=bias), [window_of(config, None)] * sizes.layers,
                 bias=bias, out_bias=bias, tie=True)


def nemotron(config: Config, sizes: Sizes) -> Style:
    """Norms that count from one."""
    bias = config.flag("attention_bias", False)
    return Style(layer_norm_from_one(config.number("norm_eps", 1e-5)), plain(sizes, bias=config.flag("mlp_bias", False)),
                 [None] * sizes.layers, bias=bias, out_bias=bias)


def jais2(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("attention_bias", True)
    return Style(layer_norm(config.number("layer_norm_eps", 1e-5)), plain(sizes, bias=config.flag("mlp_bias", True)),
                 [None] * sizes.layers, bias=bias, out_bias=bias)


HEAD_NORMS = {"query_norm": "layers.{layer}.self_attn.q_layernorm", "key_norm": "layers.{layer}.self_attn.k_layernorm"}
DENSE = {**HEAD_NORMS, "attention_out": "layers.{layer}.self_attn.dense", "norm": "final_layernorm"}

PHI = family("phi", "Phi", phi, usual=Usual(activation="gelu_new", fraction=0.5), without=("question-answering",),
             names={**DENSE, "up": "layers.{layer}.mlp.fc1", "down": "layers.{layer}.mlp.fc2"})
PERSIMMON = family("persimmon", "Persimmon", persimmon, usual=Usual(activation="relu2", fraction=0.5), without=("question-answering",),
                   names={**DENSE, "query_key_value": "layers.{layer}.self_attn.query_key_value",
                          "up": "layers.{layer}.mlp.dense_h_to_4h", "down": "layers.{layer}.mlp.dense_4h_to_h"})
STABLELM = family("stablelm", "StableLm", stablelm, usual=Usual(groups=32, fraction=0.25), without=("question-answering",),
                  names={role: f"{name}.norms.{{head}}" for role, name in HEAD_NORMS.items()})
STARCODER2 = family("starcoder2", "Starcoder2", starcoder2, usual=Usual(groups=2, activation="gelu_pytorch_tanh"),
                    without=("question-answering",), names={"up": "layers.{layer}.mlp.c_fc", "down": "layers.{layer}.mlp.c_proj"})
JAIS2 = family("jais2", "Jais2", jais2, usual=Usual(activation="relu2"), without=ONLY_WORDS)
NEMOTRON = family("nemotron", "Nemotron", nemotron, usual=Usual(activation="relu2", fraction=0.5))
