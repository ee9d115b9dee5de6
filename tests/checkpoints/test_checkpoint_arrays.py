"""State_dicts of NumPy arrays: in files that torch.save wrote, in plain pickles, and in .npz files."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from converter.checkpoint import load_parameters
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, UnsafePickleError, UnsupportedError

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
ARRAYS: dict[str, Any] = {
    "weight": WEIGHT, "tied": WEIGHT, "fortran": np.asfortranarray(WEIGHT * 2), "big": np.arange(4, dtype=">i4"), "scalar": np.array(3.5),
    "flags": np.array([True, False]), "empty": np.zeros((0, 3)), "complex": np.arange(3) * 1j, "half": np.float16([1, 2]),
    "strided": np.arange(10)[::3], "ids": np.arange(3, dtype=np.uint16),
}

WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    **{f"torch {number}": lambda content, path, number=number: torch.save(content, path, pickle_protocol=number)  # type: ignore[misc]
       for number in (2, 3, 4, 5)},
    "torch, old": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    **{f"pickle {number}": lambda content, path, number=number: path.write_bytes(pickle.dumps(content, number))  # type: ignore[misc]
       for number in (2, 3, 4, 5)},
}


def held(path: Path, expected: dict[str, Any], key: str | None = None) -> Any:
    store = load_parameters(path, key)
    assert list(store.names()) == list(expected)
    for name, values in expected.items():
        got = store.read(name)
        assert got.dtype == values.dtype.newbyteorder("<")
        assert got.dtype.byteorder != ">"
        assert got.shape == values.shape
        np.testing.assert_array_equal(got, values)
        assert not got.flags.writeable
    return store


@pytest.mark.parametrize("writer", list(WRITERS))
def test_arrays_are_parameters(writer: str, tmp_path: Path) -> None:
    WRITERS[writer](ARRAYS, tmp_path / "w")
    store = held(tmp_path / "w", ARRAYS)
    assert store.alias_of("tied") == "weight"
    WRITERS[writer]({"model": ARRAYS, "epoch": 3, "losses": {"train": np.ones(4)}}, tmp_path / "nested")
    assert held(tmp_path / "nested", ARRAYS).key == "model"


def test_arrays_of_an_npz_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **ARRAYS)
    held(tmp_path / "w.npz", ARRAYS)
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "w.npz")])
    assert shown.exit_code == 0
    assert "11 tensors" in shown.output


def test_an_array_of_python_2(tmp_path: Path) -> None:
    data = b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x02t" \
           b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" \
           + struct.pack("<2f", 1.5, -200) + b"tbs."
    (tmp_path / "w.pkl").write_bytes(data)
    held(tmp_path / "w.pkl", {"w": np.float32([1.5, -200])})


def test_arrays_among_tensors_and_beside_them(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": torch.ones(3), "c": WEIGHT}, tmp_path / "mixed.pt")
    held(tmp_path / "mixed.pt", {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32), "c": WEIGHT})
    torch.save({"encoder": {"a": torch.ones(2)}, "statistics": {"mean": WEIGHT}, "random": np.random.get_state()}, tmp_path / "beside.pt")
    assert held(tmp_path / "beside.pt", {"a": np.ones(2, np.float32)}).key == "encoder"
    torch.save({"thing": torch.nn.Linear(2, 1), "statistics": {"mean": WEIGHT}}, tmp_path / "module.pt")
    assert load_parameters(tmp_path / "module.pt").names() == ("weight", "bias")


def test_arrays_under_an_unusual_name_are_taken_where_they_are_named(tmp_path: Path) -> None:
    torch.save({"losses": {"train": np.ones(4)}, "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(FormatError, match="NumPy arrays") as caught:
        load_parameters(tmp_path / "w.pt")
    assert "--key losses" in (caught.value.fix or "")
    held(tmp_path / "w.pt", {"train": np.ones(4)}, "losses")


@pytest.mark.parametrize("writer", ["torch 2", "pickle 4", "npz"])
@pytest.mark.parametrize("values", [np.array(["text"]), np.ones(2, ml_dtypes.bfloat16), np.zeros(2, "i4,f4"), np.array([{}])])
def test_arrays_of_no_numbers_are_refused(values: Any, writer: str, tmp_path: Path) -> None:
    content = {"weight": WEIGHT, "odd": values}
    np.savez(tmp_path / "w.npz", **content) if writer == "npz" else WRITERS[writer](content, tmp_path / "w.npz")
    with pytest.raises(ConverterError, match=r"NumPy array|Python objects|cannot read the arrays") as caught:
        load_parameters(tmp_path / "w.npz")
    assert isinstance(caught.value, UnsupportedError) is (writer != "npz" or not values.dtype.hasobject)


class Own(np.ndarray[Any, Any]):
    """An array of a class of its own, which may mean something else by its elements."""


def test_subclasses_of_arrays_are_objects(tmp_path: Path) -> None:
    for values in (np.ma.masked_array([1.0, 2.0], [True, False]), WEIGHT.view(Own)):
        torch.save({"weight": WEIGHT, "odd": values}, tmp_path / "w.pt")
        with pytest.raises(UnsafePickleError, match="Python objects"):
            load_parameters(tmp_path / "w.pt")


@pytest.mark.parametrize(("old", "new"), [
    (b"K\x02K\x03\x86", b"K\x02K\x04\x86"),  # more elements than bytes
    (b"f4", b"f8"),
    (b"K\x02K\x03\x86", b"K\x02J\xff\xff\xff\xff\x86"),
    (b"f4", b"zz"),
])
def test_a_damaged_array_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    data = pickle.dumps({"weight": WEIGHT}, 3)
    assert data.count(old) == 1
    (tmp_path / "w.pkl").write_bytes(data.replace(old, new))
    with pytest.raises(ConverterError, match=r"damaged|cannot be carried"):
        load_parameters(tmp_path / "w.pkl")


def test_arrays_that_share_their_bytes_are_bounded(tmp_path: Path) -> None:
    data = bytes(1 << 20)
    head = b"\x80\x03}(B" + struct.pack("<I", len(data)) + data + b"q\x000"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01(J\x00\x00\x02\x00t" \
            b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR(K\x03X\x01\x00\x00\x00>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89h\x00tb"
    named = [b"X\x04\x00\x00\x00" + f"{number:04d}".encode() + array for number in range(400)]
    (tmp_path / "few.pkl").write_bytes(head + b"".join(named[:3]) + b"u.")
    assert load_parameters(tmp_path / "few.pkl").spec("0002").shape == (1 << 17,)
    (tmp_path / "many.pkl").write_bytes(head + b"".join(named) + b"u.")
    with pytest.raises(FormatError, match="a Python pickle") as caught:
        load_parameters(tmp_path / "many.pkl")
    assert "419430400 bytes" in str(caught.value)


def test_a_pickle_too_large_and_a_key_of_an_npz_file_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "w.pkl").open("wb") as file:
        file.write(pickle.dumps(ARRAYS))
        file.truncate((1 << 30) + 1)
    with pytest.raises(FormatError, match="too large") as caught:
        load_parameters(tmp_path / "w.pkl")
    assert "safetensors" in (caught.value.fix or "")
    np.savez(tmp_path / "w.npz", **ARRAYS)
    with pytest.raises(FormatError, match="without entries"):
        load_parameters(tmp_path / "w.npz", "model")


def test_a_pickle_of_other_things_is_told_how_to_go_on(tmp_path: Path) -> None:
    for number, content in enumerate(({"w": 1}, [WEIGHT], torch.nn.Linear(2, 2).state_dict(), Path("x"))):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(FormatError, match="a Python pickle that torch") as caught:
            load_parameters(path, None, allow_pickle=True)
        assert "torch.save" in (caught.value.fix or "")


def test_a_converted_model_of_arrays(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3))
    torch.save({name: values.numpy() for name, values in module.state_dict().items()}, tmp_path / "w.pt")
    np.savez(tmp_path / "w.npz", **{name: values.numpy() for name, values in module.state_dict().items()})
    for name in ("w.pt", "w.npz"):
        done = CliRunner().invoke(cli, ["torch-to-safetensors", str(tmp_path / name), "-o", str(tmp_path / "w.safetensors")])
        assert done.exit_code == 0, done.output
        held(tmp_path / "w.safetensors", {name: values.numpy() for name, values in module.state_dict().items()})
