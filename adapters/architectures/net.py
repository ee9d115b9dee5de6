"""A graph in the making over a checkpoint's tensors, and the layers of which all architectures are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.architectures.activations import SIGMOID, Activation
from converter.builder import BuilderOperand, GraphBuilder, Value
from converter.dims import Dim, fixed
from converter.ir import Array, DType, TensorSpec

Pair = int | tuple[int, int]


def pair(value: Pair) -> tuple[int, int]:
    """One size for each of the two axes of an image."""
    return value if isinstance(value, tuple) else (value, value)


def divisible(size: float, divisor: int = 8, least: int | None = None) -> int:
    """The multiple of `divisor` nearest to `size`, not less than nine tenths of it (MobileNet's rule for widths)."""
    rounded = max(divisor if least is None else least, int(size + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * size else rounded


class NetBuilder(ABC):
    """A graph being built. Values are images [batch, channels, height, width] or rows of features, their last axis.

    A layer's `role` is what the library's subclass makes a name of a tensor from, `places` what stands for the role's indices.
    `constants` are tensors that no checkpoint holds. The graph's floats are of `dtype`.
    """

    dtype: DType

    def __init__(self, name: str, held: Mapping[str, TensorSpec]) -> None:
        self.b = GraphBuilder(name)
        self.held = held
        self.constants: dict[str, Array] = {}

    @abstractmethod
    def tensor(self, role: str, shape: Sequence[Dim], ending: str = "weight", **places: Any) -> Value:
        """A parameter of the graph's dtype."""

    def constant(self, name: str, values: Array) -> Value:
        """A tensor that no checkpoint holds; what has the name already is it."""
        if name in self.constants:
            return Value(name, self.b.specs[name])
        self.constants[name] = values
        return self.b.parameter(name, values.dtype, values.shape)

    def op(self, op: str, *inputs: BuilderOperand, name: str | None = None, **attributes: Any) -> Value:
        return self.b.op(op, *inputs, name=name, **attributes)

    def cast(self, x: Value, dtype: DType | None = None) -> Value:
        """x in a dtype, by default the graph's."""
        dtype = dtype or self.dtype
        return x if x.dtype is dtype else self.op("astype", x, dtype=dtype)

    def activation(self, x: Value, kind: Activation) -> Value:
        for op, attributes in kind:
            if op == "quick_gelu":
                x = self.op("multiply", x, self.op("sigmoid", self.op("multiply", x, 1.702)))
            else:
                x = self.op(op, x, **attributes)
        return x

    def linear(self, x: Value, role: str, width: int, *, bias: bool = True, name: str | None = None, **places: Any) -> Value:
        """x · weightᵀ + bias, the weight [width, in]."""
        weight = self.tensor(role, (width, x.shape[-1]), **places)
        return self.op("linear", x, weight, self.tensor(role, (width,), "bias", **places) if bias else None, name=name)

    def convolution(self, x: Value, role: str, width: int, kernel: Pair, stride: Pair = 1, padding: Pair | None = None, *, groups: int = 1,
                    bias: bool = False, dilation: int = 1, **places: Any) -> Value:
        """A convolution to `width` channels. `padding` None: what keeps the size at stride 1 with an odd kernel."""
        high, wide = pair(kernel)
        padding = (dilation * (high - 1) // 2, dilation * (wide - 1) // 2) if padding is None else pair(padding)
        weight = self.tensor(role, (width, fixed(x.shape[1]) // groups, high, wide), **places)
        return self.op("convolution", x, weight, self.tensor(role, (width,), "bias", **places) if bias else None,
                       stride=() if pair(stride) == (1, 1) else pair(stride), padding=() if padding == (0, 0) else padding,
                       dilation=() if dilation == 1 else pair(dilation), groups=groups)

    def batch_norm(self, x: Value, role: str, eps: float = 1e-5, **places: Any) -> Value:
        """A batch norm as it is in evaluation."""
        vectors = [self.tensor(role, (x.shape[1],), ending, **places) for ending in ("running_mean", "running_var", "weight", "bias")]
        return self.op("batch_norm", x, *vectors, eps=eps)

    def layer_norm(self, x: Value, role: str, eps: float, *, bias: bool = True, name: str | None = None, **places: Any) -> Value:
        """A norm of each row of features."""
        shape = (x.shape[-1],)
        weight = self.tensor(role, shape, **places)
        return self.op("layer_norm", x, weight, self.tensor(role, shape, "bias", **places) if bias else None, name=name,
                       normalized_shape=shape, eps=eps)

    def rms_norm(self, x: Value, role: str, eps: float, **places: Any) -> Value:
        shape = (x.shape[-1],)
        return self.op("rms_norm", x, self.tensor(role, shape, **places), normalized_shape=shape, eps=eps)

    def channel_norm(self, x: Value, role: str, eps: float, **places: Any) -> Value:
        """A layer norm of each pixel's channels."""
        last = self.layer_norm(self.op("permute_dims", x, axes=(0, 2, 3, 1)), role, eps, **places)
        return self.op("permute_dims", last, axes=(0, 3, 1, 2))

    def gate(self, x: Value, roles: tuple[str, str], width: int, activation: Activation, scale: Activation = SIGMOID,
             **places: Any) -> Value:
        """Squeeze and excitation: each channel times a factor that all channels' means give."""
        y = self.op("mean", x, axis=(2, 3), keepdims=True)
        y = self.activation(self.convolution(y, roles[0], width, 1, bias=True, **places), activation)
        y = self.convolution(y, roles[1], fixed(x.shape[1]), 1, bias=True, **places)
        return self.op("multiply", x, self.activation(y, scale))

    def directions(self, x: Value) -> Value:
        """Rows of length 1, those shorter than 1e-12 as they are by that."""
        return self.op("divide", x, self.op("maximum", self.op("vector_norm", x, axis=(-1,), keepdims=True), 1e-12))
