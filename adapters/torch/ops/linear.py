"""Matrix products, affine maps, and distances."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import torch

from adapters.torch.ops.reduction import operands_dtype
from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import Expr, fixed, product
from converter.ir import DType


def _reshaped(g: Importer, x: Value, shape: Sequence[Any]) -> Value:
    return x if tuple(shape) == x.shape else g.op("reshape", x, shape=tuple(shape))


def _times(g: Importer, x: Value, y: Value) -> Value:
    """x · y in the dtype of the result."""
    dtype = g.result_dtype()
    return g.op("matmul", g.cast(x, dtype), g.cast(y, dtype))


def _is(number: Any, value: float) -> bool:
    return not isinstance(number, Expr) and number == value


def _affine(g: Importer, self: Value, product: Value, beta: Any, alpha: Any) -> Value:
    """beta · self + alpha · product. With beta 0, self counts for nothing, NaN included."""
    dtype = product.dtype
    if not _is(alpha, 1):
        product = g.op("multiply", product, g.operand(alpha, dtype))
    if _is(beta, 0):
        return product if product.shape == g.result_shape() else g.op("broadcast_to", product, shape=g.result_shape())
    other = g.cast(self, dtype)
    if not _is(beta, 1):
        other = g.op("multiply", other, g.operand(beta, dtype))
    return g.op("add", product, other)


@imports("aten.linear.default")
def linear(g: Importer, input: Value, weight: Value, bias: Value | None = None) -> Value:
    return g.op("linear", input, weight, bias)


@imports("aten.mm.default", "aten.bmm.default", "aten.mv.default", "aten.dot.default", "aten.matmul.default",
         "aten.linalg_matmul.default")
def matmul(g: Importer, x: Value, y: Value) -> Value:
    return _times(g, x, y)


@imports("aten.mm.dtype", "aten.bmm.dtype")
def matmul_in(g: Importer, x: Value, y: Value, out_dtype: torch.dtype) -> Value:
    return _times(g, x, y)


@imports("aten.vdot.default")
def vdot(g: Importer, x: Value, y: Value) -> Value:
    return _times(g, g.op("conj", x) if x.dtype.is_complex else x, y)


@imports("aten.linalg_vecdot.default")
def linalg_vecdot(g: Importer, x: Value, y: Value, *, dim: int = -1) -> Value:
    dtype = g.result_dtype()
    x, y = g.cast(x, dtype), g.cast(y, dtype)
    terms = g.op("multiply", g.op("conj", x) if dtype.is_complex else x, y)
    return g.op("sum", terms, axis=(dim % terms.rank,))


@imports("aten.addmm.default", "aten.baddbmm.default", "aten.addmv.default")
def addmm(g: Importer, self: Value, x: Value, y: Value, *, beta: Any = 1, alpha: Any = 1) -> Value:
    return _affine(g, self, _times(g, x, y), beta, alpha)


@imports("aten.addbmm.default")
def addbmm(g: Importer, self: Value, x: Value, y: Value, *, beta: Any = 1, alpha: Any = 1) -> Value:
    return _affine(g, self, _sum_of(g, "bij,bjk->ik", x, y), beta, alpha)


@imports("aten.addr.default")
def addr(g: Importer, self: Value, x: Value, y: Value, *, beta: Any = 1, alpha: Any = 1) -> Value:
    return _affine(g, self, _outer(g, x, y), beta, alpha)


@imports("aten.outer.default", "aten.ger.default")
def outer(g: Importer, x: Value, y: Value) -> Value:
    return _outer(g, x, y)


def _outer(g: Importer, x: Value, y: Value) -> Value:
    dtype = g.result_dtype()
    column = g.op("expand_dims", g.cast(x, dtype), axis=(1,))
    return g.op("logical_and" if dtype.value == "bool" else "multiply", column, g.cast(y, dtype))


# Sums of products ------------------------------------------------------------------------------------------------------


def _sum_of(g: Importer, equation: str, *operands: Value) -> Value:
    dtype = g.result_dtype()
    return g.op("einsum", *(g.cast(operand, dtype) for operand in operands), equation=equation)


@imports("aten.einsum.default")
def einsum(g: Importer, equation: str, tensors: list[Value], *, path: Any = None) -> Value:
    return _sum_of(g, equation.replace(" ", ""), *tensors)


@imports("aten.inner.default")
def inner(g: Importer, x: Value, y: Value) -> Value:
    if x.rank == 0 or y.rank == 0:
        dtype = g.result_dtype()
        return g.op("multiply", g.cast(x, dtype), g.cast(y, dtype))
    if x.rank == y.rank == 1:
        return _times(g, x, y)
    return _contract(g, x, y, [x.rank - 1], [y.rank - 1])


@imports("aten.tensordot.default")
def tensordot(g: Importer, self: Value, other: Value, dims_self: list[int], dims_other: list[int]) -> Value:
    return _contract(g, self, other, [axis % self.rank for axis in dims_self], [axis % other.rank for axis in dims_other])


def _contract(g: Importer, x: Value, y: Value, axes: list[int], others: list[int]) -> Value:
    letters = list(string.ascii_lowercase + string.ascii_uppercase)
    left = [letters.pop(0) for _ in range(x.rank)]
    right = [left[axes[others.index(axis)]] if axis in others else letters.pop(0) for axis in range(y.rank)]
    kept = [letter for letter in left + right if (letter in left) != (letter in right)]
    return _sum_of(g, f"{''.join(left)},{''.join(right)}->{''.join(kept)}", x, y)


@imports("aten.bilinear.default")
def bilinear(g: Importer, input1: Value, input2: Value, weight: Value, bias: Value | None = None) -> Value:
    y = _sum_of(g, "...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else g.op("add", y, g.cast(bias, y.dtype))


@imports("aten._trilinear.default")
def trilinear(g: Importer, i1: Value, i2: Value, i3: Value, expand1: list[int], expand2: list[int], expand3: list[int],
              sumdim: list[int], unroll_dim: int = 1) -> Value:
    rank = i1.rank + len(expand1)
    letters = string.ascii_lowercase[:rank]
    terms = ["".join(letter for axis, letter in enumerate(letters) if axis not in expand) for expand in (expand1, expand2, expand3)]
    kept = "".join(letter for axis, letter in enumerate(letters) if axis not in sumdim)
    return _sum_of(g, f"{','.join(terms)}->{kept}", i1, i2, i3)


@imports("aten.trace.default")
def trace(g: Importer, x: Value) -> Value:
    return _sum_of(g, "ii->", _square(g, x))


def _square(g: Importer, x: Value) -> Value:
    if x.shape[0] == x.shape[1]:
        return x
    if not all(isinstance(size, int) for size in x.shape):
        raise g.refuse("the trace of a matrix whose sides are free and differ")
    side = min(x.shape)  # type: ignore[type-var]
    return g.op("slice", x, axes=(0, 1), starts=(0, 0), stops=(side, side))


@imports("aten.linalg_multi_dot.default", "aten.chain_matmul.default")
def multi_dot(g: Importer, tensors: list[Value]) -> Value:
    """The order of products that needs the fewest multiplications where the sizes are known, else from the left."""
    values = [g.cast(tensor, g.result_dtype()) for tensor in tensors]
    if not all(isinstance(size, int) for value in values for size in value.shape):
        result = values[0]
        for value in values[1:]:
            result = g.op("matmul", result, value)
        return result
    if len(values) == 1:
        return values[0]
    # Vectors at the ends are a row and a column.
    shapes = [[fixed(size) for size in value.shape] for value in values]
    sizes = [1 if len(shapes[0]) == 1 else shapes[0][0], *(shape[0] for shape in shapes[1:]),
             1 if len(shapes[-1]) == 1 else shapes[-1][-1]]
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(len(values))}
    for span in range(1, len(values)):
        for first in range(len(values) - span):
            last = first + span
            best[first, last] = min((best[first, cut][0] + best[cut + 1, last][0]
                                     + sizes[first] * sizes[cut + 1] * sizes[last + 1], cut) for cut in range(first, last))

    def build(first: int, last: int) -> Value:
        if first == last:
            return values[first]
        cut = best[first, last][1]
        return g.op("matmul", build(first, cut), build(cut + 1, last))

    return build(0, len(values) - 1)


@imports("aten.kron.default")
def kron(g: Importer, x: Value, y: Value) -> Value:
    dtype, rank = g.result_dtype(), max(x.rank, y.rank)
    left, right = ((1,) * (rank - item.rank) + item.shape for item in (x, y))
    a = _reshaped(g, g.cast(x, dtype), [size for pair in zip(left, (1,) * rank, strict=True) for size in pair])
    b = _reshaped(g, g.cast(y, dtype), [size for pair in zip((1,) * rank, right, strict=True) for size in pair])
    return _reshaped(g, g.op("multiply", a, b), [product([m, n]) for m, n in zip(left, right, strict=True)])


# Vectors and distances ---------------------------------------------------------------------------------------------------


@imports("aten.linalg_cross.default")
def linalg_cross(g: Importer, x: Value, y: Value, *, dim: int = -1) -> Value:
    dtype = g.result_dtype()
    return g.op("cross", g.cast(x, dtype), g.cast(y, dtype), axis=dim)


@imports("aten.cross.default")
def cross(g: Importer, x: Value, y: Value, dim: int | None = None) -> Value:
    """Without a dim: the first axis of 3."""
    if dim is None:
        shape = g.result_shape()
        if 3 not in shape:
            raise g.refuse("no axis is known to be of 3")
        dim = shape.index(3)
    return linalg_cross(g, x, y, dim=dim)


@imports("aten.cdist.default", "aten._cdist_forward.default")
def cdist(g: Importer, x: Value, y: Value, p: float = 2.0, compute_mode: int | None = None) -> Value:
    return g.op("cdist", x, y, p=float(p))


@imports("aten._cdist_backward.default")
def cdist_backward(g: Importer, grad: Value, x1: Value, x2: Value, p: float, cdist: Value) -> Value:
    """The gradient of x1 [..., n, d], of distances [..., n, m]: of each pair sign(x1 - x2) · |x1 - x2|^(p - 1) / distance^(p - 1) times
    the gradient, 0 where the distance is, as in PyTorch's kernel."""
    if p not in (1.0, 2.0):
        raise g.refuse(f"the gradient of cdist with p={p}: only 1 and 2 are known")
    apart = g.op("subtract", g.op("expand_dims", x1, axis=(x1.rank - 1,)), g.op("expand_dims", x2, axis=(x2.rank - 2,)))
    if p == 1.0:
        apart = g.op("sign", apart)
    else:
        zero = g.op("equal", cdist, 0.0)
        grad = g.op("where", zero, g.tensor(0.0, grad.dtype), g.op("divide", grad, g.op("where", zero, g.tensor(1.0, cdist.dtype), cdist)))
    weighted = g.op("multiply", apart, g.op("expand_dims", grad, axis=(grad.rank,)))
    return g.op("sum", weighted, axis=(weighted.rank - 2,))


