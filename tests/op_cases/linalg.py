"""Linear algebra on matrices. Vectors whose signs are free are tested by what they give back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tests.op_cases import Case, Input, f32, f64

NO_OPERATOR = {"onnxruntime": "ONNX has no operator for it"}


def regular(*shape: int | str) -> Input:
    """Matrices far from singular."""
    return Input(shape, lambda rng, size: (rng.uniform(-1, 1, size) + 3 * np.eye(size[-2], size[-1])).astype(np.float32))


def definite(*shape: int | str) -> Input:
    """Symmetric positive definite matrices."""

    def make(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        half = rng.uniform(-1, 1, size)
        return (half @ half.swapaxes(-1, -2) + np.eye(size[-1])).astype(np.float32)

    return Input(shape, make)


def again(parts: Callable[..., torch.Tensor], make: Callable[[torch.Tensor], object]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: parts(*make(x))


CASES = [
    Case("inv", torch.linalg.inv, regular("batch", 4, 4), xfail=NO_OPERATOR),
    Case("det", torch.linalg.det, regular("batch", 4, 4)),
    Case("det", lambda x: torch.linalg.det(x.double()), regular(3, 3), name="float64", xfail={"onnxruntime": "float32 only"}),
    Case("slogdet", torch.linalg.slogdet, f32("batch", 4, 4), xfail=NO_OPERATOR),
    Case("slogdet", torch.logdet, definite("batch", 4, 4), name="logdet", xfail=NO_OPERATOR),
    Case("solve", torch.linalg.solve, regular("batch", 4, 4), f32("batch", 4, 2), xfail=NO_OPERATOR),
    Case("solve", torch.linalg.solve, regular(2, 4, 4), f32(4), name="vector", xfail=NO_OPERATOR),
    Case("solve", lambda a, b: torch.linalg.solve(a, b, left=False), regular(4, 4), f32(2, 4), name="from the right", xfail=NO_OPERATOR),
    Case("solve_triangular", lambda a, b: torch.linalg.solve_triangular(a, b, upper=True), regular(4, 4), f32("batch", 4, 2),
         xfail=NO_OPERATOR),
    Case("solve_triangular", lambda a, b: torch.linalg.solve_triangular(a, b, upper=False, left=False, unitriangular=True),
         regular(4, 4), f32(2, 4), name="from the right, unit diagonal", xfail=NO_OPERATOR),
    Case("solve_triangular", torch.cholesky_solve, f32(4, 2), regular(4, 4), name="cholesky_solve", xfail=NO_OPERATOR),
    Case("cholesky", torch.linalg.cholesky, definite("batch", 4, 4), xfail=NO_OPERATOR),
    Case("cholesky", lambda x: torch.linalg.cholesky(x, upper=True), definite(4, 4), name="upper", xfail=NO_OPERATOR),
    Case("qr", torch.linalg.qr, f32("batch", 4, 3), xfail=NO_OPERATOR),
    Case("qr", lambda x: torch.linalg.qr(x, mode="complete"), f32(4, 3), name="complete", xfail=NO_OPERATOR),
    Case("svd", torch.linalg.svdvals, f32("batch", 4, 3), name="values", xfail=NO_OPERATOR),
    Case("svd", again(lambda u, s, vh: u * s.unsqueeze(-2) @ vh, lambda x: torch.linalg.svd(x, full_matrices=False)),
         f32("batch", 3, 5), name="given back", xfail=NO_OPERATOR),
    Case("eigh", torch.linalg.eigvalsh, definite("batch", 4, 4), name="values", xfail=NO_OPERATOR),
    Case("eigh", again(lambda w, v: v * w.unsqueeze(-2) @ v.mT, lambda x: torch.linalg.eigh(x, UPLO="U")), definite("batch", 4, 4),
         name="given back", xfail=NO_OPERATOR),
    Case("pinv", torch.linalg.pinv, f32("batch", 5, 3), xfail=NO_OPERATOR),
    Case("pinv", lambda x: torch.linalg.pinv(x, rtol=0.5), f32(3, 5), name="rtol", xfail=NO_OPERATOR),
    Case("matrix_power", lambda x: torch.linalg.matrix_power(x, 5), regular("batch", 3, 3)),
    Case("matrix_power", lambda x: torch.linalg.matrix_power(x, -2), regular("batch", 3, 3), name="negative", xfail=NO_OPERATOR),
    *(Case("matrix_norm", lambda x, ord=ord: torch.linalg.matrix_norm(x, ord), f32(2, 4, 3), name=f"order {ord}",
           xfail=NO_OPERATOR if ord in ("nuc", 2, -2) else None)
      for ord in ("fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf"))),
    Case("matrix_norm", lambda x: torch.linalg.norm(x, 1, dim=(2, 0), keepdim=True), f64(2, 5, 3), name="axes, float64"),
    Case("matrix_norm", lambda x: torch.linalg.norm(x, float("inf"), dim=(2, 0)), f32(2, 5, 3), name="axes swapped"),
]
