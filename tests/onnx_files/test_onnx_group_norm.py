"""Group norms as exporters spell them out: reshaped, an instance norm, reshaped, times a weight, plus a bias."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.onnx_files.test_onnx_reading import ops, read, value, write


def group_norm(path: Path, ones: str = "val_1", sizes: Sequence[int] = (0, 2, -1), scope: str = "/block/norm/") -> Path:
    """A group norm of six channels in two groups, as torch's exporters spell it out."""
    nodes = [helper.make_node("Reshape", ["x", "sizes"], ["groups"]),
             helper.make_node("InstanceNormalization", ["groups", ones, "val_2"], ["normal"], epsilon=1e-3),
             helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Reshape", ["normal", "shape"], ["whole"]),
             helper.make_node("Mul", ["whole", "onnx::Mul_3"], ["scaled"], name=f"{scope}Mul" if scope else ""),
             helper.make_node("Add", ["onnx::Add_4", "scaled"], ["y"], name=f"{scope}Add" if scope else "")]
    constants = {"sizes": np.array(sizes), ones: np.ones(sizes[1], np.float32), "val_2": np.zeros(sizes[1], np.float32),
                 "onnx::Mul_3": np.arange(1, 7, dtype=np.float32).reshape(6, 1, 1), "onnx::Add_4": np.ones((6, 1, 1), np.float32)}
    return write(path, nodes, [value("x", ["n", 6, "h", "w"])], ["y"], constants)


def test_a_group_norm_that_is_spelled_out_is_one_with_the_names_of_its_module(tmp_path: Path) -> None:
    model = read(group_norm(tmp_path / "m.onnx"))
    (node,) = model.graph.nodes
    assert (node.op, dict(node.attributes)["num_groups"]) == ("group_norm", 2)
    assert [model.parameters.spec(name).shape for name in ("block.norm.weight", "block.norm.bias")] == [(6,), (6,)]
    assert set(model.parameters.names()) == {"block.norm.weight", "block.norm.bias"}


def test_a_group_norm_of_no_module_keeps_the_names_of_the_file(tmp_path: Path) -> None:
    model = read(group_norm(tmp_path / "m.onnx", scope=""))
    assert ops(model) == ["group_norm"]
    assert {name: model.parameters.spec(name).shape for name in model.parameters.names()} == {"onnx::Mul_3": (6,), "onnx::Add_4": (6,)}


@pytest.mark.parametrize(("ones", "sizes"), [("block.inner.weight", (0, 2, -1)), ("val_1", (0, 4, -1))])
def test_what_looks_like_a_group_norm(tmp_path: Path, ones: str, sizes: tuple[int, ...]) -> None:
    """A weight that the file names was trained, and may be another; four groups of six channels cut one in two."""
    model = read(group_norm(tmp_path / "m.onnx", ones, sizes))
    assert "instance_norm" in ops(model)
    assert "group_norm" not in ops(model)
