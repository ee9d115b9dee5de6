"""Convolutional networks: ResNet (He et al. 2016), RegNet (Radosavovic et al. 2020), MobileNet (Howard et al. 2017; Sandler et al. 2018).

Images are of any size at which every map of the network has a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from adapters.architectures.activations import RELU, Activation
from adapters.architectures.huggingface.config import Config
from adapters.architectures.huggingface.family import Family
from adapters.architectures.huggingface.layers.vision import TASKS, depths, several
from adapters.architectures.huggingface.net import ACTIVATIONS, Net
from adapters.architectures.net import divisible
from converter.builder import Value
from converter.dims import Dim, fixed
from converter.ir import DimRange

IGNORED = ("stage_names", "out_features", "out_indices", "image_size", "drop_path_rate")
COUNTERS = "*.num_batches_tracked"
UNIT = {f"{role}{norm}": f"{{at}}.{name}" for role in ("unit", "stem", "shortcut")
        for norm, name in (("", "convolution"), ("_norm", "normalization"))}


def picture(net: Net) -> Value:
    """The input `pixel_values` [batch, channels, height, width], of any size."""
    net.dim("batch", None)
    return net.b.input("pixel_values", net.dtype, ["batch", net.config.size("num_channels", 3), "height", "width"])


def finish(net: Net, task: str, x: Value, pooled: Value, flat: bool = True) -> None:
    """The outputs of a task, of a map [batch, channels, height, width] and the vector of the whole; `flat`: as it is without axes of 1."""
    for name in ("height", "width"):
        net.b.dims[name] = DimRange(net.b.least(name))
    if task == "image-feature-extraction":
        net.output("last_hidden_state", x)
        net.output("pooler_output", pooled if flat else net.op("expand_dims", pooled, axis=(2, 3)))
    else:
        net.output("logits", net.linear(pooled, "classifier", net.config.labels()))


def unit(net: Net, x: Value, at: str, width: int, kernel: int, stride: int = 1, *, activation: Activation = (), groups: int = 1,
         dilation: int = 1, role: str = "unit", **places: Any) -> Value:
    """A convolution, a norm and an activation."""
    x = net.convolution(x, role, width, kernel, stride, kernel // 2 * dilation, groups=groups, dilation=dilation, at=at, **places)
    return net.activation(net.batch_norm(x, f"{role}_norm", at=at, **places), activation)


def ignore(config: Config, *names: str) -> None:
    """Fields of training or of a backbone."""
    for name in (*IGNORED, *names):
        config.get(name)


# ResNet and RegNet -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a stage: the channels that come in and go out, and the stride."""

    at: str
    stage: int
    index: int
    before: int
    width: int
    stride: int


def _stages(net: Net, first: int, widths: list[int], layers: list[int], halved: bool) -> list[Layer]:
    found = []
    for stage, (width, count) in enumerate(zip(widths, layers, strict=True)):
        for index in range(count):
            stride = 2 if index == 0 and (stage or halved) else 1
            found.append(Layer(f"encoder.stages.{stage}.layers.{index}", stage, index, first, width, stride))
            first = width
    return found


def _added(net: Net, x: Value, y: Value, layer: Layer, activation: Activation) -> Value:
    """The result of a layer beside its input, which a convolution brings to the same shape where it has another."""
    if layer.before != layer.width or layer.stride != 1:
        x = unit(net, x, f"{layer.at}.shortcut", layer.width, 1, layer.stride, role="shortcut", stage=layer.stage + 1, index=layer.index)
    return net.activation(net.op("add", y, x), activation)


def build_resnet(net: Net, task: str) -> None:
    x = resnet(net, picture(net))[-1]
    finish(net, task, x, net.op("mean", x, axis=(2, 3)), flat=False)


