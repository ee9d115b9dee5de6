"""Tensors as native HDF5 datasets under `/parameters`, contiguous and aligned, so that a reader may map them.

Only this module imports h5py. Whatever a file says is held against the document's dtypes and shapes: no soft or
external links, no virtual or external storage, no filters or chunks, nothing beyond what is declared.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from converter.errors import FormatError, MissingDependencyError
from converter.format.hdf5_headers import root_headers
from converter.format.hdf5_heaps import refuse_ring
from converter.format.tensors import byte_count, from_bytes, integers
from converter.ir import Array, DType, TensorSpec
from converter.mapped import LARGE, FileRange, MappedFile, usable_range
from converter.parameters import ParameterStore

try:
    import h5py
except ImportError as missing:
    raise MissingDependencyError("HDF5 files need the library h5py", fix="pip install h5py") from missing

GROUP = "parameters"
ALIGNMENT = 64
SLACK = 1 << 16
"""Bytes on the disk that a file being written has to spare, for the library's own."""
_ERRNO = re.compile(r"errno = (\d+)")
_STORED_AS_BITS: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2")}


def storage_dtype(dtype: DType) -> np.dtype[Any]:
    """What HDF5 holds: the dtype itself, or for bool (0 and 1), bfloat16 and what NumPy alone lacks its bits, unsigned."""
    if dtype is DType.BOOL or dtype.numpy.kind == "V" or dtype.value.startswith(("bfloat", "float8")):
        return _STORED_AS_BITS[dtype.itemsize]
    return dtype.numpy.newbyteorder("<")


def dataset_name(name: str) -> str:
    """A parameter's name as an HDF5 link: `%`, `/` and NUL are percent-escaped, so is a name that is only dots.

    The empty name is a single `%`.
    """
    if not name:
        return "%"
    escaped = name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return escaped.replace(".", "%2E") if not escaped.strip(".") else escaped


@dataclass(frozen=True)
class Opened:
    """An HDF5 file, as the library has it, and its bytes, which are looked at before the library reads them; `base`: where it begins."""

    file: Any
    data: BinaryIO
    base: int


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """An HDF5 file to read. Whatever HDF5 makes of a malformed one becomes a `FormatError`."""
    try:
        with path.open("rb") as data:
            addresses, base = root_headers(data, str(path))
            for address in addresses:
                refuse_ring(data, address, base)
            with h5py.File(path, "r") as file:
                yield Opened(file, data, base)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EACCES, errno.EISDIR):
            raise
        raise FormatError(f"not a readable HDF5 file ({str(error)[:160]})", where=str(path)) from error


@contextmanager
def _disk() -> Iterator[None]:
    """A block whose failures to write are `OSError`s: some calls of the library tell them in the text of a RuntimeError only."""
    try:
        yield
    except RuntimeError as error:
        number = _ERRNO.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


class ValueWriter:
    """Writes datasets under `/parameters` of a new file, one at a time."""

    def __init__(self, path: Path) -> None:
        self._path, self._reserved = path, 0
        self.file = h5py.File(path, "w", libver=("earliest", "v110"), alignment_threshold=ALIGNMENT, alignment_interval=ALIGNMENT)
        self.group = self.file.create_group(GROUP)

    def __enter__(self) -> ValueWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            with _disk():
                self.file.flush()
                size = self.file.id.get_filesize()
                self.file.close()
            os.truncate(self._path, size)
            return
        # Nothing of it is kept. Where the disk is full, what the library still holds has room now.
        os.truncate(self._path, 0)
        with contextlib.suppress(RuntimeError):
            self.file.close()

    def reserve(self, nbytes: int) -> None:
        """Room on the disk for so many bytes more, and for what the library writes of its own accord, later.

        Raises `OSError` when the disk is full: here, since the library cannot recover from a failure in the midst of its work.
        """
        needed = self.file.id.get_filesize() + nbytes + SLACK
        if needed <= self._reserved or not hasattr(os, "posix_fallocate"):
            return
        with self._path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), self._reserved, needed - self._reserved)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
        self._reserved = needed

    def write(self, name: str, spec: TensorSpec, pieces: Iterable[memoryview]) -> None:
        """One tensor, whose bytes come in C order, little-endian. Raises `OSError` when the disk is full."""
        stored, link, shape = storage_dtype(spec.dtype), dataset_name(name).encode("utf-8"), integers(spec)
        self.reserve(byte_count(spec))
        if byte_count(spec) < LARGE:
            data = b"".join(pieces)
            with _disk():
                self.group.create_dataset(link, data=np.frombuffer(data, stored).reshape(shape))
            return
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        with _disk():
            dataset = h5py.h5d.create(self.group.id, link, h5py.h5t.py_create(stored), h5py.h5s.create_simple(shape), plan)
        # The library takes whole tensors, or parts along axes: pieces go to the place that it has chosen.
        with self._path.open("r+b", buffering=0) as file:
            file.seek(dataset.get_offset())
            for piece in pieces:
                while piece:
                    piece = piece[file.write(piece):]


