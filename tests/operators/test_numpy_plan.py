"""A plan of the NumPy runtime: what is computed in every run, and what once."""

from __future__ import annotations

import tracemalloc
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


def perceptron() -> converter.Model:
    b = converter.GraphBuilder("g")
    x = b.input("x", "float32", ("n", 64))
    y = b.op("gelu", b.op("linear", x, b.parameter("up", "float32", (256, 64)), b.parameter("shift", "float32", (256,))))
    b.output("y", b.op("add", b.op("relu", b.op("linear", y, b.parameter("down", "float32", (64, 256)))), x))
    rng = np.random.default_rng(0)
    weights = {"up": rng.standard_normal((256, 64)), "shift": rng.standard_normal(256), "down": rng.standard_normal((64, 256))}
    return converter.Model(b.graph(), converter.InMemoryParameters({name: array.astype(np.float32) for name, array in weights.items()}))


def test_a_run_of_known_sizes_allocates_its_outputs_and_blocks() -> None:
    """Of the 4 MB between the layers nothing; what a chain needs for a block is below 1 MB."""
    session, x = converter.session(perceptron()), np.ones((4000, 64), np.float32)
    for _ in range(3):
        session.run({"x": x})
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        y = session.run({"x": x})["y"]
        kept, peak = (size - before for size in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert kept < y.nbytes + 10_000
    assert peak < y.nbytes + (1 << 20)


def test_plans_are_kept_by_sizes_and_bounded() -> None:
    session: Any = converter.session(perceptron())
    wanted = session.run({"x": np.ones((70, 64), np.float32)})["y"]
    for size in range(1, 71):
        np.testing.assert_allclose(session.run({"x": np.ones((size, 64), np.float32)})["y"], wanted[:size], rtol=1e-4, atol=1e-4)
    assert len(session._plan._known) == 64


def test_sizes_that_were_met_are_checked_for_all_that_may_differ() -> None:
    session: Any = converter.session(perceptron())
    x = np.ones((3, 64), np.float32)
    session.run({"x": x})
    for wrong in ({"x": x.astype(np.float64)}, {"x": x[:, :3]}, {"x": x[0]}, {"z": x}, {}, {"x": x, "z": x}, {"x": None}):
        with pytest.raises(converter.RunError):
            session.run(wrong)
