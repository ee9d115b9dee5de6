"""A document and the file of its values beside it: the old pair or the new one, whatever happens while it is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import converter
from adapters.onnx.export import save_onnx
from converter.format.atomic import atomic_pair, atomic_path, values_beside
from tests.format_models import classifier

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def model(seed: int) -> converter.Model:
    found = classifier()
    values = np.random.default_rng(seed)
    arrays = {name: values.random(found.parameters.spec(name).shape).astype(found.parameters.spec(name).dtype.numpy)  # type: ignore[arg-type]
              for name in found.parameters if found.parameters.alias_of(name) is None}
    aliases = {name: target for name in found.parameters if (target := found.parameters.alias_of(name)) is not None}
    return converter.Model(found.graph, converter.InMemoryParameters(arrays, aliases), (), {}, found.constants)


SAVERS: dict[str, Callable[[converter.Model, Path], object]] = {
    "m.json": lambda model, path: converter.save(model, path, encoding="file"),
    "m.onnx": lambda model, path: save_onnx(model, path, external=True),
}


def wide(seed: int) -> converter.Model:
    """A model whose values do not all fit into the ONNX file itself."""
    builder = converter.GraphBuilder("wide")
    x = builder.input("x", "float32", ["batch", 40])
    builder.output("y", builder.op("linear", x, builder.parameter("w", "float32", [40, 40])))
    return converter.Model(builder.graph(), converter.InMemoryParameters({"w": np.random.default_rng(seed).random((40, 40), np.float32)}))


def digest(path: Path) -> str:
    return converter.model_digest(converter.load(path))


KILLED = """
import os, signal, sys
real, left = os.replace, int(sys.argv[2])
def replace(*args, **kwargs):
    global left
    real(*args, **kwargs)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
