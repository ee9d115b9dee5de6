"""Complex numbers as pairs of real tensors."""

from __future__ import annotations

import math
from typing import Any

from adapters.onnx.complex_numbers.pairs import Pair, apart, join, lowers_complex, split, takes_pairs
from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute, number
from adapters.onnx.ops.elementwise import apply, is_negative, select
from adapters.onnx.ops.manipulation import expand
from adapters.onnx.registry import lowerings, lowers
from converter.ir import DType
from converter.ops.complex_numbers import REAL_OF

# Making and taking apart -------------------------------------------------------------------------------------------------


@lowers("real")
@takes_pairs
def real(g: Lowering, x: Pair) -> Tensor:
    return x.real


@lowers("imag")
@takes_pairs
def imag(g: Lowering, x: Pair) -> Tensor:
    return x.imag


@lowers("complex")
@takes_pairs
def complex_(g: Lowering, real: Tensor, imag: Tensor) -> Pair:
    shape = g.result.shape
    return Pair(expand(g, real, shape), expand(g, imag, shape))


@lowers("view_as_complex")
@takes_pairs
def view_as_complex(g: Lowering, x: Tensor) -> Pair:
    return split(g, x)


@lowers("view_as_real")
@takes_pairs
def view_as_real(g: Lowering, x: Pair) -> Tensor:
    return join(g, x)


@lowers_complex("astype")
def astype(g: Lowering, x: Pair | Tensor, *, dtype: DType) -> Pair | Tensor:
    if not isinstance(x, Pair):
        part = g.cast(x, REAL_OF[dtype])
        return Pair(part, expand(g, number(g, 0, part), part.shape))
    if dtype.is_complex:
        return Pair(g.cast(x.real, REAL_OF[dtype]), g.cast(x.imag, REAL_OF[dtype]))
    if dtype is DType.BOOL:
        return apply(g, "Or", g.cast(x.real, DType.BOOL), g.cast(x.imag, DType.BOOL))
    return lowerings()["astype"](g, x.real, dtype=dtype)


@lowers_complex("full")
def full(g: Lowering, *, shape: Any, fill_value: Any, dtype: DType) -> Pair:
    part, value = REAL_OF[dtype], fill_value if isinstance(fill_value, complex) else complex(fill_value)
    ordinary = lowerings()["full"]
    return Pair(ordinary(g, shape=shape, fill_value=value.real, dtype=part), ordinary(g, shape=shape, fill_value=value.imag, dtype=part))


@lowers_complex("pad")
def pad(g: Lowering, x: Pair, *, value: Any = 0, **attributes: Any) -> Pair:
    ordinary = lowerings()["pad"]
    return Pair(ordinary(g, x.real, value=value, **attributes), ordinary(g, x.imag, value=0, **attributes))


# Arithmetic ----------------------------------------------------------------------------------------------------------------


def product(g: Lowering, x: Pair, y: Pair, times: Any = None) -> Pair:
    """(a + bi)(c + di), by any bilinear `times`."""
    times = times or (lambda a, b: apply(g, "Mul", a, b))
    real = apply(g, "Sub", times(x.real, y.real), times(x.imag, y.imag))
    return Pair(real, apply(g, "Add", times(x.real, y.imag), times(x.imag, y.real)))


@lowers_complex("multiply")
def multiply(g: Lowering, x: Pair, y: Pair) -> Pair:
    return product(g, x, y)


@lowers_complex("square")
def square(g: Lowering, x: Pair) -> Pair:
    return product(g, x, x)


@lowers_complex("divide")
def divide(g: Lowering, x: Pair, y: Pair) -> Pair:
    """By the larger part of the divisor first, so that no square overflows (Smith, 1962)."""
    larger = apply(g, "GreaterOrEqual", apply(g, "Abs", y.real), apply(g, "Abs", y.imag), dtype=DType.BOOL)
    big, small = select(g, larger, y.real, y.imag), select(g, larger, y.imag, y.real)
    ratio = apply(g, "Div", small, big)
    below = apply(g, "Add", big, apply(g, "Mul", small, ratio))
    first, second = select(g, larger, x.real, x.imag), select(g, larger, x.imag, x.real)
    real = apply(g, "Div", apply(g, "Add", first, apply(g, "Mul", second, ratio)), below)
    turned = apply(g, "Div", apply(g, "Sub", second, apply(g, "Mul", first, ratio)), below)
    return Pair(real, select(g, larger, turned, apply(g, "Neg", turned)))


@lowers_complex("reciprocal")
def reciprocal(g: Lowering, x: Pair) -> Pair:
    one, zero = number(g, 1, x.real), number(g, 0, x.real)
    return divide(g, Pair(one, zero), x)


@lowers_complex("abs")
def absolute(g: Lowering, x: Pair) -> Tensor:
    return lowerings()["hypot"](g, x.real, x.imag)


@lowers_complex("exp")
def exp(g: Lowering, x: Pair) -> Pair:
    size = apply(g, "Exp", x.real)
    return Pair(apply(g, "Mul", size, apply(g, "Cos", x.imag)), apply(g, "Mul", size, apply(g, "Sin", x.imag)))


@lowers_complex("log")
def log(g: Lowering, x: Pair) -> Pair:
    return Pair(apply(g, "Log", absolute(g, x)), lowerings()["atan2"](g, x.imag, x.real))


