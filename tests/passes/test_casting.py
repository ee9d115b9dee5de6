"""Models in another float dtype, on the way from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import converter
from converter.cli.main import cli
from converter.errors import ConverterError, GraphError, ParameterError, UnsupportedError
from converter.ir import DType
from converter.passes.casting import cast, cast_parameters
from tests.test_public import small_model

TARGETS = ("float16", "bfloat16", "float32")


def model(dtype: str = "float32", *, fill: float = float(np.finfo(np.float32).min), literal: float = 2.0) -> converter.Model:
    """Attention by hand: a mask filled with the lowest number, a softmax, a literal, an integer input and a tied weight."""
    builder = converter.GraphBuilder("masked")
    x = builder.input("x", dtype, ["batch", 3])
    keep = builder.input("keep", "bool", ["batch", 3])
    scores = builder.op("linear", x, builder.parameter("w", dtype, [3, 3]))
    masked = builder.op("where", keep, scores, builder.op("full", shape=[1, 3], fill_value=fill, dtype=dtype))
    y = builder.op("multiply", builder.op("softmax", masked, axis=-1), literal)
    builder.output("y", y)
    values = np.random.default_rng(0).standard_normal((3, 3)).astype(DType.of(dtype).numpy)
    return converter.Model(builder.graph(), converter.InMemoryParameters({"w": values, "steps": np.array([3])}, {"tied": "w"}))


@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("suffix", [".json", ".h5", ".onnx"])
def test_a_cast_model_is_a_model_of_that_dtype(tmp_path: Path, source: str, target: str, suffix: str) -> None:
    before = model(source, fill=float(ml_dtypes.finfo(DType(source).numpy).min))
    after = cast(before, target)
    converter.save(after, tmp_path / f"m{suffix}")
    back = converter.load(tmp_path / f"m{suffix}")
    assert converter.model_digest(back) == converter.model_digest(after)
    assert (converter.model_digest(after) == converter.model_digest(before)) == (source == target)
    assert {str(port.spec.dtype) for port in (*back.graph.inputs, *back.graph.outputs)} == {target, "bool"}
    assert back.parameters.spec("steps").dtype is DType.INT64
    assert back.parameters.alias_of("tied") == "w"
    expected = before.parameters.read("w").astype(DType(target).numpy)
    assert back.parameters.read("w").tobytes() == expected.tobytes()


@pytest.mark.parametrize("target", TARGETS)
def test_what_it_computes_is_near_and_masks_still_mask(target: str) -> None:
    before = model()
    after = cast(before, target)
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    keep = np.array([[True, False, True], [False, False, False]])
    wanted = converter.session(before, "reference").run({"x": x, "keep": keep})["y"]
    found = converter.session(after, "reference").run({"x": x.astype(DType(target).numpy), "keep": keep})["y"].astype(np.float32)
    # A row that is masked everywhere is even, not NaN: the lowest number became the other dtype's lowest, not -inf.
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, wanted, atol={"float16": 3e-3, "bfloat16": 3e-2, "float32": 0}[target])


def test_a_dtype_that_only_calculates_stays() -> None:
    builder = converter.GraphBuilder("upcast")
    x = builder.input("x", "bfloat16", ["batch", 2])
    y = builder.op("softmax", builder.op("astype", x, dtype="float32"), axis=-1)
    builder.output("y", builder.op("linear", builder.op("astype", y, dtype="bfloat16"), builder.parameter("w", "bfloat16", [2, 2])))
    store = converter.InMemoryParameters({"w": np.ones((2, 2), ml_dtypes.bfloat16)})
    after = cast(converter.Model(builder.graph(), store), "float16")
    assert [str(node.attributes["dtype"]) for node in after.graph.nodes if node.op == "astype"] == ["float32", "float16"]


def test_numbers_that_the_dtype_cannot_hold_are_all_listed() -> None:
    with pytest.raises(UnsupportedError) as caught:
        cast(model(fill=-1e9, literal=1e6), "float16")
    assert {item["reason"] for item in caught.value.items} == {"the number -1000000000.0", "the number 1000000.0"}
    assert "bfloat16" in str(caught.value)
    assert cast(model(fill=-1e9, literal=1e6), "bfloat16").graph.nodes
    assert cast(model(fill=float("-inf")), "float16").graph.nodes


def test_values_outside_of_the_range_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store = converter.InMemoryParameters({"a": np.ones(2, np.float32), "b": np.array([1, 7e4], np.float32)})
    with pytest.raises(ParameterError, match=r"'b'.*float16"):
        converter.save(cast_parameters(store, "float16"), tmp_path / "w.safetensors")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    assert cast_parameters(store, "bfloat16").read("b").dtype == ml_dtypes.bfloat16
    infinite = converter.InMemoryParameters({"a": np.array([np.inf, np.nan, -0.0], np.float32)})
    assert cast_parameters(infinite, "float16").read("a").tobytes() == np.array([np.inf, np.nan, -0.0], np.float16).tobytes()


def test_an_operator_that_forbids_the_dtype_refuses() -> None:
    builder = converter.GraphBuilder("determinant")
    builder.output("y", builder.op("det", builder.input("x", "float32", ["batch", 3, 3])))
    with pytest.raises(GraphError, match="cast to float16"):
        cast(converter.Model(builder.graph(), converter.InMemoryParameters()), "float16")


def test_other_dtypes_are_refused() -> None:
    for dtype in ("float64", "int8", "float8_e5m2", "nonsense"):
        with pytest.raises(ConverterError):
            cast(model(), dtype)


# On the command line -------------------------------------------------------------------------------------------------------


def run(*args: object, code: int = 0) -> Any:
    result = CliRunner().invoke(cli, [str(item) for item in args])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize(("command", "source", "output"), [
    ("json-to-hdf5", "m.json", "o.h5"), ("json-to-onnx", "m.json", "o.onnx"), ("json-to-torch", "m.json", "o.pt"),
    ("torch-to-safetensors", "w.pt", "o.safetensors"), ("torch-to-hdf5", "w.pt", "o.h5"),
    ("json-to-safetensors", "m.json", "o.safetensors"),
])
def test_dtype_on_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, source: str, output: str) -> None:
    monkeypatch.chdir(tmp_path)
    found = small_model()
    converter.save(found, "m.json")
    torch.save({name: torch.from_numpy(found.parameters.read(name).copy()) for name in ("weight", "bias", "shift")}, "w.pt")
    more = ["--architecture", "m.json"] if command == "torch-to-hdf5" else []
    text = run(command, source, "-o", output, "--dtype", "float16", *more).stderr
    assert "cast from float32 to float16" in text
    assert ("recorded example left out" in text) == (source == "m.json" and output in ("o.h5", "o.onnx"))
    store = converter.load(output).parameters if output in ("o.h5", "o.onnx") else converter.checkpoint.load_parameters(output)
    assert store.spec("weight").dtype is DType.FLOAT16
    if output == "o.h5":
        assert converter.load(output).metadata["cast"] == {"from": ["float32"], "to": "float16"}


def test_a_dtype_that_it_has_already_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    converter.save(small_model(), "m.json")
    assert "float32 already" in run("json-to-hdf5", "m.json", "-o", "m.h5", "--dtype", "float32").stderr
    assert converter.model_digest(converter.load("m.h5")) == converter.model_digest(small_model())
    assert len(converter.load("m.h5").examples) == 1
