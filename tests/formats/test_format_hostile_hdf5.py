"""HDF5 files that are no models: links, external and virtual data, wrong datasets, heaps without an end."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter.errors import FormatError
from converter.format import load_json, save_hdf5, save_json
from converter.format.atomic import values_beside
from tests.format_models import classifier, read_all


def weight(file: Any) -> Any:
    return file["parameters"]


def replaced(make: Callable[[Any, Path], None]) -> Callable[[Any, Path], None]:
    def change(file: Any, path: Path) -> None:
        del file["parameters/layer.weight"]
        make(file, path)

    return change


def external_link(file: Any, path: Path) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["w"] = np.zeros((4, 3), np.float32)
    file["parameters/layer.weight"] = h5py.ExternalLink("other.h5", "/w")


def external_storage(file: Any, path: Path) -> None:
    path.with_name("raw.bin").write_bytes(bytes(48))
    file["parameters"].create_dataset("layer.weight", (4, 3), "f4", external=[(str(path.with_name("raw.bin")), 0, 48)])


def virtual(file: Any, path: Path) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(path.with_name("other.h5"), "w", (4, 3), "f4")
    file["parameters"].create_virtual_dataset("layer.weight", layout)


def soft_link(file: Any, path: Path) -> None:
    file["parameters/layer.weight"] = h5py.SoftLink("/parameters/square")


def dataset(*args: Any, **options: Any) -> Callable[[Any, Path], None]:
    return replaced(lambda file, path: file["parameters"].create_dataset("layer.weight", *args, **options) and None)


def no_document(file: Any, path: Path) -> None:
    del file["document"]


def linked_document(file: Any, path: Path) -> None:
    file.move("document", "parameters/text")
    file["document"] = h5py.SoftLink("/parameters/text")


HDF5_REFUSED: dict[str, tuple[Callable[[Any, Path], Any], str]] = {
    "external link": (replaced(external_link), "link to elsewhere"),
    "soft link": (replaced(soft_link), "link to elsewhere"),
    "external storage": (replaced(external_storage), "external files"),
    "virtual": (replaced(virtual), "virtual dataset"),
    "group": (replaced(lambda file, path: file.create_group("parameters/layer.weight") and None), "another kind"),
    "missing": (replaced(lambda file, path: None), "no 'layer.weight'"),
    "compressed": (dataset(data=np.zeros((4, 3), np.float32), compression="gzip"), "filters"),
    "compression bomb": (dataset((2**20, 2**20), "f4", compression="gzip", chunks=(1024, 1024)), "filters"),
    "chunked": (dataset(data=np.zeros((4, 3), np.float32), chunks=(1, 3)), "chunks"),
    "never written": (dataset((4, 3), "f4"), "without its data"),
    "shape bomb": (dataset((2**30, 2**20), "f4"), "another shape"),
    "other shape": (dataset(data=np.zeros((3, 4), np.float32)), "another shape"),
    "other dtype": (dataset(data=np.zeros((4, 3), np.float64)), "another dtype"),
    "big endian": (dataset(data=np.zeros((4, 3), ">f4")), "another dtype"),
    "text": (dataset(data=b"abc"), "another dtype"),
    "extra dataset": (lambda file, path: file["parameters"].create_dataset("more", data=[1]), "does not name"),
    "extra object": (lambda file, path: file.create_group("more"), "does not know"),
    "no document": (no_document, "not a neutral model"),
    "linked document": (linked_document, "link to elsewhere"),
    "no parameters": (lambda file, path: file.move("parameters", "p"), "does not know"),
}


@pytest.mark.parametrize("case", HDF5_REFUSED)
def test_hdf5_refused(tmp_path: Path, case: str) -> None:
    change, message = HDF5_REFUSED[case]
    path = tmp_path / "model.h5"
    save_hdf5(classifier(), path)
    with h5py.File(path, "r+") as file:
        change(file, path)
    with pytest.raises(FormatError, match=message) as caught:
        read_all(path)
    assert "model.h5" in str(caught.value)


@pytest.mark.parametrize("group", ["/", "parameters"])
def test_a_heap_without_an_end(tmp_path: Path, group: str) -> None:
    """A group's list of free space that leads into itself, which the HDF5 library follows until memory ends."""
    path = tmp_path / "model.h5"
    save_hdf5(classifier(), path)
    content = bytearray(path.read_bytes())
    heaps = [place for place in range(0, len(content), 8) if content[place:place + 4] == b"HEAP"]
    assert len(heaps) == 2
    heap = heaps[group != "/"]
    first, data = struct.unpack_from("<QQ", content, heap + 16)
    struct.pack_into("<Q", content, data + first, first)
    path.write_bytes(content)
    with pytest.raises(FormatError, match="list without an end"):
        read_all(path)


def test_values_in_a_file_keep_the_same_rules(tmp_path: Path) -> None:
    model = classifier()
    path = tmp_path / "m.json"
    save_json(model, path, encoding="file")
    weights, = values_beside(path)
    with h5py.File(weights, "r+") as file:
        del file["parameters/layer.weight"]
        file["parameters/layer.weight"] = h5py.SoftLink("/parameters/square")
    with pytest.raises(FormatError, match="link to elsewhere"):
        load_json(path)
    outside = tmp_path / "outside"
    outside.mkdir()
    os.replace(weights, outside / "w.h5")
    weights.symlink_to(outside / "w.h5")
    with pytest.raises(FormatError, match="leads out of the directory"):
        load_json(path)
    weights.unlink()
    weights.write_bytes(b"nothing")
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        load_json(path)
    with path.open("rb") as stream, pytest.raises(FormatError, match="is no file itself"):
        load_json(stream)