@lowers_complex("equal", "not_equal")
def equal(g: Lowering, x: Pair, y: Pair) -> Tensor:
    same = apply(g, "And", apply(g, "Equal", x.real, y.real, dtype=DType.BOOL), apply(g, "Equal", x.imag, y.imag, dtype=DType.BOOL))
    current = g.current.op
    return apply(g, "Not", same) if current == "not_equal" else same


@lowers_complex("matmul")
def matmul(g: Lowering, x: Pair, y: Pair) -> Pair:
    return product(g, x, y, lambda a, b: lowerings()["matmul"](g, a, b))


@lowers_complex("linear")
def linear(g: Lowering, x: Pair, weight: Pair, bias: Pair | None = None) -> Pair:
    y = product(g, x, weight, lambda a, b: lowerings()["linear"](g, a, b, None))
    return y if bias is None else Pair(apply(g, "Add", y.real, bias.real), apply(g, "Add", y.imag, bias.imag))


@lowers_complex("einsum")
def einsum(g: Lowering, *operands: Pair, equation: str) -> Pair:
    if len(operands) > 2:
        raise g.refuse("an einsum of more than two complex tensors")
    whole = lowerings()["einsum"]
    if len(operands) == 1:
        return Pair(whole(g, operands[0].real, equation=equation), whole(g, operands[0].imag, equation=equation))
    return product(g, operands[0], operands[1], lambda a, b: whole(g, a, b, equation=equation))


@lowers_complex("isnan", "isinf", "isfinite")
def kind(g: Lowering, x: Pair) -> Tensor:
    name = g.current.op
    parts = [lowerings()[name](g, part) for part in (x.real, x.imag)]
    return compute(g, "And" if name == "isfinite" else "Or", *parts, spec=parts[0].spec)


# Functions -----------------------------------------------------------------------------------------------------------------


@lowers_complex("sign")
def sign(g: Lowering, x: Pair) -> Pair:
    """x / |x|, and 0 of 0."""
    size = absolute(g, x)
    nothing = apply(g, "Equal", size, number(g, 0, size), dtype=DType.BOOL)
    below = select(g, nothing, number(g, 1, size), size)
    return Pair(apply(g, "Div", x.real, below), apply(g, "Div", x.imag, below))


@lowers_complex("sqrt")
def sqrt(g: Lowering, x: Pair) -> Pair:
    """The larger part is √((|x| + |a|) / 2), the other b over its double."""
    half, zero = number(g, 0.5, x.real), number(g, 0, x.real)
    size = apply(g, "Add", absolute(g, x), apply(g, "Abs", x.real))
    large = apply(g, "Sqrt", apply(g, "Mul", size, half))
    nothing = apply(g, "Equal", large, zero, dtype=DType.BOOL)
    small = apply(g, "Div", apply(g, "Mul", apply(g, "Abs", x.imag), half), select(g, nothing, number(g, 1, x.real), large))
    right = apply(g, "GreaterOrEqual", x.real, zero, dtype=DType.BOOL)
    imag = select(g, right, small, large)
    # On the cut, the sign of a zero says which side is meant.
    return Pair(select(g, right, large, small), select(g, is_negative(g, x.imag), apply(g, "Neg", imag), imag))


@lowers_complex("rsqrt")
def rsqrt(g: Lowering, x: Pair) -> Pair:
    return reciprocal(g, sqrt(g, x))


def _circular(outer: str, inner: str, negative: bool, swapped: bool) -> Any:
    """cos and cosh of the one part times sin and sinh of the other."""
    partner = {"Cos": "Sin", "Sin": "Cos", "cosh": "sinh", "sinh": "cosh"}

    def function(g: Lowering, x: Pair) -> Pair:
        turning, growing = (x.imag, x.real) if swapped else (x.real, x.imag)
        grown = {name: lowerings()[name](g, growing) for name in ("cosh", "sinh")}
        turned = {name: apply(g, name, turning) for name in ("Cos", "Sin")}
        real = apply(g, "Mul", turned[outer], grown[inner])
        imag = apply(g, "Mul", turned[partner[outer]], grown[partner[inner]])
        return Pair(real, apply(g, "Neg", imag) if negative else imag)

    return function


lowers_complex("cos")(_circular("Cos", "cosh", True, False))
lowers_complex("sin")(_circular("Sin", "cosh", False, False))
lowers_complex("cosh")(_circular("Cos", "cosh", False, True))
lowers_complex("sinh")(_circular("Cos", "sinh", False, True))


@lowers_complex("log2", "log10")
def log_to_a_base(g: Lowering, x: Pair) -> Pair:
    name = g.current.op
    y, base = log(g, x), number(g, math.log(2 if name == "log2" else 10), x.real)
    return Pair(apply(g, "Div", y.real, base), apply(g, "Div", y.imag, base))


@lowers_complex("vector_norm")
def vector_norm(g: Lowering, x: Pair, **attributes: Any) -> Tensor:
    return lowerings()["vector_norm"](g, absolute(g, x), **attributes)


@lowers_complex("var")
def var(g: Lowering, x: Pair, **attributes: Any) -> Tensor:
    ordinary = lowerings()["var"]
    return apply(g, "Add", ordinary(g, x.real, **attributes), ordinary(g, x.imag, **attributes))


@lowers_complex("scatter")
def complex_scatter(g: Lowering, *operands: Any, reduction: str, **attributes: Any) -> Pair:
    if reduction == "multiply":
        raise g.refuse("ONNX has no complex arithmetic, which products of what is scattered would need")
    ordinary: Pair = apart(g, lowerings()["scatter"], *operands, reduction=reduction, **attributes)
    return ordinary
