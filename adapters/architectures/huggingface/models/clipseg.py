"""CLIPSeg (Lüddecke and Ecker 2022): CLIP, and a small decoder that paints what a text says of an image."""

from __future__ import annotations

from typing import Any

from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers import encoders
from adapters.architectures.huggingface.layers.vision import as_map, several
from adapters.architectures.huggingface.models import clip
from adapters.architectures.huggingface.models.clip import (
    IMAGE,
    IMAGE_DEFAULTS,
    TEXT,
    TEXT_DEFAULTS,
    compared,
    image_states,
    part,
    text_and_end,
    unit,
)
from adapters.architectures.huggingface.net import Net
from converter.builder import Value
from converter.dims import fixed, symbol

NAMES = {**clip.NAMES, "text_projection": "text_projection", "image_projection": "visual_projection", "scale": "logit_scale"}
LAYER = "layers.{layer}"
DECODER = {
    "times": "film_mul",
    "plus": "film_add",
    "narrow": "reduces.{layer}",
    **{role: f"{LAYER}.self_attn.{name}_proj" for role, name in
       (("query", "q"), ("key", "k"), ("value", "v"), ("attention_out", "out"))},
    "attention_norm": f"{LAYER}.layer_norm1",
    "inner": f"{LAYER}.mlp.fc1",
    "outer": f"{LAYER}.mlp.fc2",
    "outer_norm": f"{LAYER}.layer_norm2",
    "paint": "transposed_convolution",
    "paint_part": "transposed_convolution.{layer}",
}
SEGMENTATION = "image-segmentation"
FIELDS = ("extract_layers", "reduce_dim", "decoder_num_attention_heads", "decoder_hidden_act", "decoder_intermediate_size",
          "conditional_layer", "use_complex_transposed_convolution", "logit_scale_init_value", "decoder_attention_dropout")


def build(net: Net, task: str) -> None:
    config = net.config
    texts, images = part(config, "text_config", TEXT_DEFAULTS), part(config, "vision_config", IMAGE_DEFAULTS)
    width = config.size("projection_dim", 512)
    for name in FIELDS:
        config.get(name)
    both = task != SEGMENTATION
    _, words = text_and_end(net, texts, TEXT, "texts" if both else "batch")
    text = net.linear(words, "text_projection", width, bias=False)
    states, pooled = image_states(net, images, IMAGE, "images" if both else "batch", symbol("size"))
    shown = net.linear(pooled, "image_projection", width, bias=False)
    if both:
        compared(net, unit(net, text), unit(net, shown))
        return
    net.output("logits", _painted(net, images, states, text))
    net.output("conditional_embeddings", text)
    net.output("pooled_output", shown)


def _painted(net: Net, images: Config, states: list[Value], asked: Value) -> Value:
    """A score for each pixel, [batch, height, width], of the words of some layers, from the last of them to the first."""
    config, count = net.config, len(states) - 1
    chosen, width = several(config, "extract_layers", [3, 6, 9], least=0), config.size("reduce_dim", 64)
    if not chosen or any(layer >= count for layer in chosen):
        raise config.refuse("extract_layers", f"some of {count} layers, from 0", chosen)
    place, heads = config.size("conditional_layer", 0, least=0), config.size("decoder_num_attention_heads", 4)
    patch = images.size("patch_size")
    if place >= len(chosen):
        raise config.refuse("conditional_layer", f"less than {len(chosen)}", place)
    if width % heads:
        raise config.refuse("decoder_num_attention_heads", f"a divisor of reduce_dim, {width}", heads)
    layout = encoders.Sizes(heads, config.size("decoder_intermediate_size", 2048), "relu", images.number("layer_norm_eps"))
    tower = net.part(DECODER, "decoder.", config)
    x: Value | None = None
    for layer, index in enumerate(reversed(chosen)):
        narrow = tower.linear(states[index + 1], "narrow", width, layer=layer)
        x = narrow if x is None else net.op("add", narrow, x)
        if layer == place:
            times, plus = (net.op("expand_dims", tower.linear(asked, role, width), axis=(1,)) for role in ("times", "plus"))
            x = net.op("add", net.op("multiply", times, x), plus)
        x = encoders.layer(tower, x, None, layout, f"decoder_layer_{layer}", layer=layer)
    assert x is not None
    x = net.op("slice", x, axes=(1,), starts=(1,), stops=(None,))
    x = as_map(net, x, (symbol("size") // patch,) * 2)
    if config.flag("use_complex_transposed_convolution", False):
        x = net.op("relu", tower.convolution(x, "paint_part", width, 3, bias=True, layer=0))
        x = net.op("relu", _grown(tower, x, "paint_part", width // 2, patch // 4, layer=2))
        x = _grown(tower, x, "paint_part", 1, patch // 4, layer=4)
    else:
        x = _grown(tower, x, "paint", 1, patch)
    return net.op("squeeze", x, axis=(1,))


def _grown(net: Net, x: Value, role: str, width: int, times: int, **places: Any) -> Value:
    weight = net.tensor(role, (fixed(x.shape[1]), width, times, times), **places)
    return net.op("convolution_transpose", x, weight, net.tensor(role, (width,), "bias", **places), stride=(times, times))


FAMILY = Family(
    classes={"clipseg": "CLIPSeg"}, names=NAMES, build=build, prefixes=("clip.",), inputs=("input_ids", "attention_mask", "pixel_values"),
    optional=("position_ids",), leftovers=("*embeddings.position_ids", "logit_scale", "decoder.*"),
    tasks={"zero-shot-image-classification": "Model", SEGMENTATION: "ForImageSegmentation"})