def resnet(net: Net, x: Value, dilated: bool = False) -> list[Value]:
    """The maps after each stage. dilated: the last stage has dilation in the place of its stride."""
    config = net.config
    widths = several(config, "hidden_sizes", [256, 512, 1024, 2048])
    layers, first = depths(config, [3, 4, 6, 3], len(widths)), config.size("embedding_size", 64)
    activation = config.choice("hidden_act", ACTIVATIONS, "relu")
    deep = config.choice("layer_type", {"basic": False, "bottleneck": True}, "bottleneck")
    early, relu = config.flag("downsample_in_bottleneck", False), ACTIVATIONS["relu"]  # within a layer, whatever the config says
    ignore(config)
    x = unit(net, x, "embedder.embedder", first, 7, 2, activation=activation, role="stem")
    x = net.op("max_pool", x, kernel=(3, 3), stride=(2, 2), padding=(1, 1))
    found = []
    for layer in _stages(net, first, widths, layers, config.flag("downsample_in_first_stage", False)):
        last = dilated and layer.stage == len(widths) - 1
        layer = replace(layer, stride=1) if last else layer
        stride, inner = layer.stride, layer.width // 4
        # The width, the kernel, the stride and the dilation of each convolution; what is dilated is so from its second on.
        steps = [(inner, 1, stride if early else 1, 1), (inner, 3, 1 if early else stride, 2 if last and layer.index else 1),
                 (layer.width, 1, 1, 1)] if deep else [(layer.width, 3, stride, 2 if last and layer.index else 1),
                                                       (layer.width, 3, 1, 2 if last else 1)]
        y = x
        for place, (width, kernel, step, spread) in enumerate(steps):
            y = unit(net, y, f"{layer.at}.layer.{place}", width, kernel, step, dilation=spread, stage=layer.stage + 1, index=layer.index,
                     place=place + 1, activation=relu if place < len(steps) - 1 else ())
        x = _added(net, x, y, layer, activation)
        found.append(x)
    ends = [sum(layers[:stage + 1]) - 1 for stage in range(len(layers))]
    return [found[end] for end in ends]


