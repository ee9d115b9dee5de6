"""diff of models whose names, layouts and exporters differ: what is the same under another name, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

import converter
from converter.cli.main import cli
from converter.matched_graphs import graph_changes
from converter.matched_parameters import low_rank, match_parameters, related
from converter.parameters import InMemoryParameters

generator = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def the_same_numbers() -> None:
    """Whatever other tests are run."""
    global generator
    generator = np.random.default_rng(0)


def drawn(*shape: int, dtype: str = "float32") -> np.ndarray:
    return generator.normal(size=shape).astype(dtype)


def test_parameters_are_matched_by_what_they_hold() -> None:
    query, key, value, table, bias = drawn(4, 6), drawn(4, 6), drawn(2, 6), drawn(3, 5), drawn(7)
    a = InMemoryParameters({"same": bias, "q": query, "k": key, "v": value, "table": table, "moved": table * 2, "half": bias * 3,
                            "flat": drawn(4, 1), "alone": drawn(9)})
    b = InMemoryParameters({"same": bias, "qkv": np.concatenate([query, key, value]).T.copy(), "turned": table.T.copy(), "other": table * 2,
                            "narrow": (bias * 3).astype("float16"), "column": a.read("flat").reshape(1, 4),
                            "new": drawn(9)})
    found = {str(item["a"]): (item["b"], item["how"]) for item in match_parameters(a, b)}
    # Of two dimensions a column and a row are each other's transposes.
    assert found == {"moved": ("other", "renamed"), "table": ("turned", "transposed"), "half": ("narrow", "cast"),
                     "['q', 'k', 'v']": ("qkv", "fused"), "flat": ("column", "transposed")}
    twice = InMemoryParameters({"same": bias, "again": bias.copy()})
    assert list(match_parameters(InMemoryParameters({"same": bias}), twice)) == [{"a": "same", "b": "again", "how": "shared"}]
    back = [item for item in match_parameters(b, a) if item["how"] == "fused"]
    assert back == [{"a": "qkv", "b": ["q", "k", "v"], "how": "fused"}]


def test_a_part_that_is_missing_is_no_fusion() -> None:
    query, key, value = drawn(4, 6), drawn(4, 6), drawn(2, 6)
    whole = np.concatenate([query, key, value])
    assert not list(match_parameters(InMemoryParameters({"q": query, "k": key}), InMemoryParameters({"qkv": whole})))
    changed = whole.copy()
    changed[5, 1] += 1
    assert not list(match_parameters(InMemoryParameters({"q": query, "k": key, "v": value}), InMemoryParameters({"qkv": changed})))


def test_layouts_of_one_name() -> None:
    weight = drawn(4, 6)
    assert related(weight, weight.T.copy()) == "transposed"
    assert related(weight, weight.reshape(2, 12)) == "reshaped"
    assert related(weight, weight.astype("float16")) == "cast"
    assert related(weight, weight.T.copy() + 1) is None


@pytest.mark.parametrize(("rank", "dtype", "scale"), [(1, "float32", 1.0), (4, "float32", 1e-2), (8, "float16", 1.0),
                                                      (12, "float64", 1e-6)])
def test_a_merged_adapter_is_told_by_its_rank(rank: int, dtype: str, scale: float) -> None:
    before = drawn(80, 64, dtype=dtype)
    after = (before.astype("float64") + scale * drawn(80, rank, dtype="float64") @ drawn(rank, 64, dtype="float64")).astype(dtype)
    assert low_rank(before, after) == rank


def test_other_changes_have_no_rank() -> None:
    before = drawn(80, 64)
    assert low_rank(before, before) is None
    assert low_rank(before, before + drawn(80, 64) / 10) is None
    assert low_rank(before, before * np.float32("inf")) is None
    assert low_rank(drawn(9), drawn(9)) is None


def exported(path: Path, turned: bool, first: str, weight: np.ndarray, activation: str = "Relu") -> Path:
    """A layer and an activation, as a product and a sum or as one node, under names of their own."""
    if turned:
        nodes = [helper.make_node("Gemm", ["x", f"{first}.weight", "bias"], ["h"], transB=1)]
        held = {f"{first}.weight": weight, "bias": np.ones(3, np.float32)}
    else:
        nodes = [helper.make_node("MatMul", ["x", f"{first}.kernel"], ["m"]), helper.make_node("Add", ["m", "bias"], ["h"])]
        held = {f"{first}.kernel": weight.T.copy(), "bias": np.ones(3, np.float32)}
    graph = helper.make_graph([*nodes, helper.make_node(activation, ["h"], ["y"])], "graph",
                              [helper.make_tensor_value_info("x", 1, ["rows" if turned else "batch", 5])],
                              [helper.make_tensor_value_info("y", 1, ["rows" if turned else "batch", 3])],
                              [numpy_helper.from_array(array, name) for name, array in held.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_two_exports_of_one_model_have_the_same_parameters_and_nodes(tmp_path: Path) -> None:
    weight = drawn(3, 5)
    one, two = exported(tmp_path / "a.onnx", True, "layer", weight), exported(tmp_path / "b.onnx", False, "dense", weight)
    result = CliRunner().invoke(cli, ["diff", str(one), str(two), "--json", "--run"])
    found = json.loads(result.stdout)
    assert result.exit_code == 1  # names differ
    assert (found["parameters"], found["matched"]) == ([], [{"a": "layer.weight", "b": "dense.kernel", "how": "renamed"}])
    assert {kind: found["nodes"][kind] for kind in ("removed", "added", "changed")} == {"removed": [], "added": [], "changed": []}
    assert found["behaviour"] == "the same within rounding"
    text = CliRunner().invoke(cli, ["diff", str(one), str(two)]).output
    assert "the same 2 nodes" in text
    assert "none differs in what it holds" in text


def test_a_node_that_changed_is_named_and_what_it_does(tmp_path: Path) -> None:
    weight = drawn(3, 5)
    one, two = (exported(tmp_path / f"{name}.onnx", True, "layer", weight, name) for name in ("Relu", "Tanh"))
    result = CliRunner().invoke(cli, ["diff", str(one), str(two), "--run"])
    assert result.exit_code == 1
    assert "1 only in A, 1 only in B" in result.output
    assert "- relu" in result.output
    assert "+ tanh" in result.output
    assert "Behaviour: y: " in result.output
    changes = graph_changes(converter.load(one).graph, converter.load(one).graph, {})
    assert not changes["removed"]
    assert not changes["changed"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_each_parameter_is_read_a_few_times_however_many_there_are(dtype: str) -> None:
    reads: dict[str, int] = {}

    class Counted(InMemoryParameters):
        def read(self, name: str) -> np.ndarray:
            reads[name] = reads.get(name, 0) + 1
            return super().read(name)

    shapes = [(8, 8)] * 20 + [(24, 8)] * 20
    ours = Counted({f"a{place}": drawn(*shape) for place, shape in enumerate(shapes)})
    theirs = Counted({f"b{place}": drawn(*shape, dtype=dtype) for place, shape in enumerate(shapes)})
    assert list(match_parameters(ours, theirs)) == []
    assert max(reads.values()) <= 6


def test_graphs_too_large_to_align_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.matched_graphs.MOST", 1)
    monkeypatch.setattr("converter.cli.diff.MOST", 1)
    fixtures = Path(__file__).parents[2] / "fixtures"
    done = CliRunner().invoke(cli, ["diff", str(fixtures / "elman" / "model.json"), str(fixtures / "mlp_digits" / "model.json")])
    assert done.exit_code == 1
    assert "more; --json lists all" in done.output
    assert "\n  -name: " in done.output


def test_parameters_alone_are_not_run(tmp_path: Path) -> None:
    fixture = Path(__file__).parents[2] / "fixtures" / "elman"
    done = CliRunner().invoke(cli, ["diff", str(fixture / "model.json"), str(fixture / "checkpoint.pt"), "--run"])
    assert (done.exit_code, "cannot be run" in done.output) == (2, True)
