"""BART (Lewis et al. 2020) and its kin: mBART (Liu et al. 2020), PLBART, Marian, Pegasus, M2M100, Blenderbot.

They differ in where norms are, and in their positions; a `Kind` says how.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import CACHED, Family, Inputs
from adapters.architectures.huggingface.layers.decoders import INPUTS, Sequence, attend, rows_of, sequence
from adapters.architectures.huggingface.layers.encoders import padding_mask, spans
from adapters.architectures.huggingface.layers.seq2seq import (
    BY_TASK,
    TARGET,
    Heads,
    Memory,
    Project,
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

LAYER = "{stack}.layers.{layer}"
LAYERS = {
    "query": f"{LAYER}.{{attention}}.q_proj",
    "key": f"{LAYER}.{{attention}}.k_proj",
    "value": f"{LAYER}.{{attention}}.v_proj",
    "attention_out": f"{LAYER}.{{attention}}.out_proj",
    "attention_norm": f"{LAYER}.{{attention}}_layer_norm",
    "inner": f"{LAYER}.fc1",
    "outer": f"{LAYER}.fc2",
    "outer_norm": f"{LAYER}.final_layer_norm",
    "norm": "{stack}.layer_norm",
}
NAMES = {
    **LAYERS,
    "words": "shared",
    "encoder_words": "encoder.embed_tokens",
    "decoder_words": "decoder.embed_tokens",
    "positions": "{stack}.embed_positions",
    "embedding_norm": "{stack}.layernorm_embedding",
}

HEADS = {
    "lm_head": "lm_head",
    "lm_bias": "final_logits_bias",
    "classifier_dense": "classification_head.dense",
    "classifier_out": "classification_head.out_proj",
    "span": "qa_outputs",
}

EPS = 1e-5
SELF, CROSS = "self_attn", "encoder_attn"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a model type differs.

    before: norms precede each part, and one is after the last layer. normed: words and positions have a norm, or those of the decoder
    before positions are added ("words").
    positions: a learned table; sines and cosines; or those that count words and not padding. offset: rows before the first word's.
    scale, activation, labels: where a config says nothing. wraps: a decoder without words of its own begins with the source's last one.
    """

    before: bool = False
    normed: Literal["", "sum", "words"] = "sum"
    positions: Literal["learned", "sines", "counted"] = "learned"
    offset: int = 2
    scale: bool = False
    activation: str = "gelu"
    labels: int = 2
    wraps: bool = False


KINDS: Mapping[str, Kind] = {
    # The class of BART's configs has 3 labels where a file names none.
    "bart": Kind(labels=3),
    "mbart": Kind(before=True, wraps=True),
    "plbart": Kind(scale=True, wraps=True),
    "marian": Kind(normed="", positions="sines", offset=0),
    "pegasus": Kind(before=True, normed="", positions="sines", offset=0),
    "m2m_100": Kind(before=True, normed="", positions="counted", scale=True, activation="relu"),
    "blenderbot": Kind(before=True, normed="", offset=0),
    "blenderbot-small": Kind(normed="words", offset=0),
}


def _refuse_others(config: Config, kind: Kind) -> None:
    """Fields of older files that the library no longer reads have the values that it computes with."""
    for name, value in {"normalize_before": kind.before, "add_final_layer_norm": kind.before, "normalize_embedding": bool(kind.normed),
                        "static_position_embeddings": kind.positions != "learned"}.items():
        config.only(name, value)
    for name in ("extra_pos_embeddings", "decoder_start_token_id", "eos_token_id", "pad_token_id", "is_decoder"):
        config.get(name)  # the first is of tables whose rows tell it; the others of tasks that not all have


@dataclass(frozen=True, slots=True)
class Stack:
    """What the config says of one of the stacks. `before`: norms precede each part; `key_bias`: keys have a bias too."""

    name: str
    layers: int
    heads: int
    inner: int
    activation: Activation
    before: bool
    key_bias: bool = True


