"""Arithmetic and rounding, element by element."""

from __future__ import annotations

from typing import Any

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.ir import DType

Operand = Any
"""A tensor, a number, or a size."""


def wrapped(value: Operand, dtype: DType) -> Operand:
    """A number as PyTorch writes it into an integer tensor: without its fraction, and wrapped around."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not dtype.is_integer:
        return value
    bits = dtype.itemsize * 8
    value = int(value) % (1 << bits)
    return value if dtype.value.startswith("u") or value < 1 << bits - 1 else value - (1 << bits)


def in_float(g: Importer, value: Operand, dtype: DType) -> Operand:
    """A tensor of half precision in float32, in which PyTorch computes what takes several steps here; others in `dtype`."""
    if not isinstance(value, Value):
        return value
    return g.cast(g.cast(value, dtype), DType.FLOAT32 if dtype in (DType.FLOAT16, DType.BFLOAT16) else dtype)


def binary(g: Importer, op: str, x: Operand, y: Operand, dtype: DType | None = None) -> Value:
    """`op` on both operands in `dtype`, the result's where none is given; a literal stays a literal beside a tensor."""
    dtype = dtype or g.result_dtype()
    left, right = (g.operand(wrapped(item, dtype), dtype) for item in (x, y))
    return g.op(op, left if isinstance(right, Value) else g.tensor(left, dtype), right)


# ATen overloads that differ only in which operand is a number.
BINARY = {
    "multiply": ("mul.Tensor", "mul.Scalar", "multiply.Tensor", "multiply.Scalar"),
    "divide": ("div.Tensor", "div.Scalar", "divide.Tensor", "divide.Scalar", "true_divide.Tensor", "true_divide.Scalar"),
    "floor_divide": ("floor_divide.default", "floor_divide.Scalar"),
    "remainder": ("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor"),
    "fmod": ("fmod.Tensor", "fmod.Scalar"),
    "maximum": ("maximum.default", "max.other"),
    "minimum": ("minimum.default", "min.other"),
    "fmax": ("fmax.default",),
    "fmin": ("fmin.default",),
    "copysign": ("copysign.Tensor", "copysign.Scalar"),
    "gcd": ("gcd.default",),
    "heaviside": ("heaviside.default",),
    "atan2": ("atan2.default", "arctan2.default"),
    "hypot": ("hypot.default",),
    "xlogy": ("xlogy.Tensor", "xlogy.Scalar_Other", "xlogy.Scalar_Self", "special_xlogy.default", "special_xlogy.other_scalar",
              "special_xlogy.self_scalar"),
}

# Functions of one tensor. The operand is cast to the result's dtype: torch makes floats of integers.
UNARY = {
    "negative": ("neg", "negative"), "sign": ("sign", "sgn"), "square": ("square",), "reciprocal": ("reciprocal",),
    "exp": ("exp",), "expm1": ("expm1", "special_expm1"), "exp2": ("exp2", "special_exp2"), "log": ("log",),
    "log1p": ("log1p", "special_log1p"), "log2": ("log2",), "log10": ("log10",), "sqrt": ("sqrt",), "rsqrt": ("rsqrt",),
    "sin": ("sin",), "cos": ("cos",), "tan": ("tan",), "asin": ("asin", "arcsin"), "acos": ("acos", "arccos"),
    "atan": ("atan", "arctan"), "sinh": ("sinh",), "cosh": ("cosh",), "tanh": ("tanh",), "asinh": ("asinh", "arcsinh"),
    "acosh": ("acosh", "arccosh"), "atanh": ("atanh", "arctanh"), "sigmoid": ("sigmoid", "special_expit"),
    "erf": ("erf", "special_erf"), "erfc": ("erfc", "special_erfc"), "erfinv": ("erfinv", "special_erfinv"),
    "lgamma": ("lgamma", "special_gammaln"), "digamma": ("digamma", "special_digamma", "special_psi"),
}


def _import_binary(op: str, targets: tuple[str, ...]) -> None:
    @imports(*(f"aten.{target}" for target in targets))
    def importer(g: Importer, self: Operand, other: Operand) -> Value:
        return binary(g, op, self, other)


def _import_unary(op: str, targets: tuple[str, ...]) -> None:
    @imports(*(f"aten.{target}.default" for target in targets))
    def importer(g: Importer, self: Value) -> Value:
        return g.op(op, g.cast(self, g.result_dtype()))


for _op, _targets in BINARY.items():
    _import_binary(_op, _targets)
for _op, _targets in UNARY.items():
    _import_unary(_op, _targets)


