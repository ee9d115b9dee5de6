"""Operators that compute element by element, as expressions of C: a table of texts for floats, for integers and for booleans.

`{0}`, `{1}`, … are the operands, each a variable or a constant. `{f}` is what functions of floats end in, `{s}` the dtype's suffix,
`{T}` its type, `{U}` the unsigned type that it wraps around in, `{bits}` its bits. `guard` says what of the operands is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.c.types import CType, ctype, is_signed, wrapping
from converter.ir import DType

FLOAT = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "negative": "-{0}",
    "abs": "fabs{f}({0})",
    "maximum": "@maximum_{k}({0}, {1})",
    "minimum": "@minimum_{k}({0}, {1})",
    "floor": "floor{f}({0})",
    "round": "rint{f}({0})",
    "fmod": "fmod{f}({0}, {1})",
    "floor_divide": "@floor_divide_{k}({0}, {1})",
    "power": "pow{f}({0}, {1})",
    **{
        name: f"{name}{{f}}({{0}})"
        for name in (
            "acos",
            "acosh",
            "asin",
            "asinh",
            "atan",
            "atanh",
            "cos",
            "cosh",
            "exp",
            "expm1",
            "log",
            "log10",
            "log1p",
            "log2",
            "sin",
            "sinh",
            "sqrt",
            "tan",
            "tanh",
            "erf",
            "erfc",
        )
    },
    "atan2": "atan2{f}({0}, {1})",
    "nextafter": "@nextafter_{s}({0}, {1})",
}
INTEGER = {
    "add": "({T})(({U}){0} + ({U}){1})",
    "subtract": "({T})(({U}){0} - ({U}){1})",
    "multiply": "({T})(({U}){0} * ({U}){1})",
    "negative": "({T})(0u - ({U}){0})",
    "maximum": "({T})({0} > {1} ? {0} : {1})",
    "minimum": "({T})({0} < {1} ? {0} : {1})",
    "floor": "{0}",
    "round": "{0}",
    "floor_divide": "({T})@floor_divide_{w}({0}, {1})",
    "fmod": "({T})@fmod_{w}({0}, {1})",
    "power": "({T})@power_{w}({0}, {1})",
    "bitwise_and": "({T})({0} & {1})",
    "bitwise_or": "({T})({0} | {1})",
    "bitwise_xor": "({T})({0} ^ {1})",
    "bitwise_invert": "({T})~{0}",
}
SIGNED = {
    "abs": "({T})({0} < 0 ? 0u - ({U}){0} : ({U}){0})",
    "bitwise_left_shift": "({T})({1} < 0 || {1} >= {bits} ? ({U})0 : ({U}){0} << {1})",
    "bitwise_right_shift": "({T})({1} < 0 || {1} >= {bits} ? ({0} < 0 ? -1 : 0) : {0} >> {1})",
}
UNSIGNED = {
    "abs": "{0}",
    "bitwise_left_shift": "({T})({1} >= {bits} ? ({U})0 : ({U}){0} << {1})",
    "bitwise_right_shift": "({T})({1} >= {bits} ? 0 : {0} >> {1})",
}
BOOLEAN = {
    "add": "({T})({0} | {1})",
    "multiply": "({T})({0} & {1})",
    "maximum": "({T})({0} | {1})",
    "minimum": "({T})({0} & {1})",
    "bitwise_and": "({T})({0} & {1})",
    "bitwise_or": "({T})({0} | {1})",
    "bitwise_xor": "({T})({0} ^ {1})",
    "bitwise_invert": "({T})!{0}",
    "abs": "{0}",
    "negative": "({T})!{0}",
}
COMPARISON = {"equal": "(uint8_t)({0} == {1})", "less": "(uint8_t)({0} < {1})", "less_equal": "(uint8_t)({0} <= {1})"}
DIVISIONS = ("floor_divide", "fmod")
EXACT = frozenset({"where", "maximum", "minimum", "negative", "abs", "floor", "round", "astype", "nextafter"})
"""What gives a 16-bit float of 16-bit floats without rounding."""
CHEAP = frozenset(
    {
        "add",
        "subtract",
        "multiply",
        "negative",
        "abs",
        "maximum",
        "minimum",
        "where",
        "astype",
        "equal",
        "less",
        "less_equal",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "bitwise_invert",
    }
)
"""What costs no more than reading its result from memory."""
NAMES = frozenset({*FLOAT, *INTEGER, *SIGNED, *COMPARISON, "where", "astype"})


@dataclass(frozen=True, slots=True)
class Expression:
    """A scalar of type `form.scalar`, the kernels that it calls, and the condition, if any, under which the operands are an error."""

    text: str
    helpers: tuple[str, ...] = ()
    guard: str = ""


def _tables(dtype: DType) -> list[Mapping[str, str]]:
    if dtype is DType.BOOL:
        return [COMPARISON, BOOLEAN]
    if dtype.is_float:
        return [COMPARISON, FLOAT]
    return [COMPARISON, SIGNED if is_signed(dtype) else UNSIGNED, INTEGER]


def expression(operator: str, operands: Sequence[str], dtypes: Sequence[DType], result: DType) -> Expression | None:
    """An operator of variables and constants; None where it has none for a dtype."""
    if operator == "astype":
        return conversion(operands[0], dtypes[0], result)
    form = ctype(result)
    if operator == "where":
        cast = f"({form.scalar})" if not result.is_float else ""
        return Expression(f"{cast}({operands[0]} ? {operands[1]} : {operands[2]})")
    taken = dtypes[-1]
    template = next((table[operator] for table in _tables(taken) if operator in table), None)
    if template is None:
        return None
    text, helpers = _filled(template, operands, taken)
    guard = f"{operands[1]} == 0" if operator in DIVISIONS and taken.is_integer else ""
    if form.narrow and operator not in EXACT:
        helper = f"round_{form.suffix}"
        return Expression(f"{helper}({text})", (*helpers, helper), guard)
    return Expression(text, helpers, guard)


def _filled(template: str, operands: Sequence[str], dtype: DType) -> tuple[str, tuple[str, ...]]:
    form = ctype(dtype)
    fields: dict[str, Any] = {
        "f": form.math,
        "s": form.suffix,
        "T": form.scalar,
        "bits": dtype.bits,
        "k": "f64" if dtype is DType.FLOAT64 else "f32",
        "U": "",
        "w": "",
    }
    if dtype.is_integer:
        fields |= {"U": wrapping(dtype), "w": "i64" if is_signed(dtype) else "u64"}
    text = template.format(*operands, **fields)
    helpers = tuple(re.findall(r"@(\w+)", text))
    return text.replace("@", ""), helpers


def conversion(operand: str, source: DType, target: DType) -> Expression:
    """`astype`."""
    form: CType = ctype(target)
    if source is target:
        return Expression(operand)
    if target is DType.BOOL:
        return Expression(f"(uint8_t)({operand} != 0)")
    if target.is_float:
        if not form.narrow:
            return Expression(operand if source.is_float and ctype(source).scalar == "float" else f"({form.scalar}){operand}")
        wide = source is DType.FLOAT64 or source.is_integer and target is DType.FLOAT16
        helper = f"round_{form.suffix}" if not wide or target is DType.BFLOAT16 else "round_f64_f16"
        cast = "(float)" if target is DType.BFLOAT16 and (source is DType.FLOAT64 or not source.is_float) else ""
        cast = (
            "(double)"
            if helper == "round_f64_f16" and source.is_integer
            else cast or ("(float)" if not source.is_float and not wide else "")
        )
        return Expression(f"{helper}({cast}{operand})", (helper,))
    if not source.is_float:
        return Expression(f"({form.scalar}){operand}")
    helper = "whole_u64" if target is DType.UINT64 else "whole_i64"
    return Expression(f"({form.scalar}){helper}({operand})", (helper,))
