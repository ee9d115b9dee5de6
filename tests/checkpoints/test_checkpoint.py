"""Checkpoints in: torch.save files, safetensors, sharded folders; and everything that must be refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from adapters.torch_files.read import CheckpointParameters
from converter.checkpoint import SelectedParameters, load_parameters, source_metadata
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.parameters import InMemoryParameters
from converter.paths import open_path

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
          torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128, torch.float8_e4m3fn,
          torch.float8_e5m2]

NEWER = (torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def state() -> dict[str, torch.Tensor]:
    """A state_dict of every dtype, with odd shapes, NaN, a tie, and a tensor that is no contiguous one."""
    generator = torch.Generator().manual_seed(0)
    found = {str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in DTYPES}
    found["scalar"] = torch.tensor(2.5)
    found["empty"] = torch.zeros(0, 4)
    found["special"] = torch.tensor([float("nan"), float("inf"), -0.0])
    found["transposed"] = torch.arange(6.0).reshape(2, 3).t()
    found["tie"] = found["special"]
    return found


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_a_state_dict_is_read_bit_for_bit(tmp_path: Path, suffix: str, legacy: bool) -> None:
    # torch itself cannot read the newer dtypes from a file of the old kind.
    tensors = {name: tensor for name, tensor in state().items() if not legacy or tensor.dtype not in NEWER}
    torch.save(tensors, tmp_path / f"w{suffix}", _use_new_zipfile_serialization=not legacy)
    store = load_parameters(tmp_path / f"w{suffix}")
    assert list(store.names()) == list(tensors)
    for name, tensor in tensors.items():
        values = store.read(name)
        assert values.shape == tuple(tensor.shape) == store.spec(name).shape
        assert str(store.spec(name).dtype) == str(tensor.dtype).removeprefix("torch.")
        assert values.tobytes() == bits(tensor)
        assert not values.flags.writeable
    assert {name: store.alias_of(name) for name in tensors if store.alias_of(name)} == {"tie": "special"}


def test_a_conjugate_is_no_alias_of_its_base(tmp_path: Path) -> None:
    base = torch.tensor([1 + 2j])
    torch.save({"a": base, "b": base.conj()}, tmp_path / "w.pt")
    store = load_parameters(tmp_path / "w.pt")
    assert store.alias_of("b") is None
    assert store.read("b").tolist() == [1 - 2j]


def test_a_zip_checkpoint_is_read_later_and_as_it_was(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "w.pt")
    store = load_parameters(tmp_path / "w.pt")
    assert isinstance(store, CheckpointParameters)
    content = (tmp_path / "w.pt").read_bytes()
    assert not torch.load(tmp_path / "w.pt", mmap=True, weights_only=True)["w"].is_shared()
    ones = np.ones(1000, np.float32).tobytes()
    assert store.read("w").tobytes() == ones
    with (tmp_path / "w.pt").open("r+b") as file:
        file.seek(content.index(ones))
        file.write(np.full(1000, 2, np.float32).tobytes())
    for read in (store.read, store.read_private, store.mapped, store.sha256, lambda name: list(store.pieces(name))):
        with pytest.raises(converter.FormatError, match="changed while it was in use"):
            read("w")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "anything"])
def test_a_nested_state_dict_is_found(tmp_path: Path, key: str) -> None:
    optimizer = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"epoch": 3, key: {"w": torch.ones(2)}, "optimizer": optimizer}, tmp_path / "c.pt")
    store = load_parameters(tmp_path / "c.pt")
    assert store.key == key  # type: ignore[attr-defined]
    assert store.names() == ("w",)


def test_the_usual_name_wins_and_others_can_be_asked_for(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "ema": {"model": {"w": torch.zeros(2)}}}, tmp_path / "c.pt")
    assert load_parameters(tmp_path / "c.pt").read("w").tolist() == [1, 1]
    assert load_parameters(tmp_path / "c.pt", "ema.model").read("w").tolist() == [0, 0]
    with pytest.raises(FormatError, match=r"no entry 'ema\.other'"):
        load_parameters(tmp_path / "c.pt", "ema.other")
    with pytest.raises(FormatError, match="'ema' is no state_dict"):
        load_parameters(tmp_path / "c.pt", "ema")


@pytest.mark.parametrize(("content", "part"), [
    ({"generator": {"w": torch.ones(1)}, "discriminator": {"w": torch.ones(1)}}, "several state_dicts"),
    ({"model": {"w": torch.ones(1)}, "net": {"w": torch.ones(1)}}, "several state_dicts"),
    ({"w": torch.ones(1), "epoch": 3, "rate": 0.1}, "holds no state_dict"),
    ({}, "an empty dict"),
    ([torch.ones(1)], "a list of tensors, which have no names there"),
    ([{"w": torch.ones(1)}, {"w": torch.ones(1)}], r"several state_dicts.*0, 1"),
    ([3, {}], "a dict with 0 tensors"),
    (3, "an int"),
    ({1: torch.ones(1)}, "whose names are no text: int"),
    (torch.ones(1), "a Tensor"),
    ({"w": torch.ones(1, device="meta")}, "meta device"),
])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, part: str) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(FormatError, match=part) as caught:
        load_parameters(tmp_path / "c.pt")
    assert "c.pt" in str(caught.value)
    assert "To fix" in str(caught.value)


def test_sparse_and_quantized_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "c.pt")
    with pytest.raises(UnsupportedError, match="sparse"):
        load_parameters(tmp_path / "c.pt")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pickle", "legacy", "zip"])
def test_no_code_in_a_checkpoint_is_run(tmp_path: Path, kind: str) -> None:
    content = {"w": torch.ones(1), "x": Bomb(tmp_path / "ran")}
    if kind == "pickle":
        (tmp_path / "c.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    else:
        torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(FormatError) as caught:
        load_parameters(tmp_path / "c.pt")
    assert not (tmp_path / "ran").exists()
    assert "weights_only" not in str(caught.value)
    if kind != "pickle":
        assert "posix.mkdir" in str(caught.value)
        assert "would run code" in str(caught.value)
        assert "state_dict()" in str(caught.value)
    # The bomb is live: what refuses it is the reader.
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_archives_of_code_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02).")
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/code/__torch__.py", b"")
    with pytest.raises(FormatError, match="TorchScript"):
        load_parameters(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", b"")
    with pytest.raises(FormatError, match=r"torch\.save did not write"):
        load_parameters(tmp_path / "other.pt")


def test_an_exported_program_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, str(tmp_path / "p.pt2"))
    (tmp_path / "p.pt2").rename(tmp_path / "p.pt")
    with pytest.raises(FormatError, match=r"torch\.export"):
        load_parameters(tmp_path / "p.pt")


def truncated(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(100)}, buffer)
    return buffer.getvalue()[:-300]


@pytest.mark.parametrize("content", [b"", b"\x80", b"hello", b"PK\x03\x04" + bytes(40), None],
                         ids=["empty", "one byte", "text", "zip", "cut"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes | None, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    path.write_bytes(truncated(path) if content is None else content)
    with pytest.raises(FormatError) as caught:
        load_parameters(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_damaged_byte_is_never_worse_than_a_refusal(tmp_path: Path, suffix: str) -> None:
    from adapters.safetensors.write import save_safetensors

    path = tmp_path / f"c{suffix}"
    if suffix == ".pt":
        torch.save({"a": torch.ones(8), "b": torch.zeros(3, 3)}, path)
    else:
        save_safetensors(InMemoryParameters({"a": np.ones(8), "b": np.zeros((3, 3), np.float32)}), path)
    content, generator, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(250):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 6)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        if generator.random() < 0.3:
            del damaged[generator.randrange(len(damaged)):]
        path.write_bytes(damaged)
        try:
            store = load_parameters(path)
            for name in store:
                store.read(name)
        except ConverterError:
            refused += 1
    assert refused > 100


def test_paths_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        load_parameters(tmp_path / "missing.pt")
    with pytest.raises(FormatError, match="holds no checkpoint"):
        load_parameters(tmp_path)
    (tmp_path / "c.txt").write_text("x")
    with pytest.raises(ConverterError, match=r"'\.txt'"):
        load_parameters(tmp_path / "c.txt")
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(FormatError, match="not a checkpoint"):
        load_parameters(tmp_path / "m.json")
    (tmp_path / "c.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    with pytest.raises(FormatError, match="without entries"):
        load_parameters(tmp_path / "c.safetensors", "model")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "m.h5", "m.onnx"])
def test_what_may_have_no_end_is_not_read(tmp_path: Path, name: str) -> None:
    """A pipe that nobody writes to, and a device; JSON alone is read from pipes."""
    os.mkfifo(tmp_path / name)
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / name).symlink_to("/dev/zero")
    for path, received in ((tmp_path / name, "a pipe"), (tmp_path / "zero" / name, "a device")):
        with pytest.raises(FormatError, match="neither a file nor a folder") as caught:
            (load_parameters if name.startswith("w") else converter.load)(path)
        assert caught.value.received == received
    (tmp_path / "m.json").symlink_to("/dev/zero")
    with pytest.raises(FormatError, match="neither a file nor a folder"):
        converter.load(tmp_path / "m.json")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.npz", "w.bin", "w", "m.json", "m.h5", "m.onnx", "p.pt2"])
def test_an_empty_file_is_not_opened(tmp_path: Path, name: str) -> None:
    """Files of /proc say that they are empty, and some of them wait for ever when they are read."""
    (tmp_path / name).touch()
    with pytest.raises(FormatError, match="the file is empty") as caught:
        open_path(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


# Folders -----------------------------------------------------------------------------------------------------------------


def folder(path: Path, shards: dict[str, dict[str, torch.Tensor]], weight_map: dict[str, str] | None = None) -> Path:
    """A Hugging Face folder of shards with an index."""
    from safetensors.torch import save_file

    for name, tensors in shards.items():
        if name.endswith(".safetensors"):
            save_file(tensors, path / name)
        else:
            torch.save(tensors, path / name)
    whole = "model.safetensors" if next(iter(shards)).endswith(".safetensors") else "pytorch_model.bin"
    places = weight_map or {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (path / f"{whole}.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_sharded_folder_is_one_checkpoint(tmp_path: Path, suffix: str) -> None:
    shards = {f"part-1{suffix}": {"b": torch.ones(2), "a": torch.zeros(3)}, f"part-2{suffix}": {"c": torch.full((2,), 2.0)}}
    store = load_parameters(folder(tmp_path, shards, {"a": f"part-1{suffix}", "c": f"part-2{suffix}", "b": f"part-1{suffix}"}))
    assert store.names() == ("a", "c", "b")
    assert store.read("c").tolist() == [2, 2]
    assert set(source_metadata(tmp_path)["files"]) == set(shards)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_with_one_file(tmp_path: Path, name: str) -> None:
    from safetensors.torch import save_file

    if name.endswith("bin"):
        torch.save({"w": torch.ones(2)}, tmp_path / name)
    else:
        save_file({"w": torch.ones(2)}, tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    assert load_parameters(tmp_path).names() == ("w",)


@pytest.mark.parametrize("place", ["../outside.bin", "/etc/passwd", "a/../../outside.bin", "..", "", "x" * 5000])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, place: str) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "outside.bin")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"w": place}}))
    with pytest.raises(FormatError, match=r"outside of the folder|map of tensors"):
        load_parameters(inner)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"w": 3}}', "[" * 100_000, '{"weight_map": ["w"]}'])
def test_a_malformed_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(text)
    with pytest.raises(FormatError, match="index"):
        load_parameters(tmp_path)


def test_a_shard_may_have_a_name_that_no_file_has(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"w": "x" * 400}}))
    with pytest.raises(FormatError, match="a shard of the checkpoint is missing"):
        load_parameters(tmp_path)
    with pytest.raises(FormatError, match="File name too long"):
        load_parameters(tmp_path / ("x" * 400))


def test_an_index_must_fit_its_shards(tmp_path: Path) -> None:
    folder(tmp_path, {"a.bin": {"w": torch.ones(1), "extra": torch.ones(1)}}, {"w": "a.bin", "gone": "a.bin"})
    with pytest.raises(FormatError, match="missing: gone; not in the index: extra"):
        load_parameters(tmp_path)
    folder(tmp_path, {"a.bin": {"w": torch.ones(1)}}, {"w": "a.bin", "x": "b.bin"})
    with pytest.raises(FormatError, match="a shard of the checkpoint is missing"):
        load_parameters(tmp_path)


# Stores ------------------------------------------------------------------------------------------------------------------


def test_leaving_out_a_tied_tensor_keeps_the_others_tied() -> None:
    store = SelectedParameters(InMemoryParameters({"a": np.ones(2)}, {"b": "a", "c": "a"}), frozenset({"a"}))
    assert store.names() == ("b", "c")
    assert (store.alias_of("b"), store.alias_of("c")) == (None, "b")
    assert store.read("c").tolist() == [1, 1]
    with pytest.raises(ConverterError, match="no parameter 'a'"):
        store.read("a")


def test_other_state_dicts_beside_the_usual_one_are_named(tmp_path: Path) -> None:
    torch.save({"params": {"w": torch.ones(2)}, "params_ema": {"w": torch.zeros(2)}, "optimizer": {"m": torch.ones(2)}}, tmp_path / "c.pt")
    for command in (["inspect", "c.pt"], ["torch-to-safetensors", "c.pt", "-o", "w.safetensors"]):
        result = CliRunner().invoke(cli, [argument.replace("c.pt", str(tmp_path / "c.pt")).replace("w.s", str(tmp_path / "w.s"))
                                          for argument in command])
        assert result.exit_code == 0
        assert "'params'" in result.output
        assert "left out: params_ema (--key params_ema takes that one)" in " ".join(result.output.split())
