"""The zip file that `torch.save` writes: stored entries under one folder, each held to what the directory says of it.

Layout: `<folder>/data.pkl`, `<folder>/data/<key>` for each storage, `<folder>/byteorder`, `<folder>/version`, and small
entries of newer versions. Nothing is ever unpacked: an entry is a range of the file's bytes.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, Any, cast

from converter.errors import FormatError
from converter.mapped import MappedFile

MAGIC = b"PK\x03\x04"
PICKLE = "data.pkl"
MAX_PICKLE = 256 << 20
MAX_ENTRIES = 1_000_000
MAX_SMALL = 4096
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800

RESAVE = "write it again where PyTorch is installed: torch.save(torch.load(file, weights_only=True), 'weights.pt')"
SAVE_ARRAYS = "save them as tensors, torch.save({name: torch.as_tensor(value) …}, 'weights.pt'), or with safetensors.numpy.save_file"
COPY = "copy or download it again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive: a range of bytes. Only what is not read as tensors may be deflated."""

    name: str
    offset: int
    size: int
    deflated: bool = False
    crc: int = 0
    """The CRC-32 in the directory; 0 where the file was written without any (`torch.serialization.set_crc32_options`)."""


class _Stream(io.RawIOBase):
    """A file, or a part of one, as `zipfile` reads it."""

    def __init__(self, file: MappedFile) -> None:
        self._file, self._place = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = offset + (0, self._place, self._file.size)[whence]
        if place < 0:
            raise ValueError(f"a place before the file's beginning: {place}")
        self._place = place
        return place

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._file.size - self._place))
        buffer[:count] = self._file.read(self._place, count).tobytes() if count else b""
        self._place += count
        return count


