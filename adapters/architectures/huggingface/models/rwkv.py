"""RWKV 4 (Peng et al. 2023): an average of values that keys weigh, and that decays from word to word."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.decoders import Sequence as Words
from adapters.architectures.huggingface.layers.decoders import head
from adapters.architectures.huggingface.layers.recurrent import READ, keep, scanned, state_of, words_of
from adapters.architectures.huggingface.net import Net
from converter.builder import GraphBuilder, Value
from converter.dims import fixed

BLOCK = "blocks.{layer}"
# What the greatest exponent so far is before there was one.
LOWEST = -1e38


def build(net: Net, task: str) -> None:
    """Without a mask, which the library does not look at: padding belongs on the right."""
    config = net.config
    width, layers, eps = config.size("hidden_size"), config.size("num_hidden_layers"), config.number("layer_norm_epsilon", 1e-5)
    inner, size = config.optional_size("attention_hidden_size") or width, config.optional_size("intermediate_size") or 4 * width
    # Vectors are halved every so many layers, and what layers add with them: it keeps float16 from overflowing, and eps sees it.
    every = config.get("rescale_every", 6)
    if type(every) is not int:
        raise config.refuse("rescale_every", "an integer", every)
    config.get("context_length")  # of one of the library's kernels
    words = words_of(net)
    x = net.layer_norm(net.embedding(words.ids, "words", config.size("vocab_size"), width), "first_norm", eps, layer=0)
    for layer in range(layers):
        share = 0.5 ** (layer // every) if every > 0 else 1.0
        x = net.op("add", x, _attention(net, words, net.layer_norm(x, "attention_norm", eps, layer=layer), inner, layer, share))
        hidden = _channels(net, words, net.layer_norm(x, "inner_norm", eps, layer=layer), size, layer, share)
        x = net.op("add", x, hidden, name=f"layer_{layer}")
        if every > 0 and (layer + 1) % every == 0:
            x = net.op("multiply", x, 0.5)
    head(net, words, net.layer_norm(x, "norm", 1e-5), task)


def _shifted(net: Net, words: Words, x: Value, layer: int, name: str) -> Value:
    """Each word's vector before it, [batch, time, width]."""
    batch, time, width = x.shape
    before = net.op("expand_dims", state_of(net, layer, name, (batch, width), net.dtype), axis=(1,))
    keep(words, layer, name, net.op("select", x, axis=1, index=-1))
    return net.op("slice", net.op("concat", before, x, axis=1), axes=(1,), starts=(0,), stops=(time,))


def _mixed(net: Net, x: Value, before: Value, role: str, size: int, layer: int) -> Value:
    """A projection of a mixture of each word's vector and the one before, [batch, time, size]."""
    share = net.tensor(f"mix_{role}", (1, 1, x.shape[-1]), "", layer=layer)
    mixed = net.op("add", net.op("multiply", x, share), net.op("multiply", before, net.op("subtract", 1, share)))
    return net.linear(mixed, role, size, bias=False, layer=layer)


def _attention(net: Net, words: Words, x: Value, size: int, layer: int, share: float) -> Value:
    batch, _, width = x.shape
    before, kind = _shifted(net, words, x, layer, "attention_shift"), net.wide
    gate = net.op("sigmoid", _mixed(net, x, before, "receptance", size, layer))
    key, value = (net.cast(_mixed(net, x, before, role, size, layer), kind) for role in ("key", "value"))
    first = net.cast(net.tensor("time_first", (size,), "", layer=layer), kind)
    decay = net.op("negative", net.op("exp", net.cast(net.tensor("time_decay", (size,), "", layer=layer), kind)))
    names = {"numerator": 0.0, "denominator": 0.0, "maximum": LOWEST}
    states = [state_of(net, layer, name, (batch, size), kind, start) for name, start in names.items()]
    *states, seen = scanned(net, states, (key, value), (first, decay), _weigh)
    for name, state in zip(names, states, strict=True):
        keep(words, layer, name, state)
    found = net.linear(net.op("multiply", gate, net.cast(seen)), "attention_out", fixed(width), bias=False, layer=layer)
    return found if share == 1 else net.op("multiply", found, share)


def _weigh(b: GraphBuilder, states: Sequence[Value], given: Sequence[Value], rest: Sequence[Value]) -> tuple[Sequence[Value], Value]:
    """An average of the values so far, weighted by exp(key), less by exp(decay) with each word; [batch, size] each."""
    (numerator, denominator, most), (key, value), (first, decay) = states, given, rest

    def joined(old: Value, new: Value) -> tuple[Value, Value, Value]:
        greatest = b.op("maximum", old, new)
        kept, added = (b.op("exp", b.op("subtract", item, greatest)) for item in (old, new))
        total = b.op("add", b.op("multiply", kept, numerator), b.op("multiply", added, value))
        return total, b.op("add", b.op("multiply", kept, denominator), added), greatest

    above, below, _ = joined(most, b.op("add", key, first))
    return joined(b.op("add", most, decay), key), b.op("divide", above, below)


def _channels(net: Net, words: Words, x: Value, size: int, layer: int, share: float) -> Value:
    before, width = _shifted(net, words, x, layer, "feed_forward_shift"), fixed(x.shape[-1])
    hidden = net.op("square", net.op("relu", _mixed(net, x, before, "inner_key", size, layer)))
    gate = net.op("sigmoid", _mixed(net, x, before, "inner_receptance", width, layer))
    found = net.linear(hidden, "inner_value", width, bias=False, layer=layer)
    return net.op("multiply", gate, found if share == 1 else net.op("multiply", found, share))


FAMILY = Family(
    classes={"rwkv": "Rwkv"},
    names={"words": "embeddings", "first_norm": f"{BLOCK}.pre_ln", "attention_norm": f"{BLOCK}.ln1", "inner_norm": f"{BLOCK}.ln2",
           "time_first": f"{BLOCK}.attention.time_first", "time_decay": f"{BLOCK}.attention.time_decay",
           **{role: f"{BLOCK}.attention.{role}" for role in ("key", "value", "receptance")},
           **{f"mix_{role}": f"{BLOCK}.attention.time_mix_{role}" for role in ("key", "value", "receptance")},
           "attention_out": f"{BLOCK}.attention.output",
           **{f"inner_{role}": f"{BLOCK}.feed_forward.{role}" for role in ("key", "value", "receptance")},
           **{f"mix_inner_{role}": f"{BLOCK}.feed_forward.time_mix_{role}" for role in ("key", "receptance")}, "norm": "ln_out"},
    heads={"lm_head": "head"},
    tasks=READ,
    build=build,
    prefixes=("rwkv.",),
    leftovers=("head.*",),
    inputs=("input_ids",),
    caches=True,
)
