"""Operators in terms of simpler ones: every row of the operator table in the core's operators computes what it did."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from adapters.torch.tracing.trace import trace
from converter import reference
from converter.attributes import graphs_in
from converter.builder import GraphBuilder
from converter.cli.main import cli
from converter.format import load_hdf5, save_json
from converter.ir import Graph, Model
from converter.opset import ARRAYS, lookup, operators
from converter.parameters import InMemoryParameters
from converter.passes.decomposing import decompose, is_core, to_core
from tests.test_ops import CASES, draw, label, of_row, sizes_of, traced

MADE = sorted(name for name, operator in operators().items() if operator.formula)


def names(graph: Graph) -> set[str]:
    """The operators of a graph and of those within."""
    return {node.op for node in graph.nodes}.union(*(names(inner) for node in graph.nodes for inner in graphs_in(node)))


def rows() -> list[Any]:
    """Every row of operators that have a formula; those after an operator's first are marked as long."""
    seen: set[str] = set()
    found = []
    for index, case in enumerate(CASES):
        if case.operator in MADE:
            found.append(of_row(index, id=label(case), long=case.operator in seen))
            seen.add(case.operator)
    return found


@pytest.mark.parametrize("index", rows())
def test_the_core_computes_the_same(index: int) -> None:
    case, program = CASES[index], traced(index)
    core = to_core(program.model)
    for variant, sizes in enumerate(sizes_of(case)):
        inputs = {name: array for name, array in zip(program.input_names, draw(case, sizes, variant), strict=True) if name is not None}
        wanted = reference.run(program.model, inputs, float_dtype="float64")
        for name, found in reference.run(core, inputs, float_dtype="float64").items():
            assert found.dtype == wanted[name].dtype
            np.testing.assert_allclose(found, wanted[name], rtol=1e-11, atol=1e-13)


@pytest.mark.long
@pytest.mark.parametrize("index", [of_row(index, id=label(case)) for index, case in enumerate(CASES)])
def test_every_row_in_the_core(index: int) -> None:
    assert all(map(is_core, names(to_core(traced(index).model).graph)))


def test_what_is_partly_in_the_core_says_so() -> None:
    x = np.array([-1.25, 2.5, 3.5])
    assert lookup("round").formula(ARRAYS, x, decimals=0) is None  # type: ignore[misc]
    np.testing.assert_array_equal(lookup("round").formula(ARRAYS, x, decimals=1), np.round(x, 1))  # type: ignore[misc]
    assert all(operator.formula for operator in operators().values() if operator.core)


@cache
def gamma() -> Model:
    b = GraphBuilder("gamma")
    x = b.input("x", "float32", ["n"])
    b.output("y", b.op("lgamma", x, name="y"))
    b.output("z", b.op("zeta", 3.0, x, name="z"))
    b.output("x again", x)
    return Model(b.graph(), InMemoryParameters())


def test_names_of_inputs_outputs_and_results_stay() -> None:
    core = to_core(gamma())
    assert [(out.name, out.value) for out in core.graph.outputs] == [("y", "y"), ("z", "z"), ("x again", "x")]
    assert all(name in ("y", "z") or str(name).startswith(("y/", "z/")) for node in core.graph.nodes for name in node.outputs)
    inputs = {"x": np.linspace(-4.25, 9.0, 64, dtype=np.float32)}
    for name, wanted in reference.run(gamma(), inputs).items():
        np.testing.assert_array_equal(reference.run(core, inputs)[name], wanted)


def test_nothing_is_computed_twice() -> None:
    nodes = to_core(gamma()).graph.nodes
    seen = [(node.op, node.inputs, repr(node.attributes), str(node.outputs[0]).split("/")[0]) for node in nodes]
    assert len(seen) == len(set(seen))


def test_what_is_not_lacked_stays() -> None:
    graph = gamma().graph
    assert decompose(graph, None, lambda node, _: False) is graph
    assert names(decompose(graph, None, lambda node, _: node.op == "zeta")) > {"lgamma"}


def test_a_body_is_decomposed_too() -> None:
    body = GraphBuilder("body")
    total, x = body.input("total", "float64", []), body.input("x", "float64", [])
    body.output("total", body.op("add", total, body.op("digamma", x)))
    b = GraphBuilder("g")
    start, xs = b.input("start", "float64", []), b.input("xs", "float64", ["n"])
    b.output("y", b.op("scan", start, xs, states=1, sequences=1, body=body.graph()))
    model = Model(b.graph(), InMemoryParameters())
    core = to_core(model)
    assert "digamma" not in names(core.graph)
    inputs = {"start": np.array(0.5), "xs": np.linspace(0.1, 3.0, 5)}
    np.testing.assert_array_equal(reference.run(core, inputs)["y"], reference.run(model, inputs)["y"])


def test_a_file_of_core_operators_is_verified_against_the_plain_one(tmp_path: Path) -> None:
    plain, core = tmp_path / "plain.json", tmp_path / "core.h5"
    save_json(gamma(), plain)
    run = CliRunner().invoke(cli, ["json-to-hdf5", str(plain), "-o", str(core), "--core"])
    assert run.exit_code == 0, run.output
    assert "2 nodes put in terms of the core" in run.output
    assert all(map(is_core, names(load_hdf5(core).graph)))
    assert CliRunner().invoke(cli, ["verify", str(core), str(plain), "--quiet"]).exit_code == 0


LAYERS = {
    "convolutional": (torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, 2, 2, bias=False), torch.nn.BatchNorm2d(8), torch.nn.SiLU(), torch.nn.MaxPool2d(3, 2, 1),
        torch.nn.GroupNorm(4, 8), torch.nn.Upsample(scale_factor=2, mode="bilinear"), torch.nn.ConvTranspose2d(8, 8, 3, 2, 1, 1),
        torch.nn.PixelShuffle(2), torch.nn.AdaptiveAvgPool2d((5, 3)), torch.nn.Flatten(), torch.nn.Softmax(-1)), (2, 3, 32, 40)),
    "encoder": (torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu"), (2, 5, 16)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_what_they_were(name: str) -> None:
    module, shape = LAYERS[name]
    x = torch.randn(shape)
    model = trace(module.eval(), [x]).model
    core = to_core(model)
    assert all(map(is_core, names(core.graph)))
    inputs = {model.graph.inputs[0].name: x.numpy()}
    for key, wanted in reference.run(model, inputs, float_dtype="float64").items():
        np.testing.assert_allclose(reference.run(core, inputs, float_dtype="float64")[key], wanted, rtol=1e-12, atol=1e-13)
