"""GPT-J (Wang 2021) and CodeGen (Nijkamp et al. 2022), rotated in pairs of neighbours; GPT-Neo, GPT-BigCode and BioGPT, with a table."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.causal import Sizes, Style, Usual, by_group, family, layer_norm, plain, read_sizes
from adapters.architectures.huggingface.layers.rotary import plain_rotary
from adapters.architectures.huggingface.models.alibi import CLASSIFIER
from adapters.architectures.huggingface.net import Net
from converter.builder import Value

# CodeGen's projection lies in this many parts, of the machines that it was trained on.
PARTS = 4


def gptj(config: Config, sizes: Sizes) -> Style:
    size = config.size("rotary_dim", 64, least=2)
    if size % 2 or size > sizes.size:
        raise config.refuse("rotary_dim", f"an even number up to {sizes.size}", size)
    return Style(layer_norm(config.number("layer_norm_epsilon", 1e-5)), plain(sizes), [None] * sizes.layers, "beside", lm_bias=True,
                 interleaved=True, turns={"": plain_rotary(size)})


def codegen(config: Config, sizes: Sizes) -> Style:
    if sizes.heads % PARTS:
        raise config.refuse("num_attention_heads", f"a multiple of {PARTS}", sizes.heads)
    return replace(gptj(config, sizes), split=in_parts)


def in_parts(net: Net, x: Value, bias: bool, sizes: Sizes, layer: int) -> tuple[Value, Value, Value]:
    """One projection in some parts: of each part's heads all queries, then all values, then all keys."""
    fused = net.linear(x, "query_key_value", 3 * sizes.heads * sizes.size, bias=bias, layer=layer)
    batch, time, _ = fused.shape
    split = net.op("reshape", fused, shape=(batch, time, PARTS, 3, sizes.heads // PARTS, sizes.size))
    parts = net.b.add("unstack", (net.op("permute_dims", split, axes=(3, 0, 2, 4, 1, 5)),), {"axis": 0}, names=("query", "value", "key"))
    query, value, key = (net.op("reshape", part, shape=(batch, sizes.heads, time, sizes.size)) for part in parts)
    return query, key, value


def gpt_neo(config: Config, sizes: Sizes) -> Style:
    """Scores are not scaled; layers with a window in turn with those without."""
    types = config.get("attention_types", [[["global", "local"], 12]])
    try:
        kinds = list(islice((kind for names, count in types for _ in range(count) for kind in names), sizes.layers + 1))
    except (TypeError, ValueError) as error:
        raise config.refuse("attention_types", '[[["global", "local"], 12]]', types) from error
    if len(kinds) != sizes.layers or any(kind not in ("global", "local") for kind in kinds):
        raise config.refuse("attention_types", f"global or local for each of {sizes.layers} layers", types)
    config.only("attention_layers", kinds)
    window = config.size("window_size", 256)
    return Style(layer_norm(config.number("layer_norm_epsilon", 1e-5)), plain(sizes),
                 [window if kind == "local" else None for kind in kinds], out_bias=True, scale=1.0, learned=0,
                 turned=[None] * sizes.layers, tie=True)


def gpt_bigcode(config: Config, sizes: Sizes) -> Style:
    for name in ("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"):
        config.get(name)  # where to round, not what to compute
    return Style(layer_norm(config.number("layer_norm_epsilon", 1e-5)), plain(sizes), [None] * sizes.layers,
                 split=by_group, bias=True, out_bias=True,
                 scale=None if config.flag("scale_attn_weights", True) else 1.0, learned=0, turned=[None] * sizes.layers, tie=True)


def biogpt(config: Config, sizes: Sizes) -> Style:
    """Its norms keep the library's eps, whatever the config says."""
    config.get("layer_norm_eps")
    embedded = math.sqrt(sizes.width) if config.flag("scale_embedding", True) else None
    return Style(layer_norm(1e-5), plain(sizes), [None] * sizes.layers, bias=True, out_bias=True, embedded=embedded, learned=2,
                 turned=[None] * sizes.layers, tie=True)


def own_heads(config: Config, usual: Usual) -> Sizes:
    """Sizes of a family whose heads share no keys."""
    return _shared(config, read_sizes(config, usual), None)


def bigcode_sizes(config: Config, usual: Usual) -> Sizes:
    return _shared(config, read_sizes(config, usual), 1 if config.flag("multi_query", True) else None)


def _shared(config: Config, found: Sizes, groups: int | None) -> Sizes:
    config.only("num_key_value_heads", groups or found.heads)
    config.only("head_dim", found.width // found.heads)
    return replace(found, groups=groups or found.heads)


USUAL = Usual(activation="gelu_new", activation_field="activation_function", inner="n_inner", times=4)
RENAMED = {"hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer",
           "max_position_embeddings": "n_positions"}
LAYER = "h.{layer}"
NAMES = {"words": "wte", "positions": "wpe", "attention_norm": f"{LAYER}.ln_1", "inner_norm": f"{LAYER}.ln_2", "norm": "ln_f",
         "up": f"{LAYER}.mlp.fc_in", "down": f"{LAYER}.mlp.fc_out", "query_key_value": f"{LAYER}.attn.qkv_proj",
         "attention_out": f"{LAYER}.attn.out_proj",
         **{role: f"{LAYER}.attn.{role[0]}_proj" for role in ("query", "key", "value")}}
INNER = {"up": f"{LAYER}.mlp.c_fc", "down": f"{LAYER}.mlp.c_proj"}
# Masks that older versions saved with the weights.
MASKS = ("h.*.attn.bias", "h.*.attn.masked_bias", "h.*.attn.causal_mask", "h.*.attn.attention.bias", "h.*.attn.attention.masked_bias")

GPTJ = family("gptj", "GPTJ", gptj, usual=USUAL, read=own_heads, names=NAMES, renamed=RENAMED, leftovers=MASKS,
              without=("token-classification",))
CODEGEN = family("codegen", "CodeGen", codegen, usual=USUAL, read=own_heads, names=NAMES, renamed=RENAMED, leftovers=MASKS,
                 without=("text-classification", "token-classification", "question-answering"))
GPT_NEO = family("gpt_neo", "GPTNeo", gpt_neo, usual=replace(USUAL, inner="intermediate_size"), read=own_heads, heads=CLASSIFIER,
                 leftovers=MASKS, renamed={"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
                 names={**NAMES, **INNER, "attention_out": f"{LAYER}.attn.attention.out_proj",
                        **{role: f"{LAYER}.attn.attention.{role[0]}_proj" for role in ("query", "key", "value")}})
GPT_BIGCODE = family("gpt_bigcode", "GPTBigCode", gpt_bigcode, usual=replace(USUAL, activation="gelu_pytorch_tanh"), read=bigcode_sizes,
                     heads=CLASSIFIER, renamed=RENAMED, leftovers=MASKS, without=("question-answering",),
                     names={**NAMES, **INNER, "query_key_value": f"{LAYER}.attn.c_attn", "attention_out": f"{LAYER}.attn.c_proj"})
BIOGPT = family("biogpt", "BioGpt", biogpt, usual=Usual(activation="gelu"), read=own_heads, prefixes=("biogpt.",),
                heads={**CLASSIFIER, "lm_head": "output_projection"}, leftovers=("output_projection.*", "classifier.*"),
                without=("question-answering",),
                names={"positions": "embed_positions", "attention_norm": "layers.{layer}.self_attn_layer_norm",
                       "attention_out": "layers.{layer}.self_attn.out_proj", "inner_norm": "layers.{layer}.final_layer_norm",
                       "up": "layers.{layer}.fc1", "down": "layers.{layer}.fc2", "norm": "layer_norm"})
