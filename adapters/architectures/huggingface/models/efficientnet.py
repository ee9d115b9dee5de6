"""EfficientNet (Tan and Le 2019), as Keras pads it, and PoolFormer (Yu et al. 2022), whose blocks take means in the place of attention."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from adapters.architectures.activations import Activation
from adapters.architectures.huggingface.config import MOST_LAYERS, Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, depths, several
from adapters.architectures.huggingface.models.convolutional import (
    COUNTERS,
    finish,
    ignore,
    picture,
)
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from adapters.architectures.net import divisible
from converter.builder import Value
from converter.ir import DimRange

BLOCK = "encoder.blocks.{layer}"
NAMES = {
    "stem": "embeddings.convolution",
    "stem_norm": "embeddings.batchnorm",
    "expand": f"{BLOCK}.expansion.expand_conv",
    "expand_norm": f"{BLOCK}.expansion.expand_bn",
    "depthwise": f"{BLOCK}.depthwise_conv.depthwise_conv",
    "depthwise_norm": f"{BLOCK}.depthwise_conv.depthwise_norm",
    "squeeze": f"{BLOCK}.squeeze_excite.reduce",
    "excite": f"{BLOCK}.squeeze_excite.expand",
    "project": f"{BLOCK}.projection.project_conv",
    "project_norm": f"{BLOCK}.projection.project_bn",
    "top": "encoder.top_conv",
    "top_norm": "encoder.top_bn",
}
STAGE = "encoder.block.{stage}.{layer}"
POOLED = {
    "patches": "encoder.patch_embeddings.{stage}.projection",
    "before": f"{STAGE}.before_norm",
    "before_scale": f"{STAGE}.layer_scale_1",
    "after": f"{STAGE}.after_norm",
    "after_scale": f"{STAGE}.layer_scale_2",
    "inner": f"{STAGE}.output.conv1",
    "outer": f"{STAGE}.output.conv2",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks alike: all channels but the first block's, and strides but its own."""

    before: int
    width: int
    stride: int
    kernel: int
    ratio: int
    repeats: int


def _stages(config: Config, factor: float, divisor: int) -> list[Stage]:
    first = several(config, "in_channels", [32, 16, 24, 40, 80, 112, 192])
    count, deeper = len(first), config.number("depth_coefficient", 3.1, above=0)
    last = several(config, "out_channels", [16, 24, 40, 80, 112, 192, 320], count)
    strides = several(config, "strides", [1, 2, 2, 2, 1, 2, 1], count)
    kernels = several(config, "kernel_sizes", [3, 3, 5, 3, 5, 5, 3], count)
    ratios = several(config, "expand_ratios", [1, 6, 6, 6, 6, 6, 6], count)
    repeats = depths(config, [1, 2, 2, 3, 3, 4, 1], count, "num_block_repeats")
    if any(stride > 2 for stride in strides):
        raise config.refuse("strides", "1 or 2 for each stage", strides)
    if deeper * sum(repeats) > MOST_LAYERS:
        raise config.refuse("depth_coefficient", f"{MOST_LAYERS} layers in all", deeper)
    return [Stage(divisible(into * factor, divisor, divisor), divisible(out * factor, divisor, divisor), stride, kernel, ratio,
                  math.ceil(deeper * times))
            for into, out, stride, kernel, ratio, times in zip(first, last, strides, kernels, ratios, repeats, strict=True)]


def build(net: Net, task: str) -> None:
    config = net.config
    ignore(config, "batch_norm_momentum", "dropout_rate", "drop_connect_rate", "num_hidden_layers")
    factor, divisor = config.number("width_coefficient", 2.0, above=0), config.size("depth_divisor", 8)
    activation, eps = config.choice("hidden_act", ACTIVATIONS, "swish"), config.number("batch_norm_eps", 0.001)
    share, even = config.number("squeeze_expansion_ratio", 0.25), several(config, "depthwise_padding", [], least=0)
    pool = config.choice("pooling_type", {"mean": "mean", "max": "max"}, "mean")
    x = net.op("pad", picture(net), pads=((0, 0), (0, 0), (0, 1), (0, 1)))
    x = net.convolution(x, "stem", divisible(32 * factor, divisor, divisor), 3, 2, 0)
    x = net.activation(net.batch_norm(x, "stem_norm", eps), activation)
    layer = 0
    for stage in _stages(config, factor, divisor):
        for index in range(stage.repeats):
            y = _block(net, x, stage, index, activation, eps, share, adjusted=layer not in even, layer=layer)
            x = net.op("add", y, x) if index else y
            layer += 1
    width = config.size("hidden_dim", 2560)
    x = net.activation(net.batch_norm(net.convolution(x, "top", width, 1), "top_norm", eps), activation)
    finish(net, task, x, net.op(pool, x, axis=(2, 3)))


