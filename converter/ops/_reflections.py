"""QR by Householder's reflections as formulas, with the signs and the packing of LAPACK's geqrf (Golub & Van Loan, algorithm 5.2.1)."""

from __future__ import annotations

from converter.dims import Dim, minimum
from converter.formulas import Space, Term, dtype_of
from converter.ops._elimination import (
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


def _mirrored(f: Space, x: Term, factor: Term, vector: Term) -> Term:
    """(1 - factor · vector · vectorᴴ) · x; factor: [..., 1], vector: [..., m], x: [..., m, n]."""
    return x - upright(f, factor * vector) * f.matmul(lying(f, conjugate(f, vector)), x)


def reflected(f: Space, x: Term) -> tuple[Term, Term]:
    """(packed, τ) of x [..., m, n]: R on and above the diagonal, the vectors v below it, whose ones are not written, and the factors
    τ [..., k] of H = 1 - τ v vᴴ, k = min(m, n). R = … H₁ᴴ · H₀ᴴ · x. A column that is 0 below a real diagonal has τ = 0.
    """
    *batch, m, n = x.shape
    k, dtype = minimum(m, n), dtype_of(x)

    def step(f: Space, index: Term, a: Term, taus: Term, rows: Term, columns: Term, turns: Term) -> tuple[Term, ...]:
        entire = f.take(a, index, axis=-1)
        alpha = upright(f, f.take(entire, index, axis=-1))
        tail = f.where(rows > index, entire, 0.0)
        # Over the largest, squares neither overflow nor vanish.
        most = at_least_one(f, f.max(f.maximum(magnitude(f, tail), magnitude(f, alpha)), axis=(-1,), keepdims=True))
        rest = f.sum(squared(f, scaled(f, tail, most, "divide")), axis=(-1,), keepdims=True)
        norm = f.sqrt(squared(f, scaled(f, alpha, most, "divide")) + rest)
        beta = f.astype(most * f.where(real_part(f, alpha) < 0.0, norm, -norm), dtype=dtype)
        done = f.equal(rest + f.abs(f.imag(alpha)) if is_complex(x) else rest, 0.0)
        gap = alpha - beta
        tau = f.where(done, 0.0, -gap / f.where(done, 1.0, beta))
        tail = tail / f.where(done, 1.0, gap)
        vector = f.where(f.equal(rows, index), 1.0, tail)
        after = _mirrored(f, a, conjugate(f, tau), vector)
        here = f.where(rows > index, tail, f.where(f.equal(rows, index), f.where(done, alpha, beta), entire))
        a = f.where(columns > index, after, f.where(f.equal(columns, index), upright(f, here), a))
        return a, f.where(f.equal(turns, index), tau, taus)

    taus = f.full(shape=(*batch, k), fill_value=0.0, dtype=dtype)
    packed, taus = repeat(f, k, step, (x, taus), places(f, m), places(f, n), places(f, k))
    return packed, taus


def orthogonal(f: Space, packed: Term, taus: Term, columns: Dim) -> Term:
    """The first columns of H₀ · H₁ · …: [..., m, columns]. The last reflection is applied first."""
    *batch, m, _ = packed.shape
    count = taus.shape[-1]

    def step(f: Space, index: Term, q: Term, packed: Term, taus: Term, rows: Term, last: Term) -> tuple[Term, ...]:
        place = last - index
        vector = f.where(rows > place, f.take(packed, place, axis=-1), f.astype(f.equal(rows, place), dtype=dtype_of(q)))
        return (_mirrored(f, q, upright(f, f.take(taus, place, axis=-1)), vector),)

    start = identity(f, m, columns, batch, dtype_of(packed))
    return repeat(f, count, step, (start,), packed, taus, places(f, m), number(f, count - 1))[0]


def factored(f: Space, x: Term, complete: bool) -> tuple[Term, Term]:
    """(q [..., m, k], r [..., k, n])."""
    *_, m, n = x.shape
    k = m if complete else minimum(m, n)
    packed, taus = reflected(f, x)
    return orthogonal(f, packed, taus, k), f.triu(first(f, packed, k, -2))
