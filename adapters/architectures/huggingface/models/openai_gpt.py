"""GPT (Radford et al. 2018): GPT-2's parts, norms after each."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.decoders import attend, head, head_size, learned_positions, sequence
from adapters.architectures.huggingface.models.gpt2 import fused_heads
from adapters.architectures.huggingface.net import ACTIVATIONS, Net

NAMES = {
    "words": "tokens_embed",
    "positions": "positions_embed",
    "query_key_value": "h.{layer}.attn.c_attn",
    "attention_out": "h.{layer}.attn.c_proj",
    "attention_norm": "h.{layer}.ln_1",
    "inner": "h.{layer}.mlp.c_fc",
    "outer": "h.{layer}.mlp.c_proj",
    "outer_norm": "h.{layer}.ln_2",
}
# The library calls two of them otherwise than elsewhere.
OWN: Mapping[str, Activation] = {"relu": ACTIVATIONS["relu"], "silu": ACTIVATIONS["silu"], "swish": ACTIVATIONS["silu"],
                                 "gelu": ACTIVATIONS["gelu_new"]}


def build(net: Net, task: str) -> None:
    config = net.config
    width, heads, layers = config.size("hidden_size"), config.size("num_attention_heads"), config.size("num_hidden_layers")
    longest, eps, activation = config.size("max_position_embeddings"), config.number("layer_norm_epsilon", 1e-5), config.choice(
        "afn", OWN, "gelu")
    words = sequence(net, longest, layers, heads, head_size(config))
    x = net.op("add", net.embedding(words.ids, "words", config.size("vocab_size"), width), learned_positions(net, words, longest, width),
               name="embeddings")
    for layer in range(layers):
        parts = fused_heads(net, net.transposed_linear(x, "query_key_value", 3 * width, layer=layer), heads)
        seen = net.transposed_linear(attend(net, words, layer, *parts), "attention_out", width, layer=layer)
        x = net.layer_norm(net.op("add", x, seen), "attention_norm", eps, layer=layer)
        hidden = net.activation(net.transposed_linear(x, "inner", 4 * width, layer=layer), activation)
        hidden = net.transposed_linear(hidden, "outer", width, layer=layer)
        x = net.layer_norm(net.op("add", x, hidden), "outer_norm", eps, name=f"layer_{layer}", layer=layer)
    head(net, words, x, task, tie=True)


FAMILY = Family(
    classes={"openai-gpt": "OpenAIGPT"},
    names=NAMES,
    heads={"lm_head": "lm_head", "score": "score"},
    tasks={"feature-extraction": "Model", "text-generation": "LMHeadModel", "text-classification": "ForSequenceClassification"},
    build=build,
    prefixes=("transformer.",),
    leftovers=("h.*.attn.bias", "position_ids", "lm_head.*", "score.*", "multiple_choice_head.*"),
    renamed={"hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer",
             "max_position_embeddings": "n_positions"},
    inputs=("input_ids", "attention_mask"),
    optional=("position_ids",),
)
