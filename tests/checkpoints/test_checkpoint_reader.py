"""The checkpoint reader without PyTorch: what torch.load gives, bit for bit, in an environment that has no torch."""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import pickle
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from adapters.torch_files.read import CheckpointParameters, load_checkpoint
from converter.checkpoint import load_parameters
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, MissingDependencyError, UnsafePickleError, UnsupportedError
from converter.format import save_graph
from converter.matching import match_names
from converter.state_dict import find_wrappers, strip_wrappers

ROOT = Path(__file__).parents[2]


def bits(tensor: torch.Tensor) -> bytes:
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def same_as_torch(path: Path, key: str | None = None) -> CheckpointParameters:
    """What our reader gives for a file, after holding every tensor to what torch's own gives."""
    store = load_checkpoint(path, key)
    assert isinstance(store, CheckpointParameters)
    expected: Any = torch.load(path, weights_only=False)
    for step in (store.key or "").split(".") if store.key else ():
        expected = expected[step]
    assert list(store.names()) == list(expected)
    for name, tensor in expected.items():
        values = store.read(name)
        assert str(store.spec(name).dtype) == str(tensor.dtype).removeprefix("torch.")
        assert values.shape == tuple(tensor.shape) == store.spec(name).shape
        assert values.flags.c_contiguous
        assert not values.flags.writeable
        assert values.tobytes() == bits(tensor), name
        private = store.read_private(name)
        assert private.flags.writeable
        assert private.tobytes() == values.tobytes()
    return store


# What is read ------------------------------------------------------------------------------------------------------------

SMALL = [dtype for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
         if (dtype := getattr(torch, name, None)) is not None]
DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
          torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128, *SMALL]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_and_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    generator = torch.Generator().manual_seed(protocol)
    state: dict[str, Any] = {str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in DTYPES}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "one": torch.ones(1), "long name " * 40: torch.zeros(2)}
    state |= {f"parameter {index}": nn.Parameter(torch.full((2,), float(index))) for index in range(300)}
    torch.save(state, tmp_path / "w.pt", pickle_protocol=protocol)
    same_as_torch(tmp_path / "w.pt")


def test_views_of_one_storage(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = {"base": base, "rows": base.reshape(4, 6), "turned": base.reshape(4, 6).t(), "part": base[3:11], "steps": base[1::5],
             "corner": base.reshape(4, 6)[1:3, 2:5], "cube": base.reshape(2, 3, 4).permute(2, 0, 1), "same": base,
             "same rows": base.reshape(4, 6), "repeated": base[:1].expand(7), "image": torch.arange(48.0).reshape(2, 2, 3, 4).to(
                 memory_format=torch.channels_last), "one": base[5]}
    torch.save(state, tmp_path / "w.pt")
    store = same_as_torch(tmp_path / "w.pt")
    assert {name: store.alias_of(name) for name in state if store.alias_of(name)} == {"same": "base", "same rows": "rows"}


def test_conjugate_and_negative_views(tmp_path: Path) -> None:
    base = torch.tensor([1 + 2j, 3 - 4j])
    torch.save({"base": base, "conj": base.conj(), "imag": base.clone().conj().imag, "turned": torch.view_as_real(base.clone()).t()},
               tmp_path / "w.pt")
    store = same_as_torch(tmp_path / "w.pt")
    assert store.read("imag").tolist() == [-2, 4]
    assert store.alias_of("conj") is None


def test_contiguous_tensors_are_views_of_one_mapping(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000), "b": torch.ones(50, 50).to(torch.bfloat16)}, tmp_path / "w.pt")
    store = load_checkpoint(tmp_path / "w.pt")
    for name in ("a", "b"):
        first, second = store.mapped(name), store.mapped(name)
        assert first.ctypes.data == second.ctypes.data
        assert not first.flags.writeable
        assert store.read(name).tobytes() == first.tobytes() == b"".join(map(bytes, store.pieces(name)))
    private = store.read_private("a")
    private[:] = 5
    assert store.read("a").tolist() == [1.0] * 1000
    assert torch.load(tmp_path / "w.pt")["a"].tolist() == [1.0] * 1000


