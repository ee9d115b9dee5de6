"""Recorded examples in few bytes: outputs by a sample and statistics, inputs by a seed; and what a reader refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

import converter
from converter import reference
from converter.builder import GraphBuilder
from converter.equivalence import verify
from converter.equivalence.inputs import Drawn, Planner
from converter.equivalence.recording import recorded_again, settle_infinities
from converter.equivalence.stages import NO_VALUE
from converter.errors import ConverterError, FormatError
from converter.ir import DType, Example, Model
from converter.parameters import InMemoryParameters
from converter.recorded import DRAWN, SAMPLE, SAMPLED, Draw, Sample, sampled, statistics_of

Array = np.ndarray[Any, Any]
SCHEMA = json.loads((Path(converter.__file__).parent / "format" / "schema.json").read_text())


def wide(rows: int = 80) -> Model:
    """A layer with an output of 256 values a row, and one example of more values than are recorded one by one."""
    b = GraphBuilder("wide")
    x = b.input("x", "float32", ["batch", 64])
    b.output("y", b.op("tanh", b.op("linear", x, b.parameter("w", "float32", [256, 64]))))
    weight = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32) / 8
    model = Model(b.graph(), InMemoryParameters({"w": weight}))
    case = Planner(model.graph, model.parameters).case(0, {"batch": rows})
    assert isinstance(case.inputs, Drawn)
    outputs = {name: sampled(value, name) for name, value in reference.run(model, case.inputs).items()}
    return replace(model, examples=(Example(case.inputs, outputs, "torch", case.inputs.draws),))


def test_a_sample_stands_for_the_output() -> None:
    output = np.random.default_rng(0).standard_normal((SAMPLED + 1,)).astype(np.float32)
    found = sampled(output, "y")
    assert isinstance(found, Sample)
    assert found.values.size == SAMPLE
    assert np.array_equal(output[found.positions()], found.values)
    assert len(np.unique(found.positions())) > 0.85 * SAMPLE
    assert sampled(output[:-1], "y") is not None
    assert isinstance(sampled(output[:-1], "y"), np.ndarray)
    filled = found.filled(output.astype(np.float64))
    assert np.array_equal(filled, output)
    assert found.filled(np.zeros(3)).shape == output.shape


def test_the_sample_of_a_stated_seed() -> None:
    """The positions that any other language must find."""
    sample = Sample((100, 200), 1234567, np.zeros(3, np.float32))
    assert sample.positions().tolist() == [draw % 20000 for draw in (6457827717110365317, 3203168211198807973, 9817491932198370423)]


def test_statistics() -> None:
    found = statistics_of(np.array([[1.0, -3.0], [np.inf, np.nan]], np.float32))
    assert found == {"finite": 2, "mean": -1.0, "rms": pytest.approx(math.sqrt(5)), "min": -3.0, "max": 1.0}
    assert statistics_of(np.array([np.nan])) == {"finite": 0}
    assert statistics_of(np.array([3 + 4j]))["max"] == 4.0
    assert statistics_of(np.array([1e300, -1e300]))["rms"] == pytest.approx(1e300)


@pytest.mark.parametrize("name", ["m.json", "m.h5", "m.onnx"])
def test_a_file_holds_the_sample_and_the_seed(tmp_path: Path, name: str) -> None:
    base = wide()
    converter.save(base, tmp_path / name)
    again = converter.load(tmp_path / name)
    (old,), (new,) = base.examples, again.examples
    assert new.draws == old.draws
    assert np.array_equal(new.inputs["x"], old.inputs["x"])
    first, second = old.outputs["y"], new.outputs["y"]
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert (second.shape, second.seed, dict(second.statistics)) == (first.shape, first.seed, dict(first.statistics))
    assert np.array_equal(first.values, second.values)
    report = verify(again, ["numpy"], cases=2)
    assert report, str(report)
    (row,) = [row for row in report.rows if row.stage == "recorded"]
    assert row.compared == len(np.unique(first.positions()))


def test_a_sampled_file_is_small_and_fits_the_schema(tmp_path: Path) -> None:
    base = wide(800)
    converter.save(base, tmp_path / "m.json", encoding="base64")
    document = json.loads((tmp_path / "m.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    bare = replace(base, examples=())
    converter.save(bare, tmp_path / "bare.json", encoding="base64")
    assert (tmp_path / "m.json").stat().st_size - (tmp_path / "bare.json").stat().st_size < 8 * SAMPLE


@pytest.mark.parametrize(("change", "reason"), [
    (lambda sample: replace(sample, values=sample.values[::-1].copy()), "ulps"),
    (lambda sample: replace(sample, seed=sample.seed + 1), "ulps"),
    (lambda sample: replace(sample, statistics={**sample.statistics, "mean": sample.statistics["mean"] + 1e-4}), "the mean of all values"),
    (lambda sample: replace(sample, statistics={**sample.statistics, "max": sample.statistics["max"] * (1 + 1e-4)}), "the max of all"),
    (lambda sample: replace(sample, statistics={**sample.statistics, "finite": 7}), "7 values are recorded as finite"),
    (lambda sample: replace(sample, statistics={"finite": sample.statistics["finite"]}), "the mean of all values is recorded as nan"),
    (lambda sample: replace(sample, shape=(256, 80)), "shape [256, 80]"),
])
def test_a_sample_that_is_not_the_models_fails(change: Callable[[Sample], Sample], reason: str) -> None:
    base = wide()
    (example,) = base.examples
    sample = example.outputs["y"]
    assert isinstance(sample, Sample)
    wrong = replace(base, examples=(replace(example, outputs={"y": change(sample)}),))
    report = verify(wrong, ["numpy"], cases=0)
    assert any(row.stage == "recorded" and reason in row.reason for row in report.failures), str(report)


def test_a_change_that_only_the_statistics_see() -> None:
    """A value that no position of the sample hits is spoiled; the largest value tells."""
    base = wide()
    (example,) = base.examples
    output = np.array(reference.run(base, example.inputs)["y"])
    sample = sampled(output, "y")
    assert isinstance(sample, Sample)
    free = np.setdiff1d(np.arange(output.size), sample.positions())[0]
    output.reshape(-1)[free] = 1.5
    spoiled = sampled(output, "y")
    assert isinstance(spoiled, Sample)
    assert np.array_equal(spoiled.values, sample.values)
    assert not verify(replace(base, examples=(replace(example, outputs={"y": spoiled}),)), ["numpy"], cases=0)


# Inputs by seed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_floats_of_a_seed(kind: Any, dtype: str) -> None:
    draw = Draw(kind, 5) if kind == "normal" else Draw(kind, 5, -1.0, 3.0)
    values = draw.array(DType.of(dtype), (4, 300))
    assert values.dtype == DType.of(dtype).numpy
    assert abs(float(values.astype(np.float64).mean()) - (0.0 if kind == "normal" else 1.0)) < 0.15
    assert np.array_equal(values, draw.array(DType.of(dtype), (4, 300)))


def test_integers_of_a_seed() -> None:
    values = Draw("integers", 5, -3, 4).array(DType.INT8, (500,))
    assert set(values.tolist()) == set(range(-3, 4))
    with pytest.raises(FormatError, match="not a range"):
        Draw("integers", 5, 4, 4).array(DType.INT8, (5,))


@pytest.mark.parametrize("index", range(6))
def test_a_drawn_case_can_be_drawn_again(index: int) -> None:
    b = GraphBuilder("mixed")
    tokens, x = b.input("tokens", "int64", ["batch", "time"]), b.input("x", "float32", ["batch", 8])
    positive, mask = b.input("positive", "float32", ["batch"]), b.input("mask", "bool", ["batch", "time"])
    b.output("e", b.op("embedding", tokens, b.parameter("table", "float32", [11, 4])))
    b.output("l", b.op("log", positive))
    b.output("t", b.op("tanh", x))
    b.output("m", b.op("logical_not", mask))
    graph = b.graph()
    case = Planner(graph, InMemoryParameters({"table": np.zeros((11, 4), np.float32)}), 3).case(index)
    assert isinstance(case.inputs, Drawn)
    expected = {"tokens": "integers", "positive": "uniform"} | ({} if index % 4 == 3 else {"x": "normal"})
    assert {name: draw.kind for name, draw in case.inputs.draws.items()} == expected
    for name, draw in case.inputs.draws.items():
        values = case.inputs[name]
        assert np.array_equal(draw.array(DType.of(values.dtype), values.shape), values)


def test_torch_records_in_few_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(3, 8, 3, padding=1)
    model = converter.from_torch(module, (torch.randn(2, 3, 40, 40),), dims={"input": ["batch", None, "height", "width"]})
    assert isinstance(model.examples[0].outputs["output"], Sample)
    assert any(example.draws for example in model.examples)
    assert all(example.inputs[name].size > DRAWN for example in model.examples for name in example.draws)
    converter.save(model, tmp_path / "m.h5")
    report = verify(converter.load(tmp_path / "m.h5"), ["numpy"])
    assert report, str(report)
    again = recorded_again(converter.load(tmp_path / "m.h5"))
    assert again.examples[0].made_by.startswith("torch ")
    assert isinstance(again.examples[0].outputs["output"], Sample)
    assert verify(again, ["numpy"])
    with pytest.raises(ConverterError, match="no example"):
        recorded_again(replace(model, examples=()))


# What a reader refuses ---------------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a sample of nothing": (lambda e: e["samples"].update(z=e["samples"]["y"]), "a sample of no output"),
    "a sample without a seed": (lambda e: e["samples"]["y"].pop("seed"), "seed"),
    "a seed that is no text": (lambda e: e["samples"]["y"].update(seed=5), "samples"),
    "a seed beyond 64 bits": (lambda e: e["samples"]["y"].update(seed=str(1 << 64)), "not a seed"),
    "a negative seed": (lambda e: e["samples"]["y"].update(seed="-1"), "not a seed"),
    "a seed in other digits": (lambda e: e["samples"]["y"].update(seed="٣"), "not a seed"),
    "a sample larger than the output": (lambda e: e["samples"]["y"].update(shape=[2, 2]), "not a sample"),
    "a negative size": (lambda e: e["samples"]["y"].update(shape=[-1, -20000]), "samples"),
    "an unknown statistic": (lambda e: e["samples"]["y"]["statistics"].update(median=1), "median"),
    "a statistic that is no number": (lambda e: e["samples"]["y"]["statistics"].update(mean="x"), "not a number"),
    "no count": (lambda e: e["samples"]["y"]["statistics"].pop("finite"), "finite"),
    "an input twice": (lambda e: e["inputs"].update(x={"dtype": "float32", "shape": [0, 64], "values": []}), "and is drawn too"),
    "an unknown kind": (lambda e: e["drawn"]["x"].update(kind="cauchy"), "not a way to draw"),
    "integers as floats": (lambda e: e["drawn"]["x"].update(kind="integers", low=0, high=3), "not a way to draw"),
    "normal within bounds": (lambda e: e["drawn"]["x"].update(low=0, high=3), "not a way to draw"),
    "uniform without bounds": (lambda e: e["drawn"]["x"].update(kind="uniform", low=0), "'high' is missing"),
    "uniform of no width": (lambda e: e["drawn"]["x"].update(kind="uniform", low=1, high=1), "not a range"),
    "integers beyond their dtype": (lambda e: e["drawn"]["x"].update(dtype="int8", kind="integers", low=0, high=300), "not a bound"),
    "more than memory holds": (lambda e: e["drawn"]["x"].update(shape=[1 << 20, 1 << 20]), "too many drawn values"),
    "a bool": (lambda e: e["drawn"]["x"].update(dtype="bool"), "not a way to draw"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    change, message = REFUSED[case]
    converter.save(wide(), tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    change(document["examples"][0])
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(ConverterError, match=message) as caught:
        converter.load(tmp_path / "m.json")
    assert "examples" in str(caught.value)


def test_a_recorded_nan_beside_an_infinity() -> None:
    """What arithmetic on infinities comes to is the operator's affair; beside numbers, and the other way round, NaN is a difference."""
    recorded = np.array([np.nan, np.nan, np.inf, 1.0], np.float32)
    truth = np.array([-np.inf, 1.0, np.nan, 1.0])
    found = settle_infinities(recorded, truth)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([-np.inf, np.nan, np.inf, 1.0], np.float32))
    integers = np.array([1, 2])
    assert settle_infinities(integers, integers) is integers


def test_a_graph_that_rounds_its_recording_away_is_not_proven_by_it() -> None:
    """The kernels' own errors are the budget of what is recorded: a graph that loses all digits must not pass by that."""
    b = GraphBuilder("lossy")
    x = b.input("x", "float32", ["batch", 8])
    huge = b.op("multiply", x, 1e10)
    b.output("y", b.op("subtract", b.op("add", huge, x), huge))
    model = Model(b.graph(), InMemoryParameters())
    inputs = {"x": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)}
    outputs = {"y": (inputs["x"] * 2).astype(np.float32)}
    report = verify(replace(model, examples=(Example(inputs, outputs, "torch"),)), ["numpy"], cases=0)
    assert [row.reason for row in report.rows if row.stage == "recorded" and row.open] == [NO_VALUE]
    assert not report
