"""Faults in the model and in a runtime are found by verify."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter.builder import GraphBuilder
from converter.equivalence import verify
from converter.ir import Model
from converter.parameters import InMemoryParameters
from tests.equivalence.small_models import Array, Arrays, Exact, Spoiled, changed, graph, model, weights, with_examples


def every_weight() -> list[tuple[str, int]]:
    return [(name, index) for name, array in weights(graph()).items() for index in range(array.size)]


@pytest.mark.parametrize("relative", [1e-3, 1e-6])
def test_any_single_weight_is_found_against_the_source(relative: float) -> None:
    """Even a change of a few ulps of one weight: it is in structure, in float64, that it cannot hide."""
    base = model()
    for name, index in every_weight():
        def change(array: Array, index: int = index) -> Array:
            array.reshape(-1)[index] *= np.float32(1 + relative)
            return array

        faulty = changed(base, name, change)
        report = verify(faulty, ["numpy"], source=Exact(base), cases=2)
        assert not report, f"{name}[{index}]"
        assert report.exit_code == 1
        assert any(row.stage == "structure" for row in report.failures)


def test_any_single_weight_is_found_against_recorded_examples() -> None:
    base = with_examples(model())
    for name, index in every_weight():
        def change(array: Array, index: int = index) -> Array:
            array.reshape(-1)[index] *= np.float32(1 + 1e-3)
            return array

        report = verify(changed(base, name, change), ["numpy"], cases=2)
        assert not report, f"{name}[{index}]"
        assert any(row.stage == "recorded" for row in report.failures)


@pytest.mark.parametrize("change", [np.transpose, lambda array: array[::-1], lambda array: np.roll(array, 1, axis=1), np.negative,
                                    lambda array: np.where(np.arange(36).reshape(6, 6) == 8, np.float32(np.nan), array)],
                         ids=["transposed", "reversed", "rolled", "negated", "NaN"])
def test_a_changed_square_weight_is_found(change: Callable[[Array], Array]) -> None:
    base = with_examples(model())
    faulty = changed(base, "1.weight", change)
    assert not verify(faulty, ["numpy"])
    assert not verify(replace(faulty, examples=()), ["numpy"], source=Exact(base))


def test_a_source_with_a_model_has_its_parameters_compared() -> None:
    class Source(Exact):
        model = model()

    base = model()
    assert verify(base, ["numpy"], source=Source(base))

    def change(array: Array) -> Array:
        array[0] = np.nextafter(array[0], np.float32(9))
        return array

    report = verify(changed(base, "2.bias", change), ["numpy"], source=Source(base))
    assert any(row.stage == "model" and "2.bias" in row.output for row in report.failures)


def test_swapped_equal_axes_are_found() -> None:
    def build(*axes: int) -> Model:
        b = GraphBuilder("swap")
        x = b.input("x", "float32", ["n", 4, 4])
        y = b.op("permute_dims", x, axes=axes) if axes else x
        b.output("y", b.op("negative", y))
        return Model(b.graph(), InMemoryParameters({}))

    report = verify(build(0, 2, 1), ["numpy"], source=Exact(build()))
    assert not report
    assert not verify(with_examples(build()), {"swapped": Spoiled(build(0, 2, 1), dict)})


def test_a_frozen_size_is_found() -> None:
    def build(size: str | int) -> Model:
        b = GraphBuilder("frozen")
        x = b.input("x", "float32", ["n", 4])
        b.output("y", b.op("reshape", x, shape=(size, 2)))
        return Model(b.graph(), InMemoryParameters({}))

    honest = build("2 * n")
    frozen = build(8)
    report = verify(frozen, ["numpy"], source=Exact(honest))
    assert not report
    assert any("cannot run what the source runs" in row.reason for row in report.failures)


def test_recorded_outputs_that_were_tampered_with_are_found() -> None:
    base = with_examples(model())
    for spoil in (lambda y: y + np.float32(1e-4), lambda y: y.astype(np.float64), lambda y: y[:-1], lambda y: y * np.float32(np.nan)):
        first = base.examples[0]
        outputs = {**first.outputs, "scores": spoil(first.outputs["scores"])}
        faulty = replace(base, examples=(replace(first, outputs=outputs), *base.examples[1:]))
        report = verify(faulty, ["numpy"])
        assert not report
        assert {row.stage for row in report.failures} == {"recorded"}


def test_recorded_outputs_that_are_missing_or_extra_are_found() -> None:
    base = with_examples(model())
    first = base.examples[0]
    for outputs in ({}, {**first.outputs, "more": first.outputs["scores"]}):
        assert not verify(replace(base, examples=(replace(first, outputs=outputs),)), ["numpy"])


# Faults in a runtime -----------------------------------------------------------------------------------------------------


def spoil_element(outputs: Arrays, value: float) -> Arrays:
    scores = outputs["scores"].copy()
    scores[0, 2] = value
    return {**outputs, "scores": scores}


FAULTS: dict[str, Callable[[Arrays], Arrays]] = {
    "dropped": lambda outputs: {name: array for name, array in outputs.items() if name != "best"},
    "renamed": lambda outputs: {"Scores" if name == "scores" else name: array for name, array in outputs.items()},
    "extra": lambda outputs: {**outputs, "more": outputs["best"]},
    "none": lambda outputs: {},
    "NaN": lambda outputs: spoil_element(outputs, np.nan),
    "infinity": lambda outputs: spoil_element(outputs, np.inf),
    "zero": lambda outputs: spoil_element(outputs, 0.0),
    "dtype": lambda outputs: {**outputs, "scores": outputs["scores"].astype(np.float64)},
    "integer dtype": lambda outputs: {**outputs, "best": outputs["best"].astype(np.int32)},
    "shape": lambda outputs: {**outputs, "scores": outputs["scores"][..., None]},
    "empty": lambda outputs: {**outputs, "scores": outputs["scores"][:0]},
    "1e-4": lambda outputs: {**outputs, "scores": outputs["scores"] * np.float32(1.0001)},
    "float16": lambda outputs: {**outputs, "scores": outputs["scores"].astype(np.float16).astype(np.float32)},
    "one more": lambda outputs: {**outputs, "best": outputs["best"] + 1},
    "exchanged": lambda outputs: {**outputs, "scores": outputs["scores"][..., ::-1]},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_runtime_is_found(fault: str) -> None:
    base = model(best=True)
    spoiled = {"spoiled": Spoiled(base, FAULTS[fault])}
    for report in (verify(base, spoiled, source=Exact(base)), verify(with_examples(base), spoiled), verify(base, spoiled)):
        assert not report
        assert report.exit_code == 1
        assert all(row.subject == "spoiled" for row in report.failures)
        assert str(report).startswith("mlp: NOT equivalent")
        json.dumps(report.to_dict(), allow_nan=False)


def test_a_runtime_that_fails_is_found() -> None:
    def fail(outputs: Arrays) -> Arrays:
        raise RuntimeError("no kernel for this")

    base = model()
    report = verify(base, {"failing": Spoiled(base, fail)})
    assert not report
    assert "no kernel for this" in report.failures[0].reason

    def refuse(_: Model) -> Any:
        raise RuntimeError("out of luck")

    report = verify(base, {"refusing": refuse})
    assert not report
    assert "out of luck" in report.failures[0].reason


def test_a_fault_at_one_size_alone_is_found() -> None:
    base = model()

    def only_at_one(outputs: Arrays) -> Arrays:
        return {"scores": outputs["scores"] * np.float32(2 if len(outputs["scores"]) == 1 else 1)}

    report = verify(with_examples(base), {"spoiled": Spoiled(base, only_at_one)})
    assert not report
    assert all(row.sizes == {"batch": 1} for row in report.failures)


def test_outputs_without_a_value_prove_nothing() -> None:
    b = GraphBuilder("empty")
    x = b.input("x", "float32", ["n", 4])
    b.output("y", b.op("slice", x, axes=(1,), starts=(2,), stops=(2,)))
    base = Model(b.graph(), InMemoryParameters({}))
    report = verify(base, ["numpy"])
    assert not report
    assert "no value was compared" in report.left_open[0].reason
    assert report.exit_code == 2
    assert not verify(model(), ["numpy"], cases=0)
    assert not verify(model(), {})
