"""Tensors made from sizes and numbers, and the triangles of matrices."""

from __future__ import annotations

import math

import numpy as np
import onnx

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute
from adapters.onnx.registry import lowers
from converter.dims import Dim, Expr, fixed
from converter.ir import DType, TensorSpec
from converter.ops import creation
from converter.ops.creation import Number
from converter.opset import lookup

# Up to this many elements, a tensor that is known now is written out.
WRITTEN = 4096


def _known(*values: object) -> bool:
    return not any(isinstance(value, Expr) for value in values)


def filled(g: Lowering, shape: tuple[Dim, ...], value: bool | int | float, dtype: DType) -> Tensor:
    """A tensor of one number: a constant where it is small and known, else `ConstantOfShape`."""
    known = [size for size in shape if isinstance(size, int)]
    if len(known) == len(shape) and math.prod(known) <= 16:
        return g.constant(np.full(known, np.asarray(value).astype(dtype.numpy)), dtype)
    tensor = onnx.numpy_helper.from_array(np.asarray([value]).astype(dtype.numpy))
    return g.node("ConstantOfShape", g.sizes(shape), spec=TensorSpec(dtype, shape), value=tensor)


@lowers("full")
def full(g: Lowering, *, shape: tuple[Dim, ...], fill_value: bool | Dim | float, dtype: DType) -> Tensor:
    if not isinstance(fill_value, Expr):
        return filled(g, shape, fill_value, dtype)
    size = g.cast(g.scalar_size(fill_value), dtype)
    return g.node("Expand", size, g.sizes(shape), spec=TensorSpec(dtype, shape)) if shape else size


def counted(g: Lowering, count: Dim) -> Tensor:
    """0, 1, … count - 1 as int64."""
    if isinstance(count, int) and count <= WRITTEN:
        return g.constant(np.arange(count))
    return g.node("Range", g.constant(0), g.scalar_size(count), g.constant(1), spec=TensorSpec(DType.INT64, (count,)))


def scalar(g: Lowering, value: Number, dtype: DType) -> Tensor:
    """A number or a size as a 0-d tensor."""
    return g.cast(g.scalar_size(value), dtype) if isinstance(value, Expr) else g.constant(value, dtype)


def _progression(g: Lowering, index: Tensor, start: Number, step: Tensor | Number, dtype: DType = DType.FLOAT64) -> Tensor:
    """start + step · index."""
    wide, spec = g.cast(index, dtype), TensorSpec(dtype, index.shape)
    factor = step if isinstance(step, Tensor) else None if step == 1 else scalar(g, step, dtype)
    scaled = wide if factor is None else g.node("Mul", wide, factor, spec=spec)
    return scaled if isinstance(start, (int, float)) and start == 0 else g.node("Add", scaled, scalar(g, start, dtype), spec=spec)


@lowers("arange")
def arange(g: Lowering, *, start: Number = 0, stop: Number, step: Number = 1, dtype: DType) -> Tensor:
    count = creation.steps(start, stop, step)
    if _known(start, stop, step) and fixed(count) <= WRITTEN:
        return g.constant(creation.arange(start=start, stop=stop, step=step, dtype=dtype), dtype)
    whole = all(isinstance(item, (int, Expr)) for item in (start, stop, step))
    # A Range from elsewhere than 0 would not do: of floats, dividing rounded ones does not promise the declared number, and ONNX Runtime
    # makes a Slice of one that something is gathered at, to which a negative end counts from the other side.
    return g.cast(_progression(g, counted(g, count), start, step, DType.INT64 if whole else DType.FLOAT64), dtype)


@lowers("linspace")
def linspace(g: Lowering, *, start: Number, stop: Number, num: Dim, dtype: DType) -> Tensor:
    if _known(start, stop, num) and fixed(num) <= WRITTEN:
        return g.constant(lookup("linspace").kernel(start=start, stop=stop, num=num, dtype=dtype), dtype)
    wide, vector = TensorSpec(DType.FLOAT64, ()), TensorSpec(DType.FLOAT64, (num,))
    first, last = scalar(g, start, DType.FLOAT64), scalar(g, stop, DType.FLOAT64)
    gaps = g.node("Sub", scalar(g, num, DType.FLOAT64), g.constant(1.0, DType.FLOAT64), spec=wide)
    one = g.constant(1.0, DType.FLOAT64)
    step = g.node("Div", g.node("Sub", last, first, spec=wide), g.node("Max", gaps, one, spec=wide), spec=wide)
    index = g.cast(counted(g, num), DType.FLOAT64)
    up = g.node("Add", first, g.node("Mul", step, index, spec=vector), spec=vector)
    down = g.node("Sub", last, g.node("Mul", step, g.node("Sub", gaps, index, spec=vector), spec=vector), spec=vector)
    # The lower half, and the only element of one.
    half = g.node("Max", g.node("Div", scalar(g, num, DType.INT64), g.constant(2), spec=TensorSpec(DType.INT64, ())), g.constant(1),
                  spec=TensorSpec(DType.INT64, ()))
    lower = g.node("Less", index, g.cast(half, DType.FLOAT64), spec=TensorSpec(DType.BOOL, (num,)))
    return g.cast(g.node("Where", lower, up, down, spec=vector), dtype)


@lowers("eye")
def eye(g: Lowering, *, rows: Dim, columns: Dim, dtype: DType) -> Tensor:
    if _known(rows, columns) and fixed(rows) * fixed(columns) <= WRITTEN:
        return g.constant(creation.eye(rows=rows, columns=columns, dtype=dtype), dtype)
    shape = TensorSpec(DType.FLOAT32, (rows, columns))
    zeros = g.node("ConstantOfShape", g.sizes((rows, columns)), spec=shape)
    return g.cast(g.node("EyeLike", zeros, spec=shape), dtype)


def _triangle(g: Lowering, x: Tensor, k: Dim, upper: int) -> Tensor:
    return compute(g, "Trilu", x, extra=() if k == 0 else (g.scalar_size(k),), spec=x.spec, upper=upper)


@lowers("tril")
def tril(g: Lowering, x: Tensor, *, k: Dim = 0) -> Tensor:
    return _triangle(g, x, k, 0)


@lowers("triu")
def triu(g: Lowering, x: Tensor, *, k: Dim = 0) -> Tensor:
    return _triangle(g, x, k, 1)


@lowers("tril_indices")
def tril_indices(g: Lowering, *, rows: int, columns: int, k: int = 0, dtype: DType = DType.INT64) -> Tensor:
    return g.constant(creation.tril_indices(rows=rows, columns=columns, k=k, dtype=dtype), dtype)


@lowers("triu_indices")
def triu_indices(g: Lowering, *, rows: int, columns: int, k: int = 0, dtype: DType = DType.INT64) -> Tensor:
    return g.constant(creation.triu_indices(rows=rows, columns=columns, k=k, dtype=dtype), dtype)