def build_regnet(net: Net, task: str) -> None:
    config = net.config
    widths = several(config, "hidden_sizes", [128, 192, 512, 1088])
    layers, first, group = depths(config, [2, 6, 12, 2], len(widths)), config.size("embedding_size", 32), config.size("groups_width", 64)
    activation = config.choice("hidden_act", ACTIVATIONS, "relu")
    gated = config.choice("layer_type", {"x": False, "y": True}, "y")
    ignore(config)
    x = unit(net, picture(net), "embedder.embedder", first, 3, 2, activation=activation)
    for layer in _stages(net, first, widths, layers, config.flag("downsample_in_first_stage", True)):
        at, groups = f"{layer.at}.layer", max(1, layer.width // group)
        if layer.width % groups:
            raise config.refuse("groups_width", f"one that divides {layer.width}", group)
        y = unit(net, x, f"{at}.0", layer.width, 1, activation=activation)
        y = unit(net, y, f"{at}.1", layer.width, 3, layer.stride, activation=activation, groups=groups)
        if gated:
            y = net.gate(y, ("squeeze", "excite"), round(layer.before / 4), RELU, at=f"{at}.2")
        y = unit(net, y, f"{at}.{2 + gated}", layer.width, 1)
        x = _added(net, x, y, layer, activation)
    finish(net, task, x, net.op("mean", x, axis=(2, 3)), flat=False)


# MobileNet ---------------------------------------------------------------------------------------------------------------


def _mobile(net: Net, x: Value, at: str, width: int, kernel: int, stride: int = 1, *, groups: int = 1, dilation: int = 1,
            active: bool = True) -> Value:
    """A convolution with TensorFlow's padding, more of it at the end, where the config says so."""
    config, padding = net.config, (kernel - 1) // 2 * dilation
    if config.flag("tf_padding", True):
        pads: list[tuple[Dim, Dim]] = [(0, 0), (0, 0)]
        for size in x.shape[2:]:
            total = ((size + stride - 1) // stride - 1) * stride + kernel - size
            pads.append((total // 2 * dilation, (total - total // 2) * dilation))
        x, padding = net.op("pad", x, pads=tuple(pads)) if kernel > 1 else x, 0
    x = net.convolution(x, "unit", width, kernel, stride, padding, groups=groups, dilation=dilation, at=at)
    x = net.batch_norm(x, "unit_norm", config.number("layer_norm_eps", 0.001), at=at)
    return net.activation(x, config.choice("hidden_act", ACTIVATIONS, "relu6") if active else ())


def build_mobilenet_v1(net: Net, task: str) -> None:
    config = net.config
    ignore(config, "classifier_dropout_prob")
    factor, least = config.number("depth_multiplier", 1.0, above=0), config.size("min_depth", 8)
    depth = 32
    x = _mobile(net, picture(net), "conv_stem", max(int(depth * factor), least), 3, 2)
    for index, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)):
        before = fixed(x.shape[1])
        depth *= 2 if stride == 2 or index == 0 else 1
        x = _mobile(net, x, f"layer.{2 * index}", before, 3, stride, groups=before)
        x = _mobile(net, x, f"layer.{2 * index + 1}", max(int(depth * factor), least), 1)
    finish(net, task, x, net.op("mean", x, axis=(2, 3)))


def build_mobilenet_v2(net: Net, task: str) -> None:
    config = net.config
    ignore(config, "classifier_dropout_prob", "semantic_loss_ignore_index")
    factor, divisor = config.number("depth_multiplier", 1.0, above=0), config.size("depth_divisible_by", 8)
    least = config.size("min_depth", 8)
    ratio, most = config.number("expand_ratio", 6.0, above=0), config.size("output_stride", 32)

    def scaled(count: int) -> int:
        return divisible(round(count * factor), divisor, least)

    inner = scaled(32)
    x = _mobile(net, picture(net), "conv_stem.first_conv", inner, 3, 2)
    if not config.flag("first_layer_is_expansion", True):
        x = _mobile(net, x, "conv_stem.expand_1x1", inner, 1)
    x = _mobile(net, x, "conv_stem.conv_3x3", inner, 3, groups=inner)
    x = _mobile(net, x, "conv_stem.reduce_1x1", scaled(16), 1, active=False)
    widths = [scaled(count) for count in (24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)]
    reached, dilation = 2, 1
    for index, (width, stride) in enumerate(zip(widths, (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1), strict=True)):
        spread = dilation if reached == most else 1
        if reached == most:
            dilation, stride = dilation * stride, 1
        reached *= stride
        before = fixed(x.shape[1])
        inner = divisible(round(before * ratio), divisor, least)
        y = _mobile(net, x, f"layer.{index}.expand_1x1", inner, 1)
        y = _mobile(net, y, f"layer.{index}.conv_3x3", inner, 3, stride, groups=inner, dilation=spread)
        y = _mobile(net, y, f"layer.{index}.reduce_1x1", width, 1, active=False)
        x = net.op("add", x, y) if stride == 1 and before == width else y
    last = 1280 if config.flag("finegrained_output", True) and factor < 1 else scaled(1280)
    x = _mobile(net, x, "conv_1x1", last, 1)
    finish(net, task, x, net.op("mean", x, axis=(2, 3)))


RESNET = Family(
    classes={"resnet": "ResNet"},
    names=UNIT,
    heads={"classifier": "classifier.1"},
    tasks=TASKS,
    build=build_resnet,
    prefixes=("resnet.",),
    leftovers=(COUNTERS, "classifier.*"),
    inputs=("pixel_values",),
)
REGNET = replace(RESNET, classes={"regnet": "RegNet"}, prefixes=("regnet.",), build=build_regnet,
                 names={**UNIT, "squeeze": "{at}.attention.0", "excite": "{at}.attention.2"})
MOBILENET_V1 = replace(RESNET, classes={"mobilenet_v1": "MobileNetV1"}, prefixes=("mobilenet_v1.",), build=build_mobilenet_v1,
                       heads={"classifier": "classifier"})
MOBILENET_V2 = replace(MOBILENET_V1, classes={"mobilenet_v2": "MobileNetV2"}, prefixes=("mobilenet_v2.",), build=build_mobilenet_v2,
                       leftovers=(COUNTERS, "classifier.*", "segmentation_head.*"))
