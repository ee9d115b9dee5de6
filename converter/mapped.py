"""A file mapped into memory for reading, whose pages leave the process again once the next piece is asked for."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PAGE = mmap.PAGESIZE
LARGE = 1 << 20
"""Pieces below this stay resident: dropping them costs more than it saves."""


class MappedFile:
    """The bytes of a file as views of one read-only mapping, so that processes share one copy in the page cache.

    `view` drops the pages of the large piece that it gave before. A view stays valid: its pages come back, from the page
    cache, when they are touched again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with Path(path).open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            # An empty file cannot be mapped.
            self._map: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else b""
            self._private: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if self.size else b""
        # Each thread drops what it asked for itself.
        self._held = threading.local()

    def private(self, offset: int, size: int) -> Array:
        """uint8[size], writable: pages that are written to become the process's own, and the file stays as it is."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset} to {offset + size} of a file of {self.size}")
        return np.frombuffer(self._private, np.uint8, size, offset) if size else np.empty(0, np.uint8)

    def view(self, offset: int, size: int) -> Array:
        """uint8[size], read-only. Raises `ValueError` for a piece that reaches past the end."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset} to {offset + size} of a file of {self.size}")
        self.drop()
        if size >= LARGE:
            self._held.last = (offset, size)
        return np.frombuffer(self._map, np.uint8, size, offset) if size else np.empty(0, np.uint8)

    def drop(self) -> None:
        """Drops the pages of the piece that `view` gave this thread last."""
        last = getattr(self._held, "last", None)
        if last is not None and hasattr(mmap, "MADV_DONTNEED"):
            offset, size = last
            start = offset - offset % PAGE
            self._map.madvise(mmap.MADV_DONTNEED, start, offset + size - start)
        self._held.last = None
