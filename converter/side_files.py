"""Files beside a model (indexes, graphs, drafts, arrays): read only where they are plain files, and no larger than such a file is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from converter.errors import FormatError


def is_regular(path: str | Path) -> bool:
    """Whether a path leads to a plain file: no pipe, device or socket, which may be without an end, and can be read once only."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_small(path: str | Path, limit: int) -> bytes:
    """A file's content. Raises `FormatError` where it is no plain file, cannot be read, or has more than `limit` bytes."""
    path = Path(path)
    if path.exists() and not is_regular(path):
        raise FormatError("not a plain file", where=str(path), fix="give a file on the disk")
    try:
        with path.open("rb") as file:
            content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    except OSError as error:
        raise FormatError("the file cannot be read", where=str(path), received=str(error.strerror)) from error
    if len(content) > limit:
        raise FormatError("too large for what it should be", where=str(path), expected=f"at most {limit >> 20} MiB",
                          received=f"{path.stat().st_size:,} bytes")
    return content