def _scaled(g: Importer, value: Operand, alpha: Operand, dtype: DType) -> Operand:
    if not isinstance(value, Value) and not isinstance(alpha, Value) and isinstance(value, (int, float)) and alpha != 1:
        return value * alpha
    return value if alpha == 1 else binary(g, "multiply", g.tensor(value, dtype), alpha, dtype)


@imports("aten.add.Tensor", "aten.add.Scalar")
def add(g: Importer, self: Value, other: Operand, alpha: Operand = 1) -> Value:
    return binary(g, "add", self, _scaled(g, other, alpha, g.result_dtype()))


@imports("aten.sub.Tensor", "aten.sub.Scalar", "aten.subtract.Tensor", "aten.subtract.Scalar")
def subtract(g: Importer, self: Value, other: Operand, alpha: Operand = 1) -> Value:
    return binary(g, "subtract", self, _scaled(g, other, alpha, g.result_dtype()))


@imports("aten.rsub.Tensor", "aten.rsub.Scalar")
def reverse_subtract(g: Importer, self: Value, other: Operand, alpha: Operand = 1) -> Value:
    return binary(g, "subtract", other, _scaled(g, self, alpha, g.result_dtype()))


@imports("aten.div.Tensor_mode", "aten.div.Scalar_mode", "aten.divide.Tensor_mode", "aten.divide.Scalar_mode")
def divide_mode(g: Importer, self: Value, other: Operand, *, rounding_mode: str | None) -> Value:
    dtype = g.result_dtype()
    if rounding_mode is None:
        return binary(g, "divide", self, other)
    if rounding_mode == "floor":
        return binary(g, "floor_divide", self, other)
    if dtype.is_float:
        return g.op("trunc", binary(g, "divide", self, other))
    # x - fmod(x, y) is a multiple of y, so that its floored quotient is the one towards zero.
    x, y = g.tensor(self, dtype), g.tensor(other, dtype)
    return g.op("floor_divide", g.op("subtract", x, g.op("fmod", x, y)), y)


# Powers that PyTorch itself computes without a power function.
POWERS: dict[float, str] = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}


@imports("aten.pow.Tensor_Tensor", "aten.pow.Tensor_Scalar", "aten.pow.Scalar", "aten.float_power.Tensor_Tensor",
         "aten.float_power.Tensor_Scalar", "aten.float_power.Scalar")
def power(g: Importer, self: Operand, exponent: Operand) -> Value:
    dtype = g.result_dtype()
    if isinstance(self, Value) and isinstance(exponent, (int, float)) and not isinstance(exponent, bool):
        if exponent == 1:
            return g.cast(self, dtype)
        if exponent == 0:
            return g.op("full", shape=self.shape, fill_value=1, dtype=dtype)
        if exponent in POWERS and (dtype.is_float or exponent == 2):
            return g.op(POWERS[exponent], g.cast(self, dtype))
    if dtype.is_integer and isinstance(self, Value) and isinstance(exponent, Value) and exponent.dtype is DType.BOOL:
        exponent = g.cast(exponent, dtype)
    return binary(g, "power", self, exponent)


@imports("aten.abs.default", "aten.absolute.default")
def absolute(g: Importer, self: Value) -> Value:
    return self if self.dtype in (DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64) else g.op("abs", self)


@imports("aten.positive.default")
def positive(g: Importer, self: Value) -> Value:
    return self


@imports("aten.clamp.default", "aten.clamp.Tensor", "aten.clip.default", "aten.clip.Tensor")
def clip(g: Importer, self: Value, min: Operand = None, max: Operand = None) -> Value:
    dtype = g.result_dtype()
    x = g.cast(self, dtype)
    if min is None and max is None:
        return x
    low, high = (None if bound is None else g.operand(bound, dtype) for bound in (min, max))
    if dtype is DType.BOOL:
        x = x if low is None else g.op("logical_or", x, low)
        return x if high is None else g.op("logical_and", x, high)
    return g.op("clip", x, low, high)


@imports("aten.clamp_min.default", "aten.clamp_min.Tensor")
def clip_below(g: Importer, self: Value, min: Operand) -> Value:
    return clip(g, self, min, None)


@imports("aten.clamp_max.default", "aten.clamp_max.Tensor")
def clip_above(g: Importer, self: Value, max: Operand) -> Value:
    return clip(g, self, None, max)


