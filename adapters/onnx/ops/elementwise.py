"""Arithmetic and rounding, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute, computed_in, literal, number
from adapters.onnx.registry import lowers
from converter.ir import DType, TensorSpec
from converter.ops._rules import broadcast_dims


def like(*operands: Tensor, dtype: DType | None = None) -> TensorSpec:
    """The spec of an elementwise result."""
    return TensorSpec(dtype or operands[0].dtype, broadcast_dims(*(item.shape for item in operands)))


def apply(g: Lowering, op_type: str, *operands: Tensor, dtype: DType | None = None, **attributes: Any) -> Tensor:
    """An elementwise ONNX operator whose result has the operands' joint shape."""
    return compute(g, op_type, *operands, dtype=dtype, spec=like(*operands, dtype=dtype), **attributes)


def select(g: Lowering, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`Where`, in logic for booleans."""
    spec = TensorSpec(x.dtype, broadcast_dims(condition.shape, x.shape, y.shape))
    if x.dtype is DType.BOOL:
        chosen = condition if literal(g, x) is True else apply(g, "And", condition, x)
        if literal(g, y) is False:
            return chosen
        return apply(g, "Or", chosen, y if literal(g, x) is True else apply(g, "And", apply(g, "Not", condition), y))
    inner = computed_in(g, "Where", x.dtype)
    result = g.node("Where", condition, g.cast(x, inner), g.cast(y, inner), spec=TensorSpec(inner, spec.shape))
    return g.cast(result, x.dtype)


def binary(op_type: str) -> Callable[..., Tensor]:
    """The lowering to one operator of two operands."""

    def lowering(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
        return apply(g, op_type, x, y)

    return lowering


def unary(op_type: str) -> Callable[..., Tensor]:
    """The lowering to one operator of one operand."""

    def lowering(g: Lowering, x: Tensor) -> Tensor:
        return apply(g, op_type, x)

    return lowering


lowers("subtract")(binary("Sub"))
lowers("divide")(binary("Div"))
lowers("negative")(unary("Neg"))
lowers("abs")(unary("Abs"))
lowers("reciprocal")(unary("Reciprocal"))


@lowers("add")
def add(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    return apply(g, "Or" if x.dtype is DType.BOOL else "Add", x, y)


@lowers("multiply")
def multiply(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    return apply(g, "And" if x.dtype is DType.BOOL else "Mul", x, y)


@lowers("square")
def square(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "And" if x.dtype is DType.BOOL else "Mul", x, x)


@lowers("sign")
def sign(g: Lowering, x: Tensor) -> Tensor:
    result = apply(g, "Sign", x)
    # Of NaN, ONNX Runtime gives NaN.
    return select(g, apply(g, "IsNaN", x, dtype=DType.BOOL), number(g, 0, x), result) if x.dtype.is_float else result


@lowers("fmod")
def fmod(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    if x.dtype.is_integer:
        # ONNX Runtime takes this remainder of integers in float64, which is exact to 53 bits only.
        x, y = _divisible(g, x, y)
        return apply(g, "Sub", x, apply(g, "Mul", apply(g, "Div", x, y), y))
    return apply(g, "Mod", x, y, fmod=1)


def _wrong_side(g: Lowering, rest: Tensor, y: Tensor) -> Tensor:
    """Whether a remainder of `fmod` has not the divisor's sign, and is not 0."""
    divisor = literal(g, y)
    if divisor is not None and divisor == divisor and divisor != 0:
        return apply(g, "Less" if divisor > 0 else "Greater", rest, number(g, 0, y), dtype=DType.BOOL)
    return apply(g, "Less", apply(g, "Mul", rest, apply(g, "Sign", y)), number(g, 0, y), dtype=DType.BOOL)


def _divisible(g: Lowering, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Integers to divide and their divisors, none of which is -1: the dividends are negated there, and overflow to themselves as in C.

    ONNX Runtime divides with the processor's own instruction, which ends the process for the smallest integer over -1.
    """
    if x.dtype.value.startswith("u") or literal(g, y) not in (None, -1):
        return x, y
    flipped = apply(g, "Equal", y, number(g, -1, y), dtype=DType.BOOL)
    return select(g, flipped, apply(g, "Neg", x), x), select(g, flipped, number(g, 1, y), y)


def integer_floor_divide(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    """Quotients of integers rounded down, without overflow on the way."""
    x, y = _divisible(g, x, y)
    whole = apply(g, "Div", x, y)
    if x.dtype.value.startswith("u"):
        return whole
    below = apply(g, "Less", x, number(g, 0, x), dtype=DType.BOOL)
    divisor = literal(g, y)
    if divisor is None or divisor < 0:
        below = apply(g, "Xor", below, apply(g, "Less", y, number(g, 0, y), dtype=DType.BOOL))
    exact = apply(g, "Equal", apply(g, "Mul", whole, y), x, dtype=DType.BOOL)
    return apply(g, "Sub", whole, g.cast(apply(g, "And", below, apply(g, "Not", exact)), x.dtype))


@lowers("remainder")
def remainder(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    if x.dtype.is_integer:
        return apply(g, "Mod", *_divisible(g, x, y))
    rest = fmod(g, x, y)
    return select(g, _wrong_side(g, rest, y), apply(g, "Add", rest, y), rest)


@lowers("floor_divide")
def floor_divide(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    if x.dtype.is_integer:
        return integer_floor_divide(g, x, y)
    rest = fmod(g, x, y)
    whole = apply(g, "Round", apply(g, "Div", apply(g, "Sub", x, rest), y))
    lower = apply(g, "Sub", whole, g.cast(_wrong_side(g, rest, y), x.dtype))
    divisor = literal(g, y)
    if divisor is not None and divisor != 0:
        return lower
    return select(g, apply(g, "Equal", y, number(g, 0, y), dtype=DType.BOOL), apply(g, "Div", x, y), lower)


@lowers("power")
def power(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    return _integer_power(g, x, y) if x.dtype.is_integer else apply(g, "Pow", x, y)


def _integer_power(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    """ONNX Runtime raises integers in float64, which is exact to 53 bits only, so that wider ones are multiplied out."""
    exponent = literal(g, y)
    if exponent is not None and exponent >= 0:
        result, square_ = None, x
        while exponent:
            if int(exponent) & 1:
                result = square_ if result is None else apply(g, "Mul", result, square_)
            exponent = int(exponent) >> 1
            if exponent:
                square_ = apply(g, "Mul", square_, square_)
        return result if result is not None else apply(g, "Add", apply(g, "Sub", x, x), number(g, 1, x))
    wide_x, wide_y = g.cast(x, DType.INT64), g.cast(y, DType.INT64)
    one, zero = number(g, 1, wide_x), number(g, 0, wide_x)
    # From 64 on the power has overflowed, except for the bases 0, 1 and -1, where only the exponent's parity counts.
    parity = apply(g, "BitwiseAnd", wide_y, one)
    bits = apply(g, "Min", wide_y, apply(g, "Add", parity, number(g, 62, wide_y)))
    result, factor = one, wide_x
    for bit in range(6):
        odd = apply(g, "BitwiseAnd", bits, number(g, 1 << bit, wide_y))
        result = apply(g, "Mul", result, select(g, apply(g, "Equal", odd, zero, dtype=DType.BOOL), one, factor))
        factor = apply(g, "Mul", factor, factor)
    if not y.dtype.value.startswith("u"):
        # The bits of a negative exponent have its parity too, which is all that the bases 1 and -1 need.
        unit = apply(g, "Equal", apply(g, "Abs", wide_x), one, dtype=DType.BOOL)
        inverse = apply(g, "Mul", result, g.cast(unit, DType.INT64))
        result = select(g, apply(g, "Less", wide_y, zero, dtype=DType.BOOL), inverse, result)
    return g.cast(result, x.dtype)


@lowers("maximum")
def maximum(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    return apply(g, "Or" if x.dtype is DType.BOOL else "Max", x, y)


@lowers("minimum")
def minimum(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    return apply(g, "And" if x.dtype is DType.BOOL else "Min", x, y)


def _ignoring_nan(g: Lowering, op_type: str, x: Tensor, y: Tensor) -> Tensor:
    if not x.dtype.is_float:
        return (maximum if op_type == "Max" else minimum)(g, x, y)
    left = select(g, apply(g, "IsNaN", x, dtype=DType.BOOL), y, x)
    right = select(g, apply(g, "IsNaN", y, dtype=DType.BOOL), x, y)
    return apply(g, op_type, left, right)


@lowers("clip")
def clip(g: Lowering, x: Tensor, min: Tensor | None = None, max: Tensor | None = None) -> Tensor:
    # With one bound ONNX Runtime's Clip ends infinities at the largest number.
    if min is not None and max is not None and min.rank == max.rank == 0:
        return compute(g, "Clip", x, min, max, spec=like(x))
    y = x if min is None else apply(g, "Max", x, min)
    return y if max is None else apply(g, "Min", y, max)


@lowers("where")
def where(g: Lowering, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return select(g, condition, x, y)


@lowers("lerp")
def lerp(g: Lowering, start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    known = literal(g, weight)
    difference = apply(g, "Sub", end, start)
    if known is not None:
        if abs(known) < 0.5:
            return apply(g, "Add", start, apply(g, "Mul", difference, weight))
        return apply(g, "Sub", end, apply(g, "Mul", difference, number(g, 1 - known, weight)))
    low = apply(g, "Add", start, apply(g, "Mul", difference, weight))
    high = apply(g, "Sub", end, apply(g, "Mul", difference, apply(g, "Sub", number(g, 1, weight), weight)))
    return select(g, apply(g, "Less", apply(g, "Abs", weight), number(g, 0.5, weight), dtype=DType.BOOL), low, high)


def is_negative(g: Lowering, x: Tensor) -> Tensor:
    """Whether the sign is set, that of a zero too: 1 / -0 is -inf."""
    zero = number(g, 0, x)
    signed = select(g, apply(g, "Equal", x, zero, dtype=DType.BOOL), apply(g, "Reciprocal", x), x)
    return apply(g, "Less", signed, zero, dtype=DType.BOOL)


@lowers("copysign")
def copysign(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    size = apply(g, "Abs", x)
    known = literal(g, y)
    if known is not None:
        return size if not np.signbit(known) else apply(g, "Neg", size)
    return select(g, is_negative(g, y), apply(g, "Neg", size), size)


@lowers("gcd")
def gcd(g: Lowering, x: Tensor, y: Tensor) -> Tensor:
    """Euclid's algorithm on all elements at once, until every remainder is 0."""
    dtype = DType.INT64
    spec = like(x, y, dtype=dtype)
    shape = g.sizes(spec.shape)
    first, second = (g.node("Expand", apply(g, "Abs", g.cast(item, dtype)), shape, spec=spec) for item in (x, y))
    # The smallest integer has no absolute value: it may be divided, but must not divide.
    odd = apply(g, "Less", second, number(g, 0, second), dtype=DType.BOOL)
    first, second = select(g, odd, second, first), select(g, odd, first, second)
    n = {name: g.unique(f"gcd/{name}") for name in ("step", "go", "a", "b", "done", "divisor", "rest", "next", "left", "some", "again")}
    one, zero, flag = g.constant(1), g.constant(0), g.onnx_dtype(DType.BOOL)
    make = onnx.helper.make_node
    nodes = [
        make("Equal", [n["b"], zero.name], [n["done"]]), make("Where", [n["done"], one.name, n["b"]], [n["divisor"]]),
        make("Mod", [n["a"], n["divisor"]], [n["rest"]]), make("Where", [n["done"], n["a"], n["b"]], [n["next"]]),
        make("Where", [n["done"], zero.name, n["rest"]], [n["left"]]),
        make("ReduceMax", [n["left"]], [n["some"]], keepdims=0), make("Greater", [n["some"], zero.name], [n["again"]]),
    ]
    port, wide = onnx.helper.make_tensor_value_info, g.onnx_dtype(dtype)
    inputs = [port(n["step"], wide, []), port(n["go"], flag, []), port(n["a"], wide, None), port(n["b"], wide, None)]
    outputs = [port(n["again"], flag, []), port(n["next"], wide, None), port(n["left"], wide, None)]
    body = onnx.helper.make_graph(nodes, g.unique("gcd"), inputs, outputs)
    truth = g.constant(True, DType.BOOL)
    result, _ = g.nodes_out("Loop", None, truth, first, second, specs=[spec, spec], body=body)
    return g.cast(result, x.dtype)


@lowers("floor")
def floor(g: Lowering, x: Tensor) -> Tensor:
    return x if x.dtype.is_integer else apply(g, "Floor", x)


@lowers("ceil")
def ceil(g: Lowering, x: Tensor) -> Tensor:
    return x if x.dtype.is_integer else apply(g, "Ceil", x)


@lowers("frac")
def frac(g: Lowering, x: Tensor) -> Tensor:
    return apply(g, "Mod", x, number(g, 1, x), fmod=1)


@lowers("round")
def round(g: Lowering, x: Tensor, *, decimals: int = 0) -> Tensor:
    if decimals == 0:
        return x if x.dtype.is_integer else apply(g, "Round", x)
    scale = number(g, 10.0 ** abs(decimals), x)
    there, back = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    return apply(g, back, apply(g, "Round", apply(g, there, x, scale)), scale)


@lowers("nan_to_num")
def nan_to_num(g: Lowering, x: Tensor, *, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    if not x.dtype.is_float:
        return x
    limit = float(ml_dtypes.finfo(x.dtype.numpy).max)
    y = select(g, apply(g, "IsNaN", x, dtype=DType.BOOL), number(g, nan, x), x)
    if posinf is None and neginf is None and np.isfinite(nan):
        return compute(g, "Clip", y, number(g, -limit, x), number(g, limit, x), spec=like(x))
    for infinity, value in ((np.inf, limit if posinf is None else posinf), (-np.inf, -limit if neginf is None else neginf)):
        y = select(g, apply(g, "Equal", x, number(g, infinity, x), dtype=DType.BOOL), number(g, value, x), y)
    return y
