"""Writing in a thread of its own, so that the next piece is made while the last one goes to the disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import BinaryIO

PIECE = 1 << 20
WAITING = 8
"""Pieces that may wait: memory is bounded by these and the one that is being made."""


class WriterAside:
    """Collects bytes and writes them to a file in order, a `PIECE` at a time, from a second thread.

    An error of the file is raised by the next `write`, or at the end of the block. Files below a piece take no thread.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._parts: list[bytes] = []
        self._size = 0
        self._queue: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> WriterAside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def writelines(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    def write(self, data: bytes) -> None:
        """Takes bytes to be written. Raises what the file raised for earlier ones."""
        self._parts.append(data)
        self._size += len(data)
        if self._size >= PIECE:
            self._flush(aside=True)

    def _flush(self, aside: bool = False) -> None:
        if self._error is not None:
            raise self._error
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._size = [], 0
        if self._thread is None and not aside:
            self._file.write(data)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._queue.put(data)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._file.write(data)
                except BaseException as error:
                    self._error = error
