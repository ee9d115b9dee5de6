"""Activation functions, element by element, under torch.nn.functional's names. The smaller floats compute in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from converter.facts import Facts
from converter.formulas import Space, Term, widened
from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, axis_of, each, require, require_float, require_rank, require_size, same_dtype, unary
from converter.ops._spatial import wide
from converter.ops.special import _erfc64
from converter.opset import ARRAYS, op

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@each
def _numbers(x: TensorSpec, **attributes: Any) -> TensorSpec:
    require(x.dtype is not DType.BOOL and not x.dtype.is_complex, "a dtype that this operator does not take", received=x)
    return x


def _within(x: Array, function: Callable[[Array], Array]) -> Array:
    """`function` of x in a dtype wide enough, back in x's."""
    y: Array = np.asarray(function(x.astype(wide(x.dtype), copy=False))).astype(x.dtype, copy=False)
    return y


def _sigmoid(x: Array) -> Array:
    if x.dtype.kind == "c":
        return np.asarray(1 / (1 + np.exp(-x)))
    small = np.exp(-np.abs(x))
    y: Array = np.where(x >= 0, 1, small) / (1 + small)
    return y


@op(infer=_numbers, facts=Facts(mirrors=True, finite=True))
def relu(x: Array) -> Array:
    """max(x, 0)."""
    y: Array = np.maximum(x, x.dtype.type(0))
    return y


@op(infer=unary(float_only=True), facts=Facts(finite=True))
def gelu(x: Array, *, approximate: Literal["none", "tanh"] = "none") -> Array:
    """x · Φ(x), Φ the normal distribution's cumulative function: torch.nn.functional.gelu.

    `approximate="none"`: x/2 · (1 + erf(x / √2)). `"tanh"`: x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³))). Of infinity it is
    infinity, and NaN of minus infinity, as in torch but for its vectorised float32, which gives NaN of both.
    """
    if approximate == "tanh":
        return _within(x, lambda x: 0.5 * x * (1 + np.tanh(x.dtype.type(math.sqrt(2 / math.pi)) * (x + 0.044715 * x * x * x))))
    # erfc keeps its digits where 1 + erf(x / √2) cancels.
    return _within(x, lambda x: 0.5 * x * _erfc64((-x * x.dtype.type(math.sqrt(0.5))).astype(np.float64)).astype(x.dtype))


@widened
def _silu(f: Space, x: Term) -> Term:
    return x * f.sigmoid(x)


@op(infer=unary(float_only=True), facts=Facts(finite=True), formula=_silu)
def silu(x: Array) -> Array:
    """x · sigmoid(x)."""
    return _silu(ARRAYS, x)


@widened
def _elu(f: Space, x: Term, *, alpha: float, scale: float, input_scale: float) -> Term:
    return f.where(x > 0.0, x * scale, f.expm1(f.minimum(x * input_scale, 0.0)) * (scale * alpha))


