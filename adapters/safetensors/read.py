"""Safetensors files in, a tensor at a time, with everything that the header says checked first.

The file is an 8-byte little-endian length, a JSON header of that length, and the tensors' bytes
(https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from adapters.safetensors.dtypes import FROM_FILE
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.ir import Array, DType, TensorSpec
from converter.mapped import FileRange, MappedFile, usable_range
from converter.parameters import ParameterStore

MAX_HEADER = 100_000_000
MAX_RANK = 32
MAX_BYTES = (1 << 63) - 1
"""Of a tensor, an axis without elements counted as one."""
PREFIX = 8
METADATA = "__metadata__"
FORMAT_KEY, FORMAT = "format", "pt"
"""What the library safetensors writes into the metadata of PyTorch's files: no alias, whatever the tensors are called."""


class SafetensorsParameters(ParameterStore):
    """The tensors of a safetensors file, in the order of its header.

    `safetensors.torch.save_model` writes tied weights once and notes `{the other name: the kept name}` in the metadata;
    such a name is an alias here.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        try:
            size = self._path.stat().st_size
            with self._path.open("rb") as file:
                header, start = _header(file.read(PREFIX), file, size)
            self._entries = _entries(header, size - start)
            self._aliases = _aliases(header, self._entries)
            self._file, self._start = MappedFile(self._path), start
        except ConverterError as error:
            raise error.within(str(path)) from error

    def names(self) -> tuple[str, ...]:
        return (*self._entries, *self._aliases)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._aliases

    def alias_of(self, name: str) -> str | None:
        return self._aliases.get(name)

    def _entry(self, name: str) -> tuple[TensorSpec, int, int]:
        try:
            return self._entries[self._aliases.get(name, name)]
        except KeyError:
            raise self.unknown(name) from None

    def spec(self, name: str) -> TensorSpec:
        return self._entry(name)[0]

    def read(self, name: str) -> Array:
        spec, start, end = self._entry(name)
        values = self._file.read(self._start + start, end - start)
        if spec.dtype is DType.BOOL and values.size and values.max() > 1:
            raise FormatError("a bool that is neither 0 nor 1", where=f"{self._path}, tensor {name[:80]!r}",
                              received=str(int(values.max())))
        result: Array = values.view(spec.dtype.numpy.newbyteorder("<")).reshape(spec.shape)
        result = result if np.little_endian else result.astype(spec.dtype.numpy)
        result.flags.writeable = False
        return result

    def file_range(self, name: str) -> FileRange | None:
        spec, start, _ = self._entry(name)
        return usable_range(self._file, self._start + start, spec)


def load_safetensors(path: str | Path) -> SafetensorsParameters:
    """Opens a safetensors file. Raises `FormatError` for one that is not well formed."""
    return SafetensorsParameters(path)


def _header(prefix: bytes, file: Any, size: int) -> tuple[dict[str, Any], int]:
    if len(prefix) < PREFIX:
        raise FormatError("not a safetensors file: it is shorter than its 8-byte length", received=f"{len(prefix)} bytes")
    length = int.from_bytes(prefix, "little")
    if length > min(MAX_HEADER, size - PREFIX):
        raise FormatError("not a safetensors file: the header reaches past its end", received=f"a header of {length} bytes",
                          expected=f"at most {min(MAX_HEADER, size - PREFIX)}")
    text = file.read(length)
    if not text.startswith(b"{"):
        raise FormatError("not a safetensors file: the header is no JSON object", received=repr(text[:20]))
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FormatError("the safetensors header is not JSON", received=str(error)) from error
    return header, PREFIX + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise FormatError(f"the safetensors header holds {name[:80]!r} twice")
        for text in (name, value):
            if isinstance(text, str) and not _is_utf8(text):
                raise FormatError("the safetensors header holds half of a surrogate pair, which no UTF-8 text can hold",
                                  received=ascii(text)[:80], fix="write the file again with other names")
        result[name] = value
    return result


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entries(header: dict[str, Any], available: int) -> dict[str, tuple[TensorSpec, int, int]]:
    entries: dict[str, tuple[TensorSpec, int, int]] = {}
    for name, item in header.items():
        if name != METADATA:
            entries[name] = _entry(item, f"tensor {name[:80]!r}")
    position = 0
    for name, (_, start, end) in sorted(entries.items(), key=lambda item: item[1][1:]):
        if start != position:
            raise FormatError("the tensors' bytes overlap or leave a gap", where=f"tensor {name[:80]!r}",
                              expected=f"it begins at {position}", received=str(start))
        position = end
    if position != available:
        raise FormatError("the file's length is not what its header says", expected=f"{position} bytes of tensors",
                          received=f"{available}", fix="copy or download it again")
    return entries


def _entry(item: Any, where: str) -> tuple[TensorSpec, int, int]:
    if not isinstance(item, dict) or item.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError("not a tensor's entry", where=where, expected="dtype, shape, data_offsets", received=repr(item)[:80])
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or dtype not in FROM_FILE:
        raise UnsupportedError("a dtype that cannot be carried", where=where, expected=", ".join(FROM_FILE),
                               received=repr(dtype)[:80])
    for field, sizes in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(sizes, list) or any(type(size) is not int or not 0 <= size < 1 << 62 for size in sizes):
            raise FormatError(f"{field} is no list of sizes", where=where, received=repr(sizes)[:80])
    if len(shape) > MAX_RANK or len(offsets) != 2:
        raise FormatError("too many sizes", where=where, received=repr(item)[:80])
    spec = TensorSpec(FROM_FILE[dtype], tuple(shape))
    nbytes = _nbytes(spec.dtype, shape)
    if offsets[1] - offsets[0] != nbytes:
        raise FormatError("the number of bytes does not fit the shape", where=where, expected=f"{nbytes} bytes for {spec}",
                          received=str(offsets[1] - offsets[0]))
    if _nbytes(spec.dtype, [max(size, 1) for size in shape]) > MAX_BYTES:
        raise FormatError("sizes that no array has", where=where, received=repr(shape)[:120])
    return spec, offsets[0], offsets[1]


def _nbytes(dtype: DType, shape: list[int]) -> int:
    total = dtype.itemsize
    for size in shape:
        total *= size
    return total


def _aliases(header: dict[str, Any], entries: dict[str, Any]) -> dict[str, str]:
    metadata = header.get(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("the metadata is no object of strings", where=METADATA, received=repr(metadata)[:80])
    return {name: kept for name, kept in metadata.items()
            if name not in entries and kept in entries and (name, kept) != (FORMAT_KEY, FORMAT)}