def test_a_dropped_page_comes_back(tmp_path: Path) -> None:
    torch.save({name: torch.full((1 << 19,), float(index)) for index, name in enumerate("abc")}, tmp_path / "w.pt")
    store = load_checkpoint(tmp_path / "w.pt")
    views = {name: store.read(name) for name in "abc"}
    for index, name in enumerate("abc"):
        assert (views[name] == index).all()
        assert (store.read(name) == index).all()


def test_a_module_s_whole_state(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LSTM(4, 5, batch_first=True), nn.MultiheadAttention(4, 2))
    torch.save(module.state_dict(), tmp_path / "w.pt")
    same_as_torch(tmp_path / "w.pt")
    torch.save(module.state_dict(keep_vars=True), tmp_path / "w.pt")
    same_as_torch(tmp_path / "w.pt")


def test_parameters_with_attributes_of_their_own(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.note = "kept out"  # type: ignore[attr-defined]
    tensor = torch.ones(3)
    tensor.scale = 2  # type: ignore[attr-defined]
    torch.save({"p": parameter, "t": tensor}, tmp_path / "w.pt")
    same_as_torch(tmp_path / "w.pt")


def training_run(**more: Any) -> dict[str, Any]:
    """A checkpoint as training loops write it."""
    module = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"epoch": 3, "state_dict": module.state_dict(), "optimizer_states": [optimizer.state_dict()], "loss": 0.5, "name": "run",
            "betas": (0.9, 0.999), "size": torch.Size([2, 3]), "dtype": torch.bfloat16, "device": torch.device("cuda:0"),
            "layout": torch.strided, "seen": {1, 2}, "rng": torch.get_rng_state(), "counts": collections.Counter("abc"),
            "nested": [[1, None, True], {"a": (1, 2, 3, 4)}], "raw": b"\x00\xff", "z": 1 + 2j, "big": 1 << 100,
            "losses": collections.defaultdict(list, {"a": [1.0]}), **more}


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_training_loops_save_beside_the_state_dict(tmp_path: Path, protocol: int) -> None:
    torch.save(training_run(), tmp_path / "c.ckpt.pt", pickle_protocol=protocol)
    store = load_checkpoint(tmp_path / "c.ckpt.pt")
    assert store.names() == ("weight", "bias")
    assert store.key == "state_dict"  # type: ignore[attr-defined]


