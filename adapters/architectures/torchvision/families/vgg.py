"""VGG, with and without batch norms (torchvision.models.vgg)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.activations import RELU
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers
from converter.builder import Value

# The 3x3 convolutions between two max pools: how many, of how many channels.
WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True, slots=True)
class VGG:
    """`repeats`: convolutions before each of the five max pools."""

    repeats: tuple[int, int, int, int, int]
    norms: bool = False


_REPEATS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
VARIANTS = {f"vgg{depth}{'_bn' if norms else ''}": VGG(repeats, norms) for depth, repeats in _REPEATS.items() for norms in (False, True)}


def build(net: Layers, variant: VGG) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.image("features.0")
    position = 0
    for width, repeats in zip(WIDTHS, variant.repeats, strict=True):
        for _ in range(repeats):
            x = net.convolution(x, f"features.{position}", width, 3, bias=True)
            if variant.norms:
                x = net.batch_norm(x, f"features.{position + 1}")
            x = net.activation(x, RELU)
            position += 3 if variant.norms else 2
        x = net.max_pool(x, 2, 2)
        position += 1
    x = net.flatten(net.op("adaptive_avg_pool", x, size=(7, 7)))
    x = net.activation(net.linear(x, "classifier.0", 4096), RELU)
    x = net.activation(net.linear(x, "classifier.3", 4096), RELU)
    return net.linear(x, "classifier.6")


FAMILY = Family("VGG", ("features.0.weight", "classifier.0.weight", "classifier.3.weight", "classifier.6.weight"), VARIANTS, build)
