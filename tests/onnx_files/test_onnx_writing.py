"""ONNX files as they lie on disk: self-contained, with external data, at every opset, readable by onnx itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from adapters.onnx.export import OPSETS, save_onnx
from converter.builder import GraphBuilder
from converter.errors import ConverterError, UnsupportedError
from converter.format.atomic import values_beside
from converter.ir import Model
from converter.parameters import InMemoryParameters


@pytest.fixture
def model() -> Model:
    rng = np.random.default_rng(1)
    arrays = {"0.weight": rng.standard_normal((64, 16)).astype(np.float32), "0.bias": rng.standard_normal(64).astype(np.float32)}
    b = GraphBuilder("affine")
    x = b.input("x", "float32", ["batch", "time", 16])
    b.output("y", b.op("linear", x, *(b.parameter(name, "float32", array.shape) for name, array in arrays.items())))
    return Model(b.graph(), InMemoryParameters(arrays))


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize("external", [False, True])
def test_runs_and_passes_the_checker(model: Model, tmp_path: Path, external: bool) -> None:
    path = tmp_path / "affine.onnx"
    save_onnx(model, path, external=external)
    onnx.checker.check_model(str(path), full_check=True)
    x = np.random.default_rng(2).standard_normal((3, 5, 16)).astype(np.float32)
    weight, bias = model.parameters.read("0.weight"), model.parameters.read("0.bias")
    np.testing.assert_allclose(run(path, x), x @ weight.T + bias, rtol=1e-5, atol=1e-5)
    assert len(values_beside(path)) == external


def test_names_and_free_sizes(model: Model, tmp_path: Path) -> None:
    save_onnx(model, tmp_path / "affine.onnx")
    graph = onnx.load(str(tmp_path / "affine.onnx")).graph
    assert {item.name for item in graph.initializer} == {"0.weight", "0.bias"}
    assert [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == ["batch", "time", 16]
    assert [dim.dim_param or dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim] == ["batch", "time", 64]


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset(model: Model, tmp_path: Path, opset: int) -> None:
    path = tmp_path / "affine.onnx"
    save_onnx(model, path, opset=opset)
    assert onnx.load(str(path)).opset_import[0].version == opset
    assert run(path, np.zeros((1, 1, 16), np.float32)).shape == (1, 1, 64)


def test_an_opset_out_of_range_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="18 to 23"):
        save_onnx(model, tmp_path / "affine.onnx", opset=7)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("role", ["input", "output", "parameter"])
def test_an_empty_name_is_refused(role: str, tmp_path: Path) -> None:
    """An empty name stands in ONNX for a value that is absent: such a file would be none."""
    names = {kind: "" if kind == role else kind for kind in ("input", "output", "parameter")}
    b = GraphBuilder("g")
    x = b.input(names["input"], "float32", [2])
    b.output(names["output"], b.op("add", x, b.parameter(names["parameter"], "float32", [2])))
    with pytest.raises(UnsupportedError, match="an empty name"):
        save_onnx(Model(b.graph(), InMemoryParameters({names["parameter"]: np.ones(2, np.float32)})), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
