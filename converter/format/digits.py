"""Tensors written as nested lists of JSON numbers: the fewest digits that give the same bits back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import orjson

from converter.format.small_floats import SMALL_FLOATS, float_table, shortest_digits
from converter.format.values import COMPONENT
from converter.ir import Array, DType

BLOCK = 1 << 17
_CANONICAL_NAN = {DType.FLOAT32: 0x7FC00000, DType.FLOAT64: 0x7FF8000000000000}


def survives(array: Array) -> bool:
    """Whether `encode_values` keeps every bit: it does unless a NaN is not the canonical one of its dtype."""
    dtype = DType.of(array.dtype)
    component = COMPONENT.get(dtype, dtype)
    if not component.is_float or not array.size:
        return True
    flat = array.reshape(-1).view(component.numpy)
    if component in SMALL_FLOATS:
        table = float_table(component)
        nan, canonical, unsigned = np.isnan(table.values), table.special.get("NaN"), table.unsigned
        odd = nan & (np.arange(len(nan)) != canonical)
        return not any(odd[piece.view(unsigned)].any() for piece in _pieces(flat))
    unsigned = np.dtype(f"u{component.itemsize}")
    return not any((np.isnan(piece) & (piece.view(unsigned) != _CANONICAL_NAN[component])).any() for piece in _pieces(flat))


def _pieces(flat: Array) -> Iterator[Array]:
    for start in range(0, len(flat), BLOCK):
        yield flat[start:start + BLOCK]


def encode_values(array: Array, indent: str = "") -> Iterator[bytes]:
    """The JSON text of a tensor, in pieces. Every innermost row stands on a line of its own, after `indent`.

    A tensor without elements is `[]`; a complex number is `[re, im]`; NaN and infinities are strings.
    """
    dtype = DType.of(array.dtype)
    if array.size == 0:
        yield b"[]"
        return
    component = COMPONENT.get(dtype, dtype)
    array = np.ascontiguousarray(array).reshape(array.shape)
    if dtype.is_integer and dtype.bits < 8:
        array = array.astype(np.int8)
    rows = array.reshape(-1).view(component.numpy).reshape(*array.shape, 2) if dtype in COMPONENT else array
    if rows.ndim == 0:
        yield b",".join(_tokens(rows.reshape(1), component))
        return
    between = b"]],[[" if dtype in COMPONENT else b"],["
    half = len(between) // 2
    line = b"," + b"\n" + indent.encode() + b" "
    yield from _block(rows, component, between, between[:half] + line + between[half + 1:], line, half)


def _block(rows: Array, dtype: DType, between: bytes, broken: bytes, line: bytes, half: int) -> Iterator[bytes]:
    if rows.size <= BLOCK:
        yield _nested(rows, dtype).replace(between, broken)
        return
    yield b"["
    separator = b""
    inner = rows[0].size
    comma = line if rows.ndim > half else b","
    if inner > BLOCK:
        for row in rows:
            yield separator
            yield from _block(row, dtype, between, broken, line, half)
            separator = comma
    else:
        step = max(1, BLOCK // inner)
        for start in range(0, len(rows), step):
            yield separator
            yield _nested(rows[start:start + step], dtype).replace(between, broken)[1:-1]
            separator = comma
    yield b"]"


def _nested(rows: Array, dtype: DType) -> bytes:
    """A block of at most `BLOCK` elements as compact JSON."""
    if dtype in SMALL_FLOATS or (dtype.is_float and not np.isfinite(rows).all()):
        texts = _tokens(rows.reshape(-1), dtype)
        for size in reversed(rows.shape):
            texts = [b"[" + b",".join(texts[start:start + size]) + b"]" for start in range(0, len(texts), size)]
        return texts[0]
    return orjson.dumps(np.require(rows, requirements=("C", "A")), option=orjson.OPT_SERIALIZE_NUMPY)


def _tokens(flat: Array, dtype: DType) -> list[bytes]:
    """The text of every element."""
    if dtype in SMALL_FLOATS:
        codes = np.ascontiguousarray(flat).view(float_table(dtype).unsigned)
        return [text.encode() for text in shortest_digits(dtype)[codes].tolist()]
    texts = orjson.dumps(np.require(flat, requirements=("C", "A")), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    if dtype.is_float:
        for index in np.flatnonzero(~np.isfinite(flat)).tolist():
            value = flat[index]
            texts[index] = b'"NaN"' if np.isnan(value) else b'"Infinity"' if value > 0 else b'"-Infinity"'
    return texts
