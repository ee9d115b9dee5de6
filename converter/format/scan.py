"""A JSON text read by places: finds where each member's value begins and ends, and parses only what is asked for.

The text is anything with the buffer protocol, usually a mapped file, so that gigabytes of numbers are passed over at
the speed of a search for one byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import orjson

from converter.errors import FormatError
from converter.format.limits import MAX_DEPTH

_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[{}\[\]]', re.DOTALL)
_SCALAR = re.compile(rb"[-+0-9.eEa-zA-Z]++")
_BRACE = re.compile(rb"\}")
_COLON = re.compile(rb":")
_QUOTE = re.compile(rb'"')
_CLOSING = {0x7B: 0x7D, 0x5B: 0x5D}
_LONGEST_KEY = 1 << 16

Member = Callable[[str, int], int]


class Scanner:
    """Positions in a JSON text. Every method that refuses raises `FormatError` with the byte where it stopped."""

    def __init__(self, data: Any) -> None:
        self.data, self.size = data, len(data)

    def error(self, message: str, pos: int, *, where: str | None = None, expected: str | None = None,
              fix: str | None = None) -> FormatError:
        """An error at a byte of the text."""
        place = (f"{where}, " if where else "") + f"byte {min(pos, self.size)}"
        received = bytes(self.data[pos:pos + 24]).decode("utf-8", "replace") if pos < self.size else "the end of the file"
        return FormatError(message, where=place, expected=expected, received=received, fix=fix)

    def skip(self, pos: int) -> int:
        """The first place from `pos` on that is no white space."""
        match = _SPACE.match(self.data, pos)
        return match.end() if match else pos

    def peek(self, pos: int) -> int:
        """The byte at `pos`. Raises at the end of the text."""
        if pos >= self.size:
            raise self.error("the file ends too early", pos, fix="it is cut short; copy or write it again")
        return int(self.data[pos])

    def expect(self, pos: int, char: str) -> int:
        """The place after `char`, which must stand at `pos`."""
        if self.peek(pos) != ord(char):
            raise self.error("not the JSON that is due here", pos, expected=repr(char))
        return pos + 1

    def object(self, pos: int, member: Member, where: str) -> int:
        """Walks an object: `member(key, start)` is called for every member and gives the place after its value.

        Returns the place after the object. Refuses a key that comes twice.
        """
        pos = self.skip(self.expect(pos, "{"))
        seen: set[str] = set()
        if self.peek(pos) == 0x7D:
            return pos + 1
        while True:
            start = pos
            key, pos = self._key(pos, where)
            if key in seen:
                raise self.error(f"the key {key[:80]!r} comes twice in one object", start, where=where, fix="keep one of the two")
            seen.add(key)
            pos = self.skip(self.expect(self.skip(pos), ":"))
            self.peek(pos)
            pos = self.skip(member(key, pos))
            if self.peek(pos) == 0x7D:
                return pos + 1
            pos = self.skip(self.expect(pos, ","))

    def array(self, pos: int, item: Callable[[int, int], int]) -> int:
        """Walks an array: `item(index, start)` is called for every element. Returns the place after the array."""
        pos = self.skip(self.expect(pos, "["))
        if self.peek(pos) == 0x5D:
            return pos + 1
        index = 0
        while True:
            pos = self.skip(item(index, pos))
            if self.peek(pos) == 0x5D:
                return pos + 1
            pos, index = self.skip(self.expect(pos, ",")), index + 1

    def _key(self, pos: int, where: str) -> tuple[str, int]:
        self.expect(pos, '"')
        match = _STRING.match(self.data, pos, min(self.size, pos + _LONGEST_KEY))
        if match is None:
            raise self.error("a key without an end", pos, where=where, expected=f"a string of at most {_LONGEST_KEY} bytes")
        return self._loads(pos, match.end(), where), match.end()

    def end_of(self, pos: int, where: str) -> int:
        """The place after the value at `pos`; only its brackets and strings are looked at."""
        first = self.peek(pos)
        if first not in b'{["':
            match = _SCALAR.match(self.data, pos)
            if match is None:
                raise self.error("not a JSON value", pos, where=where)
            return match.end()
        stack: list[int] = []
        while True:
            match = _TOKEN.search(self.data, pos)
            if match is None:
                raise self.error("the file ends too early", self.size, where=where)
            pos = match.end()
            token = self.data[match.start()]
            if token == 0x22:
                if not match[1]:
                    raise self.error("a string without an end", match.start(), where=where)
            elif token in _CLOSING:
                stack.append(_CLOSING[token])
                if len(stack) > MAX_DEPTH:
                    raise self.error("lists and objects within each other, too deep", match.start(), where=where,
                                     expected=f"at most {MAX_DEPTH} levels")
            elif not stack or stack.pop() != token:
                raise self.error("a bracket that closes nothing", match.start(), where=where)
            if not stack:
                return pos

    def parse(self, pos: int, where: str) -> tuple[Any, int]:
        """The value at `pos`, and the place after it. Refuses what is not strict JSON, and keys that come twice."""
        end = self.end_of(pos, where)
        return self._loads(pos, end, where), end

    def _loads(self, start: int, end: int, where: str) -> Any:
        text = bytes(self.data[start:end])
        try:
            # orjson is strict: UTF-8, no NaN, no half surrogates, no numbers beyond float64. json reports double keys.
            found = orjson.loads(text)
            return found if isinstance(found, str) else _DECODER.decode(text.decode("utf-8"))
        except _DoubleKeyError as error:
            raise self.error(f"the key {str(error)[:80]!r} comes twice in one object", start, where=where,
                             fix="keep one of the two") from None
        except (ValueError, RecursionError) as error:
            raise self.error(f"not valid JSON: {str(error)[:120]}", start, where=where) from error

    def numbers(self, pos: int, where: str) -> int:
        """The place after the list of numbers at `pos`, which must be a member's value.

        The list is not looked into: it ends where its object does, or before the object's next key. Whoever decodes
        the numbers must refuse what is not a list.
        """
        if self.peek(pos) != 0x5B:
            return self.end_of(pos, where)
        close = _BRACE.search(self.data, pos)
        if close is None:
            raise self.error("the file ends too early", self.size, where=where, fix="it is cut short; copy or write it again")
        end = close.start()
        colon = _COLON.search(self.data, pos, end)
        if colon is not None:
            end = self._before_key(pos, colon.start())
        while end > pos and self.data[end - 1] in b" \t\n\r":
            end -= 1
        if end <= pos or self.data[end - 1] != 0x5D:
            raise self.error("not a list of numbers", pos, where=where)
        return end

    def _before_key(self, pos: int, colon: int) -> int:
        for char in (b'"', b'"', b","):
            colon = self.data.rfind(char, pos, colon)
            if colon < 0:
                return pos
        return colon

    def text(self, pos: int, where: str) -> int:
        """The place after the string at `pos`, which may be very long; it is not looked into."""
        self.expect(pos, '"')
        at = pos + 1
        while True:
            quote = _QUOTE.search(self.data, at)
            if quote is None:
                raise self.error("a string without an end", pos, where=where, fix="it is cut short; copy or write it again")
            at = quote.end()
            back = quote.start()
            while self.data[back - 1] == 0x5C:
                back -= 1
            if (quote.start() - back) % 2 == 0:
                return at


class _DoubleKeyError(ValueError):
    """A key that an object holds twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DoubleKeyError(key)
            seen.add(key)
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
