"""Linear algebra on matrices: inverses, determinants, factorizations, norms. The Python Array API's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from converter.dims import Dim, minimum
from converter.facts import Facts
from converter.ir import DType, TensorSpec
from converter.ops._rules import Array, axis_of, broadcast_dims, require, require_size, same_dtype
from converter.ops.complex_numbers import REAL_OF
from converter.opset import op

DTYPES = (DType.FLOAT32, DType.FLOAT64, DType.COMPLEX64, DType.COMPLEX128)


def matrix_rule(x: TensorSpec, square: bool = False, what: str = "the input") -> None:
    require(x.dtype in DTYPES, f"wrong dtype of {what}", expected="float32, float64, complex64 or complex128", received=x)
    require(x.rank >= 2, f"wrong number of axes of {what}", expected="[..., rows, columns]", received=x)
    if square:
        require_size(x.shape[-1], x.shape[-2], f"the columns of {what}")


def _real(dtype: DType) -> DType:
    return REAL_OF.get(dtype, dtype)


def squares_rule(drop: int = 0) -> Callable[..., TensorSpec]:
    def infer(x: TensorSpec, **attributes: Any) -> TensorSpec:
        matrix_rule(x, square=True)
        return TensorSpec(x.dtype, x.shape[:x.rank - drop])

    return infer


def _adjoint(x: Array) -> Array:
    return np.conj(np.swapaxes(x, -1, -2))


@op(infer=squares_rule(), facts=Facts(matrix="inverted"))
def inv(x: Array) -> Array:
    """The inverse of each matrix. x: [..., n, n]; a singular matrix is an error."""
    return np.linalg.inv(x)


@op(infer=squares_rule(2))
def det(x: Array) -> Array:
    """The determinant of each matrix. x: [..., n, n]; y: [...]."""
    return np.asarray(np.linalg.det(x))


def _slogdet(x: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x, square=True)
    return TensorSpec(x.dtype, x.shape[:-2]), TensorSpec(_real(x.dtype), x.shape[:-2])


@op(infer=_slogdet, outputs=("sign", "logabsdet"))
def slogdet(x: Array) -> tuple[Array, Array]:
    """The determinant as its sign (a number of absolute value 1, or 0) and the logarithm of its absolute value."""
    sign, logarithm = np.linalg.slogdet(x)
    return np.asarray(sign), np.asarray(logarithm)


def _solve(a: TensorSpec, b: TensorSpec, **attributes: Any) -> TensorSpec:
    matrix_rule(a, square=True, what="the matrix")
    matrix_rule(b, what="the right-hand side")
    require_size(b.shape[-2], a.shape[-1], "the rows of the right-hand side")
    return TensorSpec(same_dtype(a, b), (*broadcast_dims(a.shape[:-2], b.shape[:-2]), *b.shape[-2:]))


@op(infer=_solve, facts=Facts(matrix="inverted"))
def solve(a: Array, b: Array) -> Array:
    """x of a · x = b. a: [..., n, n]; b: [..., n, k], leading axes broadcast; x: [..., n, k]. A singular a is an error."""
    return np.linalg.solve(a, b)


@op(infer=_solve, facts=Facts(matrix="inverted"))
def solve_triangular(a: Array, b: Array, *, upper: bool = False, unitriangular: bool = False) -> Array:
    """x of a · x = b, reading only a's lower (or upper) triangle; with unitriangular, its diagonal counts as ones."""
    triangle = np.triu(a) if upper else np.tril(a)
    if unitriangular:
        triangle = np.where(np.eye(a.shape[-1], dtype=np.bool_), a.dtype.type(1), triangle)
    return np.linalg.solve(triangle, b)


@op(infer=squares_rule(), facts=Facts(matrix="definite"))
def cholesky(x: Array, *, upper: bool = False) -> Array:
    """The lower triangle L of x = L · Lᴴ, or with upper Lᴴ. x: [..., n, n], Hermitian and positive definite, of which
    only the lower (upper) triangle is read."""
    return np.linalg.cholesky(x, upper=upper)


def _qr(x: TensorSpec, *, mode: str = "reduced") -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x)
    *batch, rows, columns = x.shape
    inner: Dim = rows if mode == "complete" else minimum(rows, columns)
    return TensorSpec(x.dtype, (*batch, rows, inner)), TensorSpec(x.dtype, (*batch, inner, columns))


@op(infer=_qr, outputs=("q", "r"))
def qr(x: Array, *, mode: Literal["reduced", "complete"] = "reduced") -> tuple[Array, Array]:
    """x = q · r with orthonormal columns q and an upper triangle r, signs as LAPACK's Householder reflections give them.

    x: [..., m, n]; q: [..., m, k]; r: [..., k, n]; k is min(m, n), or m for "complete".
    """
    q, r = np.linalg.qr(x, mode=mode)
    return q, r


def _svd(x: TensorSpec, *, full_matrices: bool = True) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    matrix_rule(x)
    *batch, rows, columns = x.shape
    inner = minimum(rows, columns)
    return (TensorSpec(x.dtype, (*batch, rows, rows if full_matrices else inner)), TensorSpec(_real(x.dtype), (*batch, inner)),
            TensorSpec(x.dtype, (*batch, columns if full_matrices else inner, columns)))


