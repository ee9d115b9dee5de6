"""Eigenvalues and singular values by Jacobi's rotations, all disjoint pairs of a round at once.

Pairs follow the round-robin order, which meets every pair once a sweep (Golub & Van Loan, section 8.5); singular values are
those of Hestenes's one-sided rotations (section 8.6.3). Rotations stop when a sweep finds nothing left to rotate away.
"""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import number
from adapters.onnx.lowering.loops import Step, loop
from adapters.onnx.matrices.parts import (
    REAL,
    Parts,
    added,
    adjoint,
    chosen,
    conjugate,
    diagonal_mask,
    diagonal_of,
    each,
    first_columns,
    first_rows,
    identity,
    lying,
    matrix_product,
    minus,
    over,
    overall,
    places,
    plus,
    row,
    size_of,
    squared,
    taken,
    times,
    triangle,
    upright,
)
from adapters.onnx.matrices.reflections import orthogonal, reflected
from adapters.onnx.ops.elementwise import apply, select
from adapters.onnx.ops.manipulation import expand, unsqueeze
from converter.dims import Dim, minimum
from converter.ir import DType, TensorSpec

SWEEPS = 40
"""More than any matrix needs: convergence is quadratic, and a thousand columns take about ten sweeps."""
SMALL = 2.0**-32
"""A sweep that finds no more than this to rotate away, relative to the largest or to what it would turn, is the last one: it
leaves the square of that."""
ROUNDING = 2.0**-51
NOTHING = ROUNDING**2


