"""Mamba (Gu and Dao 2023): a state space for each channel, whose pace, input and output depend on the word; and Falcon Mamba."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.decoders import Sequence as Words
from adapters.architectures.huggingface.layers.decoders import head
from adapters.architectures.huggingface.layers.recurrent import READ, convolved, keep, masked, scanned, state_of, words_of
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import GraphBuilder, Value

MIXER = "layers.{layer}.mixer"


# What one layer makes of its words, [batch, time, width]: net, the words, x, the config, the layer.
Mixing = Callable[[Net, Words, Value, Config, int], Value]


def build(mixing: Mixing, tie: bool, net: Net, task: str) -> None:
    """`tie`: the default of `tie_word_embeddings`."""
    config = net.config
    width, layers, eps = config.size("hidden_size"), config.size("num_hidden_layers"), config.number("layer_norm_epsilon", 1e-5)
    residual = net.wide if config.flag("residual_in_fp32", True) else net.dtype
    for name in ("time_step_scale", "time_step_min", "time_step_max", "time_step_init_scheme", "time_step_floor", "max_position_embeddings",
                 "rescale_prenorm_residual", "use_mambapy", "use_associative_scan", "chunk_size"):
        config.get(name)  # how weights are drawn, and which of two ways is taken to the same result
    words = words_of(net)
    x = net.embedding(words.ids, "words", config.size("vocab_size"), width)
    for layer in range(layers):
        given = net.rms_norm(net.cast(x), "layer_norm", eps, layer=layer)
        mixed = mixing(net, words, given, config, layer)
        x = net.op("add", net.cast(x, residual), net.cast(mixed, residual), name=f"layer_{layer}")
    head(net, words, net.rms_norm(net.cast(x), "norm", eps), task, tie=tie)


def _mixer(normed: bool, net: Net, words: Words, x: Value, config: Config, layer: int) -> Value:
    """The selective state space of one layer. `normed`: pace, input and output of the state have norms without parameters."""
    width = config.size("hidden_size")
    inner, numbers, rank = (config.size("intermediate_size", int(config.number("expand", 2, above=0) * width)),
                            config.size("state_size", 16), config.get("time_step_rank", "auto"))
    rank = math.ceil(width / 16) if rank == "auto" else config.size("time_step_rank")
    kernel, conv_bias = config.size("conv_kernel", 4, least=2), config.flag("use_conv_bias", True)
    bias, activation = config.flag("use_bias", False), config.choice("hidden_act", ACTIVATIONS, "silu")
    both = net.linear(masked(net, words, x), "inner", 2 * inner, bias=bias, layer=layer)
    x, gate = net.b.add("split", (both,), {"sizes": (inner, inner), "axis": -1}, names=("hidden", "gate"))
    x = masked(net, words, net.activation(convolved(net, words, x, kernel, conv_bias, layer), activation))
    parts = net.linear(x, "selected", rank + 2 * numbers, bias=False, layer=layer)
    pace, into, out = net.b.add("split", (parts,), {"sizes": (rank, numbers, numbers), "axis": -1}, names=("pace", "into", "out"))
    kind = net.wide
    if normed:
        eps = config.number("mixer_rms_eps", 1e-6)
        pace, into, out = (net.op("rms_norm", item, None, normalized_shape=item.shape[-1:], eps=eps) for item in (pace, into, out))
    offset = net.cast(net.tensor("pace", (inner,), "bias", layer=layer), kind)
    pace = net.op("linear", pace, net.tensor("pace", (inner, rank), layer=layer))
    pace = net.op("softplus", net.op("add", net.cast(pace, kind), offset))
    into, out, wider = (net.cast(item, kind) for item in (into, out, x))
    decay = net.op("negative", net.op("exp", net.cast(net.tensor("decay", (inner, numbers), "", layer=layer), kind)))
    state = state_of(net, layer, "state", (x.shape[0], inner, numbers), kind)
    state, y = scanned(net, (state,), (pace, net.op("multiply", pace, wider), into, out), (decay,), _select)
    keep(words, layer, "state", state)
    skip = net.cast(net.tensor("skip", (inner,), "", layer=layer), kind)
    y = net.op("add", y, net.op("multiply", wider, skip))
    y = net.cast(net.op("multiply", y, net.op("silu", net.cast(gate, kind))))
    return net.linear(y, "outer", width, bias=bias, layer=layer)


def _select(b: GraphBuilder, states: Sequence[Value], given: Sequence[Value], rest: Sequence[Value]) -> tuple[Sequence[Value], Value]:
    """state · exp(pace · decay) + pace · x · into, [batch, inner, numbers]; its product with out, [batch, inner]."""
    pace, paced, into, out = given
    kept = b.op("multiply", states[0], b.op("exp", b.op("multiply", b.op("expand_dims", pace, axis=(2,)), rest[0])))
    state = b.op("add", kept, b.op("multiply", b.op("expand_dims", paced, axis=(2,)), b.op("expand_dims", into, axis=(1,))))
    return (state,), b.op("squeeze", b.op("matmul", state, b.op("expand_dims", out, axis=(2,))), axis=(2,))


MAMBA = Family(
    classes={"mamba": "Mamba"},
    names={"words": "embeddings", "layer_norm": "layers.{layer}.norm", "inner": f"{MIXER}.in_proj", "convolution": f"{MIXER}.conv1d",
           "selected": f"{MIXER}.x_proj", "pace": f"{MIXER}.dt_proj", "decay": f"{MIXER}.A_log", "skip": f"{MIXER}.D",
           "outer": f"{MIXER}.out_proj", "norm": "norm_f"},
    heads={"lm_head": "lm_head"},
    tasks=READ,
    build=partial(build, partial(_mixer, False), True),
    prefixes=("backbone.",),
    leftovers=("lm_head.*",),
    legacy=(("embeddings.weight", "embedding.weight"),),
    caches=True,
)
FALCON_MAMBA = replace(MAMBA, classes={"falcon_mamba": "FalconMamba"}, build=partial(build, partial(_mixer, True), True))
