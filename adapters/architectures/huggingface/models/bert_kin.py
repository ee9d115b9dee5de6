"""Encoders that differ from BERT and RoBERTa in a few places: where norms are, how wide words are, what is added to them."""

from __future__ import annotations

from dataclasses import replace

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.bidirectional import (
    BERT_HEADS,
    LAYER,
    LIKE_BERT,
    LIKE_ROBERTA,
    NAMES,
    PRETRAINED,
    ROBERTA_HEADS,
    WITH_TYPES,
    WITHOUT_TYPES,
    Lm,
    Style,
    classified_twice,
    family,
)
from adapters.architectures.huggingface.layers.causal import Sizes, Usual, layer_norm, plain
from adapters.architectures.huggingface.layers.decoders import INPUTS
from adapters.architectures.huggingface.layers.encoders import choice_head, taken
from adapters.architectures.huggingface.layers.rotary import angles_of, plain_rotary
from adapters.architectures.huggingface.models.electra import summary
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value

GELU = ACTIVATIONS["gelu"]
ROBERTA_LM = Lm(activation=GELU)


def like_bert(config: Config, sizes: Sizes) -> Style:
    return Style(layer_norm(config.number("layer_norm_eps", 1e-12)), plain(sizes), [None] * sizes.layers, "sum", bias=True, out_bias=True,
                 turned=[None] * sizes.layers, first_norm=True, positions="plain", types=config.size("type_vocab_size", 2))


# Where norms are ---------------------------------------------------------------------------------------------------------


def _norms_before(config: Config, sizes: Sizes, eps: float, *, first_norm: bool, positions: str = "after padding", types: int = 2) -> Style:
    """Norms before each part, and one after the last layer."""
    return Style(layer_norm(config.number("layer_norm_eps", eps)), plain(sizes), [None] * sizes.layers, bias=True, out_bias=True,
                 turned=[None] * sizes.layers, first_norm=first_norm, last_norm=True, types=config.size("type_vocab_size", types),
                 positions="plain" if positions == "plain" else "after padding", lm=Lm() if positions == "plain" else ROBERTA_LM)


def megatron_bert(config: Config, sizes: Sizes) -> Style:
    return _norms_before(config, sizes, 1e-12, first_norm=False, positions="plain")


def roberta_prelayernorm(config: Config, sizes: Sizes) -> Style:
    return _norms_before(config, sizes, 1e-12, first_norm=True)


def xlm_roberta_xl(config: Config, sizes: Sizes) -> Style:
    return _norms_before(config, sizes, 1e-5, first_norm=False, types=1)


MEGATRON_BERT = family("megatron-bert", "MegatronBert", megatron_bert, {**LIKE_BERT, **PRETRAINED}, prefixes=("bert.",), names={
    **NAMES, "attention_norm": f"{LAYER}.attention.ln", "inner_norm": f"{LAYER}.ln", "norm": "encoder.ln"})
ROBERTA_PRELAYERNORM = family("roberta-prelayernorm", "RobertaPreLayerNorm", roberta_prelayernorm, LIKE_ROBERTA,
                              prefixes=("roberta_prelayernorm.",), head_names=ROBERTA_HEADS, inputs=INPUTS, optional=WITHOUT_TYPES, names={
    **NAMES, "attention_norm": f"{LAYER}.attention.LayerNorm", "inner_norm": f"{LAYER}.intermediate.LayerNorm", "norm": "LayerNorm"})
XLM_ROBERTA_XL = family("xlm-roberta-xl", "XLMRobertaXL", xlm_roberta_xl, LIKE_ROBERTA, prefixes=("roberta.",), head_names=ROBERTA_HEADS,
                        inputs=INPUTS, optional=WITHOUT_TYPES, names={
    **NAMES, "attention_norm": f"{LAYER}.attention.self_attn_layer_norm", "inner_norm": f"{LAYER}.LayerNorm", "norm": "encoder.LayerNorm"})


# What words are ----------------------------------------------------------------------------------------------------------


def ernie(config: Config, sizes: Sizes) -> Style:
    """The kind of task may have a vector too."""
    rows = config.size("task_type_vocab_size", 3)

    def added(net: Net, ids: Value, width: int) -> list[Value]:
        given, table = taken(net, "task_type_ids"), net.tensor("tasks", (rows, width))
        return [net.op("select", table, axis=0, index=0) if given is None else net.op("embedding", given, table)]

    style = like_bert(config, sizes)
    return replace(style, added=added) if config.flag("use_task_id", False) else style


