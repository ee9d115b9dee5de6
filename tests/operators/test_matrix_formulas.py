"""Linear algebra by formulas: sizes of 0 and 1 as the kernels, and loops that carry only what is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapters.onnx.session import OnnxRuntimeSession
from converter import reference
from converter.builder import GraphBuilder
from converter.ir import DimRange, Graph, Model
from converter.parameters import InMemoryParameters
from converter.passes.decomposing import to_core

SQUARE, TALL = ("batch", "n", "n"), ("batch", "m", "n")
OPERATORS: tuple[tuple[str, list[tuple[str, ...]], dict[str, Any]], ...] = (
    ("inv", [SQUARE], {}), ("det", [SQUARE], {}), ("slogdet", [SQUARE], {}), ("solve", [SQUARE, ("batch", "n", "k")], {}),
    ("solve_triangular", [SQUARE, ("batch", "n", "k")], {"upper": True}), ("cholesky", [SQUARE], {}), ("qr", [TALL], {"mode": "complete"}),
    ("svd", [TALL], {"full_matrices": False}), ("eigh", [SQUARE], {}), ("pinv", [TALL], {}), ("matrix_exp", [SQUARE], {}),
    ("lu_factor", [TALL], {}), ("geqrf", [TALL], {}), ("householder_product", [TALL, ("batch", "n")], {}),
    ("matrix_norm", [TALL], {"ord": 2.0}), ("matrix_norm", [TALL], {"ord": float("inf")}),
)
SIZES = ({"batch": 0, "m": 4, "n": 3, "k": 2}, {"batch": 2, "m": 3, "n": 0, "k": 2}, {"batch": 2, "m": 0, "n": 0, "k": 0},
         {"batch": 1, "m": 1, "n": 1, "k": 1}, {"batch": 2, "m": 5, "n": 2, "k": 3})


def model(operator: str, shapes: list[tuple[str, ...]], attributes: dict[str, Any], dtype: str = "float32") -> Model:
    b = GraphBuilder("g")
    b.dims.update({name: DimRange(0, None) for name in SIZES[0]})
    for index, value in enumerate(b.add(operator, [b.input(f"x{index}", dtype, shape) for index, shape in enumerate(shapes)], attributes)):
        b.output(f"y{index}", value)
    return Model(b.graph(), InMemoryParameters())


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("case", OPERATORS, ids=lambda case: f"{case[0]} {case[2] or ''}".strip())
def test_sizes_of_nothing_and_of_one(case: tuple[str, list[tuple[str, ...]], dict[str, Any]], dtype: str) -> None:
    operator, shapes, attributes = case
    plain = model(operator, shapes, attributes, dtype)
    core, onnx = to_core(plain), OnnxRuntimeSession(plain)
    for sizes in SIZES:
        rng = np.random.default_rng(3)
        inputs = {f"x{index}": rng.uniform(-1, 1, [sizes[size] for size in shape]).astype(dtype) for index, shape in enumerate(shapes)}
        if shapes[0] == SQUARE:
            inputs["x0"] = inputs["x0"] @ inputs["x0"].swapaxes(-1, -2) + np.eye(sizes["n"], dtype=dtype)
        wanted = reference.run(plain, inputs)
        for found in (reference.run(core, inputs), onnx.run(inputs)):
            for name, array in wanted.items():
                assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
                signless = np.abs if operator in ("svd", "eigh") else np.asarray
                np.testing.assert_allclose(signless(found[name]), signless(array), rtol=1e-4, atol=1e-5)


def carried(graph: Graph) -> list[int]:
    return [node.attributes["carried"] for node in graph.nodes if node.op == "while_loop"]


def test_loops_do_not_carry_what_nothing_uses() -> None:
    whole = model("svd", [TALL], {"full_matrices": False})
    values = Model(Graph(whole.graph.name, whole.graph.inputs, whole.graph.outputs[1:2], whole.graph.nodes, whole.graph.dims),
                   InMemoryParameters())
    # Counter, flag, rotated columns, and the right vectors only where they are wanted.
    assert carried(to_core(values).graph) == [3]
    assert carried(to_core(whole).graph)[0] == 4
    x = np.random.default_rng(0).uniform(-1, 1, (2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(reference.run(to_core(values), {"x0": x})["y1"], np.linalg.svd(x, compute_uv=False), rtol=1e-5)
