"""Order in ONNX Runtime: it has none of uint64, and NaN has no place in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapters.onnx.session import OnnxRuntimeSession
from converter import reference
from converter.builder import GraphBuilder
from converter.ir import Model
from converter.parameters import InMemoryParameters


def agree(operator: str, attributes: dict[str, Any], x: np.ndarray[Any, Any], dtype: str) -> None:
    b = GraphBuilder("g")
    for index, value in enumerate(b.add(operator, [b.input("x", dtype, x.shape)], attributes)):
        b.output(f"y{index}", value)
    model = Model(b.graph(), InMemoryParameters())
    for name, found in OnnxRuntimeSession(model).run({"x": x}).items():
        np.testing.assert_array_equal(found, reference.run(model, {"x": x})[name])


@pytest.mark.parametrize(("operator", "attributes"), [
    ("max", {"axis": (1,)}), ("min", {}), ("argmax", {"axis": 1}), ("argmin", {}), ("sort", {"axis": 1}), ("topk", {"k": 2, "axis": 1}),
    ("median", {"axis": 1}), ("mode", {"axis": 1}), ("cummax", {"axis": 1})], ids=str)
def test_large_numbers(operator: str, attributes: dict[str, Any]) -> None:
    """Numbers from 2⁶³ on are the largest."""
    agree(operator, attributes, np.array([[1, 2**63 + 5, 7], [2**64 - 1, 0, 2**63]], np.uint64), "uint64")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("operator", "attributes"), [
    ("sort", {"axis": 1}), ("sort", {"axis": 1, "descending": True}), ("topk", {"k": 2, "axis": 1}),
    ("topk", {"k": 3, "axis": 1, "largest": False}), ("median", {"axis": 1}), ("median", {"axis": 1, "ignore_nan": True})], ids=str)
def test_nan_comes_after_infinity(operator: str, attributes: dict[str, Any], dtype: str) -> None:
    nan, inf = np.nan, np.inf
    agree(operator, attributes, np.array([[nan, inf, 1, -inf, nan, 6e4], [inf, nan, 2, inf, nan, -inf]], dtype), dtype)
