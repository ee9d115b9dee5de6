"""Lets functions of `torch.linalg` be traced at free sizes, or at all.

`torch.export` fixes every size that goes through `matrix_norm`, and which of two is larger in `pinv` and `matrix_rank`, and cannot
trace `lstsq`, some of whose results have a size that depends on values. While `traceable_linear_algebra()` is active the first are
custom operators whose fake implementations keep the sizes symbolic, and the last is what it computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

MATRIX_NORM = torch.linalg.matrix_norm
NORM = torch.linalg.norm
PINV = torch.linalg.pinv
RANK = torch.linalg.matrix_rank
NAMES = ("fro", "nuc")
Solution: Any = torch.return_types.linalg_lstsq  # type: ignore[attr-defined]


@torch.library.custom_op("neutral_model::matrix_norm", mutates_args=())
def _matrix_norm(x: Tensor, ord: str, rows: int, columns: int, keepdim: bool) -> Tensor:
    return MATRIX_NORM(x, ord if ord in NAMES else float(ord), (rows, columns), keepdim).clone()


@_matrix_norm.register_fake
def _fake(x: Tensor, ord: str, rows: int, columns: int, keepdim: bool) -> Tensor:
    places = {rows % x.dim(), columns % x.dim()}
    shape = [1 if place in places else size for place, size in enumerate(x.shape) if keepdim or place not in places]
    return x.new_empty(shape, dtype=x.real.dtype if x.is_complex() else x.dtype)


def matrix_norm(A: Tensor, ord: Any = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, *, dtype: torch.dtype | None = None,
                out: Tensor | None = None) -> Tensor:
    """torch.linalg.matrix_norm as one operator."""
    if out is not None or len(dim) != 2:
        return MATRIX_NORM(A, ord, dim, keepdim, dtype=dtype, out=out)
    x = A if dtype is None else A.to(dtype)
    return torch.ops.neutral_model.matrix_norm(x, ord if ord in NAMES else str(float(ord)), dim[0], dim[1], keepdim)


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, out: Tensor | None = None,
         dtype: torch.dtype | None = None) -> Tensor:
    """torch.linalg.norm, which is one of matrices with an order and two axes."""
    axes = (-2, -1) if dim is None and A.dim() == 2 else dim
    if ord is not None and out is None and isinstance(axes, Sequence) and len(axes) == 2:
        return matrix_norm(A, ord, axes, keepdim, dtype=dtype)
    return NORM(A, ord, dim, keepdim, out=out, dtype=dtype)


@torch.library.custom_op("neutral_model::pinv", mutates_args=())
def _pinv(x: Tensor, atol: float | None, rtol: float | None, hermitian: bool) -> Tensor:
    return PINV(x, atol=atol, rtol=rtol, hermitian=hermitian).clone()


@_pinv.register_fake
def _fake_pinv(x: Tensor, atol: float | None, rtol: float | None, hermitian: bool) -> Tensor:
    return x.new_empty((*x.shape[:-2], x.shape[-1], x.shape[-2]))


def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None, out: Tensor | None = None) -> Tensor:
    """torch.linalg.pinv as one operator."""
    if rcond is not None:
        return PINV(A, rcond, hermitian, out=out)
    if out is not None or not all(item is None or isinstance(item, float) for item in (atol, rtol)):
        return PINV(A, atol=atol, rtol=rtol, hermitian=hermitian, out=out)
    return torch.ops.neutral_model.pinv(A, atol, rtol, hermitian)


@torch.library.custom_op("neutral_model::matrix_rank", mutates_args=())
def _matrix_rank(x: Tensor, atol: float | None, rtol: float | None, hermitian: bool) -> Tensor:
    return RANK(x, atol=atol, rtol=rtol, hermitian=hermitian).clone()


@_matrix_rank.register_fake
def _fake_rank(x: Tensor, atol: float | None, rtol: float | None, hermitian: bool) -> Tensor:
    return x.new_empty(x.shape[:-2], dtype=torch.int64)


def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None,
                out: Tensor | None = None) -> Tensor:
    """torch.linalg.matrix_rank as one operator."""
    if tol is not None:
        return RANK(A, tol, hermitian, out=out)
    if out is not None or not all(item is None or isinstance(item, float) for item in (atol, rtol)):
        return RANK(A, atol=atol, rtol=rtol, hermitian=hermitian, out=out)
    return torch.ops.neutral_model.matrix_rank(A, atol, rtol, hermitian)


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """torch.linalg.lstsq through the pseudoinverse. The residuals are NaN where a matrix has not full rank, in place of none."""
    vector = B.dim() == 1 or B.dim() == A.dim() - 1 and B.shape == A.shape[:-1]
    right = B.unsqueeze(-1) if vector else B
    solution = pinv(A, rtol=rcond) @ right
    ranks = matrix_rank(A, rtol=rcond)
    real = A.real.dtype if A.is_complex() else A.dtype
    if driver in ("gels", "gelsd", "gelss") and A.shape[-2] > A.shape[-1]:
        squares = (A @ solution - right).abs().square().sum(-2)
        residuals = torch.where((ranks == A.shape[-1]).unsqueeze(-1), squares, torch.nan)
        residuals = residuals.squeeze(-1) if vector else residuals
    else:
        residuals = torch.zeros(0, dtype=real)
    values = torch.linalg.svdvals(A) if driver in ("gelsd", "gelss") else torch.zeros(0, dtype=real)
    ranks = torch.zeros(0, dtype=torch.int64) if driver == "gels" else ranks
    return Solution((solution.squeeze(-1) if vector else solution, residuals, ranks, values))


REPLACED = {"matrix_norm": matrix_norm, "norm": norm, "pinv": pinv, "matrix_rank": matrix_rank, "lstsq": lstsq}


@contextmanager
def traceable_linear_algebra() -> Iterator[None]:
    """While active, the functions of `REPLACED` stand in `torch.linalg`."""
    before = {name: getattr(torch.linalg, name) for name in REPLACED}
    for name, function in REPLACED.items():
        setattr(torch.linalg, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch.linalg, name, function)
