"""What encoder-decoder models share: a source and a target, the decoder's cache, and what it keeps of the encoder's result.

A generator is two graphs of one checkpoint: the encoder with a cache gives each layer's keys and values of the source once
(present.N.encoder.key), and the decoder with a cache takes them (past_key_values.N.encoder.key) with those of the target's
words before (past_key_values.N.decoder.key).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from adapters.architectures.huggingface.family import CACHED, Inputs
from adapters.architectures.huggingface.layers.decoders import UNBOUNDED, Sequence
from adapters.architectures.huggingface.layers.encoders import padding_mask
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim, symbol
from converter.errors import UnsupportedError
from converter.ir import DimRange, DType

Project = Callable[[Value, str, int], Value]

SOURCE = ("input_ids", "attention_mask")
TARGET = "decoder_input_ids"
TARGET_MASK = "decoder_attention_mask"
BY_TASK: Mapping[str, Inputs] = {
    "feature-extraction": Inputs((*SOURCE, TARGET), (TARGET_MASK,)),
    "text2text-generation": Inputs((*SOURCE, TARGET), (TARGET_MASK,)),
    "text2text-generation" + CACHED: Inputs((TARGET, "attention_mask"), (TARGET_MASK,)),
    "encoder": Inputs(SOURCE),
    "encoder" + CACHED: Inputs(SOURCE),
    "text-classification": Inputs(SOURCE),
    "question-answering": Inputs(SOURCE, (TARGET, TARGET_MASK)),
}


def source_inputs(net: Net, longest: int | None) -> Value:
    """Declares the words to encode and their mask, int64 [batch, source]; gives the words."""
    net.dim("batch", None)
    net.dim("source", longest)
    for name in SOURCE:
        if net.takes(name):
            net.b.input(name, DType.INT64, ["batch", "source"])
    return Value("input_ids", net.b.specs["input_ids"])


def shifted(net: Net, ids: Value, default: int | None = None) -> Value:
    """Each word one place to the right, after the first of all: what a decoder is given where nothing else is said."""
    name = "decoder_start_token_id"
    first = net.config.size(name, least=0) if default is None else net.config.size(name, default, least=0)
    batch, time = ids.shape
    begin = net.op("full", shape=(batch, 1), fill_value=first, dtype=DType.INT64)
    rest = net.op("slice", ids, axes=(1,), starts=(0,), stops=(time - 1,))
    return net.op("concat", begin, rest, axis=1, name=TARGET)


def last_marked(net: Net, ids: Value, x: Value) -> Value:
    """x at the last end of a text in each row: [batch, width]. `ids`: [batch, time]; `x`: [batch, time, width]."""
    end = net.config.size("eos_token_id", least=0)
    marked = net.cast(net.op("equal", ids, end), DType.INT64)
    place = net.op("multiply", marked, net.op("arange", stop=ids.shape[1], dtype=DType.INT64))
    return net.at(x, net.op("argmax", place, axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Heads:
    """How many heads of which size the decoder's attention has, in how many layers."""

    layers: int
    count: int
    size: int


def target(net: Net, longest: int | None, heads: Heads, ids: Value | None = None, positions: str | None = None) -> Sequence:
    """The decoder's words: those of an input, or `ids`; after those of the cache.

    Declares decoder_input_ids [batch, time], decoder_attention_mask [batch, past + time], the input `positions`
    [batch, time], and with a cache attention_mask [batch, source] and past_key_values.N.decoder.key [batch, heads, past, size].
    """
    past: Dim = 0
    net.dim("batch", None)
    if ids is None:
        if not net.takes(TARGET):
            raise UnsupportedError(f"the model needs the input {TARGET!r}", where="take")
        net.dim("time", longest)
        if net.cache:
            past = symbol("past")
            net.b.dims["past"] = DimRange(0, None if longest is None else max(longest - 1, 0))
        ids = net.b.input(TARGET, DType.INT64, ["batch", "time"])
    if net.takes(TARGET_MASK):
        net.b.input(TARGET_MASK, DType.INT64, ["batch", past + ids.shape[1]])
    if net.cache and net.takes("attention_mask"):
        net.b.input("attention_mask", DType.INT64, ["batch", "source"])
    if positions is not None and net.takes(positions):
        net.b.input(positions, DType.INT64, ["batch", ids.shape[1]])
    cached = {}
    if net.cache:
        for layer in range(heads.layers):
            for part in ("key", "value"):
                name = f"past_key_values.{layer}.decoder.{part}"
                cached[name] = net.b.input(name, net.dtype, ["batch", heads.count, past, heads.size])
    return Sequence(net, ids, past, padding_mask(net, TARGET_MASK), longest or UNBOUNDED, cached, "decoder.")


@dataclass(frozen=True, slots=True)
class Memory:
    """The encoder's result [batch, source, width], or where the decoder has a cache each layer's keys and values of it."""

    net: Net
    encoded: Value | None
    project: Project
    cached: Mapping[str, Value] = field(default_factory=dict)

    def part(self, layer: int, name: str) -> Value:
        """A layer's "key" or "value": [batch, heads, source, size]."""
        if self.encoded is None:
            return self.cached[f"past_key_values.{layer}.encoder.{name}"]
        return self.project(self.encoded, name, layer)


def memory(net: Net, encoded: Value | None, heads: Heads, project: Project, source: int | None = None) -> Memory:
    """What a decoder has of the encoder. Without the encoder's result it is past_key_values.N.encoder.key [batch, heads, source, size].

    source: how long a source is, where all are alike.
    """
    if encoded is not None:
        return Memory(net, encoded, project)
    names = [f"past_key_values.{layer}.encoder.{part}" for layer in range(heads.layers) for part in ("key", "value")]
    shape = ["batch", heads.count, source or symbol("source"), heads.size]
    return Memory(net, None, project, {name: net.b.input(name, net.dtype, shape) for name in names})


def encoder_outputs(net: Net, encoded: Value, heads: Heads, project: Project) -> None:
    """`last_hidden_state`, and with a cache what the decoder's layers keep of it: present.N.encoder.key, …"""
    net.output("last_hidden_state", encoded)
    if net.cache:
        for layer in range(heads.layers):
            for part in ("key", "value"):
                net.output(f"present.{layer}.encoder.{part}", project(encoded, part, layer))


def decoder_outputs(net: Net, name: str, result: Value, words: Sequence, encoded: Value | None) -> None:
    """The result under its name, the cache of the next words, or the encoder's result."""
    net.output(name, result)
    for port, value in words.present.items():
        net.output(port, value)
    if encoded is not None:
        net.output("encoder_last_hidden_state", encoded)


def tied_words(net: Net, roles: Iterable[str], rows: int, width: int, tie: bool = True) -> dict[str, Value]:
    """One table of words under the names of several roles, of which a checkpoint has one or more: [rows, width] by role.

    Where the config does not tie them, each role has its own table if the checkpoint holds it, and the first's if not.
    """
    roles = tuple(roles)
    main = next((role for role in roles if net.has(role)), roles[0])
    table = net.tensor(main, (rows, width))
    return {role: net.tensor(role, (rows, width)) if not tie and net.has(role) else net.tied(role, table) for role in roles}
