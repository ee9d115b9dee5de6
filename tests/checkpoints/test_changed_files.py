"""Files that change while they are in use: what was replaced by a rename goes on being read as it was, any other change is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import converter
from adapters.onnx.export import save_onnx
from converter.checkpoint import load_parameters
from converter.format.atomic import values_beside
from converter.mapped import OpenFile, mapped_files
from converter.parameters import ParameterStore

ROOT = Path(__file__).parents[2]


def model(seed: int = 0, rows: int = 40) -> converter.Model:
    builder = converter.GraphBuilder("two")
    x = builder.input("x", "float32", ["batch", 30])
    x = builder.op("linear", x, builder.parameter("a", "float32", [rows, 30]))
    builder.output("y", builder.op("multiply", x, builder.parameter("b", "float32", [rows])))
    values = np.random.default_rng(seed)
    arrays = {"a": values.random((rows, 30), np.float32), "b": values.random(rows, np.float32)}
    return converter.Model(builder.graph(), converter.InMemoryParameters(arrays))


def write(folder: Path, name: str, rows: int = 40) -> tuple[Path, Callable[[], ParameterStore]]:
    """Writes the model in a format: the file that holds its values, and what opens it."""
    path = folder / name
    if name in ("beside.json", "beside.onnx"):
        if name == "beside.json":
            converter.save(model(rows=rows), path, encoding="file")
        else:
            save_onnx(model(rows=rows), path, external=True)
        values, = values_beside(path)
        return values, lambda: converter.load(path).parameters
    converter.save(model(rows=rows), path, **({"encoding": "base64"} if name == "m.json" else {}))
    return path, (lambda: load_parameters(path)) if name.endswith((".pt", ".safetensors")) else lambda: converter.load(path).parameters


def open_and_write(mode: str, data: bytes) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        with path.open(mode) as file:
            file.write(data)

    return change


CHANGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": open_and_write("wb", b""),
    "longer": open_and_write("ab", b"x"),
    "written over": open_and_write("r+b", b"x" * 10),
}
NAMES = ("m.h5", "m.json", "beside.json", "beside.onnx", "m.safetensors", "m.pt")


def reads(store: ParameterStore) -> dict[str, Callable[[], object]]:
    return {"read": lambda: store.read("a"), "read_private": lambda: store.read_private("a"), "mapped": lambda: store.mapped("a"),
            "sha256": lambda: store.sha256("a"), "pieces": lambda: list(store.pieces("a"))}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_place_is_noticed(tmp_path: Path, name: str, change: str) -> None:
    path, load = write(tmp_path, name, rows=1 << 15 if name == "m.json" else 40)
    for how in reads(load()):
        write(tmp_path, name, rows=1 << 15 if name == "m.json" else 40)
        # Clocks of file systems tick a few times in a hundredth of a second.
        os.utime(path, (0, 0))
        store = load()
        store.__dict__.pop("_sha256", None)
        CHANGES[change](path)
        with pytest.raises(converter.FormatError, match="changed while it was in use"):
            reads(store)[how]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_file_that_is_replaced_goes_on_being_what_it_was(tmp_path: Path, name: str, change: str) -> None:
    path, load = write(tmp_path, name)
    store = load()
    if change == "replaced":
        (tmp_path / "other").write_bytes(bytes(100))
        os.replace(tmp_path / "other", path)
    else:
        path.unlink()
    for tensor in ("a", "b"):
        assert store.read(tensor).tobytes() == store.mapped(tensor).tobytes() == model().parameters.read(tensor).tobytes()


RUN = """
import os, sys
import numpy as np, converter
from pathlib import Path
from tests.checkpoints.test_changed_files import CHANGES
model = converter.load(sys.argv[1])
session = converter.session(model, sys.argv[2])
x = np.ones((2, 30), np.float32)
first = session.run({"x": x})["y"]
CHANGES[sys.argv[4]](Path(sys.argv[3]))
try:
    print("same" if np.array_equal(session.run({"x": x})["y"], first) else "other answers")
except converter.FormatError as error:
    print(error.message)
