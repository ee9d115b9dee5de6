"""Text encoders of BERT's kind: embeddings, layers that normalise after each residual, and the heads on them.

Vaswani et al. 2017; Devlin et al. 2018. Which roles have which names, a family's table says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed, symbol
from converter.errors import UnsupportedError
from converter.ir import DType

TASKS: Mapping[str, str] = {
    "feature-extraction": "Model",
    "fill-mask": "ForMaskedLM",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "multiple-choice": "ForMultipleChoice",
}

# transformers no longer saves these buffers; older checkpoints hold them.
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
# TensorFlow's names, in checkpoints that were converted long ago.
GAMMA_BETA = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))


def text_inputs(net: Net, longest: int | None, task: str) -> Value:
    """Declares the sizes and the inputs that the graph takes; gives `input_ids`, int64 [batch, time].

    To choose among several texts they are [batch, choices, time], and each choice is a text of its own to the layers.
    """
    several = task == "multiple-choice"
    axes: list[str | int] = ["batch", *(["choices"] if several else []), "time"]
    net.dim("batch", None)
    net.dim("time", longest)
    for name in net.family.inputs + net.family.optional:
        if net.takes(name):
            value = net.b.input(name, DType.INT64, [*axes, *net.family.axes.get(name, ())])
            if several:
                batch, choices, *rest = value.shape
                net.flat[name] = net.op("reshape", value, shape=(batch * choices, *rest))
    found = taken(net, "input_ids")
    if found is None:
        raise UnsupportedError("the model needs the input 'input_ids'", where="take")
    return found


def taken(net: Net, name: str) -> Value | None:
    """An input that the graph may have, choices as texts of their own."""
    if name in net.flat:
        return net.flat[name]
    return Value(name, net.b.specs[name]) if net.takes(name) else None


def refuse_decoder(config: Config, *positions: str) -> None:
    """An encoder that its config makes a decoder computes something else. `positions`: the kinds that are known beside absolute ones."""
    config.only("is_decoder", False)
    config.only("add_cross_attention", False)
    config.only("position_embedding_type", "absolute", *positions)


# Embeddings --------------------------------------------------------------------------------------------------------------


def plain_positions(net: Net, ids: Value, width: int) -> Value:
    """The rows of the position table that belong to the words: [time, width], or [batch, time, width] for given positions."""
    rows = net.config.size("max_position_embeddings")
    table = net.tensor("positions", (rows, width))
    given = taken(net, "position_ids")
    if given is not None:
        return net.op("embedding", given, table)
    return net.op("slice", table, axes=(0,), starts=(0,), stops=(ids.shape[1],), name="positions")


def positions_after_padding(net: Net, ids: Value, width: int, padding: int) -> Value:
    """Positions that count words and not padding, from `padding` + 1 on: RoBERTa's. [batch, time, width]."""
    table = net.tensor("positions", (net.config.size("max_position_embeddings"), width))
    given = taken(net, "position_ids")
    if given is None:
        words = net.cast(net.op("not_equal", ids, padding, name="is_word"), DType.INT64)
        counted = net.op("multiply", net.op("cumulative_sum", words, axis=1), words)
        given = net.op("add", counted, padding, name="position_ids")
    return net.op("embedding", given, table)


def embed(net: Net, ids: Value, width: int, positions: Callable[[], Value], *, types: bool = True, eps: float) -> Value:
    """Word + type + position, normalised: [batch, time, width]."""
    x = net.embedding(ids, "words", net.config.size("vocab_size"), width)
    if types:
        table = net.tensor("types", (net.config.size("type_vocab_size", 2), width))
        given = taken(net, "token_type_ids")
        x = net.op("add", x, net.op("select", table, axis=0, index=0) if given is None else net.op("embedding", given, table))
    return net.layer_norm(net.op("add", x, positions()), "embedding_norm", eps, name="embeddings")


