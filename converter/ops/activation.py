"""Activation functions, element by element, under torch.nn.functional's names. The smaller floats compute in float32."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from converter.facts import Facts
from converter.formulas import Space, Term, dtype_of, largest, widened
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import axis_of, each, require, require_float, require_rank, require_size, same_dtype, unary
from converter.ops._spatial import wide
from converter.opset import op

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@each
def _numbers(x: TensorSpec, **attributes: Any) -> TensorSpec:
    require(x.dtype is not DType.BOOL and not x.dtype.is_complex, "a dtype that this operator does not take", received=x)
    return x


@op(infer=_numbers, facts=Facts(mirrors=True, finite=True))
def relu(f: Space, x: Term) -> Term:
    """max(x, 0)."""
    return f.maximum(x, 0)


@op(infer=unary(float_only=True), facts=Facts(finite=True))
@widened
def gelu(f: Space, x: Term, *, approximate: Literal["none", "tanh"] = "none") -> Term:
    """x · Φ(x), Φ the normal distribution's cumulative function: torch.nn.functional.gelu.

    `approximate="none"`: x/2 · (1 + erf(x / √2)). `"tanh"`: x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³))). Of infinity it is
    infinity, and NaN of minus infinity, as in torch but for its vectorised float32, which gives NaN of both.
    """
    if approximate == "tanh":
        return x * 0.5 * (f.tanh((x + x * 0.044715 * x * x) * math.sqrt(2 / math.pi)) + 1.0)
    # erfc keeps its digits where 1 + erf(x / √2) cancels.
    return x * 0.5 * f.erfc(x * -math.sqrt(0.5))


@op(infer=unary(float_only=True), facts=Facts(finite=True))
@widened
def silu(f: Space, x: Term) -> Term:
    """x · sigmoid(x)."""
    return x * f.sigmoid(x)


@op(infer=unary(float_only=True), facts=Facts(finite=True))
@widened
def elu(f: Space, x: Term, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Term:
    """scale · x for x > 0, else scale · alpha · (exp(input_scale · x) - 1): torch.nn.functional.elu."""
    return f.where(x > 0.0, x * scale, f.expm1(f.minimum(x * input_scale, 0.0)) * (scale * alpha))


@op(infer=unary(float_only=True))
@widened
def selu(f: Space, x: Term) -> Term:
    """1.0507009873554805 · x for x > 0, else 1.0507009873554805 · 1.6732632423543772 · (exp(x) - 1)."""
    return f.where(x > 0.0, x, f.expm1(f.minimum(x, 0.0)) * SELU_ALPHA) * SELU_SCALE


@op(infer=unary(float_only=True))
@widened
def celu(f: Space, x: Term, *, alpha: float = 1.0) -> Term:
    """x for x > 0, else alpha · (exp(x / alpha) - 1)."""
    return f.where(x > 0.0, x, f.expm1(f.where(x > 0.0, 0.0, x) / alpha) * alpha)


@op(infer=unary(float_only=True), facts=Facts(finite=True))
@widened
def leaky_relu(f: Space, x: Term, *, negative_slope: float = 0.01) -> Term:
    """x for x > 0, else negative_slope · x."""
    return f.where(x > 0.0, x, x * negative_slope)


def _prelu(x: TensorSpec, weight: TensorSpec) -> TensorSpec:
    require_float(x)
    require_rank(weight, 0, 1, what="the weight")
    if weight.rank == 1 and weight.shape[0] != 1:
        require(x.rank >= 1, "several slopes for a number", expected="one slope", received=weight)
        require_size(weight.shape[0], x.shape[1 if x.rank > 1 else 0], "the weight")
    return TensorSpec(same_dtype(x, weight), x.shape)


@op(infer=_prelu, facts=Facts(finite=True))
def prelu(f: Space, x: Term, weight: Term) -> Term:
    """x for x > 0, else weight · x: torch.nn.functional.prelu. weight: one slope, or one per channel (axis 1; axis 0 of a vector)."""
    one = weight.ndim == 0 or weight.shape[0] == 1
    slope = f.reshape(weight, shape=() if one else (weight.shape[0], *[1] * (x.ndim - 2)))
    return f.where(x > 0.0, x, x * slope)


@op(infer=unary(float_only=True))
@widened
def softplus(f: Space, x: Term, *, beta: float = 1.0, threshold: float = 20.0) -> Term:
    """log(1 + exp(beta · x)) / beta, and x itself where beta · x > threshold: torch.nn.functional.softplus."""
    return f.where(x * beta > threshold, x, f.logaddexp(x * beta, 0.0) / beta)


@op(infer=unary(float_only=True))
@widened
def log_sigmoid(f: Space, x: Term) -> Term:
    """log(1 / (1 + exp(-x))), computed as min(x, 0) - log(1 + exp(-|x|)): torch.nn.functional.logsigmoid."""
    return f.minimum(x, 0.0) - f.log1p(f.exp(-f.abs(x)))


@op(infer=unary(float_only=True))
@widened
def softshrink(f: Space, x: Term, *, lambd: float = 0.5) -> Term:
    """x - lambd for x > lambd, x + lambd for x < -lambd, else 0 (NaN stays)."""
    return x - f.clip(x, -lambd, lambd)


@op(infer=unary(float_only=True))
@widened
def hardshrink(f: Space, x: Term, *, lambd: float = 0.5) -> Term:
    """0 for -lambd ≤ x ≤ lambd, else x."""
    return f.where(f.abs(x) <= lambd, 0.0, x)


@op(infer=_numbers)
def threshold(f: Space, x: Term, *, threshold: float, value: float) -> Term:
    """`value` for x ≤ threshold, else x: torch.nn.functional.threshold."""
    return f.where(x <= _in_dtype(threshold, x), _in_dtype(value, x), x)


def _in_dtype(value: float, x: Term) -> float:
    return int(value) if dtype_of(x).is_integer else value


@op(infer=_numbers)
@widened
def hardtanh(f: Space, x: Term, *, min_val: float = -1.0, max_val: float = 1.0) -> Term:
    """x, at least `min_val` and at most `max_val`: torch.nn.functional.hardtanh; relu6 is hardtanh from 0 to 6."""
    return f.clip(x, _in_dtype(min_val, x), _in_dtype(max_val, x))


@op(infer=unary(float_only=True), facts=Facts(finite=True))
@widened
def hardsigmoid(f: Space, x: Term) -> Term:
    """min(max(x + 3, 0), 6) / 6."""
    return f.clip(x + 3.0, 0.0, 6.0) / 6.0


@op(infer=unary(float_only=True), facts=Facts(finite=True))
@widened
def hardswish(f: Space, x: Term) -> Term:
    """x · min(max(x + 3, 0), 6) / 6."""
    return x * f.clip(x + 3.0, 0.0, 6.0) / 6.0


@op(infer=unary(float_only=True))
@widened
def mish(f: Space, x: Term) -> Term:
    """x · tanh(log(1 + exp(x)))."""
    return x * f.tanh(f.softplus(x, threshold=math.inf))


def _glu(x: TensorSpec, *, axis: int = -1) -> TensorSpec:
    require_float(x)
    position = axis_of(axis, x.rank)
    size = x.shape[position]
    require(not isinstance(size, int) or size % 2 == 0, "an axis that cannot be halved", expected="an even size", received=x)
    return TensorSpec(x.dtype, (*x.shape[:position], size // 2, *x.shape[position + 1:]))


@op(infer=_glu)
@widened
def glu(f: Space, x: Term, *, axis: int = -1) -> Term:
    """The first half of an axis times the sigmoid of the second: torch.nn.functional.glu. y: x's shape with half of `axis`."""
    first, second = f.split(x, sizes=(x.shape[axis] // 2,) * 2, axis=axis)
    return first * f.sigmoid(second)


def _softmax(x: TensorSpec, *, axis: int = -1) -> TensorSpec:
    require_float(x)
    axis_of(axis, max(x.rank, 1))
    return x


def _exponents(f: Space, x: Term, axis: int) -> tuple[Term, Term, Term]:
    """x less the largest along the axis, its exponential, and the sum of that."""
    shifted = x - largest(f, x, (axis,))
    exponents = f.exp(shifted)
    return shifted, exponents, f.sum(exponents, axis=(axis,), keepdims=True)


@widened
def _softmax_of(f: Space, x: Term, *, axis: int) -> Term:
    if x.ndim == 0:
        return f.reshape(_softmax_of(f, f.reshape(x, shape=(1,)), axis=0), shape=())
    _, exponents, total = _exponents(f, x, axis)
    return exponents / total


@widened
def _log_softmax_of(f: Space, x: Term, *, axis: int) -> Term:
    if x.ndim == 0:
        return f.reshape(_log_softmax_of(f, f.reshape(x, shape=(1,)), axis=0), shape=())
    shifted, _, total = _exponents(f, x, axis)
    return shifted - f.log(total)


@op(infer=_softmax, formula=_softmax_of)
def softmax(x: Array, *, axis: int = -1) -> Array:
    """exp(x) / Σ exp(x) along `axis`."""
    _, exponents = _raised(x, axis)
    y: Array = exponents / exponents.sum(axis=axis, keepdims=True)
    return y.reshape(x.shape).astype(x.dtype, copy=False)


@op(infer=_softmax, formula=_log_softmax_of)
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """x - log Σ exp(x) along `axis`, computed from x less its largest value."""
    shifted, exponents = _raised(x, axis)
    y: Array = shifted - np.log(exponents.sum(axis=axis, keepdims=True))
    return y.reshape(x.shape).astype(x.dtype, copy=False)


def _raised(x: Array, axis: int) -> tuple[Array, Array]:
    """x (a number as a vector of one) in a wide dtype less the largest along the axis, and its exponential."""
    wider = np.atleast_1d(x).astype(wide(x.dtype), copy=False)
    shifted = wider - wider.max(axis=axis, keepdims=True, initial=-np.inf)
    return shifted, np.exp(shifted)


@op(infer=_softmax)
def safe_softmax(f: Space, x: Term, *, axis: int = -1) -> Term:
    """`softmax`, but zeros where every value along `axis` is -infinity (a row that a mask hides whole)."""
    hidden = f.equal(largest(f, x, (axis,) if x.ndim else ()), -math.inf)
    return f.where(hidden, 0.0, f.softmax(x, axis=axis))
