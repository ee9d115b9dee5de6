"""PVT (Wang et al. 2021): four stages of patches of patches, attention to a map made smaller, a class token in the last."""

from __future__ import annotations

from typing import Any

from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, as_map, depths, flat, image, pixels, several, with_tokens
from adapters.architectures.huggingface.models.convolutional import ignore
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from converter.builder import Value
from converter.dims import fixed

BLOCK = "encoder.block.{stage}.{layer}"
PATCHES = "encoder.patch_embeddings.{stage}"
NAMES = {
    "patches": f"{PATCHES}.projection",
    "patch_norm": f"{PATCHES}.layer_norm",
    "positions": f"{PATCHES}.position_embeddings",
    "class": f"{PATCHES}.cls_token",
    "attention_norm": f"{BLOCK}.layer_norm_1",
    **{role: f"{BLOCK}.attention.self.{role}" for role in ("query", "key", "value")},
    "reduce": f"{BLOCK}.attention.self.sequence_reduction",
    "reduce_norm": f"{BLOCK}.attention.self.layer_norm",
    "attention_out": f"{BLOCK}.attention.output.dense",
    "inner_norm": f"{BLOCK}.layer_norm_2",
    "inner": f"{BLOCK}.mlp.dense1",
    "outer": f"{BLOCK}.mlp.dense2",
    "norm": "encoder.layer_norm",
}


def build(net: Net, task: str) -> None:
    config, eps = net.config, net.config.number("layer_norm_eps", 1e-6)
    count = config.size("num_encoder_blocks", 4)
    layers, widths = depths(config, [2, 2, 2, 2], count), several(config, "hidden_sizes", [64, 128, 320, 512], count)
    steps, kernels = several(config, "patch_sizes", [4, 2, 2, 2], count), several(config, "strides", [4, 2, 2, 2], count)
    heads, ratios = several(config, "num_attention_heads", [1, 2, 5, 8], count), several(config, "sequence_reduction_ratios", [8, 4, 2, 1],
                                                                                         count)
    inner = several(config, "mlp_ratios", [8, 8, 4, 4], count)
    ignore(config, "decoder_hidden_size", "reshape_last_stage")
    if any(width % parts for width, parts in zip(widths, heads, strict=True)):
        raise config.refuse("num_attention_heads", f"divisors of {widths}", heads)
    if ratios[-1] != 1:
        raise config.refuse("sequence_reduction_ratios", "a list that ends with 1", ratios)
    side = config.size("image_size", 224)
    x = shape = pixels(net, image(config, side, 1))
    for stage, width in enumerate(widths):
        shape = net.convolution(shape, "patches", width, kernels[stage], steps[stage], 0, bias=True, stage=stage)
        x = net.layer_norm(flat(net, shape), "patch_norm", eps, stage=stage)
        # The table is of the size that the library takes the map to have.
        rows = (side if stage == 0 else side // 2**(stage + 1)) // steps[stage]
        if (rows, rows) != tuple(shape.shape[2:]):
            raise config.refuse("strides", f"those that give maps of {rows} rows at stage {stage + 1}, as image_size says", kernels)
        if stage == count - 1:
            x = with_tokens(net, x, net.tensor("class", (1, 1, width), "", stage=stage))
        x = net.op("add", x, net.tensor("positions", (1, fixed(x.shape[1]), width), "", stage=stage))
        for layer in range(layers[stage]):
            x = _layer(net, x, shape, heads[stage], ratios[stage], width * inner[stage], eps, stage=stage, layer=layer)
        shape = as_map(net, x, shape.shape[2:]) if stage < count - 1 else shape
    x = net.layer_norm(x, "norm", eps)
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
    else:
        net.output("logits", net.linear(net.first(x), "classifier", config.labels(1000)))


def _layer(net: Net, x: Value, shape: Value, heads: int, ratio: int, inner: int, eps: float, **places: Any) -> Value:
    width, bias = fixed(x.shape[-1]), net.config.flag("qkv_bias", True)
    normed = source = net.layer_norm(x, "attention_norm", eps, **places)
    if ratio > 1:
        smaller = net.convolution(as_map(net, normed, shape.shape[2:]), "reduce", width, ratio, ratio, 0, bias=True, **places)
        source = net.layer_norm(flat(net, smaller), "reduce_norm", eps, **places)
    query, key, value = (net.split_heads(net.linear(words, role, width, bias=bias, **places), heads)
                         for role, words in (("query", normed), ("key", source), ("value", source)))
    seen = net.join_heads(net.op("scaled_dot_product_attention", query, key, value))
    x = net.op("add", net.linear(seen, "attention_out", width, **places), x)
    y = net.linear(net.layer_norm(x, "inner_norm", eps, **places), "inner", inner, **places)
    y = net.linear(net.activation(y, net.config.choice("hidden_act", ACTIVATIONS, "gelu")), "outer", width, **places)
    return net.op("add", y, x, name="stage_{stage}_layer_{layer}".format(**places))


FAMILY = Family(
    classes={"pvt": "Pvt"},
    names=NAMES,
    heads={"classifier": "classifier"},
    tasks=TASKS,
    build=build,
    prefixes=("pvt.",),
    leftovers=("classifier.*",),
    inputs=("pixel_values",),
)
