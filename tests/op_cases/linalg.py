"""Linear algebra on matrices. Vectors whose signs are free are tested by what they give back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.op_cases import Case, Input, f32, f64, unit
from tests.op_cases.complex_numbers import c64


def regular(*shape: int | str) -> Input:
    """Matrices far from singular."""
    return Input(shape, lambda rng, size: (rng.uniform(-1, 1, size) + 3 * np.eye(size[-2], size[-1])).astype(np.float32))


def definite(*shape: int | str) -> Input:
    """Symmetric positive definite matrices."""

    def make(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        half = rng.uniform(-1, 1, size)
        return (half @ half.swapaxes(-1, -2) + np.eye(size[-1])).astype(np.float32)

    return Input(shape, make)


def of_rank_2(*shape: int | str) -> Input:
    """Matrices of rank 2, to rounding."""
    return Input(shape, lambda rng, size: (rng.standard_normal((*size[:-1], 2)) @ rng.standard_normal((*size[:-2], 2, size[-1]))).astype(
        np.float32))


def regular_complex(*shape: int | str) -> Input:
    """Complex matrices far from singular."""
    return Input(shape, lambda rng, size: (rng.uniform(-1, 1, size) + 1j * rng.uniform(-1, 1, size) + 3 * np.eye(size[-1])).astype(
        np.complex64))


def hermitian(*shape: int | str) -> Input:
    """Hermitian positive definite matrices."""

    def make(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        half = rng.uniform(-1, 1, size) + 1j * rng.uniform(-1, 1, size)
        return (half @ half.conj().swapaxes(-1, -2) + np.eye(size[-1])).astype(np.complex64)

    return Input(shape, make)


def again(parts: Callable[..., torch.Tensor], make: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: parts(*make(x))


CASES = [
    Case("inv", torch.linalg.inv, regular("batch", 4, 4)),
    Case("det", torch.linalg.det, regular("batch", 4, 4)),
    Case("det", lambda x: torch.linalg.det(x.double()), regular(3, 3), name="float64"),
    Case("slogdet", torch.linalg.slogdet, f32("batch", 4, 4)),
    Case("slogdet", torch.logdet, definite("batch", 4, 4), name="logdet"),
    Case("solve", torch.linalg.solve, regular("batch", 4, 4), f32("batch", 4, 2)),
    Case("solve", torch.linalg.solve, regular(2, 4, 4), f32(4), name="vector"),
    Case("solve", lambda a, b: torch.linalg.solve(a, b, left=False), regular(4, 4), f32(2, 4), name="from the right"),
    Case("solve_triangular", lambda a, b: torch.linalg.solve_triangular(a, b, upper=True), regular(4, 4), f32("batch", 4, 2)),
    Case("solve_triangular", lambda a, b: torch.linalg.solve_triangular(a, b, upper=False, left=False, unitriangular=True),
         regular(4, 4), f32(2, 4), name="from the right, unit diagonal"),
    Case("solve_triangular", torch.cholesky_solve, f32(4, 2), regular(4, 4), name="cholesky_solve"),
    Case("cholesky", torch.linalg.cholesky, definite("batch", 4, 4)),
    Case("cholesky", lambda x: torch.linalg.cholesky(x, upper=True), definite(4, 4), name="upper"),
    Case("qr", torch.linalg.qr, f32("batch", 4, 3)),
    Case("qr", lambda x: torch.linalg.qr(x, mode="complete"), f32(4, 3), name="complete"),
    Case("svd", torch.linalg.svdvals, f32("batch", 4, 3), name="values"),
    Case("svd", again(lambda u, s, vh: u * s.unsqueeze(-2) @ vh, lambda x: torch.linalg.svd(x, full_matrices=False)),
         f32("batch", 3, 5), name="given back"),
    Case("eigh", torch.linalg.eigvalsh, definite("batch", 4, 4), name="values"),
    Case("eigh", again(lambda w, v: v * w.unsqueeze(-2) @ v.mT, lambda x: torch.linalg.eigh(x, UPLO="U")), definite("batch", 4, 4),
         name="given back"),
    Case("pinv", torch.linalg.pinv, f32("batch", 5, 3)),
    Case("pinv", lambda x: torch.linalg.pinv(x, rtol=0.5), f32(3, 5), name="rtol"),
    Case("matrix_power", lambda x: torch.linalg.matrix_power(x, 5), regular("batch", 3, 3)),
    Case("matrix_power", lambda x: torch.linalg.matrix_power(x, -2), regular("batch", 3, 3), name="negative"),
    *(Case("matrix_norm", lambda x, ord=ord: torch.linalg.matrix_norm(x, ord), f32(2, 4, 3), name=f"order {ord}")
      for ord in ("fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf"))),
    Case("matrix_norm", lambda x: torch.linalg.norm(x, 1, dim=(2, 0), keepdim=True), f64(2, 5, 3), name="axes, float64"),
    Case("matrix_norm", lambda x: torch.linalg.norm(x, float("inf"), dim=(2, 0)), f32(2, 5, 3), name="axes swapped"),
    *(Case("inv", torch.linalg.inv, make("length", "length"), name=f"{kind}, of a free size")
      for kind, make in (("real", regular), ("complex", regular_complex))),
    *(Case(op, function, *inputs, name=f"complex {label}".strip()) for op, label, function, inputs in (
        ("det", "", torch.linalg.det, (c64("batch", 4, 4),)),
        ("slogdet", "", torch.linalg.slogdet, (c64("batch", 4, 4),)),
        ("slogdet", "logdet", torch.logdet, (regular_complex(4, 4),)),
        ("solve", "", torch.linalg.solve, (regular_complex("batch", 4, 4), c64("batch", 4, 2))),
        ("solve_triangular", "", lambda a, b: torch.linalg.solve_triangular(a, b, upper=True), (regular_complex(4, 4), c64("batch", 4, 2))),
        ("solve_triangular", "cholesky_solve", torch.cholesky_solve, (c64(4, 2), regular_complex(4, 4))),
        ("cholesky", "", torch.linalg.cholesky, (hermitian("batch", 4, 4),)),
        ("cholesky", "upper", lambda x: torch.linalg.cholesky(x, upper=True), (hermitian(4, 4),)),
        ("qr", "", torch.linalg.qr, (c64("batch", 4, 3),)),
        ("svd", "values", torch.linalg.svdvals, (c64("batch", 3, 4),)),
        ("svd", "given back", again(lambda u, s, vh: u * s.unsqueeze(-2) @ vh, lambda x: torch.linalg.svd(x, full_matrices=False)),
         (c64("batch", 4, 3),)),
        ("eigh", "values", torch.linalg.eigvalsh, (hermitian("batch", 4, 4),)),
        ("eigh", "given back", again(lambda w, v: v * w.unsqueeze(-2) @ v.mH, torch.linalg.eigh), (hermitian("batch", 4, 4),)),
        ("pinv", "", torch.linalg.pinv, (c64("batch", 5, 3),)),
        ("matrix_power", "negative", lambda x: torch.linalg.matrix_power(x, -2), (regular_complex("batch", 3, 3),)),
        *(("matrix_norm", f"order {ord}", lambda x, ord=ord: torch.linalg.matrix_norm(x, ord, keepdim=True), (c64(2, 4, 3),))
          for ord in ("fro", "nuc", -2, float("inf"))),
    )),
    Case("svd", again(lambda u, s, vh: u @ u.mT, torch.linalg.svd), f32("batch", 5, 2), name="a whole basis"),
    Case("svd", again(lambda u, s, vh: u[..., :2] * s[..., None, :2] @ vh[..., :2, :], torch.linalg.svd), of_rank_2("batch", 5, 4),
         name="of rank 2"),
    Case("svd", torch.linalg.svdvals, f64("height", "width"), name="values of free sizes"),
    Case("eigh", again(lambda w, v: v * w.unsqueeze(-2) @ v.mT, lambda x: torch.linalg.eigh(x @ x.mT)), of_rank_2("batch", 5, 4),
         name="repeated values"),
    Case("eigh", torch.linalg.eigvalsh, f64("length", "length"), name="values of a free size"),
    Case("svd", torch.linalg.cond, regular("batch", 3, 3), name="cond"),
    Case("pinv", torch.linalg.pinv, f64("height", "width"), name="free sizes"),
    Case("pinv", lambda x: torch.linalg.pinv(x, hermitian=True), definite("batch", 4, 4), name="hermitian"),
    Case("svd", lambda x, a: torch.linalg.pinv(x, atol=a, rtol=a), f32(3, 5, 3), unit(3), name="pinv, tolerances as tensors"),
    Case("matrix_power", lambda x: torch.linalg.matrix_power(x, 0), f32("batch", 3, 3), name="0"),
]
