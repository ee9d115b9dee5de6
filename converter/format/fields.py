"""Checked access to the members of a document: every refusal says where, what was expected, and what was found."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from converter.errors import FormatError
from converter.format.limits import MAX_NAME_BYTES, MAX_RANK, MAX_SIZE

KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string", int: "an integer", bool: "true or false"}


def describe(value: Any) -> str:
    """A JSON value in a few words, for an error."""
    if isinstance(value, (dict, list)):
        return f"{KINDS[type(value)]} of {len(value)}"
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else repr(value)
    return text if text is not None and len(text) <= 80 else f"{text[:77]}…" if text else "null"


def typed(value: Any, kind: type, where: str) -> Any:
    """`value` when it is of the JSON type `kind`. A bool is no integer. Raises `FormatError`."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FormatError("wrong type", where=where, expected=KINDS[kind], received=describe(value))
    return value


def members(value: Any, where: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """`value` when it is an object with all `required` members and none beyond the `optional` ones.

    Raises:
        FormatError: another type, unknown members, or missing ones.
    """
    typed(value, dict, where)
    known(value, where, (*required, *optional))
    missing = [name for name in required if name not in value]
    if missing:
        raise FormatError(f"the field {missing[0]!r} is missing", where=where,
                          expected=f"the fields {', '.join(required)}", received=", ".join(map(repr, value)) or "no fields")
    return value


def known(names: Collection[str], where: str, allowed: Collection[str]) -> None:
    """Raises `FormatError` for a name that is not among `allowed`."""
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise FormatError(f"unknown field {', '.join(repr(name[:80]) for name in unknown[:5])}", where=where,
                          expected=", ".join(allowed), fix="remove it; a newer version of the format may know it")


def name_of(value: Any, where: str) -> str:
    """`value` when it is a string fit for a name. Raises `FormatError`."""
    text: str = typed(value, str, where)
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise FormatError("a name that is not Unicode text", where=where, received=ascii(text)[:80]) from None
    if size > MAX_NAME_BYTES:
        raise FormatError("a name is too long", where=where, expected=f"at most {MAX_NAME_BYTES} bytes of UTF-8",
                          received=f"{size} bytes")
    return text


def fixed_shape(value: Any, where: str) -> tuple[int, ...]:
    """A shape of integers. Raises `FormatError` for another type, a negative or huge size, or too many axes."""
    sizes = typed(value, list, where)
    if len(sizes) > MAX_RANK:
        raise FormatError("too many axes", where=where, expected=f"at most {MAX_RANK}", received=str(len(sizes)))
    for size in sizes:
        if not 0 <= typed(size, int, where) <= MAX_SIZE:
            raise FormatError("not a size", where=where, expected="an integer of 0 and up", received=describe(size))
    return tuple(sizes)


