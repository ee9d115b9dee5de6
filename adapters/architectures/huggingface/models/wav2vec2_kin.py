"""Speech models of wav2vec 2.0's kind.

UniSpeech (Wang et al. 2021), WavLM (Chen et al. 2022), data2vec (Baevski et al. 2022), SEW (Wu et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.distances import LARGEST_DISTANCE, distance_bias
from adapters.architectures.huggingface.layers.encoders import taken
from adapters.architectures.huggingface.models.wav2vec2 import (
    CLASSES,
    EPS,
    FAMILY,
    FRAMES,
    HEADS,
    LAYER,
    MASK,
    NAMES,
    OTHERS,
    SPEECH,
    Convolutions,
    Kind,
    Seen,
    build,
    convolutions,
    encoder_layer,
    heard,
    hidden,
    pooled,
    positions,
)
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim, fixed
from converter.ir import DType

MOST_POSITIONS = 100


def tasks(*left_out: str) -> Mapping[str, str]:
    return {task: ending for task, ending in FAMILY.tasks.items() if task not in left_out}


# WavLM -------------------------------------------------------------------------------------------------------------------


def distances(net: Net, x: Value, seen: Value | None) -> Seen:
    """A number for each head and distance, the first layer's, which each layer multiplies by what its words say."""
    config = net.config
    heads, buckets = config.size("num_attention_heads"), config.size("num_buckets", 320)
    farthest = config.size("max_bucket_distance", 800)
    near = buckets // 2 // 2
    if not 0 < near < farthest <= LARGEST_DISTANCE:
        raise config.refuse("max_bucket_distance", f"more than {near}, at most {LARGEST_DISTANCE}", farthest)
    table = net.tensor("distances", (buckets, heads))
    bias = distance_bias(net, table, buckets, farthest, 0, x.shape[1], rounded=True)

    def scores(words: Value, layer: int) -> Value:
        batch, time, _ = words.shape
        y = net.split_heads(words, heads)
        y = net.linear(y, "gate", 8, layer=layer)
        y = net.op("sum", net.op("reshape", y, shape=(batch, heads, time, 2, 4)), axis=(-1,))
        first, second = net.b.add("unstack", (net.op("sigmoid", y),), {"axis": -1}, names=("first_gate", "second_gate"))
        scale = net.op("reshape", net.tensor("gate_scale", (1, heads, 1, 1), "", layer=layer), shape=(1, heads, 1))
        gate = net.op("add", net.op("multiply", first, net.op("subtract", net.op("multiply", second, scale), 1.0)), 2.0)
        found = net.op("multiply", net.op("expand_dims", gate, axis=(3,)), bias)
        return found if seen is None else net.op("where", seen, found, -math.inf)

    return scores


# data2vec ----------------------------------------------------------------------------------------------------------------


