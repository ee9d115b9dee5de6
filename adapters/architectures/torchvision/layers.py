"""Layers over a checkpoint's names and shapes: each checks that its parameters are what it expects, and adds its nodes.

A layer's parameters are named by the layer's prefix in the state_dict: `net.linear(x, "fc", 10)` takes `fc.weight`
and `fc.bias`. A parameter that is missing, or has another shape, raises `Mismatch`: the checkpoint is not of that
architecture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from converter.builder import GraphBuilder, Value
from converter.dims import Dim
from converter.ir import DimRange, DType, Graph, TensorSpec

Pair = int | tuple[int, int]


class Mismatch(Exception):
    """The checkpoint is not of the architecture being built. `fitted`: how many parameters were as expected before."""

    def __init__(self, reason: str, fitted: int) -> None:
        super().__init__(reason)
        self.fitted = fitted


def pair(value: Pair) -> tuple[int, int]:
    """One size for each of the two axes of an image."""
    return value if isinstance(value, tuple) else (value, value)


def size(value: Value, axis: int) -> int:
    """The size of an axis that is not free: channels, features."""
    found = value.shape[axis]
    if not isinstance(found, int):
        raise TypeError(f"axis {axis} of {value.name} has a free size, {found}")
    return found


class Layers:
    """A graph being built over the parameters in `specs`. Values are images `[batch, channels, height, width]` or rows of features.

    The graph's parameters are named as in `specs`, with `prefix` before it. `eps` is that of the batch norms. `assumptions`
    collects what the checkpoint does not show and the published architecture says.
    """

    def __init__(self, name: str, specs: Mapping[str, TensorSpec], prefix: str = "") -> None:
        self.builder = GraphBuilder(name)
        self.specs = specs
        self.prefix = prefix
        self.eps = 1e-5
        self.dtype = next((spec.dtype for spec in specs.values() if spec.dtype.is_float), DType.FLOAT32)
        self.assumptions: list[str] = []
        self._used: set[str] = set()
        self._unused: list[str] = []

    # Parameters ---------------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the checkpoint has the parameter."""
        return name in self.specs

    def shape(self, name: str) -> tuple[int, ...]:
        """A parameter's shape, where the architecture leaves it free. Raises `Mismatch` for one that is missing."""
        return self._shape(name, "any size")

    def _shape(self, name: str, expected: str) -> tuple[int, ...]:
        if name not in self.specs:
            raise self.mismatch(f"{name} ({expected}) is missing")
        return tuple(int(size) for size in self.specs[name].shape if isinstance(size, int))

    def mismatch(self, reason: str) -> Mismatch:
        """The error for a checkpoint that is not of this architecture."""
        return Mismatch(reason, len(self._used))

    def parameter(self, name: str, *shape: int, dtype: DType | None = None) -> Value:
        """The parameter, with exactly this shape and the model's dtype. Raises `Mismatch`."""
        dtype = dtype or self.dtype
        expected = f"{dtype}{list(shape)}"
        if self._shape(name, expected) != shape or self.specs[name].dtype is not dtype:
            raise self.mismatch(f"{name} is {self.specs[name]}, not {expected}")
        self._used.add(name)
        return self.builder.parameter(f"{self.prefix}{name}", dtype, shape)

    def unused(self, prefix: str) -> None:
        """Parameters that evaluation does not use: those whose names begin with `prefix`."""
        self._unused.append(prefix)

    # The graph's ends ---------------------------------------------------------------------------------------------------

    def image(self, first: str, height: Dim | str = "height", width: Dim | str = "width") -> Value:
        """The graph's input, an image of as many channels as the convolution `first` takes."""
        weight = self.shape(f"{first}.weight")
        channels = weight[1] if len(weight) == 4 else 3
        if channels != 3:
            images = f"images of {channels} channel{'' if channels == 1 else 's'}"
            self.assumptions.append(f"{first} takes {images}, and the published one images of 3; its stride and padding are taken to "
                                    "be the published ones")
        return self.builder.input("x", self.dtype, ["batch", channels, height, width])

    def graph(self, output: Value) -> Graph:
        """The finished graph. Raises `Mismatch` where parameters are left that the architecture does not have."""
        left = [name for name in self.specs if name not in self._used and not self._expected(name)]
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            raise self.mismatch(f"the architecture has no {', '.join(left[:3])}{more}")
        self.builder.output("output", output)
        graph = self.builder.graph()
        for name in graph.dims:
            if name != "batch":
                self.builder.dims[name] = DimRange(min=self.builder.least(name))
        return self.builder.graph()

    def _expected(self, name: str) -> bool:
        stem, _, last = name.rpartition(".")
        return (last == "num_batches_tracked" and f"{stem}.running_mean" in self._used) or name.startswith(tuple(self._unused))

    # Layers -------------------------------------------------------------------------------------------------------------

    def op(self, name: str, *inputs: Value | float | None, **attributes: Any) -> Value:
        """A node without parameters of its own."""
        return self.builder.op(name, *inputs, **attributes)

    def convolution(self, x: Value, name: str, out: int | None, kernel: Pair, stride: Pair = 1, padding: Pair | None = None,
                    groups: int = 1, bias: bool = False, dilation: int = 1) -> Value:
        """`nn.Conv2d`. `out` None: as many as there are. `padding` None: what keeps the size at stride 1."""
        kernel, stride = pair(kernel), pair(stride)
        padding = (dilation * (kernel[0] - 1) // 2, dilation * (kernel[1] - 1) // 2) if padding is None else pair(padding)
        if out is None:
            out = self.shape(f"{name}.weight")[0]
        channels = size(x, 1)
        weight = self.parameter(f"{name}.weight", out, channels // groups, *kernel)
        offset = self.parameter(f"{name}.bias", out) if bias else None
        return self.op("convolution", x, weight, offset, stride=() if stride == (1, 1) else stride,
                       padding=() if padding == (0, 0) else padding, dilation=() if dilation == 1 else pair(dilation), groups=groups)

    def batch_norm(self, x: Value, name: str) -> Value:
        """`nn.BatchNorm2d` in evaluation mode."""
        channels = size(x, 1)
        vectors = [self.parameter(f"{name}.{part}", channels) for part in ("running_mean", "running_var", "weight", "bias")]
        return self.op("batch_norm", x, *vectors, eps=self.eps)

    def conv_norm(self, x: Value, conv: str, norm: str, out: int, kernel: Pair, stride: Pair = 1, padding: Pair | None = None,
                  groups: int = 1, activation: Callable[[Layers, Value], Value] | None = None) -> Value:
        """A convolution without bias, a batch norm, and an activation."""
        x = self.batch_norm(self.convolution(x, conv, out, kernel, stride, padding, groups), norm)
        return x if activation is None else activation(self, x)

    def conv_block(self, x: Value, name: str, out: int, kernel: Pair, stride: Pair = 1, padding: Pair | None = None,
                   groups: int = 1, activation: Callable[[Layers, Value], Value] | None = None) -> Value:
        """`torchvision.ops.Conv2dNormActivation`: `{name}.0` the convolution, `{name}.1` the norm."""
        return self.conv_norm(x, f"{name}.0", f"{name}.1", out, kernel, stride, padding, groups, activation)

    def squeeze_excitation(self, x: Value, name: str, squeeze: int, activation: Callable[[Layers, Value], Value],
                           scale: str = "sigmoid") -> Value:
        """`torchvision.ops.SqueezeExcitation`: every channel times a factor that all channels' means give."""
        channels = size(x, 1)
        y = self.op("adaptive_avg_pool", x, size=(1, 1))
        y = activation(self, self.convolution(y, f"{name}.fc1", squeeze, 1, bias=True))
        y = self.convolution(y, f"{name}.fc2", channels, 1, bias=True)
        return self.op("multiply", self.op(scale, y), x)

    def linear(self, x: Value, name: str, out: int | None = None, bias: bool = True) -> Value:
        """`nn.Linear` over the last axis. `out` None: as many as there are."""
        features = size(x, -1)
        if out is None:
            out = self.shape(f"{name}.weight")[0]
        weight = self.parameter(f"{name}.weight", out, features)
        return self.op("linear", x, weight, self.parameter(f"{name}.bias", out) if bias else None)

    def layer_norm(self, x: Value, name: str, eps: float) -> Value:
        """`nn.LayerNorm` over the last axis."""
        features = size(x, -1)
        return self.op("layer_norm", x, self.parameter(f"{name}.weight", features), self.parameter(f"{name}.bias", features),
                       normalized_shape=(features,), eps=eps)

    def attend(self, qkv: Value, heads: int, normed: Callable[[Value, str], Value] | None = None) -> Value:
        """What `[batch, length, 3 · width]`, queries, keys and values, see of each other: `[batch, length, width]`.

        `normed`: what is done to the queries, "q", and to the keys, "k", of each head.
        """
        batch, length, width = qkv.shape[0], qkv.shape[1], size(qkv, -1) // 3
        qkv = self.op("reshape", qkv, shape=(batch, length, 3, heads, width // heads))
        query, key, value = self.builder.add("unstack", (self.op("permute_dims", qkv, axes=(2, 0, 3, 1, 4)),), {"axis": 0})
        if normed is not None:
            query, key = normed(query, "q"), normed(key, "k")
        x = self.op("permute_dims", self.op("scaled_dot_product_attention", query, key, value), axes=(0, 2, 1, 3))
        return self.op("reshape", x, shape=(batch, length, width))

    def max_pool(self, x: Value, kernel: int, stride: int, padding: int = 0, ceil: bool = False) -> Value:
        """`nn.MaxPool2d`."""
        return self.op("max_pool", x, kernel=pair(kernel), stride=pair(stride), padding=pair(padding) if padding else (), ceil_mode=ceil)

    def avg_pool(self, x: Value, kernel: int, stride: int, padding: int = 0) -> Value:
        """`nn.AvgPool2d`: padding counts."""
        return self.op("avg_pool", x, kernel=pair(kernel), stride=pair(stride), padding=pair(padding) if padding else ())

    def global_pool(self, x: Value) -> Value:
        """`nn.AdaptiveAvgPool2d(1)` and `flatten(1)`: each channel's mean, `[batch, channels]`."""
        return self.op("mean", x, axis=(2, 3))

    def flatten(self, x: Value) -> Value:
        """`flatten(1)`: all axes but the batch's in one."""
        return self.op("reshape", x, shape=(x.shape[0], math.prod(size(x, axis) for axis in range(1, x.rank))))


def relu(net: Layers, x: Value) -> Value:
    """max(x, 0)"""
    return net.op("relu", x)


def relu6(net: Layers, x: Value) -> Value:
    """min(max(x, 0), 6)"""
    return net.op("hardtanh", x, min_val=0.0, max_val=6.0)


def silu(net: Layers, x: Value) -> Value:
    """x · sigmoid(x)"""
    return net.op("silu", x)


def hardswish(net: Layers, x: Value) -> Value:
    """x · min(max(x + 3, 0), 6) / 6"""
    return net.op("hardswish", x)


def make_divisible(size: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `size`, not less than nine tenths of it (MobileNet's rule for widths)."""
    rounded = max(divisor, int(size + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * size else rounded
