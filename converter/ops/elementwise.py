"""Arithmetic and rounding, element by element with broadcasting: the Python Array API standard's names.

Operands have one dtype; a literal number takes it. Integer arithmetic wraps around.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from converter.facts import ALL, Facts, moves
from converter.formulas import Formula, Space, Term, dtype_of, nothing
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import broadcast_dims, each, elementwise, require, same_dtype, unary
from converter.opset import ARRAYS, op


def is_number(dtype: DType) -> bool:
    """Anything but bool."""
    return dtype is not DType.BOOL


def is_real_number(dtype: DType) -> bool:
    """Anything but bool and complex."""
    return dtype is not DType.BOOL and not dtype.is_complex


def is_inexact(dtype: DType) -> bool:
    """Float or complex."""
    return dtype.is_float or dtype.is_complex


@each
def _modulus(x: TensorSpec) -> TensorSpec:
    require(is_number(x.dtype), "a dtype that this operator does not take", received=x)
    real = {DType.COMPLEX64: DType.FLOAT32, DType.COMPLEX128: DType.FLOAT64}
    return TensorSpec(real.get(x.dtype, x.dtype), x.shape)


@each
def _rounding(x: TensorSpec, *, decimals: int = 0) -> TensorSpec:
    require(x.dtype.is_float or x.dtype.is_integer and decimals == 0, "a dtype that this operator does not take",
            expected="a float dtype", received=x)
    return x


@each
def _real_unary(x: TensorSpec) -> TensorSpec:
    require(is_real_number(x.dtype), "a dtype that this operator does not take", expected="a float or integer dtype", received=x)
    return x


@op(infer=elementwise(), literals=True, facts=Facts(linear=ALL, wide=ALL, finite=True))
def add(x: Array, y: Array) -> Array:
    """x + y."""
    return np.add(x, y)


@op(infer=elementwise(kinds=is_number), literals=True, facts=Facts(linear=ALL, wide=ALL, finite=True))
def subtract(x: Array, y: Array) -> Array:
    """x - y."""
    return np.subtract(x, y)


@op(infer=elementwise(), literals=True, facts=Facts(wide=ALL, finite=True))
def multiply(x: Array, y: Array) -> Array:
    """x * y."""
    return np.multiply(x, y)


@op(infer=elementwise(kinds=is_inexact), literals=True)
def divide(x: Array, y: Array) -> Array:
    """x / y, of float or complex operands; a division by zero gives an infinity or NaN."""
    return np.divide(x, y)


@op(infer=elementwise(kinds=is_real_number), literals=True, facts=Facts(wide=(0,), divisor=1))
def floor_divide(x: Array, y: Array) -> Array:
    """⌊x / y⌋. The float quotient is (x - remainder(x, y)) / y, rounded to an integer, and x / y where y is 0.

    Integers must not be divided by zero.
    """
    return np.floor_divide(x, _divisor(y))


def _remainder(f: Space, x: Term, y: Term) -> Term:
    if dtype_of(x).is_integer:
        return x - f.floor_divide(x, y) * y
    rest = f.fmod(x, y)
    return f.where(rest * f.sign(y) < 0.0, rest + y, rest)


@op(infer=elementwise(kinds=is_real_number), literals=True, facts=Facts(wide=(0,), divisor=1), formula=_remainder)
def remainder(x: Array, y: Array) -> Array:
    """x - ⌊x / y⌋ · y: Python's `%`, whose result has the divisor's sign. Integers must not be divided by zero."""
    return np.remainder(x, _divisor(y))


@op(infer=elementwise(kinds=is_real_number), literals=True, facts=Facts(wide=(0,), divisor=1))
def fmod(x: Array, y: Array) -> Array:
    """x - trunc(x / y) · y: C's `fmod`, whose result has the dividend's sign. Integers must not be divided by zero."""
    return np.fmod(x, _divisor(y))


def _divisor(y: Array) -> Array:
    if y.dtype.kind in "iu" and not y.all():
        raise ZeroDivisionError("an integer is divided by zero")
    return y


@op(infer=elementwise(kinds=is_number), literals=True)
def power(x: Array, y: Array) -> Array:
    """x to the power y. Integers wrap around; an integer to a negative power is 0, except for the bases 1 and -1."""
    if y.dtype.kind != "i":
        return np.power(x, y)
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0))
    return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0))).astype(y.dtype)


@op(infer=unary(), facts=Facts(mirrors=True, linear=(0,), wide=ALL))
def negative(x: Array) -> Array:
    """-x."""
    return np.negative(x)


@op(infer=_modulus, facts=Facts(mirrors=True, wide=ALL))
def abs(x: Array) -> Array:
    """|x|; for complex x the modulus, a float."""
    return np.abs(x)


@op(infer=unary(), facts=Facts(wide=ALL))
def sign(f: Space, x: Term) -> Term:
    """-1, 0 or 1 by the sign of x; 0 for NaN. For complex x: x / |x|, and 0 for 0."""
    dtype = dtype_of(x)
    if dtype.is_complex:
        zero = f.equal(x, 0.0)
        return f.where(zero, 0.0, x / f.where(zero, 1.0, f.astype(f.abs(x), dtype=dtype)))
    positive = f.astype(x > nothing(x), dtype=DType.INT8)
    return f.astype(positive - f.astype(x < nothing(x), dtype=DType.INT8), dtype=dtype)


@op(infer=unary())
def square(f: Space, x: Term) -> Term:
    """x * x."""
    return x * x


@op(infer=unary(float_only=True))
def reciprocal(f: Space, x: Term) -> Term:
    """1 / x."""
    return f.divide(1.0, x)


@op(infer=elementwise(), literals=True, facts=Facts(carries=ALL, finite=True))
def maximum(x: Array, y: Array) -> Array:
    """The larger of x and y; NaN where either is NaN."""
    return np.maximum(x, y)


@op(infer=elementwise(), literals=True, facts=Facts(carries=ALL, finite=True))
def minimum(x: Array, y: Array) -> Array:
    """The smaller of x and y; NaN where either is NaN."""
    return np.minimum(x, y)


def _one_of(operator: str) -> Formula:
    """The other one where one is NaN."""
    return lambda f, x, y: f.where(f.isnan(x), y, f.where(f.isnan(y), x, getattr(f, operator)(x, y)))


@op(infer=elementwise(), literals=True, formula=_one_of("maximum"))
def fmax(x: Array, y: Array) -> Array:
    """The larger of x and y; the other one where one is NaN."""
    return np.fmax(x, y)


@op(infer=elementwise(), literals=True, formula=_one_of("minimum"))
def fmin(x: Array, y: Array) -> Array:
    """The smaller of x and y; the other one where one is NaN."""
    return np.fmin(x, y)


@op(infer=elementwise(kinds=lambda dtype: not dtype.is_complex), literals=True, facts=Facts(carries=ALL, finite=True))
def clip(f: Space, x: Term, min: Term | None = None, max: Term | None = None) -> Term:
    """minimum(maximum(x, min), max): NaN stays, and `max` wins over a larger `min`. Either bound may be absent."""
    y = x if min is None else f.maximum(x, min)
    return y if max is None else f.minimum(y, max)


@each
def _where(condition: TensorSpec, x: TensorSpec, y: TensorSpec) -> TensorSpec:
    require(condition.dtype is DType.BOOL, "wrong dtype of the condition", expected="bool", received=condition)
    return TensorSpec(same_dtype(x, y), broadcast_dims(condition.shape, x.shape, y.shape))


@op(infer=_where, literals=True, facts=moves(1, 2))
def where(condition: Array, x: Array, y: Array) -> Array:
    """x where `condition` (bool) holds, else y."""
    return np.where(condition, x, y)


@op(infer=elementwise(kinds=is_inexact), literals=True)
def lerp(f: Space, start: Term, end: Term, weight: Term) -> Term:
    """start + weight · (end - start), written as end - (1 - weight) · (end - start) where |weight| ≥ 1/2: torch.lerp."""
    difference = end - start
    return f.where(f.abs(weight) < 0.5, start + weight * difference, end - difference * (1.0 - weight))


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True,
    formula=lambda f, x, y: f.where(f.signbit(y), -f.abs(x), f.abs(x)))
def copysign(x: Array, y: Array) -> Array:
    """|x| with the sign of y; the sign of a zero counts."""
    return np.copysign(x, y)


@op(infer=elementwise(kinds=lambda dtype: not dtype.is_complex), literals=True)
def heaviside(f: Space, x: Term, values: Term) -> Term:
    """0 where x < 0 or x is NaN, `values` where x = 0, 1 where x > 0: torch.heaviside."""
    return f.where(f.equal(x, nothing(x)), values, f.astype(x > nothing(x), dtype=dtype_of(values)))


def _gcd(f: Space, x: Term, y: Term) -> Term:
    """Euclid's algorithm, until every divisor is 0."""
    shape = broadcast_dims(x.shape, y.shape)

    def unfinished(f: Space, x: Term, y: Term) -> tuple[Term]:
        return (f.any(f.not_equal(y, 0)),)

    def divided(f: Space, x: Term, y: Term) -> tuple[Term, Term]:
        done = f.equal(y, 0)
        return f.where(done, x, y), f.where(done, 0, f.remainder(x, f.where(done, 1, y)))

    x, y = (f.broadcast_to(f.abs(item), shape=shape) for item in (x, y))
    return f.abs(f.while_loop(x, y, carried=2, condition=unfinished, body=divided)[0])


