"""T5Gemma (Zhang et al. 2025): Gemma 2's layers as an encoder, and as a decoder that sees it between attention and feed-forward part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers import causal
from adapters.architectures.huggingface.layers.bidirectional import Words
from adapters.architectures.huggingface.layers.causal import Sizes, Style, frequencies, read_sizes, stack
from adapters.architectures.huggingface.layers.decoders import Sequence, bounded
from adapters.architectures.huggingface.layers.encoders import padding_mask
from adapters.architectures.huggingface.layers.rotary import angles
from adapters.architectures.huggingface.layers.seq2seq import (
    BY_TASK,
    Heads,
    Memory,
    Project,
    decoder_outputs,
    encoder_outputs,
    memory,
    source_inputs,
    target,
)
from adapters.architectures.huggingface.models.gemma import USUAL, gemma2
from adapters.architectures.huggingface.net import Net
from converter.builder import Value

LAYER = "layers.{layer}"
NAMES = {
    **causal.NAMES,
    "attention_norm": f"{LAYER}.pre_self_attn_layernorm",
    "attention_out_norm": f"{LAYER}.post_self_attn_layernorm",
    "inner_norm": f"{LAYER}.pre_feedforward_layernorm",
    "outer_norm": f"{LAYER}.post_feedforward_layernorm",
    **{f"cross_{role}": f"{LAYER}.cross_attn.{name}_proj" for role, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o"))},
    "cross_norm": f"{LAYER}.pre_cross_attn_layernorm",
    "cross_out_norm": f"{LAYER}.post_cross_attn_layernorm",
}
DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
    "max_position_embeddings": 8192}


@dataclass(frozen=True, slots=True)
class Stack:
    """One of the two: its tensors and config, what its layers are like, and how many words it can have."""

    net: Net
    sizes: Sizes
    style: Style
    longest: int

    def run(self, words: Sequence, *, cross: Memory | None = None, seen: Value | None = None) -> Value:
        """What the layers make of the words, normalised: [batch, time, width]. cross, seen: what is seen of the encoder, and its mask."""
        net, style, sizes = self.net, self.style, self.sizes
        if cross is not None:
            style = replace(style, between=lambda net, x, layer: _crossed(net, x, style, sizes, cross, seen, layer))
        places = {name: angles(net, given, words.past, words.total, None, name)
                  for name, given in frequencies(net.config, style, USUAL, sizes).items()}
        x = net.embedding(words.ids, "words", net.config.size("vocab_size"), sizes.width)
        x = net.op("multiply", x, sizes.width**0.5)
        return style.norm(net, stack(net, words, x, style, sizes, places), "norm")


def _stack(net: Net, name: str) -> Stack:
    config = net.config
    fields = config.get(name)
    if not isinstance(fields, dict):
        raise config.refuse(name, "an object", fields)
    given = config.nested(name, fields, DEFAULTS)
    given.only("model_type", "t5_gemma_module")
    for other in ("dropout_rate", "is_decoder", "cross_attention_hidden_size", "layer_norm_eps"):
        given.get(other)  # of training, and what follows from the place
    sizes = read_sizes(given, USUAL)
    return Stack(net.part(NAMES, f"{net.prefix}{name}.", given), sizes, gemma2(given, sizes), given.size("max_position_embeddings"))


def _crossed(net: Net, x: Value, style: Style, sizes: Sizes, cross: Memory, seen: Value | None, layer: int) -> Value:
    """x with what it sees of the encoder's result."""
    query = net.linear(style.norm(net, x, "cross_norm", layer=layer), "cross_query", sizes.heads * sizes.size, bias=style.bias, layer=layer)
    query, key, value = net.split_heads(query, sizes.heads), cross.part(layer, "key"), cross.part(layer, "value")
    found = (net.op("scaled_dot_product_attention", query, key, value, seen, scale=style.scale, enable_gqa=sizes.heads != sizes.groups)
             if style.cap is None else bounded(net, query, key, value, seen, style.scale, style.cap))
    found = net.linear(net.join_heads(found), "cross_out", sizes.width, bias=style.out_bias, layer=layer)
    return net.op("add", x, style.norm(net, found, "cross_out_norm", layer=layer))


def build(net: Net, task: str) -> None:
    config = net.config
    for name in ("vocab_size", "is_encoder_decoder"):
        config.get(name)  # of each of the two
    tie, encoder = config.flag("tie_word_embeddings", True), _stack(net, "encoder")
    if task == "encoder" and not net.cache:
        config.get("decoder")
        net.leaves("decoder.*", "lm_head.*")
        net.output("last_hidden_state", _encoded(net, encoder))
        return
    decoder = _stack(net, "decoder")
    style, sizes = decoder.style, decoder.sizes
    heads = Heads(sizes.layers, sizes.groups, sizes.size)
    if not net.family.heads or task != "text2text-generation":
        net.leaves("lm_head.*")

    def project(encoded: Value, part: str, layer: int) -> Value:
        made = decoder.net.linear(encoded, f"cross_{part}", sizes.groups * sizes.size, bias=style.bias, layer=layer)
        return net.split_heads(made, sizes.groups)

    if task == "encoder":
        net.leaves("decoder.*", "lm_head.*")
        encoder_outputs(net, _encoded(net, encoder), heads, project)
        return
    if net.cache:
        net.leaves("encoder.*", "decoder.layers.*.cross_attn.k_proj.*", "decoder.layers.*.cross_attn.v_proj.*")
    encoded, words, kept = _parts(net, encoder, decoder, heads, project)
    x = decoder.run(words, cross=kept, seen=padding_mask(net))
    if task == "feature-extraction":
        decoder_outputs(net, "last_hidden_state", x, words, encoded)
        return
    name = decoder.net.name("words")
    table = Value(name, net.b.specs[name])
    scores = net.op("linear", x, net.tied("lm_head", table) if tie else net.tensor("lm_head", table.shape))
    if style.last_cap is not None:
        scores = net.op("multiply", net.op("tanh", net.op("divide", scores, style.last_cap)), style.last_cap)
    decoder_outputs(net, "logits", scores, words, encoded)


def _parts(net: Net, encoder: Stack, decoder: Stack, heads: Heads, project: Project) -> tuple[Value | None, Sequence, Memory]:
    """The encoder's result, where it is not another graph's; the decoder's words; and what it has of the encoder."""
    encoded = None if net.cache else _encoded(net, encoder)
    words = target(net, decoder.longest, heads)
    return encoded, words, memory(net, encoded, heads, project)


def _encoded(net: Net, encoder: Stack) -> Value:
    ids = source_inputs(net, encoder.longest)
    return encoder.run(Words(net, ids, 0, padding_mask(net), encoder.longest))


FAMILY = Family(
    classes={"t5gemma": "T5Gemma"},
    names=NAMES,
    heads={"lm_head": "lm_head.out_proj"},
    tasks={"feature-extraction": "Model", "text2text-generation": "ForConditionalGeneration", "encoder": "EncoderModel"},
    build=build,
    prefixes=("model.",),
    leftovers=("*rotary_emb.inv_freq",),
    by_task={task: given for task, given in BY_TASK.items() if task not in ("text-classification", "question-answering")},
)
