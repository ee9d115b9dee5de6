"""Complex numbers: their parts, and making them."""

from __future__ import annotations

import math

import numpy as np

from converter.formulas import Space, Term, dtype_of
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import broadcast_dims, each, require, require_size, same_dtype
from converter.opset import op

REAL_OF = {DType.COMPLEX64: DType.FLOAT32, DType.COMPLEX128: DType.FLOAT64}
COMPLEX_OF = {real: whole for whole, real in REAL_OF.items()}


@each
def _part(x: TensorSpec) -> TensorSpec:
    require(x.dtype.is_complex, "wrong dtype of the input", expected="a complex dtype", received=x)
    return TensorSpec(REAL_OF[x.dtype], x.shape)


@each
def _conj(x: TensorSpec) -> TensorSpec:
    require(x.dtype.is_complex, "wrong dtype of the input", expected="a complex dtype", received=x)
    return x


@each
def _angle(x: TensorSpec) -> TensorSpec:
    require(x.dtype.is_complex or x.dtype.is_float, "wrong dtype of the input", expected="a float or complex dtype", received=x)
    return TensorSpec(REAL_OF.get(x.dtype, x.dtype), x.shape)


def _complex_of(dtype: DType) -> DType:
    require(dtype in COMPLEX_OF, "no complex numbers of this dtype", expected="float32 or float64", received=dtype)
    return COMPLEX_OF[dtype]


@each
def _complex(real: TensorSpec, imag: TensorSpec) -> TensorSpec:
    return TensorSpec(_complex_of(same_dtype(real, imag)), broadcast_dims(real.shape, imag.shape))


def _view_as_complex(x: TensorSpec) -> TensorSpec:
    require(x.rank >= 1, "wrong number of axes of the input", expected="at least 1", received=x)
    require_size(x.shape[-1], 2, "the last axis")
    return TensorSpec(_complex_of(x.dtype), x.shape[:-1])


def _view_as_real(x: TensorSpec) -> TensorSpec:
    part = _part(x)
    return TensorSpec(part.dtype, (*x.shape, 2))


@op(infer=_part, formula=lambda f, x: f.select(f.view_as_real(x), axis=-1, index=0))
def real(x: Array) -> Array:
    """The real part of a complex tensor."""
    return np.real(x)


@op(infer=_part, formula=lambda f, x: f.select(f.view_as_real(x), axis=-1, index=1))
def imag(x: Array) -> Array:
    """The imaginary part of a complex tensor."""
    return np.imag(x)


@op(infer=_conj, formula=lambda f, x: f.complex(f.real(x), -f.imag(x)))
def conj(x: Array) -> Array:
    """The complex conjugate."""
    return np.conj(x)


@op(infer=_angle)
def angle(f: Space, x: Term) -> Term:
    """The angle in radians, in [-π, π]. For floats: 0, or π below 0, and NaN for NaN."""
    if dtype_of(x).is_complex:
        return f.atan2(f.imag(x), f.real(x))
    return f.where(f.isnan(x), x, f.where(x < 0.0, f.full(shape=(), fill_value=math.pi, dtype=dtype_of(x)), 0.0))


def _whole(f: Space, real: Term, imag: Term) -> Term:
    shape = broadcast_dims(tuple(real.shape), tuple(imag.shape))
    return f.view_as_complex(f.stack(*(f.broadcast_to(part, shape=shape) for part in (real, imag)), axis=-1))


@op(infer=_complex, literals=True, name="complex", formula=_whole)
def complex_(real: Array, imag: Array) -> Array:
    """real + i · imag: complex64 from float32, complex128 from float64."""
    shape = np.broadcast_shapes(real.shape, imag.shape)
    y = np.empty(shape, np.complex64 if real.dtype == np.float32 else np.complex128)
    y.real, y.imag = real, imag
    return y


@op(infer=_view_as_complex)
def view_as_complex(x: Array) -> Array:
    """[..., 2] floats, real and imaginary part, as [...] complex numbers, of the same bytes: torch.view_as_complex."""
    return np.ascontiguousarray(x).view(COMPLEX_OF[DType.of(x.dtype)].numpy)[..., 0]


@op(infer=_view_as_real)
def view_as_real(x: Array) -> Array:
    """[...] complex numbers as [..., 2] floats, real and imaginary part, of the same bytes: torch.view_as_real."""
    return np.ascontiguousarray(x).reshape(*x.shape, 1).view(REAL_OF[DType.of(x.dtype)].numpy)
