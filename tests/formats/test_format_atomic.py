"""Files appear whole or not at all."""

from __future__ import annotations

import gc
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import converter
from adapters.onnx.export import save_onnx
from converter.errors import ConverterError
from converter.format import atomic_path
from converter.ir import Model
from tests.format_models import classifier


def test_replaces_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("old")
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["m.json"]


def write_half(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, ConverterError])
def test_leaves_nothing_on_an_exception(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "m.json"
    for before in (None, "old"):
        if before is not None:
            path.write_text(before)
        with pytest.raises(error):
            write_half(path, error("stop"))
        assert os.listdir(tmp_path) == ([] if before is None else ["m.json"])
    assert path.read_text() == "old"


WRITTEN: dict[str, Callable[[Model, Path], object]] = {
    "m.json": lambda model, path: converter.save(model, path),
    "file.json": lambda model, path: converter.save(model, path, encoding="file"),
    "m.h5": converter.save,
    "m.onnx": converter.save,
    "external.onnx": lambda model, path: save_onnx(model, path, external=True),
    "m.safetensors": converter.save,
    "m.pt": converter.save,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_no_room_for_the_file(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Wherever in the file the room ends: one error, no file, and no word from a library."""
    save, model = WRITTEN[name], classifier()
    save(model, tmp_path / name)
    largest = max(item.stat().st_size for item in tmp_path.iterdir())
    for item in tmp_path.iterdir():
        item.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 1, largest // 3, largest // 2, largest - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(ConverterError, match="cannot write"):
                save(model, tmp_path / name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_keeps_permissions(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("old")
    path.chmod(0o640)
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    mask = os.umask(0o022)
    os.umask(mask)
    with atomic_path(tmp_path / "fresh") as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o666 & ~mask


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    with atomic_path(tmp_path / "link.json") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


def test_refusals_name_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "none" / "m.json", tmp_path / "file" / "m.json", tmp_path / ("n" * 300)):
        with pytest.raises(ConverterError, match="cannot write") as caught, atomic_path(path) as temporary:
            temporary.write_text("x")
        assert str(path)[:40] in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


def test_trouble_with_another_file_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "m.json"):
        (tmp_path / "source").read_bytes()
    assert os.listdir(tmp_path) == []


def test_standard_output(tmp_path: Path) -> None:
    script = "from converter.format import atomic_path\nwith atomic_path('-') as path: path.write_bytes(b'x\\x00y')"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"x\x00y"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with atomic_path(pipe) as temporary:
        temporary.write_bytes(b"through")
    reader.join(10)
    assert received == [b"through"]
    assert pipe.is_fifo()
