"""Files that tensors are read from: by system calls, which a file that shrinks cannot hurt, or mapped, so that processes share pages.

A mapped page whose file has been cut off ends the process when it is touched. So whatever passes over tensors (conversions, digests,
looks) reads them, and only what holds them for long (a session) maps them. A file that has another length or another time of change
than when it was opened is refused by every read, and by sessions before and after each run.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import FormatError
from converter.ir import Array, DType, TensorSpec

PIECE = 3 << 20
"""Bytes that are read at a time where the whole is not needed: whole elements, and whole groups of base64."""
LARGE = 4 << 20
"""Bytes of a tensor from which on it is passed on in pieces."""


class OpenFile:
    """A file as it was when it was opened. One that is replaced by a new one under its name goes on being what it was."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._number)
        state = os.fstat(self._number)
        self.size, self._changed = state.st_size, state.st_mtime_ns

    def check(self) -> None:
        """Raises `FormatError` where the file has been cut, extended or written over since."""
        state = os.fstat(self._number)
        if (state.st_size, state.st_mtime_ns) != (self.size, self._changed):
            raise FormatError("the file was changed while it was in use", where=self.path, expected=f"{self.size} bytes, as it was opened",
                              received=f"{state.st_size} bytes, written to since",
                              fix="open it again; to replace a file that is in use, rename another one over it")

    def read_into(self, out: Array, offset: int) -> None:
        """Fills uint8 data from `offset` on. Raises `FormatError` where the file is no longer what it was."""
        done, data = 0, out.data
        while done < len(data):
            count = _read_at(self._number, data[done:], offset + done)
            if not count:
                break
            done += count
        self.check()

    def map(self) -> mmap.mmap:
        found = _Mapping(self._number, 0, access=mmap.ACCESS_READ)
        found.file = self
        return found


_SEEKING = threading.Lock()


def _read_at(number: int, out: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(number, [out], offset)
    with _SEEKING:
        os.lseek(number, offset, os.SEEK_SET)
        data = os.read(number, len(out))
    out[:len(data)] = data
    return len(data)


class _Mapping(mmap.mmap):
    file: OpenFile


class MappedFile:
    """The bytes of a file: `read` copies them, `view` maps them. `start` is where in the file they begin, for a `part` of one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = OpenFile(path)
        self.start, self.size = 0, self.file.size
        self._map: mmap.mmap | None = None
        self._whole: MappedFile | None = None

    def part(self, offset: int, size: int) -> MappedFile:
        """A piece of the file, whose offsets count from its own beginning. Raises `ValueError` for one that reaches past the end."""
        self._check_range(offset, size)
        found = object.__new__(MappedFile)
        found.file, found.start, found.size = self.file, self.start + offset, size
        found._map, found._whole = None, self._whole or self
        return found

    def _check_range(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset} to {offset + size} of a file of {self.size}")

    def read(self, offset: int, size: int) -> Array:
        """uint8[size], writable, which nothing else sees. Raises `ValueError` for a piece that reaches past the end."""
        self._check_range(offset, size)
        out = np.empty(size, np.uint8)
        self.file.read_into(out, self.start + offset)
        return out

    def read_into(self, out: Array, offset: int) -> None:
        """Fills uint8 data from `offset` on. Raises `ValueError` for a piece that reaches past the end."""
        self._check_range(offset, out.size)
        self.file.read_into(out, self.start + offset)

    def view(self, offset: int, size: int) -> Array:
        """uint8[size], read-only: a view of the one mapping of the file. Raises `ValueError` as `read`."""
        self._check_range(offset, size)
        if not size:
            return np.empty(0, np.uint8)
        if self._whole is not None:
            return self._whole.view(self.start + offset, size)
        self.file.check()
        if self._map is None:
            self._map = self.file.map()
        return np.frombuffer(self._map, np.uint8, size, offset)

    def pieces(self, offset: int, size: int, unit: int = 1) -> Iterator[memoryview]:
        """The bytes, about `PIECE` and whole units at a time; each piece is gone with the next."""
        self._check_range(offset, size)
        step = max(unit, PIECE - PIECE % unit)
        buffer = np.empty(min(size, step), np.uint8)
        for start in range(0, size, step):
            piece = buffer[:min(step, size - start)]
            self.file.read_into(piece, self.start + offset + start)
            yield piece.data


@dataclass(frozen=True)
class FileRange:
    """Where a file holds a tensor's values just as they are used: little-endian, in C order."""

    file: MappedFile
    offset: int
    size: int

    def read(self) -> Array:
        return self.file.read(self.offset, self.size)

    def view(self) -> Array:
        return self.file.view(self.offset, self.size)

    def pieces(self, unit: int = 1) -> Iterator[memoryview]:
        return self.file.pieces(self.offset, self.size, unit)


def usable_range(file: MappedFile, offset: int, spec: TensorSpec) -> FileRange | None:
    """The range of a tensor that lies at `offset`, little-endian and in C order; None where its values have to be checked or moved."""
    size = spec.dtype.itemsize * math.prod(spec.sizes)
    checked = spec.dtype is DType.BOOL or spec.dtype.bits < 8
    if checked or not size or not np.little_endian or (file.start + offset) % spec.dtype.numpy.alignment:
        return None
    return FileRange(file, offset, size)


def mapped_files(arrays: Iterable[Array]) -> tuple[OpenFile, ...]:
    """The files that any of the arrays is a view of."""
    found: dict[int, OpenFile] = {}
    for array in arrays:
        base: Any = array
        while isinstance(base, (np.ndarray, memoryview)):
            base = base.base if isinstance(base, np.ndarray) else base.obj
        if isinstance(base, _Mapping):
            found[id(base.file)] = base.file
    return tuple(found.values())


def file_text(path: Path) -> tuple[Any, Any]:
    """A file's bytes twice: to be scanned once, and to be read from later, in slices. Small files are held in memory."""
    opened = MappedFile(path)
    if opened.size <= PIECE:
        data = opened.read(0, opened.size).tobytes()
        return data, data
    return opened.file.map(), FileText(opened)


class FileText:
    """A file's bytes by slices, each read when it is asked for."""

    def __init__(self, file: MappedFile) -> None:
        self._file = file

    def __len__(self) -> int:
        return self._file.size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._file.size)
        return self._file.read(start, max(0, stop - start)).tobytes()

    def rfind(self, text: bytes, start: int, stop: int) -> int:
        found = self[start:stop].rfind(text)
        return found if found < 0 else start + found
