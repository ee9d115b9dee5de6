"""Encoders of the plan of `causal`, whose words see those before and after them, with the heads of encoders.

A family says in a `Style` how it differs; its tensors' names are data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers import causal, decoders, encoders
from adapters.architectures.huggingface.layers.causal import Sizes, Usual, frequencies, read_sizes, stack
from adapters.architectures.huggingface.layers.encoders import BUFFERS, GAMMA_BETA, TASKS, padding_mask, taken, text_inputs
from adapters.architectures.huggingface.layers.rotary import angles
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.ir import DType

# BERT's names of the plan's roles.
LAYER = "encoder.layer.{layer}"
NAMES = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "first_norm": "embeddings.LayerNorm",
    "query": f"{LAYER}.attention.self.query",
    "key": f"{LAYER}.attention.self.key",
    "value": f"{LAYER}.attention.self.value",
    "attention_out": f"{LAYER}.attention.output.dense",
    "attention_norm": f"{LAYER}.attention.output.LayerNorm",
    "up": f"{LAYER}.intermediate.dense",
    "down": f"{LAYER}.output.dense",
    "outer_norm": f"{LAYER}.output.LayerNorm",
    "pooler": "pooler.dense",
}
BERT_HEADS = {"lm_dense": "cls.predictions.transform.dense", "lm_norm": "cls.predictions.transform.LayerNorm",
              "lm_decoder": "cls.predictions.decoder", "lm_bias": "cls.predictions.bias", "next_sentence": "cls.seq_relationship",
              "classifier": "classifier", "span": "qa_outputs"}
ROBERTA_HEADS = {"lm_dense": "lm_head.dense", "lm_norm": "lm_head.layer_norm", "lm_decoder": "lm_head.decoder", "lm_bias": "lm_head.bias",
                 "classifier_dense": "classifier.dense", "classifier_out": "classifier.out_proj", "classifier": "classifier",
                 "span": "qa_outputs"}
ENDINGS = {**TASKS, "pretraining": "ForPreTraining", "next-sentence": "ForNextSentencePrediction"}
# The inputs by default, and on demand; of encoders whose one type of words is added as a constant the types are on demand too.
WITH_TYPES = ("input_ids", "attention_mask", "token_type_ids")
WITHOUT_TYPES = ("position_ids", "token_type_ids")



@dataclass(frozen=True, slots=True)
class Lm:
    """How words are scored: by a map to their width, an activation and a norm (`dense`), then by a table.

    width, activation: None for that of the words' vectors, and for that of the layers. dense_bias: of the map; biases: the roles and
    endings that the bias of the scores has.
    tie: the default of `tie_word_embeddings`; None for models whose tables are never one.
    """

    dense: bool = True
    width: int | None = None
    activation: Activation | None = None
    dense_bias: bool = True
    biases: tuple[tuple[str, str], ...] = encoders.BIASES
    tie: bool | None = True


@dataclass(frozen=True, slots=True)
class Style(causal.Style):
    """How an encoder differs from others of this plan, beside what `causal.Style` says; a window is that many words to each side.

    positions: rows of a table, from its first on or counted after padding; "" for none. types: the rows of the table of token types.
    narrow: how wide the words' vectors are where a map brings them to the layers' width. last_norm: after the last layer.
    wording: what becomes of words' vectors before others are added; added: further vectors of words, by their ids and width.
    masked: the words that the mask hides are zeros for the first layer. longest: bounds the words beside `max_position_embeddings`.
    placed: the layers' cosine and sine, where they are not those of the config. pooled: what stands for a whole text.
    """

    positions: Literal["", "plain", "after padding"] = ""
    types: int = 0
    narrow: int | None = None
    last_norm: bool = False
    wording: Callable[[Net, Value, Value], Value] | None = None
    added: Callable[[Net, Value, int], Sequence[Value]] | None = None
    masked: bool = False
    longest: int | None = None
    placed: Callable[[Net, Value, Sizes], tuple[Value, Value]] | None = None
    lm: Lm = Lm()
    pooled: Callable[[Net, Value], Value] = encoders.pooled


class Words(decoders.Sequence):
    """The words of a text, each of which sees those before and after it."""

    def mask(self, window: int | None) -> tuple[Value | None, bool]:
        """A mask, and that no layer is causal. window: how many words a word sees to each side; None for all."""
        return (self.visible if window is None or window >= self.longest - 1 else self.order(window)), False

    def remember(self, layer: int, key: Value, value: Value) -> tuple[Value, Value]:
        """Keys and values as they are: an encoder has no cache."""
        return key, value

    def order(self, window: int | None) -> Value:
        """bool: which word sees which, [time, time], and with the words that are visible [batch, 1, time, time]."""
        if window not in self._masks:
            net, time = self.net, self.time
            place = net.op("arange", stop=time, dtype=DType.INT64)
            keys, queries = (net.op("reshape", place, shape=shape) for shape in ((1, time), (time, 1)))
            seen = net.op("less_equal", net.op("abs", net.op("subtract", keys, queries)), self.longest if window is None else window)
            self._masks[window] = seen if self.visible is None else net.op("logical_and", self.visible, seen)
        return self._masks[window]


Styled = Callable[[Config, Sizes], Style]
Head = Callable[[Net, Value, Sizes, Style], None]


def build(styled: Styled, usual: Usual, read: Callable[[Config, Usual], Sizes], heads: Mapping[str, Head], net: Net, task: str) -> None:
    config = net.config
    sizes = read(config, usual)
    style = styled(config, sizes)
    is_turned = style.turned is None or any(name is not None for name in style.turned)
    encoders.refuse_decoder(config, *(["rotary"] if is_turned else []))
    turns = {} if style.positions or style.placed is not None else frequencies(config, style, usual, sizes)
    bounded = bool(usual.bounded or style.positions) and all(item.growth is None for item in turns.values())
    longest = _longest(config, style) if bounded else None
    ids = text_inputs(net, longest, task)
    words = Words(net, ids, 0, padding_mask(net), longest or decoders.UNBOUNDED)
    places = {name: angles(net, given, 0, words.total, taken(net, "position_ids"), name) for name, given in turns.items()}
    if style.placed is not None:
        places[""] = style.placed(net, ids, sizes)
    x = stack(net, words, _embedded(net, ids, style, sizes), style, sizes, places)
    heads[task](net, style.norm(net, x, "norm") if style.last_norm else x, sizes, style)


def _padding(config: Config) -> int:
    return config.size("pad_token_id", 1, least=0)


def _longest(config: Config, style: Style) -> int:
    """How many words a text can have."""
    rows = config.size("max_position_embeddings")
    if style.positions == "after padding":
        padding = _padding(config)
        if rows <= padding + 1:
            raise config.refuse("max_position_embeddings", f"more than pad_token_id + 1, {padding + 1}", rows)
        rows -= padding + 1
    return rows if style.longest is None else min(rows, style.longest)


def _embedded(net: Net, ids: Value, style: Style, sizes: Sizes) -> Value:
    """What the first layer is given, [batch, time, width]."""
    width = style.narrow or sizes.width
    x = net.embedding(ids, "words", net.config.size("vocab_size"), width)
    if style.embedded is not None:
        x = net.op("multiply", x, style.embedded)
    if style.wording is not None:
        x = style.wording(net, ids, x)
    if style.types:
        given, table = taken(net, "token_type_ids"), net.tensor("types", (style.types, width))
        x = net.op("add", x, net.op("select", table, axis=0, index=0) if given is None else net.op("embedding", given, table))
    if style.positions:
        x = net.op("add", x, encoders.plain_positions(net, ids, width) if style.positions == "plain"
                   else encoders.positions_after_padding(net, ids, width, _padding(net.config)))
    for more in style.added(net, ids, width) if style.added is not None else ():
        x = net.op("add", x, more)
    if style.first_norm:
        x = style.norm(net, x, "first_norm")
    mask = taken(net, "attention_mask")
    if style.masked and mask is not None:
        x = net.op("multiply", x, net.op("expand_dims", net.cast(mask), axis=(2,)))
    return x if style.narrow is None else net.linear(x, "projection", sizes.width)


# Heads -------------------------------------------------------------------------------------------------------------------


def features(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    encoders.plain_head(net, x, pooler="pooler" in net.family.names)


def lm_scores(net: Net, x: Value, sizes: Sizes, style: Style) -> Value:
    """The scores of words, [batch, time, vocab]."""
    lm = style.lm
    if lm.dense:
        inner = net.linear(x, "lm_dense", lm.width or style.narrow or sizes.width, bias=lm.dense_bias)
        x = style.norm(net, net.activation(inner, sizes.activation if lm.activation is None else lm.activation), "lm_norm")
    return encoders.word_scores(net, x, tie=lm.tie, biases=lm.biases)


def fill(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    net.output("logits", lm_scores(net, x, sizes, style))


def pretrained(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    net.output("prediction_logits", lm_scores(net, x, sizes, style))
    net.output("seq_relationship_logits", net.linear(style.pooled(net, x), "next_sentence", 2))


def next_sentence(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    net.output("logits", net.linear(style.pooled(net, x), "next_sentence", 2))


def classified(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    net.output("logits", net.linear(style.pooled(net, x), "classifier", net.config.labels()))


def classified_twice(activation: Activation | None = ACTIVATIONS["tanh"]) -> Head:
    """By the first word, through one more layer; its activation, None for that of the layers."""

    def head(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
        inner = net.linear(net.first(x), "classifier_dense", sizes.width)
        inner = net.activation(inner, sizes.activation if activation is None else activation)
        net.output("logits", net.linear(inner, "classifier_out", net.config.labels()))

    return head


def tagged(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    encoders.token_head(net, x)


def answered(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    encoders.span_head(net, x)


def chosen(net: Net, x: Value, sizes: Sizes, style: Style) -> None:
    encoders.choice_head(net, style.pooled(net, x))


def mean(net: Net, x: Value) -> Value:
    """The mean of the words that the mask keeps, [batch, width]."""
    mask = taken(net, "attention_mask")
    if mask is None:
        return net.op("mean", x, axis=(1,))
    kept = net.cast(mask)
    total = net.op("sum", net.op("multiply", x, net.op("expand_dims", kept, axis=(2,))), axis=(1,))
    return net.op("divide", total, net.op("sum", kept, axis=(1,), keepdims=True))


LIKE_BERT: Mapping[str, Head] = {"feature-extraction": features, "fill-mask": fill, "text-classification": classified,
                                 "token-classification": tagged, "question-answering": answered, "multiple-choice": chosen}
PRETRAINED: Mapping[str, Head] = {"pretraining": pretrained, "next-sentence": next_sentence}
LIKE_ROBERTA: Mapping[str, Head] = {**LIKE_BERT, "text-classification": classified_twice()}


# Families ----------------------------------------------------------------------------------------------------------------


def family(model_type: str, stem: str, styled: Styled, heads: Mapping[str, Head] = LIKE_BERT, *, prefixes: Sequence[str],
           usual: Usual | None = None, read: Callable[[Config, Usual], Sizes] = read_sizes, names: Mapping[str, str] = NAMES,
           without: Sequence[str] = (), head_names: Mapping[str, str] = BERT_HEADS, inputs: Sequence[str] = WITH_TYPES,
           optional: Sequence[str] = ("position_ids",), leftovers: Sequence[str] = (), axes: Mapping[str, tuple[int, ...]] | None = None,
           built: Callable[[Net, str], None] | None = None) -> Family:
    """A family of this plan. `without`: tasks that the library has no class for; `leftovers`: besides poolers and other heads.

    `axes`: further axes of inputs. `built`: what makes its graph instead.
    """
    kept = {task: head for task, head in heads.items() if task not in without}
    others = {f"{name.partition('.')[0]}.*" for name in head_names.values()}
    return Family(
        classes={model_type: stem},
        names=names,
        heads=head_names,
        tasks={task: ENDINGS[task] for task in kept},
        build=built or partial(build, styled, usual or Usual(activation="gelu"), read, kept),
        prefixes=tuple(prefixes),
        leftovers=(*BUFFERS, "pooler.*", *sorted(others), *leftovers),
        legacy=GAMMA_BETA,
        inputs=tuple(inputs),
        optional=tuple(optional),
        says_type=True,
        axes=axes or {},
    )
