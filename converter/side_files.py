"""Files beside a model (indexes, graphs, drafts, arrays): read only where they are plain files, and no larger than such a file is."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converter.errors import FormatError


def is_regular(path: str | Path) -> bool:
    """Whether a path leads to a plain file: no pipe, device or socket, which may be without an end, and can be read once only."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def require_plain(path: str | Path, expected: str | None = None) -> None:
    """Raises `FormatError` for what is no plain file, or is empty: files of /proc say that they are, and may wait for ever."""
    path = Path(path)
    if not path.exists():
        return
    if not is_regular(path):
        raise FormatError("not a plain file", where=str(path), expected=expected, fix="give a file on the disk")
    if not path.stat().st_size:
        raise FormatError("the file is empty", where=str(path), expected=expected)


def read_small(path: str | Path, limit: int) -> bytes:
    """A file's content. Raises `FormatError` where it is no plain file, empty, cannot be read, or has more than `limit` bytes."""
    path = Path(path)
    require_plain(path)
    try:
        with path.open("rb") as file:
            content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    except OSError as error:
        raise FormatError("the file cannot be read", where=str(path), received=str(error.strerror)) from error
    if len(content) > limit:
        raise FormatError("too large for what it should be", where=str(path), expected=f"at most {limit >> 20} MiB",
                          received=f"{path.stat().st_size:,} bytes")
    return content


def parse_json(data: bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The content of JSON text in UTF-8, with a byte order mark or without; `pairs` is as `json.loads` takes it for objects.

    Raises `ValueError` with words for a person where it is none, and `RecursionError`.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:4]:
        raise ValueError("it is text in UTF-16 or UTF-32: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    return json.loads(text, object_pairs_hook=pairs)
