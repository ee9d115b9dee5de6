"""Encoders with rotary positions: ModernBERT, EuroBERT, Nomic BERT, Jina embeddings 3, GTE."""

from __future__ import annotations

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers import bidirectional, causal
from adapters.architectures.huggingface.layers.bidirectional import (
    BERT_HEADS,
    LIKE_BERT,
    LIKE_ROBERTA,
    ROBERTA_HEADS,
    WITHOUT_TYPES,
    Head,
    Lm,
    Style,
    family,
    mean,
)
from adapters.architectures.huggingface.layers.causal import Feed, Norm, Sizes, Usual, gated, in_turn, layer_norm, plain, rms
from adapters.architectures.huggingface.layers.decoders import INPUTS, windows
from adapters.architectures.huggingface.layers.encoders import choice_head, spans, taken
from adapters.architectures.huggingface.layers.rotary import parameters_by_type, rotary
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value

GELU = ACTIVATIONS["gelu"]
BIAS = (("lm_decoder", "bias"),)


# ModernBERT (Warner et al. 2024) -----------------------------------------------------------------------------------------

POOLED = {"cls": False, "mean": True}


def modernbert(config: Config, sizes: Sizes) -> Style:
    """Norms before each part but the first, and windows in two layers of three, which have rotary positions of their own."""
    for name in ("layer_norm_eps", "reference_compile", "repad_logits_with_grad", "deterministic_flash_attn", "sparse_prediction",
                 "sparse_pred_ignore_index", "classifier_pooling"):
        config.get(name)  # of training and its kernels, of a head; and a name of old files that nothing reads
    config.only("rope_scaling")
    every, window = config.size("global_attn_every_n_layers", 3), config.size("local_attention", 128, least=0) // 2
    spans = windows(config, [layer % every != 0 for layer in range(sizes.layers)], window)
    kinds = {"full_attention": ("global_rope_theta", 160000.0), "sliding_attention": ("local_rope_theta", 10000.0)}
    turned = ["full_attention" if span is None else "sliding_attention" for span in spans]
    turns = {name: rotary(config, fields, sizes.size) for name, fields in parameters_by_type(config, kinds).items() if name in turned}
    bias = config.flag("attention_bias", False)
    return Style(_but_the_first(layer_norm(config.number("norm_eps", 1e-5), config.flag("norm_bias", False))),
                 gated(sizes, bias=config.flag("mlp_bias", False), fused=True), spans, split=in_turn, bias=bias, out_bias=bias,
                 turns=turns, turned=turned, first_norm=True, last_norm=True,
                 lm=Lm(activation=config.choice("classifier_activation", ACTIVATIONS, "gelu"),
                       dense_bias=config.flag("classifier_bias", False), biases=BIAS if config.flag("decoder_bias", True) else ()))


def _but_the_first(norm: Norm) -> Norm:
    """The first layer is given what is normed already."""

    def found(net: Net, x: Value, role: str, **places: int) -> Value:
        return x if role == "attention_norm" and places["layer"] == 0 else norm(net, x, role, **places)

    return found


def modernbert_sizes(config: Config, usual: Usual) -> Sizes:
    """The library divides the width by the heads, whatever a field says."""
    config.only("head_dim")
    config.only("num_key_value_heads")
    return causal.read_sizes(config, usual)


def _through_head(net: Net, x: Value, sizes: Sizes, style: Style) -> Value:
    """A map, an activation and a norm, of words or of a vector of a text."""
    inner = net.linear(x, "lm_dense", sizes.width, bias=style.lm.dense_bias)
    return style.norm(net, net.activation(inner, style.lm.activation or ()), "lm_norm")


