"""One tensor of a document: `{"dtype", "shape"}` with `values`, `base64` or `file`, or an `alias` of another."""

from __future__ import annotations

import binascii
import math
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from converter.errors import FormatError
from converter.format.digits import encode_values, survives
from converter.format.document import parameter_spec
from converter.format.fields import describe, known, name_of, typed
from converter.format.limits import MAX_BYTES
from converter.format.scan import Scanner
from converter.format.values import check_room, decode_values
from converter.ir import Array, DType, TensorSpec
from converter.parameters import as_bytes

SOURCES = ("alias", "values", "base64", "file")
"""The members that say where a parameter's values are."""
PARAMETER_FIELDS = ("constant", *SOURCES)
_BASE64_CHUNK = 3 << 18


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor's place in a document.

    Attributes:
        spec: dtype and shape (integers).
        source: which of `SOURCES` holds the values, or None when they are not in the document.
        start, end: the bytes of `values` or `base64` in the text, quotes and brackets included.
        target: the text of `alias` or `file`.
        constant: whether it is no part of the source's state_dict.
    """

    spec: TensorSpec
    source: str | None = None
    start: int = 0
    end: int = 0
    target: str = ""
    constant: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return integers(self.spec)


def integers(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of a tensor whose sizes are integers, as all parameters' are."""
    return typing.cast("tuple[int, ...]", spec.shape)


def byte_count(spec: TensorSpec) -> int:
    """The bytes of a tensor of integer sizes."""
    return spec.dtype.itemsize * math.prod(integers(spec))


def read_entry(scanner: Scanner, pos: int, where: str, allowed: tuple[str, ...]) -> tuple[TensorEntry, int]:
    """The tensor whose object begins at `pos`, and the place after it. The values are found, measured, and not read.

    `allowed` are the members that it may have beside `dtype` and `shape`. Raises `FormatError`.
    """
    found: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}

    def member(key: str, start: int) -> int:
        known([key], where, ("dtype", "shape", *allowed))
        if key == "values":
            end = scanner.numbers(start, where)
        elif key == "base64":
            end = scanner.text(start, where)
        else:
            found[key], end = scanner.parse(start, where)
            return end
        spans[key] = (start, end)
        return end

    if scanner.peek(pos) != 0x7B:
        raise scanner.error("not a tensor", pos, where=where, expected='an object with "dtype" and "shape"')
    end = scanner.object(pos, member, where)
    for field in ("dtype", "shape"):
        if field not in found:
            raise scanner.error(f"the field {field!r} is missing", pos, where=where)
    sources = [name for name in SOURCES if name in found or name in spans]
    if len(sources) > 1:
        raise scanner.error("a tensor has its values twice", pos, where=where, expected="one of " + ", ".join(SOURCES),
                            fix=f"keep one of {' and '.join(sources)}")
    spec = parameter_spec(found["dtype"], found["shape"], where)
    # NumPy's limit concerns the product of the sizes that are not zero.
    if spec.dtype.itemsize * math.prod(max(1, size) for size in integers(spec)) > MAX_BYTES:
        raise FormatError("a tensor larger than any memory", where=where, received=str(spec))
    source = sources[0] if sources else None
    constant = typed(found.get("constant", False), bool, f"{where}.constant")
    if source in ("alias", "file"):
        return TensorEntry(spec, source, target=name_of(found[source], f"{where}.{source}"), constant=constant), end
    entry = TensorEntry(spec, source, *spans.get(source or "", (0, 0)), constant=constant)
    _check_length(entry, where)
    return entry, end


