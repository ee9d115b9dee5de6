"""Cases of graphs whose sizes share a limit, and tensors of which a checkpoint or another graph has only some names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from safetensors.numpy import save_file

import converter
from converter.builder import GraphBuilder
from converter.cli.main import cli
from converter.dims import symbol
from converter.equivalence.inputs import Planner
from converter.equivalence.models import compare_parameters
from converter.ir import DimRange, DType, Model
from converter.parameters import InMemoryParameters


def positions(rows: int, longest: int) -> Model:
    """x [batch, time, 2] with rows `past` to `past + time` of a table added; the sizes' ranges go up to `longest`."""
    b = GraphBuilder("positions", {"time": DimRange(1, longest), "past": DimRange(0, longest - 1)})
    time, past = symbol("time"), symbol("past")
    x = b.input("x", "float32", ["batch", time, 2])
    b.input("before", "float32", ["batch", past])
    places = b.op("arange", start=past, stop=past + time, dtype=DType.INT64)
    b.output("y", b.op("add", x, b.op("embedding", places, b.parameter("table", "float32", [rows, 2]))))
    values = np.random.default_rng(0).standard_normal((rows, 2)).astype(np.float32)
    return Model(b.graph(), InMemoryParameters({"table": values}))


def test_sizes_that_are_allowed_one_at_a_time() -> None:
    """Where the ranges hold for each size alone, smaller sizes are taken and the refusal is a note; else it is a failure."""
    report = converter.verify(positions(32, 32), runtimes=["numpy"], cases=5)
    assert report, report.rows
    assert any("past=31" in note and "cannot run" in note for note in report.notes)
    report = converter.verify(positions(20, 32), runtimes=["numpy"], cases=5)
    assert not report
    assert any("cannot run at any size tried" in str(row.reason) for row in report.rows)


def test_planned_sizes_smaller_and_apart() -> None:
    model = positions(32, 32)
    planner = Planner(model.graph, model.parameters)
    assert planner.sizes(4) == {"batch": 2, "time": 32, "past": 31}
    assert planner.sizing.shrunk(planner.sizes(4)) == {"batch": 1, "time": 16, "past": 15}
    assert planner.sizing.shrunk({"batch": 1, "time": 1, "past": 0}) is None
    assert planner.sizing.apart(planner.sizes(4)) == [{"batch": 2, "time": 1, "past": 0}, {"batch": 1, "time": 32, "past": 0},
                                               {"batch": 1, "time": 1, "past": 31}]


def test_large_cases_are_made_smaller() -> None:
    """Where a case would make more than 2^23 values, its sizes are halved; three times as many as the least sizes make may stay."""
    b = GraphBuilder("images")
    x = b.input("x", "float32", ["batch", 64, 256, 256])
    b.output("y", b.op("relu", x))
    planner = Planner(b.graph(), typical={"batch": 8})
    assert planner.sizing.work({"batch": 2}) == 2 * 2**22
    assert [planner.sizes(index)["batch"] for index in range(6)] == [2, 1, 2, 2, 3, 3]
    b = GraphBuilder("words", {"time": DimRange(1, 100)})
    x = b.input("x", "float32", ["batch", "time", 2**17])
    b.output("y", b.op("relu", x))
    planner = Planner(b.graph(), typical={"batch": 2, "time": 90})
    assert [planner.sizes(index) for index in (0, 1, 2)] == [{"batch": 2, "time": 22}, {"batch": 1, "time": 1}, {"batch": 5, "time": 11}]
    # The end of a range is tried whatever it costs; what is beside it is made small.
    assert planner.sizes(4) == {"batch": 1, "time": 100}
    (given,) = [Planner(b.graph(), overrides={"x": np.zeros((3, 70, 2**17), np.float32)})]
    assert given.sizes(0) == {"batch": 3, "time": 70}


def test_a_normalization_has_more_than_one_value() -> None:
    """Of one value it gives its bias, whatever the value is; PyTorch's own code refuses it."""
    b = GraphBuilder("normalized")
    x = b.input("x", "float32", ["batch", 4, "height", "width"])
    b.output("y", b.op("instance_norm", x))
    assert Planner(b.graph()).sizes(1) == {"batch": 3, "height": 3, "width": 3}
    b = GraphBuilder("grouped")
    x = b.input("x", "float32", ["batch", 4, "time"])
    b.output("y", b.op("group_norm", x, num_groups=2))
    assert Planner(b.graph()).sizes(1) == {"batch": 1, "time": 1}


def test_constants_are_each_graphs_own() -> None:
    plain: dict[str, np.ndarray[Any, Any]] = {"weight": np.ones(2, np.float32)}
    other = InMemoryParameters({**plain, "buckets": np.arange(3)})
    (row,) = compare_parameters(InMemoryParameters(plain), other, "other", frozenset({"buckets"}))
    assert row.passed
    (row,) = compare_parameters(InMemoryParameters(plain), other, "other")
    assert not row.passed
    assert "buckets" in row.output


def test_a_checkpoint_that_keeps_one_name_of_a_shared_tensor(tmp_path: Path) -> None:
    """safetensors has no second names: they are no difference; a tensor that the checkpoint lacks is one."""
    table = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
    held = InMemoryParameters({"words.weight": table, "head.weight": table}, aliases={"head.weight": "words.weight"})
    b = GraphBuilder("tied")
    words = b.op("embedding", b.input("ids", "int64", ["batch"]), b.parameter("words.weight", "float32", [5, 2]))
    b.output("y", b.op("linear", words, b.parameter("head.weight", "float32", [5, 2])))
    converter.save(Model(b.graph(), held), tmp_path / "model.json")
    for name, kept, code in (("one", {"words.weight": table}, 0), ("other", {"head.weight": table}, 0), ("none", {"x": table}, 1),
                             ("changed", {"words.weight": table + 1}, 1)):
        save_file(kept, tmp_path / f"{name}.safetensors")
        done = CliRunner().invoke(cli, ["verify", str(tmp_path / "model.json"), "--source", str(tmp_path / f"{name}.safetensors"),
                                        "--runtime", "numpy", "--cases", "1"])
        assert done.exit_code == code, (name, done.output)
