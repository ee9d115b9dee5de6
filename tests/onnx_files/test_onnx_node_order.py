"""Files whose nodes are not in the order in which they run, which ONNX Runtime loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import converter
from converter.errors import FormatError
from tests.onnx_files.test_onnx_reading import value

node = helper.make_node
VERSIONS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
CHAIN = [node("Neg", ["x"], ["a"]), node("Exp", ["a"], ["b"]), node("Add", ["a", "b"], ["c"]), node("Abs", ["c"], ["y"])]
ORDERS = [(3, 2, 1, 0), (1, 0, 3, 2), (2, 0, 1, 3), (0, 2, 3, 1)]


def branching(order: Sequence[int], inner: Sequence[int]) -> list[onnx.NodeProto]:
    """An `If` before what its branches read, whose nodes are out of order too."""
    held = [node("Neg", ["d"], ["e"]), node("Mul", ["e", "x"], ["f"]), node("Sub", ["f", "e"], ["t"])]
    branches = [helper.make_graph([held[at] for at in inner], "then", [], [value("t", ["batch", 3])]),
                helper.make_graph([node("Tanh", ["d"], ["u"])], "else", [], [value("u", ["batch", 3])])]
    chosen = node("If", ["c"], ["g"], then_branch=branches[0], else_branch=branches[1])
    made = [node("Exp", ["x"], ["d"]), chosen, node("Abs", ["g"], ["y"])]
    return [made[at] for at in order]


def write(path: Path, nodes: Sequence[onnx.NodeProto], functions: Sequence[onnx.FunctionProto] = (), condition: bool = False) -> Path:
    inputs = [value("x", ["batch", 3])] + [value("c", [], TensorProto.BOOL)] * condition
    graph = helper.make_graph(list(nodes), "g", inputs, [value("y", ["batch", 3])])
    path.write_bytes(helper.make_model(graph, opset_imports=VERSIONS, functions=list(functions), ir_version=9).SerializeToString())
    return path


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_nodes_are_sorted(tmp_path: Path, order: Sequence[int]) -> None:
    """To the graph of the file that has them in order, whatever the order; and both are what ONNX Runtime gives for the file."""
    whole = converter.load(write(tmp_path / "whole.onnx", CHAIN))
    path = write(tmp_path / "mixed.onnx", [CHAIN[at] for at in order])
    mixed = converter.load(path)
    assert mixed.graph.nodes == whole.graph.nodes
    assert any("sorted" in note for note in mixed.metadata["source"]["notes"])
    assert not any("sorted" in note for note in whole.metadata["source"].get("notes", []))
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    np.testing.assert_allclose(converter.session(mixed).run({"x": x})["y"], expected, rtol=1e-6)


def test_nodes_that_are_in_order_stay_where_they_are(tmp_path: Path) -> None:
    """Sorting is stable: of two that do not read each other the first stays the first."""
    nodes = [node("Neg", ["x"], ["a"]), node("Sub", ["a", "late"], ["y"]), node("Exp", ["x"], ["b"]), node("Abs", ["b"], ["late"])]
    assert [item.op for item in converter.load(write(tmp_path / "m.onnx", nodes)).graph.nodes] == ["negative", "exp", "abs", "subtract"]


@pytest.mark.parametrize(("order", "inner"), [((0, 1, 2), (2, 1, 0)), ((1, 0, 2), (0, 1, 2)), ((2, 1, 0), (1, 0, 2))], ids=str)
@pytest.mark.parametrize("condition", [True, False])
def test_branches_and_what_they_read(tmp_path: Path, order: Sequence[int], inner: Sequence[int], condition: bool) -> None:
    model = converter.load(write(tmp_path / "m.onnx", branching(order, inner), condition=True))
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    e = -np.exp(x)
    expected = np.abs(e * x - e if condition else np.tanh(np.exp(x)))
    np.testing.assert_allclose(converter.session(model).run({"x": x, "c": np.asarray(condition)})["y"], expected, rtol=1e-5)


def test_functions(tmp_path: Path) -> None:
    body = [node("Abs", ["q"], ["b"]), node("Neg", ["a"], ["q"])]
    path = write(tmp_path / "m.onnx", [node("f", ["h"], ["y"], domain="own"), node("Exp", ["x"], ["h"])],
                 [helper.make_function("own", "f", ["a"], ["b"], body, VERSIONS)])
    found = converter.session(converter.load(path)).run({"x": np.zeros((1, 3), np.float32)})["y"]
    np.testing.assert_array_equal(found, np.ones((1, 3), np.float32))


def test_a_cycle_in_a_branch(tmp_path: Path) -> None:
    inner = [node("Neg", ["f"], ["e"]), node("Mul", ["e", "x"], ["f"])]
    branches = [helper.make_graph(inner, name, [], [value("f", ["batch", 3])]) for name in ("then", "else")]
    path = write(tmp_path / "m.onnx", [node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])], condition=True)
    with pytest.raises(FormatError, match=r"m\.onnx, node Neg e: .*wait for each other"):
        converter.load(path)