@op(infer=_svd, outputs=("u", "s", "vh"))
def svd(x: Array, *, full_matrices: bool = True) -> tuple[Array, Array, Array]:
    """x = u · diag(s) · vh with singular values s in descending order; the signs of the vectors are left to LAPACK.

    x: [..., m, n]; u: [..., m, m]; s: [..., min(m, n)]; vh: [..., n, n]; without full_matrices u and vh have min(m, n)
    columns and rows.
    """
    u, s, vh = np.linalg.svd(x, full_matrices=full_matrices)
    return u, s, vh


def _eigh(x: TensorSpec, *, upper: bool = False) -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x, square=True)
    return TensorSpec(_real(x.dtype), x.shape[:-1]), x


@op(infer=_eigh, outputs=("eigenvalues", "eigenvectors"))
def eigh(x: Array, *, upper: bool = False) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors (columns) of Hermitian matrices, of which the lower (upper) triangle is
    read; the signs of the vectors are left to LAPACK. x: [..., n, n]."""
    values, vectors = np.linalg.eigh(x, "U" if upper else "L")
    return values, vectors


def _pinv(x: TensorSpec, *, atol: float | None = None, rtol: float | None = None) -> TensorSpec:
    matrix_rule(x)
    return TensorSpec(x.dtype, (*x.shape[:-2], x.shape[-1], x.shape[-2]))


@op(infer=_pinv)
def pinv(x: Array, *, atol: float | None = None, rtol: float | None = None) -> Array:
    """The Moore-Penrose inverse through the singular values; those up to max(atol, rtol · the largest) count as 0.

    x: [..., m, n]; y: [..., n, m]. atol is 0 for null; rtol is, for null, 0 where atol > 0, else max(m, n) times the
    distance from 1 to the next number of the dtype.
    """
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    if rtol is None:
        rtol = 0.0 if atol else max(x.shape[-2:]) * float(np.finfo(s.dtype).eps)
    cutoff = np.maximum(s.dtype.type(atol or 0.0), s.dtype.type(rtol) * s.max(axis=-1, keepdims=True, initial=0))
    kept = s > cutoff
    inverse = np.where(kept, 1 / np.where(kept, s, 1), 0)
    return np.matmul(_adjoint(vh) * inverse[..., None, :], _adjoint(u)).astype(x.dtype, copy=False)


@op(infer=squares_rule(), facts=Facts(matrix="inverted"))
def matrix_power(x: Array, *, n: int) -> Array:
    """The product of n copies of each matrix; the identity for 0, powers of the inverse below. x: [..., m, m]."""
    return np.linalg.matrix_power(x, n)


Order = Literal["fro", "nuc"] | float


def _matrix_norm(x: TensorSpec, *, ord: Order = "fro", axis: tuple[int, int] = (-2, -1), keepdims: bool = False) -> TensorSpec:
    matrix_rule(x)
    axes = [axis_of(item, x.rank) for item in axis]
    require(axes[0] != axes[1], "an axis is named twice", received=axis)
    require(ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf), "no such matrix norm",
            expected='"fro", "nuc", 1, -1, 2, -2, infinity or -infinity', received=ord)
    shape = [1 if place in axes else size for place, size in enumerate(x.shape) if keepdims or place not in axes]
    return TensorSpec(_real(x.dtype), tuple(shape))


@op(infer=_matrix_norm)
def matrix_norm(x: Array, *, ord: Order = "fro", axis: tuple[int, int] = (-2, -1), keepdims: bool = False) -> Array:
    """The norm of the matrices over two axes (rows, columns).

    ord: "fro" the root of the sum of squares; "nuc" the sum of singular values; 2 and -2 the largest and the smallest
    singular value; 1 and -1 the largest and smallest sum of absolute values over a column; infinity and -infinity over
    a row.
    """
    rows, columns = (place % x.ndim for place in axis)
    if ord == "fro":
        result = np.sqrt((np.abs(x) ** 2).sum(axis=(rows, columns), keepdims=True))
    elif ord in (1, -1, np.inf, -np.inf):
        sums = np.abs(x).sum(axis=rows if abs(ord) == 1 else columns, keepdims=True)
        over = columns if abs(ord) == 1 else rows
        result = sums.max(axis=over, keepdims=True, initial=0) if ord > 0 else sums.min(axis=over, keepdims=True)
    else:
        values = np.linalg.svd(np.moveaxis(x, (rows, columns), (-2, -1)), compute_uv=False)
        reduced = values.sum(axis=-1) if ord == "nuc" else values.max(axis=-1, initial=0) if ord == 2 else values.min(axis=-1)
        result = np.expand_dims(reduced, tuple(sorted((rows, columns))))
    result = np.asarray(result if keepdims else result.squeeze((rows, columns)))
    return result.astype(DType.of(x.dtype).numpy if x.dtype.kind != "c" else REAL_OF[DType.of(x.dtype)].numpy, copy=False)
