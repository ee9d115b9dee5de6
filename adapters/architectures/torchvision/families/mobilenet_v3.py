"""MobileNet v3, small and large (torchvision.models.mobilenetv3)."""

from __future__ import annotations

from adapters.architectures.activations import HARDSIGMOID, HARDSWISH, RELU
from adapters.architectures.net import divisible
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers
from converter.builder import Value

# Kernel, hidden channels, channels, squeeze and excitation, hard swish (else relu), stride.
Block = tuple[int, int, int, bool, bool, int]
SMALL: tuple[Block, ...] = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)
LARGE: tuple[Block, ...] = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)

# The blocks, and the channels before the last layer.
VARIANTS = {"mobilenet_v3_small": (SMALL, 1024), "mobilenet_v3_large": (LARGE, 1280)}


def _block(net: Layers, x: Value, name: str, block: Block) -> Value:
    kernel, hidden, out, squeezed, swish, stride = block
    activation = HARDSWISH if swish else RELU
    channels, y, place = x.shape[1], x, 0
    if hidden != channels:
        y = net.conv_block(y, f"{name}.block.0", hidden, 1, activation=activation)
        place = 1
    y = net.conv_block(y, f"{name}.block.{place}", hidden, kernel, stride, groups=hidden, activation=activation)
    if squeezed:
        place += 1
        y = net.squeeze_excitation(y, f"{name}.block.{place}", divisible(hidden // 4), RELU, HARDSIGMOID)
    y = net.conv_block(y, f"{name}.block.{place + 1}", out, 1)
    return net.op("add", y, x) if stride == 1 and channels == out else y


def build(net: Layers, variant: tuple[tuple[Block, ...], int]) -> Value:
    """The class scores, `[batch, classes]`."""
    blocks, last = variant
    net.eps = 0.001
    x = net.conv_block(net.image("features.0.0"), "features.0", 16, 3, 2, activation=HARDSWISH)
    for position, block in enumerate(blocks, 1):
        x = _block(net, x, f"features.{position}", block)
    x = net.conv_block(x, f"features.{len(blocks) + 1}", 6 * blocks[-1][2], 1, activation=HARDSWISH)
    x = net.activation(net.linear(net.global_pool(x), "classifier.0", last), HARDSWISH)
    return net.linear(x, "classifier.3")


FAMILY = Family("MobileNet v3", ("features.0.0.weight", "features.1.block.0.0.weight", "classifier.0.weight", "classifier.3.weight"),
                VARIANTS, build)