def stacks(config: Config, *, before: bool, key_bias: bool = True, activation: str = "gelu") -> tuple[Stack, Stack, Heads]:
    """The encoder, the decoder, and the decoder's heads. Raises `ConverterError` where fields do not fit each other."""
    width, found = config.size("d_model"), []
    used = config.choice("activation_function", ACTIVATIONS, activation)
    for name, layers in (("encoder", "num_hidden_layers"), ("decoder", "decoder_layers")):
        heads = config.size(f"{name}_attention_heads")
        if width % heads:
            raise config.refuse(f"{name}_attention_heads", f"a divisor of d_model, {width}", heads)
        found.append(Stack(name, config.size(layers), heads, config.size(f"{name}_ffn_dim"), used, before, key_bias))
    encoder, decoder = found
    return encoder, decoder, Heads(decoder.layers, decoder.heads, width // decoder.heads)


def build(net: Net, task: str) -> None:
    config = net.config
    kind = KINDS[str(config.get("model_type"))]
    _refuse_others(config, kind)
    encoder, decoder, heads = stacks(config, before=kind.before, activation=kind.activation)
    rows, width, longest = config.size("vocab_size"), config.size("d_model"), config.size("max_position_embeddings")
    if kind.positions == "counted":
        longest += 1 - config.size("pad_token_id", 1, least=0)
    project = projection(net, decoder, width)
    net.leaves(*(f"{HEADS[role]}*" for role in HEADS if role not in _used(task)))
    tables = _tables(net, task, rows, width)
    if task == "text-generation":
        net.leaves("encoder.*", "shared.*", f"decoder.layers.*.{CROSS}*")
        words = sequence(net, longest, heads.layers, heads.count, heads.size)
        x = _decode(net, kind, decoder, words, tables["decoder_words"], None)
        decoder_outputs(net, "logits", _scores(net, x, tables, offset=False), words, None)
        return
    if task == "text2text-generation" and net.cache:
        net.leaves("encoder.*", *(f"decoder.layers.*.{CROSS}.{part}_proj.*" for part in "kv"))
        net.dim("source", longest)
        words = target(net, longest, heads)
        x = _decode(net, kind, decoder, words, tables["decoder_words"], memory(net, None, heads, project))
        decoder_outputs(net, "logits", _scores(net, x, tables), words, None)
        return
    ids = source_inputs(net, longest)
    encoded = _encode(net, kind, encoder, ids, tables["encoder_words"])
    if task == "encoder":
        net.leaves("decoder.*")
        encoder_outputs(net, encoded, heads, project)
        return
    given = None if net.takes(TARGET) else _wrapped(net, ids) if kind.wraps else shifted(net, ids)
    words = target(net, longest, heads, given)
    x = _decode(net, kind, decoder, words, tables["decoder_words"], memory(net, encoded, heads, project))
    if task == "feature-extraction":
        decoder_outputs(net, "last_hidden_state", x, words, encoded)
    elif task == "text2text-generation":
        decoder_outputs(net, "logits", _scores(net, x, tables), words, encoded)
    elif task == "text-classification":
        inner = net.op("tanh", net.linear(last_marked(net, ids, x), "classifier_dense", width))
        decoder_outputs(net, "logits", net.linear(inner, "classifier_out", config.labels(kind.labels)), words, encoded)
    else:
        spans(net, x)
        net.output("encoder_last_hidden_state", encoded)


def _used(task: str) -> tuple[str, ...]:
    """The roles of a task's head."""
    return {"text2text-generation": ("lm_head", "lm_bias"), "text-generation": ("lm_head",),
            "text-classification": ("classifier_dense", "classifier_out"), "question-answering": ("span",)}.get(task, ())


def _tables(net: Net, task: str, rows: int, width: int) -> dict[str, Value]:
    """The tables of words: encoder, decoder and scores share one, where the config does not say otherwise."""
    config, generates = net.config, task == "text2text-generation"
    tie, target = config.flag("tie_word_embeddings", True), config.optional_size("decoder_vocab_size") or rows
    shared = config.flag("share_encoder_decoder_embeddings", True)
    if target != rows and (shared or task == "text-generation"):
        raise config.refuse("decoder_vocab_size", f"{rows}, as vocab_size", target)
    if task == "text-generation":
        return tied_words(net, ["decoder_words"] + ["lm_head"] * tie, rows, width)
    if not shared:
        found = {} if task == "encoder" else tied_words(net, ["decoder_words"] + ["lm_head"] * (tie and generates), target, width)
        return {"encoder_words": net.tensor("encoder_words", (rows, width)), **found}
    roles = ["words", "encoder_words"] + ["decoder_words"] * (task != "encoder")
    return tied_words(net, roles + ["lm_head"] * (tie and generates), rows, width, tie)


def _scores(net: Net, x: Value, tables: dict[str, Value], *, offset: bool = True) -> Value:
    words = tables["decoder_words"]
    scores = net.op("linear", x, tables["lm_head"] if "lm_head" in tables else net.tensor("lm_head", words.shape))
    # Checkpoints without the offsets have zeros in the library.
    known = offset and net.has("lm_bias", "")
    return net.op("add", scores, net.tensor("lm_bias", (1, words.shape[0]), "")) if known else scores


def _wrapped(net: Net, ids: Value) -> Value:
    """mBART's decoder begins with the source's last word, which names its language; the others follow."""
    is_word = net.cast(net.op("not_equal", ids, net.config.size("pad_token_id", 1, least=0)), DType.INT64)
    place = net.op("subtract", net.op("sum", is_word, axis=(1,), keepdims=True), 1)
    begin = net.op("take_along_axis", ids, place, axis=1)
    rest = net.op("slice", ids, axes=(1,), starts=(0,), stops=(ids.shape[1] - 1,))
    return net.op("concat", begin, rest, axis=1, name=TARGET)


# Stacks ------------------------------------------------------------------------------------------------------------------


def _embedded(net: Net, kind: Kind, ids: Value, table: Value, stack: str, start: Any, stop: Any) -> Value:
    """Words and positions, normalised where the kind has it: [batch, time, width]."""
    width = fixed(table.shape[-1])
    x = net.op("embedding", ids, table)
    first = kind.normed == "words" and stack == "decoder"
    if net.config.flag("scale_embedding", kind.scale) and not first:
        x = net.op("multiply", x, width**0.5)
    if first:
        x = net.layer_norm(x, "embedding_norm", EPS, stack=stack)
    x = net.op("add", x, _positions(net, kind, ids, width, stack, start, stop), name=f"{stack}_embedded")
    return x if first or not kind.normed else net.layer_norm(x, "embedding_norm", EPS, stack=stack, name=f"{stack}_embeddings")


def _positions(net: Net, kind: Kind, ids: Value, width: int, stack: str, start: Any, stop: Any) -> Value:
    """[time, width], or [batch, time, width] where padding has no position."""
    longest, name = net.config.size("max_position_embeddings"), f"{stack}_positions"
    if kind.positions != "learned" and not (width >= 4 and longest * width <= LARGEST_TABLE):
        raise net.config.refuse("max_position_embeddings", f"a table of 4 and up to {LARGEST_TABLE // width} rows", longest)
    if kind.positions == "counted":
        padding = net.config.size("pad_token_id", 1, least=0)
        table = net.constant("sines", counted_sines(longest + kind.offset, width, padding))
        words = net.cast(net.op("not_equal", ids, padding), DType.INT64)
        place = net.op("add", net.op("cumulative_sum", words, axis=1), net.op("full", shape=(), fill_value=start, dtype=DType.INT64))
        return net.cast(net.op("embedding", net.op("add", net.op("multiply", place, words), padding), table, name=name))
    if kind.positions == "sines" and not net.has("positions", stack=stack):
        return net.cast(rows_of(net, net.constant("sines", sines(longest, width)), start, stop, name))
    return rows_of(net, net.tensor("positions", (longest + kind.offset, width), stack=stack), start, stop, name, kind.offset)


Table = np.ndarray[Any, np.dtype[np.float32]]
LARGEST_TABLE = 1 << 26


def sines(rows: int, width: int) -> Table:
    """Sines of place / 10000^(2i / width), then cosines (Vaswani et al. 2017, section 3.5): [rows, width], rounded once."""
    angles = np.arange(rows)[:, None] / np.power(10000, 2 * (np.arange(width) // 2) / width)
    return np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1).astype(np.float32)


def counted_sines(rows: int, width: int, padding: int) -> Table:
    """Sines, then cosines, of place · 10000^(-i / (width / 2 - 1)), angles in float32; nothing for padding: [rows, width]."""
    half, one = width // 2, np.float32
    steps = np.exp((np.arange(half, dtype=np.float32) * one(-math.log(10000) / (half - 1))).astype(np.float64)).astype(np.float32)
    angles = (np.arange(rows, dtype=np.float32)[:, None] * steps).astype(np.float64)
    found = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((rows, width % 2))], axis=1).astype(np.float32)
    found[padding] = 0
    return found


