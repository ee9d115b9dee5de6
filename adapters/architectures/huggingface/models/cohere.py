"""Cohere's Command R: one norm before attention and feed-forward part side by side, neighbours rotated in pairs.

Command R 7B (cohere2) has windows in all layers but every fourth, and rotates in those alone.
"""

from __future__ import annotations

from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Norm, Sizes, Style, Usual, family, gated, layer_norm
from adapters.architectures.huggingface.layers.decoders import window_of, windows
from adapters.architectures.huggingface.models.llama_kin import ONLY_WORDS
from adapters.architectures.huggingface.net import Net
from converter.builder import Value


def norm_by_head(eps: float) -> Norm:
    """(x - mean) / √(variance + eps) · weight of [batch, heads, time, size], the weight [heads, size]."""

    def norm(net: Net, x: Value, role: str, **places: Any) -> Value:
        _, heads, _, size = x.shape
        weight = net.op("reshape", net.tensor(role, (heads, size), **places), shape=(heads, 1, size))
        return net.op("multiply", net.op("layer_norm", x, None, None, normalized_shape=(size,), eps=eps), weight)

    return norm


def cohere(config: Config, sizes: Sizes) -> Style:
    bias, eps = config.flag("attention_bias", False), config.number("layer_norm_eps", 1e-5)
    return Style(layer_norm(eps, bias=False), gated(sizes), [None] * sizes.layers, "beside", bias=bias, out_bias=bias,
                 normed="heads" if config.flag("use_qk_norm", False) else "", head_norm=norm_by_head(eps), interleaved=True,
                 scores=config.number("logit_scale", 0.0625), tie=True)


def cohere2(config: Config, sizes: Sizes) -> Style:
    config.only("use_qk_norm", False)
    config.only("head_dim", sizes.width // sizes.heads)
    bias = config.flag("attention_bias", False)
    every = 4 if config.get("layer_types") is not None else config.size("sliding_window_pattern", 4)
    spans = windows(config, [(layer + 1) % every != 0 for layer in range(sizes.layers)], window_of(config, 4096))
    return Style(layer_norm(config.number("layer_norm_eps", 1e-5), bias=False), gated(sizes), spans, "beside", bias=bias, out_bias=bias,
                 interleaved=True, turned=[None if span is None else "" for span in spans],
                 scores=config.number("logit_scale", 0.0625), tie=True)


COHERE = family("cohere", "Cohere", cohere, usual=Usual(theta=5e5), without=ONLY_WORDS)
COHERE2 = family("cohere2", "Cohere2", cohere2, without=ONLY_WORDS)
