"""CLAP (Wu et al. 2023): a Swin for spectrograms (HTS-AT, Chen et al. 2022) and RoBERTa for texts, together or alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.encoders import embed, layers, padding_mask, plain_head, pooled, positions_after_padding
from adapters.architectures.huggingface.layers.encoders import sizes as text_sizes
from adapters.architectures.huggingface.layers.vision import pair
from adapters.architectures.huggingface.models import bert
from adapters.architectures.huggingface.models.clip import part, text_words, tower_of, unit
from adapters.architectures.huggingface.models.convolutional import COUNTERS
from adapters.architectures.huggingface.models.swin import EPS, layout_of, stages
from adapters.architectures.huggingface.models.swin import NAMES as SWIN
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed
from converter.errors import UnsupportedError
from converter.ir import DimRange, DType

TEXT, SOUND, LONGER = "text_model.", "audio_model.", "is_longer"
PATCHES = "patch_embed"
FUSION = f"{PATCHES}.fusion_model"
NAMES = {
    **{role: name.replace("encoder.layers", "layers") for role, name in SWIN.items()},
    "patches": f"{PATCHES}.proj",
    "patch_norm": f"{PATCHES}.norm",
    "crops": f"{PATCHES}.mel_conv2d",
    **{f"{role}{part}": f"{FUSION}.{name}.{first + place}" for role, name, first in (("local", "local_att", 0), ("whole", "global_att", 1))
       for part, place in (("_in", 0), ("_in_norm", 1), ("_out", 3), ("_out_norm", 4))},
    "bins_norm": "batch_norm",
    "norm": "norm",
}
HEADS = {f"{tower}_{place}": f"{tower}_projection.linear{number}" for tower in ("text", "audio")
         for place, number in (("in", 1), ("out", 2))} | {"text_scale": "logit_scale_t", "audio_scale": "logit_scale_a"}
TEXT_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 50265, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-12, "projection_dim": 512,
    "pad_token_id": 1, "projection_hidden_act": "relu"}
SOUND_DEFAULTS: Mapping[str, Any] = {
    "window_size": 8, "depths": [2, 2, 6, 2], "num_attention_heads": [4, 8, 16, 32], "projection_dim": 512, "projection_hidden_act": "relu"}


def _text(net: Net, config: Config, prefix: str, batch: str = "batch") -> Value:
    """[batch, time, width]."""
    tower, width, given, padding = net.part(bert.NAMES, prefix, config), config.size("hidden_size"), text_sizes(config), config.size(
        "pad_token_id", least=0)
    config.only("position_embedding_type", "absolute")
    longest = config.size("max_position_embeddings") - padding - 1
    if longest < 1:
        raise config.refuse("max_position_embeddings", f"more than pad_token_id + 1, {padding + 1}", longest + padding + 1)
    ids = text_words(net, longest, batch)
    x = embed(tower, ids, width, lambda: positions_after_padding(tower, ids, width, padding), eps=given.eps)
    return layers(tower, x, padding_mask(net), given)


def _sound(net: Net, config: Config, prefix: str, batch: str = "batch") -> tuple[Value, Value]:
    """A map of the words [batch, width, rows, columns], and their mean [batch, width]. Any number of frames up to the image's."""
    side, bins, fused = config.size("spec_size", 256), config.size("num_mel_bins", 64), config.flag("enable_fusion", False)
    kernel, stride = pair(config, "patch_size", 4), pair(config, "patch_stride", 4)
    ratio, channels, width = side // bins, config.size("patch_embed_input_channels", 1), config.size("patch_embeds_hidden_size", 96)
    inner = Config(config.fields, config.where, {"num_heads": "num_attention_heads"}, config.asked)
    tower = net.part(NAMES, f"{prefix}audio_encoder.", inner)
    layout = layout_of(tower.config)
    grid = [side // item for item in stride]
    if ratio < 1 or ratio * bins != side:
        raise config.refuse("num_mel_bins", f"a divisor of spec_size, {side}", bins)
    if grid[0] != grid[1] or grid[0] % (layout.window << len(layout.depths) - 1) or grid[0] * stride[0] != side:
        raise config.refuse("spec_size", f"{layout.window}·2^n patches, so that the last map is of whole windows", side)
    for name, known in (("fusion_type", ("aff_2d",) if fused else (config.get("fusion_type"),)), ("flatten_patch_embeds", (True,)),
                        ("enable_patch_layer_norm", (True,)), ("hidden_size", (width << len(layout.depths) - 1,))):
        config.only(name, *known)
    for name in ("num_classes", "drop_path_rate", "aff_block_r", "num_hidden_layers", "initializer_factor"):
        config.get(name)  # of another head, of training, and of what not all have
    if fused and channels != 1:
        raise config.refuse("patch_embed_input_channels", "1 where crops are joined to the whole", channels)
    net.b.dims.update({batch: DimRange(1), "frames": DimRange(1, side * ratio)})
    x = net.b.input("input_features", net.dtype, [batch, 4 if fused else channels, "frames", bins])
    x = net.op("permute_dims", tower.batch_norm(net.op("permute_dims", x, axes=(0, 3, 2, 1)), "bins_norm"), axes=(0, 3, 2, 1))
    x = net.op("interpolate", x, size=(side * ratio, bins), mode="cubic", align_corners=True)
    count, many = x.shape[0], x.shape[1]
    # Stretches of the sound, one above another.
    x = net.op("permute_dims", net.op("reshape", x, shape=(count, many * ratio, side, bins)), axes=(0, 1, 3, 2))
    x = net.op("reshape", x, shape=(count, many, side, side))
    padding = ((kernel[0] - stride[0]) // 2, (kernel[1] - stride[1]) // 2)

    def convolved(x: Value, role: str, times: int) -> Value:
        weight = tower.tensor(role, (width, x.shape[1], kernel[0], times * kernel[1]))
        bias, steps = tower.tensor(role, (width,), "bias"), (stride[0], times * stride[1])
        return net.op("convolution", x, weight, bias, stride=steps, padding=padding)

    if fused:
        x, crops = net.b.add("split", (x,), {"sizes": (1, 3), "axis": 1}, names=("whole", "crops"))
        crops = net.op("reshape", crops, shape=(3 * count, 1, side, side))
        x = _fused(net, tower, convolved(x, "patches", 1), convolved(crops, "crops", 3))
    else:
        x = convolved(x, "patches", 1)
    x = tower.layer_norm(net.op("permute_dims", x, axes=(0, 2, 3, 1)), "patch_norm", EPS)
    x = tower.layer_norm(stages(tower, x, layout), "norm", EPS)
    _, rows, columns, last = x.shape
    # The stretches beside each other.
    short = rows // ratio
    if ratio * short != rows:
        raise config.refuse("num_mel_bins", f"one for which the last map, {rows} high, is of {ratio} stretches", bins)
    found = net.op("permute_dims", net.op("reshape", x, shape=(count, ratio, short, columns, last)), axes=(0, 4, 2, 1, 3))
    return net.op("reshape", found, shape=(count, last, short, ratio * columns)), net.op("mean", x, axis=(1, 2))


def _fused(net: Net, tower: Net, whole: Value, crops: Value) -> Value:
    """The map of sounds, of those that are longer than it joined with the maps of three crops side by side."""
    (batch, _, rows, columns), width = whole.shape, fixed(whole.shape[1])
    if not net.takes(LONGER):
        raise UnsupportedError(f"crops of longer sounds are joined to the whole: the model needs the input {LONGER!r}", where="take")
    longer = net.op("reshape", net.b.input(LONGER, DType.BOOL, [batch, 1]), shape=(batch, 1, 1, 1))
    across = crops.shape[3]
    crops = net.op("reshape", crops, shape=(batch, 3, width, rows, across))
    crops = net.op("reshape", net.op("permute_dims", crops, axes=(0, 2, 3, 1, 4)), shape=(batch, width, rows, 3 * across))
    crops = net.op("pad", crops, pads=((0, 0), (0, 0), (0, 0), (0, columns - 3 * across)))
    both, inner = net.op("add", whole, crops), width // tower.config.size("aff_block_r", 4)

    def weighed(x: Value, role: str) -> Value:
        x = tower.convolution(x, f"{role}_in", inner, 1, bias=True)
        x = tower.convolution(net.op("relu", tower.batch_norm(x, f"{role}_in_norm")), f"{role}_out", width, 1, bias=True)
        return tower.batch_norm(x, f"{role}_out_norm")

    share = net.op("sigmoid", net.op("add", weighed(both, "local"), weighed(net.op("mean", both, axis=(2, 3), keepdims=True), "whole")))
    kept, added = (net.op("multiply", net.op("multiply", x, 2.0), part) for x, part in (
        (whole, share), (crops, net.op("subtract", 1.0, share))))
    return net.op("where", longer, net.op("add", kept, added), whole)


def _projected(net: Net, config: Config, x: Value, tower: str) -> Value:
    width, activation = config.size("projection_dim"), config.choice("projection_hidden_act", ACTIVATIONS)
    return net.linear(net.activation(net.linear(x, f"{tower}_in", width), activation), f"{tower}_out", width)


def build(net: Net, task: str) -> None:
    config = net.config
    given = {name: config.get(name, usual) for name, usual in (("projection_dim", 512), ("projection_hidden_act", "relu"))}
    texts, sounds = (part(config, name, defaults) for name, defaults in (("text_config", TEXT_DEFAULTS), ("audio_config", SOUND_DEFAULTS)))
    for tower in (texts, sounds):
        for name in given:
            tower.get(name)
        tower.fields.update(given)  # which those of both together stand above
    for name in ("logit_scale_init_value", "hidden_size", "num_hidden_layers"):
        config.get(name)
    words = pooled(net.part(bert.NAMES, TEXT, texts), _text(net, texts, TEXT, "texts"))
    text, sound = unit(net, _projected(net, texts, words, "text")), unit(net, _projected(
        net, sounds, _sound(net, sounds, SOUND, "sounds")[1], "audio"))
    for name, first, second, scale in (("logits_per_audio", sound, text, "audio_scale"), ("logits_per_text", text, sound, "text_scale")):
        net.output(name, net.op("multiply", net.op("linear", first, second), net.op("exp", net.tensor(scale, (), ""))))
    net.output("text_embeds", text)
    net.output("audio_embeds", sound)


def build_text(net: Net, task: str) -> None:
    config = net.config.over(TEXT_DEFAULTS)
    prefix = tower_of(net, TEXT)
    tower, x = net.part(bert.NAMES, prefix, config), _text(net, config, prefix)
    for name in ("projection_dim", "projection_hidden_act", "initializer_factor"):
        config.get(name)
    if task == "text-embedding":
        net.output("text_embeds", _projected(net, config, pooled(tower, x), "text"))
        net.output("last_hidden_state", x)
    else:
        plain_head(tower, x)


def build_sound(net: Net, task: str) -> None:
    config = net.config.over(SOUND_DEFAULTS)
    x, mean = _sound(net, config, tower_of(net, SOUND))
    for name in ("projection_dim", "projection_hidden_act"):
        config.get(name)
    if task == "audio-embedding":
        net.output("audio_embeds", _projected(net, config, mean, "audio"))
        net.output("last_hidden_state", x)
    else:
        net.output("last_hidden_state", x)
        net.output("pooler_output", mean)


WORDS, FEATURES = ("input_ids", "attention_mask"), ("input_features", LONGER)
LEFTOVERS = (COUNTERS, "*embeddings.position_ids", "*embeddings.token_type_ids", "*.relative_position_index", "text_projection.*",
             "audio_projection.*", "logit_scale_*", "text_model.*", "audio_model.*", "pooler.*")
BOTH = Family(classes={"clap": "Clap"}, names=NAMES, heads=HEADS, build=build, leftovers=LEFTOVERS, inputs=(*WORDS, *FEATURES),
              optional=("position_ids",), tasks={"zero-shot-audio-classification": "Model"})
ONLY_TEXT = Family(classes={"clap_text_model": "ClapText"}, names=NAMES, heads=HEADS, build=build_text, leftovers=LEFTOVERS, inputs=WORDS,
                   optional=("position_ids",), tasks={"feature-extraction": "Model", "text-embedding": "ModelWithProjection"})
ONLY_SOUND = Family(classes={"clap_audio_model": "ClapAudio"}, names=NAMES, heads=HEADS, build=build_sound, leftovers=LEFTOVERS,
                    inputs=FEATURES, tasks={"audio-feature-extraction": "Model", "audio-embedding": "ModelWithProjection"})
