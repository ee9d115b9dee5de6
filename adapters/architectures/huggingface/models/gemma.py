"""Gemma (Gemma Team 2024, 2025): words scaled by the root of the width, norms that count from one.

Gemma 2 has norms around each part, bounded scores, and every other layer a window; Gemma 3 norms its heads, and its layers
with a window have rotary positions of their own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Sizes, Style, Usual, family, gated, rms_from_one
from adapters.architectures.huggingface.layers.decoders import window_of, windows
from adapters.architectures.huggingface.layers.rotary import parameters_by_type, rotary
from adapters.architectures.huggingface.models.llama_kin import ONLY_WORDS


def gemma(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("attention_bias", False)
    config.get("hidden_activation")  # of some old configs, which the library does not read
    config.only("sliding_window")
    return Style(rms_from_one(config.number("rms_norm_eps", 1e-6)), gated(sizes), [None] * sizes.layers, bias=bias, out_bias=bias,
                 embedded=float(np.float32(sizes.width**0.5)), tie=True)


def _bounded(config: Config, sizes: Sizes, usual: list[bool], caps: tuple[float | None, float | None]) -> Style:
    """Norms around each part, and bounds of the scores that are `caps` by default."""
    bias, scale = config.flag("attention_bias", False), config.number("query_pre_attn_scalar", 256, above=0) ** -0.5
    cap, last_cap = (None if config.get(name, value) is None else config.number(name, value, above=0)
                     for name, value in zip(("attn_logit_softcapping", "final_logit_softcapping"), caps, strict=True))
    config.get("hidden_act")  # an older name, which the library does not read
    config.get("cache_implementation")
    return Style(rms_from_one(config.number("rms_norm_eps", 1e-6)), gated(sizes), windows(config, usual, window_of(config, 4096)),
                 "around", bias=bias, out_bias=bias, scale=scale, cap=cap, last_cap=last_cap,
                 embedded=float(np.float32(sizes.width**0.5)), tie=True)


def gemma2(config: Config, sizes: Sizes) -> Style:
    return _bounded(config, sizes, [layer % 2 == 0 for layer in range(sizes.layers)], (50.0, 30.0))


def gemma3(config: Config, sizes: Sizes) -> Style:
    config.only("attn_logit_softcapping")  # which the library has a field for, and leaves out
    config.get("_sliding_window_pattern")  # what the library keeps beside the layers' types
    every = config.size("sliding_window_pattern", 6)
    style = _bounded(config, sizes, [(layer + 1) % every != 0 for layer in range(sizes.layers)], (None, None))
    kinds = {"full_attention": ("rope_theta", 1e6), "sliding_attention": ("rope_local_base_freq", 10000.0)}
    turned = ["full_attention" if window is None else "sliding_attention" for window in style.windows]
    turns = {name: rotary(config, fields, sizes.size) for name, fields in parameters_by_type(config, kinds).items() if name in turned}
    return replace(style, normed="heads", turns=turns, turned=turned)


def vaultgemma(config: Config, sizes: Sizes) -> Style:
    """Gemma 2 without the norms after each part."""
    return replace(gemma2(config, sizes), place="before")


USUAL = Usual(size=256, groups=4, activation="gelu_pytorch_tanh", activation_field="hidden_activation")
AROUND = {"attention_out_norm": "layers.{layer}.post_attention_layernorm", "inner_norm": "layers.{layer}.pre_feedforward_layernorm",
          "outer_norm": "layers.{layer}.post_feedforward_layernorm"}

# The first Gemma's "gelu" is the approximation by tanh too.
GEMMA = family("gemma", "Gemma", gemma, without=("question-answering",),
               usual=Usual(size=256, groups=16, activation="gelu_pytorch_tanh", meant={"gelu": "gelu_pytorch_tanh"}))
GEMMA2 = family("gemma2", "Gemma2", gemma2, usual=USUAL, names=AROUND, without=("question-answering",))
VAULTGEMMA = family("vaultgemma", "VaultGemma", vaultgemma, usual=USUAL, names={"inner_norm": AROUND["inner_norm"]}, without=ONLY_WORDS)
GEMMA3 = family("gemma3_text", "Gemma3", gemma3, usual=USUAL, names=AROUND, without=("question-answering", "token-classification"),
                endings={"feature-extraction": "TextModel", "text-classification": "TextForSequenceClassification"})
