"""timm's RegNet X, Y, Z and V (timm.models.regnet)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.architectures.timm.net import Kind, Net
from adapters.architectures.torchvision.layers import size
from converter.builder import Value

DEFAULTS: Mapping[str, Any] = {
    "depth": 21, "w0": 80, "wa": 42.63, "wm": 2.66, "group_size": 24, "bottle_ratio": 1.0, "se_ratio": 0.0, "group_min_ratio": 0.0,
    "stem_width": 32, "downsample": "conv1x1", "linear_out": False, "preact": False, "num_features": 0, "act_layer": "relu",
    "norm_layer": "batchnorm",
}


@dataclass(frozen=True, slots=True)
class Blocks:
    """What all blocks share. `squeeze`: the squeeze's channels over a block's input's, 0 for none."""

    ratio: float
    squeeze: float
    shortcut: str
    linear: bool
    activation: str
    norm: Kind


@dataclass(frozen=True, slots=True)
class Step:
    """Of a block: its channels, those of a group, its stride, and the dilations of its convolution and of its stage."""

    width: int
    group: int
    stride: int
    first: int
    dilation: int


def stages(config: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Channels, blocks and channels of a group, of each stage: widths that grow by a line, rounded to powers (Radosavovic et al. 2020)."""
    line = np.arange(config["depth"], dtype=np.float32) * np.float32(config["wa"]) + np.float32(config["w0"])
    powers = np.rint(np.log(line / np.float32(config["w0"])) / np.float32(math.log(config["wm"])))
    widths, depths = np.unique(np.rint(config["w0"] * np.power(config["wm"], powers.astype(np.float64)) / 8) * 8, return_counts=True)
    found = []
    for width, depth in zip(widths.tolist(), depths.tolist(), strict=True):
        inner, least = int(int(width) * config["bottle_ratio"]), config["group_min_ratio"]
        group = min(config["group_size"], inner)
        if least:
            rounded = max(group, int(inner + group / 2) // group * group)
            inner = rounded + group if rounded < least * inner else rounded
        else:
            inner = round(inner / group) * group
        found.append((int(inner / config["bottle_ratio"]), depth, group))
    return found


def _normed(net: Net, x: Value, name: str, blocks: Blocks, active: bool = True) -> Value:
    return net.activate(net.norm(x, name, blocks.norm, 1), blocks.activation if active else "")


def _joined(net: Net, y: Value, x: Value, name: str, blocks: Blocks, step: Step) -> Value:
    if size(x, 1) == step.width and step.stride == 1 and step.first == step.dilation:
        return net.op("add", y, x)
    if not blocks.shortcut:
        return y
    if blocks.shortcut == "avg":
        x, name = net.halved(x, step.stride, step.first), f"{name}.1"
    x = net.convolution(x, f"{name}.conv", step.width, 1, 1 if blocks.shortcut == "avg" else step.stride)
    return net.op("add", y, _normed(net, x, f"{name}.bn", blocks, active=False))


def _block(net: Net, x: Value, name: str, blocks: Blocks, step: Step) -> Value:
    inner = round(step.width * blocks.ratio)
    y = _normed(net, net.convolution(x, f"{name}.conv1.conv", inner, 1), f"{name}.conv1.bn", blocks)
    y = net.convolution(y, f"{name}.conv2.conv", inner, 3, step.stride, step.first, groups=inner // step.group, dilation=step.first)
    y = _normed(net, y, f"{name}.conv2.bn", blocks)
    if blocks.squeeze:
        y = net.gate(y, (f"{name}.se.fc1", f"{name}.se.fc2"), round(size(x, 1) * blocks.squeeze), net.kind(blocks.activation))
    y = _normed(net, net.convolution(y, f"{name}.conv3.conv", step.width, 1), f"{name}.conv3.bn", blocks, active=False)
    y = _joined(net, y, x, f"{name}.downsample", blocks, step)
    return y if blocks.linear else net.activate(y, blocks.activation)


def build(net: Net, built: str) -> Value:
    """The class scores, `[batch, classes]`, or the features."""
    arguments = net.arguments
    config = {**DEFAULTS, **arguments.get("model_cfg")}
    if config["preact"] or config["norm_layer"] != "batchnorm":
        raise arguments.refuse("model_cfg", "blocks whose batch norms follow the convolutions")
    blocks = Blocks(config["bottle_ratio"], config["se_ratio"], config["downsample"] or "", config["linear_out"], config["act_layer"],
                    ("batchnorm2d", {}))
    x = _normed(net, net.convolution(net.picture(), "stem.conv", config["stem_width"], 3, 2), "stem.bn", blocks)
    most, reached, dilation = arguments.choice("output_stride", (8, 16, 32), 32), 2, 1
    for stage, (width, depth, group) in enumerate(stages(config), 1):
        stride = 2
        if reached >= most:
            dilation, stride = dilation * 2, 1
        reached *= stride
        first = 1 if dilation in (1, 2) else 2
        for block in range(depth):
            x = _block(net, x, f"s{stage}.b{block + 1}", blocks, Step(width, group, 1 if block else stride, first, dilation))
            first = dilation
    if config["num_features"]:
        x = _normed(net, net.convolution(x, "final_conv.conv", config["num_features"], 1), "final_conv.bn", blocks)
    elif blocks.linear:
        x = net.activate(x, blocks.activation)
    return net.head(x, "head.fc")
