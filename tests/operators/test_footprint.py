"""Runs whose values do not fit in memory are refused before they begin, by every runtime, with the node and the bytes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import converter
from converter.builder import GraphBuilder, Value
from converter.checking import check
from converter.dims import symbol
from converter.equivalence.sizing import Sizes
from converter.errors import ConverterError, RunError
from converter.footprint import Footprint, nbytes
from converter.ir import DimRange, DType, Graph, Model
from converter.memory import parse_bytes, shown_bytes
from converter.parameters import InMemoryParameters

Step = Callable[[GraphBuilder, Value], Value]
N = symbol("n")


def chain(step: Step, count: int) -> Model:
    """x [n] through `count` times the same step, and the greatest of what that gives."""
    b = GraphBuilder("chain")
    y = b.input("x", "float32", ["n"])
    for _ in range(count):
        y = step(b, y)
    b.output("y", b.op("max", y, axis=(0,)))
    return Model(b.graph(), InMemoryParameters())


def repeated(b: GraphBuilder, x: Value) -> Value:
    wide = b.op("broadcast_to", b.op("expand_dims", x, axis=(0,)), shape=(1 << 20, *x.shape))
    return b.op("reshape", wide, shape=((1 << 20) * x.shape[0],))


STEPS: dict[str, tuple[Step, int]] = {
    "concat": (lambda b, x: b.op("concat", x, x, axis=0), 50),
    "tile": (lambda b, x: b.op("tile", x, repetitions=(64,)), 8),
    "repeated": (repeated, 3),
    "pad": (lambda b, x: b.op("pad", x, pads=((1 << 45, 0),)), 1),
    "full": (lambda b, x: b.op("add", b.op("slice", x, axes=(0,), starts=(0,), stops=(1,)),
                               b.op("full", shape=(1 << 45,), fill_value=1.0, dtype=DType.FLOAT32)), 1),
}


@pytest.mark.parametrize("runtime", ["reference", "numpy", "onnxruntime", "torch", "c"])
@pytest.mark.parametrize("name", STEPS)
def test_values_that_explode_are_refused_before_the_run(name: str, runtime: str) -> None:
    session = converter.session(chain(*STEPS[name]), runtime)
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match=r"node .*the run does not fit in memory\. Expected: at most .*B\. Received: .*TB of values"):
            session.run({"x": np.ones(4, np.float32)})
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("runtime", ["reference", "numpy"])
def test_sizes_that_the_data_say_are_looked_at_as_soon_as_they_are_known(runtime: str) -> None:
    b = GraphBuilder("data")
    count = b.input("count", "int64", [])
    b.op("size_of", count, size=N)
    b.output("y", b.op("max", b.op("add", b.op("full", shape=(N, 1 << 20), fill_value=1.0, dtype=DType.FLOAT32), 1.0), axis=(0, 1)))
    session = converter.session(Model(b.graph(), InMemoryParameters()), runtime)
    assert session.run({"count": np.asarray(3)})["y"] == 2
    with pytest.raises(RunError, match=r"does not fit in memory.*n=2147483647"):
        session.run({"count": np.asarray((1 << 31) - 1)})


def test_a_body_counts() -> None:
    b = GraphBuilder("loop")
    x = b.input("x", "float32", [4])
    rows = b.input("rows", "float32", ["n", 4])
    body = GraphBuilder("body")
    state, row = body.input("state", "float32", [4]), body.input("row", "float32", [4])
    wide = body.op("tile", row, repetitions=(1 << 40,))
    body.output("state", body.op("add", state, body.op("max", wide, axis=(0,))))
    (y,) = b.add("scan", (x, rows), {"states": 1, "sequences": 1, "body": body.graph()})
    b.output("y", y)
    session = converter.session(Model(b.graph(), InMemoryParameters()))
    with pytest.raises(RunError, match=r"node scan.*does not fit in memory"):
        session.run({"x": np.ones(4, np.float32), "rows": np.ones((2, 4), np.float32)})


def test_the_limit_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    session = converter.session(chain(STEPS["concat"][0], 10))
    inputs = {"x": np.ones(100, np.float32)}
    monkeypatch.setenv("CONVERTER_MEMORY", "500kB")
    with pytest.raises(RunError, match=r"at most 500 kB\. Received: 614 kB"):
        session.run(inputs)
    monkeypatch.setenv("CONVERTER_MEMORY", "1MB")
    assert session.run(inputs)["y"] == 1
    monkeypatch.setenv("CONVERTER_MEMORY", "much")
    with pytest.raises(ConverterError, match="CONVERTER_MEMORY: no size"):
        session.run({"x": np.ones(101, np.float32)})


def peak(graph: Graph, **sizes: int) -> int:
    return Footprint(graph, check(graph)).peak(lambda spec: nbytes(spec, sizes))[0]


def test_what_is_read_no_more_is_not_held() -> None:
    """Two neighbours of a chain live at a time; a reshape takes nothing beside its operand."""
    assert peak(chain(lambda b, x: b.op("tanh", x), 9).graph, n=10) == 2 * 40
    assert peak(chain(lambda b, x: b.op("reshape", b.op("reshape", x, shape=(N, 1)), shape=(N,)), 3).graph, n=10) == 40 + 4


def test_drawn_sizes_are_those_at_which_a_run_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model whose values grow with the cube of a size, and that can run at small ones alone."""
    b = GraphBuilder("cube")
    x = b.input("x", "float32", ["n"])
    b.dims["n"] = DimRange(min=1, max=128)
    wide = b.op("broadcast_to", x, shape=(100, N, N, N))
    b.output("y", b.op("max", b.op("add", wide, wide), axis=(0, 1, 2)))
    graph = b.graph()
    monkeypatch.setenv("CONVERTER_MEMORY", "1MB")
    planned = [Sizes(graph, check(graph), ("n",), {}, {}).plan(index)["n"] for index in range(6)]
    assert max(planned) > 1
    assert all(2 * 8 * 100 * size**3 <= 1e6 for size in planned)
    report = converter.verify(Model(graph, InMemoryParameters()), ["numpy"])
    assert report
    assert not report.unjudged


@pytest.mark.parametrize(("text", "count"), [("500MB", 500_000_000), ("1GiB", 1 << 30), ("0.5 kB", 500), ("12", 12)])
def test_sizes_in_words(text: str, count: int) -> None:
    assert parse_bytes(text, "") == count


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (1200, "1.2 kB"), (123_456_789, "123 MB"), (2.7e16, "2.7e+04 TB")])
def test_words_of_sizes(count: Any, text: str) -> None:
    assert shown_bytes(count) == text
