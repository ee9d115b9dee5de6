"""Canonical JSON, RFC 8785: one text for one value, so that a digest of it means something."""

from __future__ import annotations

import json
import math
from typing import Any

from converter.errors import FormatError
from converter.format.limits import SAFE_INTEGER


def canonical_json(value: Any) -> bytes:
    """The UTF-8 bytes of `value` in the JSON Canonicalization Scheme (RFC 8785).

    Object members are sorted by the UTF-16 code units of their names, numbers are written as ECMAScript writes them,
    and there is no white space. Takes dict, list, tuple, str, int, float, bool and None.

    Raises:
        FormatError: NaN or an infinity, an integer beyond ±(2^53 - 1), a string that is not Unicode, another type.
    """
    parts: list[str] = []
    _write(value, parts)
    try:
        return "".join(parts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError("a string holds half of a surrogate pair, which no UTF-8 text can hold",
                          received=ascii(error.object[error.start:error.end])) from error


def _write(value: Any, parts: list[str]) -> None:
    if value is None or isinstance(value, bool):
        parts.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, str):
        parts.append(_string(value))
    elif isinstance(value, int):
        if abs(value) > SAFE_INTEGER:
            raise FormatError("an integer that JSON numbers do not carry everywhere", received=str(value)[:40],
                              expected="at most 2^53 - 1 in magnitude")
        parts.append(str(value))
    elif isinstance(value, float):
        parts.append(number(value))
    elif isinstance(value, (list, tuple)):
        _sequence("[", [(None, item) for item in value], "]", parts)
    elif isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise FormatError("a member whose name is no string", received=repr(key)[:80])
        members: list[tuple[str | None, Any]] = [
            (key, value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))]
        _sequence("{", members, "}", parts)
    else:
        raise FormatError("not a JSON value", received=type(value).__name__)


def _sequence(opening: str, items: list[tuple[str | None, Any]], closing: str, parts: list[str]) -> None:
    parts.append(opening)
    for index, (key, item) in enumerate(items):
        if index:
            parts.append(",")
        if key is not None:
            parts.append(_string(key) + ":")
        _write(item, parts)
    parts.append(closing)


def _string(text: str) -> str:
    # json escapes what RFC 8785 does, in its form: \b \t \n \f \r \" \\ and \u00xx for the other control characters.
    return json.dumps(text, ensure_ascii=False)


def number(value: float) -> str:
    """`value` as ECMAScript's Number::toString writes it (ECMA-262, 6.1.6.1.20). Raises `FormatError` unless finite."""
    if not math.isfinite(value):
        raise FormatError("NaN and infinities are no JSON numbers", received=str(value))
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    exponent = f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return sign + digits[0] + (f".{digits[1:]}" if count > 1 else "") + exponent