# Layers ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a layer's config says."""

    heads: int
    inner: int
    activation: str
    eps: float


def sizes(config: Config, *, activation: str = "gelu", eps: float | None = None) -> Sizes:
    """The fields that layers need. Raises `ConverterError` where they do not fit each other."""
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if width % heads:
        raise config.refuse("num_attention_heads", f"a divisor of hidden_size, {width}", heads)
    name = config.get("hidden_act", activation)
    config.choice("hidden_act", ACTIVATIONS, activation)
    return Sizes(heads, config.size("intermediate_size"), name, config.number("layer_norm_eps", 1e-12) if eps is None else eps)


def padding_mask(net: Net, name: str = "attention_mask") -> Value | None:
    """bool [batch, 1, 1, time]: which words can be seen, or None where the mask is not taken."""
    mask = taken(net, name)
    if mask is None:
        return None
    batch, time = mask.shape
    return net.op("reshape", net.cast(mask, DType.BOOL), shape=(batch, 1, 1, time), name=f"{name}_visible")


def layer(net: Net, x: Value, mask: Value | None, given: Sizes, name: str | None = None, **places: Any) -> Value:
    """Attention and a feed-forward part, each added to its input and normalised."""
    return feed_forward(net, attended(net, x, x, mask, given, **places), given, name, **places)


def attended(net: Net, x: Value, source: Value, mask: Value | None, given: Sizes,
             roles: Sequence[str] = ("query", "key", "value", "attention_out", "attention_norm"), **places: Any) -> Value:
    """What words see of a source, added to them and normalised."""
    width, (*maps, out, norm) = fixed(x.shape[-1]), roles
    query, key, value = (net.split_heads(net.linear(words, role, width, **places), given.heads)
                         for role, words in zip(maps, (x, source, source), strict=True))
    seen = net.join_heads(net.op("scaled_dot_product_attention", query, key, value, mask))
    return net.layer_norm(net.op("add", net.linear(seen, out, width, **places), x), norm, given.eps, **places)


def feed_forward(net: Net, x: Value, given: Sizes, name: str | None = None, **places: Any) -> Value:
    """Two maps with an activation between, added to the words and normalised."""
    inner = net.activation(net.linear(x, "inner", given.inner, **places), ACTIVATIONS[given.activation])
    outer = net.linear(inner, "outer", fixed(x.shape[-1]), **places)
    return net.layer_norm(net.op("add", outer, x), "outer_norm", given.eps, name=name, **places)


def layers(net: Net, x: Value, mask: Value | None, given: Sizes) -> Value:
    """All layers, one after another."""
    for index in range(net.config.size("num_hidden_layers")):
        x = layer(net, x, mask, given, f"layer_{index}", layer=index)
    return x


# Heads -------------------------------------------------------------------------------------------------------------------


def pooled(net: Net, x: Value) -> Value:
    """tanh of a linear map of the first word: BERT's pooler. [batch, width]."""
    return net.op("tanh", net.linear(net.first(x), "pooler", fixed(x.shape[-1])), name="pooled")


def plain_head(net: Net, x: Value, *, pooler: bool = True) -> None:
    """`last_hidden_state`, and `pooler_output` where the checkpoint has a pooler."""
    net.output("last_hidden_state", x)
    if pooler and net.has("pooler"):
        net.output("pooler_output", pooled(net, x))


def masked_lm_scores(net: Net, x: Value, width: int, activation: str, eps: float) -> Value:
    """A linear map, an activation, a norm, and the product with the word embeddings: [batch, time, vocab]."""
    x = net.layer_norm(net.activation(net.linear(x, "lm_dense", width), ACTIVATIONS[activation]), "lm_norm", eps)
    return word_scores(net, x)


# The bias of words' scores has two names in most families, and checkpoints hold one or both.
BIASES = (("lm_bias", ""), ("lm_decoder", "bias"))


