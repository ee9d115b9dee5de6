"""MobileNet v2, at the paper's widths (torchvision.models.mobilenetv2)."""

from __future__ import annotations

from adapters.architectures.activations import RELU6
from adapters.architectures.net import divisible
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers, size
from converter.builder import Value

# Expansion, channels, repeats, stride of the first.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# The factor of all channels (`width_mult`).
VARIANTS = {"mobilenet_v2": 1.0, "mobilenet_v2_x0_35": 0.35, "mobilenet_v2_x0_5": 0.5, "mobilenet_v2_x0_75": 0.75,
            "mobilenet_v2_x1_3": 1.3, "mobilenet_v2_x1_4": 1.4}


def _block(net: Layers, x: Value, name: str, expansion: int, out: int, stride: int) -> Value:
    channels = size(x, 1)
    hidden, y = channels * expansion, x
    if expansion != 1:
        y = net.conv_block(y, f"{name}.conv.0", hidden, 1, activation=RELU6)
    place = int(expansion != 1)
    y = net.conv_block(y, f"{name}.conv.{place}", hidden, 3, stride, groups=hidden, activation=RELU6)
    y = net.conv_norm(y, f"{name}.conv.{place + 1}", f"{name}.conv.{place + 2}", out, 1)
    return net.op("add", x, y) if stride == 1 and channels == out else y


def build(net: Layers, width: float) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.conv_block(net.image("features.0.0"), "features.0", divisible(32 * width), 3, 2, activation=RELU6)
    position = 1
    for expansion, out, repeats, stride in BLOCKS:
        for repeat in range(repeats):
            x = _block(net, x, f"features.{position}", expansion, divisible(out * width), 1 if repeat else stride)
            position += 1
    x = net.conv_block(x, f"features.{position}", divisible(1280 * max(1.0, width)), 1, activation=RELU6)
    return net.linear(net.global_pool(x), "classifier.1")


FAMILY = Family("MobileNet v2", ("features.0.0.weight", "features.1.conv.0.0.weight", "classifier.1.weight"), VARIANTS, build)
