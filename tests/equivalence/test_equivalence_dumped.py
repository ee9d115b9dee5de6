"""Arrays that something else computed: outputs and values between, held against the float64 truth, in anybody's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import converter
from adapters.onnx.file_session import OnnxFileSession
from converter.equivalence import verify as judged
from converter.errors import FormatError
from converter.npz import read_npz, write_npz
from tests.cli.test_cli_convert import run

Array = np.ndarray[Any, Any]
NAMES = ["/a/MatMul", "/a/Add", "/Relu", "/b/MatMul"]


def foreign(path: Path) -> dict[str, Array]:
    """`y = b(relu(a(x)))` as another exporter writes it, a layer being two nodes; the weights."""
    rng = np.random.default_rng(0)
    weights = {"wa": rng.standard_normal((16, 32)), "ba": rng.standard_normal(32), "wb": rng.standard_normal((32, 8))}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    nodes = [helper.make_node("MatMul", ["x", "wa"], [NAMES[0]]), helper.make_node("Add", [NAMES[0], "ba"], [NAMES[1]]),
             helper.make_node("Relu", [NAMES[1]], [NAMES[2]]), helper.make_node("MatMul", [NAMES[2], "wb"], [NAMES[3]]),
             helper.make_node("Identity", [NAMES[3]], ["y"])]
    graph = helper.make_graph(nodes, "theirs", [helper.make_tensor_value_info("x", 1, ["n", 16])],
                              [helper.make_tensor_value_info("y", 1, ["n", 8])],
                              [numpy_helper.from_array(array, name) for name, array in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return weights


def coarse(array: Array) -> Array:
    """Ten bits of each number, as some accelerators' products take them."""
    return (np.ascontiguousarray(array).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def device(weights: dict[str, Array], x: Array, at: int | None = None, how: Any = coarse) -> dict[str, Array]:
    """Every value as a device computes it that makes one of `NAMES` wrong."""
    found = {"x": x}

    def put(place: int, value: Array) -> Array:
        found[NAMES[place]] = how(value) if place == at else value
        return found[NAMES[place]]

    hidden = put(2, np.maximum(put(1, put(0, x @ weights["wa"]) + weights["ba"]), 0))
    found["y"] = put(3, hidden @ weights["wb"])
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def weights(here: Path) -> dict[str, Array]:
    return foreign(here / "theirs.onnx")


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)


def save(path: Path, **arrays: Array) -> str:
    np.savez(path, **arrays)
    return path.name


def test_values_inside_a_layer_keep_their_names(here: Path, weights: dict[str, Array], x: Array) -> None:
    report = json.loads(run("verify", "theirs.onnx", "--outputs", save(here / "d.npz", **device(weights, x)), "--json").stdout)
    rows = {row["output"]: row["compared"] for row in report["rows"] if row["subject"] == "d.npz"}
    assert set(rows) == {"y", *NAMES}
    assert rows[NAMES[0]] == 5 * 32
    assert {"theirs.onnx as it lies", "numpy"} <= {row["subject"] for row in report["rows"]}


@pytest.mark.parametrize("at", range(4))
def test_the_first_node_that_adds_error_is_named(here: Path, weights: dict[str, Array], x: Array, at: int) -> None:
    report = json.loads(run("verify", "theirs.onnx", "--outputs", save(here / "d.npz", **device(weights, x, at)), "--json", code=1).stdout)
    (place,) = report["locations"]
    assert place["value"] == NAMES[at]
    assert "one of" not in place["reason"]
    passing = {row["output"] for row in report["rows"] if row["subject"] == "d.npz" and row["verdict"] == "pass"}
    assert passing == set(NAMES[:at])


def test_what_lies_between_two_values_is_told_as_such(here: Path, weights: dict[str, Array], x: Array) -> None:
    bad = device(weights, x, 2)
    report = converter.verify("theirs.onnx", outputs={name: bad[name] for name in ("x", NAMES[0], "y")})
    (place,) = report.locations
    assert not report
    assert place.value == NAMES[3]
    assert "theirs.onnx as it lies" in {row.subject for row in report.rows}
    assert f"between {NAMES[0]} and it" in place.reason


def test_the_reduced_part_holds_what_was_dumped(here: Path, weights: dict[str, Array], x: Array) -> None:
    run("verify", "theirs.onnx", "--outputs", save(here / "d.npz", **device(weights, x, 3)), "--reduce", "part", code=1)
    assert set(read_npz("part/inputs.npz")) == {"Relu", "b.MatMul"}
    for file in ("part/model.json", "part/model.onnx"):
        run("verify", file, "--outputs", "part/inputs.npz", "--quiet", code=1)
    run("verify", "part/model.json", "--quiet")


def test_a_neutral_file_beside_a_dump(here: Path, weights: dict[str, Array], x: Array) -> None:
    run("onnx-to-json", "theirs.onnx", "-o", "m.json")
    good = device(weights, x)
    run("verify", "m.json", "--outputs", save(here / "d.npz", x=x, y=good["y"]), "--quiet")
    run("verify", "m.json", "--outputs", save(here / "d.npz", x=x, y=coarse(good["y"])), "--quiet", code=1)
    np.savez("x.npz", x=x)
    run("verify", "m.json", "--outputs", save(here / "d.npz", y=good["y"]), "--input-file", "x.npz", "--quiet")


