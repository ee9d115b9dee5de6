"""GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.decoders import (
    OPTIONAL,
    TASKS,
    attend,
    head,
    head_size,
    learned_positions,
    refuse_encoder,
    sequence,
)
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value

NAMES = {
    "words": "wte",
    "positions": "wpe",
    "attention_norm": "h.{layer}.ln_1",
    "query_key_value": "h.{layer}.attn.c_attn",
    "attention_out": "h.{layer}.attn.c_proj",
    "inner_norm": "h.{layer}.ln_2",
    "inner": "h.{layer}.mlp.c_fc",
    "outer": "h.{layer}.mlp.c_proj",
    "norm": "ln_f",
}

HEADS = {"lm_head": "lm_head", "score": "score", "token_score": "classifier", "span": "qa_outputs"}


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_encoder(config)
    width, heads, layers = config.size("hidden_size"), config.size("num_attention_heads"), config.size("num_hidden_layers")
    longest, size, eps = config.size("max_position_embeddings"), head_size(config), config.number("layer_norm_epsilon", 1e-5)
    inner = config.optional_size("n_inner") or 4 * width
    activation = config.choice("activation_function", ACTIVATIONS, "gelu_new")
    scaled, by_layer = config.flag("scale_attn_weights", True), config.flag("scale_attn_by_inverse_layer_idx", False)
    config.get("reorder_and_upcast_attn")  # where to round, not what to compute
    words = sequence(net, longest, layers, heads, size)
    x = net.op("add", net.embedding(words.ids, "words", config.size("vocab_size"), width), learned_positions(net, words, longest, width),
               name="embeddings")
    for layer in range(layers):
        normed = net.layer_norm(x, "attention_norm", eps, layer=layer)
        query, key, value = fused_heads(net, net.transposed_linear(normed, "query_key_value", 3 * width, layer=layer), heads)
        scale = (size**-0.5 if scaled else 1.0) / (layer + 1 if by_layer else 1)
        seen = attend(net, words, layer, query, key, value, scale=None if scaled and not by_layer else scale)
        x = net.op("add", net.transposed_linear(seen, "attention_out", width, layer=layer), x)
        normed = net.layer_norm(x, "inner_norm", eps, layer=layer)
        hidden = net.activation(net.transposed_linear(normed, "inner", inner, layer=layer), activation)
        x = net.op("add", net.transposed_linear(hidden, "outer", width, layer=layer), x, name=f"layer_{layer}")
    head(net, words, net.layer_norm(x, "norm", eps), task, tie=True)


def fused_heads(net: Net, x: Value, heads: int) -> tuple[Value, Value, Value]:
    """[batch, time, 3 · heads · size], query, key and value side by side, as three of [batch, heads, time, size]."""
    batch, time, width = x.shape
    split = net.op("reshape", x, shape=(batch, time, 3, heads, width // (3 * heads)))
    query, key, value = net.b.add("unstack", (net.op("permute_dims", split, axes=(2, 0, 3, 1, 4)),), {"axis": 0},
                                  names=("query", "key", "value"))
    return query, key, value


FAMILY = Family(
    classes={"gpt2": "GPT2"},
    names=NAMES,
    heads=HEADS,
    tasks={**TASKS, "text-generation": "LMHeadModel"},
    build=build,
    prefixes=("transformer.",),
    # Masks that older versions saved with the weights.
    leftovers=("h.*.attn.bias", "h.*.attn.masked_bias", "lm_head.*", "score.*", "classifier.*", "qa_outputs.*"),
    renamed={"hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer",
             "max_position_embeddings": "n_positions"},
    optional=OPTIONAL,
    caches=True,
)
