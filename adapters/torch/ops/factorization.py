"""Factorizations of matrices in LAPACK's packed forms and what is made of them; eigenvalues of general matrices; the exponential."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.ops.linalg import adjoint, refuse_failures
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import product
from converter.ir import DType


@imports("aten.linalg_lu_factor.default")
def lu_factor(g: Importer, x: Value, *, pivot: bool = True) -> tuple[Value, ...]:
    if not pivot:
        raise g.refuse("LU without pivoting")
    return g.add("lu_factor", x)


@imports("aten.linalg_lu_factor_ex.default", "aten._lu_with_info.default")
def lu_factor_ex(g: Importer, x: Value, pivot: bool = True, check_errors: bool = False) -> tuple[Any, ...]:
    refuse_failures(g, 2)
    return (*lu_factor(g, x, pivot=pivot), None)


@imports("aten.linalg_lu.default")
def lu(g: Importer, x: Value, *, pivot: bool = True) -> tuple[Value, ...]:
    return g.add("lu_unpack", *lu_factor(g, x, pivot=pivot))


@imports("aten.lu_unpack.default")
def lu_unpack(g: Importer, x: Value, pivots: Value, unpack_data: bool = True, unpack_pivots: bool = True) -> tuple[Any, ...]:
    if not (unpack_data and unpack_pivots):
        raise g.refuse("a part left empty")
    return g.add("lu_unpack", x, pivots)


@imports("aten.linalg_lu_solve.default")
def lu_solve(g: Importer, x: Value, pivots: Value, b: Value, *, left: bool = True, adjoint: bool = False) -> Value:
    """x of P · L · U · x = b, or with the adjoint. From the right: the adjoint of the system."""
    p, lower, upper = g.add("lu_unpack", x, pivots)
    if not left:
        return flipped(g, _lu_solved(g, p, lower, upper, flipped(g, b), not adjoint))
    return _lu_solved(g, p, lower, upper, b, adjoint)


flipped = adjoint


def _lu_solved(g: Importer, p: Value, lower: Value, upper: Value, b: Value, turned: bool) -> Value:
    if turned:
        middle = g.op("solve_triangular", flipped(g, upper), b)
        return g.op("matmul", p, g.op("solve_triangular", flipped(g, lower), middle, upper=True, unitriangular=True))
    middle = g.op("solve_triangular", lower, g.op("matmul", flipped(g, p), b), unitriangular=True)
    return g.op("solve_triangular", upper, middle, upper=True)


@imports("aten.geqrf.default")
def geqrf(g: Importer, x: Value) -> tuple[Value, ...]:
    return g.add("geqrf", x)


@imports("aten.linalg_householder_product.default", "aten.orgqr.default")
def householder_product(g: Importer, x: Value, tau: Value) -> Value:
    return g.op("householder_product", x, tau)


@imports("aten.ormqr.default")
def ormqr(g: Importer, x: Value, tau: Value, other: Value, left: bool = True, transpose: bool = False) -> Value:
    """The whole product of the reflections, or its adjoint, times a matrix."""
    rows, columns = x.shape[-2:]
    widened = g.op("pad", x, pads=(*[(0, 0)] * (x.rank - 1), (0, rows - columns))) if rows != columns else x
    q = g.op("householder_product", widened, tau)
    q = flipped(g, q) if transpose else q
    return g.op("matmul", q, other) if left else g.op("matmul", other, q)


@imports("aten.cholesky_inverse.default")
def cholesky_inverse(g: Importer, factor: Value, upper: bool = False) -> Value:
    """(L · Lᴴ)⁻¹ as the product of L⁻¹'s adjoint and itself."""
    one = g.op("eye", rows=factor.shape[-1], columns=factor.shape[-1], dtype=factor.dtype)
    inverse = g.op("solve_triangular", flipped(g, factor) if upper else factor, one)
    return g.op("matmul", flipped(g, inverse), inverse)


@imports("aten.linalg_eig.default")
def eig(g: Importer, x: Value) -> tuple[Value, ...]:
    return g.add("eig", x)


@imports("aten.linalg_eigvals.default", "aten._linalg_eigvals.default")
def eigvals(g: Importer, x: Value) -> Value:
    return g.add("eig", x)[0]


@imports("aten.linalg_matrix_exp.default", "aten.matrix_exp.default")
def matrix_exp(g: Importer, x: Value) -> Value:
    if x.dtype in (DType.FLOAT16, DType.BFLOAT16):
        return g.cast(g.op("matrix_exp", g.cast(x, DType.FLOAT32)), x.dtype)
    return g.op("matrix_exp", x)


@imports("aten.linalg_tensorinv.default")
def tensorinv(g: Importer, x: Value, ind: int = 2) -> Value:
    """The inverse of the matrix that maps the axes from `ind` on to those before."""
    size = product(x.shape[ind:])
    return g.op("reshape", g.op("inv", g.op("reshape", x, shape=(size, size))), shape=(*x.shape[ind:], *x.shape[:ind]))


# Back to torch -----------------------------------------------------------------------------------------------------------

rebuilds("lu_factor")(torch.linalg.lu_factor)
rebuilds("lu_unpack")(torch.lu_unpack)
rebuilds("geqrf")(torch.geqrf)
rebuilds("householder_product")(torch.linalg.householder_product)
rebuilds("eig")(torch.linalg.eig)
rebuilds("matrix_exp")(torch.linalg.matrix_exp)