def test_the_budget_is_that_of_the_stated_dtype(here: Path, weights: dict[str, Array], x: Array) -> None:
    half = {name: array.astype(np.float16) for name, array in weights.items()}
    y = device(half, x.astype(np.float16))["y"]
    assert y.dtype == np.float16
    assert converter.verify("theirs.onnx", outputs={"x": x, "y": y})
    assert not converter.verify("theirs.onnx", outputs={"x": x, "y": y.astype(np.float32)})
    assert converter.verify("theirs.onnx", outputs={"x": x, "y": y.astype(np.float32)}, dtype="float16")
    assert not converter.verify("theirs.onnx", outputs={"x": x, "y": y * np.float16(1.05)})


def test_each_of_several_dumps_is_judged(here: Path, weights: dict[str, Array], x: Array) -> None:
    files = [save(here / "a.npz", **device(weights, x)), save(here / "b.npz", **device(weights, x * 2, 1))]
    report = json.loads(run("verify", "theirs.onnx", "--outputs", files[0], "--outputs", files[1], "--json", code=1).stdout)
    assert {row["subject"] for row in report["rows"] if row["verdict"] == "fail"} == {"b.npz"}


def test_integers_and_booleans_fit_without_loss(here: Path) -> None:
    builder = converter.GraphBuilder("g")
    chosen = builder.op("argmax", builder.input("x", "float32", ("n", 8)), axis=1)
    builder.output("chosen", chosen)
    model = converter.Model(builder.graph(), converter.InMemoryParameters({}))
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    right = x.argmax(1)
    assert converter.verify(model, outputs={"x": x, "chosen": right.astype(np.int32)})
    assert not converter.verify(model, outputs={"x": x, "chosen": (right + np.array([0, 0, 1, 0])).astype(np.int32) % 8})
    assert not converter.verify(model, outputs={"x": x, "chosen": right + 0.5})


@pytest.mark.parametrize(("arrays", "said"), [
    ({"y": (5, 8)}, "lacks inputs"), ({"x": (5, 16), "z": (5, 8)}, "no array in it has the name"), ({"x": (5, 16)}, "inputs only"),
    ({"x": (5, 9), "y": (5, 8)}, "x"), ({}, "lacks inputs")])
def test_a_dump_that_says_nothing_is_refused(here: Path, weights: dict[str, Array], arrays: dict[str, tuple[int, ...]], said: str) -> None:
    with open("d.npz", "wb") as file:
        write_npz(file, {name: np.zeros(shape, np.float32) for name, shape in arrays.items()})
    assert said in run("verify", "theirs.onnx", "--outputs", "d.npz", code=2).stderr


def test_names_that_the_graph_lacks_are_told(here: Path, weights: dict[str, Array], x: Array) -> None:
    report = converter.verify("theirs.onnx", outputs={**device(weights, x), "mystery": x})
    assert report
    assert any("mystery" in note for note in report.notes)


@pytest.mark.parametrize("array", [np.zeros((8, 5), np.float32), np.full((5, 8), np.nan, np.float32), np.zeros((5, 8), np.float32)])
def test_other_shapes_and_values_fail(here: Path, weights: dict[str, Array], x: Array, array: Array) -> None:
    assert not converter.verify("theirs.onnx", outputs={"x": x, "y": array})


def test_a_file_as_it_lies_shows_its_first_wrong_node(here: Path, weights: dict[str, Array], x: Array) -> None:
    class Wrong(OnnxFileSession):
        def run(self, inputs: Any) -> dict[str, Array]:
            return {"y": device(weights, inputs["x"], 1)["y"]}

        def observe(self, inputs: Any, names: Any) -> dict[str, Array]:
            super().observe(inputs, names)
            return device(weights, inputs["x"], 1)

    model = converter.load("theirs.onnx")
    assert set(OnnxFileSession("theirs.onnx").observe({"x": x}, NAMES)) == {"y", *NAMES}
    report = judged({"theirs": model, "wrong": Wrong("theirs.onnx")}, [], parts="part")
    (place,) = report.locations
    assert (place.subject, place.value) == ("wrong", NAMES[1])
    run("verify", "part/model.json", "--outputs", "part/inputs.npz", "--quiet", code=1)


def test_a_dtype_of_no_floats(here: Path, weights: dict[str, Array], x: Array) -> None:
    file = save(here / "d.npz", **device(weights, x))
    assert "int8" in run("verify", "theirs.onnx", "--outputs", file, "--dtype", "int8", code=2).stderr
    assert "floaty" in run("verify", "theirs.onnx", "--outputs", file, "--dtype", "floaty", code=2).stderr
    assert "--outputs" in run("verify", "theirs.onnx", "--dtype", "float16", code=2).stderr
    with pytest.raises(FormatError, match="no array"):
        converter.verify("theirs.onnx", outputs={"x": x, "why": x})


@pytest.mark.parametrize("name", ["y", NAMES[2]])
def test_text_in_the_place_of_a_value_is_refused_by_its_name(here: Path, weights: dict[str, Array], name: str) -> None:
    x = np.ones((2, 16), np.float32)
    values = device(weights, x)
    np.savez("d.npz", **{**values, name: values[name].astype(str), "note": np.array("by hand")})
    shown = run("verify", "theirs.onnx", "--outputs", "d.npz", code=2)
    assert f"array '{name}'" in shown.stderr
    assert "holds no numbers" in " ".join(shown.stderr.split())
