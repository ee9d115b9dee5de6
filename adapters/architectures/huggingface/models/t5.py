"""T5 (Raffel et al. 2019), T5 1.1, mT5 (Xue et al. 2020), UMT5 (Chung et al. 2023).

Biases by distance, root mean square norms, scores that are not scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family, Inputs
from adapters.architectures.huggingface.layers.decoders import Sequence
from adapters.architectures.huggingface.layers.distances import LARGEST_DISTANCE, distance_bias
from adapters.architectures.huggingface.layers.encoders import padding_mask, span_head
from adapters.architectures.huggingface.layers.seq2seq import (
    BY_TASK,
    SOURCE,
    TARGET,
    Heads,
    Memory,
    decoder_outputs,
    encoder_outputs,
    last_marked,
    memory,
    shifted,
    source_inputs,
    target,
    tied_words,
)
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed
from converter.ir import DType

BLOCK = "{stack}.block.{layer}.layer.{place}"
NAMES = {
    "words": "shared",
    "encoder_words": "encoder.embed_tokens",
    "decoder_words": "decoder.embed_tokens",
    "distances": "{stack}.block.{layer}.layer.0.SelfAttention.relative_attention_bias",
    "query": f"{BLOCK}.{{attention}}.q",
    "key": f"{BLOCK}.{{attention}}.k",
    "value": f"{BLOCK}.{{attention}}.v",
    "attention_out": f"{BLOCK}.{{attention}}.o",
    "part_norm": f"{BLOCK}.layer_norm",
    "inner": f"{BLOCK}.DenseReluDense.wi",
    "gate": f"{BLOCK}.DenseReluDense.wi_0",
    "up": f"{BLOCK}.DenseReluDense.wi_1",
    "outer": f"{BLOCK}.DenseReluDense.wo",
    "norm": "{stack}.final_layer_norm",
}

HEADS = {
    "lm_head": "lm_head",
    "classifier_dense": "classification_head.dense",
    "classifier_out": "classification_head.out_proj",
    "classifier": "classifier",
    "span": "qa_outputs",
}

LOWEST: Mapping[DType, float] = {
    DType.FLOAT16: float(np.finfo(np.float16).min),
    DType.BFLOAT16: -(2.0 - 2.0**-7) * 2.0**127,
    DType.FLOAT32: float(np.finfo(np.float32).min),
    DType.FLOAT64: float(np.finfo(np.float64).min),
}
SELF, CROSS = "SelfAttention", "EncDecAttention"
ENCODES = ("encoder", "token-classification")


class Layout:
    """What the config says of both stacks. Raises `ConverterError` for what is not known."""

    def __init__(self, config: Config) -> None:
        self.width, self.inner = config.size("d_model"), config.size("d_ff")
        heads, size = config.size("num_heads"), config.size("d_kv")
        self.layers = config.size("num_hidden_layers")
        decoder = config.optional_size("num_decoder_layers")
        self.heads = Heads(self.layers if decoder is None else decoder, heads, size)
        self.eps = config.number("layer_norm_epsilon", 1e-6)
        self.buckets = config.size("relative_attention_num_buckets", 32, least=4)
        self.farthest = config.size("relative_attention_max_distance", 128)
        if not self.buckets // 2 < self.farthest <= LARGEST_DISTANCE:
            raise config.refuse("relative_attention_max_distance", f"{self.buckets // 2 + 1} to {LARGEST_DISTANCE}", self.farthest)
        self.kind = config.get("model_type")
        self.own_distances = self.kind == "umt5"
        given = config.get("feed_forward_proj", "relu" if self.kind == "t5" else "gated-gelu")
        parts = given.split("-") if isinstance(given, str) else []
        if len(parts) not in (1, 2) or len(parts) == 2 and parts[0] != "gated":
            raise config.refuse("feed_forward_proj", "an activation, or gated-…", given)
        self.gated = config.flag("is_gated_act", len(parts) == 2)
        config.get("dense_act_fn")
        self.activation = config.choice("dense_act_fn", ACTIVATIONS, "gelu_new" if given == "gated-gelu" else parts[-1])
        config.only("is_decoder", False)
        config.get("decoder_start_token_id")
        config.get("n_positions")


def build(net: Net, task: str) -> None:
    config, layout = net.config, Layout(net.config)
    rows, width = config.size("vocab_size"), layout.width
    tie = config.flag("tie_word_embeddings", True)
    # What mT5's and UMT5's files say of ties the library does not read: scores of the one are never scaled, of the other always.
    scaled = {"t5": config.flag("scale_decoder_outputs", tie), "mt5": False}.get(layout.kind, True)
    roles = ["words"] + [f"{stack}_words" for stack in ("encoder", "decoder") if stack == "encoder" or task not in ENCODES]
    if task == "text2text-generation" and tie and scaled and layout.kind == "t5":
        roles.append("lm_head")
    tables = tied_words(net, roles, rows, width)
    net.leaves(*({"lm_head.*", "classification_head.*", "classifier.*", "qa_outputs.*"}
                 - {f"{HEADS[role]}.*" for role in _used(task)}))
    project = _projection(net, layout)
    if task == "text2text-generation" and net.cache:
        net.leaves("encoder.*", f"decoder.block.*.{CROSS}.k.weight", f"decoder.block.*.{CROSS}.v.weight")
        words = target(net, None, layout.heads)
        kept = memory(net, None, layout.heads, project)
        x = _decode(net, layout, words, tables["decoder_words"], kept)
        decoder_outputs(net, "logits", _scores(net, x, tables, rows, scaled), words, None)
        return
    ids = source_inputs(net, None)
    encoded = _encode(net, layout, ids, tables["encoder_words"])
    if task in ENCODES:
        net.leaves("decoder.*")
        if task == "encoder":
            encoder_outputs(net, encoded, layout.heads, project)
        else:
            net.output("logits", net.linear(encoded, "classifier", config.labels()))
        return
    moves = task in ("text-classification", "question-answering") and not net.takes(TARGET)
    words = target(net, None, layout.heads, shifted(net, ids, None if layout.kind == "t5" else 0) if moves else None)
    x = _decode(net, layout, words, tables["decoder_words"], memory(net, encoded, layout.heads, project))
    if task == "feature-extraction":
        decoder_outputs(net, "last_hidden_state", x, words, encoded)
    elif task == "text2text-generation":
        decoder_outputs(net, "logits", _scores(net, x, tables, rows, scaled), words, encoded)
    elif task == "text-classification":
        inner = net.op("tanh", net.linear(last_marked(net, ids, x), "classifier_dense", width))
        decoder_outputs(net, "logits", net.linear(inner, "classifier_out", config.labels()), words, encoded)
    else:
        span_head(net, x)
        net.output("encoder_last_hidden_state", encoded)


def _used(task: str) -> tuple[str, ...]:
    """The roles of a task's head."""
    return {"text2text-generation": ("lm_head",), "text-classification": ("classifier_dense", "classifier_out"),
            "token-classification": ("classifier",), "question-answering": ("span",)}.get(task, ())


