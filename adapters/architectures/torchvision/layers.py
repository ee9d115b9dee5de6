"""Layers over a checkpoint's names and shapes: each checks that its parameters are what it expects, and adds its nodes.

A layer's parameters are named by the layer's prefix in the state_dict: `net.linear(x, "fc", 10)` takes `fc.weight`
and `fc.bias`. A parameter that is missing, or has another shape, raises `Mismatch`: the checkpoint is not of that
architecture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adapters.architectures.activations import SIGMOID, Activation
from adapters.architectures.net import NetBuilder, Pair, pair
from converter.builder import Value
from converter.dims import Dim, fixed
from converter.ir import DimRange, DType, Graph, TensorSpec


class Mismatch(Exception):
    """The checkpoint is not of the architecture being built. `fitted`: how many parameters were as expected before."""

    def __init__(self, reason: str, fitted: int) -> None:
        super().__init__(reason)
        self.fitted = fitted


def size(value: Value, axis: int) -> int:
    """The size of an axis that is not free: channels, features."""
    found = value.shape[axis]
    if not isinstance(found, int):
        raise TypeError(f"axis {axis} of {value.name} has a free size, {found}")
    return found


class Layers(NetBuilder):
    """A graph being built over the parameters in `specs`. Values are images `[batch, channels, height, width]` or rows of features.

    The graph's parameters are named as in `specs`, with `prefix` before it. `eps` is that of the batch norms. `assumptions`
    collects what the checkpoint does not show and the published architecture says.
    """

    def __init__(self, name: str, specs: Mapping[str, TensorSpec], prefix: str = "") -> None:
        super().__init__(name, specs)
        self.prefix = prefix
        self.eps = 1e-5
        self.dtype = next((spec.dtype for spec in specs.values() if spec.dtype.is_float), DType.FLOAT32)
        self.assumptions: list[str] = []
        self._used: set[str] = set()
        self._unused: list[str] = []

    # Parameters ---------------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the checkpoint has the parameter."""
        return name in self.held

    def shape(self, name: str) -> tuple[int, ...]:
        """A parameter's shape, where the architecture leaves it free. Raises `Mismatch` for one that is missing."""
        return self._shape(name, "any size")

    def _shape(self, name: str, expected: str) -> tuple[int, ...]:
        if name not in self.held:
            raise self.mismatch(f"{name} ({expected}) is missing")
        return tuple(int(size) for size in self.held[name].shape if isinstance(size, int))

    def mismatch(self, reason: str) -> Mismatch:
        """The error for a checkpoint that is not of this architecture."""
        return Mismatch(reason, len(self._used))

    def parameter(self, name: str, *shape: int, dtype: DType | None = None) -> Value:
        """The parameter, with exactly this shape and the model's dtype. Raises `Mismatch`."""
        dtype = dtype or self.dtype
        expected = f"{dtype}{list(shape)}"
        if self._shape(name, expected) != shape or self.held[name].dtype is not dtype:
            raise self.mismatch(f"{name} is {self.held[name]}, not {expected}")
        self._used.add(name)
        return self.b.parameter(f"{self.prefix}{name}", dtype, shape)

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
        return self.b.input("x", self.dtype, ["batch", channels, height, width])

    def graph(self, output: Value) -> Graph:
        """The finished graph. Raises `Mismatch` where parameters are left that the architecture does not have."""
        left = [name for name in self.held if name not in self._used and not self._expected(name)]
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            raise self.mismatch(f"the architecture has no {', '.join(left[:3])}{more}")
        self.b.output("output", output)
        graph = self.b.graph()
        for name in graph.dims:
            if name != "batch":
                self.b.dims[name] = DimRange(min=self.b.least(name))
        return self.b.graph()

    def _expected(self, name: str) -> bool:
        stem, _, last = name.rpartition(".")
        return (last == "num_batches_tracked" and f"{stem}.running_mean" in self._used) or name.startswith(tuple(self._unused))

    # Layers -------------------------------------------------------------------------------------------------------------

    def tensor(self, role: str, shape: Sequence[Dim], ending: str = "weight", **places: Any) -> Value:
        return self.parameter(f"{role}.{ending}", *(fixed(size) for size in shape))

    def convolution(self, x: Value, role: str, width: int | None, kernel: Pair, stride: Pair = 1, padding: Pair | None = None, *,
                    groups: int = 1, bias: bool = False, dilation: int = 1, **places: Any) -> Value:
        """`nn.Conv2d`. `width` None: as many channels as there are."""
        width = self.shape(f"{role}.weight")[0] if width is None else width
        return super().convolution(x, role, width, kernel, stride, padding, groups=groups, bias=bias, dilation=dilation)

    def batch_norm(self, x: Value, role: str, eps: float | None = None, **places: Any) -> Value:
        """`nn.BatchNorm2d` in evaluation mode."""
        return super().batch_norm(x, role, self.eps if eps is None else eps)

    def linear(self, x: Value, role: str, width: int | None = None, *, bias: bool = True, name: str | None = None, **places: Any) -> Value:
        """`nn.Linear` over the last axis. `width` None: as many features as there are."""
        return super().linear(x, role, self.shape(f"{role}.weight")[0] if width is None else width, bias=bias, name=name)

    def conv_norm(self, x: Value, conv: str, norm: str, out: int, kernel: Pair, stride: Pair = 1, padding: Pair | None = None,
                  groups: int = 1, activation: Activation = ()) -> Value:
        """A convolution without bias, a batch norm, and an activation."""
        return self.activation(self.batch_norm(self.convolution(x, conv, out, kernel, stride, padding, groups=groups), norm), activation)

    def conv_block(self, x: Value, name: str, out: int, kernel: Pair, stride: Pair = 1, padding: Pair | None = None,
                   groups: int = 1, activation: Activation = ()) -> Value:
        """`torchvision.ops.Conv2dNormActivation`: `{name}.0` the convolution, `{name}.1` the norm."""
        return self.conv_norm(x, f"{name}.0", f"{name}.1", out, kernel, stride, padding, groups, activation)

    def squeeze_excitation(self, x: Value, name: str, squeeze: int, activation: Activation,
                           scale: Activation = SIGMOID) -> Value:
        """`torchvision.ops.SqueezeExcitation`: every channel times a factor that all channels' means give."""
        channels = size(x, 1)
        y = self.op("adaptive_avg_pool", x, size=(1, 1))
        y = self.activation(self.convolution(y, f"{name}.fc1", squeeze, 1, bias=True), activation)
        y = self.convolution(y, f"{name}.fc2", channels, 1, bias=True)
        return self.op("multiply", self.activation(y, scale), x)

    def attend(self, qkv: Value, heads: int, normed: Callable[[Value, str], Value] | None = None) -> Value:
        """What `[batch, length, 3 · width]`, queries, keys and values, see of each other: `[batch, length, width]`.

        `normed`: what is done to the queries, "q", and to the keys, "k", of each head.
        """
        batch, length, width = qkv.shape[0], qkv.shape[1], size(qkv, -1) // 3
        qkv = self.op("reshape", qkv, shape=(batch, length, 3, heads, width // heads))
        query, key, value = self.b.add("unstack", (self.op("permute_dims", qkv, axes=(2, 0, 3, 1, 4)),), {"axis": 0})
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
