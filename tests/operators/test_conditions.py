"""Conditions between sizes: their normal form, files that hold them, and every runtime's refusal of sizes that do not meet them."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import converter
from converter.builder import GraphBuilder
from converter.conditions import Condition, compare, ordered, parse_condition, strongest, unmet
from converter.dims import symbol
from converter.errors import ConverterError, FormatError, GraphError, RunError
from converter.format import graph_digest, load_hdf5, load_json, save_hdf5, save_json
from converter.ir import DimRange, Model
from converter.parameters import InMemoryParameters

NORMAL = {
    "b >= a": "b >= a", "a<=b": "b >= a", "0 == q % k": "q % k == 0", "b != a": "a != b", "3 >= a": "a <= 3", "2 - a == b": "a + b == 2",
    "0 <= a - b - 1": "a >= b + 1", "512 >= past + time": "past + time <= 512", "max(a, 3) - b >= 0": "max(3, a) >= b",
    "-a == -2*b": "2*b == a",
}


@pytest.mark.parametrize("text", NORMAL)
def test_a_condition_has_one_text(text: str) -> None:
    found = parse_condition(text)
    assert str(found) == NORMAL[text]
    assert parse_condition(str(found)) == found


@pytest.mark.parametrize(("text", "sizes", "met"), [
    ("b >= a", {"a": 3, "b": 3}, True), ("b >= a", {"a": 4, "b": 3}, False), ("q % k == 0", {"q": 6, "k": 4}, False),
    ("q % k == 0", {"q": 6, "k": 3}, True), ("q % k == 0", {"q": 6, "k": 0}, False), ("a != 7", {"a": 7}, False),
    ("a*a*a*a >= b", {"a": 2**52, "b": 2**53}, True)])
def test_conditions_are_met_or_not(text: str, sizes: dict[str, int], met: bool) -> None:
    assert parse_condition(text).holds(sizes) is met
    assert (unmet([parse_condition(text)], sizes) == []) is met


def test_comparisons_without_sizes_are_known() -> None:
    a = symbol("a")
    assert compare(a, "<", a + 1) is True
    assert compare(a, "==", a + 1) is False
    assert compare(2, "!=", 2) is False
    assert compare(a, ">", 3) == parse_condition("a >= 4")
    with pytest.raises(GraphError, match="has no value"):
        parse_condition("a >= b").holds({"a": 3})


@pytest.mark.parametrize(("conditions", "kept"), [
    (["2*b >= 2*a", "b >= a"], ["b >= a"]), (["b + 1 >= a", "b >= a"], ["b >= a"]), (["2*a >= 2*b + 1", "a >= b"], ["2*a >= 2*b + 1"]),
    (["a == b", "b >= a", "a >= b", "a != b + 1"], ["a == b"]), (["2*a == 4*b", "a == 2*b"], ["2*b == a"]),
    (["a == b + 1", "b >= a"], ["a == b + 1", "b >= a"]), (["a != b", "b >= a", "b >= c"], ["a != b", "b >= a", "b >= c"])])
def test_a_condition_that_another_says_too_is_left_out(conditions: list[str], kept: list[str]) -> None:
    assert list(map(str, strongest(map(parse_condition, conditions)))) == kept


def shorter(*conditions: str, dims: dict[str, DimRange] | None = None) -> Model:
    """The sum of all of a beside the mean of b, which is not shorter."""
    b = GraphBuilder("shorter", dims)
    first, second = b.input("a", "float32", ["n"]), b.input("b", "float32", ["m"])
    b.output("y", b.op("add", b.op("sum", first, axis=(0,)), b.op("mean", second, axis=(0,))))
    for condition in conditions:
        b.require(condition)
    return Model(b.graph(), InMemoryParameters())


def arrays(n: int, m: int) -> dict[str, Any]:
    return {"a": np.ones(n, np.float32), "b": np.ones(m, np.float32)}


def test_files_hold_conditions(tmp_path: Path) -> None:
    model, plain = shorter("m >= n", "m % 2 == 0", "n <= m"), shorter()
    assert list(map(str, model.graph.requires)) == ["m % 2 == 0", "m >= n"]
    for name in ("m.json", "m.h5"):
        (save_json if name == "m.json" else save_hdf5)(model, tmp_path / name)
        found = (load_json if name == "m.json" else load_hdf5)(tmp_path / name, verify=True)
        assert found.graph == model.graph
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["graph"]["requires"] == ["m % 2 == 0", "m >= n"]
    document["graph"]["requires"] = ["m - n >= 0", "0 == m % 2", "n <= m"]  # the same, written by hand
    (tmp_path / "m.json").write_text(json.dumps(document))
    assert graph_digest(load_json(tmp_path / "m.json", verify=True).graph) == graph_digest(model.graph) != graph_digest(plain.graph)
    save_json(plain, tmp_path / "plain.json")
    text = (tmp_path / "plain.json").read_text()
    assert "requires" not in text


def test_a_file_of_an_older_reader_names_what_is_new(tmp_path: Path) -> None:
    save_json(shorter("m >= n"), tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    document["graph"]["demands"] = document["graph"].pop("requires")
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match="demands"):
        load_json(tmp_path / "m.json")


@pytest.mark.parametrize("runtime", ["reference", "numpy", "onnxruntime", "torch"])
def test_every_runtime_refuses_sizes_at_the_door(runtime: str) -> None:
    session = converter.session(shorter("m >= n", dims={"n": DimRange(2)}), runtime=runtime)
    np.testing.assert_allclose(session.run(arrays(3, 3))["y"], 4.0)
    with pytest.raises(RunError, match=r"do not go together. Expected: m >= n. Received: m=3, n=4"):
        session.run(arrays(4, 3))


def test_an_onnx_file_keeps_conditions(tmp_path: Path) -> None:
    converter.save(shorter("m >= n"), tmp_path / "m.onnx")
    found = converter.load(tmp_path / "m.onnx")
    assert list(map(str, found.graph.requires)) == ["m >= n"]
    with pytest.raises(RunError, match="m >= n"):
        converter.session(tmp_path / "m.onnx", runtime="onnxruntime").run(arrays(4, 3))


def test_a_rebuilt_module_refuses_sizes() -> None:
    module = converter.to_torch(shorter("m >= n", "m % n == 0", dims={"n": DimRange(2, 9)}))
    copied = pickle.loads(pickle.dumps(module))
    for each in (module, copied):
        assert each(torch.ones(3), torch.ones(6))["y"] == 4
        for n, m, condition in ((8, 0, "m >= n"), (4, 6, "m % n == 0"), (1, 4, "n >= 2"), (10, 20, "n <= 9")):
            with pytest.raises(RunError, match=condition):
                each(torch.ones(n), torch.ones(m))


def looped(*conditions: str) -> Model:
    """What `shorter` gives, in a body of a condition that passes a and b on."""
    inner = replace(shorter(*conditions).graph, name="body")
    b = GraphBuilder("looped")
    first, second, flag = b.input("a", "float32", ["k"]), b.input("b", "float32", ["l"]), b.input("flag", "bool", [])
    b.output("y", b.op("cond", flag, first, second, then_branch=inner, else_branch=replace(inner, requires=())))
    return Model(b.graph(), InMemoryParameters())


@pytest.mark.parametrize("runtime", ["reference", "numpy", "torch"])
def test_bodies_check_their_conditions_when_they_run(runtime: str) -> None:
    session = converter.session(looped("m >= n"), runtime=runtime)
    assert session.run({**arrays(4, 3), "flag": np.array(False)})["y"] == 5
    assert session.run({**arrays(3, 3), "flag": np.array(True)})["y"] == 4
    with pytest.raises(ConverterError, match="m >= n"):
        session.run({**arrays(4, 3), "flag": np.array(True)})


def test_onnx_refuses_what_it_cannot_check_in_a_body() -> None:
    with pytest.raises(ConverterError, match="ONNX cannot check"):
        converter.session(looped("m >= n"), runtime="onnxruntime")


def test_conditions_in_an_order() -> None:
    found = ordered([parse_condition("b >= a"), parse_condition("a == 3"), parse_condition("a <= b")])
    assert [str(item) for item in found] == ["a == 3", "b >= a"]
    assert all(isinstance(item, Condition) for item in found)
