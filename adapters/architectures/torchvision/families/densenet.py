"""DenseNet (torchvision.models.densenet)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.activations import RELU
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers, size
from converter.builder import Value

BOTTLENECK = 4  # channels of a layer's first convolution, over its growth


@dataclass(frozen=True, slots=True)
class DenseNet:
    """`growth`: channels that each layer adds. `first`: channels before the first block."""

    growth: int
    layers: tuple[int, ...]
    first: int


VARIANTS = {
    "densenet121": DenseNet(32, (6, 12, 24, 16), 64),
    "densenet161": DenseNet(48, (6, 12, 36, 24), 96),
    "densenet169": DenseNet(32, (6, 12, 32, 32), 64),
    "densenet201": DenseNet(32, (6, 12, 48, 32), 64),
}


def features(net: Layers, variant: DenseNet, image: Value) -> Value:
    """The last map of features, before the pool."""
    # Published files, made before names could hold no dots, say norm.1 where the module says norm1.
    dot = "." if net.has("features.denseblock1.denselayer1.norm.1.weight") else ""
    x = net.conv_norm(image, "features.conv0", "features.norm0", variant.first, 7, 2, activation=RELU)
    x = net.max_pool(x, 3, 2, 1)
    for block, layers in enumerate(variant.layers, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            y = net.activation(net.batch_norm(x, f"{name}.norm{dot}1"), RELU)
            y = net.convolution(y, f"{name}.conv{dot}1", BOTTLENECK * variant.growth, 1)
            y = net.activation(net.batch_norm(y, f"{name}.norm{dot}2"), RELU)
            x = net.op("concat", x, net.convolution(y, f"{name}.conv{dot}2", variant.growth, 3), axis=1)
        if block < len(variant.layers):
            name = f"features.transition{block}"
            y = net.activation(net.batch_norm(x, f"{name}.norm"), RELU)
            channels = size(y, 1)
            x = net.avg_pool(net.convolution(y, f"{name}.conv", channels // 2, 1), 2, 2)
    return net.activation(net.batch_norm(x, "features.norm5"), RELU)


def build(net: Layers, variant: DenseNet) -> Value:
    """The class scores, `[batch, classes]`."""
    return net.linear(net.global_pool(features(net, variant, net.image("features.conv0"))), "classifier")


FAMILY = Family("DenseNet", ("features.conv0.weight", "features.norm5.weight", "classifier.weight"), VARIANTS, build)
