"""XLNet (Yang et al. 2019): attention by content, by distance and by whether words are of one segment."""

from __future__ import annotations

import math

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.decoders import UNBOUNDED, Sequence
from adapters.architectures.huggingface.layers.encoders import choice_head, padding_mask, spans, taken, text_inputs, token_head, word_scores
from adapters.architectures.huggingface.models.conformer import shifted
from adapters.architectures.huggingface.models.electra import summary
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.ir import DType

ATTENTION = "layer.{layer}.rel_attn"
NAMES = {
    "words": "word_embedding",
    **{role: f"{ATTENTION}.{name}" for role, name in (
        ("query", "q"), ("key", "k"), ("value", "v"), ("attention_out", "o"), ("places", "r"), ("key_offset", "r_w_bias"),
        ("place_offset", "r_r_bias"), ("segment_offset", "r_s_bias"), ("segments", "seg_embed"), ("attention_norm", "layer_norm"))},
    "up": "layer.{layer}.ff.layer_1",
    "down": "layer.{layer}.ff.layer_2",
    "outer_norm": "layer.{layer}.ff.layer_norm",
}
HEADS = {"lm_decoder": "lm_loss", "summary": "sequence_summary.summary", "projection": "logits_proj", "classifier": "classifier",
         "span": "qa_outputs"}


def build(net: Net, task: str) -> None:
    config = net.config
    width, heads, inner = config.size("d_model", 1024), config.size("n_head", 16), config.size("d_inner", 4096)
    if width % heads or width % 2:
        raise config.refuse("n_head", f"a divisor of d_model, {width}, which is even", heads)
    size, eps = width // heads, config.number("layer_norm_eps", 1e-12)
    config.only("d_head", size)
    config.only("bi_data", False)
    for name in ("mem_len", "reuse_len", "use_mems_eval", "use_mems_train", "untie_r", "start_n_top", "end_n_top",
                 "max_position_embeddings"):
        config.get(name)  # of texts in parts, of training, and of another head
    causal = config.choice("attn_type", {"bi": False, "uni": True}, "bi")
    if causal:
        config.only("same_length", False)
    config.get("same_length")
    activation = config.choice("ff_activation", ACTIVATIONS, "gelu")
    ids = text_inputs(net, None, task)
    seen, time = _seen(net, ids, causal), ids.shape[1]
    places, apart = _places(net, ids, width), _segments(net)
    x = net.embedding(ids, "words", config.size("vocab_size"), width)
    if apart is None:
        net.leaves("layer.*.rel_attn.r_s_bias", "layer.*.rel_attn.seg_embed")

    def mapped(given: Value, role: str, layer: int) -> Value:
        weight = net.op("reshape", net.tensor(role, (width, heads, size), "", layer=layer), shape=(width, width))
        return net.op("matmul", given, weight)

    for layer in range(config.size("n_layer", 24)):
        query, key, value = (net.split_heads(mapped(x, role, layer), heads) for role in ("query", "key", "value"))
        by_key, by_place = (_offset(net, query, role, layer) for role in ("key_offset", "place_offset"))
        distances = net.op("reshape", mapped(places, "places", layer), shape=(2 * time - 1, heads, size))
        scores = shifted(net, net.op("matmul", by_place, net.op("permute_dims", distances, axes=(1, 2, 0))))
        if apart is not None:
            table = net.op("permute_dims", net.tensor("segments", (2, heads, size), "", layer=layer), axes=(1, 2, 0))
            same, other = net.b.add("split", (net.op("matmul", _offset(net, query, "segment_offset", layer), table),),
                                    {"sizes": (1, 1), "axis": 3}, names=("same", "other"))
            scores = net.op("add", scores, net.op("where", apart, other, same))
        scores = net.op("multiply", scores, 1 / math.sqrt(size))
        scores = scores if seen is None else net.op("where", seen, scores, -math.inf)
        made = net.join_heads(net.op("scaled_dot_product_attention", by_key, key, value, scores))
        weight = net.op("reshape", net.tensor("attention_out", (width, heads, size), "", layer=layer), shape=(width, width))
        x = net.layer_norm(net.op("add", net.op("linear", made, weight), x), "attention_norm", eps, layer=layer)
        y = net.activation(net.linear(x, "up", inner, layer=layer), activation)
        x = net.op("add", net.linear(y, "down", width, layer=layer), x)
        x = net.layer_norm(x, "outer_norm", eps, name=f"layer_{layer}", layer=layer)
    _head(net, x, task)


