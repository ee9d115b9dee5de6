"""Dtypes in C: how an element lies in memory, in what it is computed, and how a number is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.errors import UnsupportedError
from converter.ir import Array, DType, TensorSpec
from converter.ops.complex_numbers import REAL_OF


@dataclass(frozen=True, slots=True)
class CType:
    """`stored` in memory and `scalar` in a computation, which differ for 16-bit floats; `suffix` names kernels of the dtype."""

    suffix: str
    stored: str
    scalar: str
    math: str = ""
    """What functions of the mathematical library end in."""

    @property
    def narrow(self) -> bool:
        """Whether elements are widened when they are read, and rounded when they are written."""
        return self.stored != self.scalar


_TYPES = {
    DType.BOOL: CType("b8", "uint8_t", "uint8_t"),
    DType.FLOAT16: CType("f16", "uint16_t", "float", "f"),
    DType.BFLOAT16: CType("bf16", "uint16_t", "float", "f"),
    DType.FLOAT32: CType("f32", "float", "float", "f"),
    DType.FLOAT64: CType("f64", "double", "double"),
    **{
        dtype: CType(f"{dtype.value[0]}{dtype.bits}", f"{dtype}_t", f"{dtype}_t")
        for dtype in (DType.INT8, DType.INT16, DType.INT32, DType.INT64)
    },
    **{dtype: CType(f"u{dtype.bits}", f"{dtype}_t", f"{dtype}_t") for dtype in (DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64)},
}


def spec_in_memory(spec: TensorSpec) -> TensorSpec:
    """What a value is in memory: a complex one has real numbers, in pairs along a last axis."""
    return TensorSpec(REAL_OF[spec.dtype], (*spec.shape, 2)) if spec.dtype.is_complex else spec


def ctype(dtype: DType) -> CType:
    """The dtype in C. Raises `UnsupportedError` for complex numbers and for floats and integers of fewer than 16 and 8 bits."""
    if dtype not in _TYPES:
        raise UnsupportedError(f"{dtype} has no type in C")
    return _TYPES[dtype]


def is_signed(dtype: DType) -> bool:
    """Of an integer dtype."""
    return dtype.value.startswith("i")


def wrapping(dtype: DType) -> str:
    """The unsigned type in which integers of a dtype wrap around without being promoted."""
    return "uint64_t" if dtype.itemsize == 8 else "uint32_t"


def number(value: Any, dtype: DType) -> str:
    """A number as a constant of the dtype's scalar type, exact."""
    if dtype is DType.BOOL:
        return str(int(bool(value)))
    if dtype.is_integer:
        return integer(int(value), dtype)
    exact = float(np.asarray(value).astype(dtype.numpy))
    if math.isnan(exact):
        return "NAN"
    if math.isinf(exact):
        return "INFINITY" if exact > 0 else "-INFINITY"
    if dtype is DType.FLOAT64:
        return repr(exact)
    return f"{np.float32(exact)!s}f"


def integer(value: int, dtype: DType) -> str:
    """An integer constant; the lowest of a signed dtype has no literal of its own."""
    if dtype is DType.INT64:
        return f"(-INT64_C({-(value + 1)}) - 1)" if value == -1 << 63 else f"INT64_C({value})" if abs(value) >= 1 << 31 else str(value)
    if dtype is DType.UINT64:
        return f"UINT64_C({value})"
    if dtype is DType.INT32 and value == -1 << 31:
        return "(-2147483647 - 1)"
    return f"{value}u" if dtype is DType.UINT32 else str(value)


def stored_numbers(values: Array, dtype: DType) -> list[str]:
    """Numbers as elements of a constant array."""
    if ctype(dtype).narrow:
        return [str(item) for item in values.view(np.uint16).tolist()]
    if dtype is DType.FLOAT32 and np.isfinite(values).all():
        return [f"{item}f" for item in values.astype(str)]
    return [number(item, dtype) for item in values.tolist()]


def all_types() -> dict[DType, CType]:
    """Every dtype that has a type."""
    return _TYPES


def sum_type(dtype: DType) -> str:
    """The type in which products are summed: that of the scalars of floats, and an unsigned one that wraps around of integers."""
    return ctype(dtype).scalar if dtype.is_float else wrapping(dtype)
