"""Tensors as nested lists of JSON numbers, in and out a piece at a time, with every bit kept.

Reading gives the value nearest to the decimal number (ties to even), rounded once, whatever the dtype.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np
import orjson

from converter.errors import FormatError
from converter.format.small_floats import float_table
from converter.ir import Array, DType

CHUNK = 1 << 18
SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
COMPONENT = {DType.COMPLEX64: DType.FLOAT32, DType.COMPLEX128: DType.FLOAT64}
_INTEGER_CODES = {DType.INT8: "b", DType.INT16: "h", DType.INT32: "i", DType.INT64: "q",
                  DType.UINT8: "B", DType.UINT16: "H", DType.UINT32: "I", DType.UINT64: "Q"}
_HELD = {DType.INT2: DType.INT8, DType.INT4: DType.INT8, DType.UINT2: DType.UINT8, DType.UINT4: DType.UINT8}
_BRACKETS = bytes.maketrans(b"[]", b"  ")
_NEGATIVE_ZERO = re.compile(rb"-0(?=[\],\s]|$)")
_LONGEST_NUMBER = 1200


def decode_values(data: Any, start: int, end: int, dtype: DType, shape: tuple[int, ...], where: str) -> Array:
    """The tensor whose values are the JSON text `data[start:end]`.

    A tensor without elements is `[]`, one without axes is a number, a complex number is `[re, im]`. Memory beyond the
    tensor is a few times `CHUNK`.

    Raises:
        FormatError: the text is not nested lists of exactly that shape, or a number does not fit the dtype.
    """
    check_room(end - start, shape, dtype, where)
    if 0 in shape:
        if bytes(data[start:min(end, start + CHUNK)]).translate(None, b" \t\n\r") != b"[]":
            raise FormatError("a tensor without elements has values", where=where, expected="[]")
        return np.empty(shape, dtype.numpy)
    component = COMPONENT.get(dtype, dtype)
    sizes = shape + ((2,) if dtype in COMPONENT else ())
    out = np.empty(math.prod(sizes), component.numpy)
    if not sizes:
        _fill(out, bytes(data[start:end]), _parse(b"[" + bytes(data[start:end]) + b"]", where), component, where)
        return out.view(dtype.numpy).reshape(shape)
    nesting = _Nesting(sizes, where)
    position, done = start, 0
    while position < end:
        stop = end
        if end - position > CHUNK:
            stop = data.rfind(b",", position, position + CHUNK)
            if stop <= position:
                raise FormatError("a number is too long", where=where, expected=f"at most {_LONGEST_NUMBER} characters")
        text = bytes(data[position:stop])
        flat = nesting.flatten(text, first=position == start, last=stop == end)
        _fill(out[done:done + len(flat)], text, flat, component, where)
        done += len(flat)
        position = stop + 1
    return out.view(dtype.numpy).reshape(shape)


def check_room(length: int, shape: tuple[int, ...], dtype: DType, where: str) -> None:
    """Raises `FormatError` when a text of `length` bytes is too short for the shape, before anything is allocated."""
    count = math.prod(shape) * (2 if dtype in COMPONENT else 1)
    if count > (length + 1) // 2:
        raise FormatError("fewer values than the shape declares", where=where, expected=f"{count} values",
                          received=f"{length} bytes of text")


class _Nesting:
    """Holds a text that comes in pieces, cut at commas, to the nesting of a shape."""

    def __init__(self, sizes: tuple[int, ...], where: str) -> None:
        self.sizes, self.where = sizes, where
        self.open = 0
        self.counts = [0] * len(sizes)

    def flatten(self, text: bytes, *, first: bool, last: bool) -> list[Any]:
        """The leaves of the next piece. Raises `FormatError` where lists are too long, too short, too deep or too flat."""
        opened = self.open
        closed = opened + text.count(b"[") - text.count(b"]")
        if not 0 <= closed <= len(self.sizes) or (opened == 0) != first or (closed == 0) != last:
            raise self._misfit("other brackets than the shape has")
        node = _parse(b"[" * opened + text + b"]" * closed, self.where)
        rows: list[list[Any]] = []
        counts = list(self.counts)
        self._walk(node, 0, opened > 0, closed > 0, opened, closed, counts, rows)
        self.open, self.counts = closed, counts
        return rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))

    def _walk(self, node: Any, level: int, left: bool, right: bool, opened: int, closed: int, counts: list[int],
              rows: list[list[Any]]) -> None:
        """One list: `left` when it goes on from the last piece, `right` when it goes on in the next."""
        if not isinstance(node, list):
            raise self._misfit(f"no list at depth {level + 1}")
        continued = left and level + 1 < opened
        total = len(node) + (self.counts[level] - continued if left else 0)
        if total > self.sizes[level] or (not right and total != self.sizes[level]):
            raise self._misfit(f"a list of {total} at depth {level + 1}")
        counts[level] = total
        if level + 1 == len(self.sizes):
            rows.append(node)
            return
        low = 1 if continued else 0
        high = len(node) - 1 if right and level + 1 < closed else len(node)
        if low > high:
            self._walk(node[0], level + 1, True, True, opened, closed, counts, rows)
            return
        if low:
            self._walk(node[0], level + 1, True, False, opened, closed, counts, rows)
        whole = node[low:high] if (low, high) != (0, len(node)) else node
        if level + 2 == len(self.sizes):
            if set(map(type, whole)) - {list} or set(map(len, whole)) - {self.sizes[-1]}:
                raise self._misfit(f"a row that is not a list of {self.sizes[-1]}")
            rows.extend(whole)
        else:
            for item in whole:
                self._walk(item, level + 1, False, False, opened, closed, counts, rows)
        if high < len(node):
            self._walk(node[-1], level + 1, False, True, opened, closed, counts, rows)

    def _misfit(self, received: str) -> FormatError:
        return FormatError("the values are not nested as the shape says", where=self.where,
                           expected=f"lists of {' x '.join(map(str, self.sizes))}", received=received)


def _parse(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError as error:
        raise FormatError(f"the values are not valid JSON ({str(error)[:80]})", where=where) from None


def _fill(out: Array, text: bytes, flat: list[Any], dtype: DType, where: str) -> None:
    """Writes the leaves of a piece into `out`. `text` is where they came from, for what a float64 does not tell."""
    if len(flat) != len(out):
        raise FormatError("another number of values than the shape declares", where=where)
    if dtype.is_float:
        _FloatPiece(text, flat, dtype, where).fill(out)
    elif dtype is DType.BOOL:
        if set(map(type, flat)) != {bool}:
            raise _not_fitting(dtype, flat, where, lambda value: isinstance(value, bool))
        out[:] = flat
    else:
        low, high = dtype.limits
        try:
            if b"e" in text or b"E" in text or b"." in text:
                # Also true and false: struct would take them for 1 and 0.
                raise struct.error
            held = _HELD.get(dtype, dtype)
            whole = np.frombuffer(struct.pack(f"<{len(flat)}{_INTEGER_CODES[held]}", *flat), held.numpy)
            if held is not dtype and not ((whole >= low) & (whole <= high)).all():
                raise struct.error
            out[:] = whole
        except struct.error:
            raise _not_fitting(dtype, flat, where, lambda value: type(value) is int and low <= value <= high) from None


def _not_fitting(dtype: DType, flat: list[Any], where: str, fits: Callable[[Any], bool]) -> FormatError:
    value = next((value for value in flat if not fits(value)), "a number with a point or an exponent")
    return FormatError("a value does not fit the dtype", where=where, expected=str(dtype), received=repr(value)[:80])


class _FloatPiece:
    """One piece of float values, rounded from decimal to the dtype once."""

    def __init__(self, text: bytes, flat: list[Any], dtype: DType, where: str) -> None:
        self.text, self.flat, self.dtype, self.where = text, flat, dtype, where

    def fill(self, out: Array) -> None:
        text, flat = self.text, self.flat
        if b'"' in text:
            flat = [SPECIAL.get(value, value) if type(value) is str else value for value in flat]
        if b"t" in text or b"f" in text:
            # struct would take true for 1. Infinity holds both letters too.
            flat = [None if type(value) is bool else value for value in flat]
        try:
            wide = np.frombuffer(struct.pack(f"<{len(flat)}d", *flat), np.dtype("<f8"))
        except struct.error:
            raise _not_fitting(self.dtype, flat, self.where, lambda value: type(value) in (int, float)) from None
        if not wide.all() and _NEGATIVE_ZERO.search(text):
            wide = wide.copy()
            wide[[index for index, token in enumerate(self.tokens()) if token == b"-0"]] = -0.0
        if self.dtype is DType.FLOAT64:
            out[:] = wide
        elif self.dtype is DType.FLOAT32:
            self._single(wide, out)
        else:
            self._small(wide, out)

    def tokens(self) -> list[bytes]:
        """The text of every leaf."""
        return [token.strip() for token in self.text.translate(_BRACKETS).split(b",")]

    def _single(self, wide: Array, out: Array) -> None:
        with np.errstate(all="ignore"):
            out[:] = wide
            self._refuse(np.isinf(out) & np.isfinite(wide), wide)
            # Halfway between two float32 values the float64 may itself be rounded: the text decides.
            magnitude = np.abs(wide)
            tie = (wide.view(np.uint64) & 0x1FFFFFFF) == 0x10000000
            tiny = (magnitude < 2.0**-126) & (magnitude > 0)
            if tiny.any():
                scaled = magnitude * 2.0**149
                tie = np.where(tiny, scaled - np.floor(scaled) == 0.5, tie)
        if tie.any():
            tokens = self.tokens()
            for index in np.flatnonzero(tie & np.isfinite(wide)).tolist():
                side = self._side(tokens[index], float(wide[index]))
                if side:
                    near = float(out[index])
                    toward = math.inf if side > 0 else -math.inf
                    if (near < wide[index]) == (side > 0) and near != wide[index]:
                        out[index] = np.nextafter(np.float32(near), np.float32(toward))

    def _small(self, wide: Array, out: Array) -> None:
        table = float_table(self.dtype)
        codes, tie, outside = table.nearest(wide)
        finite = np.isfinite(wide)
        self._refuse(outside & finite, wide)
        if tie.any():
            tokens = self.tokens()
            for index in np.flatnonzero(tie & finite).tolist():
                side = self._side(tokens[index], float(wide[index]))
                if side:
                    codes[index] = table.neighbours(float(wide[index]))[side > 0]
        if not finite.all():
            for name, value in SPECIAL.items():
                found = np.isnan(wide) if math.isnan(value) else wide == value
                if name in table.special:
                    codes[found] = table.special[name]
                elif found.any():
                    raise FormatError(f"the dtype has no {name}", where=self.where, expected=str(self.dtype), received=name)
        out[:] = codes.view(self.dtype.numpy)

    def _refuse(self, outside: Array, wide: Array) -> None:
        if outside.any():
            raise FormatError("a number is outside the range of the dtype", where=self.where, expected=str(self.dtype),
                              received=repr(float(wide[int(np.argmax(outside))])))

    def _side(self, token: bytes, middle: float) -> int:
        """Whether the decimal number lies below (-1), at (0), or above (1) the float64 that it was read as."""
        if len(token) > _LONGEST_NUMBER:
            raise FormatError("a number is too long", where=self.where, expected=f"at most {_LONGEST_NUMBER} characters")
        exact, rounded = Fraction(token.decode("ascii")), Fraction(middle)
        return (exact > rounded) - (exact < rounded)
