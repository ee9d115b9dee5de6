"""Llama (Touvron et al. 2023) and what differs from it in fields alone: Mistral, Qwen2, Qwen3, Phi-3."""

from __future__ import annotations

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Sizes, Style, Usual, family, gated, in_turn, rms
from adapters.architectures.huggingface.layers.decoders import window_of, windows
from adapters.architectures.huggingface.layers.rotary import Rotary, parameters, rotary


def llama(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("attention_bias", False)
    config.only("sliding_window")
    return Style(rms(config.number("rms_norm_eps", 1e-6)), gated(sizes, bias=config.flag("mlp_bias", False)), [None] * sizes.layers,
                 bias=bias, out_bias=bias)


def mistral(config: Config, sizes: Sizes) -> Style:
    config.only("layer_types")
    config.only("attention_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-6)), gated(sizes), [window_of(config, 4096)] * sizes.layers)


def _qwen_windows(config: Config, layers: int) -> list[int | None]:
    config.get("sliding_window")  # in use or not
    window = window_of(config, 4096) if config.flag("use_sliding_window", False) else None
    first = config.size("max_window_layers", 28, least=0)
    return windows(config, [window is not None and layer >= first for layer in range(layers)], window)


def qwen2(config: Config, sizes: Sizes) -> Style:
    return Style(rms(config.number("rms_norm_eps", 1e-6)), gated(sizes), _qwen_windows(config, sizes.layers), bias=True)


def qwen3(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("attention_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-6)), gated(sizes), _qwen_windows(config, sizes.layers), bias=bias, out_bias=bias,
                 normed="heads")


def phi3(config: Config, sizes: Sizes) -> Style:
    config.only("attention_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), gated(sizes, fused=True), [window_of(config, None)] * sizes.layers,
                 split=in_turn, turns=_phi3_turns(config, sizes.size))


def _phi3_turns(config: Config, size: int) -> dict[str, Rotary]:
    fields = parameters(config, 1.0)
    if fields.get("rope_type") in ("su", "yarn"):
        # The names of longrope before it had one.
        fields.fields["rope_type"] = "longrope"
        config.fields.setdefault("original_max_position_embeddings", 4096)
    return {"": rotary(config, fields, size)}


LLAMA = family("llama", "Llama", llama)
MISTRAL = family("mistral", "Mistral", mistral, usual=Usual(groups=8))
QWEN2 = family("qwen2", "Qwen2", qwen2, usual=Usual(groups=32))
# Qwen3's heads have a size of their own by default.
QWEN3 = family("qwen3", "Qwen3", qwen3, usual=Usual(size=128, groups=32))
PHI3 = family("phi3", "Phi3", phi3, without=("question-answering",))