def _head(net: Net, x: Value, task: str) -> None:
    if task == "feature-extraction":
        net.output("last_hidden_state", x)
    elif task == "text-generation":
        net.output("logits", word_scores(net, x, biases=(("lm_decoder", "bias"),)))
    elif task == "text-classification":
        net.output("logits", net.linear(summary(net, x, "last", activation="tanh"), "projection", net.config.labels()))
    elif task == "token-classification":
        token_head(net, x)
    elif task == "multiple-choice":
        choice_head(net, summary(net, x, "last", activation="tanh"), "projection")
    else:
        spans(net, x)


def _offset(net: Net, query: Value, role: str, layer: int) -> Value:
    _, heads, _, size = query.shape
    return net.op("add", query, net.op("reshape", net.tensor(role, (heads, size), "", layer=layer), shape=(heads, 1, size)))


def _seen(net: Net, ids: Value, causal: bool) -> Value | None:
    """bool [batch or 1, 1, time, time]: the words that are no padding, none that is later where `causal`, and each itself."""
    visible, time = padding_mask(net), ids.shape[1]
    if visible is None and not causal:
        return None
    words = Sequence(net, ids, 0, visible, UNBOUNDED)
    seen = words.order(None) if causal else visible
    place = net.op("arange", stop=time, dtype=DType.INT64)
    own = net.op("equal", net.op("reshape", place, shape=(time, 1)), net.op("reshape", place, shape=(1, time)))
    return own if seen is None else net.op("logical_or", seen, own)


def _segments(net: Net) -> Value | None:
    """bool [batch, 1, time, time]: the words that are of another segment."""
    types = taken(net, "token_type_ids")
    if types is None:
        return None
    batch, time = types.shape
    return net.op("not_equal", *(net.op("reshape", types, shape=(batch, 1, *shape)) for shape in ((time, 1), (1, time))))


def _places(net: Net, ids: Value, width: int) -> Value:
    """Sines, then cosines, of each distance from time - 1 to 1 - time: [2 · time - 1, width]."""
    time, most = ids.shape[1], net.config.get("clamp_len", -1)
    if type(most) is not int:
        raise net.config.refuse("clamp_len", "an integer", most)
    steps = net.op("exp", net.op("multiply", net.op("arange", stop=width // 2, dtype=DType.FLOAT32), -2 * math.log(10000) / width))
    place = net.op("negative", net.op("arange", start=1 - time, stop=time, dtype=DType.FLOAT32))
    if most > 0:
        place = net.op("clip", place, -most, most)
    angle = net.op("multiply", net.op("reshape", place, shape=(2 * time - 1, 1)), steps)
    return net.cast(net.op("concat", net.op("sin", angle), net.op("cos", angle), axis=1))


FAMILY = Family(
    classes={"xlnet": "XLNet"},
    names=NAMES,
    heads=HEADS,
    tasks={"feature-extraction": "Model", "text-generation": "LMHeadModel", "text-classification": "ForSequenceClassification",
           "token-classification": "ForTokenClassification", "question-answering": "ForQuestionAnsweringSimple",
           "multiple-choice": "ForMultipleChoice"},
    build=build,
    prefixes=("transformer.",),
    leftovers=("mask_emb", "lm_loss.*", "sequence_summary.*", "logits_proj.*", "classifier.*", "qa_outputs.*"),
    renamed={"hidden_size": "d_model", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    says_type=True,
)
