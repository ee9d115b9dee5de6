"""Factorizations of matrices in LAPACK's packed forms and what is made of them; eigenvalues of general matrices; the exponential."""

from __future__ import annotations

import numpy as np

from converter.dims import minimum
from converter.facts import Facts
from converter.formulas import Space, Term, dtype_of
from converter.ir import Array, DType, TensorSpec
from converter.ops import _elimination, _reflections
from converter.ops._elimination import first, identity, in_double, lying, places, repeat, scaled, upright
from converter.ops._rules import require, require_size, same_dtype
from converter.ops.complex_numbers import COMPLEX_OF
from converter.ops.linalg import matrix_rule, squares_rule
from converter.opset import op


def _in_double(x: Array) -> Array:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


# LU ------------------------------------------------------------------------------------------------------------------------


def _lu_factor(x: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x)
    return x, TensorSpec(DType.INT32, (*x.shape[:-2], minimum(*x.shape[-2:])))


@in_double
def _eliminated(f: Space, x: Term) -> tuple[Term, Term]:
    a, pivots = _elimination.eliminated(f, x, minimum(*x.shape[-2:]))
    return _elimination.packed(f, a), f.astype(pivots + 1, dtype=DType.INT32)


@op(infer=_lu_factor, outputs=("lu", "pivots"), facts=Facts(matrix="factored"), formula=_eliminated)
def lu_factor(x: Array) -> tuple[Array, Array]:
    """Gaussian elimination with partial pivoting, as LAPACK's getrf packs it: torch.linalg.lu_factor.

    x: [..., m, n]; lu: [..., m, n], the multipliers below the diagonal and U on and above it; pivots: int32 [..., min(m, n)],
    the row, counted from 1, that each step exchanged with its own: the first of those with the largest |re| + |im|.
    """
    a = _in_double(x)
    *batch, m, n = a.shape
    pivots = np.empty((*batch, min(m, n)), np.int32)
    for j in range(min(m, n)):
        rest = a[..., j:, j]
        best = np.argmax(np.abs(rest.real) + np.abs(rest.imag), axis=-1) + j
        pivots[..., j] = best + 1
        top, place = a[..., j:j + 1, :].copy(), best[..., None, None]
        a[..., j:j + 1, :] = np.take_along_axis(a, place, -2)
        np.put_along_axis(a, place, np.where(place == j, a[..., j:j + 1, :], top), -2)
        pivot = a[..., j:j + 1, j]
        a[..., j + 1:, j] /= np.where(pivot == 0, 1, pivot)  # below a pivot of 0 there is nothing but 0
        a[..., j + 1:, j + 1:] -= a[..., j + 1:, j, None] * a[..., None, j, j + 1:]
    return a.astype(x.dtype), pivots


def _lu_unpack(lu: TensorSpec, pivots: TensorSpec) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    matrix_rule(lu)
    require(pivots.dtype is DType.INT32, "wrong dtype of the pivots", expected="int32", received=pivots)
    *batch, m, n = lu.shape
    k = minimum(m, n)
    return TensorSpec(lu.dtype, (*batch, m, m)), TensorSpec(lu.dtype, (*batch, m, k)), TensorSpec(lu.dtype, (*batch, k, n))


@op(infer=_lu_unpack, outputs=("p", "l", "u"))
def lu_unpack(f: Space, lu: Term, pivots: Term) -> tuple[Term, Term, Term]:
    """p, l and u with x = p · l · u, from what `lu_factor` gives of x.

    lu: [..., m, n]; p: [..., m, m], a permutation; l: [..., m, k] with ones on its diagonal; u: [..., k, n]; k = min(m, n).
    """
    *batch, m, n = lu.shape
    k, dtype = minimum(m, n), dtype_of(lu)
    order = _elimination.permutation(f, f.astype(pivots, dtype=DType.INT64) - 1, m)
    lower = f.tril(first(f, lu, k, -1), k=-1) + identity(f, m, k, batch, dtype)
    p = f.astype(f.equal(upright(f, places(f, m)), lying(f, order)), dtype=dtype)
    return p, lower, f.triu(first(f, lu, k, -2))


# Reflections ---------------------------------------------------------------------------------------------------------------


def _geqrf(x: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x)
    return x, TensorSpec(x.dtype, (*x.shape[:-2], minimum(*x.shape[-2:])))