def _partners(g: Lowering, n: Dim) -> tuple[Tensor, Dim]:
    """Each round's partner of each index, itself for the one left over: int64 [rounds, n], and the rounds of a sweep.

    Around a circle of M places, round r pairs i with r - i modulo M; for even n, the last index stands in its middle.
    """
    even = 1 - n % 2
    rounds = n - even
    own = places(g, n)
    turn = unsqueeze(g, places(g, rounds), [-1])
    circle = g.scalar_size(rounds)
    last = apply(g, "Sub", g.scalar_size(n), g.constant(1))
    across = apply(g, "Mod", apply(g, "Sub", turn, own), circle)
    alone = select(g, apply(g, "Greater", g.scalar_size(even), g.constant(0), dtype=DType.BOOL), last, own)
    partner = select(g, apply(g, "Equal", across, own, dtype=DType.BOOL), alone, across)
    middle = apply(g, "Mod", apply(g, "Mul", turn, g.scalar_size((rounds + 1) // 2)), circle)
    is_middle = apply(g, "Equal", apply(g, "Sub", own, g.scalar_size(1 - even)), last, dtype=DType.BOOL)
    table = select(g, is_middle, middle, partner)
    return Tensor(table.name, TensorSpec(DType.INT64, (rounds, n))), rounds


def _angles(g: Lowering, own: Tensor, others: Tensor, shared: Parts, partner: Tensor, n: Dim) -> tuple[Tensor, Tensor, Parts]:
    """(s, s / (1 + c), e^(-iφ)) [..., n] of the rotations that diagonalize [[own, shared], [shared*, others]], φ being shared's
    angle: the smaller rotations. Of a pair, the one has the sine s and the other its negative, and conjugate phases.
    """
    zero, one = number(g, 0, own), number(g, 1, own)
    extent = shared[0]
    phase: Parts = ()
    if len(shared) == 2:
        extent = apply(g, "Sqrt", squared(g, shared))
        none = apply(g, "Equal", extent, zero, dtype=DType.BOOL)
        real, imaginary = conjugate(g, over(g, shared, (select(g, none, one, extent),)))
        phase = (select(g, none, one, real), imaginary)
    gap = apply(g, "Sub", others, own)
    double = apply(g, "Add", extent, extent)
    root = apply(g, "Sqrt", apply(g, "Add", apply(g, "Mul", gap, gap), apply(g, "Mul", double, double)))
    first = apply(g, "Less", places(g, n), partner, dtype=DType.BOOL)
    level = apply(g, "Equal", gap, zero, dtype=DType.BOOL)
    up = apply(g, "Or", apply(g, "Greater", gap, zero, dtype=DType.BOOL), apply(g, "And", level, first))
    below = apply(g, "Add", apply(g, "Abs", gap), root)
    still = apply(g, "Or", apply(g, "Equal", double, zero, dtype=DType.BOOL), apply(g, "Equal", partner, places(g, n), dtype=DType.BOOL))
    tangent = select(g, still, zero, apply(g, "Div", double, select(g, apply(g, "Equal", below, zero, dtype=DType.BOOL), one, below)))
    tangent = select(g, up, tangent, apply(g, "Neg", tangent))
    cosine = apply(g, "Reciprocal", apply(g, "Sqrt", apply(g, "Add", one, apply(g, "Mul", tangent, tangent))))
    sine = apply(g, "Mul", cosine, tangent)
    return sine, apply(g, "Div", sine, apply(g, "Add", one, cosine)), phase


def _turned(g: Lowering, x: Parts, partner: Tensor, angles: tuple[Tensor, Tensor, Parts], axis: int) -> Parts:
    """Rows (-2) or columns (-1) rotated with their partners: c·x - s·y as x - s·(y + s/(1 + c)·x), whose rounding is as small
    as the angle (Rutishauser, 1966)."""
    sine, half, phase = angles
    place = upright if axis == -2 else lying
    other = taken(g, x, partner, axis)
    if phase:
        other = times(g, place(g, conjugate(g, phase) if axis == -2 else phase), other)
    return minus(g, x, times(g, place(g, (sine,)), plus(g, other, times(g, place(g, (half,)), x))))


def _scaled(g: Lowering, x: Parts) -> tuple[Parts, Tensor]:
    """Each matrix over its largest absolute value, and that [..., 1, 1]: squares neither overflow nor vanish."""
    most = overall(g, size_of(g, x), "ReduceMax")
    scale = select(g, apply(g, "Greater", most, number(g, 0, most), dtype=DType.BOOL), most, number(g, 1, most))
    return over(g, x, (scale,)), scale


def _flat(g: Lowering, scale: Tensor) -> Tensor:
    """[..., 1, 1] as [..., 1]."""
    return g.node("Squeeze", scale, g.constant([-1]), spec=TensorSpec(REAL, scale.shape[:-1]))


def _sorted(g: Lowering, values: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
    """Values [..., n] in order, and where each stood."""
    specs = [values.spec, TensorSpec(DType.INT64, values.shape)]
    found, order = g.nodes_out("TopK", values, g.size(values.shape[-1]), specs=specs, axis=-1, largest=int(largest), sorted=1)
    return found, order


def _in_order(g: Lowering, x: Parts, order: Tensor) -> Parts:
    """The columns of each matrix in its own order [..., n]."""
    index = expand(g, unsqueeze(g, order, [-2]), x[0].shape)
    return each(lambda part: g.node("GatherElements", part, index, spec=part.spec, axis=part.rank - 1), x)


def hermitian(g: Lowering, x: Parts, upper: bool) -> Parts:
    """The Hermitian matrix of one triangle, whose diagonal is real whatever is written beside it."""
    strict = triangle(g, x, upper, 1 if upper else -1)
    n = x[0].shape[-1]
    diagonal = chosen(g, diagonal_mask(g, n, n), x[:1], 0.0)
    both = plus(g, strict, adjoint(g, strict))
    return (apply(g, "Add", both[0], diagonal[0]), *both[1:])


def eigen(g: Lowering, x: Parts, vectors: bool = True) -> tuple[Tensor, Parts]:
    """(eigenvalues, ascending [..., n], eigenvectors as columns [..., n, n], if wanted) of Hermitian matrices."""
    *batch, _, n = x[0].shape
    width = len(x)
    table, rounds = _partners(g, n)
    start, scale = _scaled(g, x)
    beside = diagonal_mask(g, n, n)
    half_ = number(g, 0.5, scale)

    def turn(index: Tensor, inner: list[Tensor]) -> Step:
        a, v = tuple(inner[:width]), tuple(inner[width:])
        partner = row(g, (table,), index)[0]
        own = diagonal_of(g, a[:1])
        # Rounding makes the two halves differ, and both of a pair must turn by one angle. Of row i and its partner's column.
        sides = diagonal_of(g, taken(g, a, partner, -2))
        sides = conjugate(g, sides)
        mirrored = conjugate(g, taken(g, sides, partner, -1))
        shared = each(lambda a, b: apply(g, "Mul", half_, apply(g, "Add", a, b)), sides, mirrored)
        angles = _angles(g, own[0], taken(g, own, partner, -1)[0], shared, partner, n)
        turned = _turned(g, _turned(g, a, partner, angles, -2), partner, angles, -1)
        return Step([*turned, *(_turned(g, v, partner, angles, -1) if v else ())])

    def sweep(index: Tensor, inner: list[Tensor]) -> Step:
        after, _ = loop(g, rounds, inner, turn)
        left = size_of(g, tuple(select(g, beside, number(g, 0, part), part) for part in inner[:width]))
        most = overall(g, left, "ReduceMax", list(range(left.rank)))
        return Step(after, (), apply(g, "Greater", most, number(g, SMALL, most), dtype=DType.BOOL))

    after, _ = loop(g, SWEEPS, [*start, *(identity(g, n, n, batch, like=x) if vectors else ())], sweep)
    values = apply(g, "Mul", diagonal_of(g, tuple(after[:1]))[0], _flat(g, scale))
    values, order = _sorted(g, values, False)
    return values, _in_order(g, tuple(after[width:]), order) if vectors else ()


def orthogonalized(g: Lowering, x: Parts, right: bool) -> tuple[Parts, Parts, Tensor]:
    """(W [..., m, n] with orthogonal columns, V [..., n, n] where `right`, s [..., 1, 1]) with x = s · W · Vᴴ."""
    *batch, _, n = x[0].shape
    width = len(x)
    table, rounds = _partners(g, n)
    start, scale = _scaled(g, x)
    zero = number(g, 0, scale)

    def turn(index: Tensor, inner: list[Tensor]) -> Step:
        w, v, most = tuple(inner[:width]), tuple(inner[width:-1]), inner[-1]
        partner = row(g, (table,), index)[0]
        own = added(g, squared(g, w), -2)
        alone = apply(g, "Equal", partner, places(g, n), dtype=DType.BOOL)
        products = times(g, conjugate(g, w), taken(g, w, partner, -1))
        shared = each(lambda part: select(g, alone, zero, added(g, part, -2)), products)
        beside = taken(g, (own,), partner, -1)[0]
        angles = _angles(g, own, beside, shared, partner, n)
        sizes = apply(g, "Mul", apply(g, "Sqrt", own), apply(g, "Sqrt", beside))
        # Of a column that is nothing beside the largest, the direction is rounding.
        limit = apply(g, "Mul", number(g, NOTHING, own), added(g, own, -1, "ReduceMax", keep=True))
        share = apply(g, "Div", size_of(g, shared), apply(g, "Max", sizes, apply(g, "Max", limit, number(g, 1e-300, own))))
        found = overall(g, share, "ReduceMax", list(range(share.rank)))
        turned = [part for item in (w, v) if item for part in _turned(g, item, partner, angles, -1)]
        return Step([*turned, apply(g, "Max", most, found)])

    def sweep(index: Tensor, inner: list[Tensor]) -> Step:
        after, _ = loop(g, rounds, [*inner, zero], turn)
        return Step(after[:-1], (), apply(g, "Greater", after[-1], number(g, SMALL, zero), dtype=DType.BOOL))

    after, _ = loop(g, SWEEPS, [*start, *(identity(g, n, n, batch, like=x) if right else ())], sweep)
    return tuple(after[:width]), tuple(after[width:]), scale


def _norms(g: Lowering, w: Parts) -> Tensor:
    return apply(g, "Sqrt", added(g, squared(g, w), -2))


def _wide(x: Parts) -> bool:
    rows, columns = x[0].shape[-2:]
    return isinstance(rows, int) and isinstance(columns, int) and rows < columns


def singular_values(g: Lowering, x: Parts) -> Tensor:
    """[..., min(m, n)], descending."""
    x = adjoint(g, x) if _wide(x) else x
    w, _, scale = orthogonalized(g, x, False)
    values, _ = _sorted(g, apply(g, "Mul", _norms(g, w), _flat(g, scale)), True)
    return first_columns(g, (values,), minimum(*x[0].shape[-2:]))[0]


def singular(g: Lowering, x: Parts, full: bool) -> tuple[Parts, Tensor, Parts]:
    """(u, s, vᴴ) of x [..., m, n]: u [..., m, m], s [..., min(m, n)] descending, vᴴ [..., n, n]; cut to min(m, n) unless `full`.

    u is that of the QR factorization of the orthogonal columns: its columns have their directions, and those that belong to
    no singular value complete the basis.
    """
    if _wide(x):
        u, s, vh = singular(g, adjoint(g, x), full)
        return adjoint(g, vh), s, adjoint(g, u)
    *batch, m, n = x[0].shape
    k = minimum(m, n)
    w, right, scale = orthogonalized(g, x, True)
    values, order = _sorted(g, apply(g, "Mul", _norms(g, w), _flat(g, scale)), True)
    v = _in_order(g, right, order)
    r, vectors, factors = reflected(g, first_columns(g, _in_order(g, w, order), k))
    q = orthogonal(g, vectors, factors, m if full else k)
    diagonal = diagonal_of(g, first_rows(g, r[:1], k))[0]
    turned = apply(g, "Less", diagonal, number(g, 0, diagonal), dtype=DType.BOOL)
    sign = select(g, turned, number(g, -1, diagonal), number(g, 1, diagonal))
    if full and m != k:
        rest = expand(g, number(g, 1, diagonal), (*batch, m - k))
        sign = g.node("Concat", sign, rest, spec=TensorSpec(REAL, (*batch, m)), axis=-1)
    u = times(g, q, lying(g, (sign,)))
    return u, first_columns(g, (values,), k)[0], adjoint(g, v if full else first_columns(g, v, k))


def pseudoinverse(g: Lowering, x: Parts, atol: float, rtol: Tensor) -> Parts:
    """V · s⁻² · (x · V)ᴴ over the singular values above max(atol, rtol · the largest): [..., n, m]."""
    if _wide(x):
        return adjoint(g, pseudoinverse(g, adjoint(g, x), atol, rtol))
    w, right, scale = orthogonalized(g, x, True)
    norms, flat = _norms(g, w), _flat(g, scale)
    values = apply(g, "Mul", norms, flat)
    # More columns than rows have values that are rounding in place of 0.
    least = apply(g, "Max", rtol, number(g, ROUNDING, norms))
    bound = apply(g, "Mul", added(g, values, -1, "ReduceMax", keep=True), least)
    kept = apply(g, "Greater", values, apply(g, "Max", bound, number(g, atol, norms)), dtype=DType.BOOL)
    safe = select(g, kept, apply(g, "Mul", apply(g, "Mul", norms, norms), flat), number(g, 1, norms))
    weights = select(g, kept, apply(g, "Reciprocal", safe), number(g, 0, norms))
    return matrix_product(g, times(g, right, lying(g, (weights,))), adjoint(g, w))
