"""Attention with linear biases (Press et al. 2021): BLOOM, MPT, and the first Falcon; Falcon's later ones have rotary positions.

A head's scores grow with the position of the key, each head's by a slope of its own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Norm, Sizes, Style, Usual, by_group, family, in_turn, layer_norm, plain
from adapters.architectures.huggingface.layers.decoders import Sequence
from adapters.architectures.huggingface.layers.encoders import taken
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.ir import DType

# A slope is made for each head, and for Falcon a number for each head and place.
MOST_HEADS = 1 << 12
MOST_PLACES = 1 << 17
Slopes = np.ndarray[Any, np.dtype[np.float32]]


def _powers(base: float, exponents: np.ndarray[Any, Any]) -> Slopes:
    """base^exponents, of a float32 base, rounded once."""
    found: Slopes = np.power(np.float64(np.float32(base)), exponents).astype(np.float32)
    return found


def slopes(heads: int) -> Slopes:
    """BLOOM's and Falcon's: powers of 2^(-8 / n) for n heads; for other heads than a power of two, odd powers of 2^(-8 / 2n) after."""
    most = 1 << (heads.bit_length() - 1)
    found = _powers(2 ** -(2 ** -(math.log2(most) - 3)), np.arange(1, 1 + most))
    rest = _powers(2 ** -(2 ** -(math.log2(2 * most) - 3)), np.arange(1, 1 + 2 * (heads - most), 2))
    return np.concatenate([found, rest])


def mpt_slopes(heads: int) -> Slopes:
    """2^(-8 i / n) for the n next power of two; for fewer heads, every other one first."""
    most = 1 << (heads - 1).bit_length()
    found = np.float32(1) / _powers(2, np.arange(1, most + 1, dtype=np.float32) * np.float32(8 / most))
    return found if most == heads else np.concatenate([found[1::2], found[::2]])[:heads]


def key_places(net: Net, words: Sequence) -> Value:
    """How many words that are to be seen come before each key, 0 for those that are not: int64 [batch or 1, past + time]."""
    mask = taken(net, "attention_mask")
    if mask is None:
        return net.op("reshape", net.op("arange", stop=words.total, dtype=DType.INT64), shape=(1, words.total))
    return net.op("multiply", net.op("subtract", net.op("cumulative_sum", mask, axis=1), 1), mask)


def bloom_bias(net: Net, words: Sequence, sizes: Sizes) -> Value:
    """slope · place: [batch, heads, 1, past + time]."""
    places = key_places(net, words)
    steep = net.constant(f"{net.prefix}slopes", slopes(sizes.heads).reshape(sizes.heads, 1, 1))
    places = net.op("reshape", net.cast(places, DType.FLOAT32), shape=(places.shape[0], 1, 1, words.total))
    return net.cast(net.op("multiply", steep, places))


def mpt_bias(net: Net, words: Sequence, sizes: Sizes) -> Value:
    """slope · (the key's position - the last one), whatever the mask says: [heads, 1, past + time]."""
    steep = net.constant(f"{net.prefix}slopes", mpt_slopes(sizes.heads).reshape(sizes.heads, 1, 1))
    return net.cast(net.op("multiply", steep, net.op("arange", start=1 - words.total, stop=1, dtype=DType.FLOAT32)))


def falcon_table(heads: int, rows: int) -> Slopes:
    """slope · place, both rounded to bfloat16, and their product too: [rows, heads]."""
    places, steep = np.arange(rows).astype(ml_dtypes.bfloat16), slopes(heads).astype(ml_dtypes.bfloat16)
    found: Slopes = (places[:, None] * steep).astype(np.float32)
    return found


def falcon_bias(net: Net, words: Sequence, sizes: Sizes) -> Value:
    """slope · place / √size: [batch, heads, 1, past + time]. From a table, since the product is rounded."""
    places = key_places(net, words)
    found = net.op("embedding", places, net.constant(f"{net.prefix}alibi", falcon_table(sizes.heads, words.longest)))
    found = net.op("expand_dims", net.op("permute_dims", net.cast(found), axes=(0, 2, 1)), axis=(2,))
    return net.op("divide", found, math.sqrt(sizes.size))


def bloom(config: Config, sizes: Sizes) -> Style:
    config.only("slow_but_exact", False)
    return Style(layer_norm(config.number("layer_norm_epsilon", 1e-5)), plain(sizes), [None] * sizes.layers, split=by_group,
                 bias=True, out_bias=True, turned=[None] * sizes.layers, biased=bloom_bias, first_norm=True, tie=True,
                 from_norm=config.flag("apply_residual_connection_post_layernorm", False))


def bloom_sizes(config: Config, usual: Usual) -> Sizes:
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if heads > MOST_HEADS:
        raise config.refuse("num_attention_heads", f"at most {MOST_HEADS}", heads)
    if width % heads:
        raise config.refuse("num_attention_heads", f"a divisor of hidden_size, {width}", heads)
    return Sizes(width, config.size("num_hidden_layers"), heads, heads, width // heads, 4 * width, ACTIVATIONS["gelu_new"])


def mpt(config: Config, sizes: Sizes) -> Style:
    """The library has fields for more than it computes: those must have the values that it computes with."""
    given = config.part("attn_config")
    for part, known in ((given, {"alibi": True, "alibi_bias_max": 8, "qk_ln": False, "prefix_lm": False,
                                 "attn_type": "multihead_attention", "attn_uses_sequence_id": False}),
                        (config, {"expansion_ratio": 4, "no_bias": True, "norm_type": "low_precision_layernorm"})):
        for name, value in known.items():
            part.only(name, value)
    config.only("logit_scale")
    for name in ("embedding_fraction", "init_device", "learned_pos_emb"):
        config.get(name)  # of training; and of a table that no model with linear biases has
    clip, scale = (None if given.get(name) in (None, 0) else given.number(name, above=0) for name in ("clip_qkv", "softmax_scale"))
    return Style(layer_norm(config.number("layer_norm_epsilon", 1e-5), bias=False), plain(sizes, bias=False), [None] * sizes.layers,
                 split=in_turn, clip=clip, scale=scale, turned=[None] * sizes.layers, biased=mpt_bias, tie=True)


def mpt_sizes(config: Config, usual: Usual) -> Sizes:
    return replace(bloom_sizes(config, usual), activation=ACTIVATIONS["gelu"])


def falcon(config: Config, sizes: Sizes) -> Style:
    """The first ones add linear biases, the later have rotary positions; the newest have shared keys, and norms for each part."""
    config.get("multi_query")  # which the newer architecture has nothing of
    newer, beside = config.flag("new_decoder_architecture", False), config.flag("parallel_attn", True)
    norms = config.optional_size("num_ln_in_parallel_attn") or (2 if newer else 1)
    if norms > 2 or (norms == 2) != newer and not (newer and norms == 1):
        raise config.refuse("num_ln_in_parallel_attn", "1, or 2 for new_decoder_architecture", norms)
    if newer and not beside:
        raise config.refuse("parallel_attn", "true for new_decoder_architecture", beside)
    if config.flag("alibi", False) and config.size("max_position_embeddings", 2048) > MOST_PLACES:
        raise config.refuse("max_position_embeddings", f"at most {MOST_PLACES}", config.get("max_position_embeddings"))
    bias, eps, alibi = config.flag("bias", False), config.number("layer_norm_epsilon", 1e-5), config.flag("alibi", False)
    return Style(_falcon_norm(eps) if norms == 2 else layer_norm(eps), plain(sizes, bias=bias), [None] * sizes.layers,
                 "before" if not beside else "apart" if norms == 2 else "beside", by_group, bias=bias, out_bias=bias,
                 turned=[None if alibi else ""] * sizes.layers, biased=falcon_bias if alibi else None, tie=True)


def _falcon_norm(eps: float) -> Norm:
    """A layer's norms have other names where there are two side by side."""
    own, names = layer_norm(eps), {"attention_norm": "first_of_two", "inner_norm": "second_of_two"}

    def norm(net: Net, x: Value, role: str, **places: Any) -> Value:
        return own(net, x, names.get(role, role), **places)

    return norm


def falcon_sizes(config: Config, usual: Usual) -> Sizes:
    heads, groups = config.size("num_attention_heads"), config.optional_size("num_kv_heads")
    if not config.flag("new_decoder_architecture", False):
        several = not config.flag("multi_query", True)
        if several:
            config.only("num_kv_heads", heads)
        groups = heads if several else 1
    found = bloom_sizes(config, usual)
    if heads % (groups or heads):
        raise config.refuse("num_kv_heads", f"a divisor of {heads}", groups)
    config.only("head_dim", found.size)
    return replace(found, groups=groups or heads, inner=config.optional_size("ffn_hidden_size") or 4 * found.width,
                   activation=config.choice("activation", ACTIVATIONS, "gelu"))


LAYER = "h.{layer}"
NAMES = {"words": "word_embeddings", "first_norm": "word_embeddings_layernorm", "attention_norm": f"{LAYER}.input_layernorm",
         "first_of_two": f"{LAYER}.ln_attn", "second_of_two": f"{LAYER}.ln_mlp",
         "query_key_value": f"{LAYER}.self_attention.query_key_value", "attention_out": f"{LAYER}.self_attention.dense",
         "inner_norm": f"{LAYER}.post_attention_layernorm", "up": f"{LAYER}.mlp.dense_h_to_4h", "down": f"{LAYER}.mlp.dense_4h_to_h",
         "norm": "ln_f"}
CLASSIFIER = {"token_score": "classifier"}
BLOCK = "blocks.{layer}"

BLOOM = family("bloom", "Bloom", bloom, read=bloom_sizes, usual=Usual(bounded=False), names=NAMES, heads=CLASSIFIER, optional=(),
               renamed={"hidden_size": "n_embed", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"})
FALCON = family("falcon", "Falcon", falcon, read=falcon_sizes, usual=Usual(longest=2048), names=NAMES, heads=CLASSIFIER,
                renamed={"hidden_size": "n_embed"})
MPT = family("mpt", "Mpt", mpt, read=mpt_sizes, heads=CLASSIFIER, optional=(),
             renamed={"hidden_size": "d_model", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers",
                      "max_position_embeddings": "max_seq_len"},
             names={"words": "wte", "attention_norm": f"{BLOCK}.norm_1", "query_key_value": f"{BLOCK}.attn.Wqkv",
                    "attention_out": f"{BLOCK}.attn.out_proj", "inner_norm": f"{BLOCK}.norm_2", "up": f"{BLOCK}.ffn.up_proj",
                    "down": f"{BLOCK}.ffn.down_proj", "norm": "norm_f"})
