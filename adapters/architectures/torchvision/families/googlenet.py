"""GoogLeNet, with batch norms (torchvision.models.googlenet). The auxiliary heads are for training only."""

from __future__ import annotations

from adapters.architectures.activations import RELU
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers
from converter.builder import Value

# Channels of the four branches: 1x1; 1x1 then 3x3; 1x1 then 3x3; max pool then 1x1. A number: a max pool of that kernel.
INCEPTIONS: dict[str, tuple[int, ...] | int] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "maxpool3": 3,
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "maxpool4": 2,
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}

# Mean and deviation of each channel that images were normalized with; the network wants them normalized with 0.5 and 0.5.
STATISTICS = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
TRANSFORMS = {
    False: "the checkpoint does not say whether the model normalizes its input again; this one does not, as a module made without "
           "weights (transform_input=False)",
    True: "the checkpoint does not say whether the model normalizes its input again; this one does, as torchvision's with its published "
          "weights (transform_input=True)",
}


def normalized(net: Layers, x: Value) -> Value:
    """Channel by channel, from ImageNet's statistics to 0.5 and 0.5."""
    if x.shape[1] != len(STATISTICS):
        raise net.mismatch(f"{x.shape[1]} channels, and the statistics are those of {len(STATISTICS)}")
    channels = []
    for channel, (mean, deviation) in enumerate(STATISTICS):
        y = net.op("slice", x, axes=(1,), starts=(channel,), stops=(channel + 1,), steps=(1,))
        channels.append(net.op("add", net.op("multiply", y, deviation / 0.5), (mean - 0.5) / 0.5))
    return net.op("concat", *channels, axis=1)


def _convolution(net: Layers, x: Value, name: str, out: int, kernel: int, stride: int = 1) -> Value:
    return net.conv_norm(x, f"{name}.conv", f"{name}.bn", out, kernel, stride, activation=RELU)


def _inception(net: Layers, x: Value, name: str, widths: tuple[int, ...]) -> Value:
    first = _convolution(net, x, f"{name}.branch1", widths[0], 1)
    second = _convolution(net, _convolution(net, x, f"{name}.branch2.0", widths[1], 1), f"{name}.branch2.1", widths[2], 3)
    third = _convolution(net, _convolution(net, x, f"{name}.branch3.0", widths[3], 1), f"{name}.branch3.1", widths[4], 3)
    fourth = _convolution(net, net.max_pool(x, 3, 1, 1, ceil=True), f"{name}.branch4.1", widths[5], 1)
    return net.op("concat", first, second, third, fourth, axis=1)


def build(net: Layers, transformed: bool) -> Value:
    """The class scores, `[batch, classes]`."""
    net.eps = 0.001
    net.unused("aux1.")
    net.unused("aux2.")
    x = net.image("conv1.conv")
    x = _convolution(net, normalized(net, x) if transformed else x, "conv1", 64, 7, 2)
    x = _convolution(net, net.max_pool(x, 3, 2, ceil=True), "conv2", 64, 1)
    x = net.max_pool(_convolution(net, x, "conv3", 192, 3), 3, 2, ceil=True)
    for name, widths in INCEPTIONS.items():
        x = net.max_pool(x, widths, 2, ceil=True) if isinstance(widths, int) else _inception(net, x, name, widths)
    return net.linear(net.global_pool(x), "fc")


FAMILY = Family("GoogLeNet", ("conv1.conv.weight", "inception3a.branch1.conv.weight", "inception5b.branch1.conv.weight", "fc.weight"),
                {"googlenet": False, "googlenet_transform_input": True}, build,
                {"googlenet": TRANSFORMS[False], "googlenet_transform_input": TRANSFORMS[True]})
