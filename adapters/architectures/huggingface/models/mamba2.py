"""Mamba 2 (Dao and Gu 2024): a state for each head, whose pace depends on the word, and whose input and output groups of heads share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.layers.decoders import Sequence as Words
from adapters.architectures.huggingface.layers.recurrent import convolved, keep, masked, scanned, state_of
from adapters.architectures.huggingface.models.mamba import MAMBA, MIXER, build
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import GraphBuilder, Value


def _mixer(net: Net, words: Words, x: Value, config: Config, layer: int) -> Value:
    """The state space of one layer, [batch, time, width]."""
    width, heads, size = config.size("hidden_size"), config.size("num_heads", 128), config.size("head_dim", 64)
    inner, groups, numbers = int(config.number("expand", 2, above=0) * width), config.size("n_groups", 8), config.size("state_size", 128)
    if inner != heads * size:
        raise config.refuse("num_heads", f"{inner} / head_dim, {size}", heads)
    if heads % groups:
        raise config.refuse("n_groups", f"a divisor of num_heads, {heads}", groups)
    config.get("time_step_rank")  # which this kind of layer has no use for
    bias, kind, mixed = config.flag("use_bias", False), net.wide, inner + 2 * groups * numbers
    fused = net.linear(masked(net, words, x), "inner", inner + mixed + heads, bias=bias, layer=layer)
    gate, y, pace = net.b.add("split", (fused,), {"sizes": (inner, mixed, heads), "axis": -1}, names=("gate", "hidden", "pace"))
    y = convolved(net, words, y, config.size("conv_kernel", 4, least=2), config.flag("use_conv_bias", True), layer)
    y = net.cast(masked(net, words, net.activation(y, config.choice("hidden_act", ACTIVATIONS, "silu"))), kind)
    parts = net.b.add("split", (y,), {"sizes": (inner, groups * numbers, groups * numbers), "axis": -1}, names=("x", "into", "out"))
    batch, time, _ = y.shape
    y = net.op("reshape", parts[0], shape=(batch, time, heads, size))
    into, out = (net.op("repeat_interleave", net.op("reshape", part, shape=(batch, time, groups, numbers)), repeats=heads // groups, axis=2)
                 for part in parts[1:])
    pace = net.op("softplus", net.op("add", net.cast(pace, kind), net.cast(net.tensor("pace", (heads,), "", layer=layer), kind)))
    pace = net.op("clip", pace, *_bounds(config))
    decay = net.op("negative", net.op("exp", net.cast(net.tensor("decay", (heads,), "", layer=layer), kind)))
    paced = net.op("multiply", y, net.op("expand_dims", pace, axis=(3,)))
    kept = net.op("exp", net.op("multiply", pace, decay))
    state = state_of(net, layer, "state", (batch, heads, size, numbers), kind)
    state, seen = scanned(net, (state,), (kept, paced, into, out), (), _select)
    keep(words, layer, "state", state)
    skip = net.op("reshape", net.cast(net.tensor("skip", (heads,), "", layer=layer), kind), shape=(heads, 1))
    y = net.op("reshape", net.op("add", seen, net.op("multiply", y, skip)), shape=(batch, time, groups, inner // groups))
    gated = net.op("multiply", y, net.op("reshape", net.op("silu", net.cast(gate, kind)), shape=y.shape))
    gated = net.op("rms_norm", gated, None, normalized_shape=y.shape[-1:], eps=config.number("layer_norm_epsilon", 1e-5))
    y = net.op("multiply", net.cast(net.op("reshape", gated, shape=(batch, time, inner))), net.tensor("inner_norm", (inner,), layer=layer))
    return net.linear(y, "outer", width, bias=bias, layer=layer)


def _bounds(config: Config) -> tuple[float, float | None]:
    """The least and the largest pace, None for no largest."""
    limits = config.get("time_step_limit", [0.0, math.inf])
    # Newer versions of the library write what JSON has no number for as {"__float__": "Infinity"}.
    found = [math.inf if item == {"__float__": "Infinity"} else item for item in limits] if isinstance(limits, list) else []
    if len(found) != 2 or any(type(item) not in (int, float) for item in found) or not 0 <= found[0] < found[1]:
        raise config.refuse("time_step_limit", "two numbers, from 0 up", limits)
    return float(found[0]), None if math.isinf(found[1]) else float(found[1])


def _select(b: GraphBuilder, states: Sequence[Value], given: Sequence[Value], rest: Sequence[Value]) -> tuple[Sequence[Value], Value]:
    """state · kept + paced · into, [batch, heads, size, numbers]; its product with out, [batch, heads, size]."""
    kept, paced, into, out = given
    added = b.op("multiply", b.op("expand_dims", paced, axis=(3,)), b.op("expand_dims", into, axis=(2,)))
    state = b.op("add", b.op("multiply", states[0], b.op("expand_dims", kept, axis=(2, 3))), added)
    return (state,), b.op("squeeze", b.op("matmul", state, b.op("expand_dims", out, axis=(3,))), axis=(3,))


FAMILY = replace(MAMBA, classes={"mamba2": "Mamba2"}, build=partial(build, _mixer, False),
                 names={**MAMBA.names, "pace": f"{MIXER}.dt_bias", "inner_norm": f"{MIXER}.norm"})
