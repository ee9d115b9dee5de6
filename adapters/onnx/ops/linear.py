"""Matrix products and affine maps."""

from __future__ import annotations

from adapters.onnx.layouts import Layout
from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.registry import lowers
from converter.ir import TensorSpec


@lowers("linear")
def linear(g: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.rank == 2 and weight.rank == 2:
        return g.node("Gemm", x, weight, bias, transB=1)
    if weight.rank == 1:
        y = g.node("MatMul", x, weight, spec=TensorSpec(x.dtype, x.shape[:-1]))
    else:
        spec = TensorSpec(x.dtype, x.shape[:-1] + weight.shape[:1])
        flipped = g.rearranged([weight], Layout((("transpose", (1, 0)),)), weight.name) or g.transpose(weight, (1, 0))
        y = g.node("MatMul", x, flipped, spec=spec)
    return y if bias is None else g.node("Add", y, bias)
