"""Gaussian elimination as formulas: LU with partial pivoting, triangular systems, Cholesky. A column a round, in place.

G. H. Golub & C. F. Van Loan, "Matrix Computations", 4th edition, chapters 3 and 4. What an implementation in place raises an error
for, such as a singular matrix, gives infinities or NaN here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from converter.dims import Dim
from converter.formulas import Formula, Space, Term, dtype_of
from converter.ir import DType
from converter.ops._rules import broadcast_dims
from converter.ops.complex_numbers import REAL_OF


def is_complex(x: Term) -> bool:
    return dtype_of(x).is_complex


def in_double(formula: Formula) -> Formula:
    """`formula` on float64 or complex128; its results in the dtype of its first operand, or in that of its parts."""

    @wraps(formula)
    def computed(f: Space, *operands: Term, **attributes: object) -> Any:
        dtype = dtype_of(operands[0])
        wide = DType.COMPLEX128 if dtype.is_complex else DType.FLOAT64
        narrow = {wide: dtype, DType.FLOAT64: REAL_OF.get(dtype, dtype)}
        results = formula(f, *(f.astype(item, dtype=wide) if dtype_of(item) is dtype else item for item in operands), **attributes)
        whole = tuple(f.astype(item, dtype=narrow.get(dtype_of(item), dtype_of(item)))
                      for item in (results if isinstance(results, tuple) else (results,)))
        return whole if isinstance(results, tuple) else whole[0]

    return computed


def repeat(f: Space, count: Dim | Term, step: Callable[..., tuple[Term, ...]], states: Sequence[Term], *others: Term) -> tuple[Term, ...]:
    """The states after `count` rounds of `step(f, index, *states, *others)`, which gives new ones; index and count: int64 []."""
    limit = count if hasattr(count, "dtype") else number(f, count)
    return tuple(f.while_loop(number(f, 0), *states, *others, limit, carried=1 + len(states),
                              condition=lambda f, index, *values: (index < values[-1],),
                              body=lambda f, index, *values: (index + 1, *step(f, index, *values[:-1]))))[1:]


def places(f: Space, size: Dim) -> Term:
    """0, 1, … up to a size, int64."""
    return f.arange(start=0, stop=size, step=1, dtype=DType.INT64)


def number(f: Space, value: Dim) -> Term:
    """A size as int64 []."""
    return f.full(shape=(), fill_value=value, dtype=DType.INT64)


def upright(f: Space, x: Term) -> Term:
    """Vectors as columns: [..., n, 1]."""
    return f.expand_dims(x, axis=(-1,))


def lying(f: Space, x: Term) -> Term:
    """Vectors as rows: [..., 1, n]."""
    return f.expand_dims(x, axis=(-2,))


def flipped(f: Space, x: Term) -> Term:
    """The last two axes exchanged."""
    return f.permute_dims(x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def conjugate(f: Space, x: Term) -> Term:
    return f.conj(x) if is_complex(x) else x


def adjoint(f: Space, x: Term) -> Term:
    return conjugate(f, flipped(f, x))


def real_part(f: Space, x: Term) -> Term:
    return f.real(x) if is_complex(x) else x


def scaled(f: Space, x: Term, factor: Term, by: str = "multiply") -> Term:
    """x times, or divided `by`, a real tensor."""
    apply = getattr(f, by)
    return f.complex(apply(f.real(x), factor), apply(f.imag(x), factor)) if is_complex(x) else apply(x, factor)


def squared(f: Space, x: Term) -> Term:
    """|x|²."""
    return f.square(f.real(x)) + f.square(f.imag(x)) if is_complex(x) else f.square(x)


def magnitude(f: Space, x: Term) -> Term:
    """|x|, or |Re x| + |Im x|, by which LAPACK chooses pivots and which is as good a scale."""
    return f.abs(f.real(x)) + f.abs(f.imag(x)) if is_complex(x) else f.abs(x)


def at_least_one(f: Space, x: Term) -> Term:
    """Real numbers from 0 up, and 1 in place of 0 and NaN: what may be divided by."""
    return f.where(x > 0.0, x, 1.0)


def nonzero(f: Space, pivots: Term) -> Term:
    """1 in place of a pivot of 0: below it there is nothing but 0."""
    return f.where(f.equal(pivots, 0.0), 1.0, pivots)


def identity(f: Space, rows: Dim, columns: Dim, batch: Sequence[Dim], dtype: DType) -> Term:
    """The identity matrix, or its first columns, for each matrix of a batch."""
    one = f.astype(f.equal(upright(f, places(f, rows)), places(f, columns)), dtype=dtype)
    return f.broadcast_to(one, shape=(*batch, rows, columns))


def first(f: Space, x: Term, count: Dim, axis: int) -> Term:
    """The first `count` along an axis."""
    return x if x.shape[axis] == count else f.slice(x, axes=(axis,), starts=(0,), stops=(count,))


def eliminated(f: Space, x: Term, steps: Dim) -> tuple[Term, Term]:
    """U on and above the diagonal in place of [..., m, n] over the first `steps` columns, columns past them carried along.

    Below the diagonal stands what is still to be divided by the pivots. Also gives the row that each step exchanged with its own,
    counted from 0, int64 [..., steps]: of those left the first with the largest |re| + |im|, as in LAPACK's getrf.
    """
    *batch, m, n = x.shape

    def step(f: Space, index: Term, a: Term, pivots: Term, rows: Term, columns: Term, turns: Term) -> tuple[Term, ...]:
        open_rows = f.where(rows < index, -1.0, magnitude(f, f.take(a, index, axis=-1)))
        best = f.argmax(open_rows, axis=-1, keepdims=True)
        order = f.where(f.equal(rows, index), best, f.where(f.equal(rows, best), index, rows))
        a = f.take_along_axis(a, f.broadcast_to(upright(f, order), shape=a.shape), axis=-2)
        column, top = f.take(a, index, axis=-1), f.take(a, index, axis=-2)
        factors = column / nonzero(f, upright(f, f.take(column, index, axis=-1)))
        rest = a - upright(f, factors) * lying(f, top)
        return f.where(upright(f, rows > index) & (columns > index), rest, a), f.where(f.equal(turns, index), best, pivots)

    rows, columns, turns = places(f, m), places(f, n), places(f, steps)
    start = f.full(shape=(*batch, steps), fill_value=0, dtype=DType.INT64)
    a, pivots = repeat(f, steps, step, (x, start), rows, columns, turns)
    return a, pivots


def packed(f: Space, a: Term) -> Term:
    """What `eliminated` leaves of [..., m, n] after min(m, n) steps, its columns over their pivots below the diagonal."""
    m, n = a.shape[-2:]
    diagonal = f.diagonal(a, axis1=-2, axis2=-1)
    if m != n:
        diagonal = f.pad(diagonal, pads=((0, 0),) * (a.ndim - 2) + ((0, n - diagonal.shape[-1]),), value=1)
    return f.where(upright(f, places(f, m)) > places(f, n), a / lying(f, nonzero(f, diagonal)), a)


def permutation(f: Space, pivots: Term, rows: Dim) -> Term:
    """The rows' order after exchanges [..., steps], counted from 0: [..., rows], row i of P·x being row order[i] of x."""
    *batch, steps = pivots.shape

    def step(f: Space, index: Term, order: Term, pivots: Term, rows: Term) -> tuple[Term, ...]:
        best = upright(f, f.take(pivots, index, axis=-1))
        swapped = f.where(f.equal(rows, index), best, f.where(f.equal(rows, best), index, rows))
        return (f.take_along_axis(order, swapped, axis=-1),)

    own = places(f, rows)
    return repeat(f, steps, step, (f.broadcast_to(own, shape=(*batch, rows)),), pivots, own)[0]