def _encode(net: Net, kind: Kind, stack: Stack, ids: Value, table: Value) -> Value:
    """[batch, source, width]."""
    x = _embedded(net, kind, ids, table, stack.name, 0, ids.shape[1])
    mask = padding_mask(net)
    for layer in range(stack.layers):
        x = encoder_layer(net, stack, x, mask, layer)
    return net.layer_norm(x, "norm", EPS, stack=stack.name) if stack.before else x


def _decode(net: Net, kind: Kind, stack: Stack, words: Sequence, table: Value, kept: Memory | None) -> Value:
    """[batch, time, width]."""
    x = _embedded(net, kind, words.ids, table, stack.name, words.past, words.total)
    mask = None if kept is None else padding_mask(net)
    for layer in range(stack.layers):
        x = decoder_layer(net, stack, x, words, kept, mask, layer)
    return net.layer_norm(x, "norm", EPS, stack=stack.name) if stack.before else x


def heads_of(net: Net, stack: Stack, x: Value, role: str, width: int, /, **places: Any) -> Value:
    """A map of x as [batch, heads, time, size]."""
    return net.split_heads(net.linear(x, role, width, bias=stack.key_bias or role != "key", **places), stack.heads)


def projection(net: Net, stack: Stack, width: int) -> Project:
    """The keys and values that a decoder's layers take of the encoder's result."""
    return lambda x, role, layer: heads_of(net, stack, x, role, width, stack=stack.name, layer=layer, attention=CROSS)


