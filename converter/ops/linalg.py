"""Linear algebra on matrices: inverses, determinants, factorizations, norms. The Python Array API's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from converter.dims import Dim, maximum, minimum
from converter.facts import Facts
from converter.formulas import Space, Term, dtype_of
from converter.ir import Array, DType, TensorSpec
from converter.ops import _elimination, _reflections, _rotations
from converter.ops._elimination import adjoint, identity, in_double, scaled
from converter.ops._rules import axis_of, broadcast_dims, require, require_size, same_dtype
from converter.ops.complex_numbers import REAL_OF
from converter.opset import ARRAYS, op

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


@in_double
def _inverse(f: Space, x: Term) -> Term:
    *batch, n, _ = x.shape
    return _elimination.solved(f, x, identity(f, n, n, batch, dtype_of(x)))


@op(infer=squares_rule(), facts=Facts(matrix="inverted"), formula=_inverse)
def inv(x: Array) -> Array:
    """The inverse of each matrix. x: [..., n, n]; a singular matrix is an error."""
    return np.linalg.inv(x)


@in_double
def _determinant(f: Space, x: Term) -> Term:
    parity, pivots = _elimination.determinant_parts(f, x)
    return scaled(f, f.prod(pivots, axis=(-1,)), parity)


@op(infer=squares_rule(2), formula=_determinant)
def det(x: Array) -> Array:
    """The determinant of each matrix. x: [..., n, n]; y: [...]."""
    return np.asarray(np.linalg.det(x))


def _slogdet(x: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x, square=True)
    return TensorSpec(x.dtype, x.shape[:-2]), TensorSpec(_real(x.dtype), x.shape[:-2])


@in_double
def _sign_and_logarithm(f: Space, x: Term) -> tuple[Term, Term]:
    parity, pivots = _elimination.determinant_parts(f, x)
    sizes = f.abs(pivots)
    signs = scaled(f, pivots, f.where(f.equal(sizes, 0.0), 1.0, sizes), "divide")
    return scaled(f, f.prod(signs, axis=(-1,)), parity), f.sum(f.log(sizes), axis=(-1,))


@op(infer=_slogdet, outputs=("sign", "logabsdet"), formula=_sign_and_logarithm)
def slogdet(x: Array) -> tuple[Array, Array]:
    """The determinant as its sign (a number of absolute value 1, or 0) and the logarithm of its absolute value."""
    sign, logarithm = np.linalg.slogdet(x)
    return np.asarray(sign), np.asarray(logarithm)


def _solve(a: TensorSpec, b: TensorSpec, **attributes: Any) -> TensorSpec:
    matrix_rule(a, square=True, what="the matrix")
    matrix_rule(b, what="the right-hand side")
    require_size(b.shape[-2], a.shape[-1], "the rows of the right-hand side")
    return TensorSpec(same_dtype(a, b), (*broadcast_dims(a.shape[:-2], b.shape[:-2]), *b.shape[-2:]))


@op(infer=_solve, facts=Facts(matrix="inverted"), formula=in_double(_elimination.solved))
def solve(a: Array, b: Array) -> Array:
    """x of a · x = b. a: [..., n, n]; b: [..., n, k], leading axes broadcast; x: [..., n, k]. A singular a is an error."""
    return np.linalg.solve(a, b)


@in_double
def _substituted(f: Space, a: Term, b: Term, *, upper: bool, unitriangular: bool) -> Term:
    return _elimination.substituted(f, a, b, upper, unitriangular)


@op(infer=_solve, facts=Facts(matrix="inverted"), formula=_substituted)
def solve_triangular(a: Array, b: Array, *, upper: bool = False, unitriangular: bool = False) -> Array:
    """x of a · x = b, reading only a's lower (or upper) triangle; with unitriangular, its diagonal counts as ones."""
    triangle = np.triu(a) if upper else np.tril(a)
    if unitriangular:
        triangle = np.where(np.eye(a.shape[-1], dtype=np.bool_), a.dtype.type(1), triangle)
    return np.linalg.solve(triangle, b)


@in_double
def _triangle(f: Space, x: Term, *, upper: bool) -> Term:
    return adjoint(f, _elimination.lower_factor(f, adjoint(f, x))) if upper else _elimination.lower_factor(f, x)


@op(infer=squares_rule(), facts=Facts(matrix="definite"), formula=_triangle)
def cholesky(x: Array, *, upper: bool = False) -> Array:
    """The lower triangle L of x = L · Lᴴ, or with upper Lᴴ. x: [..., n, n], Hermitian and positive definite, of which
    only the lower (upper) triangle is read."""
    return np.linalg.cholesky(x, upper=upper)


def _qr(x: TensorSpec, *, mode: str = "reduced") -> tuple[TensorSpec, TensorSpec]:
    matrix_rule(x)
    *batch, rows, columns = x.shape
    inner: Dim = rows if mode == "complete" else minimum(rows, columns)
    return TensorSpec(x.dtype, (*batch, rows, inner)), TensorSpec(x.dtype, (*batch, inner, columns))


@in_double
def _reflected(f: Space, x: Term, *, mode: str) -> tuple[Term, Term]:
    return _reflections.factored(f, x, mode == "complete")


@op(infer=_qr, outputs=("q", "r"), formula=_reflected)
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


@in_double
def _singular(f: Space, x: Term, *, full_matrices: bool) -> tuple[Term, Term, Term]:
    return _rotations.singular(f, x, full_matrices)


