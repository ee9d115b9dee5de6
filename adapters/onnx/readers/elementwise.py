"""Arithmetic, comparisons, logic and functions of one element."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import ml_dtypes
import numpy as np

from adapters.onnx.readers.linear import weight_name
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import product
from converter.ir import DType

UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh",
    "BitwiseNot": "bitwise_invert", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor",
    "IsNaN": "isnan", "Log": "log", "Neg": "negative", "Not": "logical_not", "Reciprocal": "reciprocal", "Round": "round",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
}
BINARY = {
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
    "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor", "Equal": "equal", "Greater": "greater",
    "Less": "less", "GreaterOrEqual": "greater_equal", "LessOrEqual": "less_equal",
}
VARIADIC = {"Max": "maximum", "Min": "minimum", "Sum": "add"}


def _register_tables() -> None:
    def unary(op: str) -> Callable[..., Value]:
        return lambda g, x: g.op(op, x)

    def binary(op: str) -> Callable[..., Value]:
        return lambda g, x, y: g.op(op, x, y)

    def variadic(op: str) -> Callable[..., Value]:
        return lambda g, *items: reduce(lambda x, y: g.op(op, x, y), map(g.tensor, items))

    for table, make in ((UNARY, unary), (BINARY, binary), (VARIADIC, variadic)):
        for name, op in table.items():
            reads(name)(make(op))


_register_tables()


@reads("Identity")
def identity(g: Reader, x: Item) -> Item:
    return x


@reads("Dropout")
def dropout(g: Reader, x: Item, *options: Item | None, ratio: float = 0.5, seed: int = 0, is_test: int = 1) -> tuple[Item, Value]:
    """As in inference: nothing is dropped. The ratio was an attribute up to version 11."""
    share, training_mode = (*options, None, None)[:2]
    training = training_mode is not None and bool(g.numbers(training_mode, "a training mode").any())
    if training and (share is None or bool(g.numbers(share, "a ratio").any())):
        raise g.refuse("random: dropout in training mode")
    return x, g.op("full", shape=g.shape(x), fill_value=True, dtype=DType.BOOL)


@reads("Mean")
def mean(g: Reader, *items: Item) -> Value:
    total = reduce(lambda x, y: g.op("add", x, y), map(g.tensor, items))
    return g.op("divide", total, g.like(len(items), total))


@reads("Div")
def div(g: Reader, x: Item, y: Item) -> Value:
    """Integers are divided towards zero, as in C."""
    dtype = g.dtype(x)
    if not dtype.is_integer:
        return g.op("divide", x, y)
    if dtype.value.startswith("uint"):
        return g.op("floor_divide", x, y)
    return g.op("floor_divide", g.op("subtract", x, g.op("fmod", x, y)), y)


@reads("Mod")
def mod(g: Reader, x: Item, y: Item, *, fmod: int = 0) -> Value:
    return g.op("fmod" if fmod else "remainder", x, y)


@reads("Pow")
def power(g: Reader, x: Item, y: Item) -> Value:
    """The result has the base's dtype, whatever the exponent's is."""
    base, exponent = g.dtype(x), g.dtype(y)
    if base is exponent:
        return g.op("power", x, y)
    if base.is_float:
        return g.op("power", x, g.cast(y, base))
    common = DType.FLOAT64 if exponent.is_float else DType.INT64
    return g.cast(g.op("power", g.cast(x, common), g.cast(y, common)), base)


@reads("BitShift")
def bit_shift(g: Reader, x: Item, y: Item, *, direction: str) -> Value:
    return g.op("bitwise_left_shift" if direction == "LEFT" else "bitwise_right_shift", x, y)


@reads("Where")
def where(g: Reader, condition: Item, x: Item, y: Item) -> Value:
    return g.op("where", condition, x, y)


@reads("Clip")
def clip(g: Reader, x: Item, low: Item | None = None, high: Item | None = None, *, min: float | None = None,
         max: float | None = None) -> Value:
    """Bounds were attributes up to version 6; the upper one wins where they cross."""
    bounds = [None if item is None else g.known(item) for item in (low, high)]
    numbers = [float(item.reshape(-1)[0]) for item in bounds if item is not None and item.size == 1] if g.dtype(x).is_float else []
    if len(numbers) == 2:
        min, max = numbers
    if min is not None and max is not None and -math.inf < min < max < math.inf and g.dtype(x).is_float:
        return g.op("hardtanh", x, min_val=min, max_val=max)
    least = low if low is not None else None if min is None else g.like(min, x)
    most = high if high is not None else None if max is None else g.like(max, x)
    value = g.tensor(x)
    if least is not None:
        value = g.op("maximum", value, least)
    return value if most is None else g.op("minimum", value, most)


@reads("IsInf")
def is_inf(g: Reader, x: Item, *, detect_negative: int = 1, detect_positive: int = 1) -> Value:
    found = g.op("isinf", x)
    if detect_negative and detect_positive:
        return found
    if not detect_negative and not detect_positive:
        return g.op("full", shape=g.shape(x), fill_value=False, dtype=DType.BOOL)
    side = g.op("less" if detect_negative else "greater", x, g.like(0, x))
    return g.op("logical_and", found, side)


@reads("Cast")
def cast(g: Reader, x: Item, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    from adapters.onnx.load import FROM_ONNX

    dtype = FROM_ONNX.get(to)
    if dtype is None:
        raise g.refuse(f"a cast to the dtype {to}")
    return converted(g, x, dtype, bool(saturate), round_mode)


def converted(g: Reader, x: Item | Value, dtype: DType, saturate: bool, round_mode: str = "up") -> Value:
    """In another dtype. To float8 what is too large becomes the largest number, as do infinities, where that is asked for."""
    if "float8" not in dtype.value or not g.dtype(x).is_float or "float8" in g.dtype(x).value:
        return g.cast(x, dtype)
    value = g.cast(x, DType.FLOAT32)
    if dtype is DType.FLOAT8_E8M0FNU:
        return _power_of_two(g, value, saturate, round_mode)
    if not saturate:
        return g.cast(value, dtype)
    most = float(ml_dtypes.finfo(dtype.numpy).max)
    return g.cast(g.op("clip", value, g.like(-most, value), g.like(most, value)), dtype)


def _power_of_two(g: Reader, x: Value, saturate: bool, round_mode: str) -> Value:
    """To a power of two that is not below x, not above it, or the nearer one, half to the larger."""
    if not saturate:
        raise g.refuse("a cast to float8e8m0 without saturation")
    cut = g.op("clip", x, g.like(2.0 ** -127, x), g.like(2.0 ** 127, x))
    near = g.cast(g.cast(cut, DType.FLOAT8_E8M0FNU), x.dtype)
    below = g.op("where", g.op("greater", near, cut), g.op("multiply", near, g.like(0.5, x)), near)
    if round_mode == "down":
        found = below
    else:
        least = below if round_mode == "up" else g.op("multiply", below, g.like(1.5, x))
        above = g.op("greater" if round_mode == "up" else "greater_equal", cut, least)
        found = g.op("where", above, g.op("multiply", below, g.like(2, x)), below)
    return g.cast(found, DType.FLOAT8_E8M0FNU)


@reads("CastLike")
def cast_like(g: Reader, x: Item, target: Item, *, saturate: int = 1, round_mode: str = "up") -> Value:
    return converted(g, x, g.dtype(target), bool(saturate), round_mode)


# Activations -------------------------------------------------------------------------------------------------------------


@reads("Relu")
def relu(g: Reader, x: Item) -> Value:
    return g.op("relu", x)


@reads("LeakyRelu")
def leaky_relu(g: Reader, x: Item, *, alpha: float = 0.01) -> Value:
    return g.op("leaky_relu", x, negative_slope=alpha)


@reads("PRelu")
def prelu(g: Reader, x: Item, slope: Item) -> Value:
    """The slope is broadcast to x: one for all, or one for each channel, where it is the layer's weight."""
    weight = _slopes(g, x, slope)
    if weight is not None:
        return g.op("prelu", x, weight)
    return g.op("where", g.op("less", x, g.like(0, x)), g.op("multiply", x, slope), x)


