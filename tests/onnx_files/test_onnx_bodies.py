"""Branches, loops and functions of files of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import converter
from adapters.onnx.file_session import OnnxFileSession
from converter.errors import UnsupportedError
from tests.onnx_files.test_onnx_reading import ops, read, value, write

X = value("x", ["n", 3])
FLAG = value("flag", [], TensorProto.BOOL)


def branch(kind: str, *names: str, **attributes: object) -> onnx.GraphProto:
    made = helper.make_node(kind, names or ["x"], ["made"], **attributes)
    return helper.make_graph([made], "branch", [], [helper.make_empty_tensor_value_info("made")])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (branch("Unsqueeze", "x", "axis"), r"differ in their number of axes: y is float32\[1, n, 3\] of then_branch and float32\[n, 3\]"),
        (branch("Concat", "x", "x", axis=0), r"differ in their sizes: y is float32\[2\*n, 3\] of then_branch and float32\[n, 3\]"),
        (branch("Cast", to=TensorProto.DOUBLE), r"differ in their dtype: y is float64\[n, 3\] of then_branch"),
    ],
)
def test_branches_of_different_kinds_are_refused_in_words(tmp_path: Path, other: onnx.GraphProto, said: str) -> None:
    nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=other, else_branch=branch("Neg"))]
    with pytest.raises(UnsupportedError, match=said):
        converter.load(write(tmp_path / "m.onnx", nodes, [FLAG, X], ["y"], {"axis": np.array([0])}))


def growing(begin: str = "x") -> list[onnx.NodeProto]:
    """A loop that appends `x` to what it carries, and gives each step whether that is negative."""
    inside = [
        helper.make_node("Concat", ["held", "x"], ["longer"], axis=0),
        helper.make_node("Less", ["x", "zero"], ["below"]),
        helper.make_node("Identity", ["on"], ["further"]),
    ]
    body = helper.make_graph(
        inside,
        "body",
        [value("step", [], TensorProto.INT64), value("on", [], TensorProto.BOOL), helper.make_empty_tensor_value_info("held")],
        [value("further", [], TensorProto.BOOL), *(helper.make_empty_tensor_value_info(name) for name in ("longer", "below"))],
    )
    return [helper.make_node("Loop", ["count", "yes", begin], ["y", "negative"], body=body)]


HELD = {"yes": np.array(True), "zero": np.float32(0)}


@pytest.mark.parametrize(("begin", "count"), [("x", 3), ("none", 2), ("none", 0), ("x", 0)])
def test_a_loop_that_grows_what_it_carries_is_written_out(tmp_path: Path, begin: str, count: int) -> None:
    constants = {**HELD, "count": np.array(count), "none": np.zeros((0, 3), np.float32)}
    model = converter.load(write(tmp_path / "m.onnx", growing(begin), [X], ["y", "negative"], constants))
    assert "scan" not in ops(model)
    x = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
    found = converter.session(model).run({"x": x})
    np.testing.assert_array_equal(found["y"], np.concatenate([x[:0] if begin == "none" else x, *[x] * count]))
    np.testing.assert_array_equal(found["negative"], np.stack([x < 0] * count) if count else np.zeros((0, 2, 3), bool))


def test_a_loop_of_a_number_of_steps_that_only_a_run_knows_does_not_grow(tmp_path: Path) -> None:
    """Nor is it read as one that keeps its sizes, which would fail at every run."""
    with pytest.raises(UnsupportedError, match=r"what it carries: y is float32\[n, 3\] before a step and float32\[2\*n, 3\] after it"):
        converter.load(write(tmp_path / "m.onnx", growing(), [X, value("count", [], TensorProto.INT64)], ["y", "negative"], HELD))


def with_function(path: Path, operators: Sequence[str], version: int, own: int) -> Path:
    """A file of one version whose function was written for another."""
    names = ["x", *(f"value_{place}" for place in range(len(operators) - 1)), "y"]
    inside = [helper.make_node(kind, [names[place]], [names[place + 1]]) for place, kind in enumerate(operators)]
    function = helper.make_function("mine", "Block", ["x"], ["y"], inside, [helper.make_opsetid("", own)])
    graph = helper.make_graph(
        [helper.make_node("Block", ["x"], ["y"], domain="mine")],
        "graph",
        [value("x", ["n", 2, 3])],
        [helper.make_empty_tensor_value_info("y")],
    )
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("mine", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9), path)
    return path


def test_a_function_of_another_version_whose_operators_are_the_same_in_it(tmp_path: Path) -> None:
    path = with_function(tmp_path / "m.onnx", ["Sigmoid", "Neg"], 20, 13)
    assert ops(read(path)) == ["sigmoid", "negative"]
    assert converter.verify([converter.load(path), OnnxFileSession(path)], locate=False)


def test_a_function_of_another_version_whose_operators_changed_is_refused_by_name(tmp_path: Path) -> None:
    """Softmax was over all axes from its own on until version 13."""
    with pytest.raises(UnsupportedError, match=r"mine\.Block: a function with version 12 of Softmax, in a file with version 20"):
        converter.load(with_function(tmp_path / "m.onnx", ["Sigmoid", "Softmax"], 20, 12))
