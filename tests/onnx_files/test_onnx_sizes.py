"""Sizes of files of other tools: resizes, bounds of sizes, outputs of which there are several."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

import converter
from adapters.onnx.file_session import OnnxFileSession
from adapters.onnx.reading.known import never_negative
from converter.dims import Dim, maximum, minimum, symbol
from tests.onnx_files.test_onnx_reading import ops, read, value, write


def test_a_resize_to_free_sizes_that_leaves_batch_and_channels(tmp_path: Path) -> None:
    """As torch exports `interpolate`: the first two sizes are the input's own."""
    nodes = [helper.make_node("Shape", ["x"], ["s"], start=0, end=2), helper.make_node("Shape", ["y"], ["t"], start=2),
             helper.make_node("Concat", ["s", "t"], ["sizes"], axis=0),
             helper.make_node("Resize", ["x", "", "", "sizes"], ["z"], mode="linear", coordinate_transformation_mode="half_pixel")]
    shapes = [value("x", ["batch", "channels", "h", "w"]), value("y", ["batch", "channels", "high", "wide"])]
    assert ops(read(write(tmp_path / "m.onnx", nodes, shapes, ["z"]))) == ["interpolate"]


@pytest.mark.parametrize(("mode", "factor", "size"), [("tf_half_pixel_for_nn", 2.0, 10), ("half_pixel", 1.8, 9), ("asymmetric", 1.8, 9)])
def test_a_resize_of_a_known_size(tmp_path: Path, mode: str, factor: float, size: int) -> None:
    """Five times the float nearest to 1.8 is 9 where it is multiplied in float32, as ONNX infers shapes and ONNX Runtime runs."""
    nodes = [helper.make_node("Resize", ["x", "roi", "scales"], ["y"], mode="nearest", nearest_mode="floor",
                              coordinate_transformation_mode=mode)]
    scales = np.array([1, 1, factor], np.float32)
    model = read(write(tmp_path / "m.onnx", nodes, [value("x", ["batch", 2, 5])], ["y"], {"scales": scales, "roi": np.zeros(0,
    np.float32)}, opset=12))
    assert model.graph.outputs[0].spec.shape[2] == size


def test_a_sequence_that_is_an_output_is_as_many_outputs(tmp_path: Path) -> None:
    """One of them in the file, of tensors of one shape too, is two of the model and of the file's run."""
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"]), helper.make_node("SequenceConstruct", ["a",
    "b"], ["s"])]
    tensors = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "graph", [value("x", ["n", 3])], [tensors])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    x = np.array([[1, -2, 3]], np.float32)
    found = OnnxFileSession(path).run({"x": x})
    assert {name: array.tolist() for name, array in found.items()} == {"s_0": (-x).tolist(), "s_1": abs(x).tolist()}
    assert converter.verify([converter.load(path), OnnxFileSession(path)], locate=False)


H, W = symbol("h"), symbol("w")
UP = partial(lambda size, by: 0 - by * ((0 - size) // by))
"""The next multiple."""


@pytest.mark.parametrize(("size", "never"), [
    (H, True), (H - 1, False), (H + (4 - H % 4) % 4, True), (UP(H, by=4), True), ((0 - H) // 4, False), (H * W + 3, True), (H * W - 1,
    False),
    (maximum(H - 5, 0), True), (minimum(H, 3), True), (minimum(H - 1, 3), False), (H - H % 4, True), ((H - 3) // 4, False), (3 - H % 4,
    True),
    (2 - H % 4, False), (((0 - H) // 4) * ((0 - W) // 2), True), (2 * W * ((0 - H) // 4), False), (H // W, True), (H * W // (W - 1),
    False)])
def test_whether_a_size_may_be_negative(size: Dim, never: bool) -> None:
    assert never_negative(size) == never


@pytest.mark.parametrize(("body", "weights", "inputs", "requires", "note"), [
    ("a = Reshape(x, s)  y = MatMul(a, w)", "int64[2] s = {1, 8}, float[8, 1] w = {1, 2, 3, 4, 5, 6, 7, 8}", (1, 2, 4), [], "batch is 1"),
    ("a = Reshape(x, s)  y = MatMul(a, w)", "int64[2] s = {2, -1}, float[8, 1] w = {1, 2, 3, 4, 5, 6, 7, 8}", (2, 2, 4), [], "batch is 2"),
    ("y = Add(x, w)", "float[3, 1, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}", (3, 2, 4), [], "batch is 3"),
    ("y = Reshape(x, s)", "int64[2] s = {6, 4}", ("batch", "rows", 4), ["4*batch*rows == 24"], None)])
def test_a_size_that_is_declared_free_and_that_the_nodes_hold_to_a_number(
        body: str, weights: str, inputs: tuple[int | str, ...], requires: list[str], note: str | None, tmp_path: Path) -> None:
    """Exporters freeze the sizes of their example in constants of shapes, and declare them free all the same."""
    rows = "rows" if inputs[1] == "rows" else 2
    onnx.save(onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["": 17]>
        g (float[batch, {rows}, 4] x) => (float y) <{weights}> {{ {body} }}"""), str(tmp_path / "m.onnx"))
    model = converter.load(tmp_path / "m.onnx")
    assert tuple(map(str, model.graph.inputs[0].spec.shape)) == tuple(map(str, inputs))
    assert [str(item) for item in model.graph.requires] == requires
    notes = model.metadata["source"].get("notes", [])
    assert notes == ([] if note is None else [f"sizes that are declared free, and that the nodes hold to a number: {note}"])
    report = converter.verify({"m": model, "as it lies": OnnxFileSession(tmp_path / "m.onnx")})
    assert report, report
