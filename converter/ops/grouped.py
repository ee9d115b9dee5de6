"""Products of groups of rows with a matrix each: mixtures of experts."""

from __future__ import annotations

import numpy as np

from converter.formulas import Space, Term, counted, dtype_of, widened
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import require, require_float, require_rank, require_size, same_dtype
from converter.ops._spatial import wide
from converter.opset import op


def _grouped_matmul(x: TensorSpec, weight: TensorSpec, ends: TensorSpec) -> TensorSpec:
    dtype = same_dtype(x, weight)
    require_float(x)
    require_rank(x, 2, what="the rows")
    require_rank(weight, 3, what="the matrices")
    require_rank(ends, 1, what="the ends")
    require(ends.dtype.is_integer, "wrong dtype of the ends", expected="integers", received=ends)
    require_size(weight.shape[1], x.shape[1], "the rows of a matrix")
    require_size(ends.shape[0], weight.shape[0], "an end for each matrix")
    return TensorSpec(dtype, (x.shape[0], weight.shape[2]))


@widened
def _by_group(f: Space, x: Term, weight: Term, ends: Term) -> Term:
    """Of the products of all rows with a matrix, those of its group."""
    group = f.searchsorted(f.astype(ends, dtype=DType.INT64), counted(f, x.shape[0]), right=True)

    def step(f: Space, y: Term, matrix: Term, number: Term, x: Term, group: Term) -> tuple[Term]:
        return (f.where(f.expand_dims(f.equal(group, number), axis=(1,)), f.matmul(x, matrix), y),)

    zeros = f.full(shape=(x.shape[0], weight.shape[2]), fill_value=0.0, dtype=dtype_of(x))
    return f.scan(zeros, weight, counted(f, weight.shape[0]), x, group, states=1, sequences=2, body=step)[0]


@op(infer=_grouped_matmul, formula=_by_group)
def grouped_matmul(x: Array, weight: Array, ends: Array) -> Array:
    """Rows ends[i - 1] to ends[i] of x times matrix i: torch.nn.functional.grouped_mm.

    x: [rows, size]; weight: [groups, size, width]; ends: [groups], integers that do not fall, from 0 to rows (the first
    group starts at 0). y: [rows, width]; rows past the last end are 0.
    """
    result, dtype = x.dtype, wide(x.dtype)
    x, weight = x.astype(dtype, copy=False), weight.astype(dtype, copy=False)
    y = np.zeros((len(x), weight.shape[2]), dtype)
    start = 0
    for matrix, end in zip(weight, ends.tolist(), strict=True):
        y[start:end] = x[start:end] @ matrix
        start = end
    return y.astype(result, copy=False)
