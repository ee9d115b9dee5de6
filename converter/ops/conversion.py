"""Conversion between dtypes."""

from __future__ import annotations

import numpy as np

from converter.ir import DType, TensorSpec
from converter.ops._rules import Array
from converter.opset import op


def _astype(x: TensorSpec, *, dtype: DType) -> TensorSpec:
    return TensorSpec(dtype, x.shape)


@op(infer=_astype)
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
    return x.astype(dtype.numpy)
