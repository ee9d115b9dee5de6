"""Eigenvalues and singular values as formulas: Jacobi's rotations, all disjoint pairs of a round at once.

Pairs follow the round-robin order, which meets every pair once a sweep (Golub & Van Loan, section 8.5); singular values are
those of Hestenes's one-sided rotations (section 8.6.3). Rotations stop when a sweep finds nothing left to rotate away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from converter.dims import Dim, maximum, minimum
from converter.formulas import Space, Term, dtype_of
from converter.ir import DType
from converter.ops._elimination import (
    adjoint,
    at_least_one,
    conjugate,
    first,
    identity,
    is_complex,
    lying,
    magnitude,
    number,
    places,
    real_part,
    repeat,
    scaled,
    squared,
    upright,
)
from converter.ops._reflections import orthogonal, reflected

SWEEPS = 40
"""More than any matrix needs: convergence is quadratic, and a thousand columns take about ten sweeps."""
SMALL = 2.0**-32
"""A sweep that finds no more than this to rotate away, relative to the largest or to what it would turn, is the last one: it
leaves the square of that."""
ROUNDING = 2.0**-51
NOTHING = ROUNDING**2

Angles = tuple[Term, Term, Term | None]


def _partners(f: Space, n: Dim) -> tuple[Term, Dim]:
    """Each round's partner of each index, itself for the one left over: int64 [rounds, n], and the rounds of a sweep.

    Around a circle of M places, round r pairs i with r - i modulo M; for even n, the last index stands in its middle.
    """
    even = 1 - n % 2
    rounds = maximum(n - even, 0)
    own, turn, circle, last = places(f, n), upright(f, places(f, rounds)), number(f, maximum(n - even, 1)), number(f, n - 1)
    across = f.remainder(turn - own, circle)
    partner = f.where(f.equal(across, own), f.where(number(f, even) > 0, last, own), across)
    middle = f.remainder(turn * number(f, (rounds + 1) // 2), circle)
    return f.where(f.equal(own - number(f, 1 - even), last), middle, partner), rounds


def _angles(f: Space, own: Term, others: Term, shared: Term, partner: Term) -> Angles:
    """(s, s / (1 + c), e^(-iφ)) [..., n] of the rotations that diagonalize [[own, shared], [shared*, others]], φ being shared's
    angle: the smaller rotations. Of a pair, the one has the sine s and the other its negative, and conjugate phases.
    """
    index, phase = places(f, partner.shape[0]), None
    if is_complex(shared):
        size = f.sqrt(squared(f, shared))
        none = f.equal(size, 0.0)
        phase = f.where(none, 1.0, scaled(f, f.conj(shared), f.where(none, 1.0, size), "divide"))
        shared = size
    gap, double = others - own, shared + shared
    below = f.abs(gap) + f.sqrt(f.square(gap) + f.square(double))
    still = f.equal(double, 0.0) | f.equal(partner, index)
    tangent = f.where(still, 0.0, double / f.where(f.equal(below, 0.0), 1.0, below))
    tangent = f.where((gap > 0.0) | f.equal(gap, 0.0) & (index < partner), tangent, -tangent)
    cosine = f.reciprocal(f.sqrt(f.square(tangent) + 1.0))
    sine = cosine * tangent
    return sine, sine / (cosine + 1.0), phase


def _turned(f: Space, x: Term, partner: Term, angles: Angles, axis: int) -> Term:
    """Rows (-2) or columns (-1) rotated with their partners: c·x - s·y as x - s·(y + s/(1 + c)·x), whose rounding is as small
    as the angle (Rutishauser, 1966)."""
    sine, half, phase = angles
    place = upright if axis == -2 else lying
    other = f.take(x, partner, axis=axis)
    if phase is not None:
        other = place(f, f.conj(phase) if axis == -2 else phase) * other
    return x - scaled(f, other + scaled(f, x, place(f, half)), place(f, sine))


def _brought_down(f: Space, x: Term) -> tuple[Term, Term]:
    """Each matrix over its largest absolute value, and that [..., 1, 1]: squares neither overflow nor vanish."""
    scale = at_least_one(f, f.vector_norm(magnitude(f, x), axis=(-2, -1), keepdims=True, ord=np.inf))
    return scaled(f, x, scale, "divide"), scale


def _in_order(f: Space, x: Term, order: Term) -> Term:
    """The columns of each matrix in its own order [..., n]."""
    return f.take_along_axis(x, f.broadcast_to(lying(f, order), shape=x.shape), axis=-1)


def _swept(f: Space, n: Dim, turn: Callable[..., tuple[Term, ...]], states: tuple[Term, ...]) -> tuple[Term, ...]:
    """States after sweeps of `turn(f, partner, *states)`, which says whether there was something to rotate away and gives new ones."""
    table, rounds = _partners(f, n)

    def sweep(f: Space, index: Term, _: Term, *values: Term) -> tuple[Term, ...]:
        def round_(f: Space, index: Term, found: Term, *values: Term) -> tuple[Term, ...]:
            more, *after = turn(f, f.take(values[-1], index, axis=0), *values[:-1])
            return found | more, *after

        nothing = f.full(shape=(), fill_value=False, dtype=DType.BOOL)
        return index + 1, *repeat(f, rounds, round_, (nothing, *values[:-1]), values[-1])

    going = f.full(shape=(), fill_value=True, dtype=DType.BOOL)
    return tuple(f.while_loop(number(f, 0), going, *states, table, carried=2 + len(states), body=sweep,
                              condition=lambda f, index, going, *values: (going & (index < SWEEPS),)))[2:]


def _diagonal(f: Space, x: Term) -> Term:
    return f.diagonal(x, axis1=-2, axis2=-1)


def hermitian(f: Space, x: Term, upper: bool) -> Term:
    """The Hermitian matrix of one triangle, whose diagonal is real whatever is written beside it."""
    own = places(f, x.shape[-1])
    strict = f.triu(x, k=1) if upper else f.tril(x, k=-1)
    return f.where(f.equal(upright(f, own), own), f.astype(real_part(f, x), dtype=dtype_of(x)), strict + adjoint(f, strict))


def eigen(f: Space, x: Term) -> tuple[Term, Term]:
    """(eigenvalues, ascending [..., n], eigenvectors as columns [..., n, n]) of Hermitian matrices."""
    *batch, _, n = x.shape
    start, scale = _brought_down(f, x)

    def turn(f: Space, partner: Term, a: Term, v: Term) -> tuple[Term, ...]:
        own = real_part(f, _diagonal(f, a))
        # Rounding makes the two halves differ, and both of a pair must turn by one angle. Of row i and its partner's column.
        sides = conjugate(f, _diagonal(f, f.take(a, partner, axis=-2)))
        shared = (sides + conjugate(f, f.take(sides, partner, axis=-1))) * 0.5
        angles = _angles(f, own, f.take(own, partner, axis=-1), shared, partner)
        more = f.any((magnitude(f, shared) > SMALL) & f.not_equal(partner, places(f, partner.shape[0])))
        after = _turned(f, _turned(f, a, partner, angles, -2), partner, angles, -1)
        return more, after, _turned(f, v, partner, angles, -1)

    a, v = _swept(f, n, turn, (start, identity(f, n, n, batch, dtype_of(x))))
    values, order = f.sort(real_part(f, _diagonal(f, a)) * f.squeeze(scale, axis=(-1,)), axis=-1)
    return values, _in_order(f, v, order)


def _orthogonalized(f: Space, x: Term) -> tuple[Term, Term, Term]:
    """(W [..., m, n] with orthogonal columns, V [..., n, n], the lengths of s · W's columns [..., n]), x = s · W · Vᴴ."""
    *batch, _, n = x.shape
    start, scale = _brought_down(f, x)

    def turn(f: Space, partner: Term, w: Term, v: Term) -> tuple[Term, ...]:
        own = f.sum(squared(f, w), axis=(-2,))
        shared = f.sum(conjugate(f, w) * f.take(w, partner, axis=-1), axis=(-2,))
        shared = f.where(f.equal(partner, places(f, partner.shape[0])), 0.0, shared)
        others = f.take(own, partner, axis=-1)
        # Of a column that is nothing beside the largest, the direction is rounding.
        least = f.maximum(f.max(own, axis=(-1,), keepdims=True) * NOTHING, 1e-300)
        more = f.any(magnitude(f, shared) / f.maximum(f.sqrt(own) * f.sqrt(others), least) > SMALL)
        angles = _angles(f, own, others, shared, partner)
        return more, _turned(f, w, partner, angles, -1), _turned(f, v, partner, angles, -1)

    w, v = _swept(f, n, turn, (start, identity(f, n, n, batch, dtype_of(x))))
    lengths = f.sqrt(f.sum(squared(f, w), axis=(-2,)))
    return w, v, lengths * f.squeeze(scale, axis=(-1,))


def singular(f: Space, x: Term, full: bool) -> tuple[Term, Term, Term]:
    """(u, s, vᴴ) of x [..., m, n]: u [..., m, m], s [..., min(m, n)] descending, vᴴ [..., n, n]; cut to min(m, n) unless `full`.

    u is that of the QR factorization of the orthogonal columns: its columns have their directions, and those that belong to
    no singular value complete the basis.
    """
    rows, columns = x.shape[-2:]
    if isinstance(rows, int) and isinstance(columns, int) and rows < columns:
        u, s, vh = singular(f, adjoint(f, x), full)
        return adjoint(f, vh), s, adjoint(f, u)
    *batch, m, n = x.shape
    k = minimum(m, n)
    w, v, lengths = _orthogonalized(f, x)
    s, order = f.sort(lengths, axis=-1, descending=True)
    v = _in_order(f, v, order)
    packed, taus = reflected(f, first(f, _in_order(f, w, order), k, -1))
    q = orthogonal(f, packed, taus, m if full else k)
    sign = f.where(real_part(f, _diagonal(f, packed)) < 0.0, f.full(shape=(), fill_value=-1.0, dtype=DType.FLOAT64), 1.0)
    if full and m != k:
        sign = f.concat(sign, f.full(shape=(*batch, m - k), fill_value=1.0, dtype=DType.FLOAT64), axis=-1)
    return scaled(f, q, lying(f, sign)), first(f, s, k, -1), adjoint(f, v if full else first(f, v, k, -1))
