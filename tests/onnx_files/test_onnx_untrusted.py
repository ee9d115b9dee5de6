"""ONNX files that claim to be of this converter: values outside of the folder, initializers twice, layouts that do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from adapters.onnx.export import save_onnx
from adapters.onnx.load import load_onnx
from adapters.onnx.origin import LAYOUTS
from converter.errors import ConverterError, FormatError
from converter.format.atomic import values_beside
from converter.loading import load

FIXTURES = Path(__file__).parents[2] / "fixtures"
ELMAN = FIXTURES / "elman" / "model.json"


def read(path: Path) -> None:
    model = load_onnx(path, verify=False)
    for name in model.parameters.names():
        model.parameters.read(name)


@pytest.mark.parametrize("kind", ["link", "folder", "link within"])
def test_values_beside_the_file(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save_onnx(load(FIXTURES / "mlp_digits" / "model.json"), folder / "m.onnx", external=True)
    data, = values_beside(folder / "m.onnx")
    if kind == "link within":
        os.replace(data, folder / "values")
        data.symlink_to("values")
        return read(folder / "m.onnx")
    os.replace(data, tmp_path / "secret")
    if kind == "link":
        data.symlink_to("../secret")
    else:
        data.mkdir()
    with pytest.raises(FormatError, match="leads out of the directory" if kind == "link" else "is missing"):
        read(folder / "m.onnx")
    return None


def changed(path: Path, change: Callable[[onnx.ModelProto], Any]) -> Path:
    save_onnx(load(ELMAN), path)
    proto = onnx.load_model(str(path))
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def test_an_initializer_twice(tmp_path: Path) -> None:
    def twice(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.full(2, 9, np.float32), proto.graph.initializer[0].name))

    with pytest.raises(FormatError, match="is there twice"):
        read(changed(tmp_path / "m.onnx", twice))


LAYOUT = {
    "a source that is a dict": {"sources": [{}]}, "a source that is a list": {"sources": [["w"]]}, "no source": {"sources": []},
    "an axis of 2^70": {"layout": [["stack", 2**70]]}, "an axis of 2^40": {"layout": [["blocks", 2**40, [0, 1]]]},
    "many steps": {"layout": [["transpose", [0]]] * 1000}, "a step without an argument": {"layout": [["stack"]]},
}


@pytest.mark.parametrize("name", [*LAYOUT, "one source often"])
def test_layouts(tmp_path: Path, name: str) -> None:
    def change(proto: onnx.ModelProto) -> None:
        note = next(entry for entry in proto.metadata_props if entry.key == LAYOUTS)
        value = json.loads(note.value)
        item = next(iter(value.values()))
        item.update(LAYOUT.get(name) or {"sources": item["sources"] * 4000, "layout": [["concat", 0]]})
        note.value = json.dumps(value)

    with pytest.raises(ConverterError, match=r"layout|lacks parameters|not the one that was written"):
        read(changed(tmp_path / "m.onnx", change))
