"""Linear algebra on matrices, as far as ONNX has it: determinants, powers, and the norms that need no singular values.

Inverses, systems and factorizations have no ONNX operator and are refused.
"""

from __future__ import annotations

from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.ops.linear import multiplied
from adapters.onnx.registry import lowers
from converter.ir import DType, TensorSpec
from converter.ops._rules import axis_of


@lowers("det")
def det(g: Lowering, x: Tensor) -> Tensor:
    if x.dtype is not DType.FLOAT32:
        raise g.refuse(f"determinants in {x.dtype}: ONNX Runtime has them in float32 only")
    return g.node("Det", x, spec=TensorSpec(x.dtype, x.shape[:-2]))


@lowers("matrix_power")
def matrix_power(g: Lowering, x: Tensor, *, n: int) -> Tensor:
    """By squaring."""
    if n < 1:
        raise g.refuse(f"the power {n}: ONNX has no inverse" if n else "the power 0")
    result: Tensor | None = None
    square = x
    while True:
        if n & 1:
            result = square if result is None else multiplied(g, result, square)
        n >>= 1
        if not n:
            return result  # type: ignore[return-value]
        square = multiplied(g, square, square)


@lowers("matrix_norm")
def matrix_norm(g: Lowering, x: Tensor, *, ord: str | float, axis: tuple[int, int], keepdims: bool) -> Tensor:
    if ord in ("nuc", 2, -2) or x.dtype.is_complex:
        raise g.refuse(f"the matrix norm {ord}: ONNX has no singular values" if not x.dtype.is_complex else "norms of complex matrices")
    rows, columns = (axis_of(place, x.rank) for place in axis)
    if 0 in (x.shape[rows], x.shape[columns]):
        raise g.refuse("the norm of an empty matrix")
    result = g.specs[g._wanted[0]]
    if ord == "fro":
        return g.node("ReduceL2", x, g.constant(sorted((rows, columns))), spec=result, keepdims=int(keepdims))
    inner, outer = (rows, columns) if abs(ord) == 1 else (columns, rows)  # type: ignore[arg-type]
    sums = TensorSpec(x.dtype, tuple(1 if place == inner else size for place, size in enumerate(x.shape)))
    total = g.node("ReduceL1", x, g.constant([inner]), spec=sums, keepdims=1)
    both = TensorSpec(x.dtype, tuple(1 if place in (inner, outer) else size for place, size in enumerate(x.shape)))
    most = g.node("ReduceMax" if ord > 0 else "ReduceMin", total, g.constant([outer]), spec=both, keepdims=1)  # type: ignore[operator]
    return most if keepdims else g.node("Squeeze", most, g.constant(sorted((rows, columns))), spec=result)
