"""RegNet X and Y (torchvision.models.regnet)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.activations import RELU
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers, size
from converter.builder import Value

FIRST = 32


@dataclass(frozen=True, slots=True)
class RegNet:
    """`group`: channels of a group, at most all. `squeezed`: RegNet Y's squeeze and excitation, to a quarter of a block's input."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    group: int
    squeezed: bool


VARIANTS = {
    "regnet_y_400mf": RegNet((1, 3, 6, 6), (48, 104, 208, 440), 8, True),
    "regnet_y_800mf": RegNet((1, 3, 8, 2), (64, 144, 320, 784), 16, True),
    "regnet_y_1_6gf": RegNet((2, 6, 17, 2), (48, 120, 336, 888), 24, True),
    "regnet_y_3_2gf": RegNet((2, 5, 13, 1), (72, 216, 576, 1512), 24, True),
    "regnet_y_8gf": RegNet((2, 4, 10, 1), (224, 448, 896, 2016), 56, True),
    "regnet_y_16gf": RegNet((2, 4, 11, 1), (224, 448, 1232, 3024), 112, True),
    "regnet_y_32gf": RegNet((2, 5, 12, 1), (232, 696, 1392, 3712), 232, True),
    "regnet_y_128gf": RegNet((2, 7, 17, 1), (528, 1056, 2904, 7392), 264, True),
    "regnet_x_400mf": RegNet((1, 2, 7, 12), (32, 64, 160, 400), 16, False),
    "regnet_x_800mf": RegNet((1, 3, 7, 5), (64, 128, 288, 672), 16, False),
    "regnet_x_1_6gf": RegNet((2, 4, 10, 2), (72, 168, 408, 912), 24, False),
    "regnet_x_3_2gf": RegNet((2, 6, 15, 2), (96, 192, 432, 1008), 48, False),
    "regnet_x_8gf": RegNet((2, 5, 15, 1), (80, 240, 720, 1920), 120, False),
    "regnet_x_16gf": RegNet((2, 6, 13, 1), (256, 512, 896, 2048), 128, False),
    "regnet_x_32gf": RegNet((2, 7, 13, 1), (336, 672, 1344, 2520), 168, False),
}


def _block(net: Layers, x: Value, name: str, variant: RegNet, width: int, stride: int) -> Value:
    channels = size(x, 1)
    y = net.conv_block(x, f"{name}.f.a", width, 1, activation=RELU)
    y = net.conv_block(y, f"{name}.f.b", width, 3, stride, groups=width // min(variant.group, width), activation=RELU)
    if variant.squeezed:
        y = net.squeeze_excitation(y, f"{name}.f.se", round(0.25 * channels), RELU)
    y = net.conv_block(y, f"{name}.f.c", width, 1)
    if stride != 1 or channels != width:
        x = net.conv_block(x, f"{name}.proj", width, 1, stride)
    return net.activation(net.op("add", x, y), RELU)


def build(net: Layers, variant: RegNet) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.conv_block(net.image("stem.0"), "stem", FIRST, 3, 2, activation=RELU)
    for stage, (depth, width) in enumerate(zip(variant.depths, variant.widths, strict=True), 1):
        for block in range(depth):
            x = _block(net, x, f"trunk_output.block{stage}.block{stage}-{block}", variant, width, 1 if block else 2)
    return net.linear(net.global_pool(x), "fc")


FAMILY = Family("RegNet", ("stem.0.weight", "trunk_output.block1.block1-0.f.a.0.weight", "fc.weight"), VARIANTS, build)
