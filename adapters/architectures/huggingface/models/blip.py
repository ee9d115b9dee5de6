"""BLIP (Li et al. 2022) and Chinese CLIP (Yang et al. 2022): image encoders beside text encoders of BERT's kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.encoders import attended, embed, feed_forward, padding_mask, plain_positions, pooled
from adapters.architectures.huggingface.layers.encoders import sizes as text_sizes
from adapters.architectures.huggingface.layers.vision import image, layer, patches, pixels, sizes, with_tokens
from adapters.architectures.huggingface.models.bert import NAMES as BERT
from adapters.architectures.huggingface.models.clip import HEADS as CLIP_HEADS
from adapters.architectures.huggingface.models.clip import (
    IMAGE,
    IMAGE_DEFAULTS,
    TEXT,
    WORDS,
    compared,
    image_tower,
    part,
    text_words,
    tower_of,
    unit,
)
from adapters.architectures.huggingface.models.clip import NAMES as CLIP
from adapters.architectures.huggingface.net import Net
from converter.builder import Value

MATCHING = "image-text-matching"
CROSS = "encoder.layer.{layer}.crossattention"
WORD_NAMES = {
    **BERT,
    "cross_query": f"{CROSS}.self.query",
    "cross_key": f"{CROSS}.self.key",
    "cross_value": f"{CROSS}.self.value",
    "cross_out": f"{CROSS}.output.dense",
    "cross_norm": f"{CROSS}.output.LayerNorm",
}
IMAGE_NAMES = {
    "class": "embeddings.class_embedding",
    "patches": "embeddings.patch_embedding",
    "positions": "embeddings.position_embedding",
    "attention_norm": "encoder.layers.{layer}.layer_norm1",
    "qkv": "encoder.layers.{layer}.self_attn.qkv",
    "attention_out": "encoder.layers.{layer}.self_attn.projection",
    "inner_norm": "encoder.layers.{layer}.layer_norm2",
    "inner": "encoder.layers.{layer}.mlp.fc1",
    "outer": "encoder.layers.{layer}.mlp.fc2",
    "norm": "post_layernorm",
}
CROSSED = ("cross_query", "cross_key", "cross_value", "cross_out", "cross_norm")
HEADS = {**CLIP_HEADS, "match": "itm_head"}
LEFTOVERS = ("text_model.*", "vision_model.*", "text_encoder.*", "*embeddings.position_ids", "text_projection.*", "visual_projection.*",
             "logit_scale", "vision_proj.*", "text_proj.*", "itm_head.*", "pooler.*", "encoder.layer.*.crossattention.*", "classifier.*")
COMMON: Mapping[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "hidden_act": "gelu"}
TEXT_DEFAULTS: Mapping[str, Any] = {**COMMON, "vocab_size": 30524, "num_attention_heads": 8, "max_position_embeddings": 512,
                                    "layer_norm_eps": 1e-12, "is_decoder": True}
PICTURE_DEFAULTS: Mapping[str, Any] = {**COMMON, "num_attention_heads": 12, "image_size": 384, "patch_size": 16, "layer_norm_eps": 1e-5}
CHINESE_DEFAULTS: Mapping[str, Any] = {**TEXT_DEFAULTS, "vocab_size": 30522, "num_attention_heads": 12, "type_vocab_size": 2}


# Texts -------------------------------------------------------------------------------------------------------------------


def _text(net: Net, config: Config, prefix: str, batch: str = "batch", image: Value | None = None, *, types: bool = False) -> Value:
    """[batch, time, width]; with an `image`, [batch, patches, width], each layer sees that too."""
    tower = net.part(WORD_NAMES, prefix, config)
    config.only("position_embedding_type", "absolute")
    names = ("attention_mask", "position_ids", *(["token_type_ids"] if types else []))
    ids, given = text_words(net, config.size("max_position_embeddings"), batch, names=names), text_sizes(config)
    width = config.size("hidden_size")
    x, mask = embed(tower, ids, width, lambda: plain_positions(tower, ids, width), types=types, eps=given.eps), padding_mask(tower)
    for index in range(config.size("num_hidden_layers")):
        x = attended(tower, x, x, mask, given, layer=index)
        if image is not None:
            x = attended(tower, x, image, None, given, CROSSED, layer=index)
        x = feed_forward(tower, x, given, f"text_layer_{index}", layer=index)
    return x


# Images ------------------------------------------------------------------------------------------------------------------


def _image(net: Net, config: Config, prefix: str, batch: str = "batch") -> Value:
    """All patches after the class token, normalised: [batch, 1 + patches, width]. Images have 3 channels whatever a config says."""
    for name in ("image_size", "patch_size"):
        config.size(name)
    tower, given = net.part(IMAGE_NAMES, prefix, config), image(Config({**config.fields, "num_channels": 3}, config.where))
    width, layout = config.size("hidden_size"), sizes(config, eps=1e-5)
    x = with_tokens(tower, patches(tower, pixels(net, given, batch=batch), given, width), tower.tensor("class", (1, 1, width), ""))
    x = net.op("add", x, tower.tensor("positions", (1, x.shape[1], width), ""), name="image_embeddings")
    for index in range(config.size("num_hidden_layers")):
        x = layer(tower, x, layout, f"image_layer_{index}", layer=index)
    return tower.layer_norm(x, "norm", layout.eps)


def _whole(net: Net, config: Config, prefix: str, x: Value) -> Value:
    """The class token, normalised a second time."""
    tower = net.part(IMAGE_NAMES, prefix, config)
    weight, bias = (Value(tower.name("norm", ending), net.b.specs[tower.name("norm", ending)]) for ending in ("weight", "bias"))
    return net.op("layer_norm", net.first(x), weight, bias, normalized_shape=(x.shape[-1],), eps=config.number("layer_norm_eps"))


# Heads -------------------------------------------------------------------------------------------------------------------


def build(net: Net, task: str) -> None:
    config = net.config
    texts, images = part(config, "text_config", TEXT_DEFAULTS), part(config, "vision_config", PICTURE_DEFAULTS)
    for name in ("is_decoder", "encoder_hidden_size"):
        texts.get(name)  # of captions; and the width of the images' tower, which the shapes have to fit
    for name in ("logit_scale_init_value", "image_text_hidden_size", "label_smoothing", "tie_word_embeddings"):
        config.get(name)
    width = config.size("projection_dim", 512)
    if task == MATCHING:
        x = _image(net, images, IMAGE)
        words = _text(net, texts, "text_encoder.", image=x)
        net.output("itm_score", net.linear(net.first(words), "match", 2))
        net.output("last_hidden_state", x)
        net.output("question_embeds", words)
        return
    x = _image(net, images, IMAGE, "images")
    shown = net.linear(_whole(net, images, IMAGE, x), "image_projection", width, bias=False)
    words = _text(net, texts, TEXT, "texts")
    text = net.linear(pooled(net.part(WORD_NAMES, TEXT, texts), words), "text_projection", width, bias=False)
    compared(net, unit(net, text), unit(net, shown))


def build_text(net: Net, task: str) -> None:
    config = net.config.over(TEXT_DEFAULTS)
    for name in ("encoder_hidden_size", "projection_dim", "label_smoothing", "is_decoder"):
        config.get(name)
    x = _text(net, config, net.prefix)
    net.output("last_hidden_state", x)
    if net.has("pooler"):
        net.output("pooler_output", pooled(net, x))


def build_image(net: Net, task: str) -> None:
    config = net.config.over(PICTURE_DEFAULTS)
    config.get("projection_dim")
    prefix = tower_of(net, IMAGE)
    x = _image(net, config, prefix)
    net.output("last_hidden_state", x)
    net.output("pooler_output", _whole(net, config, prefix, x))


def build_chinese(net: Net, task: str) -> None:
    """CLIP's image encoder; of a text the first word, without the pooler."""
    config = net.config
    texts, images = part(config, "text_config", CHINESE_DEFAULTS), part(config, "vision_config", IMAGE_DEFAULTS)
    config.get("logit_scale_init_value")
    width = config.size("projection_dim", 512)
    words = _text(net, texts, TEXT, "texts", types=True)
    _, picture = image_tower(net, images, IMAGE, "images")
    text = unit(net, net.linear(net.first(words), "text_projection", width, bias=False))
    compared(net, text, unit(net, net.linear(picture, "image_projection", width, bias=False)))


PIXELS = ("pixel_values",)
BOTH = Family(
    classes={"blip": "Blip"}, names={}, heads=HEADS, build=build, leftovers=LEFTOVERS, inputs=(*WORDS, *PIXELS), optional=("position_ids",),
    tasks={"zero-shot-image-classification": "Model", MATCHING: "ForImageTextRetrieval"})
ONLY_TEXT = Family(classes={"blip_text_model": "BlipText"}, names=WORD_NAMES, build=build_text, leftovers=LEFTOVERS, inputs=WORDS,
                   optional=("position_ids",), tasks={"feature-extraction": "Model"})
ONLY_IMAGE = Family(classes={"blip_vision_model": "BlipVision"}, names=IMAGE_NAMES, build=build_image, leftovers=LEFTOVERS, inputs=PIXELS,
                    tasks={"image-feature-extraction": "Model"})
CHINESE = replace(BOTH, classes={"chinese_clip": "ChineseCLIP"}, names=CLIP, build=build_chinese,
                  optional=("position_ids", "token_type_ids"),
                  tasks={"zero-shot-image-classification": "Model"})
