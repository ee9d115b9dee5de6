"""LAPACK's packed factorizations, what is made of them, and the matrix exponential, in float64 (`adapters.onnx.matrices`)."""

from __future__ import annotations

import math

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute, number
from adapters.onnx.lowering.loops import Step, loop
from adapters.onnx.matrices import elimination, reflections
from adapters.onnx.matrices.parts import (
    REAL,
    Parts,
    added,
    chosen,
    diagonal_mask,
    each,
    first_columns,
    identity,
    matrix_product,
    minus,
    over,
    parts_of,
    plus,
    squared,
    times,
    triangle,
    whole,
)
from adapters.onnx.ops.elementwise import apply, like
from adapters.onnx.ops.linalg import Operand, algebra
from adapters.onnx.ops.manipulation import expand, unsqueeze
from converter.dims import minimum
from converter.ir import DType, TensorSpec
from converter.ops.factorization import MOST_SQUARINGS, PADE, PADE_NORM


@algebra("lu_factor")
def lu_factor(g: Lowering, x: Operand) -> tuple[Operand, Tensor]:
    packed, pivots = elimination.eliminated(g, parts_of(g, x), minimum(*x.shape[-2:]))
    return whole(g, packed, x), g.cast(apply(g, "Add", pivots, g.constant(1)), DType.INT32)


@algebra("lu_unpack")
def lu_unpack(g: Lowering, lu: Operand, pivots: Tensor) -> tuple[Operand, Operand, Operand]:
    parts = parts_of(g, lu)
    lower, upper = elimination.unpacked(g, parts)
    order = elimination.permutation(g, apply(g, "Sub", g.cast(pivots, DType.INT64), g.constant(1)), lu.shape[-2])
    p = elimination.permutation_matrix(g, order)
    both = (p, expand(g, number(g, 0, p), p.shape)) if len(parts) == 2 else (p,)
    return whole(g, both, lu), whole(g, lower, lu), whole(g, upper, lu)


def _stacked(g: Lowering, x: Parts) -> Parts:
    """[..., k] as [k, ...]."""
    return each(lambda part: g.transpose(part, (part.rank - 1, *range(part.rank - 1))), x)


def _unstacked(g: Lowering, x: Parts) -> Parts:
    return each(lambda part: g.transpose(part, (*range(1, part.rank), 0)), x)


@algebra("geqrf")
def geqrf(g: Lowering, x: Operand) -> tuple[Operand, Operand]:
    *batch, m, n = x.shape
    r, vectors, factors = reflections.reflected(g, parts_of(g, x))
    below = triangle(g, _unstacked(g, vectors), False, -1)
    k = minimum(m, n)
    if k != n:
        rest = TensorSpec(REAL, (*batch, m, n - k))
        spec = TensorSpec(REAL, (*batch, m, n))
        nothing = expand(g, number(g, 0, r[0]), rest.shape)
        below = each(lambda part: g.node("Concat", part, nothing, spec=spec, axis=-1), below)
    return whole(g, plus(g, triangle(g, r, True), below), x), whole(g, _unstacked(g, factors), x)


@algebra("householder_product")
def householder_product(g: Lowering, v: Operand, tau: Operand) -> Operand:
    parts, factors = parts_of(g, v), parts_of(g, tau)
    *_, m, n = v.shape
    k = tau.shape[-1]
    below = first_columns(g, triangle(g, parts, False, -1), k)
    vectors = chosen(g, diagonal_mask(g, m, k), identity(g, m, k, v.shape[:-2], like=parts), below)
    return whole(g, reflections.orthogonal(g, _stacked(g, vectors), _stacked(g, factors), n), v)


@algebra("eig")
def eig(g: Lowering, x: Operand) -> tuple[Operand, ...]:
    raise g.refuse("the eigenvalues of a general matrix: ONNX has no operator for them")


@algebra("matrix_exp")
def matrix_exp(g: Lowering, x: Operand) -> Operand:
    """Higham's scaling and squaring, each matrix by its own power of two."""
    a = parts_of(g, x)
    real = a[0]
    sizes = apply(g, "Abs", real) if len(a) == 1 else apply(g, "Sqrt", squared(g, a))
    norm = added(g, added(g, sizes, -2), -1, "ReduceMax")
    steps = apply(g, "Ceil", apply(g, "Div", apply(g, "Log", apply(g, "Div", norm, number(g, PADE_NORM, real))),
                                   number(g, math.log(2), real)))
    steps = compute(g, "Clip", steps, number(g, 0, real), number(g, MOST_SQUARINGS, real), spec=like(steps))
    scale = unsqueeze(g, apply(g, "Pow", number(g, 2, real), steps), [-2, -1])
    a = over(g, a, (scale,))
    one = identity(g, x.shape[-1], like=a)

    def total(powers: list[tuple[float, Parts]]) -> Parts:
        result = None
        for factor, power in powers:
            term = times(g, (number(g, factor, real),), power)
            result = term if result is None else plus(g, result, term)
        return result  # type: ignore[return-value]

    second = matrix_product(g, a, a)
    fourth = matrix_product(g, second, second)
    sixth = matrix_product(g, fourth, second)
    powers = (sixth, fourth, second, one)
    halves = []
    for place in (1, 0):
        high = matrix_product(g, sixth, total([(PADE[12 - 2 * k + place], power) for k, power in enumerate(powers[:3])]))
        halves.append(plus(g, high, total([(PADE[6 - 2 * k + place], power) for k, power in enumerate(powers)])))
    odd, even = matrix_product(g, a, halves[0]), halves[1]
    result = elimination.solved(g, minus(g, even, odd), plus(g, even, odd))
    counts = g.cast(steps, DType.INT64)
    most = g.node("ReduceMax", counts, g.constant(list(range(counts.rank))), spec=TensorSpec(DType.INT64, ()), keepdims=0) \
        if counts.rank else counts

    def square(index: Tensor, states: list[Tensor]) -> Step:
        going = unsqueeze(g, apply(g, "Less", index, counts, dtype=DType.BOOL), [-2, -1])
        return Step(chosen(g, going, matrix_product(g, tuple(states), tuple(states)), tuple(states)))

    final, _ = loop(g, most, result, square)
    return whole(g, tuple(final), x)