def _modern_classified(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    vector = mean(net, x) if net.config.choice("classifier_pooling", POOLED, "cls") else net.first(x)
    net.output("logits", net.linear(_through_head(net, vector, sizes, style), "classifier", net.config.labels()))


def _modern_tagged(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    net.output("logits", net.linear(_through_head(net, x, sizes, style), "classifier", net.config.labels()))


def _modern_answered(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    if net.config.labels() != 2:
        raise net.config.refuse("num_labels", "2 for question answering", net.config.labels())
    spans(net, _through_head(net, x, sizes, style))


def _modern_chosen(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    """The first word that the mask keeps, or the mean."""
    mask = taken(net, "attention_mask")
    if net.config.choice("classifier_pooling", POOLED, "cls"):
        vector = mean(net, x)
    else:
        vector = net.first(x) if mask is None else net.at(x, net.op("argmax", mask, axis=1, keepdims=True))
    choice_head(net, _through_head(net, vector, sizes, style))


BLOCK = "layers.{layer}"
MODERN_NAMES = {
    "words": "embeddings.tok_embeddings", "first_norm": "embeddings.norm", "attention_norm": f"{BLOCK}.attn_norm",
    "query_key_value": f"{BLOCK}.attn.Wqkv", "attention_out": f"{BLOCK}.attn.Wo", "inner_norm": f"{BLOCK}.mlp_norm",
    "gate_up": f"{BLOCK}.mlp.Wi", "down": f"{BLOCK}.mlp.Wo", "norm": "final_norm"}
MODERN_HEADS = {"lm_dense": "head.dense", "lm_norm": "head.norm", "lm_decoder": "decoder", "classifier": "classifier",
                "span": "classifier"}
MODERN: dict[str, Head] = {**LIKE_BERT, "text-classification": _modern_classified, "token-classification": _modern_tagged,
                           "question-answering": _modern_answered, "multiple-choice": _modern_chosen}
MODERNBERT = family("modernbert", "ModernBert", modernbert, MODERN, prefixes=("model.",), names=MODERN_NAMES, head_names=MODERN_HEADS,
                    read=modernbert_sizes, inputs=INPUTS,
                    usual=Usual(activation="gelu", activation_field="hidden_activation"))


# EuroBERT (Boizard et al. 2025) ------------------------------------------------------------------------------------------


def eurobert(config: Config, sizes: Sizes) -> Style:
    """Llama's layers."""
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    for name in ("classifier_pooling", "clf_pooling"):
        config.get(name)  # of a head; and a name of old files that the library does not read
    return Style(rms(config.number("rms_norm_eps", 1e-5)), gated(sizes, bias=mlp_bias), [None] * sizes.layers, bias=bias, out_bias=bias,
                 last_norm=True, lm=Lm(dense=False, biases=BIAS if mlp_bias else (), tie=False))


def _euro_classified(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    """By the first word, by the mean of the words, or by the mean of the words' scores ("late")."""
    pooling = net.config.choice("classifier_pooling", {name: name for name in ("bos", "mean", "late")}, "late")
    vector = net.first(x) if pooling == "bos" else mean(net, x) if pooling == "mean" else x
    inner = net.activation(net.linear(vector, "classifier_dense", sizes.width), GELU)
    scores = net.linear(inner, "classifier", net.config.labels())
    net.output("logits", mean(net, scores) if pooling == "late" else scores)


EUROBERT = family("eurobert", "EuroBert", eurobert, {**LIKE_BERT, "text-classification": _euro_classified}, prefixes=("model.",),
                  names={role: name for role, name in causal.NAMES.items() if role not in ("query_norm", "key_norm")},
                  head_names={"lm_decoder": "lm_head", "classifier_dense": "dense", "classifier": "classifier"},
                  without=("question-answering", "multiple-choice"), inputs=INPUTS, usual=Usual())


# Nomic BERT (Nussbaum et al. 2024), Jina embeddings 3 (Sturua et al. 2024), GTE (Zhang et al. 2024) -----------------------


def _turned_bert(config: Config, feed: Feed, eps: float, types: int, lm: Lm, *, bias: bool = True) -> Style:
    """BERT's norms, and its words without a table of positions; one map to queries, keys and values."""
    return Style(layer_norm(config.number("layer_norm_eps", eps)), feed, [None] * config.size("num_hidden_layers"), "sum", in_turn,
                 bias=bias, out_bias=bias, first_norm=True, types=types, lm=lm)


def nomic_bert(config: Config, sizes: Sizes) -> Style:
    return _turned_bert(config, gated(sizes), 1e-12, config.size("type_vocab_size", 2), Lm(), bias=False)


def jina(config: Config, sizes: Sizes) -> Style:
    return _turned_bert(config, plain(sizes), 1e-5, config.size("type_vocab_size", 1), Lm(activation=GELU))


def gte(config: Config, sizes: Sizes) -> Style:
    """Token types may be none."""
    return _turned_bert(config, _up_first(sizes), 1e-12, config.size("type_vocab_size", 1, least=0), Lm(activation=GELU))


def _up_first(sizes: Sizes) -> Feed:
    """down(activation(gate(x)) · up(x)), up and gate one map; only down has a bias."""

    def feed(net: Net, x: Value, layer: int) -> Value:
        both = net.linear(x, "up_gate", 2 * sizes.inner, bias=False, layer=layer)
        up, gate = net.b.add("split", (both,), {"sizes": (sizes.inner, sizes.inner), "axis": -1}, names=("up", "gate"))
        return net.linear(net.op("multiply", net.activation(gate, sizes.activation), up), "down", sizes.width, layer=layer)

    return feed


# The names that files have; the library's own modules have others.
WORDS = {role: bidirectional.NAMES[role] for role in ("words", "types", "pooler")}
ENCODER = "encoder.layers.{layer}"
NOMIC_NAMES = {
    **WORDS, "first_norm": "emb_ln", "query_key_value": f"{ENCODER}.attn.Wqkv", "attention_out": f"{ENCODER}.attn.out_proj",
    "attention_norm": f"{ENCODER}.norm1", "up": f"{ENCODER}.mlp.fc11", "gate": f"{ENCODER}.mlp.fc12", "down": f"{ENCODER}.mlp.fc2",
    "outer_norm": f"{ENCODER}.norm2"}
JINA_NAMES = {**NOMIC_NAMES, "query_key_value": f"{ENCODER}.mixer.Wqkv", "attention_out": f"{ENCODER}.mixer.out_proj",
              "up": f"{ENCODER}.mlp.fc1"}
GTE_LAYER = "encoder.layer.{layer}"
GTE_NAMES = {
    **WORDS, "first_norm": "embeddings.LayerNorm", "query_key_value": f"{GTE_LAYER}.attention.qkv_proj",
    "attention_out": f"{GTE_LAYER}.attention.o_proj", "attention_norm": f"{GTE_LAYER}.attn_ln", "up_gate": f"{GTE_LAYER}.mlp.up_gate_proj",
    "down": f"{GTE_LAYER}.mlp.down_proj", "outer_norm": f"{GTE_LAYER}.mlp_ln"}
NOMIC_HEADS = {**BERT_HEADS, "lm_norm": "cls.predictions.transform.layer_norm"}
GTE_HEADS = {"lm_dense": "lm_head.dense", "lm_norm": "lm_head.norm", "lm_decoder": "lm_head.decoder", "classifier": "classifier"}
FEW = ("question-answering", "multiple-choice")
NOMIC_BERT = family("nomic_bert", "NomicBert", nomic_bert, prefixes=("nomic_bert.",), names=NOMIC_NAMES, head_names=NOMIC_HEADS,
                    without=FEW, usual=Usual(theta=1000.0))
JINA = family("jina_embeddings_v3", "JinaEmbeddingsV3", jina, LIKE_ROBERTA, prefixes=("roberta.",), without=("multiple-choice",),
              names=JINA_NAMES, head_names=ROBERTA_HEADS, usual=Usual(activation="gelu", theta=20000.0), inputs=INPUTS,
              optional=WITHOUT_TYPES)
GTE = family("gte", "Gte", gte, prefixes=("gte.", "new."), names=GTE_NAMES, head_names=GTE_HEADS, without=FEW,
             usual=Usual(activation="gelu", theta=160000.0), inputs=INPUTS, optional=WITHOUT_TYPES)
