"""Kernels of the NumPy session that are made for constant weights, and the memory that a session uses again."""

from __future__ import annotations

import threading
from itertools import product
from typing import Any

import numpy as np
import pytest

from adapters.numpy.buffers import LEAST, Buffers, empty, using
from adapters.numpy.session import NumpySession
from converter import reference
from converter.builder import GraphBuilder
from converter.ir import Model
from converter.parameters import InMemoryParameters

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def model(operator: str, weights: list[np.ndarray], shape: list[Any], further: dict[str, list[Any]] | None = None, outputs: int = 1,
          **attributes: Any) -> Model:
    """A model of one node: an input, constant weights, further inputs."""
    b = GraphBuilder("one")
    names = [f"w{index}" for index in range(len(weights))]
    parameters = InMemoryParameters(dict(zip(names, weights, strict=True)))
    x = b.input("x", "float32", shape)
    constants = [b.parameter(name, "float32", weight.shape) for name, weight in zip(names, weights, strict=True)]
    values = b.op(operator, x, *constants, *[b.input(name, "float32", size) for name, size in (further or {}).items()], **attributes)
    for index, value in enumerate(values if isinstance(values, tuple) else (values,)):
        if index < outputs:
            b.output(f"y{index}", value)
    return Model(b.graph(), parameters)


