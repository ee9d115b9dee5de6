"""Matrix products, affine maps, and distances."""

from __future__ import annotations

import math
import string

import numpy as np

from converter import formulas
from converter.dims import Dim
from converter.facts import Facts
from converter.formulas import Space, Term, dtype_of
from converter.formulas import widened as in_float32
from converter.ir import Array, DType, TensorSpec
from converter.ops._contraction import contracted
from converter.ops._rules import axis_of, broadcast_dims, require, require_float, require_rank, require_size, same_dtype
from converter.opset import op


def widened(x: Array) -> Array:
    """float16 and bfloat16 as float32, in which their products are summed; others as they are."""
    return x.astype(np.float32) if x.dtype.itemsize < 4 and x.dtype.kind not in "biu" else x


def _linear(x: TensorSpec, weight: TensorSpec, bias: TensorSpec | None) -> TensorSpec:
    require_rank(weight, 1, 2, what="the weight")
    require(x.rank >= 1, "too few axes of the input", expected="at least 1", received=x)
    dtype = same_dtype(x, weight, bias)
    require_size(x.shape[-1], weight.shape[-1], "the last axis of the input")
    if bias is not None:
        require(broadcast_dims(weight.shape[:-1], bias.shape) == weight.shape[:-1], "wrong shape of the bias",
                expected=str(list(map(str, weight.shape[:-1]))), received=bias)
    return TensorSpec(dtype, x.shape[:-1] + weight.shape[:-1])


@formulas.widened
def _mapped(f: Space, x: Term, weight: Term, bias: Term | None) -> Term:
    y = f.matmul(x, weight if weight.ndim == 1 else f.permute_dims(weight, axes=(1, 0)))
    return y if bias is None else y + bias


