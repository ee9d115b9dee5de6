"""Where it goes wrong: the node that a failing report names, and the part of the model that fails by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import converter
from adapters.numpy.session import NumpySession
from adapters.torch.run import ProgramSource
from adapters.torch.tracing.trace import Program, trace
from converter import reference
from converter.builder import GraphBuilder
from converter.checking import check
from converter.equivalence import verify
from converter.equivalence.bisect import statistics, walk
from converter.equivalence.locate import AGREES, FUSED
from converter.equivalence.memory import Kept, groups
from converter.equivalence.reduction import Reduced, reduce, write
from converter.footprint import peak_bytes
from converter.ir import Model, Node
from converter.parameters import InMemoryParameters

Array = np.ndarray[Any, Any]
Factory = Callable[[Model], Any]


def chain(length: int = 12, faulty: int | None = None) -> Model:
    """x -> a chain of linear and tanh nodes; node `faulty` has a source line of its own."""
    b = GraphBuilder("chain")
    x = b.input("x", "float32", ["batch", 6])
    generator = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for index in range(length):
        if index % 2:
            x = b.op("tanh", x)
        else:
            arrays[f"{index}.weight"] = generator.standard_normal((6, 6)).astype(np.float32)
            x = b.op("linear", x, b.parameter(f"{index}.weight", "float32", [6, 6]))
    b.output("y", x)
    graph = b.graph()
    nodes = tuple(replace(node, source=f"chain.py:{index}") for index, node in enumerate(graph.nodes))
    return Model(replace(graph, nodes=nodes), InMemoryParameters(arrays))


def wrong_at(*sources: str) -> Factory:
    """A runtime whose nodes of these source lines compute something else: 1.001 times what they should."""

    def spoilt(node: Node) -> list[Node]:
        if node.source not in sources:
            return [node]
        inner = f"{node.outputs[0]} as it should be"
        return [replace(node, outputs=(inner,)), Node("multiply", (inner, 1.001), node.outputs)]

    def factory(model: Model) -> Any:
        nodes = tuple(new for node in model.graph.nodes for new in spoilt(node))
        return NumpySession(replace(model, graph=replace(model.graph, nodes=nodes)))

    return factory


@pytest.mark.parametrize("index", [0, 5, 11])
def test_the_node_and_its_line_are_named(index: int) -> None:
    report = verify(chain(), {"bad": wrong_at(f"chain.py:{index}"), "numpy": "numpy"})
    assert not report
    (location,) = report.locations
    assert (location.subject, location.index, location.source) == ("bad", index, f"chain.py:{index}")
    assert location.op == ("tanh" if index % 2 else "linear")
    assert location.statistics["differing"] > 0
    assert f"chain.py:{index}" in str(report)


def test_a_report_that_holds_names_no_place() -> None:
    report = verify(chain(), ["numpy"])
    assert report
    assert report.locations == []


@pytest.mark.parametrize("index", [3, 8])
def test_the_part_that_fails_is_written_and_repeats_the_failure(tmp_path: Path, index: int) -> None:
    factory = wrong_at(f"chain.py:{index}")
    report = verify(chain(), {"bad": factory}, parts=tmp_path / "part")
    (location,) = report.locations
    assert "(1 node)" in location.part
    assert {path.name for path in (tmp_path / "part").iterdir()} == {"model.json", "model.onnx", "inputs.npz", "README.txt"}
    part = converter.load(tmp_path / "part" / "model.json")
    assert [node.op for node in part.graph.nodes] == [location.op]
    with np.load(tmp_path / "part" / "inputs.npz") as content:
        inputs = dict(content)
    assert not verify(part, {"bad": factory}, inputs=inputs, cases=0)
    assert verify(part, ["numpy", "onnxruntime"], inputs=inputs, cases=0)
    assert "convert verify model.json --input-file inputs.npz --cases 0" in (tmp_path / "part" / "README.txt").read_text()


def test_a_fault_of_two_nodes_together_is_reduced_to_both() -> None:
    """A runtime that goes wrong only where it has tanh and the linear after it in one graph, as a fusion would."""

    def factory(model: Model) -> Any:
        ops = [node.op for node in model.graph.nodes]
        pairs = [index for index in range(1, len(ops)) if ops[index - 1:index + 1] == ["tanh", "linear"]]
        hidden = {output.value for output in model.graph.outputs}
        fused = [model.graph.nodes[index].source for index in pairs if model.graph.nodes[index - 1].outputs[0] not in hidden]
        return wrong_at(*map(str, fused))(model)

    report = verify(chain(), {"fusing": factory}, cases=2)
    assert not report
    assert report.locations[0].reason == FUSED

    def fails(part: Model, arrays: Any) -> bool:
        return not verify(part, {"fusing": factory}, inputs=arrays, cases=0, locate=False)

    base = chain()
    found = reduce(base, {"x": np.ones((2, 6), np.float32)}, base.graph.outputs[0].value, fails)
    assert found is not None
    assert [node.op for node in found.model.graph.nodes] == ["tanh", "linear", "tanh"]


def test_a_session_that_is_given_as_it_is_has_no_place() -> None:
    report = verify(chain(), {"bad": wrong_at("chain.py:2")(chain())})
    assert report.locations[0].index is None
    assert "session" in report.locations[0].reason


def test_sizes_that_the_part_needs_are_bound() -> None:
    """A cut whose shape is an expression of a size that only an input of the whole graph has by itself."""
    b = GraphBuilder("cut")
    x = b.input("x", "float32", ["batch", "time"])
    doubled = b.op("concat", x, x, axis=1)
    b.output("y", b.op("exp", b.op("tanh", doubled)))
    base = Model(b.graph(), InMemoryParameters())
    nodes = tuple(replace(node, source=f"cut.py:{index}") for index, node in enumerate(base.graph.nodes))
    base = replace(base, graph=replace(base.graph, nodes=nodes))

    def fails(part: Model, arrays: Any) -> bool:
        return not verify(part, {"bad": wrong_at("cut.py:2")}, inputs=arrays, cases=0, locate=False)

    found = reduce(base, {"x": np.ones((2, 3), np.float32)}, "y" if any("y" in node.outputs for node in base.graph.nodes)
                   else base.graph.outputs[0].value, fails)
    assert found is not None
    assert [node.op for node in found.model.graph.nodes] == ["exp"]
    assert {port.name for port in found.model.graph.inputs} > {"x"}


# The source's side -------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.last(self.norm(torch.relu(self.first(x)))), -1)


def traced() -> Program:
    torch.manual_seed(0)
    return trace(Net(), (torch.ones(2, 6),), dims={"x": ["batch", None]})


def test_a_wrong_graph_is_found_beside_the_traced_program(tmp_path: Path) -> None:
    program = traced()
    nodes = tuple(replace(node, attributes={**node.attributes, "eps": 1e-2}) if node.op == "layer_norm" else node
                  for node in program.model.graph.nodes)
    wrong = replace(program.model, graph=replace(program.model.graph, nodes=nodes))
    report = verify(wrong, ["numpy"], source=ProgramSource(program), parts=tmp_path)
    places = {location.stage: location for location in report.locations}
    assert places["structure"].op == "layer_norm"
    assert "test_equivalence_locate.py" in (places["structure"].source or "")
    assert places["rounding"].reason == AGREES
    # The part holds what PyTorch gave, so that it fails where PyTorch is not.
    part = converter.load(tmp_path / "model.json")
    assert [node.op for node in part.graph.nodes] == ["layer_norm"]
    assert not verify(part, [], cases=0)


def test_a_source_shows_the_values_that_it_has_under_their_names() -> None:
    program = traced()
    source = ProgramSource(program)
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    names = [name for node in program.model.graph.nodes for name in node.outputs if name]
    values = source.observe({"x": x}, [*names, "no such value"], "float64")
    assert set(values) == set(names)
    assert all(value.dtype == np.float64 for value in values.values())
    own = source.observe({"x": x}, names)
    assert all(value.dtype == np.float32 for value in own.values())


# Memory ------------------------------------------------------------------------------------------------------------------


class Counting(InMemoryParameters):
    reads = 0

    def read(self, name: str) -> Array:
        Counting.reads += 1
        return super().read(name)


def test_parameters_are_read_once_for_all_cases() -> None:
    base = chain()
    store = Counting({name: base.parameters.read(name) for name in base.parameters})
    Counting.reads = 0
    assert verify(base.with_parameters(store), ["reference"], cases=6)
    assert Counting.reads == len(store)
    Counting.reads = 0
    assert verify(base.with_parameters(store), [], cases=6, memory=0, locate=False).rows[0].subject == ""
    # Without room each case runs by itself, and the digest reads each parameter too. No output asks for the second witness.
    assert Counting.reads == len(store) * (6 + 1)


def test_a_store_keeps_what_came_first() -> None:
    arrays = {name: np.ones(256, np.float32) for name in "abc"}
    kept = Kept(Counting(arrays), 2048)
    for name in "abcabc":
        assert kept.read(name).shape == (256,)
    kept.read("a")
    Counting.reads = 0
    for name in "abc":
        kept.read(name)
    assert Counting.reads == 1


def test_memory_of_a_run_is_estimated_from_the_shapes() -> None:
    base = chain(4)
    specs = check(base.graph, base.parameters)
    largest = 0
    held: dict[str, int] = {}

    def observe(node: Node, results: tuple[Array, ...]) -> None:
        nonlocal largest
        held.update((str(name), result.nbytes) for name, result in zip(node.outputs, results, strict=True))
        largest = max(largest, results[0].nbytes * 2)

    reference.run(base, {"x": np.ones((32, 6), np.float32)}, float_dtype="float64", observe=observe)
    assert peak_bytes(base.graph, specs, {"batch": 32}) == largest
    assert peak_bytes(base.graph, specs, {}) is None


def test_statistics_of_a_complex_value_where_the_truth_is_real() -> None:
    assert statistics(np.asarray([1 + 1j]), np.asarray([1.0]))["largest error"] == 1


def test_groups() -> None:
    assert list(groups("abcde", [1, 2, 3, None, 1], 4)) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(groups("abc", [1, 1, 1], 9)) == [["a", "b", "c"]]
    assert list(groups("ab", [9, 9], 4)) == [["a"], ["b"]]


def test_windows_of_a_bisection_change_nothing() -> None:
    base, inputs = chain(), {"x": np.ones((2, 6), np.float32)}
    factory = wrong_at("chain.py:4")
    small, large = (list(walk(base, inputs, factory, window_bytes=size)) for size in (1, 1 << 20))
    assert [(step.value, step.share) for step in small] == [(step.value, step.share) for step in large]
    assert len(small) == len(base.graph.nodes)


def test_a_part_is_written_into_its_folder_and_not_through_links(tmp_path: Path) -> None:
    builder = GraphBuilder("part")
    builder.output("y", builder.op("exp", builder.input("x", "float32", ["n"])))
    part = Reduced(converter.Model(builder.graph(), converter.InMemoryParameters({})), {"x": np.ones(2, np.float32)}, (0,))
    folder = tmp_path / "parts"
    folder.mkdir()
    names = ("inputs.npz", "model.json", "model.onnx", "README.txt")
    for name in names:
        (tmp_path / name).write_text("precious")
        (folder / name).symlink_to(f"../{name}")
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    assert sorted(write(part, folder, [], "found")) == sorted(folder / name for name in names)
    assert [(tmp_path / name).read_text() for name in names] == ["precious"] * 4
    assert all(path.is_file() and not path.is_symlink() for path in folder.iterdir())
