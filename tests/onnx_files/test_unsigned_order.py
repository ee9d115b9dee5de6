"""Order of uint64 in ONNX Runtime, which has it for int64 only: numbers from 2⁶³ on are the largest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapters.onnx.session import OnnxRuntimeSession
from converter import reference
from converter.builder import GraphBuilder
from converter.ir import Model
from converter.parameters import InMemoryParameters


@pytest.mark.parametrize(("operator", "attributes"), [
    ("max", {"axis": (1,)}), ("min", {}), ("argmax", {"axis": 1}), ("argmin", {}), ("sort", {"axis": 1}), ("topk", {"k": 2, "axis": 1}),
    ("median", {"axis": 1}), ("mode", {"axis": 1}), ("cummax", {"axis": 1})], ids=str)
def test_large_numbers(operator: str, attributes: dict[str, Any]) -> None:
    b = GraphBuilder("g")
    for index, value in enumerate(b.add(operator, [b.input("x", "uint64", [2, 3])], attributes)):
        b.output(f"y{index}", value)
    model = Model(b.graph(), InMemoryParameters())
    x = np.array([[1, 2**63 + 5, 7], [2**64 - 1, 0, 2**63]], np.uint64)
    for name, found in OnnxRuntimeSession(model).run({"x": x}).items():
        np.testing.assert_array_equal(found, reference.run(model, {"x": x})[name])