def test_hyper_parameters_are_plain_values(tmp_path: Path) -> None:
    content = training_run(hyper_parameters=argparse.Namespace(lr=0.1, layers=[1, 2]))
    torch.save(content, tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt").names() == ("weight", "bias")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "c.pt", weights_only=True)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_prefixes(tmp_path: Path, prefix: str) -> None:
    torch.save({f"{prefix}{name}": value for name, value in nn.Linear(2, 2).state_dict().items()}, tmp_path / "w.pt")
    store = load_parameters(tmp_path / "w.pt")
    assert {strip_wrappers(name, find_wrappers(store.names())) for name in store.names()} == {"weight", "bias"}
    matched = match_names(store, {"weight", "bias"})
    found, parts = matched.store, matched.wrappers
    assert found.names() == ("weight", "bias")
    assert set(parts) == set(prefix.strip(".").split("."))
    assert match_names(store, set(store.names())).store is store
    assert match_names(store, {"other"}).store is store


def test_compiled_parts_and_names_that_only_look_wrapped() -> None:
    assert find_wrappers(["encoder._orig_mod.weight", "head.weight"]) == ("_orig_mod",)
    assert strip_wrappers("encoder._orig_mod.weight", ("_orig_mod",)) == "encoder.weight"
    assert find_wrappers(["module.weight", "head.weight"]) == ()
    assert find_wrappers([]) == ()


# Byte order ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype not in SMALL[1:]])
def test_big_endian_files(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).mul(50).abs().to(dtype)
    torch.save({"w": values, "t": values.t()}, tmp_path / "little.pt")
    width = values.element_size() // (2 if dtype.is_complex else 1)

    def swap(name: str, data: bytes) -> bytes:
        if name.endswith("byteorder"):
            return b"big"
        return np.frombuffer(data, f"u{width}").byteswap().tobytes() if "/data/" in name else data

    rewrite(tmp_path / "little.pt", tmp_path / "big.pt", swap)
    store = load_checkpoint(tmp_path / "big.pt")
    assert store.read("w").tobytes() == bits(values)
    assert store.read("t").tobytes() == bits(values.t())


def rewrite(source: Path, target: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> None:
    """A zip file with other contents; `change` gives each entry's bytes, or None to leave it out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info.filename))
            if data is not None:
                new.writestr(info.filename, data)


def test_a_repacked_archive_and_one_of_a_newer_torch(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(5.0)}, tmp_path / "w.pt")
    rewrite(tmp_path / "w.pt", tmp_path / "r.pt", lambda name, data: data)
    assert load_checkpoint(tmp_path / "r.pt").read("w").tolist() == [0, 1, 2, 3, 4]
    rewrite(tmp_path / "w.pt", tmp_path / "r.pt", lambda name, data: None if name.endswith("byteorder") else data)
    assert load_checkpoint(tmp_path / "r.pt").read("w").tolist() == [0, 1, 2, 3, 4]


# Without torch -------------------------------------------------------------------------------------------------------------

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "transformers", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def without_torch(folder: Path, *arguments: str, code: int = 0) -> str:
    """The command line in a fresh process in which torch cannot be imported. Gives stdout and stderr."""
    program = f"{BLOCKER}\nfrom converter.cli import main\nmain({list(arguments)!r})"
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """A folder with a graph, `graph.json`, and a state_dict for it, `w.pt`."""
    builder = converter.GraphBuilder("line")
    x = builder.input("x", "float32", ["batch", 3])
    weight, bias = builder.parameter("fc.weight", "float32", [2, 3]), builder.parameter("fc.bias", "float32", [2])
    builder.output("y", builder.op("linear", x, weight, bias))
    save_graph(builder.graph(), builder.parameters, tmp_path / "graph.json")
    torch.save({"fc.weight": torch.arange(6.0).reshape(3, 2).t(), "fc.bias": torch.tensor([0.5, -0.5])}, tmp_path / "w.pt")
    return tmp_path


def test_conversions_where_torch_was_never_installed(line: Path) -> None:
    with_torch = subprocess.run([sys.executable, "-c", f"{BLOCKER}\nimport torch"], capture_output=True, text=True, check=False, timeout=60)
    assert "No module named 'torch'" in with_torch.stderr
    for command, output in (("torch-to-json", "m.json"), ("torch-to-hdf5", "m.h5"), ("torch-to-onnx", "m.onnx")):
        assert "2 tensors" in without_torch(line, command, "w.pt", "-o", output, "--architecture", "graph.json")
        model = converter.load(line / output)
        assert model.parameters.read("fc.weight").tolist() == [[0, 2, 4], [1, 3, 5]]
        assert len(model.metadata["source"]["sha256"]) == 64
    without_torch(line, "torch-to-safetensors", "w.pt", "-o", "w.safetensors")
    assert converter.checkpoint.load_parameters(line / "w.safetensors").read("fc.bias").tolist() == [0.5, -0.5]
    assert "fc.weight" in without_torch(line, "inspect", "w.pt", "--parameters")


def test_tar_files_need_torch_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "old.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    monkeypatch.delitem(sys.modules, "adapters.torch.unpickling", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"before 0\.2.*model-converter\[torch\]"):
        load_checkpoint(tmp_path / "old.pt")


# Python objects ------------------------------------------------------------------------------------------------------------


class Settings:
    """A class of the user's."""

    def __init__(self) -> None:
        self.rate = 0.1


class Own(torch.Tensor):
    """A tensor of a class of the user's, which only its own code makes."""


def test_everything_foreign_is_named_at_once(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "a": Settings(), "b": np.float64(3), "c": Path("x"), "d": [print]}, tmp_path / "c.pt")
    with pytest.raises(UnsafePickleError) as caught:
        load_checkpoint(tmp_path / "c.pt")
    for name in ("Settings", "numpy", "pathlib.", "__builtin__.print", "--allow-pickle"):
        assert name in str(caught.value)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


class State:
    """Runs its own code when its state is set, or when it is made."""

    ran = False

    def __setstate__(self, state: Any) -> None:
        State.ran = True

    def __new__(cls) -> Any:
        State.ran = True
        return super().__new__(cls)


@pytest.mark.parametrize("protocol", [2, 4])
def test_no_code_runs_whatever_way_it_is_named(tmp_path: Path, protocol: int) -> None:
    torch.save({"w": torch.ones(1), "x": Touch(tmp_path / "ran"), "y": State()}, tmp_path / "c.pt", pickle_protocol=protocol)
    State.ran = False
    with pytest.raises(UnsafePickleError, match="open"):
        load_checkpoint(tmp_path / "c.pt")
    assert not State.ran
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "c.pt", weights_only=False)["x"].close()
    assert State.ran
    assert (tmp_path / "ran").exists()


