"""EfficientNet B0 to B7 and v2 (torchvision.models.efficientnet)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adapters.architectures.activations import SILU
from adapters.architectures.net import divisible
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers, size
from converter.builder import Value

# Whether expansion and depthwise convolution are fused in one; expansion, kernel, stride of the first, channels, repeats.
Stage = tuple[bool, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class EfficientNet:
    """`first`, `last`: channels of the first and the last convolution. `eps`: of the batch norms."""

    first: int
    stages: tuple[Stage, ...]
    last: int
    eps: float


B: tuple[Stage, ...] = (
    (False, 1, 3, 1, 16, 1), (False, 6, 3, 2, 24, 2), (False, 6, 5, 2, 40, 2), (False, 6, 3, 2, 80, 3), (False, 6, 5, 1, 112, 3),
    (False, 6, 5, 2, 192, 4), (False, 6, 3, 1, 320, 1),
)
V2_S: tuple[Stage, ...] = (
    (True, 1, 3, 1, 24, 2), (True, 4, 3, 2, 48, 4), (True, 4, 3, 2, 64, 4), (False, 4, 3, 2, 128, 6), (False, 6, 3, 1, 160, 9),
    (False, 6, 3, 2, 256, 15),
)
V2_M: tuple[Stage, ...] = (
    (True, 1, 3, 1, 24, 3), (True, 4, 3, 2, 48, 5), (True, 4, 3, 2, 80, 5), (False, 4, 3, 2, 160, 7), (False, 6, 3, 1, 176, 14),
    (False, 6, 3, 2, 304, 18), (False, 6, 3, 1, 512, 5),
)
V2_L: tuple[Stage, ...] = (
    (True, 1, 3, 1, 32, 4), (True, 4, 3, 2, 64, 7), (True, 4, 3, 2, 96, 7), (False, 4, 3, 2, 192, 10), (False, 6, 3, 1, 224, 19),
    (False, 6, 3, 2, 384, 25), (False, 6, 3, 1, 640, 7),
)


def _scaled(width: float, depth: float, eps: float) -> EfficientNet:
    stages = tuple((fused, expansion, kernel, stride, divisible(out * width), math.ceil(repeats * depth))
                   for fused, expansion, kernel, stride, out, repeats in B)
    return EfficientNet(divisible(32 * width), stages, 4 * stages[-1][4], eps)


VARIANTS = {
    "efficientnet_b0": _scaled(1.0, 1.0, 1e-5),
    "efficientnet_b1": _scaled(1.0, 1.1, 1e-5),
    "efficientnet_b2": _scaled(1.1, 1.2, 1e-5),
    "efficientnet_b3": _scaled(1.2, 1.4, 1e-5),
    "efficientnet_b4": _scaled(1.4, 1.8, 1e-5),
    "efficientnet_b5": _scaled(1.6, 2.2, 1e-3),
    "efficientnet_b6": _scaled(1.8, 2.6, 1e-3),
    "efficientnet_b7": _scaled(2.0, 3.1, 1e-3),
    "efficientnet_v2_s": EfficientNet(24, V2_S, 1280, 1e-3),
    "efficientnet_v2_m": EfficientNet(24, V2_M, 1280, 1e-3),
    "efficientnet_v2_l": EfficientNet(32, V2_L, 1280, 1e-3),
}


def _block(net: Layers, x: Value, name: str, stage: Stage, stride: int) -> Value:
    fused, expansion, kernel, _, out, _ = stage
    channels = size(x, 1)
    hidden, y, place = divisible(channels * expansion), x, 0
    if fused and hidden == channels:
        y = net.conv_block(y, f"{name}.block.0", out, kernel, stride, activation=SILU)
    elif fused:
        y = net.conv_block(y, f"{name}.block.0", hidden, kernel, stride, activation=SILU)
        y = net.conv_block(y, f"{name}.block.1", out, 1)
    else:
        if hidden != channels:
            y = net.conv_block(y, f"{name}.block.0", hidden, 1, activation=SILU)
            place = 1
        y = net.conv_block(y, f"{name}.block.{place}", hidden, kernel, stride, groups=hidden, activation=SILU)
        y = net.squeeze_excitation(y, f"{name}.block.{place + 1}", max(1, channels // 4), SILU)
        y = net.conv_block(y, f"{name}.block.{place + 2}", out, 1)
    return net.op("add", y, x) if stride == 1 and channels == out else y


def build(net: Layers, variant: EfficientNet) -> Value:
    """The class scores, `[batch, classes]`."""
    net.eps = variant.eps
    x = net.conv_block(net.image("features.0.0"), "features.0", variant.first, 3, 2, activation=SILU)
    for position, stage in enumerate(variant.stages, 1):
        for repeat in range(stage[5]):
            x = _block(net, x, f"features.{position}.{repeat}", stage, 1 if repeat else stage[3])
    x = net.conv_block(x, f"features.{len(variant.stages) + 1}", variant.last, 1, activation=SILU)
    return net.linear(net.global_pool(x), "classifier.1")


FAMILY = Family("EfficientNet", ("features.0.0.weight", "features.1.0.block.0.0.weight", "classifier.1.weight"), VARIANTS, build)
