"""ConvNeXt (torchvision.models.convnext)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers
from converter.builder import Value

EPS = 1e-6


@dataclass(frozen=True, slots=True)
class ConvNeXt:
    """Blocks in each stage, and their channels."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]


VARIANTS = {
    "convnext_tiny": ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": ConvNeXt((3, 3, 27, 3), (192, 384, 768, 1536)),
}


def _block(net: Layers, x: Value, name: str, width: int) -> Value:
    y = net.convolution(x, f"{name}.block.0", width, 7, groups=width, bias=True)
    y = net.layer_norm(net.op("permute_dims", y, axes=(0, 2, 3, 1)), f"{name}.block.2", EPS)
    y = net.op("gelu", net.linear(y, f"{name}.block.3", 4 * width))
    y = net.op("permute_dims", net.linear(y, f"{name}.block.5", width), axes=(0, 3, 1, 2))
    return net.op("add", net.op("multiply", net.parameter(f"{name}.layer_scale", width, 1, 1), y), x)


def build(net: Layers, variant: ConvNeXt) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.convolution(net.image("features.0.0"), "features.0.0", variant.widths[0], 4, 4, 0, bias=True)
    x = net.channel_norm(x, "features.0.1", EPS)
    for stage, (depth, width) in enumerate(zip(variant.depths, variant.widths, strict=True)):
        if stage:
            x = net.channel_norm(x, f"features.{2 * stage}.0", EPS)
            x = net.convolution(x, f"features.{2 * stage}.1", width, 2, 2, 0, bias=True)
        for block in range(depth):
            x = _block(net, x, f"features.{2 * stage + 1}.{block}", width)
    return net.linear(net.layer_norm(net.global_pool(x), "classifier.0", EPS), "classifier.2")


FAMILY = Family("ConvNeXt", ("features.0.0.weight", "features.1.0.layer_scale", "classifier.2.weight"), VARIANTS, build)
