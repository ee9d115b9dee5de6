"""Files that appear whole or not at all: a temporary neighbour, then one rename."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from converter.errors import ConverterError

STDOUT = "-"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends and disappears when it raises.

    The temporary file lies in the same directory and carries the same suffix; `path` keeps its old content until the
    last moment, and its permissions afterwards. A symbolic link stays, and its target is replaced. A path that is a
    device or a pipe is written after the block, from the temporary file. `-` is standard output.

    Raises:
        ConverterError: the directory is missing or may not be written to, the path is a directory, or the disk is full.
    """
    if os.fspath(path) == STDOUT:
        with _to_stream(lambda: contextlib.nullcontext(sys.stdout.buffer), "") as temporary:
            yield temporary
        return
    target = Path(os.path.realpath(path))
    if os.path.exists(target) and not target.is_file() and not target.is_dir():
        with _to_stream(lambda: target.open("wb"), target.suffix) as temporary:
            yield temporary
        return
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}.tmp{target.suffix[:10]}")
    try:
        with _writing(path, temporary):
            if os.path.isdir(target):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            temporary.touch(exist_ok=False)
            yield temporary
            if os.path.exists(target):
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def _to_stream(stream: Callable[[], contextlib.AbstractContextManager[BinaryIO]], suffix: str) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(suffix=suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with _writing("the output", temporary):
            yield temporary
            with temporary.open("rb") as source, stream() as out:
                shutil.copyfileobj(source, out, 1 << 20)
                out.flush()
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def _writing(path: str | os.PathLike[str], temporary: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) not in (str(temporary), temporary.name):
            # The caller's own trouble with another file.
            raise
        # Libraries put words of their own, of several lines, into strerror.
        reason = os.strerror(error.errno) if error.errno else error.strerror or str(error)
        raise ConverterError(f"cannot write ({reason})", where=os.fspath(path),
                             fix="choose a directory that exists, has room, and may be written to") from error