def _slopes(g: Reader, x: Item, slope: Item) -> Value | None:
    """A weight of PReLU as the layer's parameter [channels] or [1]; None for slopes along other axes, and for what is computed."""
    fixed = g.known(slope)
    if slope.initializer is None or fixed is None or not np.isfinite(fixed.astype(np.float64)).all() or len(slope.shape) > g.rank(x):
        return None
    aligned = (1,) * (g.rank(x) - len(slope.shape)) + slope.shape
    if any(size != 1 for axis, size in enumerate(aligned) if axis != 1):
        return None
    return g.arranged(slope, (("reshape", (fixed.size,)),), weight_name(g))


@reads("Elu")
def elu(g: Reader, x: Item, *, alpha: float = 1.0) -> Value:
    return g.op("elu", x, alpha=alpha)


@reads("Celu")
def celu(g: Reader, x: Item, *, alpha: float = 1.0) -> Value:
    return g.op("celu", x, alpha=alpha)


@reads("Selu")
def selu(g: Reader, x: Item, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Value:
    return g.op("elu", x, alpha=alpha, scale=gamma)


@reads("HardSigmoid")
def hard_sigmoid(g: Reader, x: Item, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return g.op("hardsigmoid", x)
    line = g.op("add", g.op("multiply", x, g.like(alpha, x)), g.like(beta, x))
    return g.op("maximum", g.like(0, x), g.op("minimum", g.like(1, x), line))


@reads("HardSwish")
def hard_swish(g: Reader, x: Item) -> Value:
    return g.op("hardswish", x)


@reads("Mish")
def mish(g: Reader, x: Item) -> Value:
    return g.op("mish", x)


@reads("Gelu")
def gelu(g: Reader, x: Item, *, approximate: str = "none") -> Value:
    return g.op("gelu", x, approximate=approximate)


@reads("Swish")
def swish(g: Reader, x: Item | Value, *, alpha: float = 1.0) -> Value:
    return g.op("silu", x) if alpha == 1 else g.op("multiply", x, g.op("sigmoid", g.op("multiply", x, g.like(alpha, x))))


@reads("Softplus")
def softplus(g: Reader, x: Item) -> Value:
    """log(1 + exp x), at every x."""
    return g.op("logaddexp", x, g.like(0, x))


@reads("Softsign")
def softsign(g: Reader, x: Item) -> Value:
    return g.op("divide", x, g.op("add", g.op("abs", x), g.like(1, x)))


@reads("Shrink")
def shrink(g: Reader, x: Item, *, bias: float = 0.0, lambd: float = 0.5) -> Value:
    low = g.op("where", g.op("less", x, g.like(-lambd, x)), g.op("add", x, g.like(bias, x)), g.like(0, x))
    return g.op("where", g.op("greater", x, g.like(lambd, x)), g.op("subtract", x, g.like(bias, x)), low)


@reads("ThresholdedRelu")
def thresholded_relu(g: Reader, x: Item, *, alpha: float = 1.0) -> Value:
    return g.op("threshold", x, threshold=alpha, value=0.0)


def softmax_since(g: Reader, op: str, x: Item | Value, axis: int | None, version: int) -> Value:
    """Along one axis since version 13, before that along all axes from `axis` on at once."""
    rank = g.rank(x)
    if version >= 13 or rank == 0:
        return g.op(op, x, axis=-1 if axis is None else axis)
    place = g.axis(1 if axis is None else axis, rank) if rank > 1 or axis not in (None, 1) else 0
    if place == rank - 1:
        return g.op(op, x, axis=place)
    shape = g.shape(x)
    rest = product(shape[place:])
    return g.op("reshape", g.op(op, g.op("reshape", x, shape=(*shape[:place], rest)), axis=place), shape=shape)


@reads("Softmax")
def softmax(g: Reader, x: Item, *, axis: int | None = None) -> Value:
    return softmax_since(g, "softmax", x, axis, g.version)


@reads("LogSoftmax")
def log_softmax(g: Reader, x: Item, *, axis: int | None = None) -> Value:
    return softmax_since(g, "log_softmax", x, axis, g.version)


@reads("Hardmax")
def hardmax(g: Reader, x: Item, *, axis: int | None = None) -> Value:
    """One at the first place of the largest element, zero elsewhere."""
    shape, value = g.shape(x), g.tensor(x)
    if g.version < 13 and len(shape) > 1:
        place = g.axis(1 if axis is None else axis, len(shape))
        value = g.op("reshape", value, shape=(*shape[:place], product(shape[place:])))
    else:
        place = g.axis(-1 if axis is None else axis, len(shape))
    size = value.shape[place]
    first = g.op("argmax", value, axis=place, keepdims=True)
    places = g.op("reshape", g.op("arange", start=0, stop=size, step=1, dtype=DType.INT64),
                  shape=tuple(size if axis == place else 1 for axis in range(value.rank)))
    found = g.cast(g.op("equal", places, first), value.dtype)
    return found if value.shape == shape else g.op("reshape", found, shape=shape)