@op(infer=_linear, formula=_mapped, facts=Facts(finite=True, layer=True))
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x · weightᵀ + bias: torch.nn.functional.linear.

    x: [..., in]; weight: [out, in]; bias: [out]. y: [..., out]. A weight of shape [in] gives y: [...].
    """
    # One product of matrices: NumPy takes leading axes one at a time.
    rows = widened(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = np.matmul(rows, widened(weight).T).reshape(x.shape[:-1] + weight.shape[:-1])
    return np.asarray(y if bias is None else y + widened(bias)).astype(x.dtype, copy=False)


def _matmul(x: TensorSpec, y: TensorSpec) -> TensorSpec:
    dtype = same_dtype(x, y)
    require(dtype is not DType.BOOL, "a dtype that this operator does not take", received=dtype)
    require(x.rank >= 1 and y.rank >= 1, "too few axes", expected="at least 1", received=f"{x} and {y}")
    require_size(y.shape[-2 if y.rank > 1 else -1], x.shape[-1], "the summed axis of y")
    rows, columns = x.shape[-2:-1], y.shape[-1:] if y.rank > 1 else ()
    return TensorSpec(dtype, (*broadcast_dims(x.shape[:-2], y.shape[:-2]), *rows, *columns))


@op(infer=_matmul, facts=Facts(finite=True))
def matmul(x: Array, y: Array) -> Array:
    """The matrix product x · y, as the Python Array API's and NumPy's matmul.

    x: [..., rows, inner]; y: [..., inner, columns]; leading axes broadcast. A vector x is one row, a vector y one column,
    which the result then lacks.
    """
    return np.asarray(np.matmul(widened(x), widened(y))).astype(x.dtype, copy=False)


def parse_equation(equation: str, ranks: tuple[int, ...]) -> tuple[list[str], str]:
    """An einsum's terms and result, a letter an axis, for operands of these ranks: the ellipsis spelt out as capitals that
    the equation does not use, and an implicit result written out in alphabetical order. Raises `GraphError`."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    require(len(terms) == len(ranks), "an equation for another number of operands", expected=f"{len(ranks)} terms", received=equation)
    for term in (*terms, right):
        letters = term.replace("...", "", 1)
        require(all(letter in string.ascii_letters for letter in letters), "not an einsum equation",
                expected="letters, '...', ',' and '->'", received=equation)
    spare = [letter for letter in reversed(string.ascii_letters) if letter not in text]
    extra = 0
    for term, rank in zip(terms, ranks, strict=True):
        named = len(term.replace("...", ""))
        require(named == rank or "..." in term and named < rank, "a term for another number of axes",
                expected=f"{rank} axes", received=term)
        extra = max(extra, rank - named if "..." in term else 0)
    require(extra <= len(spare), "too many axes for an einsum", received=equation)
    hidden = "".join(spare[:extra])

    def spelt(term: str, rank: int) -> str:
        count = rank - len(term.replace("...", ""))
        return term.replace("...", hidden[len(hidden) - count:])

    full = [spelt(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    if arrow:
        result = right.replace("...", hidden)
    else:
        counts = left.replace("...", "").replace(",", "")
        result = (hidden if "..." in left else "") + "".join(sorted(letter for letter in set(counts) if counts.count(letter) == 1))
    require(len(set(result)) == len(result) and set(result) <= set("".join(full)), "not a result of this einsum",
            expected="letters of the terms, each once", received=equation)
    return full, result


def letter_sizes(terms: list[str], shapes: list[tuple[Dim, ...]]) -> dict[str, Dim]:
    """The size of each letter; a size of 1 stretches to another."""
    sizes: dict[str, Dim] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for letter, size in zip(term, shape, strict=True):
            if sizes.get(letter, 1) == 1:
                sizes[letter] = size
            elif size != 1:
                require_size(size, sizes[letter], f"the axis {letter!r}")
                sizes[letter] = size if isinstance(size, int) else sizes[letter]
    return sizes


def _einsum(*operands: TensorSpec, equation: str) -> TensorSpec:
    require(len(operands) >= 1, "einsum needs an operand", received=equation)
    dtype = same_dtype(*operands)
    require(dtype is not DType.BOOL, "a dtype that this operator does not take", received=dtype)
    terms, result = parse_equation(equation, tuple(operand.rank for operand in operands))
    sizes = letter_sizes(terms, [operand.shape for operand in operands])
    return TensorSpec(dtype, tuple(sizes[letter] for letter in result))


def _contraction(f: Space, *operands: Term, equation: str) -> Term:
    """A product of two is one of matrices, which sums in float32; of more, what is between stays in it."""
    if len(operands) > 2 and dtype_of(operands[0]).is_float and dtype_of(operands[0]).itemsize < 4:
        return formulas.widened(_contraction)(f, *operands, equation=equation)
    terms, result = parse_equation(equation, tuple(operand.ndim for operand in operands))
    sizes = letter_sizes(terms, [tuple(operand.shape) for operand in operands])
    return contracted(f, list(zip(operands, terms, strict=True)), result, sizes)


@op(infer=_einsum, formula=_contraction)
def einsum(*operands: Array, equation: str) -> Array:
    """The sum over products that `equation` writes: torch.einsum and numpy.einsum.

    A term for each operand, a letter for each of its axes ("bij,bjk->bik"); letters that the result lacks are summed; a
    letter twice in one term takes the diagonal; "..." stands for axes that broadcast. Without "->", the result has the
    letters that occur once, in alphabetical order (capitals first), after the axes of "...".
    """
    terms, result = parse_equation(equation, tuple(operand.ndim for operand in operands))
    arrays = [widened(operand) for operand in operands]
    sizes = letter_sizes(terms, [array.shape for array in arrays])
    for index, (term, array) in enumerate(zip(terms, arrays, strict=True)):
        arrays[index] = np.broadcast_to(array, tuple(sizes[letter] for letter in term))  # type: ignore[misc]
    y = np.einsum(f"{','.join(terms)}->{result}", *arrays, optimize=len(arrays) > 1)
    return np.asarray(y).astype(operands[0].dtype, copy=False)


def _cross(x: TensorSpec, y: TensorSpec, *, axis: int = -1) -> TensorSpec:
    dtype = same_dtype(x, y)
    require(x.rank == y.rank, "operands of different numbers of axes", expected=str(x), received=y)
    place = axis_of(axis, x.rank)
    for spec in (x, y):
        require_size(spec.shape[place], 3, "the axis of the cross product")
    return TensorSpec(dtype, broadcast_dims(x.shape, y.shape))


@op(infer=_cross)
def cross(f: Space, x: Term, y: Term, *, axis: int = -1) -> Term:
    """The cross product of the vectors of 3 numbers along `axis`; other axes broadcast: torch.linalg.cross."""
    first, second = (f.remainder(f.arange(start=start, stop=start + 3, dtype=DType.INT64), 3) for start in (1, 2))
    return (f.take(x, first, axis=axis) * f.take(y, second, axis=axis)) - (f.take(x, second, axis=axis) * f.take(y, first, axis=axis))


def _cdist(x: TensorSpec, y: TensorSpec, *, p: float = 2.0) -> TensorSpec:
    dtype = same_dtype(x, y)
    require_float(x)
    require(x.rank >= 2 and y.rank >= 2, "too few axes", expected="[..., points, size]", received=f"{x} and {y}")
    require_size(y.shape[-1], x.shape[-1], "the last axis of y")
    require(p >= 0, "no such norm", expected="p of 0 and up", received=p)
    return TensorSpec(dtype, (*broadcast_dims(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-2]))


@in_float32
def _distances(f: Space, x: Term, y: Term, *, p: float) -> Term:
    gap = f.expand_dims(x, axis=(-2,)) - f.expand_dims(y, axis=(-3,))
    if p == 0:
        return f.sum(f.where(f.isnan(gap), gap, f.abs(f.sign(gap))), axis=(-1,))
    return f.vector_norm(f.where(f.isnan(gap), 0.0, gap) if p == math.inf else gap, axis=(-1,), ord=p)


@op(infer=_cdist, formula=_distances)
def cdist(x: Array, y: Array, *, p: float = 2.0) -> Array:
    """The distance of each row of x to each row of y in the p-norm: torch.cdist.

    x: [..., rows, size]; y: [..., others, size]; leading axes broadcast. d: [..., rows, others]. p = 0 counts the
    coordinates that differ, p = infinity takes the largest difference, past NaN.
    """
    gap = np.abs(widened(x)[..., :, None, :] - widened(y)[..., None, :, :])
    if p == 0:
        d = np.sign(gap).sum(axis=-1)
    elif p == np.inf:
        d = np.fmax.reduce(gap, axis=-1, initial=0)
    elif p == 1:
        d = gap.sum(axis=-1)
    elif p == 2:
        d = np.sqrt((gap * gap).sum(axis=-1))
    else:
        d = (gap ** p).sum(axis=-1) ** (1 / p)
    return np.asarray(d).astype(x.dtype, copy=False)


def _cosine(x: TensorSpec, y: TensorSpec, *, axis: int = 1, eps: float = 1e-8) -> TensorSpec:
    dtype = same_dtype(x, y)
    require_float(x)
    shape = broadcast_dims(x.shape, y.shape)
    place = axis_of(axis, len(shape))
    return TensorSpec(dtype, shape[:place] + shape[place + 1:])


@in_float32
def _cosines(f: Space, x: Term, y: Term, *, axis: int, eps: float) -> Term:
    shape = broadcast_dims(tuple(x.shape), tuple(y.shape))
    place = axis_of(axis, len(shape))
    parts = [item if tuple(item.shape) == shape else f.broadcast_to(item, shape=shape) for item in (x, y)]
    first, second = (item / f.maximum(f.vector_norm(item, axis=(place,), keepdims=True), eps) for item in parts)
    return f.sum(first * second, axis=(place,))


@op(infer=_cosine, formula=_cosines)
def cosine_similarity(x: Array, y: Array, *, axis: int = 1, eps: float = 1e-8) -> Array:
    """The sum of x * y along `axis` over max(|x|, eps) * max(|y|, eps): torch.nn.functional.cosine_similarity.

    x, y: shapes that broadcast; the result has that shape without `axis`.
    """
    wide_x, wide_y = np.broadcast_arrays(widened(x), widened(y))
    norms = [np.maximum(np.sqrt((item * item).sum(axis=axis, keepdims=True)), item.dtype.type(eps)) for item in (wide_x, wide_y)]
    return np.asarray(((wide_x / norms[0]) * (wide_y / norms[1])).sum(axis=axis)).astype(x.dtype, copy=False)