def word_scores(net: Net, x: Value, *, tie: bool | None = True, biases: Sequence[tuple[str, str]] = BIASES,
                narrow: int | None = None) -> Value:
    """The product with the word embeddings, or with a table of its own: [batch, time, vocab].

    narrow: how wide the table is where a second one, [width - narrow, vocab], makes it as wide as x.
    tie: the default of `tie_word_embeddings`; None for models that never do. biases: the roles and endings of the bias, none for no bias.
    """
    vocabulary = net.config.size("vocab_size")
    tied = tie is not None and net.config.flag("tie_word_embeddings", tie)
    words = Value(net.name("words"), net.b.specs[net.name("words")])
    weight = net.tied("lm_decoder", words) if tied else net.tensor("lm_decoder", (vocabulary, narrow or x.shape[-1]))
    if narrow is not None and narrow != x.shape[-1]:
        rest = net.tensor("lm_rest", (x.shape[-1] - narrow, vocabulary))
        weight = net.op("concat", weight, net.op("permute_dims", rest, axes=(1, 0)), axis=1)
    if not biases:
        return net.op("linear", x, weight)
    known = [(role, ending) for role, ending in biases if role in net.family.heads]
    if not tied and net.has(*known[-1]):
        known = known[-1:]  # which is the one that the library adds
    role, ending = next((item for item in known if net.has(*item)), known[0])
    found = net.tensor(role, (vocabulary,), ending)
    for other in known:
        if other != (role, ending):
            net.tied(other[0], found, other[1])
    return net.op("linear", x, weight, found)


def token_head(net: Net, x: Value) -> None:
    """`logits` of each word."""
    net.output("logits", net.linear(x, "classifier", net.config.labels()))


def span_head(net: Net, x: Value) -> None:
    """`start_logits` and `end_logits`, [batch, time]."""
    if net.config.labels() != 2:
        raise net.config.refuse("num_labels", "2 for question answering", net.config.labels())
    spans(net, x)


def choice_head(net: Net, vectors: Value, role: str = "classifier") -> None:
    """`logits` of the choices, [batch, choices], of one vector for each choice of each batch."""
    scores = net.linear(vectors, role, 1)
    net.output("logits", net.op("reshape", scores, shape=(symbol("batch"), symbol("choices"))))


def spans(net: Net, x: Value) -> None:
    """`start_logits` and `end_logits` of a map to 2 classes."""
    start, end = net.b.add("unstack", (net.linear(x, "span", 2),), {"axis": -1}, names=("start", "end"))
    net.output("start_logits", start)
    net.output("end_logits", end)


def two_layer_classifier(net: Net, x: Value, activation: str) -> None:
    """`logits` of a sentence from its first word, through one more layer: RoBERTa's."""
    inner = net.linear(net.first(x), "classifier_dense", fixed(x.shape[-1]))
    inner = net.activation(inner, ACTIVATIONS[activation])
    net.output("logits", net.linear(inner, "classifier_out", net.config.labels()))


def give(net: Net, x: Value, task: str, scores: Callable[[], Value], own: Mapping[str, Callable[[], None]], *, pooler: bool = True,
         chosen: Callable[[], Value] | None = None) -> None:
    """A task's outputs: one of `own`, or what most encoders give.

    scores: those of words; pooler: whether the family has one; chosen: a vector of each choice, default: the pooler's.
    """
    common: Mapping[str, Callable[[], None]] = {
        "feature-extraction": lambda: plain_head(net, x, pooler=pooler),
        "fill-mask": lambda: net.output("logits", scores()),
        "text-classification": lambda: net.output("logits", net.linear(pooled(net, x), "classifier", net.config.labels())),
        "token-classification": lambda: token_head(net, x),
        "multiple-choice": lambda: choice_head(net, pooled(net, x) if chosen is None else chosen()),
        "question-answering": lambda: span_head(net, x),
    }
    {**common, **own}[task]()
