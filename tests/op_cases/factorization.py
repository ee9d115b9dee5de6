"""Packed factorizations, what is made of them, eigenvalues of general matrices, and the matrix exponential."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case, Input, f32, f64
from tests.op_cases.complex_numbers import c64
from tests.op_cases.linalg import definite, regular

NO_EIGENVALUES = {"onnxruntime": "eigenvalues of general matrices are refused"}


def small(*shape: int | str, low: int = -3, high: int = 4) -> Input:
    """Matrices of small whole numbers, whose pivots tie."""
    return Input(shape, lambda rng, size: (rng.integers(low, high, size) + np.eye(size[-2], size[-1])).astype(np.float32))


def lu_solved(a: torch.Tensor, b: torch.Tensor, **how: bool) -> torch.Tensor:
    return torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b, **how)


CASES = [
    Case("lu_factor", lambda x: tuple(torch.linalg.lu_factor(x)), f32("batch", 4, 4)),
    Case("lu_factor", lambda x: tuple(torch.linalg.lu_factor(x)), small("batch", 5, 4), name="ties, tall"),
    Case("lu_factor", lambda x: tuple(torch.linalg.lu_factor(x)), small("batch", 3, 6), name="ties, wide"),
    Case("lu_factor", lambda x: tuple(torch.linalg.lu_factor(x)), f64(4, 4), name="float64"),
    Case("lu_factor", lambda x: torch.linalg.lu_factor_ex(x)[0], f32("batch", 4, 4), name="lu_factor_ex"),
    Case("lu_unpack", lambda x: tuple(torch.linalg.lu(x)), f32("batch", 4, 4)),
    Case("lu_unpack", lambda x: tuple(torch.linalg.lu(x)), f32("batch", 5, 3), name="tall"),
    Case("lu_unpack", lambda x: tuple(torch.linalg.lu(x)), c64("batch", 3, 5), name="wide, complex"),
    Case("lu_unpack", lambda x: tuple(torch.lu_unpack(*torch.linalg.lu_factor(x))), f32("length", "length"), name="free size"),
    Case("lu_unpack", lu_solved, f32("batch", 4, 4), f32("batch", 4, 2), name="lu_solve"),
    Case("lu_unpack", lambda a, b: lu_solved(a, b, adjoint=True), c64(4, 4), c64(4, 2), name="lu_solve, adjoint"),
    Case("lu_unpack", lambda a, b: lu_solved(a, b, left=False), f32(4, 4), f32(2, 4), name="lu_solve, from the right"),
    Case("lu_unpack", lambda a, b: lu_solved(a, b, left=False, adjoint=True), c64(4, 4), c64(2, 4), name="lu_solve, both"),
    # torch itself traces geqrf at fixed sizes only.
    Case("geqrf", lambda x: tuple(torch.geqrf(x)), f32(2, 4, 3)),
    Case("geqrf", lambda x: tuple(torch.geqrf(x)), f64(3, 5), name="wide"),
    Case("geqrf", lambda x: tuple(torch.geqrf(x)), c64(4, 4), name="complex"),
    Case("householder_product", torch.linalg.householder_product, f32("batch", 5, 3), f32("batch", 3)),
    Case("householder_product", lambda x: torch.linalg.householder_product(*torch.geqrf(x)), c64(2, 4, 4), name="complex"),
    Case("householder_product", torch.linalg.householder_product, f32("batch", 5, 4), f32("batch", 2), name="fewer factors"),
    Case("householder_product", torch.ormqr, f32(5, 3), f32(3), f32(5, "length"), name="ormqr"),
    Case("householder_product", lambda x, y: torch.ormqr(*torch.geqrf(x), y, left=False, transpose=True), c64(5, 3), c64(2, 5),
         name="ormqr, from the right"),
    Case("solve_triangular", torch.cholesky_inverse, regular("batch", 4, 4), name="cholesky_inverse"),
    Case("solve_triangular", lambda x: torch.cholesky_inverse(x, upper=True), regular(4, 4), name="cholesky_inverse, upper"),
    Case("eig", lambda x: torch.linalg.eigvals(x).abs().sort(-1).values, f32("batch", 4, 4), name="values", xfail=NO_EIGENVALUES),
    Case("eig", lambda x: (lambda w, v: (v * w.unsqueeze(-2)) @ torch.linalg.inv(v))(*torch.linalg.eig(x)), c64("batch", 4, 4),
         name="given back", xfail=NO_EIGENVALUES),
    Case("matrix_exp", torch.linalg.matrix_exp, f32("batch", 4, 4)),
    Case("matrix_exp", lambda x: torch.linalg.matrix_exp(x * 1e-4), f64("batch", 3, 3), name="small"),
    Case("matrix_exp", lambda x: torch.linalg.matrix_exp(x * torch.tensor([0.0, 1.0, 9.0]).view(3, 1, 1)), f64(3, 3, 3),
         name="of many sizes"),
    Case("matrix_exp", torch.matrix_exp, c64("length", "length"), name="complex, free size"),
    Case("matrix_exp", lambda x: torch.linalg.matrix_exp(x - x.mT), f32(1, 1), name="zero"),
    Case("cholesky", lambda x: torch.linalg.cholesky_ex(x)[0], definite("batch", 3, 3), name="cholesky_ex"),
]
