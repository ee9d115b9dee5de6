"""LFM2 (Liquid AI 2025): short gated convolutions in most layers, attention in the others."""

from __future__ import annotations

from dataclasses import replace

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Mixer, Sizes, Style, Usual, family, gated, rms
from adapters.architectures.huggingface.layers.decoders import Sequence
from adapters.architectures.huggingface.layers.recurrent import convolved, masked
from adapters.architectures.huggingface.models.llama_kin import ONLY_WORDS
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed


def lfm2(config: Config, sizes: Sizes) -> Style:
    inner = sizes.inner
    if config.flag("block_auto_adjust_ff_dim", True):
        multiple = config.size("block_multiple_of", 256)
        inner = int(config.number("block_ffn_dim_multiplier", 1.0, above=0) * int(2 * inner / 3))
        inner = multiple * ((inner + multiple - 1) // multiple)
    attention = _attention_layers(config, sizes.layers)
    mixer = _convolution(config.size("conv_L_cache", 3, least=2), config.flag("conv_bias", False))
    return Style(rms(config.number("norm_eps", 1e-5)), gated(replace(sizes, inner=inner, activation=ACTIVATIONS["silu"])),
                 [None] * sizes.layers, normed="heads", tie=True,
                 mixers={layer: mixer for layer in range(sizes.layers) if layer not in attention})


def _attention_layers(config: Config, layers: int) -> set[int]:
    """The layers with attention, by `layer_types` or, in older configs, `full_attn_idxs`."""
    types, places = config.get("layer_types"), config.get("full_attn_idxs")
    if types is None:
        found = list(range(layers)) if places is None else places
        if not isinstance(found, list) or any(type(item) is not int for item in found):
            raise config.refuse("full_attn_idxs", "a list of layers", found)
        return set(found)
    if not isinstance(types, list) or len(types) != layers or any(item not in ("conv", "full_attention") for item in types):
        raise config.refuse("layer_types", f"conv or full_attention for each of {layers} layers", types)
    return {layer for layer, item in enumerate(types) if item == "full_attention"}


def _convolution(kernel: int, bias: bool) -> Mixer:
    """out(C · convolved(B · x)), B, C and x one projection."""

    def mixer(net: Net, words: Sequence, x: Value, layer: int) -> Value:
        width = fixed(x.shape[-1])
        fused = net.linear(masked(net, words, x), "conv_in", 3 * width, bias=bias, layer=layer)
        before, after, x = net.b.add("split", (fused,), {"sizes": (width, width, width), "axis": -1}, names=("before", "after", "x"))
        x = net.op("multiply", after, convolved(net, words, net.op("multiply", before, x), kernel, bias, layer))
        return net.linear(x, "conv_out", width, bias=bias, layer=layer)

    return mixer


LAYER = "layers.{layer}"
FAMILY = family("lfm2", "Lfm2", lfm2, usual=Usual(groups=8, theta=1e6), without=ONLY_WORDS,
                renamed={"tie_word_embeddings": "tie_embedding", "intermediate_size": "block_ff_dim"}, names={
                    "attention_norm": f"{LAYER}.operator_norm", "inner_norm": f"{LAYER}.ffn_norm", "norm": "embedding_norm",
                    "gate": f"{LAYER}.feed_forward.w1", "up": f"{LAYER}.feed_forward.w3", "down": f"{LAYER}.feed_forward.w2",
                    "attention_out": f"{LAYER}.self_attn.out_proj", "query_norm": f"{LAYER}.self_attn.q_layernorm",
                    "key_norm": f"{LAYER}.self_attn.k_layernorm", "convolution": f"{LAYER}.conv.conv",
                    "conv_in": f"{LAYER}.conv.in_proj", "conv_out": f"{LAYER}.conv.out_proj"})
