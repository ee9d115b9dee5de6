"""The NumPy session on several threads: what it gives, how many it uses, and beside other threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import converter
from adapters.numpy import registry
from adapters.numpy import threads as room
from converter import reference
from converter.builder import GraphBuilder
from converter.errors import ConverterError, MissingDependencyError
from converter.ir import Model
from converter.opset import lookup
from converter.parameters import InMemoryParameters

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def model(shape: tuple[int, ...], weights: dict[str, np.ndarray], build: Callable[..., Any]) -> Model:
    b = GraphBuilder("g")
    x = b.input("x", "float32", [f"s{axis}" if size < 0 else size for axis, size in enumerate(shape)])
    b.output("y", build(b, x, *[b.parameter(name, "float32", array.shape) for name, array in weights.items()]))
    return Model(b.graph(), InMemoryParameters(weights))


def chain(b: GraphBuilder, x: Any) -> Any:
    return b.op("multiply", b.op("gelu", b.op("add", x, 1.0)), b.op("sigmoid", x))


def attend(b: GraphBuilder, x: Any) -> Any:
    return b.op("scaled_dot_product_attention", x, x, x, is_causal=True)


LSTM = {f"w{index}": array * 0.1 for index, array in enumerate(
    [draw(1200, 40), draw(1200, 300), draw(1200), draw(1200), draw(1200, 40), draw(1200, 300), draw(1200), draw(1200)])}
MODELS: dict[str, tuple[tuple[int, ...], Model]] = {
    "a chain": ((7, 40_000), model((-1, -1), {}, chain)),
    "one channel a filter": ((2, 24, 60, 61), model((-1, 24, -1, -1), {"w": draw(24, 1, 3, 3), "b": draw(24)}, lambda b, x, w, v: b.op(
        "hardswish", b.op("convolution", x, w, v, groups=24, padding=(1, 1))))),
    "large images": ((1, 8, 500, 300), model((-1, 8, -1, -1), {"w": draw(8, 1, 3, 3)}, lambda b, x, w: b.op(
        "relu", b.op("convolution", x, w, groups=8, padding=(2, 2), dilation=(2, 2))))),
    "a convolution": ((2, 8, 90, 60), model((-1, 8, -1, -1), {"w": draw(16, 8, 3, 3), "b": draw(16)}, lambda b, x, w, v: b.op(
        "relu", b.op("convolution", x, w, v, padding=(1, 1))))),
    "a pool": ((2, 16, 90, 90), model((-1, 16, -1, -1), {}, lambda b, x: b.op("max_pool", x, kernel=(3, 3), stride=(2, 2)))),
    "attention": ((2, 6, 70, 16), model((-1, 6, -1, 16), {}, attend)),
    "two directions": ((6, 2, 40), model((-1, -1, 40), LSTM, lambda b, x, *w: b.op("lstm", x, *w, bidirectional=True))),
    "norm": ((900, 130), model((-1, 130), {}, lambda b, x: b.op("softmax", b.op("layer_norm", x, normalized_shape=(130,)), axis=-1))),
}


@pytest.mark.parametrize("name", MODELS)
def test_threads_give_what_one_gives(name: str) -> None:
    shape, made = MODELS[name]
    x = draw(*shape)
    wanted = reference.run(made, {"x": x}, float_dtype="float64")["y"]
    for count in (1, 2, 3):
        session = converter.session(made, threads=count)
        for _ in range(2):
            np.testing.assert_allclose(session.run({"x": x})["y"], wanted, rtol=2e-5, atol=2e-5)


def test_one_means_one_and_what_was_set_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    library, seen = room._library(), []

    def watched(x: Any, **attributes: Any) -> Any:
        seen.append((room.threads(), library.get_num_threads()))
        return lookup("cumulative_sum").kernel(x, **attributes)

    table: Any = registry._KERNELS
    len(table)
    monkeypatch.setitem(table._functions, "cumulative_sum", watched)
    monkeypatch.setattr(room, "_pool", lambda count: pytest.fail("asked for threads"))
    made = model((-1, -1), {}, lambda b, x: b.op("exp", b.op("cumulative_sum", x, axis=0)))
    library.set_num_threads(2)
    try:
        converter.session(made, threads=1).run({"x": draw(4, 60_000)})
        assert seen == [(1, 1)]
        assert library.get_num_threads() == 2
    finally:
        library.set_num_threads(1)
    assert room.threads() == room._default()


def test_work_within_shared_work_is_not_shared_again() -> None:
    counts: list[int] = []

    def inner(parts: Iterable[int]) -> None:
        counts.append(len(list(parts)))

    def outer(parts: Iterable[int]) -> None:
        for _ in parts:
            room.spread(range(40), inner)

    with room.limited(2):
        room.spread(range(8), outer)
        assert room.threads() == 2
    assert counts == [40] * 8


def test_an_error_of_any_thread_is_the_callers() -> None:
    def work(parts: Iterable[int]) -> None:
        if 1 in parts:
            raise ValueError("in the second share")

    with room.limited(2), pytest.raises(ValueError, match="second"):
        room.spread(range(8), work)


def test_sessions_of_several_threads_with_different_numbers() -> None:
    shape, made = MODELS["attention"]
    inputs, wrong = [draw(*shape) for _ in range(4)], []
    sessions = [converter.session(made, threads=1 + index % 2) for index in range(4)]
    wanted = [reference.run(made, {"x": x})["y"] for x in inputs]
    before = room._library().get_num_threads()

    def work(index: int) -> None:
        for _ in range(10):
            if not np.allclose(sessions[index].run({"x": inputs[index]})["y"], wanted[index], rtol=1e-4, atol=1e-5):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert room._library().get_num_threads() == before


FORKED = """
import os, numpy as np, converter
from converter.builder import GraphBuilder
b = GraphBuilder("g")
x = b.input("x", "float32", ("n", 200))
b.output("y", b.op("relu", b.op("linear", b.op("exp", x), b.parameter("w", "float32", (200, 200)))))
model = converter.Model(b.graph(), converter.InMemoryParameters({"w": np.eye(200, dtype=np.float32)}))
session = converter.session(model, threads=2)
x = np.random.default_rng(0).standard_normal((2000, 200), dtype=np.float32)
wanted = session.run({"x": x})["y"]
child = os.fork()
if child == 0:
    os._exit(0 if np.allclose(session.run({"x": x})["y"], wanted) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert np.allclose(session.run({"x": x})["y"], wanted)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_session_goes_on_in_a_forked_child() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [0, -1, True, "2", 1.0, 1 << 20])
def test_what_is_no_number_of_threads_is_refused(count: Any) -> None:
    with pytest.raises(ConverterError, match="number of threads"):
        converter.session(MODELS["a pool"][1], threads=count)


def test_without_threadpoolctl_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_library", lambda: None)
    converter.session(MODELS["a pool"][1])
    with pytest.raises(MissingDependencyError, match="threadpoolctl"):
        converter.session(MODELS["a pool"][1], threads=1)