def rembert(config: Config, sizes: Sizes) -> Style:
    """Words of one width, a map to the layers', and scores by a table of another width."""
    config.get("tie_word_embeddings")  # which the library does not read
    return replace(like_bert(config, sizes), narrow=config.size("input_embedding_size", 256), lm=Lm(
        width=config.size("output_embedding_size", 1664), biases=(("lm_decoder", "bias"),), tie=None))


def big_bird(config: Config, sizes: Sizes) -> Style:
    """Attention to all words, which its sparse one is too for texts up to a length."""
    bias, longest = config.flag("use_bias", True), None
    blocks, random = config.size("block_size", 64), config.size("num_random_blocks", 3)
    if config.choice("attention_type", {"original_full": False, "block_sparse": True}, "block_sparse"):
        longest = (5 + 2 * random) * blocks
    config.get("sep_token_id")
    return replace(like_bert(config, sizes), bias=bias, longest=longest,
                                        embedded=sizes.width**0.5 if config.flag("rescale_embeddings", False) else None)


ERNIE = family("ernie", "Ernie", ernie, {**LIKE_BERT, **PRETRAINED}, prefixes=("ernie.",), optional=("position_ids", "task_type_ids"),
               names={**NAMES, "tasks": "embeddings.task_type_embeddings"})
def layoutlm(config: Config, sizes: Sizes) -> Style:
    """Where each word lies on the page has vectors: the left, the upper, the right and the lower edge, the height and the width."""
    most = config.size("max_2d_position_embeddings", 1024)

    def added(net: Net, ids: Value, width: int) -> list[Value]:
        tables = {role: net.tensor(role, (most, width)) for role in ("columns", "rows", "heights", "widths")}
        box = taken(net, "bbox")
        if box is None:
            return [net.op("multiply", net.op("select", tables[role], axis=0, index=0), times)
                    for role, times in (("columns", 2.0), ("rows", 2.0), ("heights", 1.0), ("widths", 1.0))]
        left, upper, right, lower = net.b.add("unstack", (box,), {"axis": 2}, names=("left", "upper", "right", "lower"))
        places = (("columns", left), ("rows", upper), ("columns", right), ("rows", lower),
                  ("heights", net.op("subtract", lower, upper)), ("widths", net.op("subtract", right, left)))
        return [net.op("embedding", place, tables[role]) for role, place in places]

    return replace(like_bert(config, sizes), added=added)


LAYOUTLM = family("layoutlm", "LayoutLM", layoutlm, prefixes=("layoutlm.",), without=("multiple-choice",), axes={"bbox": (4,)},
                  inputs=(*WITH_TYPES, "bbox"), names={
    **NAMES, "columns": "embeddings.x_position_embeddings", "rows": "embeddings.y_position_embeddings",
    "heights": "embeddings.h_position_embeddings", "widths": "embeddings.w_position_embeddings"})
def bert_generation(config: Config, sizes: Sizes) -> Style:
    return replace(like_bert(config, sizes), types=0)


BERT_GENERATION = replace(
    family("bert-generation", "BertGeneration", bert_generation, {"feature-extraction": LIKE_BERT["feature-extraction"]},
           prefixes=("bert.",), inputs=INPUTS,
           names={role: name for role, name in NAMES.items() if role not in ("pooler", "types")}),
    tasks={"feature-extraction": "Encoder"})
REMBERT = family("rembert", "RemBert", rembert, prefixes=("rembert.",),
                 names={**NAMES, "projection": "encoder.embedding_hidden_mapping_in"},
                 head_names={"lm_dense": "cls.predictions.dense", "lm_norm": "cls.predictions.LayerNorm",
                             "lm_decoder": "cls.predictions.decoder", "classifier": "classifier", "span": "qa_outputs"})
BIG_BIRD = family("big_bird", "BigBird", big_bird, {**LIKE_BERT, "text-classification": classified_twice(None), "pretraining": PRETRAINED[
    "pretraining"]}, prefixes=("bert.",), names={**NAMES, "pooler": "pooler"}, usual=Usual(activation="gelu_new"),
    without=("question-answering",), head_names={**BERT_HEADS, "classifier_dense": "classifier.dense",
                                                 "classifier_out": "classifier.out_proj"})