@op(infer=_svd, outputs=("u", "s", "vh"), formula=_singular)
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


@in_double
def _eigen(f: Space, x: Term, *, upper: bool) -> tuple[Term, Term]:
    return _rotations.eigen(f, _rotations.hermitian(f, x, upper))


@op(infer=_eigh, outputs=("eigenvalues", "eigenvectors"), formula=_eigen)
def eigh(x: Array, *, upper: bool = False) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors (columns) of Hermitian matrices, of which the lower (upper) triangle is
    read; the signs of the vectors are left to LAPACK. x: [..., n, n]."""
    values, vectors = np.linalg.eigh(x, "U" if upper else "L")
    return values, vectors


def _pinv(x: TensorSpec, *, atol: float | None = None, rtol: float | None = None) -> TensorSpec:
    matrix_rule(x)
    return TensorSpec(x.dtype, (*x.shape[:-2], x.shape[-1], x.shape[-2]))


@op(infer=_pinv)
def pinv(f: Space, x: Term, *, atol: float | None = None, rtol: float | None = None) -> Term:
    """The Moore-Penrose inverse through the singular values; those up to max(atol, rtol · the largest) count as 0.

    x: [..., m, n]; y: [..., n, m]. atol is 0 for null; rtol is, for null, 0 where atol > 0, else max(m, n) times the
    distance from 1 to the next number of the dtype.
    """
    u, s, vh = f.svd(x, full_matrices=False)
    real = dtype_of(s)
    if rtol is None:
        size = f.full(shape=(), fill_value=0 if atol else maximum(*x.shape[-2:]), dtype=real)
        least = size * float(np.finfo(real.numpy).eps)
    else:
        least = f.full(shape=(), fill_value=rtol, dtype=real)
    cutoff = f.maximum(least * f.vector_norm(s, axis=(-1,), keepdims=True, ord=np.inf), atol or 0.0)
    kept = s > cutoff
    inverse = f.where(kept, 1.0 / f.where(kept, s, 1.0), 0.0)
    return f.matmul(scaled(f, adjoint(f, vh), f.expand_dims(inverse, axis=(-2,))), adjoint(f, u))


@op(infer=squares_rule(), facts=Facts(matrix="inverted"))
def matrix_power(f: Space, x: Term, *, n: int) -> Term:
    """The product of n copies of each matrix; the identity for 0, powers of the inverse below. x: [..., m, m]."""
    if n == 0:
        *batch, size, _ = x.shape
        return identity(f, size, size, batch, dtype_of(x))
    x, n, result = x if n > 0 else f.inv(x), abs(n), None
    while True:
        if n & 1:
            result = x if result is None else f.matmul(result, x)
        n >>= 1
        if not n:
            return result
        x = f.matmul(x, x)


Order = Literal["fro", "nuc"] | float


def _matrix_norm(x: TensorSpec, *, ord: Order = "fro", axis: tuple[int, int] = (-2, -1), keepdims: bool = False) -> TensorSpec:
    matrix_rule(x)
    axes = [axis_of(item, x.rank) for item in axis]
    require(axes[0] != axes[1], "an axis is named twice", received=axis)
    require(ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf), "no such matrix norm",
            expected='"fro", "nuc", 1, -1, 2, -2, infinity or -infinity', received=ord)
    shape = [1 if place in axes else size for place, size in enumerate(x.shape) if keepdims or place not in axes]
    return TensorSpec(_real(x.dtype), tuple(shape))


def _norm(f: Space, x: Term, *, ord: Order, axis: tuple[int, int], keepdims: bool,
          spectrum: Callable[[Space, Term], Term] = lambda f, x: f.svd(x, full_matrices=False)[1]) -> Term:
    rows, columns = places = [axis_of(place, x.ndim) for place in axis]
    if ord == "fro":
        return f.vector_norm(x, axis=axis, keepdims=keepdims)
    smallest = not isinstance(ord, str) and ord < 0
    if ord in ("nuc", 2, -2):
        order = (*(place for place in range(x.ndim) if place not in places), rows, columns)
        values, over, kept = spectrum(f, f.permute_dims(x, axes=order)), (-1,), False
    else:
        inner, outer = (rows, columns) if ord in (1, -1) else (columns, rows)
        values, over, kept = f.vector_norm(x, axis=(inner,), keepdims=True, ord=1.0), (outer,), True
    if ord == "nuc":
        y = f.sum(values, axis=over)
    else:
        y = f.min(values, axis=over, keepdims=kept) if smallest else f.vector_norm(values, axis=over, keepdims=kept, ord=np.inf)
    if keepdims == kept:
        return y
    return f.expand_dims(y, axis=tuple(sorted(places))) if keepdims else f.squeeze(y, axis=tuple(sorted(places)))


@op(infer=_matrix_norm, formula=_norm)
def matrix_norm(x: Array, *, ord: Order = "fro", axis: tuple[int, int] = (-2, -1), keepdims: bool = False) -> Array:
    """The norm of the matrices over two axes (rows, columns).

    ord: "fro" the root of the sum of squares; "nuc" the sum of singular values; 2 and -2 the largest and the smallest
    singular value; 1 and -1 the largest and smallest sum of absolute values over a column; infinity and -infinity over
    a row.
    """
    return _norm(ARRAYS, x, ord=ord, axis=axis, keepdims=keepdims, spectrum=lambda _, x: np.linalg.svd(x, compute_uv=False))
