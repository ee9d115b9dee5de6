"""The promises of `docs/equivalence.md` that no other test holds: pairs of anything, inputs on request, parts that fail alone."""

from __future__ import annotations

import json
import re
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import converter
from adapters.numpy.session import NumpySession
from converter.builder import GraphBuilder
from converter.equivalence import verify
from converter.equivalence.inputs import NOT_FINITE, Planner
from converter.ir import Model
from converter.parameters import InMemoryParameters, ParameterStore
from tests.cli.test_cli_convert import run
from tests.cli.test_cli_verify import changed, nudge, square_model

Array = np.ndarray[Any, Any]

CODE = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Tanh(), torch.nn.Linear(4, 4, bias=False))
"""
INPUT = "input:float32[rows,4]"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one model in every form, and the same with one weight changed: `m.…` and `bad.…`; and the code that builds it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "promised.py").write_text(CODE)
    model = square_model()
    bad = changed(model, layer__bias=nudge((1,), 1.001))
    for name, item in (("m", model), ("bad", bad)):
        for suffix in ("json", "h5", "onnx", "pt", "safetensors"):
            converter.save(item, f"{name}.{suffix}")
        onnx.save(anyones(onnx.load(f"{name}.onnx")), f"{name}-anyones.onnx")
    yield tmp_path
    sys.modules.pop("promised", None)


def anyones(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The file as somebody else would have written it: no neutral model in it, and every name another."""
    del proto.metadata_props[:]
    proto.producer_name, proto.doc_string, proto.graph.name = "anyone", "", "main_graph"

    def renamed(name: str) -> str:
        return f"/anyone/{name}" if name else ""

    graph = proto.graph
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        item.name = renamed(item.name)
    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        node.name = ""
    onnx.checker.check_model(proto)
    return proto


# 1: any pair -------------------------------------------------------------------------------------------------------------

STANDARDS = ("json", "h5", "onnx")
OTHERS = (".json", ".h5", ".onnx", ".pt", ".safetensors", "-anyones.onnx")


@pytest.mark.parametrize("first", STANDARDS)
def test_any_pair_of_files(here: Path, first: str) -> None:
    """A model beside itself in every other form passes, and beside every form of another one fails."""
    for other in OTHERS:
        if other != f".{first}":
            run("verify", f"m.{first}", f"m{other}", "--quiet", "--cases", "2", "--runtime", "numpy")
        run("verify", f"m.{first}", f"bad{other}", "--quiet", "--cases", "2", "--runtime", "numpy", code=1)


def test_all_forms_at_once_in_every_runtime(here: Path) -> None:
    runtimes = [word for name in ("numpy", "onnxruntime", "torch", "reference") for word in ("--runtime", name)]
    report = json.loads(run("verify", "m.json", *(f"m{other}" for other in OTHERS[1:]), *runtimes, "--cases", "2", "--json").stdout)
    assert report["equivalent"] is True
    assert {row["subject"] for row in report["rows"]} >= {"numpy", "onnxruntime", "torch", "reference", "recording", "m.pt",
                                                          "m.safetensors", "m.onnx as it lies", "m-anyones.onnx as it lies"}


def test_anyones_file_beside_the_live_module(here: Path) -> None:
    """No neutral file at all: the checkpoint and the code are one side, somebody's ONNX file the other."""
    spec = ("--module", "promised:build", "--input", INPUT)
    run("torch-to-onnx", "-o", "own.onnx", *spec)
    run("torch-to-json", "-o", "own.json", *spec)
    run("json-to-torch", "own.json", "-o", "own.pt")
    onnx.save(anyones(onnx.load("own.onnx")), "anyones.onnx")
    run("verify", "anyones.onnx", "--source", "own.pt", *spec)
    proto = onnx.load("anyones.onnx")
    weight = next(item for item in proto.graph.initializer if item.name.endswith("0.bias"))
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.001)).tobytes()
    onnx.save(proto, "bad-anyones.onnx")
    run("verify", "bad-anyones.onnx", "--source", "own.pt", *spec, "--quiet", code=1)


class Watched(ParameterStore):
    """Parameters that are made when they are read; `most` is how many were alive at once."""

    def __init__(self, store: ParameterStore) -> None:
        self.store, self.alive, self.most = store, 0, 0

    def names(self) -> tuple[str, ...]:
        return self.store.names()

    def spec(self, name: str) -> Any:
        return self.store.spec(name)

    def alias_of(self, name: str) -> str | None:
        return self.store.alias_of(name)

    def read(self, name: str) -> Array:
        array = self.store.read(name).copy()
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(array, self._gone)
        return array

    def _gone(self) -> None:
        self.alive -= 1