@op(infer=_geqrf, outputs=("a", "tau"), formula=in_double(_reflections.reflected))
def geqrf(x: Array) -> tuple[Array, Array]:
    """The QR factorization as LAPACK's geqrf packs it: torch.geqrf.

    x: [..., m, n]; a: [..., m, n] with R on and above the diagonal and the reflections' vectors below it, whose ones on the
    diagonal are not written; tau: [..., min(m, n)], their factors.
    """
    packed, tau = np.linalg.qr(x, mode="raw")
    return np.swapaxes(packed, -1, -2), tau


def _householder_product(v: TensorSpec, tau: TensorSpec) -> TensorSpec:
    matrix_rule(v)
    same_dtype(v, tau)
    require(tau.rank == v.rank - 1, "wrong number of axes of the factors", expected=f"{v.rank - 1}", received=tau)
    for own, other in zip(v.shape[:-2], tau.shape[:-1], strict=True):
        require_size(other, own, "an axis of the factors")
    return v


@op(infer=_householder_product)
@in_double
def householder_product(f: Space, v: Term, tau: Term) -> Term:
    """The first n columns of the product of the reflections 1 - tau_j · v_j · v_jᴴ: torch.linalg.householder_product.

    v: [..., m, n], m ≥ n, the vectors in the first k columns below the diagonal, as `geqrf` packs them; tau: [..., k]; k ≤ n.
    """
    return _reflections.orthogonal(f, v, tau, v.shape[-1])


# General matrices ----------------------------------------------------------------------------------------------------------


def _eig(x: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x, square=True)
    dtype = COMPLEX_OF.get(x.dtype, x.dtype)
    return TensorSpec(dtype, x.shape[:-1]), TensorSpec(dtype, x.shape)


@op(infer=_eig, outputs=("eigenvalues", "eigenvectors"))
def eig(x: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors (columns of length 1) of general matrices [..., n, n], both complex.

    Their order and the vectors' phases are left to LAPACK.
    """
    values, vectors = np.linalg.eig(x)
    dtype = COMPLEX_OF.get(DType.of(x.dtype), DType.of(x.dtype)).numpy
    return values.astype(dtype), vectors.astype(dtype)


# Numerator of the Padé approximant of order 13 to eˣ, constant term first, and the largest norm for which it is exact to float64's
# rounding: N. J. Higham, "The scaling and squaring method for the matrix exponential revisited", SIAM J. Matrix Anal. Appl. 26 (2005).
PADE = [64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0, 10559470521600.0,
        670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0]
PADE_NORM = 5.371920351148152
MOST_SQUARINGS = 1100


@op(infer=squares_rule())
@in_double
def matrix_exp(f: Space, x: Term) -> Term:
    """The matrix exponential, the sum of xᵏ / k!, by scaling, Padé's approximant of order 13, and squaring (Higham, 2005).

    x: [..., n, n].
    """
    n = x.shape[-1]
    norm = f.vector_norm(f.vector_norm(x, axis=(-2,), ord=1.0), axis=(-1,), ord=np.inf)
    squarings = f.nan_to_num(f.clip(f.ceil(f.log2(norm / PADE_NORM)), 0.0, float(MOST_SQUARINGS)))
    a = scaled(f, x, upright(f, upright(f, 2.0 ** -squarings)))
    second = f.matmul(a, a)
    fourth = f.matmul(second, second)
    sixth = f.matmul(fourth, second)
    powers = (sixth, fourth, second, identity(f, n, n, (), dtype_of(a)))

    def half(start: int) -> Term:
        """Every second term of the numerator from `start` on."""
        terms = [scaled(f, power, PADE[start - 2 * k]) for k, power in enumerate((*powers[:3], *powers))]
        return f.matmul(sixth, terms[0] + terms[1] + terms[2]) + terms[3] + terms[4] + terms[5] + terms[6]

    odd, even = f.matmul(a, half(13)), half(12)
    result = f.solve(even - odd, even + odd)

    def square(f: Space, index: Term, result: Term, counts: Term) -> tuple[Term]:
        return (f.where(upright(f, upright(f, index < counts)), f.matmul(result, result), result),)

    counts = f.astype(squarings, dtype=DType.INT64)
    most = f.astype(f.vector_norm(squarings, ord=np.inf), dtype=DType.INT64)
    return repeat(f, most, square, (result,), counts)[0]
