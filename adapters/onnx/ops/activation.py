"""Activation functions and softmax.

ONNX Runtime lacks most of them in float64, where they are put together from simpler operators; so are those whose ONNX
form drops NaN or loses digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute, number
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.ops.elementwise import apply, clip, select
from adapters.onnx.ops.special import erf
from adapters.onnx.ops.transcendental import expm1, log1p
from adapters.onnx.registry import lowers
from converter.ir import DType, TensorSpec
from converter.ops.activation import SELU_ALPHA, SELU_SCALE


def _float64(x: Tensor) -> bool:
    return x.dtype is DType.FLOAT64


def _compare(g: Lowering, op_type: str, x: Tensor, value: float) -> Tensor:
    return apply(g, op_type, x, number(g, value, x), dtype=DType.BOOL)


def _times(g: Lowering, x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else apply(g, "Mul", x, number(g, factor, x))


def _clip(g: Lowering, x: Tensor, low: float | None, high: float | None) -> Tensor:
    return clip(g, x, None if low is None else number(g, low, x), None if high is None else number(g, high, x))


@lowers("relu")
@through_float32
def relu(g: Lowering, x: Tensor) -> Tensor:
    if x.dtype.is_float or x.dtype in (DType.INT8, DType.INT32):
        return g.node("Relu", x)
    return _clip(g, x, 0, None)


@lowers("gelu")
@through_float32
def gelu(g: Lowering, x: Tensor, *, approximate: str) -> Tensor:
    if g.opset >= 20 and not _float64(x):
        return g.node("Gelu", x, approximate=None if approximate == "none" else approximate)
    one, half = number(g, 1, x), number(g, 0.5, x)
    if approximate == "none":
        # The form that ONNX Runtime fuses into one operator.
        share = apply(g, "Add", erf(g, apply(g, "Div", x, number(g, math.sqrt(2), x))), one)
        return apply(g, "Mul", apply(g, "Mul", x, share), half)
    cube = apply(g, "Mul", x, apply(g, "Mul", x, x))
    inner = apply(g, "Add", x, apply(g, "Mul", cube, number(g, 0.044715, x)))
    share = apply(g, "Add", apply(g, "Tanh", _times(g, inner, math.sqrt(2 / math.pi))), one)
    return apply(g, "Mul", apply(g, "Mul", x, share), half)


@lowers("silu")
@through_float32
def silu(g: Lowering, x: Tensor) -> Tensor:
    if g.is_given_out and x.dtype is DType.FLOAT32:
        # As for `sigmoid`: ONNX Runtime's own is too coarse for small results that are given out.
        return apply(g, "Div", x, apply(g, "Add", number(g, 1, x), apply(g, "Exp", apply(g, "Neg", x))))
    return apply(g, "Mul", x, apply(g, "Sigmoid", x))


def _fine(g: Lowering, x: Tensor) -> bool:
    """Whether exp(x) - 1 must be right for small x: as for `sigmoid`, ONNX Runtime's own is too coarse for what is given out."""
    return _float64(x) or g.is_given_out


