"""SegFormer (Xie et al. 2021): patches that overlap in four stages, attention to a map made smaller, a head for every pixel."""

from __future__ import annotations

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, as_map, depths, flat, several
from adapters.architectures.huggingface.models.convolutional import COUNTERS, ignore, picture
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed
from converter.ir import DimRange

SEGMENTATION = "image-segmentation"
BLOCK = "encoder.block.{stage}.{layer}"
NAMES = {
    "patches": "encoder.patch_embeddings.{stage}.proj",
    "patch_norm": "encoder.patch_embeddings.{stage}.layer_norm",
    "attention_norm": f"{BLOCK}.layer_norm_1",
    "query": f"{BLOCK}.attention.self.query",
    "key": f"{BLOCK}.attention.self.key",
    "value": f"{BLOCK}.attention.self.value",
    "reduce": f"{BLOCK}.attention.self.sr",
    "reduce_norm": f"{BLOCK}.attention.self.layer_norm",
    "attention_out": f"{BLOCK}.attention.output.dense",
    "inner_norm": f"{BLOCK}.layer_norm_2",
    "inner": f"{BLOCK}.mlp.dense1",
    "depthwise": f"{BLOCK}.mlp.dwconv.dwconv",
    "outer": f"{BLOCK}.mlp.dense2",
    "norm": "encoder.layer_norm.{stage}",
}
HEADS = {
    "classifier": "classifier",
    "project": "decode_head.linear_c.{stage}.proj",
    "fuse": "decode_head.linear_fuse",
    "fuse_norm": "decode_head.batch_norm",
    "pixel_classifier": "decode_head.classifier",
}
# PyTorch's own number, whatever the config says.
EPS = 1e-5


def build(net: Net, task: str) -> None:
    config = net.config
    config.number("layer_norm_eps", 1e-6)
    ignore(config, "semantic_loss_ignore_index", "downsampling_rates")
    flat = not config.flag("reshape_last_stage", True)
    if flat and task == SEGMENTATION:
        raise config.refuse("reshape_last_stage", "true for a head of pixels", False)
    maps, x = _stages(net)
    for name in ("height", "width"):
        net.b.dims[name] = DimRange(net.b.least(name))
    config.get("decoder_hidden_size")
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x if flat else maps[-1])
    elif task == "image-classification":
        net.output("logits", net.linear(net.op("mean", x, axis=(1,)), "classifier", config.labels()))
    else:
        net.output("logits", _painted(net, maps))


def _stages(net: Net) -> tuple[list[Value], Value]:
    """The maps of all stages, and the last one's words."""
    config = net.config
    count = config.size("num_encoder_blocks", 4)
    layers, widths = depths(config, [2, 2, 2, 2], count), several(config, "hidden_sizes", [32, 64, 160, 256], count)
    kernels, strides = several(config, "patch_sizes", [7, 3, 3, 3], count), several(config, "strides", [4, 2, 2, 2], count)
    heads, ratios = several(config, "num_attention_heads", [1, 2, 5, 8], count), several(config, "sr_ratios", [8, 4, 2, 1], count)
    inner = several(config, "mlp_ratios", [4, 4, 4, 4], count)
    if any(width % parts for width, parts in zip(widths, heads, strict=True)):
        raise config.refuse("num_attention_heads", f"divisors of {widths}", heads)
    shape, maps = picture(net), []
    for stage, width in enumerate(widths):
        shape = net.convolution(shape, "patches", width, kernels[stage], strides[stage], kernels[stage] // 2, bias=True, stage=stage)
        x = net.layer_norm(flat(net, shape), "patch_norm", EPS, stage=stage)
        for layer in range(layers[stage]):
            x = _layer(net, x, shape, heads[stage], ratios[stage], width * inner[stage], stage=stage, layer=layer)
        x = net.layer_norm(x, "norm", EPS, stage=stage)
        shape = as_map(net, x, shape.shape[2:])
        maps.append(shape)
    return maps, x


def _layer(net: Net, x: Value, shape: Value, heads: int, ratio: int, inner: int, *, stage: int, layer: int) -> Value:
    places, width = {"stage": stage, "layer": layer}, fixed(x.shape[-1])
    activation = net.config.choice("hidden_act", ACTIVATIONS, "gelu")
    normed = net.layer_norm(x, "attention_norm", EPS, stage=stage, layer=layer)
    source = normed
    if ratio > 1:
        smaller = net.convolution(as_map(net, normed, shape.shape[2:]), "reduce", width, ratio, ratio, 0, bias=True, **places)
        source = net.layer_norm(flat(net, smaller), "reduce_norm", EPS, stage=stage, layer=layer)
    query, key, value = (net.split_heads(net.linear(words, role, width, stage=stage, layer=layer), heads)
                         for role, words in (("query", normed), ("key", source), ("value", source)))
    seen = net.join_heads(net.op("scaled_dot_product_attention", query, key, value))
    x = net.op("add", net.linear(seen, "attention_out", width, stage=stage, layer=layer), x)
    y = net.linear(net.layer_norm(x, "inner_norm", EPS, stage=stage, layer=layer), "inner", inner, stage=stage, layer=layer)
    y = flat(net, net.convolution(as_map(net, y, shape.shape[2:]), "depthwise", inner, 3, groups=inner, bias=True, **places))
    y = net.linear(net.activation(y, activation), "outer", width, stage=stage, layer=layer)
    return net.op("add", y, x, name=f"stage_{stage}_layer_{layer}")


def _painted(net: Net, maps: list[Value]) -> Value:
    """Scores of each class for each pixel of the first map: [batch, classes, height, width]."""
    width, parts = net.config.size("decoder_hidden_size", 256), []
    for stage, shape in enumerate(maps):
        part = as_map(net, net.linear(flat(net, shape), "project", width, stage=stage), shape.shape[2:])
        parts.append(net.op("interpolate", part, size=maps[0].shape[2:], mode="linear"))
    x = net.convolution(net.op("concat", *reversed(parts), axis=1), "fuse", width, 1)
    return net.convolution(net.op("relu", net.batch_norm(x, "fuse_norm")), "pixel_classifier", net.config.labels(), 1, bias=True)


FAMILY = Family(
    classes={"segformer": "Segformer"},
    names=NAMES,
    heads=HEADS,
    tasks={**TASKS, SEGMENTATION: "ForSemanticSegmentation"},
    build=build,
    prefixes=("segformer.",),
    leftovers=(COUNTERS, "classifier.*", "decode_head.*"),
    inputs=("pixel_values",),
)