@imports("aten._pdist_forward.default", "aten.pdist.default")
def pdist(g: Importer, x: Value, p: float = 2.0) -> Value:
    """The part of `cdist` above the diagonal, row by row."""
    rows = x.shape[0]
    if not isinstance(rows, int):
        raise g.refuse("pdist of a number of rows that is not fixed")
    if rows < 2:
        return g.op("full", shape=(0,), fill_value=0.0, dtype=x.dtype)
    pairs = g.op("triu_indices", rows=rows, columns=rows, k=1, dtype=DType.INT64)
    row, column = (g.op("select", pairs, axis=0, index=index) for index in (0, 1))
    flat = g.op("reshape", g.op("cdist", x, x, p=float(p)), shape=(rows * rows,))
    return g.op("take", flat, g.op("add", g.op("multiply", row, rows), column), axis=0)


@imports("aten._euclidean_dist.default")
def euclidean_dist(g: Importer, x: Value, y: Value) -> Value:
    return g.op("cdist", x, y)


@imports("aten.pairwise_distance.default")
def pairwise_distance(g: Importer, x: Value, y: Value, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Value:
    dtype = operands_dtype(g, x, y)
    gap = g.op("subtract", g.cast(x, dtype), g.cast(y, dtype))
    if eps:
        gap = g.op("add", gap, float(eps))
    return g.op("vector_norm", gap, axis=(gap.rank - 1,), keepdims=keepdim, ord=float(p))


@imports("aten.cosine_similarity.default")
def cosine_similarity(g: Importer, x: Value, y: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    dtype = g.result_dtype()
    x, y = (g.op("expand_dims", item, axis=(0,)) if x.rank == y.rank == 0 else item for item in (g.cast(x, dtype), g.cast(y, dtype)))
    return g.op("cosine_similarity", x, y, axis=dim, eps=float(eps))


rebuilds("linear")(torch.nn.functional.linear)
rebuilds("matmul")(torch.matmul)


@rebuilds("einsum")
def rebuild_einsum(*operands: torch.Tensor, equation: str) -> torch.Tensor:
    return torch.einsum(equation, *operands)


@rebuilds("cross")
def rebuild_cross(x: torch.Tensor, y: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    return torch.linalg.cross(x, y, dim=axis)


@rebuilds("cdist")
def rebuild_cdist(x: torch.Tensor, y: torch.Tensor, *, p: float = 2.0) -> torch.Tensor:
    return torch.cdist(x, y, p, "donot_use_mm_for_euclid_dist")  # the other way loses small distances


@rebuilds("cosine_similarity")
def rebuild_cosine_similarity(x: torch.Tensor, y: torch.Tensor, *, axis: int = 1, eps: float = 1e-8) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(x, y, dim=axis, eps=eps)
