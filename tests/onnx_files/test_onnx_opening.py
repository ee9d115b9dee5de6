"""Files whose weights stay where they lie until somebody reads them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import converter
from adapters.onnx.load import find_origin
from adapters.onnx.opening import LARGE, OWN, open_proto, put_back
from converter.errors import FormatError
from tests.onnx_files.test_onnx_reading import value

SIDE = 256
WEIGHT = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(np.float32)


def model(weight: onnx.TensorProto | None = None) -> onnx.ModelProto:
    """Two layers and a function, with a large weight and a small one."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Twice", ["h"], ["d"], domain="mine"),
             helper.make_node("Add", ["d", "b"], ["y"])]
    function = helper.make_function("mine", "Twice", ["a"], ["c"], [helper.make_node("Add", ["a", "a"], ["c"])],
                                    [helper.make_opsetid("", 17)])
    weights = [weight or numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(WEIGHT[0], "b")]
    graph = helper.make_graph(nodes, "graph", [value("x", ["n", SIDE])], [value("y", ["n", SIDE])], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)


def saved(folder: Path, data: bytes) -> Path:
    (folder / "m.onnx").write_bytes(data)
    return folder / "m.onnx"


def test_large_values_stay_in_the_file_and_can_be_put_back(tmp_path: Path) -> None:
    data = model().SerializeToString()
    proto, file = open_proto(saved(tmp_path, data))
    large, small = proto.graph.initializer
    assert {entry.key: entry.value for entry in large.external_data}["location"] == OWN
    assert not large.HasField("raw_data")
    assert small.HasField("raw_data")
    assert len(data) - proto.ByteSize() > WEIGHT.nbytes - 300
    put_back(large, file)
    assert proto.SerializeToString(deterministic=True) == model().SerializeToString(deterministic=True)


def as_numbers(tensor: onnx.TensorProto) -> None:
    tensor.float_data.extend(WEIGHT.reshape(-1).tolist())
    tensor.ClearField("raw_data")


def twice(data: bytes) -> bytes:
    """A second graph is more of the first one: the second's nodes are added to it, as are its initializers."""
    more = onnx.ModelProto()
    more.graph.doc_string = "more of it"
    return data + more.SerializeToString()


@pytest.mark.parametrize("change", [as_numbers, lambda tensor: tensor.ClearField("name") or setattr(tensor, "name", "w")])
def test_values_are_read_however_they_are_written(tmp_path: Path, change: Callable[[onnx.TensorProto], None]) -> None:
    tensor = numpy_helper.from_array(WEIGHT, "w")
    change(tensor)
    for data in (model(tensor).SerializeToString(), twice(model(tensor).SerializeToString())):
        read = converter.load(saved(tmp_path, data))
        (name,) = [name for name in read.parameters.names() if read.parameters.spec(name).rank == 2]
        np.testing.assert_array_equal(read.parameters.read(name).T, WEIGHT)


def test_a_file_behind_a_link_holds_its_own_values(tmp_path: Path) -> None:
    """Caches keep files elsewhere under other names; values beside a file may not lie behind a link."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "blob").write_bytes(model().SerializeToString())
    (tmp_path / "m.onnx").symlink_to("kept/blob")
    found = converter.load(tmp_path / "m.onnx")
    x = np.ones((2, SIDE), np.float32)
    np.testing.assert_allclose(converter.session(found).run({"x": x})["y"], 2 * (x @ WEIGHT) + WEIGHT[0], atol=1e-3)


def test_a_file_that_is_replaced_stays_what_it_was_and_one_that_is_written_over_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, model().SerializeToString())
    first = converter.load(path)
    (tmp_path / "new").write_bytes(bytes(10))
    (tmp_path / "new").replace(path)
    assert {first.parameters.read(name).size for name in first.parameters.names()} == {SIDE, SIDE * SIDE}
    second = converter.load(saved(tmp_path, model().SerializeToString()))
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(FormatError, match="changed while it was in use"):
        [second.parameters.read(name) for name in second.parameters.names()]


@pytest.mark.parametrize("cut", [5, LARGE, SIDE * SIDE * 4, -1, -40])
def test_a_file_that_was_cut_is_damaged(tmp_path: Path, cut: int) -> None:
    with pytest.raises(FormatError, match="damaged"):
        converter.load(saved(tmp_path, model().SerializeToString()[:cut]))


def test_a_file_that_names_the_place_of_its_own_values_is_not_believed(tmp_path: Path) -> None:
    """The place is one that no file can know; the empty one is no file's name."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[SIDE, SIDE], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="")
    with pytest.raises(FormatError):
        converter.load(saved(tmp_path, model(tensor).SerializeToString()))


def test_what_was_written_here_is_known_with_large_constants(tmp_path: Path) -> None:
    """The fingerprint of its graph counts constants, which lie in the file too."""
    converter.save(converter.load(saved(tmp_path, model().SerializeToString())), tmp_path / "ours.onnx")
    assert find_origin(*open_proto(tmp_path / "ours.onnx")) is not None
    proto, file = open_proto(tmp_path / "ours.onnx")
    proto.graph.initializer.append(numpy_helper.from_array(WEIGHT, "more"))
    with pytest.raises(FormatError, match="not the one that was written"):
        find_origin(proto, file)


def test_a_file_is_read_in_less_memory_than_its_weights_take(tmp_path: Path) -> None:
    weights = np.zeros((1024, 2048), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    held = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(weights.T.copy(), "v")]
    graph = helper.make_graph(nodes, "graph", [value("x", ["n", 1024])], [value("y", ["n", 1024])], held)
    path = saved(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())
    converter.load(path)
    tracemalloc.start()
    try:
        open_proto(path)
        converter.load(path)
        assert tracemalloc.get_traced_memory()[1] < weights.nbytes / 4
    finally:
        tracemalloc.stop()
