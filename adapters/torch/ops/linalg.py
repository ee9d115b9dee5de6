"""Linear algebra on matrices: inverses, determinants, factorizations, norms."""

from __future__ import annotations

import operator
from typing import Any

import ml_dtypes
import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer, target_name
from converter.builder import Value
from converter.dims import maximum
from converter.ir import DType


def _flip(g: Importer, x: Value) -> Value:
    """The last two axes exchanged."""
    return g.op("permute_dims", x, axes=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


def adjoint(g: Importer, x: Value) -> Value:
    """The last two axes exchanged, and complex numbers conjugated."""
    return g.op("conj", _flip(g, x)) if x.dtype.is_complex else _flip(g, x)


@imports("aten.linalg_inv.default", "aten.inverse.default")
def inv(g: Importer, x: Value) -> Value:
    return g.op("inv", x)


def refuse_failures(g: Importer, output: int) -> None:
    """Refuses a use of the output that says where a factorization failed: here that gives NaN, or an error in NumPy."""
    for user in g.node.users:
        if user.target is operator.getitem and user.args[1] == output and user.users:
            raise g.refuse("the output that says whether the factorization failed")


@imports("aten.linalg_inv_ex.default")
def inv_ex(g: Importer, x: Value, *, check_errors: bool = False) -> tuple[Any, ...]:
    refuse_failures(g, 1)
    return (g.op("inv", x), None)


@imports("aten.linalg_det.default", "aten.det.default")
def det(g: Importer, x: Value) -> Value:
    return g.op("det", x)


@imports("aten._linalg_det.default")
def det_with_factors(g: Importer, x: Value) -> tuple[Any, ...]:
    return (g.op("det", x), None, None)


@imports("aten.linalg_slogdet.default", "aten.slogdet.default", "aten._linalg_slogdet.default")
def slogdet(g: Importer, x: Value) -> tuple[Any, ...]:
    return (*g.add("slogdet", x), None, None)


@imports("aten.logdet.default")
def logdet(g: Importer, x: Value) -> Value:
    sign, logarithm = g.add("slogdet", x)
    if x.dtype.is_complex:
        return g.op("complex", logarithm, g.op("angle", sign))
    return g.op("where", g.op("less", sign, 0.0), float("nan"), logarithm)


def _solved(g: Importer, a: Value, b: Value, left: bool, op: str, **attributes: Any) -> Value:
    """x · a = b is aᵀ · xᵀ = bᵀ."""
    if left:
        return g.op(op, a, b, **attributes)
    if "upper" in attributes:
        attributes["upper"] = not attributes["upper"]
    return _flip(g, g.op(op, _flip(g, a), _flip(g, b), **attributes))


@imports("aten.linalg_solve.default")
def solve(g: Importer, a: Value, b: Value, *, left: bool = True) -> Value:
    vector = b.rank == 1 or b.rank == a.rank - 1 and b.shape == a.shape[:-1]
    if not vector:
        return _solved(g, a, b, left, "solve")
    result = g.op("solve", a if left else _flip(g, a), g.op("expand_dims", b, axis=(b.rank,)))
    return g.op("squeeze", result, axis=(result.rank - 1,))


@imports("aten.linalg_solve_ex.default", "aten._linalg_solve_ex.default")
def solve_ex(g: Importer, a: Value, b: Value, *, left: bool = True, check_errors: bool = False) -> tuple[Any, ...]:
    refuse_failures(g, 1 if target_name(g.node.target).startswith("aten.linalg") else 3)
    return (solve(g, a, b, left=left), None, None, None)


@imports("aten.linalg_solve_triangular.default")
def solve_triangular(g: Importer, a: Value, b: Value, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Value:
    return _solved(g, a, b, left, "solve_triangular", upper=upper, unitriangular=unitriangular)


@imports("aten.triangular_solve.default")
def triangular_solve(g: Importer, b: Value, a: Value, upper: bool = True, transpose: bool = False,
                     unitriangular: bool = False) -> tuple[Any, ...]:
    matrix = _flip(g, a) if transpose else a
    return (g.op("solve_triangular", matrix, b, upper=upper != transpose, unitriangular=unitriangular), a)


@imports("aten.linalg_cholesky.default", "aten.cholesky.default")
def cholesky(g: Importer, x: Value, upper: bool = False) -> Value:
    return g.op("cholesky", x, upper=upper)


@imports("aten.linalg_cholesky_ex.default")
def cholesky_ex(g: Importer, x: Value, *, upper: bool = False, check_errors: bool = False) -> tuple[Any, ...]:
    refuse_failures(g, 1)
    return (g.op("cholesky", x, upper=upper), None)


@imports("aten.cholesky_solve.default")
def cholesky_solve(g: Importer, b: Value, factor: Value, upper: bool = False) -> Value:
    """x of L · Lᴴ · x = b: two triangular systems."""
    lower = adjoint(g, factor) if upper else factor
    middle = g.op("solve_triangular", lower, b)
    return g.op("solve_triangular", factor if upper else adjoint(g, factor), middle, upper=True)


@imports("aten.linalg_qr.default")
def qr(g: Importer, x: Value, mode: str = "reduced") -> tuple[Any, ...]:
    if mode == "r":
        raise g.refuse('mode "r" gives an empty q: use "reduced"')
    return g.add("qr", x, mode=mode)


@imports("aten.qr.default")
def old_qr(g: Importer, x: Value, some: bool = True) -> tuple[Any, ...]:
    return g.add("qr", x, mode="reduced" if some else "complete")


@imports("aten.linalg_svd.default")
def svd(g: Importer, x: Value, full_matrices: bool = True, *, driver: str | None = None) -> tuple[Any, ...]:
    return g.add("svd", x, full_matrices=full_matrices)


@imports("aten._linalg_svd.default")
def svd_core(g: Importer, x: Value, full_matrices: bool = False, compute_uv: bool = True, *, driver: str | None = None) -> tuple[Any, ...]:
    if not compute_uv:
        return (None, g.add("svd", x, full_matrices=False)[1], None)
    return g.add("svd", x, full_matrices=full_matrices)


@imports("aten.svd.default")
def old_svd(g: Importer, x: Value, some: bool = True, compute_uv: bool = True) -> tuple[Any, ...]:
    """With V in place of Vᴴ."""
    if not compute_uv:
        raise g.refuse("without vectors torch.svd gives zeros for them: use torch.linalg.svdvals")
    u, s, vh = g.add("svd", x, full_matrices=not some)
    return u, s, adjoint(g, vh)


@imports("aten.linalg_svdvals.default")
def svdvals(g: Importer, x: Value, *, driver: str | None = None) -> Value:
    return g.add("svd", x, full_matrices=False)[1]


@imports("aten.linalg_eigh.default")
def eigh(g: Importer, x: Value, UPLO: str = "L") -> tuple[Any, ...]:
    return g.add("eigh", x, upper=UPLO.upper() == "U")


@imports("aten._linalg_eigh.default")
def eigh_core(g: Importer, x: Value, UPLO: str = "L", compute_v: bool = True) -> tuple[Any, ...]:
    values, vectors = eigh(g, x, UPLO)
    return values, vectors if compute_v else None


@imports("aten.linalg_eigvalsh.default")
def eigvalsh(g: Importer, x: Value, UPLO: str = "L") -> Value:
    return eigh(g, x, UPLO)[0]


def _hermitian(g: Importer, x: Value, hermitian: bool) -> Value:
    """Of matrices said to be Hermitian, torch reads the lower triangle."""
    return g.op("add", g.op("tril", x), adjoint(g, g.op("tril", x, k=-1))) if hermitian else x


@imports("aten.linalg_pinv.atol_rtol_float")
def pinv(g: Importer, x: Value, *, atol: float | None = None, rtol: float | None = None, hermitian: bool = False) -> Value:
    return g.op("pinv", _hermitian(g, x, hermitian), atol=atol, rtol=rtol)


@imports("neutral_model.pinv.default")
def whole_pinv(g: Importer, x: Value, atol: float | None, rtol: float | None, hermitian: bool) -> Value:
    """What `adapters.torch.patches.linear_algebra` puts in place of the pseudoinverse."""
    return pinv(g, x, atol=atol, rtol=rtol, hermitian=hermitian)


@imports("neutral_model.matrix_rank.default")
def matrix_rank(g: Importer, x: Value, atol: float | None, rtol: float | None, hermitian: bool) -> Value:
    """How many singular values exceed max(atol, rtol · the largest); rtol is by default max(m, n) · eps, or 0 where atol > 0."""
    s = g.add("svd", _hermitian(g, x, hermitian), full_matrices=False)[1]
    largest = g.op("max", s, axis=(-1,), keepdims=True)
    if rtol is not None or atol:
        bound = g.op("multiply", largest, rtol or 0.0)
    else:
        eps = float(ml_dtypes.finfo(s.dtype.numpy).eps)
        bound = g.op("multiply", g.op("multiply", largest, eps), g.tensor(maximum(*x.shape[-2:]), s.dtype))
    if atol:
        bound = g.op("maximum", bound, float(atol))
    return g.op("sum", g.op("astype", g.op("greater", s, bound), dtype=DType.INT64), axis=(-1,))


@imports("aten.linalg_pinv.atol_rtol_tensor")
def pinv_tensor(g: Importer, x: Value, *, atol: Value | None = None, rtol: Value | None = None, hermitian: bool = False) -> Value:
    """With tolerances for each matrix: through the singular values."""
    if atol is None and rtol is None:
        return pinv(g, x, hermitian=hermitian)
    if atol is not None and rtol is None:
        raise g.refuse("a tensor of absolute tolerances alone")
    u, s, vh = g.add("svd", _hermitian(g, x, hermitian), full_matrices=False)
    bound = g.op("multiply", g.op("max", s, axis=(-1,), keepdims=True), _per_matrix(g, rtol, s))
    if atol is not None:
        bound = g.op("maximum", bound, _per_matrix(g, atol, s))
    kept = g.op("greater", s, bound)
    inverse = g.op("where", kept, g.op("reciprocal", g.op("where", kept, s, 1.0)), 0.0)
    scaled = g.op("multiply", adjoint(g, vh), g.cast(g.op("expand_dims", inverse, axis=(inverse.rank - 1,)), x.dtype))
    return g.op("matmul", scaled, adjoint(g, u))


def _per_matrix(g: Importer, tolerance: Any, s: Value) -> Value:
    value = g.cast(tolerance, s.dtype)
    return g.op("expand_dims", value, axis=(value.rank,))


@imports("aten.linalg_pinv.default", "aten.pinverse.default")
def pinv_rcond(g: Importer, x: Value, rcond: float = 1e-15, hermitian: bool = False) -> Value:
    return pinv(g, x, atol=0.0, rtol=float(rcond), hermitian=hermitian)


@imports("aten.linalg_pinv.rcond_tensor")
def pinv_rcond_tensor(g: Importer, x: Value, rcond: Value, hermitian: bool = False) -> Value:
    return pinv_tensor(g, x, rtol=rcond, hermitian=hermitian)


@imports("aten.linalg_matrix_power.default", "aten.matrix_power.default")
def matrix_power(g: Importer, x: Value, n: int) -> Value:
    return x if n == 1 else g.op("matrix_power", x, n=n)


@imports("aten.linalg_matrix_norm.default", "aten.linalg_matrix_norm.str_ord")
def matrix_norm(g: Importer, x: Value, ord: Any = "fro", dim: list[int] | None = None, keepdim: bool = False, *,
                dtype: torch.dtype | None = None) -> Value:
    axes = tuple(axis % x.rank for axis in (dim if dim is not None else (-2, -1)))
    x = g.cast(x, dtype)
    if x.dtype in (DType.FLOAT16, DType.BFLOAT16):
        wide = g.op("matrix_norm", g.cast(x, DType.FLOAT32), ord=ord if isinstance(ord, str) else float(ord), axis=axes, keepdims=keepdim)
        return g.cast(wide, x.dtype)
    return g.op("matrix_norm", x, ord=ord if isinstance(ord, str) else float(ord), axis=axes, keepdims=keepdim)


@imports("neutral_model.matrix_norm.default")
def whole_matrix_norm(g: Importer, x: Value, ord: str, rows: int, columns: int, keepdim: bool) -> Value:
    """What `adapters.torch.patches.linear_algebra` puts in place of the norm."""
    return matrix_norm(g, x, ord if ord in ("fro", "nuc") else float(ord), [rows, columns], keepdim)


@imports("aten.linalg_norm.default", "aten.linalg_norm.ord_str")
def norm(g: Importer, x: Value, ord: Any = None, dim: list[int] | None = None, keepdim: bool = False, *,
         dtype: torch.dtype | None = None) -> Value:
    """A norm of matrices with an order and two axes, else of vectors."""
    x = g.cast(x, dtype)
    if ord is not None and (dim is None and x.rank == 2 or dim is not None and len(dim) == 2):
        return matrix_norm(g, x, ord, dim, keepdim)
    axes = None if dim is None else tuple(sorted(axis % x.rank for axis in dim))
    return g.op("vector_norm", x, axis=axes, keepdims=keepdim, ord=2.0 if ord is None else float(ord))


# Back to torch -----------------------------------------------------------------------------------------------------------

rebuilds("inv")(torch.linalg.inv)
rebuilds("det")(torch.linalg.det)
rebuilds("slogdet")(torch.linalg.slogdet)
rebuilds("solve")(torch.linalg.solve)
rebuilds("cholesky")(torch.linalg.cholesky)
rebuilds("pinv")(torch.linalg.pinv)
rebuilds("matrix_power")(torch.linalg.matrix_power)
rebuilds("svd")(torch.linalg.svd)
rebuilds("qr")(torch.linalg.qr)


@rebuilds("solve_triangular")
def rebuild_solve_triangular(a: torch.Tensor, b: torch.Tensor, *, upper: bool = False, unitriangular: bool = False) -> torch.Tensor:
    return torch.linalg.solve_triangular(a, b, upper=upper, unitriangular=unitriangular)


@rebuilds("eigh")
def rebuild_eigh(x: torch.Tensor, *, upper: bool = False) -> tuple[torch.Tensor, ...]:
    return tuple(torch.linalg.eigh(x, "U" if upper else "L"))


@rebuilds("matrix_norm")
def rebuild_matrix_norm(x: torch.Tensor, *, ord: Any = "fro", axis: tuple[int, int] = (-2, -1), keepdims: bool = False) -> torch.Tensor:
    return torch.linalg.matrix_norm(x, ord, axis, keepdims)
