"""ResNet, ResNeXt and Wide ResNet (torchvision.models.resnet)."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.architectures.activations import RELU
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers
from converter.builder import Value


@dataclass(frozen=True, slots=True)
class ResNet:
    """`layers`: blocks in each stage. `bottleneck`: three convolutions a block, not two. `width`: channels of one of `groups`."""

    layers: tuple[int, int, int, int]
    bottleneck: bool = True
    groups: int = 1
    width: int = 64


VARIANTS = {
    "resnet18": ResNet((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNet((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNet((3, 4, 6, 3)),
    "resnet101": ResNet((3, 4, 23, 3)),
    "resnet152": ResNet((3, 8, 36, 3)),
    "resnext50_32x4d": ResNet((3, 4, 6, 3), groups=32, width=4),
    "resnext101_32x8d": ResNet((3, 4, 23, 3), groups=32, width=8),
    "resnext101_64x4d": ResNet((3, 4, 23, 3), groups=64, width=4),
    "wide_resnet50_2": ResNet((3, 4, 6, 3), width=128),
    "wide_resnet101_2": ResNet((3, 4, 23, 3), width=128),
}


def _block(net: Layers, x: Value, name: str, variant: ResNet, planes: int, stride: int) -> Value:
    out = planes * (4 if variant.bottleneck else 1)
    # The stride is the 3x3 convolution's, not the first one's: "ResNet V1.5".
    if variant.bottleneck:
        width = planes * variant.width // 64 * variant.groups
        y = net.conv_norm(x, f"{name}.conv1", f"{name}.bn1", width, 1, activation=RELU)
        y = net.conv_norm(y, f"{name}.conv2", f"{name}.bn2", width, 3, stride, groups=variant.groups, activation=RELU)
        y = net.conv_norm(y, f"{name}.conv3", f"{name}.bn3", out, 1)
    else:
        y = net.conv_norm(x, f"{name}.conv1", f"{name}.bn1", out, 3, stride, activation=RELU)
        y = net.conv_norm(y, f"{name}.conv2", f"{name}.bn2", out, 3)
    if stride != 1 or x.shape[1] != out:
        x = net.conv_block(x, f"{name}.downsample", out, 1, stride)
    return net.activation(net.op("add", y, x), RELU)


def build(net: Layers, variant: ResNet) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.conv_norm(net.image("conv1"), "conv1", "bn1", 64, 7, 2, activation=RELU)
    x = net.max_pool(x, 3, 2, 1)
    for stage, blocks in enumerate(variant.layers):
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            x = _block(net, x, f"layer{stage + 1}.{block}", variant, 64 * 2**stage, stride)
    return net.linear(net.global_pool(x), "fc")


FAMILY = Family("ResNet", ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight", "fc.weight"), VARIANTS, build)
