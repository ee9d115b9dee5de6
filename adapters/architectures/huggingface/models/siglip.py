"""SigLIP (Zhai et al. 2023) and SigLIP 2 (Tschannen et al. 2025), whose own type takes images of any shape as rows of patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.encoders import taken
from adapters.architectures.huggingface.layers.vision import Sizes, image, layer, patches, pixels, sizes
from adapters.architectures.huggingface.models.clip import IMAGE, TEXT, WORDS, compared, part, text_tower, tower_of, unit
from adapters.architectures.huggingface.models.clip import NAMES as CLIP
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed
from converter.errors import UnsupportedError
from converter.ir import DType

NAMES = {
    **CLIP,
    "text_head": "{tower}head",
    "probe": "{tower}head.probe",
    "probe_maps": "{tower}head.attention.in_proj_weight",
    "probe_biases": "{tower}head.attention.in_proj_bias",
    "probe_out": "{tower}head.attention.out_proj",
    "probe_norm": "{tower}head.layernorm",
    "probe_inner": "{tower}head.mlp.fc1",
    "probe_outer": "{tower}head.mlp.fc2",
}
HEADS = {"scale": "logit_scale", "offset": "logit_bias", "classifier": "classifier"}
LEFTOVERS = ("text_model.*", "vision_model.*", "*embeddings.position_ids", "logit_scale", "logit_bias", "classifier.*", "head.*")
SHAPES, MASK = "spatial_shapes", "pixel_attention_mask"

COMMON: Mapping[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                             "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
TEXT_DEFAULTS: Mapping[str, Any] = {**COMMON, "vocab_size": 32000, "max_position_embeddings": 64}
IMAGE_DEFAULTS: Mapping[str, Any] = {**COMMON, "num_channels": 3, "image_size": 224, "patch_size": 16, "num_patches": 256,
                                     "vision_use_head": True}


@dataclass(frozen=True, slots=True)
class Seen:
    """An image's words [batch, patches, width], which of them are of the image, and the vector of the whole where there is one."""

    words: Value
    visible: Value | None
    whole: Value | None


def _text(net: Net, config: Config, tower: str, batch: str = "batch") -> tuple[Value, Value]:
    """All words, and a map of the last one, whatever it is."""
    _, x = text_tower(net, config, tower, batch, causal=False)
    width = config.optional_size("projection_size") or config.size("hidden_size")
    return x, net.linear(net.op("select", x, axis=1, index=-1), "text_head", width, tower=tower)


def _image(net: Net, config: Config, tower: str, batch: str = "batch") -> Seen:
    width, layout, rows = config.size("hidden_size"), sizes(config), "siglip2" in str(net.config.get("model_type"))
    visible = mask = None
    if rows:
        x = _rows(net, config, width, tower, batch)
        given = taken(net, MASK)
        if given is not None:
            visible = net.cast(given, DType.BOOL)
            mask = net.op("reshape", visible, shape=(given.shape[0], 1, 1, given.shape[1]))
    else:
        for name in ("image_size", "patch_size"):
            config.size(name)
        found = image(config)
        x = patches(net, pixels(net, found, batch=batch), found, width, tower=tower)
        x = net.op("add", x, net.tensor("positions", (found.grid[0]**2, width), tower=tower), name="image_embeddings")
    for index in range(config.size("num_hidden_layers")):
        x = layer(net, x, layout, f"image_layer_{index}", mask, layer=index, tower=tower)
    x = net.layer_norm(x, "image_norm", layout.eps, tower=tower)
    return Seen(x, visible, _probed(net, x, layout, mask, tower) if config.flag("vision_use_head", True) else None)


def _probed(net: Net, x: Value, layout: Sizes, mask: Value | None, tower: str) -> Value:
    """What a learned query sees, and a feed-forward part added to it: [batch, width]."""
    batch, width = x.shape[0], fixed(x.shape[-1])
    weights = net.tensor("probe_maps", (3 * width, width), "", tower=tower)
    biases = net.tensor("probe_biases", (3 * width,), "", tower=tower)
    split = {"sizes": (width,) * 3, "axis": 0}
    maps = zip(net.b.add("split", (weights,), split, names=("probe_query", "probe_key", "probe_value")),
               net.b.add("split", (biases,), split, names=("query_bias", "key_bias", "value_bias")), strict=True)
    probe = net.op("broadcast_to", net.tensor("probe", (1, 1, width), "", tower=tower), shape=(batch, 1, width))
    query, key, value = (net.split_heads(net.op("linear", words, *map_), layout.heads)
                         for words, map_ in zip((probe, x, x), maps, strict=True))
    y = net.linear(net.join_heads(net.op("scaled_dot_product_attention", query, key, value, mask)), "probe_out", width, tower=tower)
    inner = net.linear(net.layer_norm(y, "probe_norm", layout.eps, tower=tower), "probe_inner", layout.inner, tower=tower)
    part = net.linear(net.activation(inner, ACTIVATIONS[layout.activation]), "probe_outer", width, tower=tower)
    return net.first(net.op("add", y, part))


# Rows of patches ---------------------------------------------------------------------------------------------------------


