"""Layers as timm has them, over `adapters.architectures.torchvision.layers`: its norms, activations, pools and heads by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adapters.architectures import activations
from adapters.architectures.activations import Activation
from adapters.architectures.net import Pair, pair
from adapters.architectures.timm.arguments import OTHERWISE, Arguments
from adapters.architectures.torchvision.layers import Layers, size
from converter.builder import Value
from converter.dims import Dim, maximum
from converter.errors import UnsupportedError
from converter.ir import TensorSpec

Kind = tuple[str, Mapping[str, Any]]

# timm's names of activations, without underscores.
ACTIVATIONS: Mapping[str, Activation] = {
    "": activations.IDENTITY,
    "identity": activations.IDENTITY,
    "relu": activations.RELU,
    "relu6": activations.RELU6,
    "leakyrelu": activations.LEAKY_RELU,
    "elu": activations.ELU,
    "gelu": activations.GELU,
    "gelutanh": activations.GELU_TANH,
    "quickgelu": activations.QUICK_GELU,
    "silu": activations.SILU,
    "swish": activations.SILU,
    "mish": activations.MISH,
    "tanh": activations.TANH,
    "sigmoid": activations.SIGMOID,
    "hardswish": activations.HARDSWISH,
    "hardsigmoid": activations.HARDSIGMOID,
}
POOLS = ("avg", "max", "avgmax", "catavgmax", "")
NORM_EPS = {"batchnorm2d": 1e-5, "groupnorm": 1e-5, "layernorm": 1e-6, "layernorm2d": 1e-6, "rmsnorm": 1e-6, "rmsnorm2d": 1e-6,
            "simplenorm": 1e-6, "simplenorm2d": 1e-6}


class Net(Layers):
    """A timm model's graph being built."""

    def __init__(self, name: str, specs: Mapping[str, TensorSpec], prefix: str, arguments: Arguments) -> None:
        super().__init__(name, specs, prefix)
        self.arguments = arguments

    def unknown(self, what: str, kind: str, expected: str) -> UnsupportedError:
        """The error for a kind of layer that is not known."""
        return UnsupportedError(f"a kind of {what} that is not known", where=self.arguments.where, expected=expected,
                                received=repr(kind)[:200], fix=OTHERWISE)

    def picture(self, height: Dim | str = "height", width: Dim | str = "width") -> Value:
        """The graph's input: images of `in_chans` channels."""
        return self.b.input("x", self.dtype, ["batch", self.arguments.size("in_chans", 3), height, width])

    # Layers -------------------------------------------------------------------------------------------------------------

    def kind(self, name: str) -> Activation:
        """What one of timm's names of activations stands for; "" for none."""
        name = name.replace("_", "").lower()
        if name not in ACTIVATIONS:
            raise self.unknown("activation", name, ", ".join(name for name in ACTIVATIONS if name))
        return ACTIVATIONS[name]

    def activate(self, x: Value, name: str) -> Value:
        """One of timm's activations, by its name."""
        return self.activation(x, self.kind(name))

    def norm(self, x: Value, name: str, kind: Kind, axis: int = -1) -> Value:
        """A norm over the axis of the channels: 1 for images, -1 for rows of features."""
        what, bound = kind
        if what not in NORM_EPS or any(key not in ("eps", "num_groups") for key in bound):
            raise self.unknown("norm", str(kind), ", ".join(NORM_EPS))
        eps = float(bound.get("eps", NORM_EPS[what]))
        channels = size(x, axis)
        if what == "batchnorm2d":
            return self.batch_norm(x, name, eps)
        if what == "groupnorm":
            groups = int(bound.get("num_groups", 32))
            weight = self.parameter(f"{name}.weight", channels)
            return self.op("group_norm", x, weight, self.parameter(f"{name}.bias", channels), num_groups=groups, eps=eps)
        if axis == 1:
            x = self.op("permute_dims", x, axes=(0, 2, 3, 1))
        if what.startswith("layernorm"):
            y = self.layer_norm(x, name, eps)
        elif what.startswith("rmsnorm"):
            y = self.rms_norm(x, name, eps)
        else:
            spread = self.op("var", x, axis=(-1,), correction=1, keepdims=True)
            y = self.op("multiply", x, self.op("rsqrt", self.op("add", spread, eps)))
            y = self.op("multiply", y, self.parameter(f"{name}.weight", channels))
        return self.op("permute_dims", y, axes=(0, 3, 1, 2)) if axis == 1 else y

    def same(self, x: Value, kernel: Pair, stride: Pair, dilation: int = 1) -> Value:
        """TensorFlow's "same" padding before a convolution: what is odd goes below and to the right."""
        pads: list[tuple[Dim, Dim]] = [(0, 0), (0, 0)]
        for length, wide, step in zip(x.shape[2:], pair(kernel), pair(stride), strict=True):
            reach = (wide - 1) * dilation + 1
            total = ((length + step - 1) // step - 1) * step + reach - length
            total = maximum(total, 0) if reach < step else total
            pads.append((total // 2, total - total // 2))
        return self.op("pad", x, pads=tuple(pads))

    def halved(self, x: Value, stride: int, dilation: int) -> Value:
        """The mean of 2 by 2 in a stride's place, or beside a dilation, where it keeps the size."""
        if stride == 1 and dilation == 1:
            return x
        if dilation > 1:
            x = self.op("pad", x, pads=((0, 0), (0, 0), (0, 1), (0, 1)))
        step = stride if dilation == 1 else 1
        return self.op("avg_pool", x, kernel=(2, 2), stride=(step, step), ceil_mode=True, count_include_pad=False)

    def blur(self, x: Value, stride: int, mode: str = "reflect") -> Value:
        """A 3x3 binomial filter (Zhang 2019)."""
        channels = size(x, 1)
        row = np.array([0.25, 0.5, 0.25])
        weights = np.broadcast_to(row[:, None] * row, (channels, 1, 3, 3)).astype(self.dtype.numpy)
        before = (stride - 1 + 2) // 2
        x = self.op("pad", x, pads=((0, 0), (0, 0), (before, before), (before, before)), mode=mode)
        return self.op("convolution", x, self.constant(f"blur_{channels}", weights), stride=(stride, stride), groups=channels)

    def anti_aliased(self, x: Value, kind: Kind, stride: int) -> Value:
        """What stands in a stride's place: an average pool, or a blur."""
        what, bound = kind
        if what in ("avg", "avgpool2d") and not bound:
            return x if stride == 1 else self.avg_pool(x, stride, stride)
        if what in ("blur", "blurpool2d", "blurpc") and bound in ({}, {"pad_mode": "constant"}):
            return self.blur(x, stride, "constant" if bound or what == "blurpc" else "reflect")
        raise self.unknown("anti-aliasing", str(kind), "avg, blur, blurpc")

    def linear_gate(self, x: Value, name: str) -> Value:
        """Efficient channel attention (Wang et al. 2020): a convolution along the channels' means."""
        channels = size(x, 1)
        reach = int(abs(np.log2(channels) + 1) / 2)
        kernel = max(reach if reach % 2 else reach + 1, 3)
        y = self.op("reshape", self.op("mean", x, axis=(2, 3)), shape=(x.shape[0], 1, channels))
        y = self.op("convolution", y, self.parameter(f"{name}.conv.weight", 1, 1, kernel), padding=(kernel // 2,))
        return self.op("multiply", x, self.op("reshape", self.op("sigmoid", y), shape=(x.shape[0], channels, 1, 1)))

    def multiplied(self, x: Value, name: str, width: int) -> Value:
        """`LayerScale`, or any factor for each feature."""
        return self.op("multiply", x, self.parameter(name, width))

    # Heads --------------------------------------------------------------------------------------------------------------

    def pooled(self, x: Value, kind: str, axes: tuple[int, ...] = (2, 3)) -> Value:
        """Each channel's mean, greatest value, or both: `[batch, channels]`."""
        if kind == "avg":
            return self.op("mean", x, axis=axes)
        most = self.op("max", x, axis=axes)
        if kind == "max":
            return most
        if kind == "avgmax":
            return self.op("multiply", self.op("add", self.op("mean", x, axis=axes), most), 0.5)
        return self.op("concat", self.op("mean", x, axis=axes), most, axis=1)

    def pooling(self, default: str = "avg", options: tuple[str, ...] = POOLS) -> str:
        """The argument `global_pool`, "" for none."""
        chosen: str = self.arguments.choice("global_pool", options, default)
        if self.arguments.pool not in (None, chosen):
            raise UnsupportedError(f"config.json says another global_pool than the one that timm builds, {chosen!r}",
                                   where=self.arguments.where, expected=repr(chosen), received=repr(self.arguments.pool)[:100],
                                   fix=f"say it in model_args, or {OTHERWISE}")
        if not chosen and self.classes():
            raise self.arguments.refuse("global_pool", "a pool before the classifier, or num_classes 0")
        return chosen

    def classes(self) -> int:
        """The argument `num_classes`; 0: the features are the output."""
        return self.arguments.size("num_classes", 1000, least=0)

    def classified(self, x: Value, name: str, bias: bool = True) -> Value:
        """The classifier over rows of features, where there is one."""
        return self.linear(x, name, self.classes(), bias=bias) if self.classes() else x

    def head(self, x: Value, name: str, axes: tuple[int, ...] = (2, 3)) -> Value:
        """timm's ClassifierHead: the pool, then the classifier."""
        kind = self.pooling()
        return self.classified(self.pooled(x, kind, axes), name) if kind else x


def squeezed(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, with no other bound than one of them."""
    return max(divisor, int(channels + divisor / 2) // divisor * divisor)

