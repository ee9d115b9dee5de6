"""Tensors made from sizes and numbers, and the triangles of matrices."""

from __future__ import annotations

import math

import numpy as np

from converter.dims import Dim, Expr, fixed, floor_divide, maximum
from converter.facts import moves
from converter.formulas import Formula, Space, Term, counted, nothing
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import require
from converter.opset import op

Number = Dim | float


def _full(*, shape: tuple[Dim, ...], fill_value: bool | Dim | float | complex, dtype: DType) -> TensorSpec:
    for size in shape:
        require(not isinstance(size, int) or size >= 0, "a negative size", received=size)
    fits = (dtype.is_complex or not isinstance(fill_value, complex)) and (
        not dtype.is_integer or isinstance(fill_value, (int, Expr)))
    if fits and dtype.is_integer and isinstance(fill_value, int):
        fits = dtype.limits[0] <= fill_value <= dtype.limits[1]
    require(fits, "a fill value that does not fit the dtype", expected=str(dtype), received=repr(fill_value))
    return TensorSpec(dtype, shape)


@op(infer=_full)
def full(*, shape: tuple[Dim, ...], fill_value: bool | Dim | float | complex, dtype: DType) -> Array:
    """A tensor of one value. A size expression may be the value: this is how sizes become tensors."""
    if isinstance(fill_value, int) and not isinstance(fill_value, bool) and not dtype.is_integer:
        fill_value = bool(fill_value) if dtype is DType.BOOL else float(fill_value)
    return np.full(shape, np.asarray(fill_value).astype(dtype.numpy), dtype.numpy)


