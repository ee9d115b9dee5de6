"""Arithmetic, comparison and logic, element by element with broadcasting: the Python Array API standard's names.

Operands have one dtype; a literal number takes it. Integer arithmetic wraps around.
"""

from __future__ import annotations

import numpy as np

from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, broadcast_dims, elementwise, require, same_dtype, unary
from converter.opset import op


@op(infer=elementwise(), literals=True)
def add(x: Array, y: Array) -> Array:
    """x + y."""
    return np.add(x, y)


@op(infer=elementwise(), literals=True)
def subtract(x: Array, y: Array) -> Array:
    """x - y."""
    return np.subtract(x, y)


@op(infer=elementwise(), literals=True)
def multiply(x: Array, y: Array) -> Array:
    """x * y."""
    return np.multiply(x, y)


def _where(condition: TensorSpec, x: TensorSpec, y: TensorSpec) -> TensorSpec:
    require(condition.dtype is DType.BOOL, "wrong dtype of the condition", expected="bool", received=condition)
    return TensorSpec(same_dtype(x, y), broadcast_dims(condition.shape, x.shape, y.shape))


@op(infer=_where, literals=True)
def where(condition: Array, x: Array, y: Array) -> Array:
    """x where `condition` (bool) holds, else y."""
    return np.where(condition, x, y)


@op(infer=unary())
def negative(x: Array) -> Array:
    """-x."""
    return np.negative(x)
