"""CLIP (Radford et al. 2021): an image and a text encoder, together or alone, and a classifier on the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.encoders import padding_mask, taken
from adapters.architectures.huggingface.layers.vision import image, layer, patches, pixels, resized, sizes, with_tokens
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import Dim
from converter.errors import UnsupportedError
from converter.ir import DimRange, DType

NAMES = {
    "words": "{tower}embeddings.token_embedding",
    "positions": "{tower}embeddings.position_embedding",
    "class": "{tower}embeddings.class_embedding",
    "patches": "{tower}embeddings.patch_embedding",
    "first_norm": "{tower}pre_layrnorm",
    "attention_norm": "{tower}encoder.layers.{layer}.layer_norm1",
    "query": "{tower}encoder.layers.{layer}.self_attn.q_proj",
    "key": "{tower}encoder.layers.{layer}.self_attn.k_proj",
    "value": "{tower}encoder.layers.{layer}.self_attn.v_proj",
    "attention_out": "{tower}encoder.layers.{layer}.self_attn.out_proj",
    "inner_norm": "{tower}encoder.layers.{layer}.layer_norm2",
    "inner": "{tower}encoder.layers.{layer}.mlp.fc1",
    "outer": "{tower}encoder.layers.{layer}.mlp.fc2",
    "text_norm": "{tower}final_layer_norm",
    "image_norm": "{tower}post_layernorm",
}

HEADS = {"text_projection": "text_projection", "image_projection": "visual_projection", "scale": "logit_scale", "classifier": "classifier"}
TEXT, IMAGE = "text_model.", "vision_model."
LEFTOVERS = ("text_model.*", "vision_model.*", "embeddings.position_ids", "text_projection.*", "visual_projection.*", "logit_scale",
             "classifier.*")

# The classes' own values, which a `…_config_dict` of older files resets fields to.
TEXT_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "projection_dim": 512, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49407}
IMAGE_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "projection_dim": 512, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def part(config: Config, name: str, defaults: Mapping[str, Any]) -> Config:
    """A nested config, with what is not in it."""
    fields, reset = config.get(name) or {}, config.get(f"{name}_dict")
    for value in (fields, reset):
        if value is not None and not isinstance(value, dict):
            raise config.refuse(name, "an object", value)
    found = config.nested(name, {**fields, **({**defaults, **reset} if reset is not None else {})}, defaults)
    found.get("projection_dim")  # of a tower alone: that of both together is the outer one
    return found


def tower_of(net: Net, name: str) -> str:
    """What precedes a tower's names: a tower alone is saved with or without it."""
    return name if any(held.startswith(name) for held in net.held) else ""


def text_words(net: Net, longest: int, batch: str = "batch", *, names: tuple[str, ...] = ("attention_mask", "position_ids")) -> Value:
    """Declares the inputs of a text, `input_ids` and those of `names` that the graph takes, int64 [batch, time]; gives the first."""
    net.dim(batch, None)
    net.dim("time", longest)
    for name in ("input_ids", *names):
        if net.takes(name):
            net.b.input(name, DType.INT64, [batch, "time"])
    if not net.takes("input_ids"):
        raise UnsupportedError("the model needs the input 'input_ids'", where="take")
    return Value("input_ids", net.b.specs["input_ids"])


def text_tower(net: Net, config: Config, tower: str, batch: str = "batch", causal: bool = True) -> tuple[Value, Value]:
    """The numbers of the words [batch, time], and what is made of them, [batch, time, width]."""
    width, layout, longest = config.size("hidden_size"), sizes(config), config.size("max_position_embeddings")
    ids = text_words(net, longest, batch)
    table = net.tensor("positions", (longest, width), tower=tower)
    given = taken(net, "position_ids")
    places = (net.op("slice", table, axes=(0,), starts=(0,), stops=(ids.shape[1],)) if given is None
              else net.op("embedding", given, table))
    x = net.op("add", net.embedding(ids, "words", config.size("vocab_size"), width, tower=tower), places, name="text_embeddings")
    visible = padding_mask(net)
    for index in range(config.size("num_hidden_layers")):
        x = layer(net, x, layout, f"text_layer_{index}", visible, causal=causal, layer=index, tower=tower)
    return ids, net.layer_norm(x, "text_norm", layout.eps, tower=tower)


def text_and_end(net: Net, config: Config, tower: str, batch: str = "batch") -> tuple[Value, Value]:
    """All words [batch, time, width], and the one at the end of the text [batch, width]."""
    ids, x = text_tower(net, config, tower, batch)
    end = config.size("eos_token_id", least=0)
    # Files with 2 are older than the field's meaning: the last word of a text has the highest number.
    marked = ids if end == 2 else net.cast(net.op("equal", ids, end), DType.INT64)
    return x, net.at(x, net.op("argmax", marked, axis=1, keepdims=True))


def image_tower(net: Net, config: Config, tower: str, batch: str = "batch") -> tuple[Value, Value]:
    """All patches after the class token [batch, 1 + patches, width], and the class token normalised [batch, width]."""
    states, pooled = image_states(net, config, tower, batch)
    return states[-1], pooled