def test_parameters_are_streamed() -> None:
    """With no memory to keep any, the parameters of few nodes are there at a time, in both runs of the reference and in hashing."""
    b = GraphBuilder("deep")
    x = b.input("x", "float32", ["batch", 8])
    generator = np.random.default_rng(0)
    arrays = {f"w{index}": generator.standard_normal((8, 8)).astype(np.float32) for index in range(20)}
    for name in arrays:
        x = b.op("tanh", b.op("linear", x, b.parameter(name, "float32", [8, 8])))
    b.output("y", x)
    store = Watched(InMemoryParameters(arrays))
    assert verify(Model(b.graph(), store), ["reference"], memory=0, cases=2)
    assert 0 < store.most <= 3


# 2: inputs that find bugs ------------------------------------------------------------------------------------------------


def clipped() -> Model:
    """x · 2, limited to [-1, 1]: NaN stays NaN, infinities become limits."""
    b = GraphBuilder("clipped")
    x = b.input("x", "float32", ["batch", 5])
    b.output("y", b.op("clip", b.op("multiply", x, 2.0), -1.0, 1.0))
    b.output("doubled", b.op("multiply", x, 2.0))
    return Model(b.graph(), InMemoryParameters())


class LosesNaN:
    """A runtime that is right wherever its inputs are finite, and gives the lower limit for NaN."""

    def __init__(self, model: Model) -> None:
        self.session = NumpySession(model)

    def run(self, inputs: Any) -> dict[str, Array]:
        outputs = self.session.run(inputs)
        return {**outputs, "y": np.where(np.isnan(outputs["y"]), np.float32(-1), outputs["y"])}


def test_nan_and_infinities_on_request() -> None:
    assert verify(clipped(), {"loses": LosesNaN})
    report = verify(clipped(), {"loses": LosesNaN, "numpy": "numpy", "onnxruntime": "onnxruntime"}, nonfinite=True, locate=False)
    assert {(row.subject, row.output) for row in report.failures} == {("loses", "y")}
    assert all(row.case.endswith("not finite") for row in report.failures)


def test_where_nan_and_infinities_stand() -> None:
    planner = Planner(clipped().graph)
    case = planner.spoiled(planner.case(2, {"batch": 6}))
    assert case is not None
    assert case.profile == NOT_FINITE
    values = case.inputs["x"]
    assert np.isnan(values[[0, 4]]).sum(axis=1).tolist() == [1, 1]
    assert np.isposinf(values[[1, 5]]).sum(axis=1).tolist() == [1, 1]
    assert np.isneginf(values[2]).sum() == 1
    assert np.isfinite(values[3]).all()
    assert np.count_nonzero(~np.isfinite(values)) == 5
    again = Planner(clipped().graph).spoiled(planner.case(2, {"batch": 6}))
    assert again is not None
    np.testing.assert_array_equal(values, again.inputs["x"])


def test_a_graph_that_takes_no_floats_says_so() -> None:
    b = GraphBuilder("ids")
    b.output("y", b.op("embedding", b.input("ids", "int64", ["batch"]), b.parameter("table", "float32", [5, 3])))
    model = Model(b.graph(), InMemoryParameters({"table": np.eye(5, 3, dtype=np.float32)}))
    report = verify(model, ["numpy"], nonfinite=True)
    assert report
    assert any("no input takes NaN or infinities" in note for note in report.notes)


def test_nonfinite_on_the_command_line(here: Path) -> None:
    cases = {row["case"] for row in json.loads(run("verify", "m.json", "--nonfinite", "--json").stdout)["rows"]}
    assert {case for case in cases if case.endswith("not finite")}
    cases = {row["case"] for row in json.loads(run("verify", "m.json", "--json").stdout)["rows"]}
    assert not {case for case in cases if case.endswith("not finite")}


