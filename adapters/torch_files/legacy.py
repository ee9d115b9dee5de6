"""The file that `torch.save` wrote before PyTorch 1.6: pickles one after the other, then the storages' bytes.

Layout: the pickles of a magic number, of a protocol number, of facts of the machine, of the object, and of the list of the
storages' keys; then, in that list's order, each storage's number of elements (int64) and its elements. All numbers are
little-endian, also those that a big-endian machine wrote, and nothing is aligned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.torch_files.archive import COPY, MAX_PICKLE
from adapters.torch_files.unpickle import unpickle
from converter.errors import FormatError
from converter.mapped import MappedFile

MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How the pickle of the magic number ends, by every protocol from 2."""
BEFORE = 11
"""Bytes that may come before it: the protocol's number and, from protocol 4, the length of a frame."""

PROTOCOL = 1001
MAX_KEY = 200


class LegacyFile:
    """A checkpoint of the older kind: what its pickle holds, and where its storages lie.

    Raises:
        FormatError: a damaged or cut file, or storages that are not what the pickle says.
        UnsafePickleError: a pickle that cannot be followed, and names classes or functions.
    """

    big = False

    def __init__(self, path: Path) -> None:
        self.file = MappedFile(path)
        self._position = self.file.read(0, min(BEFORE + len(MAGIC), self.file.size)).tobytes().index(MAGIC) + len(MAGIC)
        sizes: dict[str, tuple[int, int]] = {}

        def storage_of(key: str, count: int, width: int) -> None:
            if sizes.setdefault(key, (count, width)) != (count, width):
                raise FormatError("a storage of two lengths", where=f"storage {key[:80]}", fix=COPY)

        if self._next(storage_of)[0] != PROTOCOL:
            raise FormatError("a checkpoint of an unknown protocol", expected=str(PROTOCOL), fix=COPY)
        self._next(storage_of)
        self.content, self.foreign = self._next(storage_of)
        keys, _ = self._next(storage_of)
        if not isinstance(keys, list) or not all(isinstance(key, (str, int)) and len(str(key)) <= MAX_KEY for key in keys):
            raise FormatError("the list of storages is none", where=f"byte {self._position}", fix=COPY)
        self._offsets: dict[str, int] = {}
        for key in map(str, keys):
            self._place(key, sizes)
        missing = [key for key in sizes if key not in self._offsets]
        if missing:
            raise FormatError("a storage is missing", where=f"storage {missing[0][:80]}", fix=COPY)

    def _next(self, storage_of: Any) -> tuple[Any, tuple[str, ...]]:
        """What the next pickle holds, and the classes that it asks for."""
        data: Any = self.file.view(self._position, min(self.file.size - self._position, MAX_PICKLE))
        content, foreign, length = unpickle(memoryview(data), storage_of, where=f"the pickle at {self._position}")
        self._position += length
        return content, foreign

    def _place(self, key: str, sizes: dict[str, tuple[int, int]]) -> None:
        where = f"storage {key[:80]}"
        if key not in sizes:
            raise FormatError("a storage that the pickle does not tell of", where=where, fix=COPY)
        if key in self._offsets:
            raise FormatError("the file holds a storage twice", where=where, fix=COPY)
        count, width = sizes[key]
        start = self._position + 8
        if start + count * width > self.file.size:
            raise FormatError("the file is cut short", where=where, expected=f"{start + count * width} bytes at least",
                              received=f"{self.file.size} bytes", fix=COPY)
        held = int.from_bytes(self.file.read(self._position, 8).tobytes(), "little", signed=True)
        if held != count:
            raise FormatError("a storage of another length than the pickle says", where=where, expected=f"{count} elements",
                              received=f"{held} elements", fix=COPY)
        self._offsets[key] = start
        self._position = start + count * width

    def check_storage(self, key: str) -> None:
        """Does nothing: files of this kind hold no checksums."""

    def offset(self, key: str) -> int:
        """Where a storage's elements begin in the file."""
        return self._offsets[key]


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of the older kind, whatever pickle protocol it was written in."""
    return head[:1] == b"\x80" and MAGIC in head[:BEFORE + len(MAGIC)]
