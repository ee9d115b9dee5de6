"""Linear algebra on matrices: ONNX has determinants only, so that the rest is loops over columns, in float64 (`adapters.onnx.matrices`).

What torch raises an error for, such as a singular matrix, gives infinities or NaN: an ONNX graph cannot raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adapters.onnx.complex_numbers.pairs import Pair, lowers_complex
from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import number
from adapters.onnx.matrices import elimination, reflections, rotations
from adapters.onnx.matrices.parts import (
    REAL,
    Parts,
    added,
    adjoint,
    identity,
    matrix_product,
    over,
    parts_of,
    squared,
    times,
    whole,
)
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.ops.manipulation import zeros
from adapters.onnx.registry import lowerings, lowers
from converter.dims import maximum
from converter.ir import DType, TensorSpec
from converter.ops._rules import axis_of

Operand = Tensor | Pair


def algebra(operator: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a lowering of real and of complex operands."""

    def register(lowering: Callable[..., Any]) -> Callable[..., Any]:
        lowers(operator)(lowering)
        lowers_complex(operator)(lowering)
        return lowering

    return register


def _total(g: Lowering, x: Parts) -> Parts:
    """The product over the last axis."""
    spec = TensorSpec(REAL, x[0].shape[:-1])
    if len(x) == 1:
        return (g.node("ReduceProd", x[0], g.constant([x[0].rank - 1]), spec=spec, keepdims=0),)
    from adapters.onnx.lowering.loops import Step, loop
    from adapters.onnx.matrices.parts import column
    from adapters.onnx.ops.manipulation import expand

    start = (expand(g, number(g, 1, x[0]), spec.shape), expand(g, number(g, 0, x[0]), spec.shape))
    result, _ = loop(g, x[0].shape[-1], start, lambda index, states: Step(times(g, tuple(states), column(g, x, index))))
    return tuple(result)


@algebra("det")
def det(g: Lowering, x: Operand) -> Operand:
    if isinstance(x, Tensor) and x.dtype is DType.FLOAT32:
        return g.node("Det", x, spec=TensorSpec(x.dtype, x.shape[:-2]))
    sign, pivots = elimination.determinant_parts(g, parts_of(g, x))
    return whole(g, times(g, (sign,), _total(g, pivots)), x)


@algebra("slogdet")
def slogdet(g: Lowering, x: Operand) -> tuple[Operand, Tensor]:
    parity, pivots = elimination.determinant_parts(g, parts_of(g, x))
    sizes = apply(g, "Abs", pivots[0]) if len(pivots) == 1 else apply(g, "Sqrt", squared(g, pivots))
    none = apply(g, "Equal", sizes, number(g, 0, sizes), dtype=DType.BOOL)
    signs = _total(g, over(g, pivots, (select(g, none, number(g, 1, sizes), sizes),)))
    total = added(g, apply(g, "Log", sizes))
    real = x.real.dtype if isinstance(x, Pair) else x.dtype
    return whole(g, times(g, (parity,), signs), x), g.cast(total, real)


@algebra("inv")
def inv(g: Lowering, x: Operand) -> Operand:
    return whole(g, elimination.inverse(g, parts_of(g, x)), x)


@algebra("solve")
def solve(g: Lowering, a: Operand, b: Operand) -> Operand:
    return whole(g, elimination.solved(g, parts_of(g, a), parts_of(g, b)), a)


@algebra("solve_triangular")
def solve_triangular(g: Lowering, a: Operand, b: Operand, *, upper: bool, unitriangular: bool) -> Operand:
    return whole(g, elimination.substituted(g, parts_of(g, a), parts_of(g, b), upper=upper, unit=unitriangular), a)


@algebra("cholesky")
def cholesky(g: Lowering, x: Operand, *, upper: bool) -> Operand:
    parts = parts_of(g, x)
    factor = elimination.lower_factor(g, adjoint(g, parts) if upper else parts)
    return whole(g, adjoint(g, factor) if upper else factor, x)


@algebra("qr")
def qr(g: Lowering, x: Operand, *, mode: str) -> tuple[Operand, Operand]:
    q, r = reflections.factored(g, parts_of(g, x), mode == "complete")
    return whole(g, q, x), whole(g, r, x)


def _real(g: Lowering, values: Tensor, x: Operand) -> Tensor:
    return g.cast(values, x.real.dtype if isinstance(x, Pair) else x.dtype)


