"""A state_dict out, as `torch.save` writes it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import IO, BinaryIO, cast

import torch

from adapters.torch.dtypes import to_tensor
from converter.format.atomic import atomic_path, written_files
from converter.parameters import ParameterStore


def save_state_dict(parameters: ParameterStore, path: str | Path) -> tuple[Path, ...]:
    """Writes parameters as a state_dict, and returns the files: same names, order, dtypes and bits; aliases share their memory again."""
    tensors: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name in parameters.names():
        target = parameters.alias_of(name)
        if target is None:
            tensors[name] = to_tensor(parameters.read_private(name), copy=False)
    ordered = OrderedDict((name, tensors[parameters.alias_of(name) or name]) for name in parameters.names())
    # Into a file object: given a path, torch.save writes the file's name into the archive.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        told = _Told(file)
        try:
            torch.save(ordered, cast("IO[bytes]", told))
        except RuntimeError:
            if told.error is not None:
                raise told.error from None
            raise
    return written_files(path)


class _Told:
    """A file to write to that keeps the error of a full disk, which torch makes a RuntimeError of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self.error = error
            raise
