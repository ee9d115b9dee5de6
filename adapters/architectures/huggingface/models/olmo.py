"""OLMo (Groeneveld et al. 2024): norms without parameters; OLMo 2 and 3 have norms after each part, and of all queries and keys.

OLMo 3 has windows by layer, and scales the rotary positions of the others alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Sizes, Style, family, gated, rms
from adapters.architectures.huggingface.layers.decoders import window_of, windows
from adapters.architectures.huggingface.layers.rotary import parameters_by_type, rotary
from adapters.architectures.huggingface.models.llama_kin import AFTER
from adapters.architectures.huggingface.net import Net
from converter.builder import Value

EPS = 1e-5


def bare_norm(net: Net, x: Value, role: str, **places: Any) -> Value:
    """(x - mean) / √(variance + eps)."""
    return net.op("layer_norm", x, None, None, normalized_shape=(x.shape[-1],), eps=EPS)


def clip_of(config: Config) -> float | None:
    """`clip_qkv`."""
    return None if config.get("clip_qkv") is None else config.number("clip_qkv", above=0)


def olmo(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("attention_bias", False)
    return Style(bare_norm, gated(sizes), [None] * sizes.layers, bias=bias, out_bias=bias, clip=clip_of(config))


def olmo2(config: Config, sizes: Sizes) -> Style:
    bias = config.flag("attention_bias", False)
    return Style(rms(config.number("rms_norm_eps", 1e-5)), gated(sizes), [None] * sizes.layers, "after", bias=bias, out_bias=bias,
                 normed="projection")


def olmo3(config: Config, sizes: Sizes) -> Style:
    spans = windows(config, [(layer + 1) % 4 != 0 for layer in range(sizes.layers)], window_of(config, 4096))
    # An older config's base is of the layers without a window: the library leaves the others theirs.
    kinds = {"full_attention": ("rope_theta", 5e5), "sliding_attention": ("", 5e5)}
    turned = ["full_attention" if window is None else "sliding_attention" for window in spans]
    turns = {name: rotary(config, fields, sizes.size) for name, fields in parameters_by_type(config, kinds).items() if name in turned}
    return replace(olmo2(config, sizes), windows=spans, turns=turns, turned=turned)


OLMO = family("olmo", "Olmo", olmo, without=("token-classification", "question-answering"))
OLMO2 = family("olmo2", "Olmo2", olmo2, names=AFTER, without=("token-classification", "question-answering"))
OLMO3 = family("olmo3", "Olmo3", olmo3, names=AFTER, without=("token-classification", "question-answering"))
