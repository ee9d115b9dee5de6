"""MNASNet B1 (torchvision.models.mnasnet)."""

from __future__ import annotations

from adapters.architectures.activations import RELU
from adapters.architectures.net import divisible
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers, size
from converter.builder import Value

WIDTHS = (32, 16, 24, 40, 80, 96, 192, 320)
LAST = 1280

# Kernel, stride of the first, expansion, repeats.
STACKS = ((3, 2, 3, 3), (5, 2, 3, 3), (5, 2, 6, 3), (3, 1, 6, 2), (5, 2, 6, 4), (3, 1, 6, 1))


def _widths(factor: float, *, scaled_stem: bool = True) -> tuple[int, ...]:
    widths = tuple(divisible(width * factor) for width in WIDTHS)
    return widths if scaled_stem else WIDTHS[:2] + widths[2:]


_FACTORS = {"mnasnet0_5": 0.5, "mnasnet0_75": 0.75, "mnasnet1_0": 1.0, "mnasnet1_3": 1.3}
# The first version of the architecture did not scale the first two widths.
VARIANTS = {**{name: _widths(factor) for name, factor in _FACTORS.items()},
            **{f"{name}_version1": _widths(factor, scaled_stem=False) for name, factor in _FACTORS.items() if factor != 1.0}}


def _block(net: Layers, x: Value, name: str, out: int, kernel: int, stride: int, expansion: int) -> Value:
    channels = size(x, 1)
    hidden = channels * expansion
    y = net.conv_norm(x, f"{name}.layers.0", f"{name}.layers.1", hidden, 1, activation=RELU)
    y = net.conv_norm(y, f"{name}.layers.3", f"{name}.layers.4", hidden, kernel, stride, groups=hidden, activation=RELU)
    y = net.conv_norm(y, f"{name}.layers.6", f"{name}.layers.7", out, 1)
    return net.op("add", y, x) if stride == 1 and channels == out else y


def build(net: Layers, widths: tuple[int, ...]) -> Value:
    """The class scores, `[batch, classes]`."""
    x = net.conv_norm(net.image("layers.0"), "layers.0", "layers.1", widths[0], 3, 2, activation=RELU)
    x = net.conv_norm(x, "layers.3", "layers.4", widths[0], 3, groups=widths[0], activation=RELU)
    x = net.conv_norm(x, "layers.6", "layers.7", widths[1], 1)
    for position, ((kernel, stride, expansion, repeats), width) in enumerate(zip(STACKS, widths[2:], strict=True), 8):
        for repeat in range(repeats):
            x = _block(net, x, f"layers.{position}.{repeat}", width, kernel, 1 if repeat else stride, expansion)
    x = net.conv_norm(x, "layers.14", "layers.15", LAST, 1, activation=RELU)
    return net.linear(net.global_pool(x), "classifier.1")


FAMILY = Family("MNASNet", ("layers.0.weight", "layers.8.0.layers.0.weight", "layers.14.weight", "classifier.1.weight"), VARIANTS, build)