def test_objects_that_hide_tensors_are_loaded_under_allow_pickle_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = nn.Linear(3, 2)
    module.weight = nn.Parameter(module.weight.data.as_subclass(Own))
    torch.save(module, "whole.pt")
    torch.save({"model": module, "settings": Settings()}, "run.pt")
    for name in ("whole.pt", "run.pt"):
        refused = CliRunner().invoke(cli, ["torch-to-safetensors", name, "-o", "w.safetensors"])
        assert refused.exit_code == 2
        assert "--allow-pickle" in refused.stderr
        assert "torch.save(model.state_dict()" in refused.stderr
        assert not Path("w.safetensors").exists()
        done = CliRunner().invoke(cli, ["torch-to-safetensors", name, "-o", "w.safetensors", "--allow-pickle", "--quiet"])
        assert done.exit_code == 0, done.output
        assert "runs whatever code" in done.stderr
        assert load_parameters("w.safetensors").read("weight").tobytes() == bits(module.weight)
        Path("w.safetensors").unlink()


def test_allow_pickle_reads_a_plain_checkpoint_as_ever(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "w.pt")
    assert isinstance(load_parameters(tmp_path / "w.pt", allow_pickle=True), CheckpointParameters)
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(FormatError):
        load_parameters(tmp_path / "bad.pt", allow_pickle=True)


def test_a_module_whose_code_is_gone(tmp_path: Path) -> None:
    class Lost(nn.Module):
        pass

    Lost.__module__, Lost.__qualname__ = "gone_package.models", "Lost"
    buffer = io.BytesIO()
    sys.modules["gone_package"] = sys.modules["gone_package.models"] = type(sys)("gone_package.models")
    sys.modules["gone_package.models"].Lost = Lost  # type: ignore[attr-defined]
    try:
        torch.save(Lost(), buffer)
    finally:
        del sys.modules["gone_package"], sys.modules["gone_package.models"]
    (tmp_path / "c.pt").write_bytes(buffer.getvalue())
    with pytest.raises(UnsafePickleError, match=r"gone_package\.models\.Lost"):
        load_parameters(tmp_path / "c.pt")
    with pytest.raises(FormatError, match="cannot be imported"):
        load_parameters(tmp_path / "c.pt", allow_pickle=True)


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
def test_unfit_tensors_matter_only_in_the_state_dict(tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    torch.save({"model": {"w": torch.ones(1)}, "other": {"s": torch.eye(2).to_sparse()}, "n": 3, "q": [quantized]}, tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt").names() == ("w",)
    torch.save({"a": torch.eye(2).to_sparse(), "b": quantized, "c": torch.ones(1)}, tmp_path / "c.pt")
    with pytest.raises(UnsupportedError) as caught:
        load_checkpoint(tmp_path / "c.pt")
    assert {item["operator"] for item in caught.value.items} == {"a", "b"}


# Damage --------------------------------------------------------------------------------------------------------------------


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    torch.save(training_run(), tmp_path / "w.pt")
    content, generator, refused = (tmp_path / "w.pt").read_bytes(), random.Random(1), 0
    for round_ in range(300):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 4)):
            # The pickle comes first, the directory last: where damage matters.
            place = generator.choice([generator.randrange(min(1500, len(damaged))), generator.randrange(len(damaged)),
                                      len(damaged) - 1 - generator.randrange(600)])
            damaged[place] = generator.randrange(256)
        if round_ % 5 == 0:
            del damaged[generator.randrange(len(damaged)):]
        path = tmp_path / "d.pt"
        path.write_bytes(damaged)
        try:
            store = load_parameters(path)
            for name in store:
                store.read(name)
        except ConverterError:
            refused += 1
    assert refused > 150


def test_json_reports_a_refusal(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "x": Settings()}, tmp_path / "c.pt")
    result = CliRunner().invoke(cli, ["torch-to-json", str(tmp_path / "c.pt"), "-o", str(tmp_path / "m.json"), "--json",
                                      "--architecture", str(tmp_path / "c.pt")])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["kind"] == "UnsafePickleError"
