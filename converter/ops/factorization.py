"""Factorizations of matrices in LAPACK's packed forms and what is made of them; eigenvalues of general matrices; the exponential."""

from __future__ import annotations

import numpy as np

from converter.dims import minimum
from converter.facts import Facts
from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, require, require_size, same_dtype
from converter.ops.complex_numbers import COMPLEX_OF
from converter.ops.linalg import matrix_rule, squares_rule
from converter.opset import op


def _in_double(x: Array) -> Array:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


# LU ------------------------------------------------------------------------------------------------------------------------


def _lu_factor(x: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x)
    return x, TensorSpec(DType.INT32, (*x.shape[:-2], minimum(*x.shape[-2:])))


@op(infer=_lu_factor, outputs=("lu", "pivots"), facts=Facts(matrix="factored"))
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
def lu_unpack(lu: Array, pivots: Array) -> tuple[Array, Array, Array]:
    """p, l and u with x = p · l · u, from what `lu_factor` gives of x.

    lu: [..., m, n]; p: [..., m, m], a permutation; l: [..., m, k] with ones on its diagonal; u: [..., k, n]; k = min(m, n).
    """
    *batch, m, n = lu.shape
    k = min(m, n)
    order = np.broadcast_to(np.arange(m), (*batch, m)).copy()
    for j in range(pivots.shape[-1]):
        place = pivots[..., j:j + 1].astype(np.int64) - 1
        first = order[..., j:j + 1].copy()
        order[..., j:j + 1] = np.take_along_axis(order, place, -1)
        np.put_along_axis(order, place, np.where(place == j, order[..., j:j + 1], first), -1)
    p = (np.arange(m)[:, None] == order[..., None, :]).astype(lu.dtype)
    lower = np.tril(lu[..., :k], -1) + np.eye(m, k, dtype=lu.dtype)
    return p, lower, np.triu(lu[..., :k, :])


# Reflections ---------------------------------------------------------------------------------------------------------------


def _geqrf(x: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x)
    return x, TensorSpec(x.dtype, (*x.shape[:-2], minimum(*x.shape[-2:])))


@op(infer=_geqrf, outputs=("a", "tau"))
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
def householder_product(v: Array, tau: Array) -> Array:
    """The first n columns of the product of the reflections 1 - tau_j · v_j · v_jᴴ: torch.linalg.householder_product.

    v: [..., m, n], m ≥ n, the vectors in the first k columns below the diagonal, as `geqrf` packs them; tau: [..., k]; k ≤ n.
    """
    *batch, m, n = v.shape
    vectors, factors = _in_double(np.tril(v, -1)), _in_double(tau)
    q = np.broadcast_to(np.eye(m, n, dtype=vectors.dtype), (*batch, m, n)).copy()
    for j in reversed(range(tau.shape[-1])):
        vector = vectors[..., j].copy()
        vector[..., j] = 1
        q -= (factors[..., j, None] * vector)[..., None] * np.matmul(np.conj(vector)[..., None, :], q)
    return q.astype(v.dtype)


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
def matrix_exp(x: Array) -> Array:
    """The matrix exponential, the sum of xᵏ / k!, by scaling, Padé's approximant of order 13, and squaring (Higham, 2005).

    x: [..., n, n].
    """
    if not x.size:
        return x.copy()
    a = _in_double(x)
    norm = np.abs(a).sum(axis=-2).max(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        squarings = np.nan_to_num(np.clip(np.ceil(np.log2(norm / PADE_NORM)), 0, MOST_SQUARINGS)).astype(np.int64)
    a = a * np.ldexp(1.0, -squarings)[..., None, None]
    one = np.eye(x.shape[-1])
    second = a @ a
    fourth = second @ second
    sixth = fourth @ second
    b = PADE
    odd = a @ (sixth @ (b[13] * sixth + b[11] * fourth + b[9] * second) + b[7] * sixth + b[5] * fourth + b[3] * second + b[1] * one)
    even = sixth @ (b[12] * sixth + b[10] * fourth + b[8] * second) + b[6] * sixth + b[4] * fourth + b[2] * second + b[0] * one
    result = np.linalg.solve(even - odd, even + odd) if np.isfinite(a).all() else np.full_like(a, np.nan)
    for step in range(int(squarings.max(initial=0))):
        result = np.where((step < squarings)[..., None, None], result @ result, result)
    return result.astype(x.dtype)