def _scores(net: Net, x: Value, tables: dict[str, Value], rows: int, scaled: bool) -> Value:
    """[batch, time, vocab]. A checkpoint may have tables of its own for words and scores."""
    if scaled:
        x = net.op("multiply", x, fixed(x.shape[-1]) ** -0.5)
    if "lm_head" in tables:
        return net.op("linear", x, tables["lm_head"])
    own = net.has("lm_head")
    return net.op("linear", x, net.tensor("lm_head", (rows, x.shape[-1])) if own else net.tied("lm_head", tables["words"]))


# Layers ------------------------------------------------------------------------------------------------------------------


def _encode(net: Net, layout: Layout, ids: Value, table: Value) -> Value:
    """[batch, source, width]."""
    x = net.op("embedding", ids, table)
    mask = padding_mask(net)
    biases = _biases(net, layout, "encoder", mask, 0, ids.shape[1])
    for layer in range(layout.layers):
        places: dict[str, Any] = {"stack": "encoder", "layer": layer}
        normed = net.rms_norm(x, "part_norm", layout.eps, place=0, **places)
        query, key, value = (_heads(net, layout, normed, role, attention=SELF, place=0, **places) for role in ("query", "key", "value"))
        x = _attended(net, layout, x, query, key, value, biases(layer), attention=SELF, place=0, **places)
        x = _fed(net, layout, x, f"encoder_layer_{layer}", place=1, **places)
    return net.rms_norm(x, "norm", layout.eps, stack="encoder")


