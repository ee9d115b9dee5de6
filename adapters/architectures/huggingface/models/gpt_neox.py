"""GPT-NeoX (Black et al. 2022): attention and feed-forward part side by side, a part of each head rotated."""

from __future__ import annotations

from dataclasses import replace

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Sizes, Style, Usual, by_group, family, layer_norm, plain
from adapters.architectures.huggingface.layers.rotary import parameters, rotary
from adapters.architectures.huggingface.models.alibi import CLASSIFIER
from adapters.architectures.huggingface.models.gptj import own_heads

NAMES = {
    "words": "embed_in",
    "query_key_value": "layers.{layer}.attention.query_key_value",
    "attention_out": "layers.{layer}.attention.dense",
    "up": "layers.{layer}.mlp.dense_h_to_4h",
    "down": "layers.{layer}.mlp.dense_4h_to_h",
    "norm": "final_layer_norm",
}


def gpt_neox(config: Config, sizes: Sizes) -> Style:
    config.get("is_decoder")  # which the library does not read
    bias = config.flag("attention_bias", True)
    turns = rotary(config, parameters(config, 0.25, "rotary_emb_base", "rotary_pct"), sizes.size)
    return Style(layer_norm(config.number("layer_norm_eps", 1e-5)), plain(sizes), [None] * sizes.layers,
                 "apart" if config.flag("use_parallel_residual", True) else "before", by_group, bias=bias, out_bias=bias, turns={"": turns})


FAMILY = replace(
    family("gpt_neox", "GPTNeoX", gpt_neox, usual=Usual(activation="gelu"), read=own_heads, names=NAMES, heads=CLASSIFIER,
           prefixes=("gpt_neox.",), leftovers=("layers.*.attention.bias", "layers.*.attention.masked_bias",
                                               "layers.*.attention.rotary_emb.inv_freq", "embed_out.*", "classifier.*")),
    legacy=(("lm_head.weight", "embed_out.weight"),),
)