def _rows(net: Net, config: Config, width: int, tower: str, batch: str) -> Value:
    """Patches of images of several shapes, [batch, patches, channels · side²], each with its place on a grid that is resized.

    `spatial_shapes` [batch, 2] are the rows and columns of patches of each image; those after them have the first one's place.
    """
    side, inner = config.size("num_patches"), config.size("num_channels", 3) * config.size("patch_size")**2
    root = int(side**0.5)
    if root * root != side:
        raise config.refuse("num_patches", "a square", side)
    if not net.takes(SHAPES):
        raise UnsupportedError(f"the model needs the input {SHAPES!r}", where="take")
    net.dim(batch, None)
    net.dim("patches", None)
    rows = net.b.input("pixel_values", net.dtype, [batch, "patches", inner])
    if net.takes(MASK):
        net.b.input(MASK, DType.INT64, [batch, "patches"])
    shapes = net.b.input(SHAPES, DType.INT64, [batch, 2])
    x = net.op("linear", rows, net.tensor("patches", (width, inner), tower=tower), net.tensor("patches", (width,), "bias", tower=tower))
    high, across = (net.op("slice", shapes, axes=(1,), starts=(axis,), stops=(axis + 1,)) for axis in range(2))
    place = net.op("arange", stop=rows.shape[1], dtype=DType.INT64)
    place = net.op("where", net.op("less", place, net.op("multiply", high, across)), place, 0)
    row = net.op("floor_divide", place, across)
    column = net.op("subtract", place, net.op("multiply", row, across))
    count = rows.shape[:2]
    down = net.op("expand_dims", _shares(net, root, row, high), axis=(3,))
    right = net.op("expand_dims", _shares(net, root, column, across), axis=(2,))
    shares = net.op("reshape", net.op("multiply", down, right), shape=(*count, side))
    table = net.tensor("positions", (side, width), tower=tower)
    return net.op("add", x, net.cast(net.op("matmul", shares, net.cast(table, shares.dtype))), name="image_embeddings")


def _shares(net: Net, side: int, index: Value, total: Value) -> Value:
    """How much each of `side` positions counts at an index of `total`: bilinear with antialias. [batch, patches, side].

    The triangle of max(side / total, 1) on both sides of (index + 0.5) · side / total, made to add up to 1.
    """
    ratio = net.op("divide", net.op("full", shape=(), fill_value=side, dtype=net.wide), net.cast(total, net.wide))
    centre = net.op("multiply", net.op("add", net.cast(index, net.wide), 0.5), ratio)
    batch, count = centre.shape
    places = net.op("add", net.cast(net.op("arange", stop=side, dtype=DType.INT64), net.wide), 0.5)
    apart = net.op("abs", net.op("subtract", places, net.op("reshape", centre, shape=(batch, count, 1))))
    reach = net.op("expand_dims", net.op("maximum", ratio, 1.0), axis=(2,))
    found = net.op("relu", net.op("subtract", 1.0, net.op("divide", apart, reach)))
    return net.op("divide", found, net.op("sum", found, axis=(2,), keepdims=True))


# Heads -------------------------------------------------------------------------------------------------------------------


def build(net: Net, task: str) -> None:
    config = net.config
    texts, images = part(config, "text_config", TEXT_DEFAULTS), part(config, "vision_config", IMAGE_DEFAULTS)
    if task == "image-classification":
        seen = _image(net, images, IMAGE)
        net.output("logits", net.linear(_mean(net, seen), "classifier", config.labels()))
    elif task == "text-embedding":
        _vectors(net, *_text(net, texts, TEXT))
    elif task == "image-embedding":
        seen = _image(net, images, IMAGE)
        _vectors(net, seen.words, seen.whole)
    else:
        _, text = _text(net, texts, TEXT, "texts")
        shown = _image(net, images, IMAGE, "images").whole
        if shown is None:
            raise images.refuse("vision_use_head", "true", False)
        compared(net, unit(net, text), unit(net, shown), (1,), offset=True)


def _vectors(net: Net, x: Value, whole: Value | None) -> None:
    net.output("last_hidden_state", x)
    if whole is not None:
        net.output("pooler_output", whole)


def _mean(net: Net, seen: Seen) -> Value:
    """The mean of the image's words."""
    if seen.visible is None:
        return net.op("mean", seen.words, axis=(1,))
    shown = net.op("expand_dims", net.cast(seen.visible), axis=(2,))
    return net.op("divide", net.op("sum", net.op("multiply", seen.words, shown), axis=(1,)), net.op("sum", shown, axis=(1,)))


def build_text(net: Net, task: str) -> None:
    config = net.config.over(TEXT_DEFAULTS)
    _vectors(net, *_text(net, config, tower_of(net, TEXT)))


def build_image(net: Net, task: str) -> None:
    config = net.config.over(IMAGE_DEFAULTS)
    seen = _image(net, config, tower_of(net, IMAGE))
    _vectors(net, seen.words, seen.whole)


PIXELS: tuple[str, ...] = ("pixel_values",)
ROWS = ("pixel_values", MASK, SHAPES)
BOTH = Family(
    classes={"siglip": "Siglip"}, names=NAMES, heads=HEADS, build=build, leftovers=LEFTOVERS, inputs=(*WORDS, *PIXELS),
    optional=("position_ids",),
    tasks={"zero-shot-image-classification": "Model", "image-classification": "ForImageClassification", "text-embedding": "TextModel",
           "image-embedding": "VisionModel"})
ONLY_TEXT = Family(classes={"siglip_text_model": "SiglipText", "siglip2_text_model": "Siglip2Text"}, names=NAMES, build=build_text,
                   leftovers=LEFTOVERS, inputs=WORDS, optional=("position_ids",), tasks={"feature-extraction": "Model"})
ONLY_IMAGE = Family(classes={"siglip_vision_model": "SiglipVision"}, names=NAMES, build=build_image, leftovers=LEFTOVERS, inputs=PIXELS,
                    tasks={"image-feature-extraction": "Model"})
BOTH2 = replace(BOTH, classes={"siglip2": "Siglip2"}, inputs=(*WORDS, *ROWS))
ONLY_IMAGE2 = replace(ONLY_IMAGE, classes={"siglip2_vision_model": "Siglip2Vision"}, inputs=ROWS)
