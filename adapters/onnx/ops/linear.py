"""Matrix products, affine maps, and distances."""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.layouts import Layout
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.registry import lowers
from converter.dims import Dim, product
from converter.ir import DType, TensorSpec
from converter.ops._rules import broadcast_dims
from converter.ops.linear import letter_sizes, parse_equation

# ONNX Runtime multiplies matrices of these; narrower integers go through int32, whose low bits are the same.
PRODUCTS = frozenset({DType.FLOAT16, DType.FLOAT32, DType.FLOAT64, DType.INT32, DType.INT64, DType.UINT32, DType.UINT64})


@lowers("linear")
@through_float32
def linear(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.rank == 2 and weight.rank == 2 and x.dtype.is_float:
        return g.node("Gemm", x, weight, bias, transB=1)
    if weight.rank == 1:
        y = multiplied(g, x, weight)
    else:
        # A weight with other uses is transposed at run time, which ONNX Runtime folds into the product.
        flipped = g.rearranged([weight], Layout((("transpose", (1, 0)),)), weight.name) or g.transpose(weight, (1, 0))
        y = multiplied(g, x, flipped)
    return y if bias is None else g.node("Add", y, bias, spec=y.spec)


@lowers("matmul")
def matmul(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    return multiplied(g, x, y)


def multiplied(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    """x · y by one MatMul, in a dtype that ONNX Runtime multiplies."""
    rows, columns = x.shape[-2:-1], y.shape[-1:] if y.rank > 1 else ()
    shape = (*broadcast_dims(x.shape[:-2], y.shape[:-2]), *rows, *columns)
    dtype = x.dtype
    wide = dtype if dtype in PRODUCTS else DType.FLOAT32 if dtype.is_float else DType.INT32
    result = g.node("MatMul", g.cast(x, wide), g.cast(y, wide), spec=TensorSpec(wide, shape))
    return g.cast(result, dtype)


# Einsum ------------------------------------------------------------------------------------------------------------------


@lowers("einsum")
def einsum(g: Lowering, *operands: Tensor, equation: str) -> Tensor:
    """Products of pairs from the left; each a MatMul between transposes and reshapes."""
    terms, result = parse_equation(equation, tuple(operand.rank for operand in operands))
    if any(len(set(term)) != len(term) for term in terms):
        return _whole(g, operands, terms, result)
    sizes = letter_sizes(terms, [operand.shape for operand in operands])
    items = [_stretched(g, operand, term, sizes) for operand, term in zip(operands, terms, strict=True)]
    current, term = items[0]
    for index, (other, letters) in enumerate(items[1:], start=2):
        later = set(result).union(*(rest for _, rest in items[index:]))
        current, term = _pair(g, current, term, other, letters, later)
    current, term = _summed(g, current, term, set(result))
    current, term = _ordered(g, current, term, "".join(letter for letter in result if letter in term))
    # Letters that every operand holds with size 1.
    return g.reshape(current, [sizes[letter] for letter in result])


def _whole(g: Lowering, operands: tuple[Tensor, ...], terms: list[str], result: str) -> Tensor:
    """Diagonals: ONNX's own Einsum."""
    dtype = operands[0].dtype
    kinds = (DType.FLOAT32, DType.FLOAT64, DType.INT32, DType.INT64)
    wide = dtype if dtype in kinds else DType.FLOAT32 if dtype.is_float else DType.INT64
    inputs = [g.cast(operand, wide) for operand in operands]
    spec = TensorSpec(wide, g.result.shape)
    return g.cast(g.node("Einsum", *inputs, spec=spec, equation=f"{','.join(terms)}->{result}"), dtype)


def _stretched(g: Lowering, x: Tensor, term: str, sizes: dict[str, Dim]) -> tuple[Tensor, str]:
    """Without the axes of size 1: what does not vary along a letter does not need it."""
    kept = [axis for axis, size in enumerate(x.shape) if size != 1]
    if len(kept) == len(term):
        return x, term
    return g.reshape(x, [x.shape[axis] for axis in kept]), "".join(term[axis] for axis in kept)


def _summed(g: Lowering, x: Tensor, term: str, needed: set[str]) -> tuple[Tensor, str]:
    axes = [axis for axis, letter in enumerate(term) if letter not in needed]
    if not axes:
        return x, term
    shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    exact = x.dtype in (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64, DType.INT32, DType.INT64)
    wide = x.dtype if exact else DType.FLOAT32 if x.dtype.is_float else DType.INT64
    total = g.node("ReduceSum", g.cast(x, wide), g.constant(axes), spec=TensorSpec(wide, shape), keepdims=0)
    return g.cast(total, x.dtype), "".join(letter for letter in term if letter in needed)


def _ordered(g: Lowering, x: Tensor, term: str, wanted: str) -> tuple[Tensor, str]:
    return g.transpose(x, [term.index(letter) for letter in wanted]), wanted


def _pair(g: Lowering, x: Tensor, left: str, y: Tensor, right: str, later: set[str]) -> tuple[Tensor, str]:
    """The product of two operands, summed over the letters that nothing later needs."""
    x, left = _summed(g, x, left, later | set(right))
    y, right = _summed(g, y, right, later | set(left))
    shared = [letter for letter in left if letter in right]
    batch = [letter for letter in shared if letter in later]
    inner = [letter for letter in shared if letter not in later]
    rows, columns = [letter for letter in left if letter not in right], [letter for letter in right if letter not in left]
    sizes = dict(zip(left, x.shape, strict=True)) | dict(zip(right, y.shape, strict=True))

    def size(letters: list[str]) -> Dim:
        return product([sizes[letter] for letter in letters])

    if not inner:
        # No sum: a product with broadcasting.
        full = "".join(batch + rows + columns)
        a, _ = _ordered(g, x, left, "".join(batch + rows))
        b, _ = _ordered(g, y, right, "".join(batch + columns))
        a = g.reshape(a, [*(sizes[letter] for letter in batch + rows), *[1] * (len(columns) if rows or batch else 0)])
        if rows:
            b = g.reshape(b, [*(sizes[letter] for letter in batch), *[1] * len(rows), *(sizes[letter] for letter in columns)])
        wide = a.dtype if a.dtype in PRODUCTS else DType.FLOAT32 if a.dtype.is_float else DType.INT32
        spec = TensorSpec(wide, tuple(sizes[letter] for letter in full))
        return g.cast(g.node("Mul", g.cast(a, wide), g.cast(b, wide), spec=spec), x.dtype), full
    front = [sizes[letter] for letter in batch]
    # Keep the operands' axes where they are when a MatMul takes them so.
    a, _ = _ordered(g, x, left, "".join(batch + rows + inner))
    b, _ = _ordered(g, y, right, "".join(batch + inner + columns))
    a = g.reshape(a, [*front, size(rows), size(inner)])
    b = g.reshape(b, [*front, size(inner), size(columns)])
    full = "".join(batch + rows + columns)
    return g.reshape(multiplied(g, a, b), [sizes[letter] for letter in full]), full


# Vectors and distances ---------------------------------------------------------------------------------------------------
