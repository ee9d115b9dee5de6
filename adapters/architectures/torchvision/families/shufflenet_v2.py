"""ShuffleNet v2 (torchvision.models.shufflenetv2)."""

from __future__ import annotations

from adapters.architectures.activations import RELU
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers, size
from converter.builder import Value

FIRST = 24
REPEATS = (4, 8, 4)

# Channels of each stage, and of the last convolution.
VARIANTS = {
    "shufflenet_v2_x0_5": (48, 96, 192, 1024),
    "shufflenet_v2_x1_0": (116, 232, 464, 1024),
    "shufflenet_v2_x1_5": (176, 352, 704, 1024),
    "shufflenet_v2_x2_0": (244, 488, 976, 2048),
}


def _branch(net: Layers, x: Value, name: str, half: int, stride: int) -> Value:
    x = net.conv_norm(x, f"{name}.0", f"{name}.1", half, 1, activation=RELU)
    x = net.conv_norm(x, f"{name}.3", f"{name}.4", half, 3, stride, groups=half)
    return net.conv_norm(x, f"{name}.5", f"{name}.6", half, 1, activation=RELU)


def _block(net: Layers, x: Value, name: str, half: int, first: bool) -> Value:
    if first:
        channels = size(x, 1)
        left = net.conv_norm(x, f"{name}.branch1.0", f"{name}.branch1.1", channels, 3, 2, groups=channels)
        left = net.conv_norm(left, f"{name}.branch1.2", f"{name}.branch1.3", half, 1, activation=RELU)
        right = _branch(net, x, f"{name}.branch2", half, 2)
    else:
        left, right = net.b.add("split", (x,), {"sizes": (half, half), "axis": 1})
        right = _branch(net, right, f"{name}.branch2", half, 1)
    return net.op("channel_shuffle", net.op("concat", left, right, axis=1), groups=2)


def build(net: Layers, widths: tuple[int, int, int, int]) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.conv_block(net.image("conv1.0"), "conv1", FIRST, 3, 2, activation=RELU)
    x = net.max_pool(x, 3, 2, 1)
    for stage, (width, repeats) in enumerate(zip(widths[:3], REPEATS, strict=True), 2):
        for repeat in range(repeats):
            x = _block(net, x, f"stage{stage}.{repeat}", width // 2, repeat == 0)
    x = net.conv_block(x, "conv5", widths[3], 1, activation=RELU)
    return net.linear(net.global_pool(x), "fc")


FAMILY = Family("ShuffleNet v2", ("conv1.0.weight", "stage2.0.branch1.0.weight", "conv5.0.weight", "fc.weight"), VARIANTS, build)
