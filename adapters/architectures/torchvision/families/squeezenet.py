"""SqueezeNet 1.0 and 1.1 (torchvision.models.squeezenet)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.activations import RELU
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers
from converter.builder import Value


@dataclass(frozen=True, slots=True)
class SqueezeNet:
    """`first`, `kernel`: of the first convolution. `pools`: the places of the max pools after it."""

    first: int
    kernel: int
    pools: tuple[int, ...]


VARIANTS = {"squeezenet1_0": SqueezeNet(96, 7, (2, 6, 11)), "squeezenet1_1": SqueezeNet(64, 3, (2, 5, 8))}

# Channels of each fire module's squeezing convolution, and of each of its two expanding ones.
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


def _fire(net: Layers, x: Value, name: str, squeeze: int, expand: int) -> Value:
    x = net.activation(net.convolution(x, f"{name}.squeeze", squeeze, 1, bias=True), RELU)
    one = net.activation(net.convolution(x, f"{name}.expand1x1", expand, 1, bias=True), RELU)
    three = net.activation(net.convolution(x, f"{name}.expand3x3", expand, 3, bias=True), RELU)
    return net.op("concat", one, three, axis=1)


def build(net: Layers, variant: SqueezeNet) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.activation(net.convolution(net.image("features.0"), "features.0", variant.first, variant.kernel, 2, 0, bias=True), RELU)
    position = 2
    for squeeze, expand in FIRES:
        while position in variant.pools:
            x = net.max_pool(x, 3, 2, ceil=True)
            position += 1
        x = _fire(net, x, f"features.{position}", squeeze, expand)
        position += 1
    return net.global_pool(net.activation(net.convolution(x, "classifier.1", None, 1, bias=True), RELU))


FAMILY = Family("SqueezeNet", ("features.0.weight", "features.3.squeeze.weight", "classifier.1.weight"), VARIANTS, build)
