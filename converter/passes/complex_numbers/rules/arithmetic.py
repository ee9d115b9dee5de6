"""Making complex numbers, taking them apart, and arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converter.dims import Dim
from converter.formulas import Space, Term, dtype_of
from converter.ir import DType
from converter.ops._rules import broadcast_dims
from converter.ops.complex_numbers import REAL_OF
from converter.passes.complex_numbers.pairs import Pair, each_part, join, on_pairs, split

# Making and taking apart -------------------------------------------------------------------------------------------------

on_pairs("real")(lambda f, x: x.real)
on_pairs("imag")(lambda f, x: x.imag)
on_pairs("view_as_real")(join)
on_pairs("view_as_complex")(split)


@on_pairs("complex")
def complex_(f: Space, real: Term, imag: Term) -> Pair:
    dtype = dtype_of(next(item for item in (imag, real) if hasattr(item, "dtype")))
    parts = [item if hasattr(item, "dtype") else f.full(shape=(), fill_value=item, dtype=dtype) for item in (real, imag)]
    shape = broadcast_dims(*(tuple(part.shape) for part in parts))
    return Pair(*(part if tuple(part.shape) == shape else f.broadcast_to(part, shape=shape) for part in parts))


def zeros(f: Space, x: Term) -> Term:
    """0 in the shape of a real tensor."""
    return f.full(shape=tuple(x.shape), fill_value=0.0, dtype=dtype_of(x))


@on_pairs("astype")
def astype(f: Space, x: Pair | Term, *, dtype: DType) -> Pair | Term:
    if not isinstance(x, Pair):
        part = f.astype(x, dtype=REAL_OF[dtype])
        return Pair(part, zeros(f, part))
    if dtype.is_complex:
        return x if dtype is x.dtype else each_part(f.astype, [x], {"dtype": REAL_OF[dtype]})
    if dtype is DType.BOOL:
        return f.logical_or(f.astype(x.real, dtype=dtype), f.astype(x.imag, dtype=dtype))
    return f.astype(x.real, dtype=dtype)


@on_pairs("full")
def full(f: Space, *, shape: tuple[Dim, ...], fill_value: Any, dtype: DType) -> Pair:
    is_number = isinstance(fill_value, (bool, int, float, complex))
    real, imag = (complex(fill_value).real, complex(fill_value).imag) if is_number else (fill_value, 0.0)
    parts = (f.full(shape=shape, fill_value=part, dtype=REAL_OF[dtype]) for part in (real, imag))
    return Pair(*parts, value=complex(fill_value) if is_number else None)


@on_pairs("pad")
def pad(f: Space, x: Pair, *, value: Any, **attributes: Any) -> Pair:
    return Pair(f.pad(x.real, value=value, **attributes), f.pad(x.imag, value=0, **attributes))


# Arithmetic ----------------------------------------------------------------------------------------------------------------


def product(x: Pair, y: Pair, times: Callable[[Term, Term], Term] = lambda a, b: a * b) -> Pair:
    """(a + bi)(c + di), by any bilinear `times`."""
    return Pair(times(x.real, y.real) - times(x.imag, y.imag), times(x.real, y.imag) + times(x.imag, y.real))


on_pairs("multiply")(lambda f, x, y: product(x, y))
on_pairs("matmul")(lambda f, x, y: product(x, y, f.matmul))


@on_pairs("divide")
def divide(f: Space, x: Pair, y: Pair) -> Pair:
    """By the larger part of the divisor first, so that no square overflows (Smith, 1962)."""
    larger = f.abs(y.real) >= f.abs(y.imag)
    big, small = f.where(larger, y.real, y.imag), f.where(larger, y.imag, y.real)
    ratio = small / big
    below = big + small * ratio
    first, second = f.where(larger, x.real, x.imag), f.where(larger, x.imag, x.real)
    turned = (second - first * ratio) / below
    return Pair((first + second * ratio) / below, f.where(larger, turned, -turned))


def reciprocal(f: Space, x: Pair) -> Pair:
    one, zero = (f.full(shape=(), fill_value=value, dtype=dtype_of(x.real)) for value in (1.0, 0.0))
    return divide(f, Pair(one, zero), x)


@on_pairs("linear")
def linear(f: Space, x: Pair, weight: Pair, bias: Pair | None) -> Pair:
    y = product(x, weight, f.linear)
    return y if bias is None else Pair(y.real + bias.real, y.imag + bias.imag)


def _convolved(operator: str) -> Callable[..., Pair]:
    """Each of the four products by a convolution of its own; the bias stands in those that are added first."""

    def convolution(f: Space, x: Pair, weight: Pair, bias: Pair | None, **attributes: Any) -> Pair:
        def part(a: Term, b: Term, c: Term = None) -> Term:
            return getattr(f, operator)(a, b, c, **attributes)

        real, imag = (None, None) if bias is None else (bias.real, bias.imag)
        return Pair(part(x.real, weight.real, real) - part(x.imag, weight.imag),
                    part(x.real, weight.imag, imag) + part(x.imag, weight.real))

    return convolution


for _operator in ("convolution", "convolution_transpose"):
    on_pairs(_operator)(_convolved(_operator))


@on_pairs("scatter")
def scatter(f: Space, *operands: Any, reduction: str, **attributes: Any) -> Pair | None:
    """Products of what is scattered to one place are none of the parts."""
    if reduction == "multiply":
        return None
    return each_part(f.scatter, operands, {"reduction": reduction, **attributes})


# Comparing ---------------------------------------------------------------------------------------------------------------------


def is_zero(f: Space, x: Pair) -> Term:
    return f.logical_and(f.equal(x.real, 0.0), f.equal(x.imag, 0.0))


on_pairs("equal")(lambda f, x, y: f.logical_and(f.equal(x.real, y.real), f.equal(x.imag, y.imag)))
on_pairs("isinf")(lambda f, x: f.logical_or(f.isinf(x.real), f.isinf(x.imag)))


on_pairs("nonzero")(lambda f, x, **attributes: f.nonzero(~is_zero(f, x), **attributes))
on_pairs("logical_not")(is_zero)
