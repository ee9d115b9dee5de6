"""A file that is another one with fewer bits: what it lost, and what its runtimes add, apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import converter
from converter.passes.casting import cast
from tests.cli.test_cli_convert import run

Array = np.ndarray[Any, Any]


def write(path: Path, dtype: type = np.float32, nudge: float = 1.0) -> None:
    """Two layers, in floats of a dtype; one weight times `nudge`."""
    rng = np.random.default_rng(0)
    weights = {name: (rng.standard_normal(shape) / 4).astype(np.float32) for name, shape in
               (("wa", (16, 32)), ("ba", (32,)), ("wb", (32, 8)), ("bb", (8,)))}
    weights["wb"][3, 2] *= nudge
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("Gemm", ["x", "wa", "ba"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
             helper.make_node("Gemm", ["r", "wb", "bb"], ["y"])]
    graph = helper.make_graph(nodes, "theirs", [helper.make_tensor_value_info("x", number, ["n", 16])],
                              [helper.make_tensor_value_info("y", number, ["n", 8])],
                              [numpy_helper.from_array(array.astype(dtype), name) for name, array in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.sets = iter([{"x": np.random.default_rng(seed).standard_normal((8, 16)).astype(np.float32)} for seed in range(8)])

    def get_next(self) -> Any:
        return next(self.sets, None)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.onnx")
    return tmp_path


def quantised(kind: str) -> None:
    if kind == "dynamic":
        quantize_dynamic("a.onnx", "a.int8.onnx", weight_type=QuantType.QInt8)
    else:
        quantize_static("a.onnx", "a.int8.onnx", Calibration(), quant_format=QuantFormat[kind])


def judged(*options: str, code: int) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run("verify", "a.onnx", *options, "--json", "--cases", "3", code=code).stdout)
    return report


@pytest.mark.filterwarnings("ignore:.*quant_utils.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["dynamic", "QDQ", "QOperator"])
def test_int8_is_measured_apart_from_its_runtimes(here: Path, kind: str) -> None:
    quantised(kind)
    report = judged("a.int8.onnx", code=2)
    (lost,) = [row for row in report["rows"] if row["stage"] == "quantisation"]
    assert lost["verdict"] == "open"
    assert 1e-4 < lost["error"] < 0.1
    runtimes = {row["subject"] for row in report["rows"] if row["stage"] == "rounding" and row["verdict"] == "pass"}
    assert {"a.int8.onnx as it lies", "a.int8.onnx in numpy", "a.onnx as it lies"} <= runtimes
    assert any("of the output's size" in note and "dB" in note for note in report["notes"])
    judged("a.int8.onnx", "--quantisation", "10%", code=0)
    failed = judged("a.int8.onnx", "--quantisation", "0.0001", code=1)
    assert [row["stage"] for row in failed["rows"] if row["verdict"] == "fail"] == ["quantisation"]


def test_what_int8_lost_is_measured_on_the_given_inputs(here: Path) -> None:
    quantised("QDQ")
    np.savez("far.npz", x=np.full((2, 16), 100, np.float32))
    near = judged("a.int8.onnx", code=2)
    far = judged("a.int8.onnx", "--input-file", "far.npz", code=2)
    errors = [next(row["error"] for row in report["rows"] if row["stage"] == "quantisation") for report in (near, far)]
    assert errors[1] > 10 * errors[0]


def test_float16_is_held_against_the_rounding_of_float16(here: Path) -> None:
    write(here / "half.onnx", np.float16)
    report = judged("half.onnx", code=0)
    assert {row["unit"] for row in report["rows"] if row["stage"] == "quantisation"} == {"ulps"}
    write(here / "other.onnx", np.float16, nudge=1.5)
    failed = judged("other.onnx", code=1)
    assert {(row["stage"], row["subject"]) for row in failed["rows"] if row["verdict"] == "fail"} == {("quantisation", "other.onnx")}


def test_a_neutral_file_with_fewer_bits(here: Path) -> None:
    model = converter.load("a.onnx")
    converter.save(model, "a.json")
    converter.save(cast(model, "bfloat16"), "b.json")
    assert converter.verify(["a.json", "b.json"], ["numpy"])
    stages = {row.stage for row in converter.verify(["a.json", "b.json"], ["numpy"]).rows}
    assert stages == {"rounding", "quantisation"}


def test_the_same_bits_are_no_variant(here: Path) -> None:
    write(here / "b.onnx", nudge=1.01)
    report = judged("b.onnx", code=1)
    assert {row["stage"] for row in report["rows"]} == {"rounding"}


@pytest.mark.parametrize("text", ["much", "-1", "2 percent", "%"])
def test_a_share_that_is_none(here: Path, text: str) -> None:
    assert "--quantisation" in run("verify", "a.onnx", "--quantisation", text, code=2).stderr