# X-MOD (Pfeiffer et al. 2022): a small part for the language, after each layer's other two --------------------------------


def xmod(config: Config, sizes: Sizes) -> Style:
    """The texts are of the language that the config says."""
    languages, language = config.get("languages", ["en_XX"]), config.get("default_language")
    if not isinstance(languages, list) or not isinstance(language, str) or language not in languages or not _is_name(language):
        raise config.refuse("default_language", f"one of {languages}"[:120], language,
                            fix="write the language of the texts into config.json")
    inner = sizes.width // config.size("adapter_reduction_factor", 2)
    own, reused = config.flag("adapter_layer_norm", False), config.flag("adapter_reuse_layer_norm", True)
    normed_first, before = config.flag("ln_before_adapter", True), config.flag("pre_norm", False)
    norm = layer_norm(config.number("layer_norm_eps", 1e-12))

    def adapted(net: Net, x: Value, layer: int) -> Value:
        normed = norm(net, x, "adapter_norm", layer=layer) if own else norm(net, x, "outer_norm", layer=layer) if reused else x
        hidden = net.activation(net.linear(normed, "adapter_in", inner, layer=layer, language=language), sizes.activation)
        return net.op("add", net.linear(hidden, "adapter_out", sizes.width, layer=layer, language=language), normed if normed_first else x)

    def after(net: Net, x: Value, role: str, **places: int) -> Value:
        return norm(net, adapted(net, x, places["layer"]) if role == "outer_norm" else x, role, **places)

    style = replace(like_bert(config, sizes), positions="after padding", lm=ROBERTA_LM)
    if not before:
        return replace(style, norm=after)
    return replace(style, norm=norm, place="before", last_norm=True, followed=lambda net, given, made, layer: adapted(net, made, layer))


def _is_name(text: str) -> bool:
    """Whether a language can be a part of a tensor's name."""
    return text.replace("_", "").replace("-", "").isalnum()


XMOD = family("xmod", "Xmod", xmod, LIKE_ROBERTA, prefixes=("roberta.",), head_names=ROBERTA_HEADS, inputs=INPUTS, optional=WITHOUT_TYPES,
              names={**NAMES, "inner_norm": NAMES["outer_norm"], "norm": "encoder.LayerNorm",
                     "adapter_norm": f"{LAYER}.output.adapter_layer_norm",
                     "adapter_in": f"{LAYER}.output.adapter_modules.{{language}}.dense1",
                     "adapter_out": f"{LAYER}.output.adapter_modules.{{language}}.dense2"},
              leftovers=("encoder.layer.*.output.adapter_modules.*",))


# RoFormer (Su et al. 2021), ESM-2 (Lin et al. 2022): rotary positions of a table, and of frequencies, that the checkpoint has -----


def roformer(config: Config, sizes: Sizes) -> Style:
    if sizes.size % 2:
        raise config.refuse("num_attention_heads", f"heads of an even size of {sizes.width}", sizes.heads)
    narrow = config.optional_size("embedding_size") or sizes.width
    return replace(like_bert(config, sizes), positions="", turned=[""] * sizes.layers, placed=_from_table, interleaved=True,
                                        turned_values=config.flag("rotary_value", False), lm=Lm(width=narrow),
                                        narrow=narrow if narrow != sizes.width else None)


def _from_table(net: Net, ids: Value, sizes: Sizes) -> tuple[Value, Value]:
    """The table has the sines, then the cosines, [rows, size]."""
    table = net.tensor("angles", (net.config.size("max_position_embeddings"), sizes.size))
    rows = net.op("slice", table, axes=(0,), starts=(0,), stops=(ids.shape[1],))
    half = sizes.size // 2
    sine, cosine = net.b.add("split", (rows,), {"sizes": (half, half), "axis": -1}, names=("sine", "cosine"))
    return cosine, sine


