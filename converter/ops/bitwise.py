"""Operations on the bits of integers, element by element with broadcasting: the Python Array API standard's names."""

from __future__ import annotations

import numpy as np

from converter.facts import ALL, Facts
from converter.ir import Array, DType
from converter.ops._rules import elementwise
from converter.opset import op


def _bits(dtype: DType) -> bool:
    return dtype.is_integer or dtype is DType.BOOL


def _integers(dtype: DType) -> bool:
    return dtype.is_integer


@op(infer=elementwise(kinds=_bits), literals=True, facts=Facts(wide=ALL))
def bitwise_and(x: Array, y: Array) -> Array:
    """The bits that both have. Integers, or booleans as one bit."""
    return np.bitwise_and(x, y)


@op(infer=elementwise(kinds=_bits), literals=True, facts=Facts(wide=ALL))
def bitwise_or(x: Array, y: Array) -> Array:
    """The bits that at least one has. Integers, or booleans as one bit."""
    return np.bitwise_or(x, y)


@op(infer=elementwise(kinds=_bits), literals=True, facts=Facts(wide=ALL))
def bitwise_xor(x: Array, y: Array) -> Array:
    """The bits that exactly one has. Integers, or booleans as one bit."""
    return np.bitwise_xor(x, y)


@op(infer=elementwise(kinds=_bits), facts=Facts(wide=ALL))
def bitwise_invert(x: Array) -> Array:
    """Every bit flipped: -x - 1 for signed integers, the negation for booleans."""
    return np.invert(x)


@op(infer=elementwise(kinds=_integers), literals=True, facts=Facts(wide=(0,)))
def bitwise_left_shift(x: Array, y: Array) -> Array:
    """x · 2ʸ, wrapped around; 0 where y is negative or no less than the number of bits."""
    return np.left_shift(x, y)


@op(infer=elementwise(kinds=_integers), literals=True, facts=Facts(wide=(0,)))
def bitwise_right_shift(x: Array, y: Array) -> Array:
    """⌊x / 2ʸ⌋; 0, or -1 for negative x, where y is negative or no less than the number of bits."""
    return np.right_shift(x, y)
