"""`convert inspect --plan`, `convert run --profile` and `--threads`, and the same from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import converter
from converter import GraphBuilder, InMemoryParameters, Model
from converter.cli.main import cli


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(item) for item in arguments])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """relu(x W), each row's numbers in order, and W scaled."""
    monkeypatch.chdir(tmp_path)
    b = GraphBuilder("g")
    x, weight = b.input("x", "float32", ("n", 4)), b.parameter("w", "float32", (4, 4))
    b.output("y", b.op("sort", b.op("relu", b.op("linear", x, weight)), axis=-1))
    b.output("scaled", b.op("multiply", weight, 2.0))
    made = Model(b.graph(), InMemoryParameters({"w": np.eye(4, dtype=np.float32)}))
    converter.save(made, "m.json")
    np.save("x.npy", np.array([[3, -1, 2, 0]], np.float32))
    return made


def test_the_plan_says_which_kernel_each_step_has(model: Model) -> None:
    steps = json.loads(run("inspect", "m.json", "--plan", "--json").stdout)["plan"]
    assert [(step["operators"], step["way"]) for step in steps] == [
        (["linear", "relu"], "kernel"), (["sort"], "reference"), (["multiply"], "once")]
    told = run("inspect", "m.json", "--plan").stdout
    assert "3 steps" in told
    assert "linear + relu" in told
    assert [step.operators for step in converter.session(model).plan()] == [("linear", "relu"), ("sort",), ("multiply",)]  # type: ignore[attr-defined]


def test_a_profile_has_the_time_of_each_step(model: Model) -> None:
    done = run("run", "m.json", "--input", "x=x.npy", "--profile", "-o", "y.npz")
    assert done.exit_code == 0, done.output
    assert "2 steps" in done.stdout
    assert "By kind" in done.stdout
    np.testing.assert_array_equal(np.load("y.npz")["y"], [[0, 0, 2, 3]])
    session: Any = converter.session(model)
    found = session.profile({"x": np.ones((2, 4), np.float32)}, repeat=3)
    assert [step.operators for step in found.steps] == [("linear", "relu"), ("sort",)]
    assert all(0 < seconds < 10 for seconds in found.seconds)
    assert sum(seconds for _, _, seconds in found.by_kind()) == pytest.approx(sum(found.seconds))
    np.testing.assert_array_equal(found.outputs["y"], np.ones((2, 4)))


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
def test_a_run_on_so_many_threads(model: Model, runtime: str) -> None:
    done = run("run", "m.json", "--input", "x=x.npy", "--threads", 1, "--runtime", runtime)
    assert done.exit_code == 0, done.output
    assert "[[0. 0. 2. 3.]]" in done.output


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("arguments", "part"), [
    (("--threads", 0), "threads"), (("--threads", 2, "--runtime", "reference"), "no option 'threads'"),
    (("--profile", "--runtime", "reference"), "no times of steps")])
def test_what_a_runtime_cannot_is_refused(arguments: tuple[Any, ...], part: str) -> None:
    done = run("run", "m.json", "--input", "x=x.npy", *arguments)
    assert done.exit_code == 2
    assert part in done.output
