"""Complex arithmetic as one of real numbers: the operators on pairs, and whole graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from converter import reference
from converter.attributes import graphs_in
from converter.builder import GraphBuilder
from converter.checking import check
from converter.cli.main import cli
from converter.format import load_hdf5, save_json
from converter.ir import Graph, Model
from converter.opset import ARRAYS, lookup
from converter.parameters import InMemoryParameters
from converter.passes.complex_numbers import without_complex
from converter.passes.complex_numbers.pairs import Pair, Pairs
from converter.passes.decomposing import to_core

BORDER = {"view_as_real", "view_as_complex"}


def drawn(*shape: int) -> np.ndarray:
    generator = np.random.default_rng([7, *shape])
    return generator.standard_normal(shape) + 1j * generator.standard_normal(shape)


def on_pairs(operator: str, operands: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    space = Pairs(ARRAYS)
    terms: list[Any] = []
    for item in operands:
        if isinstance(item, np.ndarray) and item.dtype.kind == "c":
            item = Pair(item.real.copy(), item.imag.copy())
            item.space = space
        terms.append(item)
    result = space.apply(operator, terms, attributes)
    return result.real + 1j * result.imag if isinstance(result, Pair) else result


CUTS = np.array([complex(a, b) for a in (-2.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.5) for b in (-1.5, -0.0, 0.0, 1.5)])
UNARY = ("abs", "acos", "acosh", "angle", "asin", "asinh", "atan", "conj", "cos", "cosh", "exp", "exp2", "expm1", "isfinite", "isinf",
         "isnan", "log10", "log1p", "log2", "logical_not", "negative", "sigmoid", "sign", "silu", "sin", "sinh", "sqrt", "square", "tan",
         "tanh")


@pytest.mark.parametrize("operator", UNARY)
def test_functions_are_the_kernels_on_both_sides_of_their_cuts(operator: str) -> None:
    with np.errstate(all="ignore"):
        x = np.concatenate([drawn(40) * 2.0, CUTS[np.isfinite(lookup(operator).kernel(CUTS))]])
        wanted, found = lookup(operator).kernel(x), on_pairs(operator, (x,), {})
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("operator", ["isfinite", "isinf", "isnan"])
def test_what_is_not_finite_is_told_as_numpy_does(operator: str) -> None:
    values = (0.0, np.inf, -np.inf, np.nan)
    x = np.array([complex(a, b) for a in values for b in values])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(on_pairs(operator, (x,), {}), lookup(operator).kernel(x))


FAR = np.array([1e200 + 1e200j, 3e150 - 1e-200j, 3e200 - 1j, 1e160 + 1e-300j])


@pytest.mark.parametrize(("operator", "operands", "attributes"), [
    ("divide", (FAR, FAR[::-1].copy()), {}), ("abs", (FAR,), {}), ("power", (drawn(9), drawn(9)), {}), ("power", (drawn(9), -3), {}),
    ("power", (np.zeros(4, complex), np.array([0.0, 2.0 - 1j, 1j, -2.0])), {}), ("multiply", (drawn(3, 1), drawn(4)), {}),
    ("subtract", (2.5, drawn(4)), {}), ("reciprocal", (drawn(5),), {}), ("rsqrt", (drawn(5),), {}),
    ("equal", (CUTS, CUTS[::-1].copy()), {}), ("not_equal", (CUTS, CUTS.copy()), {}),
    ("where", (np.array([True, False, True]), drawn(3), 1.5), {}),
    ("matmul", (drawn(2, 3, 4), drawn(4, 5)), {}), ("linear", (drawn(2, 4), drawn(3, 4), drawn(3)), {}),
    ("einsum", (drawn(2, 3), drawn(3, 4)), {"equation": "ij,jk->ki"}), ("einsum", (drawn(3, 3),), {"equation": "ii->i"}),
    ("convolution", (drawn(1, 4, 7), drawn(6, 2, 3), drawn(6)), {"groups": 2, "padding": (1,)}),
    ("convolution_transpose", (drawn(1, 2, 6), drawn(2, 3, 3), None), {"stride": (2,)}),
    ("rms_norm", (drawn(3, 4), drawn(4)), {"normalized_shape": (4,), "eps": None}), ("lerp", (drawn(3), drawn(3), drawn(3)), {}),
    ("var", (drawn(3, 4),), {"axis": (1,)}), ("vector_norm", (drawn(3, 4),), {"axis": (1,), "ord": 3.0}),
    ("prod", (drawn(3, 4),), {"axis": (0,)}), ("mean", (drawn(3, 4),), {}), ("cumulative_sum", (drawn(3, 4),), {"axis": 1}),
    ("pad", (drawn(2, 3),), {"pads": ((1, 0), (0, 2)), "value": 2.5}), ("take", (drawn(5, 2), np.array([3, 0])), {"axis": 0}),
    ("masked_select", (drawn(3, 2), np.array([True, False, True])), {}), ("any", (np.array([[0, 1j], [0, 0]]),), {"axis": (1,)}),
    ("count_nonzero", (CUTS,), {}), ("nonzero", (np.array([0, 1j, 2]),), {}), ("real", (CUTS,), {}), ("view_as_real", (drawn(3),), {}),
    ("complex", (drawn(3, 1).real, drawn(4).real), {}), ("view_as_complex", (drawn(3, 2).real,), {}),
    ("scatter", (drawn(4), np.array([1, 1, 3]), drawn(3)), {"axis": 0, "reduction": "add"}),
    ("scatter", (drawn(4), np.array([1, 1, 3]), drawn(3)), {"axis": 0, "reduction": "multiply"}),
    ("inv", (drawn(4, 4),), {}), ("fftn", (drawn(6),), {"axes": (0,), "sizes": None, "norm": "ortho"}),
    ("rfftn", (drawn(6).real,), {"axes": (0,), "sizes": None, "norm": "backward"}),
], ids=lambda value: value if isinstance(value, str) else None)
def test_operators_are_the_kernels(operator: str, operands: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    whole = [np.asarray(item, complex) if isinstance(item, (int, float)) else item for item in operands]
    given = {name: spec.default for name, spec in lookup(operator).attributes.items() if name not in lookup(operator).binds}
    with np.errstate(invalid="ignore", divide="ignore"):
        wanted = lookup(operator).kernel(*whole, **{**given, **attributes})
        found = on_pairs(operator, operands, attributes)
    assert np.shape(found) == np.shape(wanted)
    assert np.asarray(found).dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


def complex_names(graph: Graph, specs: dict[str, Any]) -> set[str]:
    """The operators that read or give complex values, those of sub-graphs too."""
    found = {node.op for node in graph.nodes for name in (*node.names, *filter(None, node.outputs)) if specs[name].dtype.is_complex}
    for node in graph.nodes:
        for inner in graphs_in(node):
            found |= complex_names(inner, check(inner, None, outer=graph.dims))
    return found


def agree(model: Model, inputs: dict[str, np.ndarray], left: set[str] = frozenset()) -> Graph:  # type: ignore[assignment]
    """That the graph without complex arithmetic computes the same; gives it."""
    graph = without_complex(model.graph, model.parameters)
    assert (graph.inputs, graph.outputs) == (model.graph.inputs, model.graph.outputs)
    assert complex_names(graph, check(graph, model.parameters)) <= BORDER | left
    wanted = reference.run(model, inputs)
    for name, found in reference.run(Model(graph, model.parameters), inputs).items():
        assert found.dtype == wanted[name].dtype
        np.testing.assert_allclose(found, wanted[name], rtol=2e-5, atol=1e-5)
    return graph


def spectral() -> tuple[Model, dict[str, np.ndarray]]:
    """Complex input, parameter and output, and real ones beside them."""
    weight = drawn(4).astype(np.complex64)
    b = GraphBuilder("spectral")
    z, x, w = b.input("z", "complex64", ["n", 4]), b.input("x", "float32", ["n", 6]), b.parameter("w", "complex64", [4])
    y = b.op("multiply", b.op("multiply", z, w), b.op("rfftn", x, axes=(1,), sizes=None, norm="backward"))
    b.output("y", y)
    b.output("size", b.op("abs", y, name="size"))
    b.output("given", z)
    b.output("weight", w)
    return (Model(b.graph(), InMemoryParameters({"w": weight})),
            {"z": drawn(3, 4).astype(np.complex64), "x": drawn(3, 6).real.astype(np.float32)})


def test_inputs_outputs_and_parameters_stay() -> None:
    model, inputs = spectral()
    graph = agree(model, inputs)
    assert {"size"} <= {name for node in graph.nodes for name in node.outputs}
    assert [(node.op, node.inputs) for node in graph.nodes if node.op == "view_as_real"] == [
        ("view_as_real", ("z",)), ("view_as_real", ("w",))]


def test_a_graph_of_real_numbers_is_given_as_it_is() -> None:
    b = GraphBuilder("real")
    b.output("y", b.op("exp", b.input("x", "float32", ["n"])))
    graph = b.graph()
    assert without_complex(graph, None) is graph


def body_of(name: str, *ports: tuple[str, list[Any]], make: Any) -> Graph:
    b = GraphBuilder(name)
    for position, value in enumerate(make(b, *(b.input(f"in_{index}", dtype, shape) for index, (dtype, shape) in enumerate(ports)))):
        b.output(f"out_{position}", value)
    return b.graph()


def test_loops_carry_both_parts() -> None:
    b = GraphBuilder("scan")
    start, xs, by = b.input("start", "complex64", [3]), b.input("xs", "float32", ["n", 3]), b.input("by", "complex64", [3])
    body = body_of("body", ("complex64", [3]), ("float32", [3]), ("complex64", [3]), make=lambda b, state, x, by: (
        b.op("add", b.op("multiply", state, by), b.op("complex", x, 1.0)), b.op("abs", state), b.op("exp", state)))
    last, sizes, waves = b.add("scan", (start, xs, by), {"states": 1, "sequences": 1, "body": body})
    for name, value in (("last", last), ("sizes", sizes), ("waves", waves)):
        b.output(name, value)
    model = Model(b.graph(), InMemoryParameters())
    agree(model, {"start": drawn(3).astype("c8"), "xs": drawn(2, 3).real.astype("f4"), "by": (drawn(3) / 3).astype("c8")})


def test_loops_that_the_data_end_and_branches() -> None:
    b = GraphBuilder("while")
    z, count = b.input("z", "complex64", ["n"]), b.input("count", "int64", [])
    kinds = (("complex64", ["n"]), ("int64", []))
    condition = body_of("condition", *kinds, make=lambda b, z, count: (b.op("greater", count, 0),))
    body = body_of("body", *kinds, make=lambda b, z, count: (b.op("square", z), b.op("subtract", count, 1)))
    found, left = b.add("while_loop", (z, count), {"carried": 2, "condition": condition, "body": body})
    then = body_of("then", ("complex64", ["n"]), make=lambda b, z: (b.op("conj", z), b.op("real", z)))
    other = body_of("else", ("complex64", ["n"]), make=lambda b, z: (z, b.op("imag", z)))
    whole, part = b.add("cond", (b.op("equal", left, 0), found), {"then_branch": then, "else_branch": other})
    b.output("y", whole)
    b.output("part", part)
    agree(Model(b.graph(), InMemoryParameters()), {"z": (drawn(4) / 2).astype("c8"), "count": np.array(3)})


def test_complex_numbers_within_a_body_of_real_ones() -> None:
    b = GraphBuilder("map")
    body = body_of("body", ("float32", [4]), make=lambda b, x: (b.op("abs", b.op("rfftn", x, axes=(0,), sizes=None, norm="backward")),))
    b.output("y", b.op("scan", b.input("xs", "float32", ["n", 4]), states=0, sequences=1, body=body))
    agree(Model(b.graph(), InMemoryParameters()), {"xs": drawn(3, 4).real.astype("f4")})


def test_what_nothing_simpler_is_known_of_stays() -> None:
    b = GraphBuilder("eig")
    values, vectors = b.add("eig", (b.input("x", "complex64", [3, 3]),))
    b.output("size", b.op("abs", values))
    b.output("vectors", b.op("multiply", vectors, 2.0))
    agree(Model(b.graph(), InMemoryParameters()), {"x": drawn(3, 3).astype("c8")}, left={"eig"})


def test_a_core_file_holds_no_complex_arithmetic(tmp_path: Path) -> None:
    model, _ = spectral()
    plain, core = tmp_path / "plain.json", tmp_path / "core.h5"
    save_json(model, plain)
    run = CliRunner().invoke(cli, ["json-to-hdf5", str(plain), "-o", str(core), "--core"])
    assert run.exit_code == 0, run.output
    found = load_hdf5(core)
    assert complex_names(found.graph, check(found.graph, found.parameters)) <= BORDER
    assert found.graph.nodes == to_core(model).graph.nodes
    assert found.parameters.read("w").tobytes() == model.parameters.read("w").tobytes()
    assert CliRunner().invoke(cli, ["verify", str(core), str(plain), "--quiet"]).exit_code == 0
