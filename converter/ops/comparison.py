"""Comparison, logic, and tests for NaN and infinities, element by element with broadcasting: the Array API's names.

All give bool. Operands of a comparison have one dtype; a literal number takes it.
"""

from __future__ import annotations

import numpy as np

from converter.facts import ALL, Facts
from converter.formulas import Space, Term, dtype_of
from converter.ir import Array, DType
from converter.ops._rules import elementwise, unary
from converter.opset import op


def _ordered(dtype: DType) -> bool:
    return not dtype.is_complex


def _boolean(dtype: DType) -> bool:
    return dtype is DType.BOOL


@op(infer=elementwise(DType.BOOL), literals=True, facts=Facts(compares="equal", wide=ALL))
def equal(x: Array, y: Array) -> Array:
    """Whether x == y; false where either is NaN."""
    return np.equal(x, y).astype(np.bool_, copy=False)


@op(infer=elementwise(DType.BOOL), literals=True, facts=Facts(compares="equal", wide=ALL),
    formula=lambda f, x, y: f.logical_not(f.equal(x, y)))
def not_equal(x: Array, y: Array) -> Array:
    """Whether x ≠ y; true where either is NaN."""
    return np.not_equal(x, y).astype(np.bool_, copy=False)


@op(infer=elementwise(DType.BOOL, kinds=_ordered), literals=True, facts=Facts(compares="order", wide=ALL))
def less(x: Array, y: Array) -> Array:
    """Whether x < y; false where either is NaN."""
    return np.less(x, y).astype(np.bool_, copy=False)


@op(infer=elementwise(DType.BOOL, kinds=_ordered), literals=True, facts=Facts(compares="order", wide=ALL))
def less_equal(x: Array, y: Array) -> Array:
    """Whether x ≤ y; false where either is NaN."""
    return np.less_equal(x, y).astype(np.bool_, copy=False)


@op(infer=elementwise(DType.BOOL, kinds=_ordered), literals=True, facts=Facts(compares="order", wide=ALL),
    formula=lambda f, x, y: f.less(y, x))
def greater(x: Array, y: Array) -> Array:
    """Whether x > y; false where either is NaN."""
    return np.greater(x, y).astype(np.bool_, copy=False)


@op(infer=elementwise(DType.BOOL, kinds=_ordered), literals=True, facts=Facts(compares="order", wide=ALL),
    formula=lambda f, x, y: f.less_equal(y, x))
def greater_equal(x: Array, y: Array) -> Array:
    """Whether x ≥ y; false where either is NaN."""
    return np.greater_equal(x, y).astype(np.bool_, copy=False)


@op(infer=elementwise(kinds=_boolean), literals=True, facts=Facts(truth=True),
    formula=lambda f, x, y: f.bitwise_and(x, y))
def logical_and(x: Array, y: Array) -> Array:
    """Whether both hold. Operands are bool."""
    return np.logical_and(x, y)


@op(infer=elementwise(kinds=_boolean), literals=True, facts=Facts(truth=True),
    formula=lambda f, x, y: f.bitwise_or(x, y))
def logical_or(x: Array, y: Array) -> Array:
    """Whether at least one holds. Operands are bool."""
    return np.logical_or(x, y)


@op(infer=elementwise(kinds=_boolean), literals=True, facts=Facts(truth=True),
    formula=lambda f, x, y: f.bitwise_xor(x, y))
def logical_xor(x: Array, y: Array) -> Array:
    """Whether exactly one holds. Operands are bool."""
    return np.logical_xor(x, y)


@op(infer=elementwise(kinds=_boolean), facts=Facts(truth=True), formula=lambda f, x: f.bitwise_invert(x))
def logical_not(x: Array) -> Array:
    """Whether x does not hold. The operand is bool."""
    return np.logical_not(x)


@op(infer=unary(dtype=DType.BOOL), formula=lambda f, x: f.not_equal(x, x))
def isnan(x: Array) -> Array:
    """Whether x is NaN; false for every integer."""
    return np.isnan(x)


def _isinf(f: Space, x: Term) -> Term:
    if dtype_of(x).is_complex:
        return f.isinf(f.real(x)) | f.isinf(f.imag(x))
    return f.equal(x, x) & ~f.isfinite(x)


@op(infer=unary(dtype=DType.BOOL), formula=_isinf)
def isinf(x: Array) -> Array:
    """Whether x is an infinity; false for every integer."""
    return np.isinf(x)


def _isfinite(f: Space, x: Term) -> Term:
    """The difference of an infinity, or of NaN, with itself is NaN."""
    gone = x - x if dtype_of(x).is_float or dtype_of(x).is_complex else x
    return f.equal(gone, gone)


@op(infer=unary(dtype=DType.BOOL), formula=_isfinite)
def isfinite(x: Array) -> Array:
    """Whether x is neither NaN nor an infinity; true for every integer."""
    return np.isfinite(x)
