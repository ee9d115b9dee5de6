"""Activation functions and softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value

# ATen name -> neutral operator, for functions whose arguments have the attributes' names.
SAME = {"relu": "relu", "silu": "silu", "selu": "selu", "celu": "celu", "leaky_relu": "leaky_relu", "gelu": "gelu",
        "softplus": "softplus", "softshrink": "softshrink", "hardshrink": "hardshrink", "threshold": "threshold",
        "hardtanh": "hardtanh", "hardsigmoid": "hardsigmoid", "hardswish": "hardswish", "mish": "mish", "log_sigmoid": "log_sigmoid"}


def _importer(aten: str, operator: str) -> Callable[..., Value]:
    names = [argument.name for argument in getattr(torch.ops.aten, aten).default._schema.arguments][1:]

    def run(g: Importer, self: Value, *args: Any, **kwargs: Any) -> Value:
        given = dict(zip(names, args, strict=False)) | kwargs
        attributes = {name: _number(g, value) for name, value in given.items()}
        return g.op(operator, self, **attributes)

    return run


def _number(g: Importer, value: Any) -> Any:
    """A scalar argument as an attribute: floats stay, integers become floats, text stays."""
    if isinstance(value, str):
        return value
    if not isinstance(value, (int, float)):
        raise g.refuse("an argument depends on a size of the input")
    return float(value)


for _aten, _operator in SAME.items():
    imports(f"aten.{_aten}.default")(_importer(_aten, _operator))


@imports("aten.relu6.default")
def relu6(g: Importer, self: Value) -> Value:
    return g.op("hardtanh", self, min_val=0.0, max_val=6.0)


@imports("aten.elu.default")
def elu(g: Importer, self: Value, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Value:
    return g.op("elu", self, alpha=_number(g, alpha), scale=_number(g, scale), input_scale=_number(g, input_scale))


@imports("aten.log_sigmoid_forward.default")
def log_sigmoid_forward(g: Importer, self: Value) -> tuple[Value | None, ...]:
    return g.op("log_sigmoid", self), None


@imports("aten.silu_backward.default")
def silu_backward(g: Importer, grad_output: Value, self: Value) -> Value:
    """σ(x) · (1 + x · (1 - σ(x))) times the gradient; torch does not decompose this one."""
    sigmoid = g.op("sigmoid", self)
    rest = g.op("multiply", self, g.op("subtract", 1.0, sigmoid))
    return g.op("multiply", grad_output, g.op("multiply", sigmoid, g.op("add", rest, 1.0)))


@imports("aten.mish_backward.default")
def mish_backward(g: Importer, grad_output: Value, self: Value) -> Value:
    """t + x · σ(x) · (1 - t²) times the gradient, where t = tanh(softplus(x))."""
    t = g.op("tanh", g.op("softplus", self))
    slope = g.op("multiply", g.op("multiply", self, g.op("sigmoid", self)), g.op("subtract", 1.0, g.op("multiply", t, t)))
    return g.op("multiply", grad_output, g.op("add", t, slope))


@imports("aten.prelu.default", "aten._prelu_kernel.default")
def prelu(g: Importer, self: Value, weight: Value) -> Value:
    if weight.rank > 1:
        # The core form has the weight already shaped to broadcast: one slope, or one per channel of axis 1.
        slopes = [size for size in weight.shape if size != 1]
        if len(slopes) > 1 or slopes and weight.shape[1] != slopes[0]:
            raise g.refuse("slopes that are not one per channel")
        weight = g.op("reshape", weight, shape=tuple(slopes) or (1,))
    return g.op("prelu", self, weight)


@imports("aten.rrelu.default", "aten.rrelu_with_noise_functional.default")
def rrelu(g: Importer, self: Value, *args: Any, **kwargs: Any) -> Any:
    names = [argument.name for argument in g.schema.arguments][1:]
    given = {"lower": 1 / 8, "upper": 1 / 3, "training": False} | dict(zip(names, args, strict=False)) | kwargs
    if given["training"]:
        raise g.refuse("random slopes in training mode", "random")
    y = g.op("leaky_relu", self, negative_slope=(float(given["lower"]) + float(given["upper"])) / 2)
    return (y, given["noise"]) if "noise" in names else y


@imports("aten.glu.default")
def glu(g: Importer, self: Value, dim: int = -1) -> Value:
    return g.op("glu", self, axis=dim)


def _softmax(operator: str) -> Callable[..., Value]:
    def run(g: Importer, self: Value, dim: int, dtype: Any = None) -> Value:
        return g.op(operator, g.cast(self, g.result_dtype()), axis=dim)

    return run


imports("aten.softmax.int", "aten._softmax.default", "aten.special_softmax.default")(_softmax("softmax"))
imports("aten.log_softmax.int", "aten._log_softmax.default", "aten.special_log_softmax.default")(_softmax("log_softmax"))
imports("aten._safe_softmax.default")(_softmax("safe_softmax"))


# Back to torch -------------------------------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Any] = {
    "relu": torch.relu, "gelu": F.gelu, "silu": F.silu, "selu": F.selu, "celu": F.celu, "leaky_relu": F.leaky_relu, "prelu": F.prelu,
    "softplus": F.softplus, "log_sigmoid": F.logsigmoid, "softshrink": F.softshrink, "hardshrink": F.hardshrink, "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish, "mish": F.mish,
}
for _name, _function in _FUNCTIONS.items():
    rebuilds(_name)(_function)


@rebuilds("elu")
def rebuild_elu(x: torch.Tensor, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> torch.Tensor:
    return torch.ops.aten.elu(x, alpha, scale, input_scale)


@rebuilds("threshold")
def rebuild_threshold(x: torch.Tensor, *, threshold: float, value: float) -> torch.Tensor:
    if not x.dtype.is_floating_point:
        threshold, value = int(threshold), int(value)
    return F.threshold(x, threshold, value)


@rebuilds("glu")
def rebuild_glu(x: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    return F.glu(x, axis)


@rebuilds("softmax")
def rebuild_softmax(x: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    return torch.softmax(x, axis)


@rebuilds("log_softmax")
def rebuild_log_softmax(x: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    return torch.log_softmax(x, axis)


@rebuilds("safe_softmax")
def rebuild_safe_softmax(x: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    return torch.ops.aten._safe_softmax(x, axis)
