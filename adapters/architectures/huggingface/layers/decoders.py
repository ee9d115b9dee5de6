"""Causal language models: positions, masks, key-value caches, and heads. The layers are each family's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.encoders import padding_mask, span_head, taken
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim, fixed, symbol
from converter.errors import UnsupportedError
from converter.ir import DimRange, DType

TASKS: Mapping[str, str] = {
    "feature-extraction": "Model",
    "text-generation": "ForCausalLM",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}

UNBOUNDED = 1 << 31
INPUTS = ("input_ids", "attention_mask")
OPTIONAL = ("position_ids",)


@dataclass
class Sequence:
    """The words that a run is given, after those that a cache holds already.

    `part` names the cache beside others: past_key_values.N.{part}key.
    `visible`: bool [batch, 1, 1, past + time], or None where all words are. `longest` bounds past + time.
    """

    net: Net
    ids: Value
    past: Dim
    visible: Value | None
    longest: int
    cached: dict[str, Value] = field(default_factory=dict)
    part: str = ""
    present: dict[str, Value] = field(default_factory=dict)
    _masks: dict[int | None, Value] = field(default_factory=dict)

    @property
    def time(self) -> Dim:
        return self.ids.shape[1]

    @property
    def total(self) -> Dim:
        return self.past + self.time

    def mask(self, window: int | None) -> tuple[Value | None, bool]:
        """What a layer's attention is to be given: a mask, and whether it is causal beside that.

        window: how many words back a word sees, itself included; None for all.
        """
        if window is not None and window >= self.longest:
            window = None
        if window is None and not self.net.cache:
            return self.visible, True
        return self.order(window), False

    def order(self, window: int | None) -> Value:
        """bool: which word sees which, [time, past + time], and with the words that are visible [batch, 1, time, past + time]."""
        if window is not None and window >= self.longest:
            window = None
        if window not in self._masks:
            net = self.net
            keys = net.op("reshape", net.op("arange", stop=self.total, dtype=DType.INT64), shape=(1, self.total))
            queries = net.op("reshape", net.op("arange", start=self.past, stop=self.total, dtype=DType.INT64), shape=(self.time, 1))
            seen = net.op("less_equal", keys, queries)
            if window is not None:
                seen = net.op("logical_and", seen, net.op("greater", keys, net.op("subtract", queries, window)))
            if self.visible is not None:
                seen = net.op("logical_and", self.visible, seen)
            self._masks[window] = seen
        return self._masks[window]

    def remember(self, layer: int, key: Value, value: Value) -> tuple[Value, Value]:
        """Keys and values with those of the cache before them."""
        if not self.net.cache:
            return key, value
        found = []
        for name, new in (("key", key), ("value", value)):
            joined = self.net.op("concat", self.cached[f"past_key_values.{layer}.{self.part}{name}"], new, axis=2,
                                 name=f"present_{layer}_{name}")
            self.present[f"present.{layer}.{self.part}{name}"] = joined
            found.append(joined)
        return found[0], found[1]


def sequence(net: Net, longest: int | None, layers: int | Collection[int], heads: int, size: int | tuple[int, int]) -> Sequence:
    """Declares the inputs: the words, their mask, their positions, and the cache [batch, heads, past, size] of each layer.

    size: two where keys' and values' differ.
    longest: how many words, with those of the cache, the model can have; None for any number. layers: how many, or those with a cache.
    """
    net.dim("batch", None)
    net.dim("time", longest)
    past: Dim = 0
    if net.cache:
        past = symbol("past")
        net.b.dims["past"] = DimRange(0, None if longest is None else max(longest - 1, 0))
    time = symbol("time")
    for name in (*INPUTS, *OPTIONAL):
        if net.takes(name):
            net.b.input(name, DType.INT64, ["batch", past + time if name == "attention_mask" else time])
    cached = {}
    if net.cache:
        for layer in range(layers) if isinstance(layers, int) else layers:
            for part, numbers in zip(("key", "value"), (size, size) if isinstance(size, int) else size, strict=True):
                name = f"past_key_values.{layer}.{part}"
                cached[name] = net.b.input(name, net.dtype, ["batch", heads, past, numbers])
    ids = Value("input_ids", net.b.specs["input_ids"])
    return Sequence(net, ids, past, padding_mask(net), UNBOUNDED if longest is None else longest, cached)


def learned_positions(net: Net, words: Sequence, rows: int, width: int, offset: int = 0) -> Value:
    """Rows of the position table from `offset` on: [time, width], or [batch, time, width] for given positions."""
    table = net.tensor("positions", (rows, width))
    given = taken(net, "position_ids")
    if given is None:
        return rows_of(net, table, words.past, words.total, "positions", offset)
    return net.op("embedding", net.op("add", given, offset) if offset else given, table)


def rows_of(net: Net, table: Value, start: Dim, stop: Dim, name: str, offset: int = 0) -> Value:
    """Rows `start` to `stop` of a table, from its row `offset` on.

    With a cache each is looked up: the ranges of past and time allow a sum beyond the table, where a slice ends early in ONNX,
    and an index is refused everywhere.
    """
    if net.cache:
        places = net.op("arange", start=start, stop=stop, dtype=DType.INT64)
        return net.op("embedding", net.op("add", places, offset) if offset else places, table, name=name)
    return net.op("slice", table, axes=(0,), starts=(start + offset,), stops=(stop + offset,), name=name)


def attend(net: Net, words: Sequence, layer: int, query: Value, key: Value, value: Value, *, window: int | None = None,
           scale: float | None = None, cap: float | None = None, bias: Value | None = None, sinks: Value | None = None,
           expanded: Callable[[Value, Value], tuple[Value, Value]] | None = None) -> Value:
    """[batch, heads, time, size] to [batch, time, heads · size]; fewer key heads than query heads are shared by groups.

    cap: scores are cap · tanh(scores / cap). bias: what is added to scores, with what must not be seen at -infinity.
    sinks: [heads], a score beside those of keys, whose value is nothing. expanded: what makes keys and values of those that are kept.
    """
    key, value = words.remember(layer, key, value)
    if expanded is not None:
        key, value = expanded(key, value)
    grouped = query.shape[1] != key.shape[1]
    if sinks is not None:
        key, value, bias = _with_sinks(net, words, query, key, value, window, sinks)
    if cap is not None:
        return net.join_heads(bounded(net, query, key, value, words.order(window), scale, cap))
    mask, causal = words.mask(window) if bias is None else (bias, False)
    seen = net.op("scaled_dot_product_attention", query, key, value, mask, is_causal=causal, scale=scale, enable_gqa=grouped)
    return net.join_heads(seen)


def _with_sinks(net: Net, words: Sequence, query: Value, key: Value, value: Value, window: int | None,
                sinks: Value) -> tuple[Value, Value, Value]:
    """Keys and values with one of zeros more, and what is added to scores, [batch or 1, heads, time, past + time + 1]."""
    batch, groups, _, size = key.shape
    nothing = net.op("full", shape=(batch, groups, 1, size), fill_value=0.0, dtype=key.dtype)
    seen = net.op("where", words.order(window), net.op("full", shape=(), fill_value=0.0, dtype=key.dtype), -math.inf)
    first, heads, time = seen.shape[0] if seen.rank == 4 else 1, query.shape[1], query.shape[2]
    seen = net.op("broadcast_to", seen, shape=(first, heads, time, words.total))
    sinks = net.op("broadcast_to", net.op("reshape", sinks, shape=(1, heads, 1, 1)), shape=(first, heads, time, 1))
    return (net.op("concat", key, nothing, axis=2), net.op("concat", value, nothing, axis=2), net.op("concat", seen, sinks, axis=3))


def bounded(net: Net, query: Value, key: Value, value: Value, mask: Value | None, scale: float | None, cap: float) -> Value:
    """Attention by scores cap · tanh(scores / cap): [batch, heads, time, size]. mask: bool, of the rank 4 or [time, keys]."""
    batch, heads, time, size = query.shape
    groups = key.shape[1]
    shared = fixed(heads) // fixed(groups)
    grouped = net.op("reshape", query, shape=(batch, groups, shared, time, size))
    keys, values = (net.op("expand_dims", item, axis=(2,)) for item in (key, value))
    scores = net.op("matmul", grouped, net.op("permute_dims", keys, axes=(0, 1, 2, 4, 3)))
    factor = 1 / math.sqrt(fixed(size)) if scale is None else scale
    scores = net.op("multiply", net.op("tanh", net.op("multiply", scores, factor / cap)), cap)
    if mask is not None:
        mask = net.op("expand_dims", mask, axis=(1,)) if mask.rank == 4 else mask
        scores = net.op("where", mask, scores, -math.inf)
    weights = net.op("safe_softmax", scores, axis=-1)
    return net.op("reshape", net.op("matmul", weights, values), shape=(batch, heads, time, size))


# Heads -------------------------------------------------------------------------------------------------------------------


def head(net: Net, words: Sequence, x: Value, task: str, *, tie: bool = False, cap: float | None = None, scale: float = 1.0,
         bias: bool = False) -> None:
    """The outputs of a task. `tie`: the default of `tie_word_embeddings`; `scale`, `bias` and `cap` are of a language model's scores."""
    if task == "feature-extraction":
        net.output("last_hidden_state", x)
    elif task == "text-generation":
        scores = _scores(net, x, tie, bias)
        if scale != 1:
            scores = net.op("multiply", scores, scale)
        if cap is not None:
            scores = net.op("multiply", net.op("tanh", net.op("divide", scores, cap)), cap)
        net.output("logits", scores)
        for name, value in words.present.items():
            net.output(name, value)
    elif task == "text-classification":
        net.output("logits", net.linear(_last(net, words, x), "score", net.config.labels(), bias=False))
    elif task == "token-classification":
        net.output("logits", net.linear(x, "token_score", net.config.labels()))
    else:
        span_head(net, x)