@op(infer=elementwise(kinds=lambda dtype: dtype.is_integer), literals=True, formula=_gcd)
def gcd(x: Array, y: Array) -> Array:
    """The greatest common divisor of |x| and |y|; that of x and 0 is |x|."""
    return np.gcd(x, y)


@op(infer=_rounding)
def floor(x: Array) -> Array:
    """The largest integer not above x, in x's dtype."""
    return np.floor(x).astype(x.dtype, copy=False)


@op(infer=_rounding, formula=lambda f, x: -f.floor(-x))
def ceil(x: Array) -> Array:
    """The smallest integer not below x, in x's dtype."""
    return np.ceil(x).astype(x.dtype, copy=False)


@op(infer=_rounding, formula=lambda f, x: f.where(x < 0, f.ceil(x), f.floor(x)))
def trunc(x: Array) -> Array:
    """x without its fraction, in x's dtype."""
    return np.trunc(x).astype(x.dtype, copy=False)


@op(infer=_real_unary)
def frac(f: Space, x: Term) -> Term:
    """x - trunc(x), with x's sign: torch.frac."""
    return x - f.trunc(x)


def _round(f: Space, x: Term, *, decimals: int) -> Term | None:
    scale = 10.0 ** (decimals if decimals > 0 else -decimals)
    return None if decimals == 0 else f.round(x * scale) / scale if decimals > 0 else f.round(x / scale) * scale


