"""Arrays by name in .npz files, and plain files beside a model: every name comes back, and nothing is read without end."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converter.checkpoint import load_parameters
from converter.cli.inputs import read_array, read_recorded
from converter.drafting.document import is_draft
from converter.errors import FormatError
from converter.npz import UNPACKED, read_npz, write_npz
from converter.side_files import is_regular, read_small

NAMES = ("y", "file", "allow_pickle", "args", "kwds", "arr_0", "self", "y.npy", "a/b", "0/inputs/x", "", "é", "x" * 4000, "a..b", " ")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_comes_back(tmp_path: Path, name: str) -> None:
    arrays = {name: np.arange(6, dtype=np.float32).reshape(2, 3), "other": np.array(3, np.int8)}
    with (tmp_path / "o.npz").open("wb") as file:
        write_npz(file, arrays)
    with np.load(tmp_path / "o.npz") as theirs:
        assert theirs.files == [name, "other"]
        assert all(np.array_equal(theirs[key], value) for key, value in arrays.items())
    ours = read_npz(tmp_path / "o.npz")
    assert ours.keys() == arrays.keys()
    assert all(ours[key].dtype == value.dtype and np.array_equal(ours[key], value) for key, value in arrays.items())


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "..", "a\0b", "C:\\x", "C:/x", "\\x", "\ud800", "x" * 70_000, "other.npy"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="name"):
        write_npz(io.BytesIO(), {name: np.ones(2), "other": np.ones(2)})


def test_numpys_own_files_are_read(tmp_path: Path) -> None:
    arrays = {"a": np.asfortranarray(np.arange(12.0).reshape(3, 4)), "b": np.zeros((0, 3), np.int64), "c": np.array("text"),
              "d": np.array(2 + 1j), "e": np.arange(4, dtype=">i2"), "f": np.ones(1 << 20, bool)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
        found = read_npz(tmp_path / "x.npz")
        assert found.keys() == arrays.keys()
        assert all(found[key].dtype == value.dtype and np.array_equal(found[key], value) for key, value in arrays.items())


HEADER = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"


def entry(count: int, nbytes: int) -> bytes:
    header = HEADER % str(count).encode()
    return header + b" " * (127 - len(header)) + b"\n" + bytes(nbytes)


@pytest.mark.parametrize(("content", "message"), [
    (b"hello", "no array"), (b"", "no array"), (entry(4, 8), "longer or shorter"), (entry(1 << 60, 8), "longer or shorter"),
    (entry(2, 12), "longer or shorter"), (b"\x93NUMPY\x09\x00", "damaged"), (entry(2, 8)[:40], "damaged")])
def test_entries_that_are_no_arrays(tmp_path: Path, content: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("x.npy", content)
    with pytest.raises(FormatError, match=message):
        read_npz(tmp_path / "x.npz")


def test_python_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([{}], object))
    with pytest.raises(FormatError, match="Python objects"):
        read_npz(tmp_path / "x.npz")


def test_a_small_file_that_unpacks_to_much(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as out:
        out.write(entry(UNPACKED // 4, 0))
        for _ in range(UNPACKED >> 22):
            out.write(bytes(1 << 22))
    with pytest.raises(FormatError, match="unpack to far more"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("number", ["9" * 5000, "\u0663", "\u00b2", "-1"])
def test_numbers_of_recorded_runs(tmp_path: Path, number: str) -> None:
    with (tmp_path / "r.npz").open("wb") as file:
        write_npz(file, {f"{number}/outputs/y": np.ones(1)})
    with pytest.raises(FormatError, match="no input or output of a recorded run"):
        read_recorded(tmp_path / "r.npz")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to itself"])
def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.npz"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "x.npz")
    assert not is_regular(path)
    assert not is_draft(path)
    for read in (read_npz, read_array, lambda path: read_small(path, 100)):
        with pytest.raises(FormatError):
            read(path)


def test_side_files_have_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    assert read_small(path, path.stat().st_size) == path.read_bytes()
    os.truncate(path, 3 << 30)
    with pytest.raises(FormatError, match="too large"):
        load_parameters(tmp_path)
