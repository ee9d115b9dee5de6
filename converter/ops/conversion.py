"""Conversion between dtypes, and of numbers to sizes."""

from __future__ import annotations

import numpy as np

from converter.dims import Dim
from converter.facts import Facts
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import Size, each, require
from converter.ops.indexing import require_symbol
from converter.opset import op

LARGEST = (1 << 31) - 1
"""Numbers read from data are sizes up to here, so that products of a few of them are exact in 64 bits."""


@each
def _astype(x: TensorSpec, *, dtype: DType) -> TensorSpec:
    return TensorSpec(dtype, x.shape)


@op(infer=_astype, facts=Facts(carries=(0,), flat=True, whole=True, finite=True))
def astype(x: Array, *, dtype: DType) -> Array:
    """x in another dtype: the Array API's astype.

    Float to integer drops the fraction (values that the integer dtype cannot hold have no defined result), to a
    narrower float rounds to nearest even, to bool tells what is not zero, and complex to real drops the imaginary part.
    """
    if dtype is DType.BOOL:
        return x != 0
    if x.dtype.kind == "c" and not dtype.is_complex:
        x = x.real
    if dtype.is_integer and DType.of(x.dtype).is_float and dtype.itemsize < 8:
        # Through int64, so that what a narrow dtype cannot hold wraps around on every machine.
        x = x.astype(np.int64)
    return x.astype(dtype.numpy, copy=False)


def _size_of(x: TensorSpec, *, size: Dim | None = None, least: Dim = 0, most: Dim = LARGEST) -> TensorSpec:
    require(x.rank == 0 and x.dtype.is_integer, "no number that can be a size", expected="an integer dtype, no axes", received=x)
    require_symbol(size)
    return TensorSpec(DType.INT64, ())


@op(infer=_size_of, binds={"size": (0, None)})
def size_of(x: Array, *, size: Size | None = None, least: Size = 0, most: Size = LARGEST) -> Array:
    """A number of the data as a size: the symbol `size` stands for x from here on.

    x: integer []. y: int64 [], x itself. A value below `least` or above `most` is an error.
    """
    if not least <= int(x) <= most:
        raise ValueError(f"{int(x)} is not between {least} and {most}")
    return x.astype(np.int64)