def agree(made: Model, inputs: dict[str, np.ndarray]) -> None:
    session = NumpySession(made)
    wanted = reference.run(made, inputs, float_dtype="float64")
    for _ in range(2):  # the second run is in the memory of the first
        for name, found in session.run(inputs).items():
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted[name], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("operator", "gates"), [("rnn", 1), ("lstm", 4), ("gru", 3)])
@pytest.mark.parametrize(("layers", "both", "bias", "first"), list(product((1, 2), (False, True), (False, True), (False, True))))
def test_recurrent_layers_with_packed_weights(operator: str, gates: int, layers: int, both: bool, bias: bool, first: bool) -> None:
    sides, hidden, width = 1 + both, 5, 3
    weights = []
    for layer in range(layers):
        for _ in range(sides):
            weights += [draw(gates * hidden, hidden * sides if layer else width), draw(gates * hidden, hidden)]
            weights += [draw(gates * hidden), draw(gates * hidden)] if bias else []
    given = {"num_layers": layers, "bidirectional": both, "bias": bias, "batch_first": first}
    states = 2 if operator == "lstm" else 1
    initial = {f"s{index}": [layers * sides, "n", hidden] for index in range(states)}
    shape = ["n", "t", width] if first else ["t", "n", width]
    for n, t in ((1, 1), (2, 7), (3, 2)):
        x = draw(n, t, width) if first else draw(t, n, width)
        agree(model(operator, weights, shape, outputs=1 + states, **given), {"x": x})
        agree(model(operator, weights, shape, initial, outputs=1 + states, **given),
              {"x": x, **{name: draw(layers * sides, n, hidden) for name in initial}})
    agree(model(operator, weights, ["t", width], outputs=1 + states, **{**given, "batch_first": False}), {"x": draw(4, width)})


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_an_elman_layer_with_either_nonlinearity(nonlinearity: str) -> None:
    weights = [draw(4, 3), draw(4, 4), draw(4), draw(4)]
    agree(model("rnn", weights, ["t", "n", 3], outputs=2, nonlinearity=nonlinearity), {"x": draw(6, 2, 3)})


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [
    ((3, 3), (1, 1), (1, 1), (1, 1)), ((5, 5), (1, 1), (2, 2), (1, 1)), ((3, 3), (2, 2), (1, 1), (1, 1)), ((3, 5), (2, 1), (0, 2), (1, 2)),
    ((7, 7), (1, 1), (3, 3), (1, 1)), ((2, 3), (3, 2), (1, 0, 0, 2), (2, 1)), ((1, 1), (1, 1), (0, 0), (1, 1)),
])
@pytest.mark.parametrize("size", [(40, 33), (14, 14), (9, 60), (8, 7)])
def test_channels_alone(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...], dilation: tuple[int, int],
                        size: tuple[int, int]) -> None:
    weights = [draw(6, 1, *kernel), draw(6)]
    for given in (weights, weights[:1]):
        made = model("convolution", given, ["n", 6, "h", "w"], stride=stride, padding=padding, dilation=dilation, groups=6)
        agree(made, {"x": draw(2, 6, *size)})


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(("groups", "out"), [(1, 4), (2, 6), (4, 8)])
@pytest.mark.parametrize(("stride", "dilation", "pad"), [(1, 1, 0), (1, 1, 1), (2, 1, 1), (3, 2, 2)])
def test_convolutions_of_every_rank(axes: int, groups: int, out: int, stride: int, dilation: int, pad: int) -> None:
    given: dict[str, Any] = {"stride": (stride,) * axes, "dilation": (dilation,) * axes, "padding": (pad,) * axes, "groups": groups}
    made = model("convolution", [draw(out, 4 // groups, *[3, 2, 1][:axes]), draw(out)], ["n", 4, *"abc"[:axes]], **given)
    for n in (1, 2):
        agree(made, {"x": draw(n, 4, *[11, 9, 6][:axes])})


@pytest.mark.parametrize(("kernel", "padding", "dilation", "groups"), [
    ((3, 3), (1, 1), (1, 1), 1), ((2, 5), (0, 2, 1, 1), (1, 1), 1), ((1, 3), (0, 1), (1, 1), 2), ((3, 1), (2, 0), (2, 1), 2),
    ((3, 3), (2, 2), (2, 2), 1), ((3, 3), (0, 0), (1, 1), 1), ((2, 2), (3, 0, 0, 3), (3, 2), 2),
])
@pytest.mark.parametrize("constant", [True, False])
def test_a_convolution_in_tiles(kernel: tuple[int, int], padding: tuple[int, ...], dilation: tuple[int, int], groups: int, constant: bool,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.numpy.kernels.convolution.UNFOLDED", 200)
    monkeypatch.setattr("adapters.numpy.kernels.convolution.RUN", 50)
    weight = draw(6, 4 // groups, *kernel)
    given: dict[str, Any] = {"padding": padding, "dilation": dilation, "groups": groups}
    weights, further = ([weight, draw(6)], None) if constant else ([], {"w": [*weight.shape]})
    made = model("convolution", weights, ["n", 4, "h", "w"], further, **given)
    for shape in ((2, 4, 13, 27), (1, 4, 8, 40), (1, 4, 7, 5)):
        x = draw(*shape)
        agree(made, {"x": x[:, :, ::-1].transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)} | ({} if constant else {"w": weight}))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_pool_of_values_that_are_not_finite(value: str) -> None:
    x = draw(1, 2, 9, 9)
    x[0, 0, 4, 4] = float(value)
    for operator in ("max_pool", "avg_pool"):
        made = model(operator, [], ["n", 2, "h", "w"], kernel=(3, 3), stride=(2, 2), padding=(1, 1))
        found, wanted = NumpySession(made).run({"x": x})["y0"], reference.run(made, {"x": x})["y0"]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_places_of_a_pool_are_those_of_the_reference() -> None:
    made, x = model("max_pool", [], ["n", 2, "h", "w"], outputs=2, kernel=(2, 3), stride=(2, 1)), draw(1, 2, 8, 9)
    found, wanted = NumpySession(made).run({"x": x}), reference.run(made, {"x": x})
    assert all((found[name] == wanted[name]).all() for name in wanted)


# Memory --------------------------------------------------------------------------------------------------------------------


def test_memory_is_used_again_when_nothing_refers_to_it() -> None:
    buffers, shape = Buffers(), (LEAST,)
    with using(buffers):
        first = empty(shape, np.float32)
        view, at = first[3:5], first.ctypes.data
        del first
        assert empty(shape, np.float32).ctypes.data != at  # the view still reads it
        del view
        assert empty(shape, np.float32).ctypes.data == at
        assert empty((LEAST * 4,), np.float32).ctypes.data != at


def test_what_a_run_gave_is_never_written_again() -> None:
    b = GraphBuilder("sums")
    x = b.input("x", "float32", ["n"])
    for index in range(3):
        x = b.op("add", x, 1.0)
        b.output(f"y{index}", x)
    session = NumpySession(Model(b.graph(), InMemoryParameters({})))
    kept = [session.run({"x": np.full(LEAST, run, np.float32)}) for run in range(4)]
    for run, outputs in enumerate(kept):
        assert all((outputs[f"y{index}"] == run + index + 1).all() for index in range(3))


def test_threads_do_not_share_memory() -> None:
    made = model("convolution", [draw(8, 8, 3, 3)], ["n", 8, "h", "w"], padding=(1, 1))
    session, inputs = NumpySession(made), [draw(1, 8, 40, 40) for _ in range(4)]
    wanted, wrong = [NumpySession(made).run({"x": x})["y0"] for x in inputs], []

    def work(index: int) -> None:
        for _ in range(20):
            if not np.array_equal(session.run({"x": inputs[index]})["y0"], wanted[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
