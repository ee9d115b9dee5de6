"""Matrix products, affine maps, and distances."""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.layouts import Layout
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.registry import lowers
from converter.ir import DType, TensorSpec
from converter.ops._rules import broadcast_dims

# ONNX Runtime multiplies matrices of these; narrower integers go through int32, whose low bits are the same.
PRODUCTS = frozenset({DType.FLOAT16, DType.FLOAT32, DType.FLOAT64, DType.INT32, DType.INT64, DType.UINT32, DType.UINT64})


@lowers("linear")
@through_float32
def linear(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.rank == 2 and weight.rank == 2 and x.dtype.is_float:
        return g.node("Gemm", x, weight, bias, transB=1)
    if weight.rank == 1:
        y = multiply_matrices(g, x, weight)
    else:
        # A weight with other uses is transposed at run time, which ONNX Runtime folds into the product.
        flipped = g.rearranged([weight], Layout((("transpose", (1, 0)),)), weight.name) or g.transpose(weight, (1, 0))
        y = multiply_matrices(g, x, flipped)
    return y if bias is None else g.node("Add", y, bias, spec=y.spec)


@lowers("matmul")
def matmul(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    return multiply_matrices(g, x, y)


def multiply_matrices(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    """x · y by one MatMul, in a dtype that ONNX Runtime multiplies."""
    rows, columns = x.shape[-2:-1], y.shape[-1:] if y.rank > 1 else ()
    shape = (*broadcast_dims(x.shape[:-2], y.shape[:-2]), *rows, *columns)
    dtype = x.dtype
    wide = dtype if dtype in PRODUCTS else DType.FLOAT32 if dtype.is_float else DType.INT32
    result = g.node("MatMul", g.cast(x, wide), g.cast(y, wide), spec=TensorSpec(wide, shape))
    return g.cast(result, dtype)


# Vectors and distances ---------------------------------------------------------------------------------------------------