def _decode(net: Net, layout: Layout, words: Sequence, table: Value, kept: Memory) -> Value:
    """[batch, time, width]."""
    x = net.op("embedding", words.ids, table)
    biases = _biases(net, layout, "decoder", words.order(None), words.past, words.total)
    mask = padding_mask(net)
    source = None if mask is None else _biased(net, mask, _number(net, 0.0))
    for layer in range(layout.heads.layers):
        places: dict[str, Any] = {"stack": "decoder", "layer": layer}
        normed = net.rms_norm(x, "part_norm", layout.eps, place=0, **places)
        query, key, value = (_heads(net, layout, normed, role, attention=SELF, place=0, **places) for role in ("query", "key", "value"))
        x = _attended(net, layout, x, query, *words.remember(layer, key, value), biases(layer), attention=SELF, place=0, **places)
        normed = net.rms_norm(x, "part_norm", layout.eps, place=1, **places)
        query = _heads(net, layout, normed, "query", attention=CROSS, place=1, **places)
        x = _attended(net, layout, x, query, kept.part(layer, "key"), kept.part(layer, "value"), source, attention=CROSS, place=1, **places)
        x = _fed(net, layout, x, f"decoder_layer_{layer}", place=2, **places)
    return net.rms_norm(x, "norm", layout.eps, stack="decoder")


def _biases(net: Net, layout: Layout, stack: str, mask: Value | None, start: Any, stop: Any) -> Callable[[int], Value]:
    """What is added to the scores of a layer: of its own table, or of the first layer's."""

    def bias(layer: int) -> Value:
        table = net.tensor("distances", (layout.buckets, layout.heads.count), stack=stack, layer=layer)
        return _biased(net, mask, distance_bias(net, table, layout.buckets, layout.farthest, start, stop, both=stack == "encoder",
                                                name=f"{stack}.distance"))

    if layout.own_distances:
        return bias
    first = bias(0)
    return lambda layer: first


def _lowest(dtype: DType) -> float:
    """What the library adds to scores of what must not be seen: the lowest number, so that who sees nothing sees all alike."""
    return LOWEST[dtype]


def _number(net: Net, value: float) -> Value:
    return net.op("full", shape=(), fill_value=value, dtype=net.dtype)


def _biased(net: Net, mask: Value | None, bias: Value) -> Value:
    return bias if mask is None else net.op("where", mask, bias, _lowest(net.dtype))


def _projection(net: Net, layout: Layout) -> Any:
    """The keys and values of the encoder's result, by layer."""
    return lambda x, role, layer: _heads(net, layout, x, role, stack="decoder", layer=layer, place=1, attention=CROSS)


def _heads(net: Net, layout: Layout, x: Value, role: str, **places: Any) -> Value:
    count, size = layout.heads.count, layout.heads.size
    return net.split_heads(net.linear(x, role, count * size, bias=False, **places), count)


def _attended(net: Net, layout: Layout, x: Value, query: Value, key: Value, value: Value, bias: Value | None, **places: Any) -> Value:
    seen = net.join_heads(net.op("scaled_dot_product_attention", query, key, value, bias, scale=1.0))
    return _bounded(net, net.op("add", x, net.linear(seen, "attention_out", layout.width, bias=False, **places)))


def _fed(net: Net, layout: Layout, x: Value, name: str, **places: Any) -> Value:
    normed = net.rms_norm(x, "part_norm", layout.eps, **places)
    if layout.gated:
        gate = net.activation(net.linear(normed, "gate", layout.inner, bias=False, **places), layout.activation)
        hidden = net.op("multiply", gate, net.linear(normed, "up", layout.inner, bias=False, **places))
    else:
        hidden = net.activation(net.linear(normed, "inner", layout.inner, bias=False, **places), layout.activation)
    return _bounded(net, net.op("add", x, net.linear(hidden, "outer", layout.width, bias=False, **places), name=name))


def _bounded(net: Net, x: Value) -> Value:
    """In float16, infinities become the largest numbers but 1000, as in the library."""
    if net.dtype is not DType.FLOAT16:
        return x
    largest = -_lowest(net.dtype)
    most = net.op("where", net.op("any", net.op("isinf", x)), _number(net, largest - 1000), largest)
    return net.op("maximum", net.op("minimum", x, most), net.op("negative", most))


FAMILY = Family(
    classes={"t5": "T5", "mt5": "MT5", "umt5": "UMT5"},
    names=NAMES,
    heads=HEADS,
    tasks={"feature-extraction": "Model", "text2text-generation": "ForConditionalGeneration", "encoder": "EncoderModel",
           "text-classification": "ForSequenceClassification", "token-classification": "ForTokenClassification",
           "question-answering": "ForQuestionAnswering"},
    build=build,
    prefixes=("transformer.",),
    # A table that older versions saved and none used.
    leftovers=(f"decoder.block.0.layer.1.{CROSS}.relative_attention_bias.weight",),
    renamed={"num_hidden_layers": "num_layers"},
    by_task={**BY_TASK, "token-classification": Inputs(SOURCE)},
    sentences="encoder",
)