def determinant_parts(f: Space, x: Term) -> tuple[Term, Term]:
    """(±1 by the parity of the exchanges [...], float64; the pivots [..., n])."""
    n = x.shape[-1]
    a, pivots = eliminated(f, x, n)
    parity = f.where(f.equal(pivots, places(f, n)), f.full(shape=(), fill_value=1.0, dtype=DType.FLOAT64), -1.0)
    return f.prod(parity, axis=(-1,)), f.diagonal(a, axis1=-2, axis2=-1)


def substituted(f: Space, a: Term, b: Term, upper: bool = False, unit: bool = False) -> Term:
    """x of a · x = b for triangular a [..., n, n] and b [..., n, k]; what stands in a's other triangle is not read."""
    n, k = b.shape[-2:]

    def step(f: Space, index: Term, x: Term, a: Term, rows: Term, last: Term) -> tuple[Term, ...]:
        place = last - index if upper else index
        column, found = f.take(a, place, axis=-1), f.take(x, place, axis=-2)
        if not unit:
            found = found / upright(f, f.take(column, place, axis=-1))
        open_rows = upright(f, rows < place if upper else rows > place)
        return (f.where(open_rows, x - upright(f, column) * lying(f, found), x),)

    whole = f.broadcast_to(b, shape=(*broadcast_dims(a.shape[:-2], b.shape[:-2]), n, k))
    x, = repeat(f, n, step, (whole,), a, places(f, n), number(f, n - 1))
    return x if unit else x / upright(f, f.diagonal(a, axis1=-2, axis2=-1))


def solved(f: Space, a: Term, b: Term) -> Term:
    """x of a · x = b: elimination of both side by side, then substitution."""
    n, k = b.shape[-2:]
    batch = broadcast_dims(a.shape[:-2], b.shape[:-2])
    joined = f.concat(f.broadcast_to(a, shape=(*batch, n, n)), f.broadcast_to(b, shape=(*batch, n, k)), axis=-1)
    a, _ = eliminated(f, joined, n)
    return substituted(f, first(f, a, n, -1), f.slice(a, axes=(-1,), starts=(n,), stops=(n + k,)), upper=True)


def lower_factor(f: Space, x: Term) -> Term:
    """L of x = L · Lᴴ from the lower triangle of x [..., n, n]; NaN where x is not positive definite."""
    n = x.shape[-1]

    def step(f: Space, index: Term, a: Term, own: Term) -> tuple[Term, ...]:
        entire = f.take(a, index, axis=-1)
        factor = scaled(f, entire, f.sqrt(upright(f, real_part(f, f.take(entire, index, axis=-1)))), "divide")
        factor = f.where(own > index, factor, 0.0)
        return (a - upright(f, factor) * lying(f, conjugate(f, factor)),)

    own = places(f, n)
    a, = repeat(f, n, step, (x,), own)
    # Each column as it was when its turn came; the diagonal is real, whatever is written beside it.
    roots = lying(f, f.sqrt(real_part(f, f.diagonal(a, axis1=-2, axis2=-1))))
    diagonal = f.where(f.equal(upright(f, own), own), f.astype(roots, dtype=dtype_of(a)), 0.0)
    return f.tril(scaled(f, a, roots, "divide"), k=-1) + diagonal