@imports("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(g: Importer, condition: Value, self: Operand, other: Operand) -> Value:
    dtype = g.result_dtype()
    x, y = g.operand(self, dtype), g.operand(other, dtype)
    # A literal takes the dtype of the last tensor, which must not be the condition.
    return g.op("where", g.cast(condition, DType.BOOL), x if isinstance(y, Value) else g.tensor(x, dtype), y)


@imports("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(g: Importer, self: Value, end: Value, weight: Operand) -> Value:
    dtype = g.result_dtype()
    return g.op("lerp", g.cast(self, dtype), g.cast(end, dtype), g.operand(weight, dtype))


def _import_rounding(op: str, targets: tuple[str, ...]) -> None:
    @imports(*(f"aten.{target}.default" for target in targets))
    def importer(g: Importer, self: Value) -> Value:
        return g.op(op, self) if self.dtype.is_float else self


for _op, _targets in {"floor": ("floor",), "ceil": ("ceil",), "trunc": ("trunc", "fix")}.items():
    _import_rounding(_op, _targets)


@imports("aten.frac.default")
def frac(g: Importer, self: Value) -> Value:
    return g.op("frac", self)


@imports("aten.round.default", "aten.round.decimals", "aten.special_round.default")
def round(g: Importer, self: Value, *, decimals: int = 0) -> Value:
    return g.op("round", self, decimals=decimals) if self.dtype.is_float else self


@imports("aten.nan_to_num.default")
def nan_to_num(g: Importer, self: Value, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Value:
    if self.dtype.is_complex:
        raise g.refuse("nan_to_num of complex numbers")
    if not self.dtype.is_float:
        return self
    return g.op("nan_to_num", self, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)


@imports("aten.addcmul.default")
def addcmul(g: Importer, self: Value, tensor1: Value, tensor2: Value, *, value: Operand = 1) -> Value:
    dtype = g.result_dtype()
    product = g.op("multiply", g.cast(tensor1, dtype), g.cast(tensor2, dtype))
    return g.op("add", g.cast(self, dtype), _scaled(g, product, value, dtype))


@imports("aten.addcdiv.default")
def addcdiv(g: Importer, self: Value, tensor1: Value, tensor2: Value, *, value: Operand = 1) -> Value:
    dtype = g.result_dtype()
    return g.op("add", g.cast(self, dtype), g.op("divide", _scaled(g, g.cast(tensor1, dtype), value, dtype), g.cast(tensor2, dtype)))


@imports("aten.lcm.default")
def lcm(g: Importer, self: Value, other: Value) -> Value:
    """|x / gcd(x, y) · y|, and 0 where both are 0."""
    dtype = g.result_dtype()
    x, y = g.cast(self, dtype), g.cast(other, dtype)
    divisor = g.op("gcd", x, y)
    quotient = g.op("floor_divide", x, g.op("where", g.op("equal", divisor, 0), g.tensor(1, dtype), divisor))
    product = g.op("multiply", quotient, y)
    return product if dtype.value.startswith("u") else g.op("abs", product)


@imports("aten.deg2rad.default")
def deg2rad(g: Importer, self: Value) -> Value:
    return binary(g, "multiply", self, 0.017453292519943295)


@imports("aten.rad2deg.default")
def rad2deg(g: Importer, self: Value) -> Value:
    return binary(g, "multiply", self, 57.29577951308232)


rebuilds("add")(torch.add)
rebuilds("subtract")(torch.sub)
rebuilds("multiply")(torch.mul)
rebuilds("divide")(torch.div)
rebuilds("floor_divide")(torch.floor_divide)
rebuilds("remainder")(torch.remainder)
rebuilds("fmod")(torch.fmod)
rebuilds("power")(torch.pow)
rebuilds("negative")(torch.neg)
rebuilds("abs")(torch.abs)
rebuilds("sign")(torch.sgn)
rebuilds("square")(torch.square)
rebuilds("reciprocal")(torch.reciprocal)
rebuilds("maximum")(torch.maximum)
rebuilds("minimum")(torch.minimum)
rebuilds("fmax")(torch.fmax)
rebuilds("fmin")(torch.fmin)
rebuilds("where")(torch.where)
rebuilds("lerp")(torch.lerp)
rebuilds("copysign")(torch.copysign)
rebuilds("heaviside")(torch.heaviside)
rebuilds("gcd")(torch.gcd)
rebuilds("floor")(torch.floor)
rebuilds("ceil")(torch.ceil)
rebuilds("trunc")(torch.trunc)
rebuilds("frac")(torch.frac)


@rebuilds("clip")
def rebuild_clip(x: torch.Tensor, min: torch.Tensor | None = None, max: torch.Tensor | None = None) -> torch.Tensor:
    return x if min is None and max is None else torch.clamp(x, min, max)


@rebuilds("round")
def rebuild_round(x: torch.Tensor, *, decimals: int = 0) -> torch.Tensor:
    return torch.round(x, decimals=decimals) if decimals else torch.round(x)


@rebuilds("nan_to_num")
def rebuild_nan_to_num(x: torch.Tensor, *, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> torch.Tensor:
    return torch.nan_to_num(x, nan, posinf, neginf)
