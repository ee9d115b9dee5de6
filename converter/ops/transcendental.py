"""Exponentials, logarithms, roots, trigonometric and hyperbolic functions, element by element.

Names and values are those of the Python Array API standard. Operands are float or complex, and keep their dtype.
"""

from __future__ import annotations

import math

import numpy as np

from converter.facts import Facts
from converter.formulas import Space, Term, dtype_of, widened
from converter.ir import Array
from converter.ops._rules import elementwise, unary
from converter.opset import op


@op(infer=unary(float_only=True))
def exp(x: Array) -> Array:
    """eˣ."""
    return np.exp(x)


@op(infer=unary(float_only=True))
def expm1(x: Array) -> Array:
    """eˣ - 1, exact to rounding near 0."""
    return np.expm1(x)


@op(infer=unary(float_only=True),
    formula=lambda f, x: f.exp(x * math.log(2.0)) if dtype_of(x).is_complex else f.power(2.0, x))
def exp2(x: Array) -> Array:
    """2ˣ."""
    return np.exp2(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((0.1, 4.0),)))
def log(x: Array) -> Array:
    """The natural logarithm: -inf at 0, NaN below."""
    return np.log(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((-0.75, 4.0),)))
def log1p(x: Array) -> Array:
    """log(1 + x), exact to rounding near 0."""
    # NumPy's complex log1p is no more exact than its log.
    return np.log1p(x.astype(np.complex128)).astype(x.dtype) if x.dtype == np.complex64 else np.log1p(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((0.1, 4.0),)))
def log2(x: Array) -> Array:
    """The logarithm to base 2."""
    return np.log2(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((0.1, 4.0),)))
def log10(x: Array) -> Array:
    """The logarithm to base 10."""
    return np.log10(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((0.0, 4.0),)))
def sqrt(x: Array) -> Array:
    """The square root; NaN below 0."""
    return np.sqrt(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((0.1, 4.0),)))
def rsqrt(f: Space, x: Term) -> Term:
    """1 / √x."""
    return f.reciprocal(f.sqrt(x))


@op(infer=unary(float_only=True))
def sin(x: Array) -> Array:
    """The sine of x radians."""
    return np.sin(x)


@op(infer=unary(float_only=True))
def cos(x: Array) -> Array:
    """The cosine of x radians."""
    return np.cos(x)


@op(infer=unary(float_only=True))
def tan(x: Array) -> Array:
    """The tangent of x radians."""
    return np.tan(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((-0.95, 0.95),)))
def asin(x: Array) -> Array:
    """The inverse sine, in [-π/2, π/2]."""
    return np.arcsin(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((-0.95, 0.95),)))
def acos(x: Array) -> Array:
    """The inverse cosine, in [0, π]."""
    return np.arccos(x)


@op(infer=unary(float_only=True))
def atan(x: Array) -> Array:
    """The inverse tangent, in [-π/2, π/2]."""
    return np.arctan(x)


@op(infer=unary(float_only=True))
def sinh(x: Array) -> Array:
    """The hyperbolic sine."""
    return np.sinh(x)


@op(infer=unary(float_only=True))
def cosh(x: Array) -> Array:
    """The hyperbolic cosine."""
    return np.cosh(x)


@op(infer=unary(float_only=True), facts=Facts(finite=True))
def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(x)


@op(infer=unary(float_only=True))
def asinh(x: Array) -> Array:
    """The inverse hyperbolic sine."""
    return np.arcsinh(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((1.05, 4.0),)))
def acosh(x: Array) -> Array:
    """The inverse hyperbolic cosine; NaN below 1."""
    return np.arccosh(x)


@op(infer=unary(float_only=True), facts=Facts(domain=((-0.95, 0.95),)))
def atanh(x: Array) -> Array:
    """The inverse hyperbolic tangent; NaN outside [-1, 1]."""
    return np.arctanh(x)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True)
def atan2(y: Array, x: Array) -> Array:
    """The angle of the point (x, y), in [-π, π]; the signs of zeros count."""
    return np.arctan2(y, x)


@widened
def _hypot(f: Space, x: Term, y: Term) -> Term:
    """The larger one times √(1 + the ratio's square)."""
    x, y = f.abs(x), f.abs(y)
    larger = f.maximum(x, y)
    ratio = f.minimum(x, y) / f.where(f.equal(larger, 0.0), 1.0, larger)
    return f.where(f.isinf(x) | f.isinf(y), math.inf, larger * f.sqrt(ratio * ratio + 1.0))


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True, formula=_hypot)
def hypot(x: Array, y: Array) -> Array:
    """√(x² + y²), without overflow on the way."""
    return np.hypot(x, y)


@widened
def _logaddexp(f: Space, x: Term, y: Term) -> Term:
    """Equal operands, two infinities among them, are 0 apart."""
    apart = f.where(f.equal(x, y), 0.0, x - y)
    return f.maximum(x, y) + f.log1p(f.exp(-f.abs(apart)))


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True, formula=_logaddexp)
def logaddexp(x: Array, y: Array) -> Array:
    """log(eˣ + eʸ), without overflow on the way."""
    return np.logaddexp(x, y)


@op(infer=unary(float_only=True), facts=Facts(finite=True))
def sigmoid(f: Space, x: Term) -> Term:
    """1 / (1 + e⁻ˣ)."""
    if dtype_of(x).is_complex:
        return f.reciprocal(f.exp(-x) + 1.0)
    # e to the power -|x| cannot overflow.
    small = f.exp(-f.abs(x))
    return f.where(x >= 0.0, 1.0, small) / (small + 1.0)