@algebra("svd")
def svd(g: Lowering, x: Operand, *, full_matrices: bool) -> tuple[Operand, Tensor, Operand]:
    if not g.wants(0) and not g.wants(2):
        values = _real(g, rotations.singular_values(g, parts_of(g, x)), x)
        return values, values, values
    u, s, vh = rotations.singular(g, parts_of(g, x), full_matrices)
    return whole(g, u, x), _real(g, s, x), whole(g, vh, x)


@algebra("eigh")
def eigh(g: Lowering, x: Operand, *, upper: bool) -> tuple[Operand, ...]:
    values, vectors = rotations.eigen(g, rotations.hermitian(g, parts_of(g, x), upper), g.wants(1))
    found = _real(g, values, x)
    return (found, whole(g, vectors, x)) if vectors else (found,)


@algebra("pinv")
def pinv(g: Lowering, x: Operand, *, atol: float | None, rtol: float | None) -> Operand:
    parts = parts_of(g, x)
    if rtol is not None or atol:
        least = number(g, rtol or 0.0, parts[0])
    else:
        eps = float(np.finfo((x.real if isinstance(x, Pair) else x).dtype.numpy).eps)
        least = apply(g, "Mul", g.cast(g.scalar_size(maximum(*x.shape[-2:])), REAL), number(g, eps, parts[0]))
    return whole(g, rotations.pseudoinverse(g, parts, float(atol or 0.0), least), x)


@algebra("matrix_power")
def matrix_power(g: Lowering, x: Operand, *, n: int) -> Operand:
    """By squaring, in the matrix's own dtype; below 0, of the inverse."""
    if n == 0:
        return whole(g, identity(g, x.shape[-1], batch=x.shape[:-2], like=parts_of(g, x)), x)
    result: Parts | None = None
    square: Parts = ((x.real, x.imag) if isinstance(x, Pair) else (x,)) if n > 0 else elimination.inverse(g, parts_of(g, x))
    n = abs(n)
    while True:
        if n & 1:
            result = square if result is None else matrix_product(g, result, square)
        n >>= 1
        if not n:
            return whole(g, result, x)  # type: ignore[arg-type]
        square = matrix_product(g, square, square)


def _spectral(g: Lowering, x: Operand, ord: str | float, rows: int, columns: int) -> Tensor:
    """The norms of the singular values, of matrices in two axes: what remains, no axes kept."""
    order = (*(place for place in range(x.rank) if place not in (rows, columns)), rows, columns)
    values = rotations.singular_values(g, tuple(g.transpose(part, order) for part in parts_of(g, x)))
    return _real(g, added(g, values, -1, {"nuc": "ReduceSum", 2: "ReduceMax", -2: "ReduceMin"}[ord]), x)


@algebra("matrix_norm")
def matrix_norm(g: Lowering, x: Operand, *, ord: str | float, axis: tuple[int, int], keepdims: bool) -> Tensor:
    rows, columns = (axis_of(place, x.rank) for place in axis)
    result = g.result
    smallest = not isinstance(ord, str) and ord < 0
    if 0 in (x.shape[rows], x.shape[columns]):
        if smallest:
            raise g.refuse("the smallest of an empty matrix")
        return zeros(g, result.shape, result.dtype)

    def at_least_0(most: Tensor) -> Tensor:
        return apply(g, "Max", most, number(g, 0, most)) if g.may_be_empty(x.shape) and not smallest else most

    if ord in ("nuc", 2, -2):
        found = at_least_0(_spectral(g, x, ord, rows, columns))
        return g.node("Unsqueeze", found, g.constant(sorted((rows, columns))), spec=result) if keepdims else found
    size: Tensor = lowerings()["hypot"](g, x.real, x.imag) if isinstance(x, Pair) else x
    if ord == "fro":
        return g.node("ReduceL2", size, g.constant(sorted((rows, columns))), spec=result, keepdims=int(keepdims))
    inner, outer = (rows, columns) if abs(ord) == 1 else (columns, rows)  # type: ignore[arg-type]
    sums = TensorSpec(size.dtype, tuple(1 if place == inner else extent for place, extent in enumerate(size.shape)))
    total = g.node("ReduceL1", size, g.constant([inner]), spec=sums, keepdims=1)
    both = TensorSpec(size.dtype, tuple(1 if place in (inner, outer) else extent for place, extent in enumerate(size.shape)))
    most = g.node("ReduceMax" if ord > 0 else "ReduceMin", total, g.constant([outer]), spec=both, keepdims=1)  # type: ignore[operator]
    most = at_least_0(most)
    return most if keepdims else g.node("Squeeze", most, g.constant(sorted((rows, columns))), spec=result)