from pathlib import Path
from tests.formats.test_format_pairs import SAVERS, wide
SAVERS[Path(sys.argv[1]).name](wide(1), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("renames", [1, 2])
def test_killed_after_a_rename(tmp_path: Path, name: str, renames: int) -> None:
    path = tmp_path / name
    SAVERS[name](wide(0), path)
    child = subprocess.run([sys.executable, "-c", KILLED, str(path), str(renames)], env=ENVIRONMENT, check=False)
    assert child.returncode == -signal.SIGKILL
    assert digest(path) == converter.model_digest(wide(renames - 1))
    assert len(values_beside(path)) == 2
    SAVERS[name](wide(2), path)
    assert digest(path) == converter.model_digest(wide(2))
    assert len(values_beside(path)) == 1
    assert len(list(tmp_path.iterdir())) == 2 + (renames == 1), "the temporary document of the one that was killed"


@pytest.mark.parametrize("name", SAVERS)
def test_values_that_nobody_names_any_more_go(tmp_path: Path, name: str) -> None:
    path, copy = tmp_path / name, tmp_path / f"{name}.20240131.data"
    copy.write_bytes(b"of the user")
    for seed in (0, 1, 0, 0):
        SAVERS[name](wide(seed), path)
        assert digest(path) == converter.model_digest(wide(seed))
        assert sorted(tmp_path.iterdir()) == sorted([path, copy, *values_beside(path)])
        assert len(values_beside(path)) == 1
    converter.save(wide(1), path)
    assert sorted(tmp_path.iterdir()) == [path, copy]


def test_one_conversion_gives_the_same_bytes_whatever_lay_there(tmp_path: Path) -> None:
    for name, save in SAVERS.items():
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            if folder == "b":
                save(wide(3), tmp_path / folder / name)
            save(wide(1), tmp_path / folder / name)
    files = [{path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in "ab"]
    assert files[0] == files[1]


WRITER = """
import sys
from pathlib import Path
from tests.formats.test_format_pairs import SAVERS, wide
for _ in range(30):
    for seed in (0, 1) if sys.argv[2] == "0" else (1, 0):
        SAVERS[Path(sys.argv[1]).name](wide(seed), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("name", SAVERS)
def test_two_writers_at_once(tmp_path: Path, name: str) -> None:
    """Each writes what the other is about to remove."""
    path = tmp_path / name
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(seed)], env=ENVIRONMENT) for seed in (0, 1)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert digest(path) in (converter.model_digest(wide(0)), converter.model_digest(wide(1)))
    assert sorted(tmp_path.iterdir()) == sorted([path, *values_beside(path)])
    assert len(values_beside(path)) == 1


def test_tied_weights_and_constants_beside(tmp_path: Path) -> None:
    converter.save(model(4), tmp_path / "m.json", encoding="file")
    assert digest(tmp_path / "m.json") == converter.model_digest(model(4))
    assert converter.load(tmp_path / "m.json").constants == model(4).constants


@pytest.mark.parametrize("name", ["a:b.json", "a\\b.json", "a\nb.json", os.fsdecode(b"\xff.json")])
def test_a_name_that_no_document_can_hold(tmp_path: Path, name: str) -> None:
    with pytest.raises(converter.ConverterError, match="no document can name"):
        converter.save(wide(0), tmp_path / name, encoding="file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "-"])
def test_no_file_to_lie_beside(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = "-" if kind == "-" else "m.json"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        os.mkdir(path)
    before = os.listdir()
    with pytest.raises(converter.ConverterError):
        converter.save(wide(0), path, encoding="file")
    assert os.listdir() == before


def test_the_values_of_another_file_are_no_output(tmp_path: Path) -> None:
    converter.save(wide(0), tmp_path / "m.json", encoding="file")
    values, = values_beside(tmp_path / "m.json")
    before = values.read_bytes()
    with pytest.raises(converter.ConverterError, match=r"the values of m\.json"):
        converter.save(wide(1), values)
    assert values.read_bytes() == before
    (tmp_path / "m.json").unlink()
    converter.save(wide(1), values)
    assert digest(values) == converter.model_digest(wide(1))


def test_the_values_have_the_permissions_of_the_document(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("old")
    path.chmod(0o600)
    with atomic_pair(path, "weights.h5") as pair:
        for item in (pair.document, pair.values):
            assert item.stat().st_mode & 0o777 == 0o600
            item.write_text("new")
        pair.name_values("0" * 64)
    assert {item.stat().st_mode & 0o777 for item in tmp_path.iterdir()} == {0o600}


def test_a_temporary_file_shows_no_more_than_its_target(tmp_path: Path) -> None:
    for mode in (0o600, 0o640, 0o444, 0o000):
        path = tmp_path / f"{mode}"
        path.write_text("old")
        path.chmod(mode)
        with atomic_path(path) as temporary:
            assert temporary.stat().st_mode & 0o777 & ~0o600 & ~mode == 0
            temporary.write_text("new")
        assert path.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system has no paths of open files")
def test_what_stands_in_a_log_stays(tmp_path: Path) -> None:
    (tmp_path / "o.json").symlink_to("/dev/stdout")
    script = "from converter.format import atomic_path\nwith atomic_path({!r}) as path: path.write_bytes(b'new')"
    for count, name in enumerate(("o.json", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/fd/7"), 1):
        with (tmp_path / "log").open("ab") as log:
            if count == 1:
                log.write(b"old ")
                log.flush()
            subprocess.run(["sh", "-c", 'exec "$0" -c "$1" 7>&1', sys.executable, script.format(name)], cwd=tmp_path, stdout=log,
                           env=ENVIRONMENT, check=True)
        assert (tmp_path / "log").read_bytes() == b"old " + b"new" * count
    script = "from converter.format import atomic_path\nwith atomic_path('o.json') as path: path.write_bytes(b'new')"
    closed = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, script], cwd=tmp_path, env=ENVIRONMENT, text=True,
                            stderr=subprocess.PIPE, check=False)
    assert "standard output is closed" in closed.stderr
