"""Gaussian elimination: LU with partial pivoting, triangular systems, Cholesky. A column a round (Golub & Van Loan, chapters 3 and 4)."""

from __future__ import annotations

from adapters.onnx.kernels import number
from adapters.onnx.loops import Step, loop
from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.matrices.parts import (
    REAL,
    column,
    diagonal_of,
    flipped,
    identity,
    outer,
    places,
    row,
    to_last,
    triangle,
)
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.ops.manipulation import cut, expand, unsqueeze
from converter.dims import Dim, minimum
from converter.ir import DType, TensorSpec
from converter.ops._rules import broadcast_dims


def eliminated(g: Lowering, x: Tensor, steps: Dim) -> tuple[Tensor, Tensor]:
    """LU in place of [..., m, n] over the first `steps` columns, as LAPACK's getrf leaves it.

    Gives the multipliers below the diagonal with U on and above it, and the row that each step exchanged with its own,
    int64 [..., steps]. Columns past `steps` are carried along.
    """
    rows, columns = places(g, x.shape[-2]), places(g, x.shape[-1])
    zero, one = number(g, 0, x), number(g, 1, x)

    def body(index: Tensor, states: list[Tensor]) -> Step:
        a = states[0]
        size = apply(g, "Abs", column(g, a, index))
        open_rows = select(g, apply(g, "Less", rows, index, dtype=DType.BOOL), number(g, -1, x), size)
        best = g.node("ArgMax", open_rows, spec=TensorSpec(DType.INT64, (*x.shape[:-2], 1)), axis=-1, keepdims=1)
        top = row(g, a, index)
        chosen = g.node("GatherND", a, best, spec=top.spec, batch_dims=x.rank - 2)
        moved = unsqueeze(g, apply(g, "Equal", rows, best, dtype=DType.BOOL), [-1])
        own = unsqueeze(g, apply(g, "Equal", rows, index, dtype=DType.BOOL), [-1])
        a = select(g, own, unsqueeze(g, chosen, [-2]), select(g, moved, unsqueeze(g, top, [-2]), a))
        pivot = unsqueeze(g, column(g, chosen, index), [-1])
        # Below a pivot of 0 there is nothing but 0.
        divisor = select(g, apply(g, "Equal", pivot, zero, dtype=DType.BOOL), one, pivot)
        below = apply(g, "Greater", rows, index, dtype=DType.BOOL)
        factors = select(g, below, apply(g, "Div", column(g, a, index), divisor), zero)
        right = select(g, apply(g, "Greater", columns, index, dtype=DType.BOOL), chosen, zero)
        here = apply(g, "And", unsqueeze(g, below, [-1]), apply(g, "Equal", columns, index, dtype=DType.BOOL))
        rest = apply(g, "Sub", a, outer(g, factors, right))
        return Step([select(g, here, unsqueeze(g, factors, [-1]), rest)], [g.node(
            "Squeeze", best, g.constant([-1]), spec=TensorSpec(DType.INT64, x.shape[:-2]))])

    (packed,), (pivots,) = loop(g, steps, [x], body)
    return packed, to_last(g, Tensor(pivots.name, TensorSpec(DType.INT64, (steps, *x.shape[:-2]))))


def permutation(g: Lowering, pivots: Tensor, rows: Dim) -> Tensor:
    """The rows' order after the exchanges: [..., rows], row i of P·x being row order[i] of x."""
    batch, steps = pivots.shape[:-1], pivots.shape[-1]
    count = places(g, rows)

    def body(index: Tensor, states: list[Tensor]) -> Step:
        order = states[0]
        best = unsqueeze(g, column(g, pivots, index), [-1])
        first = unsqueeze(g, column(g, order, index), [-1])
        other = g.node("GatherElements", order, best, spec=TensorSpec(DType.INT64, (*batch, 1)), axis=len(batch))
        swapped = select(g, apply(g, "Equal", count, best, dtype=DType.BOOL), first, order)
        return Step([select(g, apply(g, "Equal", count, index, dtype=DType.BOOL), other, swapped)])

    (order,), _ = loop(g, steps, [expand(g, count, (*batch, rows))], body)
    return order


