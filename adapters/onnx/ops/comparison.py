"""Comparison, logic, and tests for NaN and infinities."""

from __future__ import annotations

from collections.abc import Callable

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.elementwise import apply, unary
from adapters.onnx.registry import lowers
from converter.ir import DType, TensorSpec

COMPARISONS = {"equal": "Equal", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater", "greater_equal": "GreaterOrEqual"}
LOGIC = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}


def _boolean(op_type: str) -> Callable[..., Tensor]:
    def lowering(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
        return apply(g, op_type, x, y, dtype=DType.BOOL)

    return lowering


for _op, _type in {**COMPARISONS, **LOGIC}.items():
    lowers(_op)(_boolean(_type))
lowers("logical_not")(unary("Not"))


@lowers("not_equal")
def not_equal(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    if x.dtype is DType.BOOL:
        return apply(g, "Xor", x, y)
    return apply(g, "Not", apply(g, "Equal", x, y, dtype=DType.BOOL))


def _constant(g: Lowering, x: Tensor, value: bool) -> Tensor:
    filled = g.constant(value, DType.BOOL)
    return g.node("Expand", filled, g.sizes(x.shape), spec=TensorSpec(DType.BOOL, x.shape)) if x.rank else filled


@lowers("isnan")
def isnan(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "IsNaN", x, dtype=DType.BOOL) if x.dtype.is_float else _constant(g, x, False)


@lowers("isinf")
def isinf(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "IsInf", x, dtype=DType.BOOL) if x.dtype.is_float else _constant(g, x, False)