def chosen_by_summary(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    choice_head(net, summary(net, x, "last", mapped=False, activation="linear"))


ROFORMER = family("roformer", "RoFormer", roformer, {**LIKE_BERT, "text-classification": classified_twice(None),
                                                     "multiple-choice": chosen_by_summary}, prefixes=("roformer.",), optional=(),
                  names={**{role: name for role, name in NAMES.items() if role not in ("pooler", "positions")},
                         "angles": "encoder.embed_positions", "projection": "embeddings_project"},
                  head_names={**BERT_HEADS, "classifier_dense": "classifier.dense", "classifier_out": "classifier.out_proj",
                              "summary": "sequence_summary.summary"})


def esm(config: Config, sizes: Sizes) -> Style:
    """Words that are to be guessed are zeros, and the others grow by how many fewer they are than in training."""
    config.only("is_folding_model", False)
    for name in ("esmfold_config", "vocab_list", "rope_theta", "mask_token_id", "max_position_embeddings"):
        config.get(name)  # of a model of another kind, of the tokenizer, and what not every model has
    config.only("hidden_act", "gelu")
    turned = config.get("position_embedding_type", "absolute") == "rotary"
    if turned and (sizes.size % 2 or sizes.size < 2):
        raise config.refuse("num_attention_heads", f"heads of an even size of {sizes.width}", sizes.heads)
    dropped = config.flag("token_dropout", False)
    masked = config.size("mask_token_id", least=0) if dropped else 0
    return Style(layer_norm(config.number("layer_norm_eps", 1e-12)), plain(sizes), [None] * sizes.layers, bias=True, out_bias=True,
                 turned=[""] * sizes.layers if turned else [None] * sizes.layers, placed=_from_frequencies if turned else None,
                 positions="" if turned else "after padding", first_norm=config.flag("emb_layer_norm_before", False), last_norm=True,
                 wording=(lambda net, ids, x: _thinned(net, ids, x, masked)) if dropped else None, masked=True,
                 lm=Lm(activation=GELU, biases=(("lm_bias", ""),)))


# The share of words that were hidden in training.
HIDDEN = 0.15 * 0.8


def _thinned(net: Net, ids: Value, x: Value, masked: int) -> Value:
    hidden = net.op("equal", ids, masked)
    count = net.op("sum", net.cast(hidden), axis=(1,), keepdims=True)
    mask = taken(net, "attention_mask")
    length = (net.op("full", shape=(), fill_value=ids.shape[1], dtype=net.dtype) if mask is None
              else net.op("sum", net.cast(mask), axis=(1,), keepdims=True))
    kept = net.op("subtract", 1.0, net.op("divide", count, length))
    x = net.op("multiply", net.op("where", net.op("expand_dims", hidden, axis=(2,)), 0.0, x), 1 - HIDDEN)
    return net.op("divide", x, net.op("expand_dims", kept, axis=(2,)))


def _from_frequencies(net: Net, ids: Value, sizes: Sizes) -> tuple[Value, Value]:
    """Of a tensor that files have once, or in every layer; without one they are those of `rope_theta`."""
    role = next((name for name in FREQUENCIES if net.has(name, "inv_freq", layer=0)), None)
    if role is not None:
        found = net.tensor(role, (sizes.size // 2,), "inv_freq", layer=0)
    else:
        base = net.config.number("rope_theta", 10000.0, above=0)
        found = net.constant(f"{net.prefix}inv_freq", plain_rotary(sizes.size, base).frequencies)
    return angles_of(net, found, 0, ids.shape[1], taken(net, "position_ids"))


OF_LAYER = "attention.self.rotary_embeddings"
# Some versions of the library write the star.
FREQUENCIES = {"frequencies": "rotary_embeddings",
               "starred_frequencies": f"encoder.layer.*.{OF_LAYER}",
               "layer_frequencies": f"{LAYER}.{OF_LAYER}"}
ESM = family("esm", "Esm", esm, LIKE_ROBERTA, prefixes=("esm.",), without=("question-answering", "multiple-choice"), inputs=INPUTS,
             usual=Usual(activation="gelu", bounded=False), head_names=ROBERTA_HEADS, names={
    **NAMES, "first_norm": "embeddings.layer_norm", "attention_norm": f"{LAYER}.attention.LayerNorm", "inner_norm": f"{LAYER}.LayerNorm",
    "norm": "encoder.emb_layer_norm_after", **FREQUENCIES},
    leftovers=("contact_head.*", "embeddings.position_embeddings.*", f"encoder.layer.*.{OF_LAYER}.inv_freq"))
