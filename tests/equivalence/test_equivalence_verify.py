"""`verify`: honest models hold, and every fault that is more than rounding is found."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import reference
from converter.builder import GraphBuilder
from converter.equivalence import generate, print_report, verify
from converter.equivalence.bisect import first_divergence
from converter.equivalence.conditioning import measure_moves
from converter.errors import ConverterError
from converter.ir import GraphOutput, Model
from converter.parameters import InMemoryParameters
from tests.equivalence.small_models import Arrays, Exact, Spoiled, changed, model, with_examples

# Honest models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100))
def test_no_false_alarm(seed: int) -> None:
    base = model(seed, best=True)
    assert verify(base, ["numpy"], source=Exact(base), seed=seed, cases=4)
    assert verify(with_examples(base), ["numpy"], seed=seed, cases=3)
    # Another order of summation, as other hardware has.
    def perturbed(outputs: Arrays) -> Arrays:
        noise = np.random.default_rng(seed).standard_normal(outputs["scores"].shape)
        return {**outputs, "scores": (outputs["scores"] * (1 + 2**-23 * noise)).astype(np.float32)}

    assert verify(base, {"other": Spoiled(base, perturbed)}, source=Exact(base), seed=seed, cases=4)


def test_a_report_says_what_a_person_wants_to_see() -> None:
    base = with_examples(model(best=True))
    report = verify(base, ["numpy", "reference"])
    assert report
    assert report.exit_code == 0
    assert report.digest.startswith("sha256:")
    assert {row.subject for row in report.rows} == {"recording", "numpy", "reference"}
    assert report.versions["numpy"] == np.__version__
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["equivalent"] is True
    assert {"error", "allowed", "verdict", "reason", "sizes", "output", "stage"} <= document["rows"][0].keys()
    from rich.console import Console

    for verbose in (False, True):
        text = io.StringIO()
        print_report(report, Console(file=text, width=160), verbose=verbose)
        for word in ("scores", "batch=", "numpy", "ulps", "pass", "equivalent", report.digest):
            assert word in text.getvalue()


def test_without_examples_the_report_says_so() -> None:
    report = verify(model(), ["numpy"])
    assert report
    assert any("without recorded examples" in note for note in report.notes)
    assert "reference kernels" in report.budget


def test_given_inputs_are_judged_and_completed() -> None:
    b = GraphBuilder("two")
    b.output("y", b.op("add", b.input("x", "float32", ["n", 3]), b.input("z", "float32", ["n", 3])))
    base = Model(b.graph(), InMemoryParameters({}))
    report = verify(base, ["numpy"], inputs=[{"x": np.ones((4, 3), np.float32)}], cases=0)
    assert report
    assert {row.case for row in report.rows} == {"given"}
    assert {row.sizes["n"] for row in report.rows} == {4}
    with pytest.raises(ConverterError):
        verify(base, ["numpy"], inputs={"x": np.ones((4, 2), np.float32)})
    with pytest.raises(ConverterError):
        verify(base, ["numpy"], inputs={"w": np.ones((4, 3), np.float32)})


def test_unknown_runtimes_and_things_are_refused() -> None:
    with pytest.raises(ConverterError):
        verify("model.json", ["numpy"])
    with pytest.raises(ConverterError):
        verify([])
    report = verify(model(), ["abacus"])
    assert not report
    assert "abacus" in report.failures[0].reason


# Ties --------------------------------------------------------------------------------------------------------------------


def tied(op: str, **attributes: Any) -> Model:
    """A choice among sums whose order of size rounding decides: columns 1 and 2 differ by less than an ulp."""
    b = GraphBuilder("tie")
    x = b.op("linear", b.input("x", "float32", ["n", 3]), b.parameter("w", "float32", [4, 3]), b.parameter("b", "float32", [4]))
    first, *more = b.add(op, (x,), attributes)
    b.output("chosen", more[0] if more else first)
    w = np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0]], np.float32)
    return Model(b.graph(), InMemoryParameters({"w": w, "b": np.array([-90, 100, 100.00001, -80], np.float32)}))


@pytest.mark.parametrize(("op", "attributes"), [("argmax", {"axis": -1}), ("argmax", {"axis": 1, "keepdims": True}),
                                                ("topk", {"k": 2, "axis": 1}), ("sort", {"axis": -1, "descending": True})])
def test_a_tie_may_go_either_way(op: str, attributes: dict[str, Any]) -> None:
    base = tied(op, **attributes)

    def swap(wanted: int, other: int) -> Callable[[Arrays], Arrays]:
        def spoil(outputs: Arrays) -> Arrays:
            chosen = outputs["chosen"]
            return {"chosen": np.where(chosen == wanted, other, np.where(chosen == other, wanted, chosen))}

        return spoil

    assert verify(base, {"other": Spoiled(base, swap(2, 1))})
    assert not verify(base, {"wrong": Spoiled(base, swap(2, 3))})
    assert not verify(base, {"outside": Spoiled(base, swap(2, 40))})
    if op != "argmax":
        def twice(outputs: Arrays) -> Arrays:
            return {"chosen": np.where(outputs["chosen"] == 1, 2, outputs["chosen"])}

        assert not verify(base, {"twice": Spoiled(base, twice)})


def test_comparisons_may_tie() -> None:
    b = GraphBuilder("tie")
    x = b.input("x", "float32", ["n", 3])
    y = b.op("add", b.op("multiply", x, 3.0), b.parameter("b", "float32", [3]))
    b.output("above", b.op("greater", y, 1.0))
    base = Model(b.graph(), InMemoryParameters({"b": np.zeros(3, np.float32)}))
    third = np.full((2, 3), 1 / 3, np.float32)
    flipped = {"flipped": Spoiled(base, lambda outputs: {"above": ~outputs["above"]})}
    assert verify(base, flipped, inputs={"x": third}, cases=0)
    assert not verify(base, flipped, inputs={"x": third * 2}, cases=0)


# Several models ----------------------------------------------------------------------------------------------------------


def test_several_models_that_are_one() -> None:
    base = with_examples(model())
    copy = replace(base, graph=replace(base.graph, nodes=tuple(replace(node, source="other.py:3") for node in base.graph.nodes)))
    report = verify({"a.json": base, "b.h5": copy, "c.onnx": Spoiled(base, dict)}, ["numpy"])
    assert report
    assert {row.subject for row in report.rows if row.stage == "model"} == {"b.h5"}
    assert {row.subject for row in report.rows if row.stage == "rounding"} == {"numpy", "c.onnx"}


@pytest.mark.parametrize("fault", ["value", "dtype", "shape", "missing", "extra", "node", "output", "dims", "alias"])
def test_several_models_that_are_not_one(fault: str) -> None:
    base = model()
    arrays = {name: base.parameters.read(name).copy() for name in base.parameters.names()}
    other, aliases = base.graph, {}
    if fault == "value":
        arrays["1.weight"][2, 3] = np.nextafter(arrays["1.weight"][2, 3], np.float32(9))
    elif fault == "dtype":
        arrays["1.weight"] = arrays["1.weight"].astype(np.float64)
    elif fault == "shape":
        arrays["1.bias"] = arrays["1.bias"][:5]
    elif fault == "missing":
        del arrays["1.bias"]
    elif fault == "extra":
        arrays["more"] = np.zeros(3, np.float32)
    elif fault == "alias":
        arrays["1.bias"] = arrays["0.bias"] = np.zeros(6, np.float32)
        base = base.with_parameters(InMemoryParameters(arrays))
        aliases = {"1.bias": "0.bias"}
    elif fault == "node":
        other = replace(other, nodes=tuple(replace(node, op="relu") if index == 1 else node for index, node in enumerate(other.nodes)))
    elif fault == "output":
        other = replace(other, outputs=tuple(GraphOutput("y", item.spec, item.value) for item in other.outputs))
    elif fault == "dims":
        other = replace(other, dims={"batch": replace(other.dims["batch"], min=2)})
    report = verify({"a": base, "b": replace(base, graph=other, parameters=InMemoryParameters(arrays, aliases))}, ["numpy"])
    assert not report
    assert all(row.stage == "model" and row.subject == "b" for row in report.failures)
    assert all(row.reason for row in report.failures)


# Bisection ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window_bytes", [1, 4000, 1 << 28])
def test_the_first_faulty_node_is_found(window_bytes: int) -> None:
    base = model()
    inputs = generate(base.graph, base.parameters, count=1)[0]
    faulty = changed(base, "1.weight", np.transpose)

    def factory(part: Model) -> Spoiled:
        names = set(part.parameters.names())
        return Spoiled(replace(part, parameters=InMemoryParameters({name: faulty.parameters.read(name) for name in names})), dict)

    found = first_divergence(base, inputs, factory, window_bytes=window_bytes)
    assert found is not None
    assert found.node.op == "linear"
    assert found.index == 2
    assert "1.weight" in found.node.inputs
    assert found.statistics["differing"] > 0
    assert first_divergence(base, inputs, lambda part: Spoiled(part, dict), window_bytes=window_bytes) is None


# Conditioning ------------------------------------------------------------------------------------------------------------


def steep() -> Model:
    """y = 1 / (x - 1 + 1e-6): the row with x = 1 magnifies an ulp a million times, others do not."""
    b = GraphBuilder("steep")
    x = b.op("multiply", b.input("x", "float32", ["n", 20]), b.parameter("w", "float32", [1]))
    y = b.op("add", b.op("subtract", x, 1.0), 1e-6)
    b.output("y", b.op("divide", 1.0, y))
    return Model(b.graph(), InMemoryParameters({"w": np.array([1], np.float32)}))


def test_an_ill_conditioned_row_may_stray_as_its_data_do() -> None:
    base = steep()
    inputs = {"x": np.repeat(np.array([[1], [3], [5]], np.float32), 20, axis=1)}

    def shifted(row: int, by: float) -> dict[str, Any]:
        def spoil(outputs: Arrays) -> Arrays:
            outputs["y"][row] *= np.float32(1 + by)
            return outputs

        return {"shifted": Spoiled(base, spoil)}

    # An ulp of x moves the first row by a tenth, and the second by a part in 10^7.
    assert verify(base, shifted(0, 0.1), inputs=inputs, cases=0)
    assert not verify(base, shifted(0, 0.9), inputs=inputs, cases=0)
    assert not verify(base, shifted(1, 1e-4), inputs=inputs, cases=0)


def test_moves_are_of_an_ulp_and_leave_the_model_alone() -> None:
    base = model(best=True)
    inputs = generate(base.graph, base.parameters, count=1)[0]
    before = {name: base.parameters.read(name).copy() for name in base.parameters.names()}
    given = inputs["x"].copy()
    truth = reference.run(base, inputs, float_dtype="float64")
    found = measure_moves(base, inputs, truth)
    assert found.keys() == {"scores"}
    assert found["scores"].shape == (len(given), 1)
    assert (found["scores"] > 0).all()
    assert found["scores"].max() < 1e-4 * np.abs(truth["scores"]).max()
    np.testing.assert_array_equal(inputs["x"], given)
    for name, values in before.items():
        np.testing.assert_array_equal(base.parameters.read(name), values)


def test_files_are_given_by_their_paths() -> None:
    folder = Path(__file__).parents[2] / "fixtures" / "mlp_digits"
    report = verify([str(folder / "model.json"), folder / "model.h5"], ["numpy"])
    assert report
    assert report.model == "model.json"
    with pytest.raises(ConverterError, match="there is no such file"):
        verify(folder / "absent.json")
    with pytest.raises(ConverterError, match="neither a model nor a session"):
        verify(3)