def stacked(net: Net, given: Convolutions, x: Value) -> Value:
    """Several convolutions over the words around, each normalised."""
    config, width = net.config, fixed(x.shape[-1])
    kernel, groups = config.size("conv_pos_kernel_size", 19), config.size("num_conv_pos_embedding_groups", 16)
    count = config.size("num_conv_pos_embeddings", 5)
    if width % groups or count > MOST_POSITIONS:
        raise config.refuse("num_conv_pos_embedding_groups", f"a divisor of {width}, in at most {MOST_POSITIONS} layers", groups)
    padding = (kernel // 2, kernel // 2 - (kernel % 2 == 0))
    for layer in range(count):
        weight = net.tensor("positions", (width, width // groups, kernel), layer=layer)
        y = net.op("convolution", net.op("permute_dims", x, axes=(0, 2, 1)), weight, net.tensor("positions", (width,), "bias", layer=layer),
                   padding=padding, groups=groups)
        y = net.op("layer_norm", net.op("permute_dims", y, axes=(0, 2, 1)), None, None, normalized_shape=(width,), eps=EPS)
        x = net.activation(y, given.activation)
    return x


# SEW ---------------------------------------------------------------------------------------------------------------------


def build_squeezed(net: Net, task: str) -> None:
    """Layers over the means of a few words, whose number is then what it was."""
    config, given = net.config, convolutions(net.config)
    sums = ("layer_weights",) if config.flag("use_weighted_layer_sum", False) else ()
    used = {SPEECH: ("lm_head",), CLASSES: ("projector", "classifier", *sums)}.get(task, ())
    net.leaves(*(f"{HEADS[role]}*" for role in HEADS if role not in used))
    for name in OTHERS:
        config.get(name)
    width, eps, factor = config.size("hidden_size"), config.number("layer_norm_eps", EPS), config.size("squeeze_factor", 2)
    words = heard(net, given, factor)
    x = net.layer_norm(words, "projection_norm", eps)
    if given.widths[-1] != width:
        x = net.linear(x, "projection", width)
    time: Dim = x.shape[1]
    count = time // factor
    mask = _heard_part(net, given, time)
    x, _ = hidden(net, x, mask)
    places = net.op("slice", positions(net, given, x, factor), axes=(1,), starts=(0,), stops=(count,))
    means = net.op("avg_pool", net.op("permute_dims", x, axes=(0, 2, 1)), kernel=(factor,), stride=(factor,))
    x = net.layer_norm(net.op("add", net.op("permute_dims", means, axes=(0, 2, 1)), places), "norm", eps)
    seen = None
    if mask is not None:
        # A few words are seen where one of them is.
        flags = net.op("max_pool", net.op("expand_dims", net.cast(mask), axis=(1,)), kernel=(factor,), stride=(factor,))
        seen = net.op("expand_dims", net.cast(flags, DType.BOOL), axis=(1,))
    states = [x]
    for layer in range(config.size("num_hidden_layers")):
        states.append(encoder_layer(net, states[-1], lambda words, layer: seen, eps, layer))
    x = net.activation(net.linear(states[-1], "spread", width * factor), given.activation)
    x = net.op("reshape", x, shape=(x.shape[0], count * factor, width))
    x = net.op("pad", x, pads=((0, 0), (0, time - count * factor), (0, 0)))
    if task == "feature-extraction":
        net.output("last_hidden_state", x)
    elif task == SPEECH:
        net.output("logits", net.linear(x, "lm_head", config.size("vocab_size")))
    else:
        if sums:
            raise config.refuse("use_weighted_layer_sum", "false", True)
        net.output("logits", net.linear(pooled(net, x, mask), "classifier", config.labels()))


def _heard_part(net: Net, given: Convolutions, time: Dim) -> Value | None:
    """bool [batch, time]: the words of as many samples as the mask keeps."""
    mask = taken(net, MASK)
    if mask is None:
        return None
    count = net.op("sum", mask, axis=(1,), keepdims=True)
    for kernel, stride in zip(given.kernels, given.strides, strict=True):
        count = net.op("add", net.op("floor_divide", net.op("subtract", count, kernel), stride), 1)
    return net.op("less", net.op("arange", stop=time, dtype=DType.INT64), count, name="visible")


UNISPEECH = replace(FAMILY, classes={"unispeech": "UniSpeech"}, prefixes=("unispeech.",), tasks=tasks(FRAMES),
                    build=partial(build, kind=Kind(adapted=False)))
UNISPEECH_SAT = replace(UNISPEECH, classes={"unispeech-sat": "UniSpeechSat"}, prefixes=("unispeech_sat.",), tasks=tasks())
WAVLM = replace(
    FAMILY, classes={"wavlm": "WavLM"}, prefixes=("wavlm.",), build=partial(build, kind=Kind(languages=False, scores=distances)),
    names={**NAMES, "distances": "encoder.layers.0.attention.rel_attn_embed", "gate": f"{LAYER}.attention.gru_rel_pos_linear",
           "gate_scale": f"{LAYER}.attention.gru_rel_pos_const"})
DATA2VEC = replace(
    FAMILY, classes={"data2vec-audio": "Data2VecAudio"}, prefixes=("data2vec_audio.",),
    names={**NAMES, "positions": "encoder.pos_conv_embed.layers.{layer}.conv"},
    build=partial(build, kind=Kind(languages=False, positions=stacked, norm="layer")))
SEW = Family(
    classes={"sew": "SEW"},
    names={**NAMES, "projection_norm": "layer_norm", "projection": "feature_projection", "spread": "encoder.upsample.projection"},
    heads=HEADS,
    tasks=tasks(FRAMES),
    build=build_squeezed,
    prefixes=("sew.",),
    leftovers=("masked_spec_embed",),
    legacy=FAMILY.legacy,
    inputs=FAMILY.inputs,
)