def determinant_parts(g: Lowering, x: Tensor) -> tuple[Tensor, Tensor]:
    """(±1 by the parity of the exchanges [...], the pivots [..., n])."""
    packed, pivots = eliminated(g, x, x.shape[-1])
    stayed = apply(g, "Equal", pivots, places(g, x.shape[-1]), dtype=DType.BOOL)
    parity = select(g, stayed, number(g, 1, x), number(g, -1, x))
    sign = g.node("ReduceProd", parity, g.constant([parity.rank - 1]), spec=TensorSpec(REAL, x.shape[:-2]), keepdims=0)
    return sign, diagonal_of(g, packed)


def substituted(g: Lowering, a: Tensor, b: Tensor, *, upper: bool = False, unit: bool = False) -> Tensor:
    """x of a · x = b for triangular a [..., n, n] and b [..., n, k]; what stands in a's other triangle is not read."""
    n = a.shape[-1]
    batch = broadcast_dims(a.shape[:-2], b.shape[:-2])
    diagonal = None if unit else diagonal_of(g, a)
    strict = triangle(g, a, upper, 1 if upper else -1)
    last = apply(g, "Sub", g.scalar_size(n), g.constant(1)) if upper else None

    def body(index: Tensor, states: list[Tensor]) -> Step:
        place = apply(g, "Sub", last, index) if last is not None else index
        found = row(g, states[0], place)
        if diagonal is not None:
            found = apply(g, "Div", found, unsqueeze(g, column(g, diagonal, place), [-1]))
        return Step([apply(g, "Sub", states[0], outer(g, column(g, strict, place), found))], [found])

    _, (rows,) = loop(g, n, [expand(g, b, (*batch, n, b.shape[-1]))], body)
    if upper:
        rows = cut(g, rows, [0], [-1], [-(2**63) + 1], [-1], spec=rows.spec)
    rank = rows.rank
    return g.transpose(rows, (*range(1, rank - 1), 0, rank - 1))


def solved(g: Lowering, a: Tensor, b: Tensor) -> Tensor:
    """x of a · x = b: elimination of both side by side, then substitution."""
    n, k = a.shape[-1], b.shape[-1]
    batch = broadcast_dims(a.shape[:-2], b.shape[:-2])
    both = TensorSpec(REAL, (*batch, n, n + k))
    joined = g.node("Concat", expand(g, a, (*batch, n, n)), expand(g, b, (*batch, n, k)), spec=both, axis=-1)
    packed, _ = eliminated(g, joined, n)
    left = cut(g, packed, [packed.rank - 1], [0], [n], spec=TensorSpec(REAL, (*batch, n, n)))
    right = cut(g, packed, [packed.rank - 1], [n], [n + k], spec=TensorSpec(REAL, (*batch, n, k)))
    return substituted(g, left, right, upper=True)


def inverse(g: Lowering, x: Tensor) -> Tensor:
    return solved(g, x, identity(g, x.shape[-1]))


def lower_factor(g: Lowering, x: Tensor) -> Tensor:
    """L of x = L · Lᵀ from the lower triangle of x [..., n, n]; NaN where x is not positive definite."""
    rows = places(g, x.shape[-1])

    def body(index: Tensor, states: list[Tensor]) -> Step:
        a = states[0]
        whole = column(g, a, index)
        root = unsqueeze(g, apply(g, "Sqrt", column(g, whole, index)), [-1])
        factor = select(g, apply(g, "Less", rows, index, dtype=DType.BOOL), number(g, 0, x), apply(g, "Div", whole, root))
        return Step([apply(g, "Sub", a, outer(g, factor, factor))], [factor])

    _, (columns,) = loop(g, x.shape[-1], [x], body)
    return to_last(g, columns)


def unpacked(g: Lowering, packed: Tensor) -> tuple[Tensor, Tensor]:
    """(L with ones on its diagonal [..., m, k], U [..., k, n]) of what `eliminated` gives, k = min(m, n)."""
    *batch, m, n = packed.shape
    k = minimum(m, n)
    tall = cut(g, packed, [packed.rank - 1], [0], [k], spec=TensorSpec(REAL, (*batch, m, k)))
    wide = cut(g, packed, [packed.rank - 2], [0], [k], spec=TensorSpec(REAL, (*batch, k, n)))
    lower = apply(g, "Add", triangle(g, tall, False, -1), identity(g, m, k))
    return lower, triangle(g, wide, True)


__all__ = ["determinant_parts", "eliminated", "flipped", "inverse", "lower_factor", "permutation", "solved", "substituted", "unpacked"]