def _scores(net: Net, x: Value, tie: bool, bias: bool) -> Value:
    name = net.name("words")
    words = Value(name, net.b.specs[name])
    weight = net.tied("lm_head", words) if net.config.flag("tie_word_embeddings", tie) else net.tensor("lm_head", words.shape)
    return net.op("linear", x, weight, net.tensor("lm_head", words.shape[:1], "bias") if bias else None)


def _last(net: Net, words: Sequence, x: Value) -> Value:
    """The last word that is no padding, [batch, width]; without a padding token the last one, of a batch of one."""
    padding = net.config.get("pad_token_id")
    if padding is None:
        net.b.dims["batch"] = DimRange(1, 1)
        net.notes.append("without pad_token_id the model classifies one sequence at a time")
        return net.op("select", x, axis=1, index=-1)
    if type(padding) is not int:
        raise net.config.refuse("pad_token_id", "an integer", padding)
    is_word = net.cast(net.op("not_equal", words.ids, padding), DType.INT64)
    place = net.op("multiply", is_word, net.op("arange", stop=words.time, dtype=DType.INT64))
    return net.at(x, net.op("argmax", place, axis=1, keepdims=True))


def refuse_encoder(config: Config) -> None:
    """A decoder that its config makes see both ways computes something else."""
    config.only("is_causal", True)
    config.only("add_cross_attention", False)
    config.only("use_bidirectional_attention", False)


def head_size(config: Config) -> int:
    """`head_dim`, or the width divided by the heads."""
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    given = config.optional_size("head_dim")
    if given is None and width % heads:
        raise config.refuse("num_attention_heads", f"a divisor of hidden_size, {width}", heads)
    return width // heads if given is None else given


def window_of(config: Config, default: int | None) -> int | None:
    """`sliding_window`."""
    return config.optional_size("sliding_window", default)


def windows(config: Config, usual: list[bool], window: int | None) -> list[int | None]:
    """The window of each layer: `layer_types`, or where there is none those of `usual`."""
    names = config.get("layer_types")
    if names is None:
        kinds = usual
    else:
        known = {"full_attention": False, "sliding_attention": True}
        if not isinstance(names, list) or len(names) != len(usual) or any(
                not isinstance(name, str) or name not in known for name in names):
            raise config.refuse("layer_types", f"{len(usual)} of {', '.join(known)}", names)
        kinds = [known[name] for name in names]
    if any(kinds) and window is None:
        raise UnsupportedError("layers with a sliding window, and no window", where=config.where, expected="sliding_window")
    return [window if kind else None for kind in kinds]