"""


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("name", ["m.h5", "m.json", "beside.onnx"])
def test_a_session_refuses_or_answers_the_same(tmp_path: Path, runtime: str, name: str) -> None:
    for change in ("emptied", "written over") if runtime == "numpy" else ("emptied",):
        path, _ = write(tmp_path, name)
        os.utime(path, (0, 0))
        child = subprocess.run([sys.executable, "-c", RUN, str(tmp_path / name), runtime, str(path), change], text=True, timeout=60,
                               env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
        assert child.stdout in ("same\n", "the file was changed while it was in use\n"), child.stderr
        if runtime == "numpy" and name == "m.h5":
            assert "changed" in child.stdout


def test_a_session_looks_again_after_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = write(tmp_path, "m.h5")
    session = converter.session(converter.load(path), "numpy")
    run = session._plan.run  # type: ignore[attr-defined]

    def changed_meanwhile(*args: object) -> object:
        result = run(*args)
        os.utime(path, ns=(0, 0))
        return result

    monkeypatch.setattr(session._plan, "run", changed_meanwhile)  # type: ignore[attr-defined]
    with pytest.raises(converter.FormatError, match="changed"):
        session.run({"x": np.ones((2, 30), np.float32)})


def test_a_changed_file_is_no_verdict(tmp_path: Path) -> None:
    path, _ = write(tmp_path, "m.h5")
    session = converter.session(converter.load(path), "numpy")
    os.utime(path, ns=(0, 0))
    with pytest.raises(converter.FormatError, match="changed"):
        converter.verify(model(), {"mine": session})


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", ["o.h5", "o.json", "o.onnx", "o.safetensors", "o.pt"])
def test_a_source_that_is_cut_while_it_is_converted(tmp_path: Path, source: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process goes on, the old target stays, and nothing lies beside it."""
    path, load = write(tmp_path, source, rows=1 << 15 if source == "m.json" else 40)
    found = converter.Model(model().graph, load()) if source.endswith((".pt", ".safetensors")) else converter.load(tmp_path / source)
    out = tmp_path / "out"
    out.mkdir()
    (out / target).write_bytes(b"old")
    read_into, offsets = OpenFile.read_into, []

    def cut(file: OpenFile, data: np.ndarray, offset: int) -> None:
        offsets.append(offset)
        if len(offsets) == (1 if source == "beside.onnx" else 2):  # one of its tensors is in the document
            os.truncate(path, 100)
        read_into(file, data, offset)

    monkeypatch.setattr(OpenFile, "read_into", cut)
    with pytest.raises(converter.FormatError, match="changed while it was in use"):
        converter.save(found, out / target)
    assert [item.name for item in out.iterdir()] == [target]
    assert (out / target).read_bytes() == b"old"


@pytest.mark.parametrize("source", NAMES)
def test_large_tensors_in_pieces_are_the_same_files(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, load = write(tmp_path, source)
    monkeypatch.setattr("converter.mapped.PIECE", 48)
    files = []
    for large in (1 << 30, 64):
        for module in ("converter.format.writing", "converter.format.hdf5_values", "adapters.onnx.writing"):
            monkeypatch.setattr(f"{module}.LARGE", large)
        monkeypatch.setattr("adapters.onnx.writing.BLOCK", 40 * 4 * 7)
        folder = tmp_path / str(large)
        folder.mkdir()
        found = converter.Model(model().graph, load())
        converter.save(found, folder / "o.json", encoding="base64")
        converter.save(found, folder / "o.onnx")
        converter.save(found, folder / "o.safetensors")
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
        converter.save(found, folder / "o.h5")
        assert converter.model_digest(converter.load(folder / "o.h5")) == converter.model_digest(model())
    assert files[0] == files[1]


def test_what_is_mapped_is_known(tmp_path: Path) -> None:
    path, load = write(tmp_path, "m.h5")
    store = load()
    found = mapped_files([store.mapped("a")[3:].T, store.mapped("b").reshape(8, 5), store.read("a"), np.ones(3)])
    assert [file.path for file in found] == [str(path)]
    assert mapped_files([store.read("a"), store.read_private("b"), np.float32(1) * np.ones(2)]) == ()


def test_bools_and_odd_offsets_are_not_mapped(tmp_path: Path) -> None:
    import torch

    from converter.checkpoint import load_parameters

    base = torch.arange(24.0).reshape(4, 6)
    torch.save({"flag": torch.tensor([True, False]), "t": base.t(), "part": base[1:3], "row": base[:, 2:3], "one": base[:1, 1:]},
               tmp_path / "w.pt")
    store = load_parameters(tmp_path / "w.pt")
    assert [name for name in store if store.file_range(name) is None] == ["flag", "t", "row"]
    for name in store:
        expected = torch.load(tmp_path / "w.pt")[name].numpy()
        for values in (store.read(name), store.mapped(name), store.read_private(name)):
            assert np.array_equal(values, expected)
        assert b"".join(map(bytes, store.pieces(name))) == np.ascontiguousarray(expected).tobytes()