class HDF5Values(ParameterStore):
    """Parameters in an HDF5 file.

    Args:
        path: the file. Reads after a change of it in place are errors.
        specs: what the document declares, for every name, aliases too.
        aliases: the name that a name shares; it has no dataset of its own.
        only: whether the file may hold no other datasets.

    Raises:
        FormatError: a dataset that is missing, not plain, or not as declared.
    """

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], aliases: Mapping[str, str], *, only: bool = True) -> None:
        self._specs, self._aliases, self._path = dict(specs), dict(aliases), path
        own = {dataset_name(name): name for name in specs if name not in aliases}
        with opened(path) as source:
            group = plain_member(source, source.file, GROUP, h5py.Group, str(path))
            if only:
                extra = [link for link in group if link not in own]
                if extra:
                    raise FormatError(f"datasets that the document does not name: {', '.join(map(repr, extra[:5]))}",
                                      where=f"{path}, /{GROUP}", fix="remove them")
            self._offsets = {name: _offset(source, group, link, specs[name], f"{path}, parameters[{name[:80]!r}]")
                             for link, name in own.items()}
        self._file = MappedFile(path)
        for name, offset in self._offsets.items():
            if offset + byte_count(specs[name]) > self._file.size:
                raise FormatError("the file ends before a tensor does", where=f"{path}, parameters[{name[:80]!r}]",
                                  fix="it is cut short; copy or write it again")

    def names(self) -> tuple[str, ...]:
        return tuple(self._specs)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def spec(self, name: str) -> TensorSpec:
        if name not in self._specs:
            raise self.unknown(name)
        return self._specs[name]

    def alias_of(self, name: str) -> str | None:
        self.spec(name)
        return self._aliases.get(name)

    def sha256(self, name: str) -> str:
        return super().sha256(self.alias_of(name) or name)

    def read(self, name: str) -> Array:
        spec = self.spec(name)
        name = self._aliases.get(name, name)
        data = self._file.read(self._offsets[name], byte_count(spec))
        array = from_bytes(data, spec, f"{self._path}, parameters[{name[:80]!r}]")
        array.flags.writeable = False
        return array

    def file_range(self, name: str) -> FileRange | None:
        spec = self.spec(name)
        return usable_range(self._file, self._offsets[self._aliases.get(name, name)], spec)


def plain_member(source: Opened, group: Any, name: str, kind: type, where: str) -> Any:
    """A group's own member of a kind. Raises `FormatError` where it is missing, a link to elsewhere, another kind, or such that the library
    would not get to the end of it.
    """
    links, key = group.id.links, name.encode("utf-8", "surrogateescape")
    if not links.exists(key):
        raise FormatError(f"no {name[:80]!r} in the file", where=where, expected=f"an HDF5 {kind.__name__.lower()}")
    link = links.get_info(key)
    if link.type != h5py.h5l.TYPE_HARD:
        raise FormatError(f"{name[:80]!r} is a link to elsewhere", where=where, expected="an object of the file itself",
                          received=type(group.get(name, getlink=True)).__name__)
    refuse_ring(source.data, link.u, source.base)
    found = group[name]
    if not isinstance(found, kind):
        raise FormatError(f"{name[:80]!r} is of another kind", where=where, expected=kind.__name__, received=type(found).__name__)
    return found


def plain_dataset(source: Opened, group: Any, name: str, where: str) -> Any:
    """A dataset whose bytes lie in one piece in the file itself. Raises `FormatError` for any other."""
    dataset = plain_member(source, group, name, h5py.Dataset, where)
    plist = dataset.id.get_create_plist()
    layout = plist.get_layout()
    refused = (("a virtual dataset", layout == h5py.h5d.VIRTUAL), ("data in external files", plist.get_external_count() > 0),
               ("filters (compression)", plist.get_nfilters() > 0), ("chunks", layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)))
    for what, found in refused:
        if found:
            raise FormatError(f"a dataset with {what}" if "dataset" not in what else what, where=where,
                              expected="a plain contiguous dataset", fix="repack it: h5repack -f NONE -l CONTI in.h5 out.h5")
    return dataset


def _offset(source: Opened, group: Any, link: str, spec: TensorSpec, where: str) -> int:
    dataset = plain_dataset(source, group, link, where)
    expected, found = storage_dtype(spec.dtype), dataset.dtype
    if found != expected or h5py.check_dtype(enum=found) is not None:
        raise FormatError("a dataset of another dtype than the document declares", where=where, received=str(found),
                          expected=f"{expected} for {spec.dtype}")
    if dataset.shape != spec.shape:
        raise FormatError("a dataset of another shape than the document declares", where=where, expected=str(spec),
                          received=str(dataset.shape))
    size = byte_count(spec)
    if not size:
        return 0
    offset = dataset.id.get_offset()
    if offset is None or dataset.id.get_storage_size() != size:
        raise FormatError("a dataset without its data", where=where, expected=f"{size} contiguous bytes",
                          received=f"{dataset.id.get_storage_size()} bytes")
    return int(offset)
