"""Inception v3 (torchvision.models.inception). The auxiliary head is for training only."""

from __future__ import annotations

from typing import cast

from adapters.architectures.activations import RELU
from adapters.architectures.net import Pair
from adapters.architectures.torchvision.families.googlenet import TRANSFORMS, normalized
from adapters.architectures.torchvision.family import Family
from adapters.architectures.torchvision.layers import Layers
from converter.builder import Value

# A branch is a row of convolutions, each (its name, channels, kernel, stride, padding, None for what keeps the size), with
# "max" or "average" for a 3x3 pool before them, and a tuple of convolutions for ones that all follow the one before.
Conv = tuple[str, int, Pair, int, int | None]
Step = Conv | str | tuple[Conv, ...]
Row = tuple[Step, ...]


def _conv(name: str, out: int, kernel: Pair, stride: int = 1, padding: int | None = None) -> Conv:
    return name, out, kernel, stride, padding


STEM: Row = (
    _conv("Conv2d_1a_3x3", 32, 3, 2, 0), _conv("Conv2d_2a_3x3", 32, 3, 1, 0), _conv("Conv2d_2b_3x3", 64, 3), "max",
    _conv("Conv2d_3b_1x1", 80, 1), _conv("Conv2d_4a_3x3", 192, 3, 1, 0), "max",
)


def _a(pooled: int) -> list[Row]:
    return [(_conv("branch1x1", 64, 1),), (_conv("branch5x5_1", 48, 1), _conv("branch5x5_2", 64, 5)),
            (_conv("branch3x3dbl_1", 64, 1), _conv("branch3x3dbl_2", 96, 3), _conv("branch3x3dbl_3", 96, 3)),
            ("average", _conv("branch_pool", pooled, 1))]


def _c(width: int) -> list[Row]:
    return [(_conv("branch1x1", 192, 1),),
            (_conv("branch7x7_1", width, 1), _conv("branch7x7_2", width, (1, 7)), _conv("branch7x7_3", 192, (7, 1))),
            (_conv("branch7x7dbl_1", width, 1), _conv("branch7x7dbl_2", width, (7, 1)), _conv("branch7x7dbl_3", width, (1, 7)),
             _conv("branch7x7dbl_4", width, (7, 1)), _conv("branch7x7dbl_5", 192, (1, 7))),
            ("average", _conv("branch_pool", 192, 1))]


_B: list[Row] = [(_conv("branch3x3", 384, 3, 2, 0),),
                   (_conv("branch3x3dbl_1", 64, 1), _conv("branch3x3dbl_2", 96, 3), _conv("branch3x3dbl_3", 96, 3, 2, 0)), ("max",)]
_D: list[Row] = [(_conv("branch3x3_1", 192, 1), _conv("branch3x3_2", 320, 3, 2, 0)),
                   (_conv("branch7x7x3_1", 192, 1), _conv("branch7x7x3_2", 192, (1, 7)), _conv("branch7x7x3_3", 192, (7, 1)),
                    _conv("branch7x7x3_4", 192, 3, 2, 0)), ("max",)]
_E: list[Row] = [(_conv("branch1x1", 320, 1),),
                   (_conv("branch3x3_1", 384, 1), (_conv("branch3x3_2a", 384, (1, 3)), _conv("branch3x3_2b", 384, (3, 1)))),
                   (_conv("branch3x3dbl_1", 448, 1), _conv("branch3x3dbl_2", 384, 3),
                    (_conv("branch3x3dbl_3a", 384, (1, 3)), _conv("branch3x3dbl_3b", 384, (3, 1)))),
                   ("average", _conv("branch_pool", 192, 1))]
MIXED = {"Mixed_5b": _a(32), "Mixed_5c": _a(64), "Mixed_5d": _a(64), "Mixed_6a": _B, "Mixed_6b": _c(128), "Mixed_6c": _c(160),
         "Mixed_6d": _c(160), "Mixed_6e": _c(192), "Mixed_7a": _D, "Mixed_7b": _E, "Mixed_7c": _E}


def _convolution(net: Layers, x: Value, prefix: str, conv: Conv) -> Value:
    name, out, kernel, stride, padding = conv
    return net.conv_norm(x, f"{prefix}{name}.conv", f"{prefix}{name}.bn", out, kernel, stride, padding, activation=RELU)


def _row(net: Layers, x: Value, prefix: str, row: Row) -> list[Value]:
    values = [x]
    for step in row:
        if step == "max":
            values = [net.max_pool(values[0], 3, 2)]
        elif step == "average":
            values = [net.avg_pool(values[0], 3, 1, 1)]
        elif isinstance(step[0], str):
            values = [_convolution(net, values[0], prefix, cast(Conv, step))]
        else:
            values = [_convolution(net, values[0], prefix, conv) for conv in cast(tuple[Conv, ...], step)]
    return values


def build(net: Layers, transformed: bool) -> Value:
    """The class scores, `[batch, classes]`."""
    net.eps = 0.001
    net.unused("AuxLogits.")
    x = net.image("Conv2d_1a_3x3.conv")
    x, = _row(net, normalized(net, x) if transformed else x, "", STEM)
    for name, branches in MIXED.items():
        x = net.op("concat", *(value for row in branches for value in _row(net, x, f"{name}.", row)), axis=1)
    return net.linear(net.global_pool(x), "fc")


FAMILY = Family("Inception v3", ("Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch1x1.conv.weight", "fc.weight"),
                {"inception_v3": False, "inception_v3_transform_input": True}, build,
                {"inception_v3": TRANSFORMS[False], "inception_v3_transform_input": TRANSFORMS[True]})
