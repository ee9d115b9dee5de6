"""Gaussian elimination: LU with partial pivoting, triangular systems, Cholesky. A column a round (Golub & Van Loan, chapters 3 and 4)."""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import number
from adapters.onnx.lowering.loops import Step, loop
from adapters.onnx.matrices.parts import (
    REAL,
    Parts,
    chosen,
    column,
    conjugate,
    diagonal_of,
    each,
    first_columns,
    first_rows,
    identity,
    lying,
    minus,
    outer,
    over,
    places,
    plus,
    row,
    size_of,
    to_last,
    triangle,
    upright,
)
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.ops.manipulation import cut, expand, unsqueeze
from converter.dims import Dim, minimum
from converter.ir import DType, TensorSpec
from converter.ops._rules import broadcast_dims


def eliminated(g: Lowering, x: Parts, steps: Dim) -> tuple[Parts, Tensor]:
    """LU in place of [..., m, n] over the first `steps` columns, as LAPACK's getrf leaves it.

    Gives the multipliers below the diagonal with U on and above it, and the row that each step exchanged with its own,
    int64 [..., steps]. Columns past `steps` are carried along.
    """
    *batch, m, n = x[0].shape
    rows, columns = places(g, m), places(g, n)

    def body(index: Tensor, states: list[Tensor]) -> Step:
        a = tuple(states)
        done = apply(g, "Less", rows, index, dtype=DType.BOOL)
        open_rows = select(g, done, number(g, -1, x[0]), size_of(g, column(g, a, index)))
        best = g.node("ArgMax", open_rows, spec=TensorSpec(DType.INT64, (*batch, 1)), axis=-1, keepdims=1)
        if g.may_be_empty(batch):
            # Of nothing, ONNX Runtime gives ArgMax the shape of what it searches.
            best = g.node("Reshape", best, g.sizes(best.shape), spec=best.spec, allowzero=1)
        top = row(g, a, index)
        found = each(lambda part: g.node("GatherND", part, best, spec=TensorSpec(REAL, (*batch, n)), batch_dims=len(batch)), a)
        moved = unsqueeze(g, apply(g, "Equal", rows, best, dtype=DType.BOOL), [-1])
        own = unsqueeze(g, apply(g, "Equal", rows, index, dtype=DType.BOOL), [-1])
        a = chosen(g, own, lying(g, found), chosen(g, moved, lying(g, top), a))
        pivot = upright(g, column(g, found, index))
        # Below a pivot of 0 there is nothing but 0.
        nothing = apply(g, "Equal", size_of(g, pivot), number(g, 0, x[0]), dtype=DType.BOOL)
        divisor = tuple(select(g, nothing, number(g, float(place == 0), part), part) for place, part in enumerate(pivot))
        below = apply(g, "Greater", rows, index, dtype=DType.BOOL)
        factors = chosen(g, below, over(g, column(g, a, index), divisor), 0.0)
        right = chosen(g, apply(g, "Greater", columns, index, dtype=DType.BOOL), found, 0.0)
        here = apply(g, "And", unsqueeze(g, below, [-1]), apply(g, "Equal", columns, index, dtype=DType.BOOL))
        after = chosen(g, here, upright(g, factors), minus(g, a, outer(g, factors, right)))
        return Step(after, [g.node("Squeeze", best, g.constant([-1]), spec=TensorSpec(DType.INT64, tuple(batch)))])

    packed, (pivots,) = loop(g, steps, x, body)
    return tuple(packed), to_last(g, (Tensor(pivots.name, TensorSpec(DType.INT64, (steps, *batch))),))[0]


def permutation(g: Lowering, pivots: Tensor, rows: Dim) -> Tensor:
    """The rows' order after the exchanges: [..., rows], row i of P·x being row order[i] of x."""
    batch, steps = pivots.shape[:-1], pivots.shape[-1]
    count = places(g, rows)

    def body(index: Tensor, states: list[Tensor]) -> Step:
        order = states[0]
        best = unsqueeze(g, column(g, (pivots,), index)[0], [-1])
        first = unsqueeze(g, column(g, (order,), index)[0], [-1])
        other = g.node("GatherElements", order, best, spec=TensorSpec(DType.INT64, (*batch, 1)), axis=len(batch))
        swapped = select(g, apply(g, "Equal", count, best, dtype=DType.BOOL), first, order)
        return Step([select(g, apply(g, "Equal", count, index, dtype=DType.BOOL), other, swapped)])

    (order,), _ = loop(g, steps, [expand(g, count, (*batch, rows))], body)
    return order


