"""BART (Lewis et al. 2020) and mBART (Liu et al. 2020), which normalises before each part and not after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.huggingface.config import Config
from adapters.huggingface.decoders import INPUTS, Sequence, attend, rows_of, sequence
from adapters.huggingface.encoders import spans
from adapters.huggingface.family import CACHED, Family, Inputs
from adapters.huggingface.net import ACTIVATIONS, Net
from adapters.huggingface.seq2seq import (
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
    visible,
)
from converter.builder import Value
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

# The position table has this many rows before the first word's.
OFFSET = 2
EPS = 1e-5
SELF, CROSS = "self_attn", "encoder_attn"
# Fields of older files that the library no longer reads, by model type, with what it computes.
FIXED: Mapping[str, Mapping[str, Any]] = {
    "bart": {"normalize_before": False, "add_final_layer_norm": False, "normalize_embedding": True,
             "static_position_embeddings": False, "extra_pos_embeddings": 2},
    "mbart": {"normalize_before": True, "add_final_layer_norm": True, "normalize_embedding": True,
              "static_position_embeddings": False, "extra_pos_embeddings": 2},
}


@dataclass(frozen=True, slots=True)
class Stack:
    """What the config says of one of the stacks. `before`: norms precede each part; `key_bias`: keys have a bias too."""

    name: str
    layers: int
    heads: int
    inner: int
    activation: tuple[tuple[str, Mapping[str, Any]], ...]
    before: bool
    key_bias: bool = True


def stacks(config: Config, *, before: bool, key_bias: bool = True) -> tuple[Stack, Stack, Heads]:
    """The encoder, the decoder, and the decoder's heads. Raises `ConverterError` where fields do not fit each other."""
    width, found = config.size("d_model"), []
    activation = config.choice("activation_function", ACTIVATIONS, "gelu")
    for name, layers in (("encoder", "num_hidden_layers"), ("decoder", "decoder_layers")):
        heads = config.size(f"{name}_attention_heads")
        if width % heads:
            raise config.refuse(f"{name}_attention_heads", f"a divisor of d_model, {width}", heads)
        found.append(Stack(name, config.size(layers), heads, config.size(f"{name}_ffn_dim"), activation, before, key_bias))
    encoder, decoder = found
    return encoder, decoder, Heads(decoder.layers, decoder.heads, width // decoder.heads)


def build(net: Net, task: str) -> None:
    config = net.config
    kind = str(config.get("model_type"))
    for name, value in FIXED[kind].items():
        config.only(name, value)
    encoder, decoder, heads = stacks(config, before=kind == "mbart")
    rows, width, longest = config.size("vocab_size"), config.size("d_model"), config.size("max_position_embeddings")
    project = projection(net, decoder, width)
    for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id", "is_decoder"):
        config.get(name)
    net.leaves(*(f"{HEADS[role]}*" for role in HEADS if role not in _used(task)))
    tables = _tables(net, task, rows, width)
    if task == "text-generation":
        net.leaves("encoder.*", "shared.*", f"decoder.layers.*.{CROSS}*")
        words = sequence(net, longest, heads.layers, heads.count, heads.size)
        x = _decode(net, decoder, words, tables["decoder_words"], None)
        decoder_outputs(net, "logits", net.op("linear", x, _head(net, tables, rows, width)), words, None)
        return
    if task == "text2text-generation" and net.cache:
        net.leaves("encoder.*", *(f"decoder.layers.*.{CROSS}.{part}_proj.*" for part in "kv"))
        net.dim("source", longest)
        words = target(net, longest, heads)
        x = _decode(net, decoder, words, tables["decoder_words"], memory(net, None, heads, project))
        decoder_outputs(net, "logits", _scores(net, x, tables, rows), words, None)
        return
    ids = source_inputs(net, longest)
    encoded = _encode(net, encoder, ids, tables["encoder_words"])
    if task == "encoder":
        net.leaves("decoder.*")
        encoder_outputs(net, encoded, heads, project)
        return
    given = None if net.takes(TARGET) else _wrapped(net, ids) if kind == "mbart" else shifted(net, ids)
    words = target(net, longest, heads, given)
    x = _decode(net, decoder, words, tables["decoder_words"], memory(net, encoded, heads, project))
    if task == "feature-extraction":
        decoder_outputs(net, "last_hidden_state", x, words, encoded)
    elif task == "text2text-generation":
        decoder_outputs(net, "logits", _scores(net, x, tables, rows), words, encoded)
    elif task == "text-classification":
        inner = net.op("tanh", net.linear(last_marked(net, ids, x), "classifier_dense", width))
        # The class of BART's configs has 3 labels where a file names none.
        decoder_outputs(net, "logits", net.linear(inner, "classifier_out", config.labels(3 if kind == "bart" else 2)), words, encoded)
    else:
        spans(net, x)
        net.output("encoder_last_hidden_state", encoded)


def _used(task: str) -> tuple[str, ...]:
    """The roles of a task's head."""
    return {"text2text-generation": ("lm_head", "lm_bias"), "text-generation": ("lm_head",),
            "text-classification": ("classifier_dense", "classifier_out"), "question-answering": ("span",)}.get(task, ())


def _tables(net: Net, task: str, rows: int, width: int) -> dict[str, Value]:
    """The tables of words: encoder, decoder and scores share one, where the config does not say otherwise."""
    tie = net.config.flag("tie_word_embeddings", True)
    if task == "text-generation":
        return tied_words(net, ["decoder_words"] + ["lm_head"] * tie, rows, width)
    roles = ["words", "encoder_words"] + ["decoder_words"] * (task != "encoder")
    return tied_words(net, roles + ["lm_head"] * (tie and task == "text2text-generation"), rows, width, tie)


def _head(net: Net, tables: dict[str, Value], rows: int, width: int) -> Value:
    return tables["lm_head"] if "lm_head" in tables else net.tensor("lm_head", (rows, width))


def _scores(net: Net, x: Value, tables: dict[str, Value], rows: int) -> Value:
    scores = net.op("linear", x, _head(net, tables, rows, int(x.shape[-1])))  # type: ignore[arg-type]
    # Checkpoints without the offsets have zeros in the library.
    return net.op("add", scores, net.tensor("lm_bias", (1, rows), "")) if net.has("lm_bias", "") else scores


def _wrapped(net: Net, ids: Value) -> Value:
    """mBART's decoder begins with the source's last word, which names its language; the others follow."""
    is_word = net.cast(net.op("not_equal", ids, net.config.size("pad_token_id", 1, least=0)), DType.INT64)
    place = net.op("subtract", net.op("sum", is_word, axis=(1,), keepdims=True), 1)
    begin = net.op("take_along_axis", ids, place, axis=1)
    rest = net.op("slice", ids, axes=(1,), starts=(0,), stops=(ids.shape[1] - 1,))
    return net.op("concat", begin, rest, axis=1, name=TARGET)


# Stacks ------------------------------------------------------------------------------------------------------------------


def _embedded(net: Net, ids: Value, table: Value, stack: str, start: Any, stop: Any) -> Value:
    """Words and positions, normalised: [batch, time, width]."""
    width = int(table.shape[-1])  # type: ignore[arg-type]
    x = net.op("embedding", ids, table)
    if net.config.flag("scale_embedding", False):
        x = net.op("multiply", x, width**0.5)
    places = net.tensor("positions", (net.config.size("max_position_embeddings") + OFFSET, width), stack=stack)
    rows = rows_of(net, places, start, stop, f"{stack}_positions", OFFSET)
    return net.layer_norm(net.op("add", x, rows), "embedding_norm", EPS, stack=stack, name=f"{stack}_embeddings")


def _encode(net: Net, stack: Stack, ids: Value, table: Value) -> Value:
    """[batch, source, width]."""
    x = _embedded(net, ids, table, stack.name, 0, ids.shape[1])
    mask = visible(net)
    for layer in range(stack.layers):
        x = encoder_layer(net, stack, x, mask, layer)
    return net.layer_norm(x, "norm", EPS, stack=stack.name) if stack.before else x


def _decode(net: Net, stack: Stack, words: Sequence, table: Value, kept: Memory | None) -> Value:
    """[batch, time, width]."""
    x = _embedded(net, words.ids, table, stack.name, words.past, words.total)
    mask = None if kept is None else visible(net)
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
    width = int(x.shape[-1])  # type: ignore[arg-type]
    places: dict[str, Any] = {"stack": stack.name, "layer": layer, "attention": SELF}
    normed = net.layer_norm(x, "attention_norm", EPS, **places) if stack.before else x
    query, key, value = (heads_of(net, stack, normed, role, width, **places) for role in ("query", "key", "value"))
    seen = net.join_heads(net.op("scaled_dot_product_attention", query, key, value, mask))
    x = _added(net, stack, x, seen, places)
    return _bounded(net, _fed(net, stack, x, layer), always=stack.before)


def decoder_layer(net: Net, stack: Stack, x: Value, words: Sequence, kept: Memory | None, mask: Value | None, layer: int) -> Value:
    """Attention to the words before, to the encoder's result where there is one, and a feed-forward part."""
    width = int(x.shape[-1])  # type: ignore[arg-type]
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
    x = net.op("add", x, net.linear(seen, "attention_out", int(x.shape[-1]), **places))  # type: ignore[arg-type]
    return x if stack.before else net.layer_norm(x, "attention_norm", EPS, **places)


def _fed(net: Net, stack: Stack, x: Value, layer: int) -> Value:
    name = f"{stack.name}_layer_{layer}"
    places: dict[str, Any] = {"stack": stack.name, "layer": layer}
    normed = net.layer_norm(x, "outer_norm", EPS, **places) if stack.before else x
    inner = net.activation(net.linear(normed, "inner", stack.inner, **places), stack.activation)
    outer = net.linear(inner, "outer", int(x.shape[-1]), **places)  # type: ignore[arg-type]
    if stack.before:
        return net.op("add", x, outer, name=name)
    return net.layer_norm(net.op("add", x, outer), "outer_norm", EPS, name=name, **places)


def _bounded(net: Net, x: Value, *, always: bool) -> Value:
    """In float16 no number of an encoder's layer exceeds the largest but 1000, or none does where one would be infinite."""
    if net.dtype is not DType.FLOAT16:
        return x
    clipped = net.op("clip", x, 1000.0 - 65504.0, 65504.0 - 1000.0)
    return clipped if always else net.op("where", net.op("all", net.op("isfinite", x)), x, clipped)


FAMILY = Family(
    classes={"bart": "Bart", "mbart": "MBart"},
    names=NAMES,
    heads=HEADS,
    tasks={"feature-extraction": "Model", "text2text-generation": "ForConditionalGeneration", "text-generation": "ForCausalLM",
           "text-classification": "ForSequenceClassification", "question-answering": "ForQuestionAnswering", "encoder": "Encoder"},
    build=build,
    prefixes=("model.",),
    leftovers=("encoder.version", "decoder.version"),
    renamed={"num_hidden_layers": "encoder_layers"},
    by_task={**BY_TASK, "text-generation": Inputs(INPUTS), "text-generation" + CACHED: Inputs(INPUTS)},
)
