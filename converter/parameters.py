"""Parameters by name, read a tensor at a time, so that a model is never held whole unless its source is memory."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from converter.dims import fixed
from converter.errors import ParameterError
from converter.ir import Array, DType, TensorSpec
from converter.mapped import FileRange


class ParameterStore(ABC):
    """An ordered set of named tensors. Subclasses read from memory, a checkpoint, JSON, or HDF5.

    `key` is the entry of a checkpoint that they lie under, None where they are the whole of it; `notes` what a person should
    know of where they come from; `kind` what the file is called, where it is none of those that its format is named for.
    """

    key: str | None = None
    kind: str | None = None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Every name, aliases too, in the state_dict's order."""

    @abstractmethod
    def spec(self, name: str) -> TensorSpec:
        """dtype and shape (integers), without reading the values. Raises `ParameterError` for an unknown name."""

    @abstractmethod
    def read(self, name: str) -> Array:
        """The values, C-contiguous and read-only, little-endian. Raises `ParameterError` for an unknown name."""

    def file_range(self, name: str) -> FileRange | None:
        """Where a file holds the values just as `read` gives them, so that they can be passed on in pieces, or mapped; or None."""
        return None

    def read_private(self, name: str) -> Array:
        """The values as `read` gives them, but writable, and seen by nothing else."""
        found = self.file_range(name)
        return self.read(name).copy() if found is None else self._as_tensor(name, found.read())

    def mapped(self, name: str) -> Array:
        """The values as `read` gives them, for whoever holds them for long: views of a mapped file where that is possible.

        Processes share the memory of these. The file must not be cut off while they are in use: `mapped_files` finds and checks it.
        """
        found = self.file_range(name)
        return self.read(name) if found is None else self._as_tensor(name, found.view())

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The values' little-endian bytes in C order, in pieces, each of which is gone with the next."""
        found = self.file_range(name)
        return iter([as_bytes(self.read(name))]) if found is None else found.pieces()

    def kept(self, name: str) -> tuple[ParameterStore, str, str]:
        """The store and the name under which all elements lie in another order, and what that order is called; itself where they do not.

        What is in one order in two stores can be compared as it lies there.
        """
        return self, name, ""

    def _as_tensor(self, name: str, data: Array) -> Array:
        spec = self.spec(name)
        return data.view(spec.dtype.numpy).reshape(spec.shape)

    def layer(self, name: str) -> Mapping[str, Any]:
        """What the file says of the layer that a tensor belongs to (`converter.state_dict.TOLD`); nothing, where it holds tensors alone."""
        return {}

    def alias_of(self, name: str) -> str | None:
        """The earlier name whose memory `name` shares (tied weights), or None."""
        return None

    def sha256(self, name: str) -> str:
        """Hexadecimal SHA-256 of the values' little-endian bytes in C order."""
        cache: dict[str, str] = self.__dict__.setdefault("_sha256", {})
        if name not in cache:
            digest = hashlib.sha256()
            for piece in self.pieces(name):
                digest.update(piece)
            cache[name] = digest.hexdigest()
        return cache[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def unknown(self, name: str) -> ParameterError:
        """The error for a name that is not here."""
        known = self.names()
        return ParameterError(f"no parameter {name!r}", expected=", ".join(known[:8]) + (" …" if len(known) > 8 else ""))

    @property
    def nbytes(self) -> int:
        """Bytes of all values, each shared tensor once."""
        total = 0
        for name in self.names():
            if self.alias_of(name) is None:
                spec = self.spec(name)
                total += spec.dtype.itemsize * math.prod(spec.sizes)
        return total


class ParameterView(ParameterStore):
    """Tensors of other stores, as they are there but for those that a subclass says are `changed`, which it has `made`.

    `places` gives the names, and for each the store that has the tensor and its name there. Of names that share memory there, the
    first one here holds the tensor, unless `aliases` says it.
    """

    def __init__(self, places: Mapping[str, tuple[ParameterStore, str]], notes: tuple[str, ...] = (), key: str | None = None,
                 aliases: Mapping[str, str] | None = None) -> None:
        self._places, self.notes, self.key = dict(places), notes, key
        first: dict[tuple[int, str], str] = {}
        holders = {name: first.setdefault((id(store), store.alias_of(own) or own), name) for name, (store, own) in places.items()}
        self._aliases = {name: holder for name, holder in holders.items() if holder != name} if aliases is None else dict(aliases)

    def changed(self, name: str) -> bool:
        """Whether the values are others than the store's."""
        return False

    def made(self, name: str) -> Array:
        """The values of a tensor that is changed."""
        raise NotImplementedError

    def place(self, name: str) -> tuple[ParameterStore, str]:
        """The store that has a tensor, and its name there. Raises `ParameterError` for an unknown name."""
        try:
            return self._places[name]
        except KeyError:
            raise self.unknown(name) from None

    def stored(self, name: str) -> Array:
        """The values that the store has."""
        store, own = self.place(name)
        return store.read(own)

    def names(self) -> tuple[str, ...]:
        return tuple(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def alias_of(self, name: str) -> str | None:
        return self._aliases.get(name)

    def layer(self, name: str) -> Mapping[str, Any]:
        store, own = self.place(name)
        return store.layer(own)

    def spec(self, name: str) -> TensorSpec:
        store, own = self.place(name)
        return store.spec(own)

    def read(self, name: str) -> Array:
        if name not in self._places or not self.changed(name):
            return self.stored(name)
        values = self.made(name)
        values.flags.writeable = False
        return values

    def file_range(self, name: str) -> FileRange | None:
        store, own = self.place(name)
        return None if self.changed(name) else store.file_range(own)

    def sha256(self, name: str) -> str:
        store, own = self.place(name)
        return super().sha256(self.alias_of(name) or name) if self.changed(name) else store.sha256(own)


def places_in(store: ParameterStore, names: Iterable[str] | None = None) -> dict[str, tuple[ParameterStore, str]]:
    """The places of a store's tensors, or of some, under their own names."""
    return {name: (store, name) for name in (store.names() if names is None else names)}


COLUMNS = 6 << 20
"""Bytes of columns that are read at a time where a matrix is passed on transposed."""


def transposed_pieces(store: ParameterStore, name: str) -> Iterator[memoryview]:
    """The little-endian bytes of a matrix's transpose in C order, in pieces: columns of the file that holds it, some at a time."""
    found, spec = store.file_range(name), store.spec(name)
    if found is None:
        yield as_bytes(store.read(name).T)
        return
    rows, columns = (fixed(size) for size in spec.shape)
    width = spec.dtype.itemsize
    step = max(1, COLUMNS // (rows * width))
    for start in range(0, columns, step):
        held = np.empty((rows, min(step, columns - start)), spec.dtype.numpy)
        for row in range(rows):
            found.file.read_into(held[row].view(np.uint8), found.offset + (row * columns + start) * width)
        yield as_bytes(held.T)


def as_bytes(values: Array) -> memoryview:
    """The little-endian bytes of an array in C order, without a copy where it is so already."""
    values = np.ascontiguousarray(values)
    if values.dtype.byteorder == ">" or (values.dtype.byteorder == "=" and not np.little_endian):
        values = values.astype(values.dtype.newbyteorder("<"))
    return values.reshape(-1).view(np.uint8).data


_MASKS = {dtype.numpy: np.uint8((1 << dtype.bits) - 1) for dtype in DType if dtype.bits < 8}


def _plain_bits(values: Array) -> Array:
    """An array whose bytes are those of its values alone: of fewer than 8 bits, the others of a byte are zero."""
    mask = _MASKS.get(values.dtype)
    if mask is None or not (values.view(np.uint8) & ~mask).any():
        return values
    return (values.view(np.uint8) & mask).view(values.dtype)


class InMemoryParameters(ParameterStore):
    """Arrays held in memory.

    `aliases` maps a name to the earlier name that it shares memory with; both are parameters.
    """

    def __init__(self, arrays: Mapping[str, Array] | None = None, aliases: Mapping[str, str] | None = None) -> None:
        self._arrays: dict[str, Array] = {}
        self._aliases: dict[str, str] = {}
        aliases = dict(aliases or {})
        for name, values in (arrays or {}).items():
            if name in aliases:
                continue
            self._arrays[name] = _plain_bits(np.asarray(values))
        self._order = tuple(dict.fromkeys([*(arrays or {}), *aliases]))
        for name, target in aliases.items():
            if target not in self._arrays:
                raise ParameterError(f"alias {name!r} names no tensor", expected="the name of a tensor that is no alias",
                                     received=repr(target))
            self._aliases[name] = target

    def names(self) -> tuple[str, ...]:
        return self._order

    def alias_of(self, name: str) -> str | None:
        return self._aliases.get(name)

    def _array(self, name: str) -> Array:
        try:
            return self._arrays[self._aliases.get(name, name)]
        except KeyError:
            raise self.unknown(name) from None

    def spec(self, name: str) -> TensorSpec:
        values = self._array(name)
        return TensorSpec(DType.of(values.dtype), values.shape)

    def read(self, name: str) -> Array:
        values = np.ascontiguousarray(self._array(name)).reshape(self._array(name).shape).view()
        values.flags.writeable = False
        return values