def steps(start: Number, stop: Number, step: Number) -> Dim:
    """How many numbers `arange` makes: ⌈(stop - start) / step⌉."""
    if isinstance(start, (int, Expr)) and isinstance(stop, (int, Expr)) and isinstance(step, (int, Expr)):
        count = 0 - floor_divide(start - stop, step)
        return max(count, 0) if isinstance(count, int) else count
    if not any(isinstance(item, Expr) for item in (start, stop, step)):
        return max(0, math.ceil((stop - start) / step))  # type: ignore[operator]
    require(not isinstance(step, Expr), "a step that is a size, with a float beside it", received=str(step))
    require(all(isinstance(item, Expr) or math.isfinite(item) for item in (start, stop, step)), "a number that is not finite")
    # Floats are ratios of integers, so the count is exact size arithmetic.
    parts = [(item, 1) if isinstance(item, Expr) else item.as_integer_ratio() for item in (start, stop, step)]
    (a, over_a), (b, over_b), (c, over_c) = parts
    scale = math.lcm(over_a, over_b, over_c)
    return 0 - floor_divide(a * (scale // over_a) - b * (scale // over_b), c * (scale // over_c))


def _arange(*, start: Number, stop: Number, step: Number, dtype: DType) -> TensorSpec:
    require(isinstance(step, Expr) or step != 0, "a step of zero", received=step)
    require(dtype.is_integer or dtype.is_float, "wrong dtype", expected="an integer or float dtype", received=dtype)
    return TensorSpec(dtype, (steps(start, stop, step),))


@op(infer=_arange)
def arange(*, start: Number = 0, stop: Number, step: Number = 1, dtype: DType) -> Array:
    """start, start + step, … up to and without stop: ⌈(stop - start) / step⌉ numbers, computed in float64 unless all are integers."""
    count = max(0, fixed(steps(start, stop, step)))
    return (np.arange(count) * step + start).astype(dtype.numpy)  # type: ignore[operator]


def _linspace(*, start: Number, stop: Number, num: Dim, dtype: DType) -> TensorSpec:
    require(dtype.is_integer or dtype.is_float, "wrong dtype", expected="an integer or float dtype", received=dtype)
    require(isinstance(num, Expr) or num >= 0, "a negative size", received=num)
    return TensorSpec(dtype, (num,))


@op(infer=_linspace)
def linspace(f: Space, *, start: Number, stop: Number, num: Dim, dtype: DType) -> Term:
    """`num` numbers at equal distances from start to stop, both included, computed in float64; start alone for one.

    The lower half counts up from start and the upper half down from stop, as in torch.linspace.
    """
    first, last = (f.full(shape=(), fill_value=value, dtype=DType.FLOAT64) for value in (start, stop))
    index = f.astype(counted(f, num), dtype=DType.FLOAT64)
    step = (last - first) / maximum(num - 1, 1)
    values = f.where(index < maximum(num // 2, 1), first + step * index, last - step * f.subtract(num - 1, index))
    return f.astype(values, dtype=dtype)


def _eye(*, rows: Dim, columns: Dim, dtype: DType) -> TensorSpec:
    return TensorSpec(dtype, (rows, columns))


@op(infer=_eye,
    formula=lambda f, *, rows, columns, dtype: f.astype(f.equal(counted(f, rows, 0, 2), counted(f, columns, 1, 2)), dtype=dtype))
def eye(*, rows: Dim, columns: Dim, dtype: DType) -> Array:
    """[rows, columns] with 1 on the diagonal and 0 elsewhere."""
    return np.eye(fixed(rows), fixed(columns)).astype(dtype.numpy)


def _triangle(x: TensorSpec, *, k: Dim = 0) -> TensorSpec:
    require(x.rank >= 2, "wrong number of axes of the input", expected="at least 2", received=x)
    return x


@op(infer=_triangle, facts=moves(0, fills=True))
def tril(f: Space, x: Term, *, k: Dim = 0) -> Term:
    """The matrices [..., rows, columns] with zeros above their k-th diagonal; k = 0 is the main one, k > 0 lies above it."""
    return f.where(counted(f, x.shape[-2], 0, 2) + k >= counted(f, x.shape[-1], 1, 2), x, nothing(x))


@op(infer=_triangle, facts=moves(0, fills=True))
def triu(f: Space, x: Term, *, k: Dim = 0) -> Term:
    """The matrices [..., rows, columns] with zeros below their k-th diagonal; k = 0 is the main one, k > 0 lies above it."""
    return f.where(counted(f, x.shape[-2], 0, 2) + k <= counted(f, x.shape[-1], 1, 2), x, nothing(x))


def _triangle_indices(upper: bool, rows: int, columns: int, k: int) -> Array:
    mask = np.ones((rows, columns), np.bool_)
    return np.stack(np.nonzero(np.triu(mask, k) if upper else np.tril(mask, k)))


def _bounded(rows: int, columns: int) -> None:
    require(min(rows, columns) >= 0 and rows * columns < 1 << 31, "a matrix of this size is not listed by its indices",
            expected="fewer than 2³¹ elements", received=f"[{rows}, {columns}]")


def _tril_indices(*, rows: int, columns: int, k: int = 0, dtype: DType = DType.INT64) -> TensorSpec:
    _bounded(rows, columns)
    return TensorSpec(dtype, (2, int(np.sum(np.clip(np.arange(rows) + k + 1, 0, columns)))))


def _triu_indices(*, rows: int, columns: int, k: int = 0, dtype: DType = DType.INT64) -> TensorSpec:
    _bounded(rows, columns)
    return TensorSpec(dtype, (2, int(np.sum(columns - np.clip(np.arange(rows) + k, 0, columns)))))


def _listed(upper: bool) -> Formula:
    """Row by row: element p belongs to the first row whose elements, added up with those before, are more than p."""

    def indices(f: Space, *, rows: int, columns: int, k: int, dtype: DType) -> Term:
        border = f.minimum(f.maximum(counted(f, rows) + (k if upper else k + 1), 0), columns)
        ends = f.cumulative_sum(f.subtract(columns, border) if upper else border, axis=0)
        places = counted(f, (_triu_indices if upper else _tril_indices)(rows=rows, columns=columns, k=k).shape[1])
        row = f.searchsorted(ends, places, right=True)
        # Of an upper triangle each row ends at the last column.
        column = places - f.take(ends, row, axis=0) + (columns if upper else f.take(border, row, axis=0))
        return f.astype(f.stack(row, column, axis=0), dtype=dtype)

    return indices


@op(infer=_tril_indices, formula=_listed(False))
def tril_indices(*, rows: int, columns: int, k: int = 0, dtype: DType = DType.INT64) -> Array:
    """[2, n]: rows and columns of the elements on and below the k-th diagonal of a [rows, columns] matrix, row by row."""
    return _triangle_indices(False, rows, columns, k).astype(dtype.numpy)


@op(infer=_triu_indices, formula=_listed(True))
def triu_indices(*, rows: int, columns: int, k: int = 0, dtype: DType = DType.INT64) -> Array:
    """[2, n]: rows and columns of the elements on and above the k-th diagonal of a [rows, columns] matrix, row by row."""
    return _triangle_indices(True, rows, columns, k).astype(dtype.numpy)
