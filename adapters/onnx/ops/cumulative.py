"""Running sums along one axis."""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute
from adapters.onnx.registry import lowers
from converter.ops._rules import axis_of


@lowers("cumulative_sum")
def cumulative_sum(g: Lowering, x: Tensor, *, axis: int) -> Tensor:
    return compute(g, "CumSum", x, extra=(g.constant(axis_of(axis, x.rank)),), spec=x.spec)