def _bent(g: Lowering, x: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    """scale · x for x > 0, else scale · alpha · (exp(input_scale · x) - 1)."""
    below = _times(g, expm1(g, _times(g, _clip(g, x, None, 0), input_scale)), alpha * scale)
    return select(g, _compare(g, "Greater", x, 0), _times(g, x, scale), below)


@lowers("elu")
@through_float32
def elu(g: Lowering, x: Tensor, *, alpha: float, scale: float, input_scale: float) -> Tensor:
    if not _fine(g, x) and scale == input_scale == 1:
        return g.node("Elu", x, alpha=alpha)
    return _bent(g, x, alpha, scale, input_scale)


@lowers("selu")
@through_float32
def selu(g: Lowering, x: Tensor) -> Tensor:
    return _bent(g, x, SELU_ALPHA, SELU_SCALE, 1) if _fine(g, x) else g.node("Selu", x, alpha=SELU_ALPHA, gamma=SELU_SCALE)


@lowers("celu")
@through_float32
def celu(g: Lowering, x: Tensor, *, alpha: float) -> Tensor:
    if x.dtype is not DType.FLOAT32 or alpha <= 0 or _fine(g, x):
        return _bent(g, x, alpha, 1, 1 / alpha)
    return g.node("Celu", x, alpha=alpha)


@lowers("leaky_relu")
@through_float32
def leaky_relu(g: Lowering, x: Tensor, *, negative_slope: float) -> Tensor:
    if not _float64(x):
        return g.node("LeakyRelu", x, alpha=negative_slope)
    return select(g, _compare(g, "Greater", x, 0), x, _times(g, x, negative_slope))


@lowers("prelu")
@through_float32
def prelu(g: Lowering, x: Tensor, weight: Tensor) -> Tensor:
    size = weight.shape[0] if weight.rank else 1
    if size != 1 and x.rank > 2:
        weight = g.reshape(weight, (size, *[1] * (x.rank - 2)))
    elif x.rank == 0 and weight.rank:
        weight = g.reshape(weight, ())
    if not _float64(x):
        return g.node("PRelu", x, weight)
    return select(g, _compare(g, "Greater", x, 0), x, apply(g, "Mul", x, weight))


@lowers("softplus")
@through_float32
def softplus(g: Lowering, x: Tensor, *, beta: float, threshold: float) -> Tensor:
    scaled = _times(g, x, beta)
    if not _float64(x):
        y = g.node("Softplus", scaled)
    else:
        y = apply(g, "Add", _clip(g, scaled, 0, None), log1p(g, apply(g, "Exp", apply(g, "Neg", apply(g, "Abs", scaled)))))
    y = y if beta == 1 else apply(g, "Div", y, number(g, beta, x))
    # From 20 on, float32 holds no difference between softplus and its argument.
    if threshold >= 20 and not _float64(x):
        return y
    return select(g, _compare(g, "Greater", scaled, threshold), x, y)


@lowers("log_sigmoid")
@through_float32
def log_sigmoid(g: Lowering, x: Tensor) -> Tensor:
    if not _float64(x):
        return apply(g, "Neg", g.node("Softplus", apply(g, "Neg", x)))
    return apply(g, "Sub", _clip(g, x, None, 0), log1p(g, apply(g, "Exp", apply(g, "Neg", apply(g, "Abs", x)))))


@lowers("threshold")
@through_float32
def threshold(g: Lowering, x: Tensor, *, threshold: float, value: float) -> Tensor:
    if x.dtype.is_integer:
        threshold, value = int(threshold), int(value)
    return select(g, _compare(g, "LessOrEqual", x, threshold), number(g, value, x), x)


@lowers("hardswish")
@through_float32
def hardswish(g: Lowering, x: Tensor) -> Tensor:
    if not _float64(x):
        return g.node("HardSwish", x)
    return apply(g, "Mul", x, apply(g, "Div", _clip(g, apply(g, "Add", x, number(g, 3, x)), 0, 6), number(g, 6, x)))


def _along_axis(op_type: str) -> Callable[..., Tensor]:
    """Softmax and its logarithm; a number is a vector of one."""

    def lowering(g: Lowering, x: Tensor, *, axis: int) -> Tensor:
        if x.rank == 0:
            vector = g.reshape(x, (1,))
            return g.reshape(g.node(op_type, vector, spec=vector.spec, axis=0), ())
        return g.node(op_type, x, spec=x.spec, axis=axis)

    return lowering


softmax = through_float32(_along_axis("Softmax"))
lowers("softmax")(softmax)
_log_softmax = _along_axis("LogSoftmax")


@lowers("log_softmax")
@through_float32
def log_softmax(g: Lowering, x: Tensor, *, axis: int) -> Tensor:
    y = _log_softmax(g, x, axis=axis)
    # In float64 ONNX Runtime's own gives numbers beside NaN and infinity.
    return apply(g, "Add", y, _times(g, softmax(g, x, axis=axis), 0)) if _float64(x) else y


@lowers("safe_softmax")
@through_float32
def safe_softmax(g: Lowering, x: Tensor, *, axis: int) -> Tensor:
    if x.rank == 0:
        return select(g, _compare(g, "Equal", x, -math.inf), number(g, 0, x), number(g, 1, x))
    position = axis % x.rank
    kept = TensorSpec(x.dtype, (*x.shape[:position], 1, *x.shape[position + 1:]))
    largest = compute(g, "ReduceMax", x, extra=(g.constant([position]),), spec=kept, keepdims=1)
    return select(g, _compare(g, "Equal", largest, -math.inf), number(g, 0, x), softmax(g, x, axis=axis))
