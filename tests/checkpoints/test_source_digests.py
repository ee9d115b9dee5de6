"""Where a model came from: digests of files that a thread works out while the model is written."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import converter
from converter.checkpoint import Origin, file_metadata, origin_of
from converter.cli.main import cli
from converter.format import save_graph
from converter.loading import open_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """w.pt and graph.json, for it."""
    torch.save({"model": nn.Linear(3, 2).state_dict()}, tmp_path / "w.pt")
    builder = converter.GraphBuilder("line")
    x = builder.input("x", "float32", ["batch", 3])
    builder.output("y", builder.op("linear", x, builder.parameter("weight", "float32", [2, 3]), builder.parameter("bias", "float32", [2])))
    metadata = {"source": {"framework": "mine", "file": "other"}, "a": 1}
    save_graph(builder.graph(), builder.parameters, tmp_path / "graph.json", metadata=metadata)
    return tmp_path


COMMANDS = {"m.json": "torch-to-json", "m.h5": "torch-to-hdf5", "m.onnx": "torch-to-onnx"}


def convert(folder: Path, output: str) -> Result:
    arguments = [COMMANDS[output], str(folder / "w.pt"), "--architecture", str(folder / "graph.json"), "-o", str(folder / output)]
    return CliRunner().invoke(cli, arguments)


def test_a_source_is_the_mapping_that_it_stands_for(folder: Path) -> None:
    digest = hashlib.sha256((folder / "w.pt").read_bytes()).hexdigest()
    plain = {"framework": "mine", "file": "w.pt", "sha256": digest, "key": "model"}
    source = origin_of(folder / "w.pt").beside({"framework": "mine", "file": "other"}, {"key": "model"})
    assert source == plain
    assert plain == source
    assert dict(source) == plain
    assert list(source) == list(plain)
    assert len(source) == 4
    assert "sha256" in source
    assert source.get("missing") is None
    assert repr(source) == repr(plain)
    assert copy.deepcopy(source) == pickle.loads(pickle.dumps(source)) == plain


def test_several_files(folder: Path) -> None:
    (folder / "part").mkdir()
    (folder / "part" / "b.bin").write_bytes(b"b")
    files = [folder / "w.pt", folder / "part" / "b.bin"]
    assert Origin(files, folder) == file_metadata(files, folder)
    assert set(Origin(files, folder)["files"]) == {"w.pt", "part/b.bin"}


def test_facts_are_there_before_the_digest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Event

    ready = Event()
    monkeypatch.setattr("converter.checkpoint.file_metadata", lambda files, root: (ready.wait(30), file_metadata(files, root))[1])
    model = open_checkpoint(folder / "w.pt", folder / "graph.json")
    source = model.metadata["source"]
    assert (source["key"], source["framework"], "sha256" in source, source.get("wrappers")) == ("model", "mine", True, None)
    ready.set()
    assert len(source["sha256"]) == 64


def test_a_file_that_cannot_be_read_fails_the_conversion(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(files: object, root: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "w.pt")

    monkeypatch.setattr("converter.checkpoint.file_metadata", gone)
    for output in COMMANDS:
        done = convert(folder, output)
        assert done.exit_code == 2
        assert "No such file" in done.output
    assert {path.name for path in folder.iterdir()} == {"w.pt", "graph.json"}


def test_the_public_model_has_plain_metadata(folder: Path) -> None:
    model = converter.from_checkpoint(folder / "w.pt", folder / "graph.json")
    assert type(model.metadata["source"]) is dict
    assert json.loads(json.dumps(model.metadata))["source"]["sha256"] == hashlib.sha256((folder / "w.pt").read_bytes()).hexdigest()
    assert model.metadata["a"] == 1


def test_every_format_holds_the_digest(folder: Path) -> None:
    digest = hashlib.sha256((folder / "w.pt").read_bytes()).hexdigest()
    for output in COMMANDS:
        done = convert(folder, output)
        assert done.exit_code == 0, done.output
        source = converter.load(folder / output).metadata["source"]
        assert source == {"framework": "mine", "file": "w.pt", "sha256": digest, "key": "model"}


def test_no_byte_is_hashed_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with its file and once with its tensor, in every format."""
    files: list[str] = []
    pieces: list[bytes] = []
    digest, sha256 = hashlib.file_digest, hashlib.sha256

    def whole(file: Any, kind: str) -> Any:
        files.append(Path(file.name).name)
        return digest(file, kind)

    def piece(data: Any = b"", **options: Any) -> Any:
        pieces.append(bytes(data))
        return sha256(data, **options)

    monkeypatch.setattr(hashlib, "file_digest", whole)
    monkeypatch.setattr(hashlib, "sha256", piece)
    tensors = [tensor.numpy().tobytes() for tensor in torch.load(folder / "w.pt", weights_only=True)["model"].values()]
    for output in COMMANDS:
        files.clear()
        pieces.clear()
        assert convert(folder, output).exit_code == 0
        assert files == ["w.pt"]
        assert [pieces.count(tensor) for tensor in tensors] == [1, 1], output


# Mapped files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".h5", ".pt"])
def test_private_values_are_the_callers_own(suffix: str, tmp_path: Path) -> None:
    """Writable, without a copy of the file, which stays as it is; and what is read stays valid when more is read."""
    builder = converter.GraphBuilder("line")
    x = builder.input("x", "float32", ["batch", 700])
    builder.output("y", builder.op("linear", x, builder.parameter("w", "float32", [700, 700])))
    arrays = {"w": np.random.default_rng(0).standard_normal((700, 700)).astype(np.float32), "flag": np.array([True, False]),
              "other": np.arange(500_000, dtype=np.float32)}
    model = converter.Model(builder.graph(), converter.InMemoryParameters(arrays))
    converter.save(model, tmp_path / f"m{suffix}")
    store = (converter.load(tmp_path / f"m{suffix}").parameters if suffix == ".h5"
             else converter.checkpoint.load_parameters(tmp_path / f"m{suffix}"))
    before = (tmp_path / f"m{suffix}").read_bytes()
    first, mine = store.read("w"), store.read_private("w")
    mine += 1
    for name, values in arrays.items():
        assert np.array_equal(store.read(name), values)
        assert not store.read(name).flags.writeable
        assert store.read_private(name).flags.writeable
    assert np.array_equal(first, arrays["w"])
    assert np.array_equal(mine, arrays["w"] + 1)
    assert (tmp_path / f"m{suffix}").read_bytes() == before