@op(infer=_rounding, formula=_round, core="no decimals")
def round(x: Array, *, decimals: int = 0) -> Array:
    """The nearest integer, a half to the even one. With decimals d: round(x · 10ᵈ) / 10ᵈ, in x's dtype."""
    if decimals == 0:
        return np.rint(x).astype(x.dtype, copy=False)
    return np.asarray(_round(ARRAYS, x, decimals=decimals))


@each
def _nan_to_num(x: TensorSpec, **attributes: float | None) -> TensorSpec:
    require(not x.dtype.is_complex, "a dtype that this operator does not take", expected="a real dtype", received=x)
    return x


def _numbered(f: Space, x: Term, *, nan: float, posinf: float | None, neginf: float | None) -> Term:
    dtype = dtype_of(x)
    if not dtype.is_float:
        return x
    infinity, zero = (f.full(shape=(), fill_value=value, dtype=dtype) for value in (math.inf, 0.0))
    y = f.where(f.isnan(x), nan, x)
    y = f.where(f.equal(x, math.inf), f.nextafter(infinity, zero) if posinf is None else posinf, y)
    return f.where(f.equal(x, -math.inf), f.nextafter(-infinity, zero) if neginf is None else neginf, y)


@op(infer=_nan_to_num, formula=_numbered)
def nan_to_num(x: Array, *, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Array:
    """x with NaN and the infinities replaced; None stands for the largest and the smallest finite number of x's dtype.

    Integers and booleans stay as they are.
    """
    if x.dtype.kind in "biu":
        return x
    limit = float(ml_dtypes.finfo(x.dtype).max)
    y = np.where(np.isnan(x), np.asarray(nan, x.dtype), x)
    y = np.where(x == np.inf, np.asarray(limit if posinf is None else posinf, x.dtype), y)
    return np.where(x == -np.inf, np.asarray(-limit if neginf is None else neginf, x.dtype), y)
