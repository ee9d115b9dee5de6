"""Activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adapters.numpy.blocks import rowwise
from adapters.numpy.registry import block, kernel
from converter.ir import Array
from converter.opset import lookup

# erf(x) = x * P(x²) / Q(x²) on [-4, 4], beyond which float32 rounds it to ±1: the minimax ratio of Eigen and Cephes.
_ERF_OVER = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04,
             -2.95459980854025e-03, -1.60960333262415e-02)
_ERF_UNDER = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02)



@block("gelu")
def gelu(out: Array, x: Array, *, approximate: str = "none") -> None:
    if x.dtype != np.float32:
        np.copyto(out, lookup("gelu").kernel(x, approximate=approximate))
    elif approximate == "tanh":
        _gelu_tanh(x, out)
    else:
        _gelu(x, out)


def _gelu(x: Array, out: Array) -> None:
    bounded = x * np.float32(math.sqrt(0.5))
    np.clip(bounded, -4, 4, out=bounded)
    square = bounded * bounded
    over, under = _horner(square, _ERF_OVER), _horner(square, _ERF_UNDER)
    over *= bounded
    over /= under
    over += 1
    over *= 0.5
    np.multiply(over, x, out=out)


def _horner(x: Array, coefficients: tuple[float, ...]) -> Array:
    result = x * np.float32(coefficients[0])
    for coefficient in coefficients[1:-1]:
        result += np.float32(coefficient)
        result *= x
    result += np.float32(coefficients[-1])
    return result


def _gelu_tanh(x: Array, out: Array) -> None:
    inner = x * x
    inner *= np.float32(0.044715)
    inner += 1
    inner *= x
    inner *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(inner, out=inner)
    inner += 1
    inner *= 0.5
    np.multiply(inner, x, out=out)


@block("sigmoid")
def sigmoid(out: Array, x: Array) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)


@block("silu")
def silu(out: Array, x: Array) -> None:
    # exp(-x) overflows where x is very negative, and the limit is 0.
    under = np.negative(x)
    np.exp(under, out=under)
    under += 1
    np.divide(x, under, out=out)


@block("hardsigmoid")
def hardsigmoid(out: Array, x: Array) -> None:
    np.add(x, 3, out=out)
    np.maximum(out, 0, out=out)
    np.minimum(out, 6, out=out)
    out *= out.dtype.type(1 / 6)


@block("hardswish")
def hardswish(out: Array, x: Array) -> None:
    factor = np.empty(out.shape, out.dtype)
    hardsigmoid(factor, x)
    np.multiply(factor, x, out=out)


@block("relu")
def relu(out: Array, x: Array) -> None:
    np.maximum(x, 0, out=out)


@kernel("softmax")
def softmax(x: Array, *, axis: int = -1, **attributes: Any) -> Array:
    if attributes or x.dtype != np.float32 or x.ndim == 0 or axis not in (-1, x.ndim - 1) or not x.shape[-1]:
        return lookup("softmax").kernel(x, axis=axis, **attributes)
    return rowwise(x, softmax_rows)


def softmax_rows(rows: Array, out: Array) -> None:
    """Softmax of each row of a float matrix; `out` may be `rows`."""
    np.subtract(rows, rows.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    total = out.sum(axis=1, keepdims=True)
    out /= total
