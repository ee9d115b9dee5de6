"""Boxes, regions and moved taps of ONNX files, against ONNX Runtime's run of the file at sizes that the file leaves free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import converter
from adapters.onnx.file_session import OnnxFileSession

Shape = list[int | str]


def agree(path: Path, node: onnx.NodeProto, inputs: dict[str, tuple[Any, Shape]], constants: dict[str, Any], opset: int = 19) -> None:
    """The node's outputs in every runtime are those of ONNX Runtime's own run."""
    given = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)
             for name, (array, shape) in inputs.items()]
    held = [numpy_helper.from_array(np.asarray(item), name) for name, item in constants.items()]
    graph = helper.make_graph([node], "g", given, [helper.make_empty_tensor_value_info(name) for name in node.output], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path / "m.onnx")
    feeds = {name: array for name, (array, _) in inputs.items()}
    expected = OnnxFileSession(path / "m.onnx").run(feeds)
    model = converter.load(path / "m.onnx")
    for runtime in ("reference", "numpy", "onnxruntime"):
        found = converter.session(model, runtime=runtime).run(feeds)
        for name, array in expected.items():
            assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype), runtime
            np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=2e-6, err_msg=runtime)


@pytest.mark.parametrize(("most", "overlap", "least", "centred"), [
    (3, 0.4, 0.2, 0), (100, 0.5, None, 0), (100, 0.0, 0.5, 1), (2, 0.7, 0.1, 1), (0, 0.5, 0.1, 0), (10, None, None, 0), (5, 0.3, 2.0, 0)])
def test_suppression(tmp_path: Path, most: int, overlap: float | None, least: float | None, centred: int) -> None:
    generator = np.random.default_rng(most)
    boxes = generator.uniform(0, 1, (2, 30, 4)).astype(np.float32)
    scores = np.round(generator.uniform(0, 1, (2, 3, 30)), 1).astype(np.float32)  # some are equal
    constants = {"most": np.array([most]), **({} if overlap is None else {"overlap": np.float32([overlap])}),
                 **({} if least is None else {"least": np.float32([least])})}
    names = ["boxes", "scores", "most", "overlap" if overlap is not None else "", "least" if least is not None else ""]
    while not names[-1]:
        names.pop()
    node = helper.make_node("NonMaxSuppression", names, ["y"], center_point_box=centred)
    agree(tmp_path, node, {"boxes": (boxes, ["n", "b", 4]), "scores": (scores, ["n", "c", "b"])}, constants)


@pytest.mark.parametrize("ratio", [2, 0])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
def test_means_of_regions(tmp_path: Path, mode: str, transform: str, ratio: int) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 3, 9, 11)).astype(np.float32)
    regions = np.float32([[0, 0, 8, 9], [3, 2, 5, 4], [-4, -3, 2, 30], [7, 7, 7, 7], [20, 20, 30, 30]])
    node = helper.make_node("RoiAlign", ["x", "regions", "images"], ["y"], mode=mode, coordinate_transformation_mode=transform,
                            output_height=3, output_width=2, sampling_ratio=ratio, spatial_scale=0.75)
    agree(tmp_path, node, {"x": (x, ["n", 3, "h", "w"]), "regions": (regions, ["k", 4]), "images": (np.array([0, 1, 1, 0, 1]), ["k"])}, {})


@pytest.mark.parametrize(("groups", "offsets", "masked", "bias", "options"), [
    (1, 1, False, False, {}), (2, 1, True, True, {"strides": [2, 1], "pads": [1, 0, 1, 2]}),
    (1, 2, True, False, {"dilations": [2, 1], "pads": [1, 1, 1, 1]}), (2, 4, False, True, {"kernel_shape": [3, 2]})])
def test_moved_taps(tmp_path: Path, groups: int, offsets: int, masked: bool, bias: bool, options: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    x, weight = generator.normal(size=(2, 4, 7, 8)).astype(np.float32), generator.normal(size=(6, 4 // groups, 3, 2)).astype(np.float32)
    stride, dilation, pads = options.get("strides", [1, 1]), options.get("dilations", [1, 1]), options.get("pads", [0] * 4)
    size = [(x.shape[at + 2] + pads[at] + pads[at + 2] - dilation[at] * ((3, 2)[at] - 1) - 1) // stride[at] + 1 for at in (0, 1)]
    inputs: dict[str, tuple[Any, Shape]] = {
        "x": (x, ["n", 4, 7, 8]),
        "offset": (generator.normal(size=(2, offsets * 12, *size)).astype(np.float32) * 2, ["n", offsets * 12, *size])}
    names = ["x", "w", "offset", "b" if bias else "", "mask" if masked else ""]
    if masked:
        inputs["mask"] = (generator.uniform(size=(2, offsets * 6, *size)).astype(np.float32), ["n", offsets * 6, *size])
    constants = {"w": weight, **({"b": generator.normal(size=6).astype(np.float32)} if bias else {})}
    while not names[-1]:
        names.pop()
    node = helper.make_node("DeformConv", names, ["y"], group=groups, offset_group=offsets, **options)
    agree(tmp_path, node, inputs, constants)


@pytest.mark.parametrize(("mode", "weights"), [("TF", False), ("IDF", True), ("TFIDF", True), ("TFIDF", False)])
@pytest.mark.parametrize("shape", [(2, 9), (9,)])
def test_counts_of_runs(tmp_path: Path, mode: str, weights: bool, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(1, 5, shape)
    options = {"weights": [0.5, 2.0, 3.0, 0.25, 1.5]} if weights else {}
    node = helper.make_node("TfIdfVectorizer", ["x"], ["y"], mode=mode, min_gram_length=1, max_gram_length=3, max_skip_count=2,
                            ngram_counts=[0, 2, 6], ngram_indexes=[4, 0, 1, 2, 3], pool_int64s=[1, 3, 2, 2, 1, 3, 4, 1, 2], **options)
    agree(tmp_path, node, {"x": (x, list(shape))}, {})


@pytest.mark.parametrize(("size", "pads", "include"), [(7, [1, 0], 0), (8, [0, 1], 1), (9, [2, 2], 0), (6, [1, 1], 1), (10, [0, 0], 0)])
def test_averages_of_dilated_windows_that_end_past_the_padding(tmp_path: Path, size: int, pads: list[int], include: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, size)).astype(np.float32)
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3], strides=[2], dilations=[2], pads=pads, ceil_mode=1,
                            count_include_pad=include)
    agree(tmp_path, node, {"x": (x, ["n", 3, size])}, {})
