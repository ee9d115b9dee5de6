"""diff of models whose names, layouts and exporters differ: what is the same under another name, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

import converter
from converter.checkpoint import load_parameters
from converter.cli.main import cli
from converter.compared_parameters import blocks, distance, low_rank, pairs, parameter_differences
from converter.matched_graphs import graph_changes
from converter.matched_parameters import match_parameters, related
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
    for other, how in ((weight.T.copy(), "transposed"), (weight.reshape(2, 12), "reshaped"), (weight.astype("float16"), "cast"),
                       (weight.T.copy() + 1, None)):
        ours, theirs = InMemoryParameters({"w": weight}), InMemoryParameters({"w": other})
        assert related(ours, theirs, "w") == related(theirs, ours, "w") == how


def rank_of(before: np.ndarray, after: np.ndarray) -> int | None:
    ours, theirs = InMemoryParameters({"w": before}), InMemoryParameters({"w": after})
    return low_rank(lambda count: pairs((ours, "w"), (theirs, "w"), count), before.shape, before.dtype)


@pytest.mark.parametrize(("rank", "dtype", "scale"), [(1, "float32", 1.0), (4, "float32", 1e-2), (8, "float16", 1.0),
                                                      (12, "float64", 1e-6)])
def test_a_merged_adapter_is_told_by_its_rank(rank: int, dtype: str, scale: float) -> None:
    before = drawn(80, 64, dtype=dtype)
    after = (before.astype("float64") + scale * drawn(80, rank, dtype="float64") @ drawn(rank, 64, dtype="float64")).astype(dtype)
    assert rank_of(before, after) == rank


def test_other_changes_have_no_rank() -> None:
    before = drawn(80, 64)
    assert rank_of(before, before) is None
    assert rank_of(before, before + drawn(80, 64) / 10) is None
    assert rank_of(before, before * np.float32("inf")) is None
    assert rank_of(drawn(9), drawn(9)) is None


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
    assert found["behaviour"] == {"verdict": "the same"}
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
    assert "Behaviour: different: y, seed 0, case 0: " in result.output
    assert "; first at node 1, relu -> y" in result.output
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


def attention(path: Path, bias: bool, hides: float, scale: float = 1.0) -> Path:
    """softmax(t t^T + mask) t of t = tanh 2^20 x, and a layer, the mask [batch, keys] being what a row of zeros makes `hides`."""
    nodes = [helper.make_node("Mul", ["x", "large"], ["wide_x"]), helper.make_node("Tanh", ["wide_x"], ["t"]),
             helper.make_node("Cast", ["mask"], ["seen"], to=1),
             helper.make_node("Sub", ["one", "seen"], ["unseen"]),
             helper.make_node("Mul", ["unseen", "hides"], ["added"]), helper.make_node("Unsqueeze", ["added", "axis"], ["wide"]),
             helper.make_node("Transpose", ["t"], ["turned"], perm=[0, 2, 1]), helper.make_node("MatMul", ["t", "turned"], ["scores"]),
             helper.make_node("Add", ["scores", "wide"], ["masked"]), helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
             helper.make_node("MatMul", ["weights", "t"], ["mixed"]), helper.make_node("MatMul", ["mixed", "layer"], ["mul"]),
             *([helper.make_node("Add", ["mul", "layer_bias"], ["y"])] if bias else [helper.make_node("Identity", ["mul"], ["y"])])]
    nodes = [*(helper.make_node("Constant", [], [name], value_float=value)
               for name, value in (("one", 1.0), ("hides", hides), ("large", 2.0 ** 20))), *nodes]
    held = {"axis": np.array([1]), "layer": scale * np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3),
            **({"layer_bias": np.zeros(3, np.float32)} if bias else {})}
    graph = helper.make_graph(nodes, "graph", [helper.make_tensor_value_info("x", 1, ["batch", "time", 8]),
                                               helper.make_tensor_value_info("mask", 7, ["batch", "time"])],
                              [helper.make_tensor_value_info("y", 1, ["batch", "time", 3])],
                              [numpy_helper.from_array(array, name) for name, array in held.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def compared(tmp_path: Path, *options: dict[str, float], code: int = 1, arguments: tuple[str, ...] = ()) -> dict[str, Any]:
    files = [str(attention(tmp_path / f"{place}.onnx", place == 1, **given)) for place, given in enumerate(options)]
    done = CliRunner().invoke(cli, ["diff", *files, "--json", "--run", *arguments])
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_rows_that_a_mask_hides_are_told_apart(tmp_path: Path) -> None:
    """One exporter adds -10000 and another the least number: where all is hidden the one attends as if nothing were, the other evenly."""
    found = compared(tmp_path, {"hides": -10000.0}, {"hides": float(np.finfo(np.float32).min)})
    assert found["behaviour"]["verdict"] == "the same"
    assert found["behaviour"]["hidden"] == ["mask"]


def test_other_differences_are_no_matter_of_masks(tmp_path: Path) -> None:
    found = compared(tmp_path, {"hides": -1e4}, {"hides": -1e4, "scale": 1.001})
    assert found["behaviour"]["verdict"] == "different"
    assert "linear" in found["behaviour"]["node"]


def test_a_bias_of_zeros_that_one_side_leaves_out_is_no_difference(tmp_path: Path) -> None:
    found = compared(tmp_path, {"hides": -1e4}, {"hides": -1e4})
    assert found["parameters"] == []
    assert [item for item in found["matched"] if "zeros" in item["how"]] == [{"a": "", "b": "layer_bias",
                                                                              "how": "zeros that the other leaves out"}]
    assert found["behaviour"] == {"verdict": "the same"}


def test_the_page_holds_what_was_found_and_no_markup_of_a_name(tmp_path: Path) -> None:
    a, b = (str(tmp_path / name) for name in ("a.safetensors", "b<script>.safetensors"))
    weight = drawn(80, 64)
    converter.save(InMemoryParameters({"w": weight, "old": weight * 2}), a)  # type: ignore[arg-type]
    changed = weight + drawn(80, 2) @ drawn(2, 64)
    converter.save(InMemoryParameters({"w": changed, "new<b>": weight * 2}), b)  # type: ignore[arg-type]
    page = tmp_path / "diff.html"
    assert CliRunner().invoke(cli, ["diff", a, b, "--html", str(page), "--quiet"]).exit_code == 1
    text = page.read_text()
    for said in ("Different", "new&lt;b&gt;", "a change of rank 2", "5,120 of 5,120 values differ", "renamed"):
        assert said in text
    assert "<script" not in text
    assert CliRunner().invoke(cli, ["diff", a, a, "--html", str(page)]).exit_code == 0
    assert "The same" in page.read_text()


@pytest.mark.parametrize("suffix", ["h5", "json", "safetensors", "onnx"])
def test_parameters_are_compared_in_blocks_whatever_holds_them(tmp_path: Path, suffix: str) -> None:
    held = {"w": drawn(300, 70), "half": drawn(33).astype("float16"), "whole": np.arange(9), "one": np.array(2.5), "none": drawn(0, 4)}
    builder = converter.GraphBuilder("g")
    for name, array in held.items():
        builder.output(f"{name}_out", builder.op("negative", builder.parameter(name, str(array.dtype), array.shape)))
    model = converter.Model(builder.graph(), InMemoryParameters(held))
    converter.save(model, tmp_path / f"m.{suffix}")
    store = load_parameters(tmp_path / f"m.{suffix}") if suffix == "safetensors" else converter.load(tmp_path / f"m.{suffix}").parameters
    for name, array in held.items():
        np.testing.assert_array_equal(np.concatenate([np.empty(0, array.dtype), *(block.copy() for block in blocks(store, name, 1000))]),
                                      array.reshape(-1))
    other = InMemoryParameters({**held, "w": np.where(np.arange(70) == 69, held["w"] + np.float32(0.5), held["w"])})
    assert distance(pairs((store, "w"), (other, "w"), 1000)) == {"count": 300, "of": 21000, "max_abs": pytest.approx(0.5, rel=1e-6)}
    assert distance(pairs((store, "half"), (other, "half"))) is None


def test_matrices_beside_an_onnx_file_are_compared_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their layout: a turned weight is read by columns."""
    monkeypatch.setattr("converter.parameters.COLUMNS", 1000)
    weight = drawn(30, 50)
    files = []
    for place, change in enumerate((0.0, 0.25)):
        values = weight.copy()
        values[7, 9] += change
        proto = onnx.load(exported(tmp_path / "a.onnx", False, "layer", drawn(3, 5)))
        del proto.graph.initializer[:]
        proto.graph.initializer.extend([numpy_helper.from_array(values, "layer.kernel"), numpy_helper.from_array(values[0], "bias")])
        proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, ["n", 30]))
        proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 50]))
        files.append(str(tmp_path / f"{place}.onnx"))
        onnx.save(proto, files[-1], save_as_external_data=True, location=f"{place}.data", size_threshold=0)
    stores = [converter.load(file).parameters for file in files]
    reads: list[str] = []
    monkeypatch.setattr(type(stores[0]), "read", lambda self, name: reads.append(name))
    (found,) = parameter_differences(*stores)
    assert (found["name"], found["count"], found["max_abs"], found["rank"]) == ("layer.kernel", 1, 0.25, 1)
    assert reads == []
