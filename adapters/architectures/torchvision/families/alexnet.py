"""AlexNet (torchvision.models.alexnet)."""

from __future__ import annotations

from adapters.architectures.activations import RELU
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers
from converter.builder import Value

# The convolution's place, channels, kernel, stride, padding, and whether a max pool follows.
CONVOLUTIONS = ((0, 64, 11, 4, 2, True), (3, 192, 5, 1, 2, True), (6, 384, 3, 1, 1, False), (8, 256, 3, 1, 1, False),
                (10, 256, 3, 1, 1, True))


def build(net: Layers, variant: None) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.image("features.0")
    for place, out, kernel, stride, padding, pooled in CONVOLUTIONS:
        x = net.activation(net.convolution(x, f"features.{place}", out, kernel, stride, padding, bias=True), RELU)
        if pooled:
            x = net.max_pool(x, 3, 2)
    x = net.flatten(net.op("adaptive_avg_pool", x, size=(6, 6)))
    x = net.activation(net.linear(x, "classifier.1", 4096), RELU)
    x = net.activation(net.linear(x, "classifier.4", 4096), RELU)
    return net.linear(x, "classifier.6")


FAMILY = Family("AlexNet", ("features.0.weight", "features.10.weight", "classifier.1.weight", "classifier.6.weight"),
                {"alexnet": None}, build)