class Archive:
    """The entries of a checkpoint by their names without the folder.

    Raises:
        FormatError: no zip file, a damaged or a hostile one (compressed, encrypted or overlapping entries, entries that
            lie elsewhere than the directory says, names that lead out of the folder), or no checkpoint.
    """

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        try:
            with zipfile.ZipFile(cast("IO[bytes]", _Stream(file))) as archive:
                infos, end = archive.infolist(), archive.start_dir
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OverflowError, struct.error, UnicodeDecodeError,
                RecursionError) as error:
            raise FormatError("the zip archive is damaged or cut short", received=str(error)[:160] or type(error).__name__,
                              expected="a PyTorch checkpoint", fix=COPY) from error
        if len(infos) > MAX_ENTRIES:
            raise FormatError("too many entries in the archive", expected=f"at most {MAX_ENTRIES}", received=str(len(infos)))
        self.folder = _folder(infos)
        self.entries: dict[str, Entry] = {}
        self._checked: set[str] = set()
        ranges: list[tuple[int, int, str]] = []
        for info in infos:
            name = _inner_name(info, self.folder)
            if name in self.entries:
                raise FormatError("the archive holds an entry twice", where=_place(info.filename))
            entry, start = self._entry(info, name, end)
            self.entries[name] = entry
            ranges.append((start, entry.offset + entry.size, info.filename))
        _refuse_overlaps(ranges)

    def _entry(self, info: zipfile.ZipInfo, name: str, end: int) -> tuple[Entry, int]:
        place = _place(info.filename)
        if info.flag_bits & _ENCRYPTED:
            raise FormatError("an encrypted entry", where=place, expected="plain entries, as torch.save writes them",
                              fix="decrypt the archive: unzip it with its password, and save the checkpoint again")
        deflated = info.compress_type == zipfile.ZIP_DEFLATED and _is_aside(name)
        if info.compress_type != zipfile.ZIP_STORED and not deflated:
            raise FormatError("a compressed entry", where=place, expected="stored entries, as torch.save writes them",
                              received=f"compression method {info.compress_type}",
                              fix="unpack the archive, and pack it without compression: zip -0 -r weights.pt FOLDER")
        if info.file_size != info.compress_size and not deflated:
            raise FormatError("a stored entry of two sizes", where=place, expected=f"{info.file_size} bytes",
                              received=f"{info.compress_size} bytes", fix=COPY)
        start = info.header_offset
        if start < 0 or start + _LOCAL.size > end:
            raise FormatError("an entry outside of the archive", where=place, received=f"at {start} of {end} bytes", fix=COPY)
        signature, _, flags, method, *_, length, extra = _LOCAL.unpack(self.file.read(start, _LOCAL.size).tobytes())
        offset = start + _LOCAL.size + length + extra
        if signature != MAGIC or method != info.compress_type or flags & _ENCRYPTED:
            raise FormatError("an entry is not where the directory says", where=place, fix=COPY)
        if offset + info.compress_size > end:
            raise FormatError("an entry reaches past the end of the archive", where=place, expected=f"at most {max(0, end - offset)} bytes",
                              received=f"{info.compress_size} bytes", fix=COPY)
        local = self.file.read(start + _LOCAL.size, length).tobytes()
        if local.decode("utf-8" if flags & _UTF8 else "cp437", "replace") != info.orig_filename:
            raise FormatError("an entry has two names", where=place, received=repr(local[:60]), fix=COPY)
        return Entry(name, offset, info.compress_size, deflated, info.CRC), start

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def pickle(self) -> memoryview:
        """The bytes of the pickle. Raises `FormatError` for one larger than any state_dict needs, or of another checksum."""
        entry = self.entries[PICKLE]
        if entry.size > MAX_PICKLE:
            raise FormatError("the pickle is too large", where=PICKLE, expected=f"at most {MAX_PICKLE} bytes", received=str(entry.size),
                              fix=f"where it holds NumPy arrays, {SAVE_ARRAYS}")
        self._check(entry)
        return memoryview(self.file.read(entry.offset, entry.size).tobytes())

    def text(self, name: str) -> str | None:
        """A small entry's text, None where there is none."""
        entry = self.entries.get(name)
        if entry is None:
            return None
        if entry.size <= MAX_SMALL:
            self._check(entry)
        return self.file.read(entry.offset, min(entry.size, MAX_SMALL)).tobytes().decode("ascii", "replace").strip()

    @property
    def is_script(self) -> bool:
        """Whether TorchScript wrote it."""
        return "constants.pkl" in self.entries or any(name.startswith("code/") for name in self.entries)

    @property
    def big(self) -> bool:
        """Whether the elements of the storages are big-endian."""
        order = self.text("byteorder")
        if order not in (None, "little", "big"):
            raise FormatError("an unknown byte order", where="byteorder", expected="little or big", received=repr(order)[:40])
        return order == "big"

    def offset(self, key: str) -> int:
        """Where a storage's elements begin in the file."""
        return self.entries[f"data/{key}"].offset

    def check_storage(self, key: str) -> None:
        """Raises `FormatError` for a storage whose bytes are not those that its CRC-32 was taken of. Each is read once."""
        self._check(self.entries[f"data/{key}"])

    def _check(self, entry: Entry) -> None:
        if entry.name in self._checked or entry.deflated:
            return
        found = 0
        for piece in self.file.pieces(entry.offset, entry.size) if entry.crc else ():
            found = zlib.crc32(piece, found)
        if found != entry.crc:
            what = "a storage" if entry.name.startswith("data/") else "an entry"
            raise FormatError(f"the bytes of {what} are not those that were written", where=_place(entry.name),
                              expected=f"CRC-32 {entry.crc:08x}", fix=COPY)
        self._checked.add(entry.name)

    def refuse_others(self) -> None:
        """Raises `FormatError` for archives that are no checkpoints: torch.export's, and any other zip file."""
        names = self.entries
        if "archive_format" in names or any(name.startswith("models/") or "serialized_exported_program" in name for name in names):
            raise FormatError("a torch.export archive, not a checkpoint", expected="a state_dict",
                              fix="torch.save(torch.export.load(file).state_dict, 'weights.pt'); or name it .pt2 and convert the "
                                  "program in it")
        if PICKLE not in names:
            raise FormatError("a zip file that torch.save did not write", expected=f"an entry {PICKLE}",
                              received=", ".join(list(names)[:5])[:200] or "an empty archive")


def _is_aside(name: str) -> bool:
    return name.startswith("code/") or name.endswith(".debug_pkl")


def _place(name: str) -> str:
    return f"entry {name[:80]!r}"


def _folder(infos: list[zipfile.ZipInfo]) -> str:
    """The folder that every entry lies in, with its slash; `torch.save` takes the file's name for it."""
    first = infos[0].filename.partition("/") if infos else ("", "", "")
    folder = first[0] + first[1]
    return folder if first[1] and all(info.filename.startswith(folder) for info in infos) else ""


def _inner_name(info: zipfile.ZipInfo, folder: str) -> str:
    # zipfile cuts a name at its first NUL; `orig_filename` still has it.
    name = info.filename
    parts = name.split("/")
    if info.orig_filename != name or "\\" in name or name.startswith("/") or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise FormatError("an entry whose name leads out of the archive's folder", where=_place(info.orig_filename),
                          expected="plain names, as torch.save writes them")
    return name.removeprefix(folder)


def _refuse_overlaps(ranges: list[tuple[int, int, str]]) -> None:
    ranges.sort()
    for (_, end, name), (start, _, other) in itertools.pairwise(ranges):
        if start < end:
            raise FormatError("entries of the archive overlap", where=_place(other), received=f"begins within {name[:80]!r}", fix=COPY)
