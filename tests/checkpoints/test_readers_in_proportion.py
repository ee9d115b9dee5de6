"""Time and memory of readers grow as a file does, and no size of a file makes an error of another library's."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters.safetensors.read import SafetensorsParameters, load_safetensors
from adapters.safetensors.write import save_safetensors
from adapters.torch_files.unpickle import unpickle
from converter.cli.inspect import describe
from converter.errors import FormatError, UnsupportedError
from converter.format import bind_parameters
from converter.generator import BLOCK, Generator
from converter.ir import TensorSpec
from converter.parameters import InMemoryParameters


def integer(value: int) -> bytes:
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def read(pickle: bytes) -> Any:
    return unpickle(memoryview(pickle), lambda *_: None)[0]


@pytest.mark.parametrize("kind", ["dict", "set"])
@pytest.mark.parametrize("step", [(1 << 61) - 1, 1 << 61, -(1 << 61) + 1])
def test_keys_of_one_hash_are_refused(kind: str, step: int) -> None:
    keys = [integer(number * step) for number in range(20_000)]
    pickle = b"\x80\x04}(" + b"N".join(keys) + b"Nu." if kind == "dict" else b"\x80\x04\x8f(" + b"".join(keys) + b"\x90."
    started = time.process_time()
    with pytest.raises(FormatError, match="no small one"):
        read(pickle)
    assert time.process_time() - started < 2


def test_ids_as_keys_are_read() -> None:
    """As optimizers of PyTorch before 1.0 have them."""
    keys = [140_234_567_890_128 + 72 * number for number in range(1000)]
    assert list(read(b"\x80\x04}(" + b"".join(integer(key) + b"N" for key in keys) + b"u.")) == keys


@pytest.mark.parametrize("code", [b"\x8f", b"}"])
def test_containers_are_counted(code: bytes) -> None:
    with pytest.raises(FormatError, match="dicts, sets, objects"):
        read(b"\x80\x04(" + code * 2_000_001 + b"t.")


def safetensors(path: Path, header: dict[str, Any], data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("shape", [[0, 1 << 61], [1 << 40, 0, 1 << 40], [(1 << 62) - 1, 0]])
def test_sizes_that_no_array_has(tmp_path: Path, shape: list[int]) -> None:
    path = safetensors(tmp_path / "w.safetensors", {"w": {"dtype": "F64", "shape": shape, "data_offsets": [0, 0]}})
    with pytest.raises(FormatError, match="sizes that no array has"):
        load_safetensors(path)


def test_tensors_without_elements_are_read(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "w.safetensors", {"w": {"dtype": "F32", "shape": [1 << 20, 0, 3], "data_offsets": [0, 0]}})
    assert load_safetensors(path).read("w").shape == (1 << 20, 0, 3)


ONE = np.array([1, 2], np.float32)


@pytest.mark.parametrize("store", [InMemoryParameters({"__metadata__": ONE, "w": ONE}), InMemoryParameters({"w": ONE}, {"format": "w"}),
                                   InMemoryParameters({"w": np.ones((1,) * 40, np.float32)}), InMemoryParameters({"\ud800": ONE})])
def test_tensors_that_nobody_could_read_are_not_written(tmp_path: Path, store: InMemoryParameters) -> None:
    with pytest.raises(UnsupportedError, match="cannot be written"):
        save_safetensors(store, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [("pt", "w"), ("format", "pt"), ("pt", "format", "__metadata"), ("", "w")])
def test_words_of_safetensors_as_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    store = InMemoryParameters({name: ONE + index for index, name in enumerate(names)}, {"tied": names[0]})
    save_safetensors(store, tmp_path / "w.safetensors")
    found = load_safetensors(tmp_path / "w.safetensors")
    assert sorted(found.names()) == sorted(store.names())
    for name in found.names():
        assert np.array_equal(found.read(name), store.read(name))
        assert found.alias_of(name) == store.alias_of(name)


@pytest.mark.parametrize("mark", ["neg", "conj"])
def test_marks_that_a_dtype_cannot_have(mark: str) -> None:
    from adapters.torch_files.content import Malformed, Storage, _v2
    from converter.ir import DType

    with pytest.raises(Malformed, match="a mark"):
        _v2(Storage("0", 4, DType.BOOL), 0, (4,), (1,), False, None, {mark: True})


def test_many_tied_names() -> None:
    """Each name takes the first of its group that the store holds: the target, or else the group's first in the graph's order."""
    spec = TensorSpec.of("float32", [2])
    count = 20_000
    specs = {"w": spec, **{f"t{number}": spec for number in range(count)}}
    started = time.process_time()
    bound = bind_parameters(specs, {f"t{number}": "w" for number in range(count)}, InMemoryParameters({"t5": ONE, "t3": ONE}))
    assert time.process_time() - started < 3
    assert np.array_equal(bound.read("w"), ONE)
    assert np.array_equal(bound.read("t19999"), ONE)


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_draws_are_the_same_in_any_blocks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [Generator(7).integers64(count), Generator(7).normal((count,)), Generator(7).uniform((count,))]
    monkeypatch.setattr("converter.generator.BLOCK", 8 * BLOCK)
    again = [Generator(7).integers64(count), Generator(7).normal((count,)), Generator(7).uniform((count,))]
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


def test_old_checkpoints_with_odd_strides_are_read(tmp_path: Path) -> None:
    from converter.checkpoint import load_parameters

    tensors = {"t": torch.arange(12.0).reshape(3, 4).t(), "e": torch.ones(2, 1).expand(2, 5), "n": torch.zeros(0, 3),
               "c": torch.arange(3).to(torch.complex64).conj()}
    torch.save(tensors, tmp_path / "w.pt")
    found = load_parameters(tmp_path / "w.pt")
    for name, tensor in tensors.items():
        assert np.array_equal(found.read(name), tensor.resolve_conj().numpy())


def test_names_of_classes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.torch_files.unpickle.MAX_CONTAINERS", 1000)
    assert len(read(b"\x80\x02(" + b"ccollections\nOrderedDict\n" * 1000 + b"t.")) == 1000
    with pytest.raises(FormatError, match="names of classes"):
        read(b"\x80\x02(" + b"ccollections\nOrderedDict\n" * 1001 + b"t.")


@pytest.mark.parametrize("pickle", [b"\x80\x02(N.", b"\x80\x02}.", b"\x80\x02cos\nsystem\n)R."])
def test_a_file_that_is_refused_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickle: bytes) -> None:
    """By `inspect` too, which asks whether it is recognised before it tells what is in it."""
    path, times = tmp_path / "w.pkl", []

    def counted(*args: Any, **kwargs: Any) -> Any:
        times.append(args)
        return unpickle(*args, **kwargs)

    path.write_bytes(pickle)
    monkeypatch.setattr("adapters.torch_files.read.unpickle", counted)
    with pytest.raises(FormatError) as told:
        describe(str(path))
    assert len(times) == 1
    assert str(told.value).count("w.pkl") == 1


def test_inspect_reads_a_tensor_of_many_names_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, times = {f"{number}.weight": "w" for number in range(50)}, []
    path = safetensors(tmp_path / "w.safetensors", {"__metadata__": names, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
                       bytes(8))
    own = SafetensorsParameters.read

    def counted(store: SafetensorsParameters, name: str) -> Any:
        times.append(name)
        return own(store, name)

    monkeypatch.setattr(SafetensorsParameters, "read", counted)
    assert describe(str(path))["parameters"]["tensors"] == 1
    assert times == ["w"]
