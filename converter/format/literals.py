"""Numbers in a document: plain JSON numbers where JSON carries them, `{"literal": "..."}` where it does not."""

from __future__ import annotations

import math
import re
import sys
from typing import Any

from converter.errors import FormatError
from converter.format.canonical import number
from converter.format.fields import describe, members
from converter.format.limits import MAX_INTEGER_DIGITS, SAFE_INTEGER

SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "-0.0": -0.0}
LARGEST = int(sys.float_info.max)
_PART = r"(?:(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?|Infinity|NaN)"
_INTEGER = re.compile(rf"-?[1-9]\d{{0,{MAX_INTEGER_DIGITS - 1}}}", re.ASCII)
_COMPLEX = re.compile(rf"(-?{_PART})([+-]{_PART})j", re.ASCII)


def number_to_document(value: bool | int | float | complex) -> Any:
    """A number as a JSON number, true or false, or as a literal object.

    Literal objects: NaN, the infinities and -0.0 by name, an integer beyond ±(2^53 - 1) by its digits, and a complex
    number as `re±imj`.
    """
    if isinstance(value, complex):
        sign = "-" if math.copysign(1, value.imag) < 0 and not math.isnan(value.imag) else "+"
        return {"literal": f"{_part(value.real)}{sign}{_part(abs(value.imag))}j"}
    if isinstance(value, float):
        value = float(value)
        if math.isfinite(value) and (value or math.copysign(1, value) > 0):
            return value
        return {"literal": next(name for name, special in SPECIAL.items() if repr(special) == repr(value))}
    if not isinstance(value, (bool, int)):
        raise FormatError("not a number that a graph can hold", received=repr(value)[:80])
    if abs(value) > SAFE_INTEGER:
        return {"literal": str(int(value))}
    return value


def _part(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return ("-" if value == 0 and math.copysign(1, value) < 0 else "") + number(value)


def number_from_document(value: Any, where: str) -> bool | int | float | complex:
    """The number that `number_to_document` wrote. Raises `FormatError` for anything else."""
    if isinstance(value, dict):
        text = members(value, where, ("literal",))["literal"]
        if isinstance(text, str):
            if text in SPECIAL:
                return SPECIAL[text]
            if _INTEGER.fullmatch(text) and abs(int(text)) > SAFE_INTEGER:
                if abs(int(text)) > LARGEST:
                    raise FormatError("an integer that no dtype holds", where=where, expected="at most that of float64, about 1.8e308",
                                      received=f"{len(text.lstrip('-'))} digits")
                return int(text)
            match = _COMPLEX.fullmatch(text)
            if match:
                return complex(float(match[1]), float(match[2]))
        raise FormatError("not a literal number", where=where, received=describe(text),
                          expected='"NaN", "Infinity", "-Infinity", "-0.0", an integer beyond 2^53 - 1, or "1+2j"')
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > SAFE_INTEGER:
        raise FormatError("an integer that JSON numbers do not carry everywhere", where=where, received=describe(value),
                          fix=f'write it as {{"literal": "{str(value)[:40]}"}}')
    if isinstance(value, (bool, int, float)):
        return value
    raise FormatError("not a number", where=where, expected="a number or a literal object", received=describe(value))