def test_masks_of_all_of_none_and_ragged() -> None:
    b = GraphBuilder("masked")
    mask = b.input("mask", "bool", ["batch", "time"])
    b.output("y", b.op("sum", b.op("astype", mask, dtype=converter.ir.DType.FLOAT32), axis=(1,), keepdims=False))
    planner = Planner(b.graph())
    rows = np.concatenate([planner.case(index, {"batch": 5, "time": 9}).inputs["mask"] for index in range(6)])
    counts = set(rows.sum(axis=1).tolist())
    assert {0, 9} <= counts
    assert len(counts) > 3
    assert any(not np.array_equal(row, np.sort(row)[::-1]) for row in rows)  # some have holes


@pytest.mark.parametrize(("dtype", "turns", "hides"), [
    ("bool", (), True), ("bool", ("turned",), False), ("bool", ("turned", "turned"), True), ("int64", ("zero",), False),
    ("int64", ("nonzero",), True), ("bool", ("cast",), True),
])
def test_a_mask_that_hides_where_it_is_true_leaves_something_to_see_in_every_row(dtype: str, turns: tuple[str, ...], hides: bool) -> None:
    b = GraphBuilder("masked")
    x, mask = b.input("x", "float32", ["batch", "time"]), b.input("mask", dtype, ["batch", "time"])
    turned = {"zero": ("equal", (0,), {}), "nonzero": ("not_equal", (0,), {}), "cast": ("astype", (), {"dtype": converter.ir.DType.BOOL}),
              "turned": ("logical_not", (), {})}
    for turn in turns:
        op, operands, attributes = turned[turn]
        mask = b.op(op, mask, *operands, **attributes)
    b.output("y", b.op("softmax", b.op("where", mask, float("-inf"), x), axis=-1))
    planner = Planner(b.graph())
    cases = [planner.case(index, {"batch": 5, "time": 9}).inputs["mask"].astype(bool) for index in range(6)]
    seen = [~case if hides else case for case in cases]
    assert all(case[:, 0].all() for case in seen[:3])
    assert not any(case.all() for case in seen)
    assert any(not case.any() for case in seen[3])


def test_factored_matrices_have_no_rows_of_zeros() -> None:
    b = GraphBuilder("factored")
    b.output("lu", b.op("lu_factor", b.input("x", "float32", ["batch", 4, 4])))
    values = Planner(b.graph()).case(3).inputs["x"]
    assert np.abs(values).max(axis=(1, 2)).min() > 0.5


# 4: where it goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.json", "model.onnx"])
def test_the_reduced_part_fails_alone_as_either_file(here: Path, file: str) -> None:
    spec = ("--module", "promised:build", "--input", INPUT)
    run("torch-to-json", "-o", "own.json", *spec)
    model = converter.load("own.json")
    nodes = tuple(replace(node, attributes={**node.attributes, "eps": 1e-2}) if node.op == "layer_norm" else node
                  for node in model.graph.nodes)
    converter.save(replace(model, graph=replace(model.graph, nodes=nodes)), "wrong.json")
    output = run("verify", "wrong.json", *spec, "--reduce", "part", code=1).output
    assert "layer_norm" in output
    assert "part" in output
    part = converter.load(Path("part") / file)
    assert [node.op for node in part.graph.nodes] == ["layer_norm"]
    sys.modules.pop("promised")
    Path("promised.py").unlink()
    assert "recorded" in run("verify", f"part/{file}", "--cases", "0", code=1).output.lower()
    assert f"convert verify {file}" in Path("part/README.txt").read_text()


def test_a_recording_that_fails_says_why_no_node_is_named(here: Path) -> None:
    """Only outputs are recorded, so that no value within the graph can be held against PyTorch's."""
    report = json.loads(run("verify", "bad.json", "--json", code=1).stdout)
    (location,) = [item for item in report["locations"] if item["stage"] == "recorded"]
    assert location["index"] is None
    assert "--module" in location["reason"]


# The table ---------------------------------------------------------------------------------------------------------------


def test_the_table_of_promises_names_tests_that_exist() -> None:
    folder = Path(__file__).parents[1]
    text = (folder.parent / "docs" / "equivalence.md").read_text(encoding="utf-8")
    table = text[text.index("## What is promised"):]
    sources = {path.name: path.read_text(encoding="utf-8") for path in folder.rglob("test_*.py")}
    files, names = re.findall(r"`(test_\w+\.py)`", table), re.findall(r"`(test_\w+)`", table)
    assert len(names) > 20
    assert set(files) <= set(sources)
    assert not [name for name in names if not any(f"def {name}(" in source for source in sources.values())]