def image_states(net: Net, config: Config, tower: str, batch: str = "batch", side: Dim | None = None) -> tuple[list[Value], Value]:
    """The words before the first layer and after each, and the class token normalised. side: of images whose positions are resized."""
    given, width = image(config, 224, 32), config.size("hidden_size")
    if given.height != given.width or given.patch_height != given.patch_width:
        raise config.refuse("image_size", "squares", config.get("image_size"))
    layout = sizes(config, eps=1e-5, activation="quick_gelu")
    token = net.op("reshape", net.tensor("class", (width,), "", tower=tower), shape=(1, 1, width))
    x = patches(net, pixels(net, given, height=side, width=side, batch=batch), given, width, bias=False, tower=tower)
    x = with_tokens(net, x, token)
    count = given.grid[0] * given.grid[1]
    places = net.tensor("positions", (count + 1, width), tower=tower)
    if side is not None:
        net.b.dims[str(side)] = DimRange(given.patch_height)
        places = net.op("expand_dims", places, axis=(0,))
        own, rest = net.b.add("split", (places,), {"sizes": (1, count), "axis": 1}, names=("own", "rest"))
        places = net.op("concat", own, resized(net, rest, given.grid, (side // given.patch_height,) * 2, mode="cubic"), axis=1)
    states = [net.layer_norm(net.op("add", x, places, name="image_embeddings"), "first_norm", layout.eps, tower=tower)]
    for index in range(config.size("num_hidden_layers")):
        states.append(layer(net, states[-1], layout, f"image_layer_{index}", layer=index, tower=tower))
    return states, net.layer_norm(net.first(states[-1]), "image_norm", layout.eps, tower=tower)


def unit(net: Net, x: Value) -> Value:
    return net.op("divide", x, net.op("vector_norm", x, axis=(-1,), keepdims=True))


def build(net: Net, task: str) -> None:
    config = net.config
    texts, images = part(config, "text_config", TEXT_DEFAULTS), part(config, "vision_config", IMAGE_DEFAULTS)
    width = config.size("projection_dim", 512)
    config.get("logit_scale_init_value")
    if task == "text-embedding":
        _, pooled = text_and_end(net, texts, TEXT)
        net.output("text_embeds", net.linear(pooled, "text_projection", width, bias=False))
    elif task == "image-embedding":
        _, pooled = image_tower(net, images, IMAGE)
        net.output("image_embeds", net.linear(pooled, "image_projection", width, bias=False))
    elif task == "image-classification":
        x, _ = image_tower(net, images, IMAGE)
        mean = net.op("mean", net.op("slice", x, axes=(1,), starts=(1,), stops=(None,)), axis=(1,))
        net.output("logits", net.linear(mean, "classifier", config.labels()))
    else:
        _, words = text_and_end(net, texts, TEXT, "texts")
        _, picture = image_tower(net, images, IMAGE, "images")
        text = unit(net, net.linear(words, "text_projection", width, bias=False))
        shown = unit(net, net.linear(picture, "image_projection", width, bias=False))
        compared(net, text, shown)


def compared(net: Net, text: Value, shown: Value, shape: tuple[int, ...] = (), offset: bool = False) -> None:
    """Each text with each image, both of length 1: the products times the scale, and with what is added to them."""
    scores = net.op("multiply", net.op("linear", text, shown), net.op("exp", net.tensor("scale", shape, "")))
    if offset:
        scores = net.op("add", scores, net.tensor("offset", shape, ""))
    net.output("logits_per_image", net.op("permute_dims", scores, axes=(1, 0)))
    net.output("logits_per_text", scores)
    net.output("text_embeds", text)
    net.output("image_embeds", shown)


def build_text(net: Net, task: str) -> None:
    config = net.config.over(TEXT_DEFAULTS)
    x, pooled = text_and_end(net, config, tower_of(net, TEXT))
    if task == "text-embedding":
        net.output("text_embeds", net.linear(pooled, "text_projection", config.size("projection_dim"), bias=False))
        net.output("last_hidden_state", x)
    else:
        net.output("last_hidden_state", x)
        net.output("pooler_output", pooled)
    config.get("projection_dim")


def build_image(net: Net, task: str) -> None:
    config = net.config.over(IMAGE_DEFAULTS)
    x, pooled = image_tower(net, config, tower_of(net, IMAGE))
    if task == "image-embedding":
        net.output("image_embeds", net.linear(pooled, "image_projection", config.size("projection_dim"), bias=False))
        net.output("last_hidden_state", x)
    else:
        net.output("last_hidden_state", x)
        net.output("pooler_output", pooled)
    config.get("projection_dim")


WORDS = ("input_ids", "attention_mask")
BOTH = Family(
    classes={"clip": "CLIP"}, names=NAMES, heads=HEADS, build=build, leftovers=LEFTOVERS, inputs=(*WORDS, "pixel_values"),
    optional=("position_ids",),
    tasks={"zero-shot-image-classification": "Model", "image-classification": "ForImageClassification",
           "text-embedding": "TextModelWithProjection", "image-embedding": "VisionModelWithProjection"})
ONLY_TEXT = Family(classes={"clip_text_model": "CLIPText"}, names=NAMES, heads=HEADS, build=build_text, leftovers=LEFTOVERS, inputs=WORDS,
                   optional=("position_ids",), tasks={"feature-extraction": "Model", "text-embedding": "ModelWithProjection"})
ONLY_IMAGE = Family(classes={"clip_vision_model": "CLIPVision"}, names=NAMES, heads=HEADS, build=build_image, leftovers=LEFTOVERS,
                    inputs=("pixel_values",), tasks={"image-feature-extraction": "Model", "image-embedding": "ModelWithProjection"})
