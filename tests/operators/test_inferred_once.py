"""Shapes are inferred once for a graph, and anew for what would change them."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import converter
from converter import checking
from converter.builder import GraphBuilder
from converter.checking import check
from converter.equal_sizes import taken_as_equal
from converter.errors import GraphError
from converter.format import save_json
from converter.ir import Model, TensorSpec
from converter.parameters import InMemoryParameters


def layer() -> Model:
    b = GraphBuilder("layer")
    x = b.input("x", "float32", ["n", 4])
    y = b.op("batch_norm", x, *(b.parameter(name, "float32", [4]) for name in ("mean", "variance", "weight", "bias")))
    b.output("y", b.op("relu", b.op("add", y, b.input("other", "float32", ["m", 4]))))
    values = np.random.default_rng(0).uniform(0.5, 1.5, (4, 4)).astype(np.float32)
    return Model(b.graph(), InMemoryParameters(dict(zip(("mean", "variance", "weight", "bias"), values, strict=True))))


def test_loading_and_verifying_infers_each_node_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_json(layer(), tmp_path / "model.json")
    counts: Counter[str] = Counter()
    infer = checking.infer_node
    monkeypatch.setattr(checking, "infer_node", lambda node, specs: counts.update([str(node)]) or infer(node, specs))
    model = converter.load(tmp_path / "model.json")
    assert converter.verify(model, "numpy")
    assert set(counts.values()) == {1}
    assert len(counts) == len(model.graph.nodes)


def test_what_it_was_inferred_for_is_part_of_the_answer() -> None:
    graph = layer().graph
    specs = {name: TensorSpec.of("float32", [4]) for name in ("mean", "variance", "weight", "bias")}
    assert check(graph, specs) == check(graph, dict(specs))
    with pytest.raises(GraphError):
        check(graph, {**specs, "weight": TensorSpec.of("float32", [5])})
    with pytest.raises(GraphError):
        check(graph, {name: spec for name, spec in specs.items() if name != "bias"})
    assert check(graph, specs)["relu"].shape[1] == 4


def test_nobody_writes_what_others_read() -> None:
    model = layer()
    specs = check(model.graph, model.parameters)
    with pytest.raises(TypeError):
        specs["x"] = specs["mean"]  # type: ignore[index]


def test_sizes_that_are_taken_as_equal_are_collected_every_time() -> None:
    model = layer()
    found = []
    for _ in range(3):
        with taken_as_equal() as pairs:
            check(model.graph, model.parameters)
        found.append(dict(pairs))
        check(model.graph, model.parameters)
    assert found[0] == found[1] == found[2]


def test_a_graph_that_was_checked_is_copied_and_compared_as_before() -> None:
    model, other = layer(), layer()
    check(model.graph, model.parameters)
    assert model.graph == other.graph
    for twin in (copy.deepcopy(model.graph), pickle.loads(pickle.dumps(model.graph))):
        assert twin == other.graph
        assert check(twin, model.parameters) == check(other.graph, other.parameters)