@op(infer=unary(float_only=True), facts=Facts(finite=True), formula=_elu)
def elu(x: Array, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    """scale · x for x > 0, else scale · alpha · (exp(input_scale · x) - 1): torch.nn.functional.elu."""
    return _elu(ARRAYS, x, alpha=alpha, scale=scale, input_scale=input_scale)


@widened
def _selu(f: Space, x: Term) -> Term:
    return f.where(x > 0.0, x, f.expm1(f.minimum(x, 0.0)) * SELU_ALPHA) * SELU_SCALE


@op(infer=unary(float_only=True), formula=_selu)
def selu(x: Array) -> Array:
    """1.0507009873554805 · x for x > 0, else 1.0507009873554805 · 1.6732632423543772 · (exp(x) - 1)."""
    return _selu(ARRAYS, x)


@widened
def _celu(f: Space, x: Term, *, alpha: float) -> Term:
    return f.where(x > 0.0, x, f.expm1(f.where(x > 0.0, 0.0, x) / alpha) * alpha)


@op(infer=unary(float_only=True), formula=_celu)
def celu(x: Array, *, alpha: float = 1.0) -> Array:
    """x for x > 0, else alpha · (exp(x / alpha) - 1)."""
    return _celu(ARRAYS, x, alpha=alpha)


@widened
def _leaky_relu(f: Space, x: Term, *, negative_slope: float) -> Term:
    return f.where(x > 0.0, x, x * negative_slope)


@op(infer=unary(float_only=True), facts=Facts(finite=True), formula=_leaky_relu)
def leaky_relu(x: Array, *, negative_slope: float = 0.01) -> Array:
    """x for x > 0, else negative_slope · x."""
    return _leaky_relu(ARRAYS, x, negative_slope=negative_slope)


def _prelu(x: TensorSpec, weight: TensorSpec) -> TensorSpec:
    require_float(x)
    require_rank(weight, 0, 1, what="the weight")
    if weight.rank == 1 and weight.shape[0] != 1:
        require(x.rank >= 1, "several slopes for a number", expected="one slope", received=weight)
        require_size(weight.shape[0], x.shape[1 if x.rank > 1 else 0], "the weight")
    return TensorSpec(same_dtype(x, weight), x.shape)


@op(infer=_prelu, facts=Facts(finite=True))
def prelu(x: Array, weight: Array) -> Array:
    """x for x > 0, else weight · x: torch.nn.functional.prelu. weight: one slope, or one per channel (axis 1; axis 0 of a vector)."""
    slope = weight.reshape(-1, *[1] * (x.ndim - 2)) if weight.size > 1 else weight.reshape(())
    return np.where(x > 0, x, x * slope).astype(x.dtype, copy=False)


@widened
def _softplus(f: Space, x: Term, *, beta: float, threshold: float) -> Term:
    return f.where(x * beta > threshold, x, f.logaddexp(x * beta, 0.0) / beta)


@op(infer=unary(float_only=True), formula=_softplus)
def softplus(x: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(beta · x)) / beta, and x itself where beta · x > threshold: torch.nn.functional.softplus."""
    return _softplus(ARRAYS, x, beta=beta, threshold=threshold)


@widened
def _log_sigmoid(f: Space, x: Term) -> Term:
    return f.minimum(x, 0.0) - f.log1p(f.exp(-f.abs(x)))


@op(infer=unary(float_only=True), formula=_log_sigmoid)
def log_sigmoid(x: Array) -> Array:
    """log(1 / (1 + exp(-x))), computed as min(x, 0) - log(1 + exp(-|x|)): torch.nn.functional.logsigmoid."""
    return _log_sigmoid(ARRAYS, x)


@widened
def _softshrink(f: Space, x: Term, *, lambd: float) -> Term:
    return f.where(x > lambd, x - lambd, f.where(x < -lambd, x + lambd, x * 0.0))


@op(infer=unary(float_only=True), formula=_softshrink)
def softshrink(x: Array, *, lambd: float = 0.5) -> Array:
    """x - lambd for x > lambd, x + lambd for x < -lambd, else 0 (NaN stays)."""
    return _softshrink(ARRAYS, x, lambd=lambd)


@widened
def _hardshrink(f: Space, x: Term, *, lambd: float) -> Term:
    return f.where((x >= -lambd) & (x <= lambd), 0.0, x)


@op(infer=unary(float_only=True), formula=_hardshrink)
def hardshrink(x: Array, *, lambd: float = 0.5) -> Array:
    """0 for -lambd ≤ x ≤ lambd, else x."""
    return _hardshrink(ARRAYS, x, lambd=lambd)


@op(infer=_numbers)
def threshold(x: Array, *, threshold: float, value: float) -> Array:
    """`value` for x ≤ threshold, else x: torch.nn.functional.threshold."""
    return np.where(x <= _in_dtype(threshold, x), _in_dtype(value, x), x)


def _in_dtype(value: float, x: Array) -> Any:
    return np.asarray(value).astype(x.dtype)


@op(infer=_numbers)
def hardtanh(x: Array, *, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """x, at least `min_val` and at most `max_val`: torch.nn.functional.hardtanh; relu6 is hardtanh from 0 to 6."""
    y: Array = np.minimum(np.maximum(x, _in_dtype(min_val, x)), _in_dtype(max_val, x))
    return y


@widened
def _hardsigmoid(f: Space, x: Term) -> Term:
    return f.minimum(f.maximum(x + 3.0, 0.0), 6.0) / 6.0


@op(infer=unary(float_only=True), facts=Facts(finite=True), formula=_hardsigmoid)
def hardsigmoid(x: Array) -> Array:
    """min(max(x + 3, 0), 6) / 6."""
    return _hardsigmoid(ARRAYS, x)


@widened
def _hardswish(f: Space, x: Term) -> Term:
    return x * f.minimum(f.maximum(x + 3.0, 0.0), 6.0) / 6.0


@op(infer=unary(float_only=True), facts=Facts(finite=True), formula=_hardswish)
def hardswish(x: Array) -> Array:
    """x · min(max(x + 3, 0), 6) / 6."""
    return _hardswish(ARRAYS, x)


@widened
def _mish(f: Space, x: Term) -> Term:
    return x * f.tanh(f.logaddexp(x, 0.0))


@op(infer=unary(float_only=True), formula=_mish)
def mish(x: Array) -> Array:
    """x · tanh(log(1 + exp(x)))."""
    return _mish(ARRAYS, x)


def _glu(x: TensorSpec, *, axis: int = -1) -> TensorSpec:
    require_float(x)
    position = axis_of(axis, x.rank)
    size = x.shape[position]
    require(not isinstance(size, int) or size % 2 == 0, "an axis that cannot be halved", expected="an even size", received=x)
    return TensorSpec(x.dtype, (*x.shape[:position], size // 2, *x.shape[position + 1:]))


@op(infer=_glu)
def glu(x: Array, *, axis: int = -1) -> Array:
    """The first half of an axis times the sigmoid of the second: torch.nn.functional.glu. y: x's shape with half of `axis`."""
    first, second = np.split(x.astype(wide(x.dtype), copy=False), 2, axis)
    return (first * _sigmoid(second)).astype(x.dtype, copy=False)


def _softmax(x: TensorSpec, *, axis: int = -1) -> TensorSpec:
    require_float(x)
    axis_of(axis, max(x.rank, 1))
    return x


def _exponents(x: Array, axis: int) -> tuple[Array, Array]:
    """x (a number as a vector of one) in a wide dtype less the largest along the axis, and its exponential."""
    wider = np.atleast_1d(x).astype(wide(x.dtype), copy=False)
    shifted = wider - wider.max(axis=axis, keepdims=True, initial=-np.inf)
    return shifted, np.exp(shifted)


@op(infer=_softmax)
def softmax(x: Array, *, axis: int = -1) -> Array:
    """exp(x) / Σ exp(x) along `axis`."""
    _, exponents = _exponents(x, axis)
    y: Array = exponents / exponents.sum(axis=axis, keepdims=True)
    return y.reshape(x.shape).astype(x.dtype, copy=False)


@op(infer=_softmax)
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """x - log Σ exp(x) along `axis`, computed from x less its largest value."""
    shifted, exponents = _exponents(x, axis)
    y: Array = shifted - np.log(exponents.sum(axis=axis, keepdims=True))
    return y.reshape(x.shape).astype(x.dtype, copy=False)


@op(infer=_softmax)
def safe_softmax(x: Array, *, axis: int = -1) -> Array:
    """`softmax`, but zeros where every value along `axis` is -infinity (a row that a mask hides whole)."""
    hidden = (np.atleast_1d(x) == -np.inf).all(axis=axis, keepdims=True)
    return np.where(hidden, 0, np.atleast_1d(softmax(x, axis=axis))).reshape(x.shape).astype(x.dtype, copy=False)