def encoder_layer(net: Net, stack: Stack, x: Value, mask: Value | None, layer: int) -> Value:
    """Attention and a feed-forward part, each added to its input."""
    width = fixed(x.shape[-1])
    places: dict[str, Any] = {"stack": stack.name, "layer": layer, "attention": SELF}
    normed = net.layer_norm(x, "attention_norm", EPS, **places) if stack.before else x
    query, key, value = (heads_of(net, stack, normed, role, width, **places) for role in ("query", "key", "value"))
    seen = net.join_heads(net.op("scaled_dot_product_attention", query, key, value, mask))
    x = _added(net, stack, x, seen, places)
    return _bounded(net, _fed(net, stack, x, layer), always=stack.before)


def decoder_layer(net: Net, stack: Stack, x: Value, words: Sequence, kept: Memory | None, mask: Value | None, layer: int) -> Value:
    """Attention to the words before, to the encoder's result where there is one, and a feed-forward part."""
    width = fixed(x.shape[-1])
    places: dict[str, Any] = {"stack": stack.name, "layer": layer, "attention": SELF}
    normed = net.layer_norm(x, "attention_norm", EPS, **places) if stack.before else x
    query, key, value = (heads_of(net, stack, normed, role, width, **places) for role in ("query", "key", "value"))
    x = _added(net, stack, x, attend(net, words, layer, query, key, value), places)
    if kept is not None:
        places["attention"] = CROSS
        normed = net.layer_norm(x, "attention_norm", EPS, **places) if stack.before else x
        query = heads_of(net, stack, normed, "query", width, **places)
        seen = net.op("scaled_dot_product_attention", query, kept.part(layer, "key"), kept.part(layer, "value"), mask)
        x = _added(net, stack, x, net.join_heads(seen), places)
    return _fed(net, stack, x, layer)


def _added(net: Net, stack: Stack, x: Value, seen: Value, places: dict[str, Any]) -> Value:
    x = net.op("add", x, net.linear(seen, "attention_out", fixed(x.shape[-1]), **places))
    return x if stack.before else net.layer_norm(x, "attention_norm", EPS, **places)


def _fed(net: Net, stack: Stack, x: Value, layer: int) -> Value:
    name = f"{stack.name}_layer_{layer}"
    places: dict[str, Any] = {"stack": stack.name, "layer": layer}
    normed = net.layer_norm(x, "outer_norm", EPS, **places) if stack.before else x
    inner = net.activation(net.linear(normed, "inner", stack.inner, **places), stack.activation)
    outer = net.linear(inner, "outer", fixed(x.shape[-1]), **places)
    if stack.before:
        return net.op("add", x, outer, name=name)
    return net.layer_norm(net.op("add", x, outer), "outer_norm", EPS, name=name, **places)


def _bounded(net: Net, x: Value, *, always: bool) -> Value:
    """In float16 no number of an encoder's layer exceeds the largest but 1000, or none does where one would be infinite."""
    if net.dtype is not DType.FLOAT16:
        return x
    clipped = net.op("clip", x, 1000.0 - 65504.0, 65504.0 - 1000.0)
    return clipped if always else net.op("where", net.op("all", net.op("isfinite", x)), x, clipped)


TASKS = {"feature-extraction": "Model", "text2text-generation": "ForConditionalGeneration", "text-generation": "ForCausalLM",
         "text-classification": "ForSequenceClassification", "question-answering": "ForQuestionAnswering", "encoder": "Encoder"}


def family(classes: Mapping[str, str], without: tuple[str, ...] = (), generator: str = "ForConditionalGeneration") -> Family:
    """A family of this plan. `without`: tasks that the library has no class for."""
    return Family(
        classes=classes,
        names=NAMES,
        heads=HEADS,
        tasks={task: ending for task, ending in {**TASKS, "text2text-generation": generator}.items() if task not in without},
        build=build,
        prefixes=("model.",),
        leftovers=("encoder.version", "decoder.version", "encoder.embed_positions.weights", "decoder.embed_positions.weights"),
        renamed={"num_hidden_layers": "encoder_layers"},
        by_task={**BY_TASK, "text-generation": Inputs(INPUTS), "text-generation" + CACHED: Inputs(INPUTS)},
        says_type="bart" not in classes,
    )


HEADLESS = ("text-classification", "question-answering")
FAMILY = family({"bart": "Bart", "mbart": "MBart"})
PLBART = family({"plbart": "PLBart"}, ("question-answering",))
MARIAN = family({"marian": "Marian"}, HEADLESS, "MTModel")
PEGASUS = family({"pegasus": "Pegasus", "blenderbot": "Blenderbot", "blenderbot-small": "BlenderbotSmall"}, HEADLESS)
M2M_100 = family({"m2m_100": "M2M100"}, (*HEADLESS, "text-generation"))
