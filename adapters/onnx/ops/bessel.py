"""Modified Bessel functions of the first kind, in float64: the reference kernels' series."""

from __future__ import annotations

import math

from adapters.onnx.kernels import compute, number
from adapters.onnx.lowering import Lowering, Tensor
from adapters.onnx.ops.elementwise import apply, like, select
from adapters.onnx.ops.special import in_float64, polynomial
from adapters.onnx.registry import lowers
from converter.ir import DType
from converter.ops import bessel


def _scaled(g: Lowering, x: Tensor, order: int) -> Tensor:
    size = apply(g, "Abs", x)
    bound = number(g, bessel.NEAR, x)
    near = compute(g, "Min", size, bound, spec=like(x))
    # In a variable up to 1: ONNX Runtime takes a term that float32 rounds to 0 for 0 and leaves it out, in float64 too.
    part = apply(g, "Div", near, bound)
    series = polynomial(g, bessel.power_series(order), apply(g, "Mul", part, part))
    small = apply(g, "Mul", series, apply(g, "Exp", apply(g, "Neg", near)))
    far = compute(g, "Max", size, bound, spec=like(x))
    root = apply(g, "Sqrt", apply(g, "Mul", far, number(g, 2 * math.pi, x)))
    large = apply(g, "Div", polynomial(g, bessel.asymptotic_series(order), apply(g, "Reciprocal", far)), root)
    if order % 2:
        small = apply(g, "Mul", small, apply(g, "Mul", near, number(g, 0.5, x)))
    value = select(g, apply(g, "LessOrEqual", size, bound, dtype=DType.BOOL), small, large)
    if order % 2:
        value = apply(g, "Mul", value, apply(g, "Sign", x))
    return select(g, apply(g, "IsNaN", x, dtype=DType.BOOL), x, value)


@lowers("i0e")
@in_float64
def i0e(g: Lowering, x: Tensor) -> Tensor:
    return _scaled(g, x, 0)


@lowers("i1e")
@in_float64
def i1e(g: Lowering, x: Tensor) -> Tensor:
    return _scaled(g, x, 1)