def determinant_parts(g: Lowering, x: Parts) -> tuple[Tensor, Parts]:
    """(±1 by the parity of the exchanges [...], the pivots [..., n])."""
    n = x[0].shape[-1]
    packed, pivots = eliminated(g, x, n)
    stayed = apply(g, "Equal", pivots, places(g, n), dtype=DType.BOOL)
    parity = select(g, stayed, number(g, 1, x[0]), number(g, -1, x[0]))
    sign = g.node("ReduceProd", parity, g.constant([parity.rank - 1]), spec=TensorSpec(REAL, x[0].shape[:-2]), keepdims=0)
    return sign, diagonal_of(g, packed)


def substituted(g: Lowering, a: Parts, b: Parts, *, upper: bool = False, unit: bool = False) -> Parts:
    """x of a · x = b for triangular a [..., n, n] and b [..., n, k]; what stands in a's other triangle is not read."""
    n, k = a[0].shape[-1], b[0].shape[-1]
    batch = broadcast_dims(a[0].shape[:-2], b[0].shape[:-2])
    diagonal = None if unit else diagonal_of(g, a)
    strict = triangle(g, a, upper, 1 if upper else -1)
    last = apply(g, "Sub", g.scalar_size(n), g.constant(1)) if upper else None

    def body(index: Tensor, states: list[Tensor]) -> Step:
        place = apply(g, "Sub", last, index) if last is not None else index
        rest = tuple(states)
        found = row(g, rest, place)
        if diagonal is not None:
            found = over(g, found, upright(g, column(g, diagonal, place)))
        return Step(minus(g, rest, outer(g, column(g, strict, place), found)), found)

    _, rows = loop(g, n, each(lambda part: expand(g, part, (*batch, n, k)), b), body)
    if upper:
        rows = [cut(g, part, [0], [-1], [-(2**63) + 1], [-1], spec=part.spec) for part in rows]
    rank = rows[0].rank
    return tuple(g.transpose(part, (*range(1, rank - 1), 0, rank - 1)) for part in rows)


def solved(g: Lowering, a: Parts, b: Parts) -> Parts:
    """x of a · x = b: elimination of both side by side, then substitution."""
    n, k = a[0].shape[-1], b[0].shape[-1]
    batch = broadcast_dims(a[0].shape[:-2], b[0].shape[:-2])
    both = TensorSpec(REAL, (*batch, n, n + k))

    def beside(left: Tensor, right: Tensor) -> Tensor:
        return g.node("Concat", expand(g, left, (*batch, n, n)), expand(g, right, (*batch, n, k)), spec=both, axis=-1)

    joined = each(beside, a, b)
    packed, _ = eliminated(g, joined, n)
    rest = TensorSpec(REAL, (*batch, n, k))
    right = each(lambda part: cut(g, part, [part.rank - 1], [n], [n + k], spec=rest), packed)
    return substituted(g, first_columns(g, packed, n), right, upper=True)


def inverse(g: Lowering, x: Parts) -> Parts:
    return solved(g, x, identity(g, x[0].shape[-1], like=x))


def lower_factor(g: Lowering, x: Parts) -> Parts:
    """L of x = L · Lᴴ from the lower triangle of x [..., n, n]; NaN where x is not positive definite."""
    n = x[0].shape[-1]
    rows = places(g, n)

    def body(index: Tensor, states: list[Tensor]) -> Step:
        a = tuple(states)
        entire = column(g, a, index)
        # The diagonal is real, whatever is written beside it.
        root = unsqueeze(g, apply(g, "Sqrt", column(g, entire[:1], index)[0]), [-1])
        factor = chosen(g, apply(g, "GreaterOrEqual", rows, index, dtype=DType.BOOL), over(g, entire, (root,)), 0.0)
        if len(factor) == 2:
            here = apply(g, "Equal", rows, index, dtype=DType.BOOL)
            factor = (factor[0], select(g, here, number(g, 0, root), factor[1]))
        return Step(minus(g, a, outer(g, factor, conjugate(g, factor))), factor)

    _, columns = loop(g, n, x, body)
    return to_last(g, tuple(columns))


def unpacked(g: Lowering, packed: Parts) -> tuple[Parts, Parts]:
    """(L with ones on its diagonal [..., m, k], U [..., k, n]) of what `eliminated` gives, k = min(m, n)."""
    *_, m, n = packed[0].shape
    k = minimum(m, n)
    strict = triangle(g, first_columns(g, packed, k), False, -1)
    return plus(g, strict, identity(g, m, k, like=packed)), triangle(g, first_rows(g, packed, k), True)


def permutation_matrix(g: Lowering, order: Tensor) -> Tensor:
    """P [..., m, m] of x = P · L · U, from `permutation`: column i is 1 at row order[i]."""
    own = unsqueeze(g, places(g, order.shape[-1]), [-1])
    return g.cast(apply(g, "Equal", own, unsqueeze(g, order, [-2]), dtype=DType.BOOL), REAL)