def _check_length(entry: TensorEntry, where: str) -> None:
    length = entry.end - entry.start
    if entry.source is None:
        return
    if entry.source == "values":
        check_room(length, entry.shape, entry.spec.dtype, where)
    elif length < 2 + 4 * -(-byte_count(entry.spec) // 3):
        raise FormatError("less data than the shape declares", where=where, expected=f"{byte_count(entry.spec)} bytes",
                          received=f"{max(0, length - 2)} characters of base64")


def decode_entry(data: Any, entry: TensorEntry, where: str) -> Array:
    """The values of an entry that holds them in the text itself. Raises `FormatError` where they do not fit."""
    if entry.source == "values":
        return decode_values(data, entry.start, entry.end, entry.spec.dtype, entry.shape, where)
    return _decode_base64(data, entry, where)


def _decode_base64(data: Any, entry: TensorEntry, where: str) -> Array:
    start, end = entry.start + 1, entry.end - 1
    total = byte_count(entry.spec)
    if end - start != 4 * -(-total // 3):
        # JSON lets a writer escape any character, "/" as "\/" above all.
        try:
            data = orjson.loads(bytes(data[entry.start:entry.end])).encode("ascii")
        except ValueError as error:
            raise FormatError("not base64", where=where) from error
        start, end = 0, len(data)
    out = np.empty(total, np.uint8)
    done = 0
    for position in range(start, end, 4 * _BASE64_CHUNK // 3):
        stop = min(end, position + 4 * _BASE64_CHUNK // 3)
        try:
            piece = binascii.a2b_base64(bytes(data[position:stop]), strict_mode=True)
        except ValueError as error:
            raise FormatError(f"not base64 ({error})", where=where) from None
        if len(piece) != min(_BASE64_CHUNK, total - done):
            raise FormatError("the data are not as many bytes as the shape declares", where=where, expected=f"{total} bytes",
                              received=f"{done + len(piece)} bytes" if stop == end else "padding before the end")
        out[done:done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    if done != total:
        raise FormatError("the data are not as many bytes as the shape declares", where=where, expected=f"{total} bytes",
                          received=f"{done} bytes")
    return from_bytes(out, entry.spec, where)


def from_bytes(data: Array, spec: TensorSpec, where: str) -> Array:
    """uint8 data as the tensor that they are. Raises `FormatError` for a bool that is neither 0 nor 1, and for bits beyond a dtype's."""
    if spec.dtype is DType.BOOL and data.size and data.max() > 1:
        raise FormatError("a bool that is neither 0 nor 1", where=where, received=str(int(data.max())))
    if spec.dtype.bits < 8 and data.size and data.max() >> spec.dtype.bits:
        raise FormatError("a byte with other bits than its dtype has", where=where, received=str(int(data.max())),
                          expected=f"{spec.dtype}: below {1 << spec.dtype.bits}")
    return data.view(spec.dtype.numpy).reshape(integers(spec))


def write_values(array: Array, how: str, indent: str) -> Iterator[bytes]:
    """`"values": [...]` or `"base64": "..."`, in pieces. Values whose bits digits cannot carry become base64."""
    if how == "values" and survives(array):
        yield b'"values":' + (b"\n" + indent.encode() if array.ndim > 1 and array.size else b" ")
        yield from encode_values(array, indent)
        return
    yield from write_base64([as_bytes(array)])


def write_base64(data: Iterable[memoryview]) -> Iterator[bytes]:
    """`"base64": "..."` of bytes that come in pieces, all but the last of a multiple of three bytes."""
    yield b'"base64": "'
    for piece in data:
        for start in range(0, len(piece), _BASE64_CHUNK):
            yield binascii.b2a_base64(piece[start:start + _BASE64_CHUNK], newline=False)
    yield b'"'


def beside(directory: Path | None, name: str, where: str) -> Path:
    """The path of a file beside the document. Raises `FormatError` for anything that is not a plain name there."""
    if not name or name in (".", "..") or any(char in name for char in "/\\:\0"):
        raise FormatError("not the name of a file beside this one", where=where, received=describe(name),
                          expected="a plain file name without directories")
    if directory is None:
        raise FormatError("values in another file, but this document is no file itself", where=where, received=describe(name),
                          fix="read it by its path")
    path = directory / name
    try:
        if path.resolve().parent != directory.resolve():
            raise FormatError("the file is a link that leads out of the directory", where=where, received=describe(name))
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:
        raise FormatError(f"the file that holds the values cannot be found ({error})", where=where) from error
    raise FormatError("the file that holds the values is missing", where=where, expected=str(path))
