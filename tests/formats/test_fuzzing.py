"""Damaged files of every kind are read or refused, and the campaign sees what is neither."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from campaigns import fuzzing
from campaigns.fuzz_readers import READERS, Reader
from campaigns.fuzzing import READ, REFUSED, fuzz, kept, seeds_of
from converter.errors import FormatError

FOLDERS = [name for name, reader in READERS.items() if reader.folder]
FILES = [name for name in READERS if name not in FOLDERS]


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(name: str) -> None:
    found = fuzz(name, seeds_of(name, wide=False), range(80))
    assert found.found == {}
    assert found.outcomes[READ] + found.outcomes[REFUSED] == 80
    assert found.outcomes[REFUSED] > 10


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files_and_folders(name: str) -> None:
    pytest.importorskip("transformers")
    found = fuzz(name, seeds_of(name, wide=False), range(1000, 3000), seconds=8)
    assert found.found == {}
    assert found.outcomes[READ]
    assert found.outcomes[REFUSED]


def outside(path: Path) -> None:
    Path(os.devnull).parent.parent.joinpath("etc", "passwd").read_bytes()


def endless(path: Path) -> None:
    while True:
        pass


def large(path: Path) -> Any:
    return bytearray(fuzzing.MEMORY + (64 << 20))


def refuse(path: Path) -> None:
    raise FormatError("no")


def talk(path: Path) -> None:
    class Long(FormatError):
        def __str__(self) -> str:
            return "x" * 30_000

    raise Long("long")


def fail(path: Path) -> None:
    raise KeyError(path.name)


@pytest.mark.parametrize(("read", "what"), [
    (outside, "a file outside of the folder is opened"), (endless, "more than 1 s"), (large, "more than 256 MB"),
    (talk, "an error of more than"), (fail, "KeyError in"), (lambda path: os.kill(os.getpid(), signal.SIGSEGV), "ended by SIGSEGV"),
    (lambda path: os.system("true"), "os.system"),
    (lambda path: os._exit(3), "the child failed"), (refuse, None), (lambda path: None, None)])
def test_what_is_found(read: Callable[[Path], Any], what: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(READERS, "own", Reader("own", lambda wide: [{"m.json": b'{"a": [1, 2]}'}], read))
    monkeypatch.setattr(fuzzing, "SECONDS", 1)
    monkeypatch.setattr(fuzzing, "_warm", lambda *_: None)
    seeds = READERS["own"].seeds(False)
    found = fuzz("own", seeds, range(2))
    assert found.mutants == 2
    if what is None:
        assert found.found == {}
        return
    ((told, numbers),) = found.found.items()
    assert told.startswith(what)
    assert numbers == [0, 1]
    assert len(list(kept("own", seeds, found, tmp_path))) == 2
