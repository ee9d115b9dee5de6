"""Our own ONNX files after somebody stripped their metadata: the model comes back with its digest, or what is gone is said."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import converter
from adapters.onnx.origin import COPY, DOCUMENT
from converter.errors import FormatError

FIXTURES = sorted(path.parent for path in (Path(__file__).parents[2] / "fixtures").glob("*/model.json"))


def strip(proto: onnx.ModelProto, *, empty: bool) -> None:
    """What tools do that make a file small or anonymous: texts and metadata of the model and of all in it, cleared or made empty."""
    waiting: list[Any] = [proto]
    while waiting:
        message = waiting.pop()
        fields = {field.name: field for field in message.DESCRIPTOR.fields}
        if "metadata_props" in fields:
            message.ClearField("metadata_props")
        if "doc_string" in fields:
            message.ClearField("doc_string")
            if empty:
                message.doc_string = ""
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += value if field.is_repeated else [value]


def written(tmp_path: Path, folder: Path, **options: Any) -> Path:
    converter.save(converter.load(folder / "model.json"), tmp_path / "m.onnx", **options)
    return tmp_path / "m.onnx"


@pytest.mark.parametrize("empty", [False, True], ids=["cleared", "empty"])
@pytest.mark.parametrize("folder", FIXTURES, ids=[path.name for path in FIXTURES])
def test_the_digest_is_kept(tmp_path: Path, folder: Path, empty: bool) -> None:
    file = written(tmp_path, folder)
    proto = onnx.load(file)
    strip(proto, empty=empty)
    assert DOCUMENT not in {item.key for item in proto.metadata_props}
    onnx.save(proto, file)
    onnx.checker.check_model(str(file))
    model = converter.load(folder / "model.json")
    found = converter.load(file)
    assert converter.model_digest(found) == converter.model_digest(model)
    assert len(found.examples) == len(converter.load(written(tmp_path, folder)).examples)


def test_values_beside_the_file(tmp_path: Path) -> None:
    from adapters.onnx.export import save_onnx

    model = converter.load(FIXTURES[0] / "model.json")
    save_onnx(model, tmp_path / "m.onnx", external=True)
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    strip(proto, empty=False)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    assert converter.model_digest(converter.load(tmp_path / "m.onnx")) == converter.model_digest(model)


def test_a_graph_that_was_changed_too_is_read_as_what_it_is_and_says_so(tmp_path: Path) -> None:
    file = written(tmp_path, next(path for path in FIXTURES if path.name == "mlp_digits"))
    proto = onnx.load(file)
    strip(proto, empty=False)
    proto.graph.node[-1].name = "another"
    onnx.save(proto, file)
    found = converter.load(file)
    assert any("what it said of its model is gone" in note for note in found.metadata["source"]["notes"])
    del proto.training_info[:]
    onnx.save(proto, file)
    assert [node.op for node in converter.load(file).graph.nodes] == [node.op for node in found.graph.nodes]


@pytest.mark.parametrize("packed", [b"", b"no zlib", zlib.compress(b"no json"), zlib.compress(b"[]"), zlib.compress(b'{"a": 1}'),
                                    zlib.compress(b"{}") + b"more", zlib.compress(json.dumps({DOCUMENT: "another"}).encode())])
def test_a_copy_that_is_damaged_or_says_something_else_is_refused(tmp_path: Path, packed: bytes) -> None:
    file = written(tmp_path, FIXTURES[0])
    proto = onnx.load(file)
    (copy,) = (item.initialization.initializer[0] for item in proto.training_info if item.initialization.name == COPY)
    copy.raw_data = packed
    onnx.save(proto, file)
    with pytest.raises(FormatError):
        converter.load(file)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.onnx.origin.COPIED", 1 << 16)
    file = written(tmp_path, FIXTURES[0])
    proto = onnx.load(file)
    strip(proto, empty=False)
    (copy,) = (item.initialization.initializer[0] for item in proto.training_info if item.initialization.name == COPY)
    copy.raw_data = zlib.compress(b'"' + b"x" * (1 << 24) + b'"')
    onnx.save(proto, file)
    with pytest.raises(FormatError, match="damaged"):
        converter.load(file)


@pytest.mark.parametrize("folder", FIXTURES, ids=[path.name for path in FIXTURES])
def test_without_the_copy_it_is_read_as_anybody_s_and_computes_the_same(tmp_path: Path, folder: Path) -> None:
    model = converter.load(folder / "model.json")
    file = written(tmp_path, folder)
    proto = onnx.load(file)
    strip(proto, empty=False)
    del proto.training_info[:]
    onnx.save(proto, file)
    found = converter.load(file)
    assert any("what it said of its model is gone" in note for note in found.metadata["source"]["notes"])
    inputs = model.examples[0].inputs
    ours, theirs = (converter.session(item).run(inputs) for item in (model, found))
    for name, array in ours.items():
        assert theirs[name].shape == array.shape
        np.testing.assert_allclose(theirs[name], array, rtol=1e-4, atol=1e-5)


def test_a_number_that_is_not_finite_has_no_axes(tmp_path: Path) -> None:
    """It is no number of the graph but a tensor, of the shape that it has in the file."""
    nodes = [onnx.helper.make_node("Constant", [], ["least"], value=onnx.numpy_helper.from_array(np.array(-np.inf, np.float32))),
             onnx.helper.make_node("Max", ["x", "least"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", [onnx.helper.make_tensor_value_info("x", 1, [])],
                                   [onnx.helper.make_tensor_value_info("y", 1, [])])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), tmp_path / "a.onnx")
    model = converter.load(tmp_path / "a.onnx")
    assert [model.parameters.spec(name).shape for name in model.parameters] in ([], [()])
    assert converter.session(model).run({"x": np.array(2, np.float32)})["y"].shape == ()
