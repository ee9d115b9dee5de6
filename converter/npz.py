"""Named arrays as .npz files: zip archives of .npy entries (numpy.lib.format), never with Python objects."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from converter.errors import ConverterError, FormatError
from converter.side_files import require_plain

Array = np.ndarray[Any, Any]

SUFFIX = ".npy"
UNPACKED = 256 << 20
RATIO = 100
"""Arrays that take more than `UNPACKED` bytes may take so many times the file's own at most."""
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: str | Path) -> dict[str, Array]:
    """The arrays of an .npz file by name.

    Raises:
        FormatError: no .npz file, a damaged one, one whose entries are no arrays or hold Python objects, or one that is small and
            unpacks to much.
    """
    path = Path(path)
    require_plain(path, "an .npz file")
    try:
        with path.open("rb") as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                raise FormatError("one array, where a file of named arrays is needed", where=str(path), expected="an .npz file",
                                  fix="numpy.savez(path, name=array, …)")
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path)
            return {name: _entry(archive, info, f"{path}, entry {name[:80]!r}") for name, info in _named(archive, path).items()}
    except ConverterError:
        raise
    except Exception as error:  # zipfile, zlib and numpy have errors of their own
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> ConverterError:
    """The error for a file of arrays that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged, or holds Python objects"
    return FormatError("cannot read the arrays", where=str(path), expected="a file that numpy.save or numpy.savez wrote",
                       received=reason)


def _check_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    unpacked = sum(info.file_size for info in archive.infolist())
    packed = path.stat().st_size
    if unpacked > max(UNPACKED, RATIO * packed):
        raise FormatError("the arrays unpack to far more than the file holds", where=str(path),
                          received=f"{unpacked:,} bytes of {packed:,}",
                          expected=f"at most {max(UNPACKED, RATIO * packed):,}", fix="save them unpacked: numpy.savez")


def _named(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(SUFFIX)
        if name in found:
            raise FormatError(f"the array {name[:80]!r} is there twice", where=str(path))
        found[name] = info
    return found


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Array:
    with archive.open(info) as stream:
        if stream.read(6) != np.lib.format.MAGIC_PREFIX:
            raise FormatError("an entry that is no array", where=where, expected="what numpy.savez writes")
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version in _HEADERS:
            shape, _, dtype = _HEADERS[version](stream)
            if not dtype.hasobject and stream.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
                raise FormatError("an array that is longer or shorter than its header says", where=where,
                                  expected=f"{math.prod(shape) * dtype.itemsize} bytes", received=f"{info.file_size - stream.tell()}")
    with archive.open(info) as stream:
        return with_text(np.asarray(np.lib.format.read_array(stream, allow_pickle=False)), where)


LAST_CHARACTER = 0x10FFFF


def with_text(array: Array, where: str) -> Array:
    """An array as it is. Raises `FormatError` for one of text with what is no character, which Python cannot hold."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder.replace("|", "=") + "u4")
        if int(codes.max()) > LAST_CHARACTER:
            raise FormatError("a text with what is no character", where=where, received=f"the code {int(codes.max()):#x}")
    return array


def write_npz(file: BinaryIO, arrays: Mapping[str, Any]) -> None:
    """Writes arrays by name, whatever the names are: `numpy.load` gives them back under the same.

    Raises:
        FormatError: a name that cannot be an entry of a zip file, or one that would lead out of a folder where it is unpacked.
    """
    for name in arrays:
        _check_name(name, arrays)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(name + SUFFIX), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)


def _check_name(name: str, names: Mapping[str, Any]) -> None:
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        length = 1 << 16
    parts = name.split("/")
    if "\0" in name or "\\" in name or ":" in parts[0] or length > 60_000 or name.startswith("/") or ".." in parts:
        raise FormatError("a name that no entry of an .npz file can have", where=f"output {name[:80]!r}",
                          expected="text without a leading /, .., \\, NUL, or a drive's letter", fix="rename the output")
    if name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in names:
        raise FormatError("two names that an .npz file cannot tell apart", where=f"output {name[:80]!r}", fix="rename one of the two")
