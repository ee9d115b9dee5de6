"""QR by Householder's reflections, with the signs of LAPACK's geqrf (Golub & Van Loan, algorithm 5.2.1; LAPACK's larfg)."""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import number
from adapters.onnx.lowering.loops import Step, loop
from adapters.onnx.matrices.parts import (
    REAL,
    Parts,
    added,
    chosen,
    column,
    conjugate,
    each,
    first_rows,
    identity,
    minus,
    outer,
    over,
    places,
    size_of,
    squared,
    times,
    triangle,
    upright,
)
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.ops.manipulation import unsqueeze
from converter.dims import Dim, minimum
from converter.ir import DType, TensorSpec


def _product(g: Lowering, vector: Parts, x: Parts) -> Parts:
    """vᴴ · x: [..., n]."""
    return each(lambda part: added(g, part, -2), times(g, upright(g, conjugate(g, vector)), x))


def reflected(g: Lowering, x: Parts) -> tuple[Parts, Parts, Parts]:
    """The reflections that make x [..., m, n] an upper triangle.

    Gives x with R on and above the diagonal, the vectors v [k, ..., m] (v_j = 1, 0 above), and the factors τ [k, ...] of
    H = 1 - τ v vᴴ, k = min(m, n). R = … H₁ᴴ · H₀ᴴ · x. A column that is 0 below a real diagonal has τ = 0.
    """
    *batch, m, n = x[0].shape
    rows, real = places(g, m), x[0]
    zero, one = number(g, 0, real), number(g, 1, real)

    def body(index: Tensor, states: list[Tensor]) -> Step:
        a = tuple(states)
        entire = column(g, a, index)
        alpha = upright(g, column(g, entire, index))
        tail = chosen(g, apply(g, "Greater", rows, index, dtype=DType.BOOL), entire, 0.0)
        # Over the largest, squares neither overflow nor vanish.
        most = added(g, apply(g, "Max", size_of(g, tail), size_of(g, alpha)), -1, "ReduceMax", keep=True)
        scale = (select(g, apply(g, "Greater", most, zero, dtype=DType.BOOL), most, one),)
        rest = added(g, squared(g, over(g, tail, scale)), -1, keep=True)
        norm = apply(g, "Sqrt", apply(g, "Add", squared(g, over(g, alpha, scale)), rest))
        beta = apply(g, "Mul", scale[0], select(g, apply(g, "Less", alpha[0], zero, dtype=DType.BOOL), norm, apply(g, "Neg", norm)))
        beside = rest if len(x) == 1 else apply(g, "Add", rest, apply(g, "Abs", alpha[1]))
        done = apply(g, "Equal", beside, zero, dtype=DType.BOOL)
        gap = (apply(g, "Sub", alpha[0], beta), *alpha[1:])
        below = select(g, done, one, beta)
        tau = chosen(g, done, tuple(zero for _ in x), over(g, each(lambda part: apply(g, "Neg", part), gap), (below,)))
        vector = over(g, tail, chosen(g, apply(g, "Not", done), gap, 1.0))
        here = apply(g, "Equal", rows, index, dtype=DType.BOOL)
        vector = tuple(select(g, here, one if place == 0 else zero, part) for place, part in enumerate(vector))
        turn = times(g, conjugate(g, tau), vector)
        after = minus(g, a, outer(g, turn, _product(g, vector, a)))
        flat = TensorSpec(REAL, tuple(batch))
        return Step(after, [*vector, *(g.node("Squeeze", part, g.constant([-1]), spec=flat) for part in tau)])

    r, collected = loop(g, minimum(m, n), x, body)
    return tuple(r), tuple(collected[:len(x)]), tuple(collected[len(x):])


def orthogonal(g: Lowering, vectors: Parts, factors: Parts, columns: Dim) -> Parts:
    """The first columns of H₀ · H₁ · …: [..., m, columns]. The last reflection is applied first."""
    count, *batch, m = vectors[0].shape
    last = apply(g, "Sub", g.scalar_size(count), g.constant(1))

    def at(values: Parts, place: Tensor) -> Parts:
        return each(lambda part: g.node("Gather", part, place, spec=TensorSpec(REAL, part.shape[1:]), axis=0), values)

    def body(index: Tensor, states: list[Tensor]) -> Step:
        place = apply(g, "Sub", last, index)
        vector, q = at(vectors, place), tuple(states)
        tau = each(lambda part: unsqueeze(g, part, [-1]), at(factors, place))
        return Step(minus(g, q, outer(g, times(g, tau, vector), _product(g, vector, q))))

    q, _ = loop(g, count, identity(g, m, columns, batch, like=vectors), body)
    return tuple(q)


def factored(g: Lowering, x: Parts, complete: bool) -> tuple[Parts, Parts]:
    """(q [..., m, k], r [..., k, n])."""
    *_, m, n = x[0].shape
    k = m if complete else minimum(m, n)
    r, vectors, factors = reflected(g, x)
    return orthogonal(g, vectors, factors, k), triangle(g, first_rows(g, r, k), True)
