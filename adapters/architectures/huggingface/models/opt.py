"""OPT (Zhang et al. 2022): learned positions that count visible words, the norm before or after each part."""

from __future__ import annotations

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.decoders import (
    OPTIONAL,
    TASKS,
    Sequence,
    attend,
    head,
    head_size,
    learned_positions,
    refuse_encoder,
    sequence,
)
from adapters.architectures.huggingface.layers.encoders import taken
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value

NAMES = {
    "words": "decoder.embed_tokens",
    "positions": "decoder.embed_positions",
    "widen": "decoder.project_in",
    "narrow": "decoder.project_out",
    "query": "decoder.layers.{layer}.self_attn.q_proj",
    "key": "decoder.layers.{layer}.self_attn.k_proj",
    "value": "decoder.layers.{layer}.self_attn.v_proj",
    "attention_out": "decoder.layers.{layer}.self_attn.out_proj",
    "attention_norm": "decoder.layers.{layer}.self_attn_layer_norm",
    "inner": "decoder.layers.{layer}.fc1",
    "outer": "decoder.layers.{layer}.fc2",
    "inner_norm": "decoder.layers.{layer}.final_layer_norm",
    "norm": "decoder.final_layer_norm",
}

HEADS = {"lm_head": "lm_head", "score": "score", "span": "qa_outputs"}

# The position table has this many rows before the first word's.
OFFSET = 2
EPS = 1e-5


def build(net: Net, task: str) -> None:
    config = net.config
    refuse_encoder(config)
    config.only("layer_norm_elementwise_affine", True)
    width, heads, layers = config.size("hidden_size"), config.size("num_attention_heads"), config.size("num_hidden_layers")
    longest, size, inner = config.size("max_position_embeddings"), head_size(config), config.size("ffn_dim")
    narrow, before = config.optional_size("word_embed_proj_dim") or width, config.flag("do_layer_norm_before", True)
    bias, activation = config.flag("enable_bias", True), config.choice("activation_function", ACTIVATIONS, "relu")
    last = before and not config.flag("_remove_final_layer_norm", False)
    words = sequence(net, longest, layers, heads, size)
    x = net.embedding(words.ids, "words", config.size("vocab_size"), narrow)
    if narrow != width:
        x = net.linear(x, "widen", width, bias=False)
    x = net.op("add", x, _positions(net, words, longest + OFFSET, width), name="embeddings")
    for layer in range(layers):
        normed = net.layer_norm(x, "attention_norm", EPS, layer=layer) if before else x
        query, key, value = (net.split_heads(net.linear(normed, role, width, bias=bias, layer=layer), heads)
                             for role in ("query", "key", "value"))
        seen = net.linear(attend(net, words, layer, query, key, value), "attention_out", width, bias=bias, layer=layer)
        x = net.op("add", x, seen)
        x = x if before else net.layer_norm(x, "attention_norm", EPS, layer=layer)
        normed = net.layer_norm(x, "inner_norm", EPS, layer=layer) if before else x
        hidden = net.activation(net.linear(normed, "inner", inner, bias=bias, layer=layer), activation)
        x = net.op("add", x, net.linear(hidden, "outer", width, bias=bias, layer=layer), name=f"layer_{layer}")
        x = x if before else net.layer_norm(x, "inner_norm", EPS, layer=layer)
    if last:
        x = net.layer_norm(x, "norm", EPS)
    if narrow != width:
        x = net.linear(x, "narrow", narrow, bias=False)
    head(net, words, x, task, tie=True)


def _positions(net: Net, words: Sequence, rows: int, width: int) -> Value:
    """Where a mask is given, a word's position is the number of visible ones before it; a hidden word has the row before the first."""
    mask = taken(net, "attention_mask")
    if mask is None or net.takes("position_ids"):
        return learned_positions(net, words, rows, width, OFFSET)
    counted = net.op("multiply", net.op("cumulative_sum", mask, axis=1), mask)
    if net.cache:
        counted = net.op("slice", counted, axes=(1,), starts=(words.past,), stops=(None,))
    return net.op("embedding", net.op("add", counted, OFFSET - 1), net.tensor("positions", (rows, width)))


FAMILY = Family(
    classes={"opt": "OPT"},
    names=NAMES,
    heads=HEADS,
    tasks={task: ending for task, ending in TASKS.items() if task != "token-classification"},
    build=build,
    prefixes=("model.",),
    leftovers=("lm_head.*", "score.*", "qa_outputs.*"),
    optional=OPTIONAL,
    caches=True,
)
