"""The safetensors adapter against the safetensors library, and everything that the header must not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file, save_model

from adapters.safetensors.read import load_safetensors
from adapters.safetensors.write import save_safetensors
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.ir import DType
from converter.parameters import InMemoryParameters
from tests.checkpoints.test_checkpoint import DTYPES, bits

TENSORS = {str(dtype): torch.arange(15).reshape(3, 5).to(dtype) for dtype in DTYPES if dtype is not torch.complex128}


def test_the_library_reads_what_is_written_here(tmp_path: Path) -> None:
    arrays = {str(dtype): np.arange(15).reshape(3, 5).astype(dtype.numpy) for dtype in DType
              if dtype is not DType.COMPLEX128 and dtype.bits >= 8}
    arrays |= {"scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 4), np.float16), "odd": np.array([True, False, True])}
    save_safetensors(InMemoryParameters(arrays), tmp_path / "w.safetensors")
    found = load_file(tmp_path / "w.safetensors")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert tuple(found[name].shape) == array.shape
        assert bits(found[name]) == array.tobytes()
    store = load_safetensors(tmp_path / "w.safetensors")
    assert store.names() == tuple(arrays)
    assert store.spec("bfloat16").dtype is DType.BFLOAT16
    assert store.read("bfloat16").dtype == ml_dtypes.bfloat16


def test_what_the_library_writes_is_read_here(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors", metadata={"note": "hello"})
    store = load_safetensors(tmp_path / "w.safetensors")
    for name, tensor in TENSORS.items():
        assert store.read(name).tobytes() == bits(tensor)
        assert store.spec(name).shape == (3, 5)
        assert not store.read(name).flags.writeable
    assert set(store.names()) == set(TENSORS)


def test_tied_weights_of_save_model_come_back_tied(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    module[1].weight = module[0].weight
    save_model(module, str(tmp_path / "w.safetensors"))
    store = load_safetensors(tmp_path / "w.safetensors")
    assert set(store.names()) == set(module.state_dict())
    assert store.alias_of("1.weight") == "0.weight"
    np.testing.assert_array_equal(store.read("1.weight"), module[0].weight.detach().numpy())


def test_an_unaligned_tensor_is_read(tmp_path: Path) -> None:
    header = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "b": {"dtype": "F64", "shape": [1], "data_offsets": [1, 9]}}
    path = write(tmp_path, header, b"\x07" + np.array([2.5]).tobytes())
    assert load_safetensors(path).read("b").tolist() == [2.5]


def test_a_dtype_that_safetensors_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no complex128") as caught:
        save_safetensors(InMemoryParameters({"a": np.zeros(1, np.complex128), "b": np.zeros(1, np.complex128)}), tmp_path / "w.safetensors")
    assert len(caught.value.items) == 2
    assert list(tmp_path.iterdir()) == []


def write(folder: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "w.safetensors"
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4), **more: Any) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}


@pytest.mark.parametrize(("header", "data", "part"), [
    (entry(), b"", "length is not what its header says"),
    (entry(), bytes(5), "length is not what its header says"),
    (entry(shape=(2,)), bytes(4), "does not fit the shape"),
    (entry(shape=(1 << 40, 1 << 40)), bytes(4), "does not fit the shape"),
    (entry(shape=(-1,)), bytes(4), "no list of sizes"),
    (entry(shape=(True,)), bytes(4), "no list of sizes"),
    (entry(shape=(1.0,)), bytes(4), "no list of sizes"),
    (entry(shape="1"), bytes(4), "no list of sizes"),
    (entry(shape=(1,) * 33), bytes(4), "too many sizes"),
    (entry(offsets=(4, 0)), bytes(4), "does not fit the shape"),
    (entry(offsets=(4, 8)), bytes(8), "overlap or leave a gap"),
    (entry(offsets=(0, 4, 8)), bytes(8), "too many sizes"),
    (entry(offsets=(0, 1 << 70)), bytes(4), "no list of sizes"),
    (entry(dtype="F4"), bytes(4), "cannot be carried"),
    (entry(dtype=[]), bytes(4), "cannot be carried"),
    (entry(more=1), bytes(4), "not a tensor's entry"),
    ({"w": []}, b"", "not a tensor's entry"),
    ({"a": entry()["w"], "b": entry()["w"]}, bytes(4), "overlap or leave a gap"),
    ({"__metadata__": {"a": 1}}, b"", "no object of strings"),
    (b"[]", b"", "no JSON object"),
    (b"{", b"", "is not JSON"),
    (b'{"a": {}, "a": {}}', b"", "'a' twice"),
    (b'{"\xff": 1}', b"", "is not JSON"),
    (b"{" + b'"a":{' * 200_000, b"", "is not JSON"),
])
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any, data: bytes, part: str) -> None:
    path = write(tmp_path, header, data)
    with pytest.raises(ConverterError, match=part) as caught:
        load_safetensors(path)
    assert str(path) in str(caught.value)


def test_a_bool_must_be_0_or_1(tmp_path: Path) -> None:
    store = load_safetensors(write(tmp_path, entry("BOOL", [2], [0, 2]), b"\1\2"))
    with pytest.raises(ConverterError, match="neither 0 nor 1"):
        store.read("w")


@pytest.mark.parametrize("length", [1 << 63, 1000, (1 << 64) - 1])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(FormatError, match="past its end"):
        load_safetensors(write(tmp_path, b"{}", length=length))


def test_an_empty_checkpoint(tmp_path: Path) -> None:
    assert load_safetensors(write(tmp_path, {})).names() == ()


@pytest.mark.parametrize("header", [
    '{"\\ud800": %s}', '{"w": %s, "__metadata__": {"\\udfff": "w"}}', '{"w": %s, "__metadata__": {"v": "\\udfff"}}'])
def test_half_of_a_surrogate_pair_is_no_name_that_other_formats_can_hold(tmp_path: Path, header: str) -> None:
    text = (header % '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}').encode()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(FormatError, match="half of a surrogate pair"):
        load_safetensors(tmp_path / "w.safetensors")
