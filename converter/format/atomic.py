"""Files that appear whole or not at all: a temporary neighbour, then one rename; also a document and its values beside it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from converter.errors import ConverterError

STDOUT = "-"
DIGITS = 16
"""Of a digest, in the name of a file of values: more than dates and times have, which people put into names of copies."""
ENDINGS = ("weights.h5", "data")
"""How names of files of values end: of HDF5 files, and of the plain bytes of ONNX files."""
_VALUES_NAME = re.compile(rf"(?P<document>.+)\.[0-9a-f]{{{DIGITS}}}\.({'|'.join(map(re.escape, ENDINGS))})", re.DOTALL)
MAX_LINKS = 40
LOCK_SECONDS = 10.0
"""After which a folder's lock, which is held for two renames, is held by a process that was stopped."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends and disappears when it raises.

    The temporary file lies in the same directory and carries the same suffix; `path` keeps its old content until the
    last moment, and its permissions afterwards, which the temporary file never exceeds. A symbolic link stays, and its
    target is replaced. A path that is a device, a pipe or an open file of this process (`/dev/stdout`) is written after the
    block, from the temporary file. `-` is standard output.

    Raises:
        ConverterError: the directory is missing or may not be written to, the path is a directory, or the disk is full.
    """
    number = 1 if os.fspath(path) == STDOUT else open_descriptor(path)
    target = Path(os.path.realpath(path))
    if number is not None:
        with _to_stream(lambda: _stream_of(number), "" if number == 1 else target.suffix) as temporary:
            yield temporary
    elif os.path.exists(target) and not target.is_file() and not target.is_dir():
        with _to_stream(lambda: target.open("wb"), target.suffix) as temporary:
            yield temporary
    else:
        _refuse_values(target)
        with _replacing(path, target, _neighbour(target, target.suffix)) as temporary:
            yield temporary
            with _committing(path):
                if values_beside(path):
                    with _locked(Path(path).parent) as is_locked:
                        _take_place(temporary, target)
                        if is_locked:
                            _remove_values(Path(path))
                else:
                    _take_place(temporary, target)


written: list[str] = []
"""What this process has put in place."""
_commits = 0


def is_committing() -> bool:
    """Whether files are taking their places: an interrupt that can wait should."""
    return _commits > 0


@contextlib.contextmanager
def _committing(path: str | os.PathLike[str]) -> Iterator[None]:
    global _commits
    _commits += 1
    try:
        yield
        written.append(os.fspath(path))
    finally:
        _commits -= 1


class Pair:
    """A document and the file of its values beside it, while they are written to `document` and `values`."""

    def __init__(self, path: Path, ending: str, document: Path, values: Path) -> None:
        self.document, self.values, self.place = document, values, path
        self._path, self._ending = path, ending

    def name_values(self, digest: str) -> str:
        """The name of the file of values, which tells apart all pairs of the document that differ. `digest` is hexadecimal."""
        self.place = self._path.with_name(f"{self._path.name}.{digest[:DIGITS]}.{self._ending}")
        return self.place.name


@contextlib.contextmanager
def atomic_pair(path: str | os.PathLike[str], ending: str) -> Iterator[Pair]:
    """A document at `path` with its values in `<name>.<16 digits>.<ending>` beside it, both whole or neither.

    The block writes both temporary files and calls `name_values` with a digest of what the document expects of its values,
    so that no two pairs share a file of values. Then the values take their place, and the document after them: that one
    rename makes the new pair the one that is read. The values of earlier pairs are removed last. `ending` is one of `ENDINGS`.

    Raises:
        ConverterError: as `atomic_path`, and for a path that is no regular file or whose name no document can hold.
    """
    place = Path(path)
    target = Path(os.path.realpath(place))
    if os.fspath(path) == STDOUT or open_descriptor(path) is not None or (target.exists() and not target.is_file() and not target.is_dir()):
        raise ConverterError("values in another file need a file to lie beside", where=os.fspath(path), expected="a path of a file")
    if any(char in place.name for char in "\\:") or not place.name.isprintable():
        raise ConverterError("no document can name a file of values beside this one", where=ascii(os.fspath(path)),
                             expected="a name without \\, : and unprintable characters", fix="choose another name")
    with (_replacing(path, target, _neighbour(target, target.suffix)) as document,
          _replacing(path, target, _neighbour(place, f".{ending}")) as values):
        pair = Pair(place, ending, document, values)
        yield pair
        # Another writer of the same pair may not remove these values before the document names them.
        with _committing(path), _locked(place.parent) as is_locked:
            _take_mode(values, target)
            os.replace(values, pair.place)
            _take_place(document, target)
            if is_locked:
                _remove_values(place, besides=pair.place)


def written_files(path: object, *more: Path) -> tuple[Path, ...]:
    """The files that were written for a target, with `more` beside it: none for standard output or an open file."""
    return (Path(path), *more) if isinstance(path, (str, os.PathLike)) and os.fspath(path) != STDOUT else ()


def values_beside(path: str | os.PathLike[str]) -> list[Path]:
    """The files of values that `atomic_pair` put beside a document."""
    place = Path(path)
    try:
        return [place.with_name(name) for name in os.listdir(place.parent)
                if (found := _VALUES_NAME.fullmatch(name)) and found["document"] == place.name]
    except OSError:
        return []


def _refuse_values(target: Path) -> None:
    found = _VALUES_NAME.fullmatch(target.name)
    if found and target.is_file() and target.with_name(found["document"]).is_file():
        raise ConverterError("the output would replace the values of another file", where=str(target), fix="choose another name",
                             received=f"the values of {found['document']}")


def _remove_values(path: Path, besides: Path | None = None) -> None:
    for item in values_beside(path):
        if item != besides:
            with contextlib.suppress(OSError):
                item.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """A block that one process at a time is in, for a folder; gives whether it is sure of that: not every file system has locks."""
    try:
        import fcntl

        number = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    try:
        is_locked, until = False, time.monotonic() + LOCK_SECONDS
        while not is_locked:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_locked = True
            except BlockingIOError:
                if time.monotonic() > until:
                    break
                time.sleep(0.01)
            except OSError:
                break
        yield is_locked
    finally:
        os.close(number)


def _neighbour(place: Path, suffix: str) -> Path:
    return place.with_name(f".{place.name[:40]}.{secrets.token_hex(6)}.tmp{suffix[:12]}")


@contextlib.contextmanager
def _replacing(path: str | os.PathLike[str], target: Path, temporary: Path) -> Iterator[Path]:
    """An empty temporary file that no more people may read than `target`, gone after the block; errors name `path`."""
    try:
        with _writing(path, temporary):
            mode = 0o666
            if os.path.exists(target):
                if os.path.isdir(target):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                # Whoever writes it has to open it.
                mode = stat.S_IMODE(target.stat().st_mode) & 0o777 | 0o600
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _take_place(temporary: Path, target: Path) -> None:
    _take_mode(temporary, target)
    os.replace(temporary, target)


def _take_mode(temporary: Path, target: Path) -> None:
    if os.path.exists(target):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))


def open_descriptor(path: str | os.PathLike[str]) -> int | None:
    """The open file of this process that a path stands for (`/dev/stdout`, `/dev/fd/3`, a link to one), or None.

    Its own path is another matter: a file to which the output of a shell is appended is not to be replaced.
    """
    place = os.path.abspath(path)
    folders = {os.path.realpath(f"/proc/self/{name}") for name in ("fd", f"task/{threading.get_native_id()}/fd")}
    for _ in range(MAX_LINKS):
        folder, name = os.path.split(place)
        if os.path.realpath(folder) in folders and name.isdecimal():
            return int(name)
        try:
            place = os.path.normpath(os.path.join(os.path.realpath(folder), os.readlink(place)))
        except (OSError, ValueError):
            return None
    return None


def _stream_of(number: int) -> contextlib.AbstractContextManager[BinaryIO]:
    if number == 1:
        # Another file may have the number of a standard output that is closed.
        if sys.stdout is None:
            raise ConverterError("standard output is closed", fix="name a file with -o")
        return contextlib.nullcontext(sys.stdout.buffer)
    return os.fdopen(os.dup(number), "wb")


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
