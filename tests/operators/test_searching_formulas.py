"""Distances, searches and masks by formulas: any dtype, no elements, NaN, and places that are not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapters.onnx.session import OnnxRuntimeSession
from converter import reference
from converter.builder import GraphBuilder
from converter.errors import GraphError, RunError
from converter.ir import DimRange, DType, Model
from converter.parameters import InMemoryParameters
from converter.passes.decomposing import to_core

Row = tuple[str, list[tuple[Any, ...]], dict[str, Any], str]
REAL = ("float32", "bfloat16", "int8", "uint64", "bool")
ROWS: list[Row] = [
    *(("mode", [("b", "n")], {"axis": 1}, dtype) for dtype in REAL),
    *(("searchsorted", [("b", "n"), ("b", "m")], {"right": right}, dtype) for dtype in REAL for right in (False, True)),
    *(("isin", [("b", "n"), ("m",)], {}, dtype) for dtype in (*REAL, "complex64")),
    *(("masked_scatter", [("b", "n"), ("b", "n"), ("b", "n")], {}, dtype) for dtype in (*REAL, "complex64")),
    *(("cdist", [("b", "n", "m"), ("m", "m")], {"p": p}, "float32") for p in (0.0, 1.0, 3.0, float("inf"))),
    ("cosine_similarity", [("b", "n"), ("n",)], {"axis": 0}, "float32"), ("cross", [("b", 3), ("b", 3)], {}, "complex64"),
    ("cross", [("b", 3), ("b", 3)], {}, "int8"), ("angle", [("b", "n")], {}, "float32"), ("angle", [("b", "n")], {}, "complex64"),
    *(("einsum", [("b", "n"), ("n", "m")], {"equation": "ij,jk->ki"}, dtype) for dtype in (*REAL[:3], "complex64")),
    *(("einsum", shapes, {"equation": equation}, "float32") for equation, shapes in (
        ("bii,i->b", [("b", "n", "n"), ("n",)]), ("iji->j", [("n", "m", "n")]), ("ij,j,kj->", [("b", "n"), ("n",), ("m", "n")]),
        ("...i,...i", [("b", 1, "n"), ("m", 1)]), ("bhqd,bhkd->bhqk", [("b", 2, "n", 3), ("b", 2, "m", 3)]),
        ("i,j->ji", [("n",), ("m",)]))),
    ("view_as_real", [("b", "n")], {}, "complex64"), ("one_hot", [("b", "n")], {"num_classes": 6}, "int32"),
]
SIZES = ({"b": 2, "n": 5, "m": 3}, {"b": 0, "n": 5, "m": 3}, {"b": 2, "n": 0, "m": 3}, {"b": 2, "n": 1, "m": 0})


def model(operator: str, shapes: list[tuple[Any, ...]], attributes: dict[str, Any], dtype: str) -> Model:
    b = GraphBuilder("g")
    b.dims.update({name: DimRange(0, None) for name in "bnm"})
    dtypes = ["bool" if operator == "masked_scatter" and index == 1 else dtype for index in range(len(shapes))]
    inputs = [b.input(f"x{index}", kind, shape) for index, (kind, shape) in enumerate(zip(dtypes, shapes, strict=True))]
    for index, value in enumerate(b.add(operator, inputs, attributes)):
        b.output(f"y{index}", value)
    return Model(b.graph(), InMemoryParameters())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[2] or ''} {row[3]}")
def test_like_the_kernel(row: Row) -> None:
    operator, shapes, _, dtype = row
    plain = model(*row)
    core, onnx = to_core(plain), OnnxRuntimeSession(plain)
    for sizes in SIZES:
        if operator == "mode" and not sizes["n"]:
            continue
        rng, inputs = np.random.default_rng(3), {}
        for port, shape in zip(plain.graph.inputs, shapes, strict=True):
            x = rng.integers(0, 6, [sizes[size] if isinstance(size, str) else size for size in shape]).astype(float)
            if DType(dtype).is_float and operator != "masked_scatter" and x.size > 6:
                x.flat[3:5] = np.nan, np.inf
            x = np.sort(x, axis=-1) if operator == "searchsorted" and port.name == "x0" else x
            inputs[port.name] = x > 2 if port.spec.dtype is DType.BOOL else x.astype(port.spec.dtype.numpy)
        wanted = reference.run(plain, inputs)
        for found in (reference.run(core, inputs), onnx.run(inputs)):
            for name, array in wanted.items():
                assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
                np.testing.assert_allclose(found[name].astype(complex), array.astype(complex), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", [-1, 6])
def test_a_class_that_is_none_is_an_error(number: int) -> None:
    with pytest.raises(RunError, match="take"):
        reference.run(to_core(model("one_hot", [("n",)], {"num_classes": 6}, "int64")), {"x0": np.array([0, number])})


@pytest.mark.parametrize(("operator", "shapes"), [("mode", [("b", "n")]), ("searchsorted", [("n",), ("b", "m")])])
def test_complex_numbers_have_no_order(operator: str, shapes: list[tuple[str, ...]]) -> None:
    with pytest.raises(GraphError, match="no order"):
        model(operator, shapes, {"axis": 1} if operator == "mode" else {}, "complex64")
