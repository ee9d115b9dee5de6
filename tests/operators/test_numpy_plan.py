"""A plan of the NumPy runtime: what is computed in every run, and what once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import converter
from adapters.numpy import registry
from converter.opset import lookup


def test_what_parameters_alone_decide_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are unpacked and scaled: in the first run, by whichever thread, and in every run where they take too much."""
    calls: list[str] = []

    def counted(kernel: Any) -> Any:
        def call(*arrays: Any, **attributes: Any) -> Any:
            calls.append("multiply")
            return kernel(*arrays, **attributes)
        return call

    builder = converter.GraphBuilder("g")
    x = builder.input("x", "float32", ("n", 4))
    scaled = builder.op("multiply", builder.parameter("w", "float32", (3, 4)), builder.parameter("s", "float32", (3, 1)))
    builder.output("y", builder.op("linear", x, scaled))
    builder.output("weight", scaled)
    weights = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "s": np.ones((3, 1), np.float32) * 2}
    model = converter.Model(builder.graph(), converter.InMemoryParameters(weights))
    table: Any = registry._KERNELS
    len(table)
    monkeypatch.setitem(table._functions, "multiply", counted(table.get("multiply", lookup("multiply").kernel)))
    inputs = {"x": np.ones((2, 4), np.float32)}
    for limit, expected in ((1 << 30, 1), (8, 4)):
        monkeypatch.setattr("adapters.numpy.plan.KEPT_BYTES", limit)
        calls.clear()
        session = converter.session(model)
        found = [session.run(inputs) for _ in range(3)]
        for outputs in found:
            np.testing.assert_array_equal(outputs["y"], inputs["x"] @ (weights["w"] * 2).T)
        assert len(calls) == expected
    session = converter.session(model)
    with ThreadPoolExecutor(8) as pool:
        for outputs in pool.map(lambda _: session.run(inputs), range(64)):
            np.testing.assert_array_equal(outputs["y"], inputs["x"] @ (weights["w"] * 2).T)