def _block(net: Net, x: Value, stage: Stage, index: int, activation: Activation, eps: float, share: float, *, adjusted: bool,
           layer: int) -> Value:
    before, stride, kernel = (stage.width, 1, stage.kernel) if index else (stage.before, stage.stride, stage.kernel)
    inner = before * stage.ratio
    if stage.ratio != 1:
        x = net.batch_norm(net.convolution(x, "expand", inner, 1, layer=layer), "expand_norm", eps, layer=layer)
        x = net.activation(x, activation)
    # Halves as Keras does, one pixel less before than after; else what keeps the size, of an even kernel less before.
    first, last = (kernel // 2 - adjusted, kernel // 2) if stride == 2 else ((kernel - 1) // 2, kernel // 2)
    x = net.op("pad", x, pads=((0, 0), (0, 0), (first, last), (first, last)))
    x = net.convolution(x, "depthwise", inner, kernel, stride, 0, groups=inner, layer=layer)
    x = net.activation(net.batch_norm(x, "depthwise_norm", eps, layer=layer), activation)
    x = net.gate(x, ("squeeze", "excite"), max(1, int(before * share)), activation, layer=layer)
    return net.batch_norm(net.convolution(x, "project", stage.width, 1, layer=layer), "project_norm", eps, layer=layer)


# PoolFormer --------------------------------------------------------------------------------------------------------------


def build_pooled(net: Net, task: str) -> None:
    config = net.config
    ignore(config, "patch_size", "stride", "layer_scale_init_value")
    count, side, ratio = config.size("num_encoder_blocks", 4), config.size("pool_size", 3), config.number("mlp_ratio", 4.0, above=0)
    layers, widths = depths(config, [2, 2, 6, 2], count), several(config, "hidden_sizes", [64, 128, 320, 512], count)
    kernels, strides = several(config, "patch_sizes", [7, 3, 3, 3], count), several(config, "strides", [4, 2, 2, 2], count)
    paddings = several(config, "padding", [2, 1, 1, 1], count, least=0)
    if side % 2 == 0:
        raise config.refuse("pool_size", "an odd number", side)
    activation, scaled = config.choice("hidden_act", ACTIVATIONS, "gelu"), config.flag("use_layer_scale", True)
    x = picture(net)
    for stage, width in enumerate(widths):
        x = net.convolution(x, "patches", width, kernels[stage], strides[stage], paddings[stage], bias=True, stage=stage)
        for layer in range(layers[stage]):
            places = {"stage": stage, "layer": layer}
            normed = _group(net, x, "before", **places)
            mean = net.op("avg_pool", normed, kernel=(side, side), stride=(1, 1), padding=(side // 2,) * 2, count_include_pad=False)
            x = net.op("add", x, _scaled(net, net.op("subtract", mean, normed), "before_scale", scaled, **places))
            inner = net.convolution(_group(net, x, "after", **places), "inner", int(width * ratio), 1, bias=True, **places)
            y = net.convolution(net.activation(inner, activation), "outer", width, 1, bias=True, **places)
            x = net.op("add", x, _scaled(net, y, "after_scale", scaled, **places))
    if task == "image-feature-extraction":
        for name in ("height", "width"):
            net.b.dims[name] = DimRange(net.b.least(name))
        net.output("last_hidden_state", x)
    else:
        finish(net, task, x, net.op("mean", _group(net, x, "norm"), axis=(2, 3)))


def _group(net: Net, x: Value, role: str, **places: int) -> Value:
    """A norm of a whole map, with a scale and an offset for each channel."""
    weight, bias = (net.tensor(role, (x.shape[1],), ending, **places) for ending in ("weight", "bias"))
    return net.op("group_norm", x, weight, bias, num_groups=1)


def _scaled(net: Net, x: Value, role: str, scaled: bool, **places: int) -> Value:
    if not scaled:
        return x
    return net.op("multiply", x, net.op("reshape", net.tensor(role, (x.shape[1],), "", **places), shape=(x.shape[1], 1, 1)))


EFFICIENTNET = Family(
    classes={"efficientnet": "EfficientNet"},
    names=NAMES,
    heads={"classifier": "classifier"},
    tasks=TASKS,
    build=build,
    prefixes=("efficientnet.",),
    leftovers=(COUNTERS, "classifier.*"),
    inputs=("pixel_values",),
)
POOLFORMER = replace(EFFICIENTNET, classes={"poolformer": "PoolFormer"}, prefixes=("poolformer.",), names=POOLED, build=build_pooled,
                     heads={"classifier": "classifier", "norm": "norm"}, leftovers=("classifier.*", "norm.*"))
