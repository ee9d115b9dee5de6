"""Tensors that lie in pieces in the files of several processes, each put together when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from converter.dims import fixed
from converter.errors import ConverterError
from converter.ir import Array, TensorSpec
from converter.mapped import FileRange
from converter.parameters import ParameterStore


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a tensor: where in it its values go, which `store` gives them, and which of that tensor's are taken.

    `place` is a box of the tensor, or a run of its elements in C order; `run` likewise of the stored tensor (None: all of it).
    """

    place: tuple[slice, ...] | slice
    store: Callable[[], ParameterStore]
    name: str = ""
    run: slice | None = None

    def values(self) -> Array:
        """Its values, of any shape."""
        store, found = self.store(), self.file_range()
        if self.run is None or found is None:
            whole = store.read(self.name)
            return whole if self.run is None else whole.reshape(-1)[self.run]
        return found.read().view(store.spec(self.name).dtype.numpy)  # not the whole that it is a run of

    def file_range(self) -> FileRange | None:
        """Where a file holds them just so."""
        store = self.store()
        found = store.file_range(self.name)
        if found is None or self.run is None:
            return found
        width = store.spec(self.name).dtype.itemsize
        start = self.run.start * width
        return FileRange(found.file, found.offset + start, self.run.stop * width - start)


def held(store: ParameterStore) -> Callable[[], ParameterStore]:
    """What gives a piece the store that is open already."""
    return lambda: store


class AssembledParameters(ParameterStore):
    """Tensors, each of one or more pieces that cover it exactly once.

    `aliases` maps a name to the earlier one that it shares its tensor with.
    """

    def __init__(self, specs: Mapping[str, TensorSpec], pieces: Mapping[str, tuple[Piece, ...]], key: str | None = None,
                 notes: tuple[str, ...] = (), aliases: Mapping[str, str] | None = None) -> None:
        self.key, self.notes = key, notes
        self._aliases = dict(aliases or {})
        self._specs, self._pieces = dict(specs), dict(pieces)

    def names(self) -> tuple[str, ...]:
        return tuple(self._specs)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def alias_of(self, name: str) -> str | None:
        return self._aliases.get(name)

    def spec(self, name: str) -> TensorSpec:
        try:
            return self._specs[name]
        except KeyError:
            raise self.unknown(name) from None

    def sha256(self, name: str) -> str:
        return super().sha256(self._aliases.get(name, name))

    def read(self, name: str) -> Array:
        spec = self.spec(name)
        values: Array = np.empty([fixed(size) for size in spec.shape], spec.dtype.numpy)
        for piece in self._of(name):
            try:
                found = piece.values()
            except ConverterError as error:
                raise error.within(f"tensor {name[:200]!r}") from error
            target = values if isinstance(piece.place, tuple) else values.reshape(-1)
            target[piece.place] = found
        values.flags.writeable = False
        return values

    def _of(self, name: str) -> tuple[Piece, ...]:
        return self._pieces.get(self._aliases.get(name, name), ())

    def file_range(self, name: str) -> FileRange | None:
        spec, pieces = self.spec(name), self._of(name)
        found = pieces[0].file_range() if len(pieces) == 1 else None
        # A run begins anywhere: in the mapped file its elements may not be aligned.
        aligned = found is not None and (found.file.start + found.offset) % spec.dtype.numpy.alignment == 0
        return found if aligned else None
