"""Chains of element-wise operators in the NumPy session: block by block, and as the tail of a layer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from adapters.numpy.chains import make_chain
from adapters.numpy.session import NumpySession
from converter import reference
from converter.builder import GraphBuilder
from converter.errors import GraphError, RunError
from converter.ir import DimRange, DType, Model, Node, TensorSpec
from converter.opset import Operator, lookup, operators
from converter.parameters import InMemoryParameters
from converter.resolved import resolve

RNG = np.random.default_rng(0)
FLOATS = (DType.FLOAT32, DType.FLOAT64)
Values = dict[str, np.ndarray]
ELEMENTWISE = sorted(name for name, operator in operators().items() if operator.facts.elementwise and operator.outputs == ("y",))


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.numpy.links.BLOCK", 48)
    monkeypatch.setattr("adapters.numpy.threads.threads", lambda: request.param)


def dtypes_of(operator: Operator, count: int) -> list[tuple[DType, ...]]:
    """Dtypes of operands that an operator takes; complex ones where it takes no others."""
    for known in ((*FLOATS, DType.INT64, DType.BOOL), (DType.COMPLEX64,)):
        found = []
        for dtypes in product(known, repeat=count):
            with suppress(GraphError):
                operator.infer(*[TensorSpec(dtype, (8, 5, 9)) for dtype in dtypes], **attributes_of(operator))
                found.append(dtypes)
        if found:
            return found
    return []


def attributes_of(operator: Operator) -> dict[str, Any]:
    values = {"dtype": DType.FLOAT64, "threshold": 0.5, "value": 2.0}
    return {name: values[name] for name, spec in operator.attributes.items() if spec.required}


def numbers(operator: Operator, dtype: DType, place: int, shape: tuple[int, ...]) -> np.ndarray:
    if dtype is DType.BOOL:
        return RNG.random(shape) < 0.5
    if dtype.is_integer:
        return RNG.integers(1, 6, shape)
    low, high = operator.facts.interval(place) or (-3.0, 3.0)
    values = RNG.uniform(max(low, -3.0), min(high, 3.0), shape)
    values.flat[::17] = (np.nan, np.inf, -np.inf, 0.0)[place % 4]
    values = values + 1j * values[::-1] if dtype.is_complex else values
    return values.astype(dtype.numpy)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_elementwise_operator_in_blocks(name: str) -> None:
    """Broadcast, with odd strides and read-only, with infinity and NaN: what the kernel gives of the whole arrays."""
    operator = lookup(name)
    count = sum(not spec.optional for spec in operator.operands)
    taken = dtypes_of(operator, count)
    assert taken
    for dtypes in taken:
        names = [f"x{place}" for place in range(count)]
        specs = {key: TensorSpec(dtype, (8, 5, 9)) for key, dtype in zip(names, dtypes, strict=True)}
        specs |= {"y": operator.infer(*specs.values(), **attributes_of(operator)), "z": TensorSpec(DType.BOOL, (8, 5, 9))}
        nodes = [resolve(Node(name, tuple(names), ("y",), attributes_of(operator))), resolve(Node("isnan", ("y",), ("z",)))]
        arrays = [numbers(operator, dtype, place, ((8, 9, 5), (9, 5), (8, 1, 5))[place % 3]).swapaxes(-1, -2)
                  for place, dtype in enumerate(dtypes)]
        if arrays[0].ndim == 3:
            arrays[0] = arrays[0][::-1]
        for array in arrays:
            array.flags.writeable = False
        with np.errstate(all="ignore"):
            try:
                wanted = operator.kernel(*arrays, **nodes[0].given)
            except TypeError:
                assert DType.BOOL in dtypes  # of which there is no negative, though the shape rule knows one
                continue
            truth = nodes[1].operator.kernel(wanted) if specs["y"].dtype in FLOATS else None
            for chain, expected in ((nodes[:1], wanted), (nodes, truth)):
                made = make_chain(chain, specs) if expected is not None else None
                if made is not None:
                    found = made[0](*arrays)
                    assert found.dtype == expected.dtype
                    rounding = 64 * np.finfo(found.dtype).eps if found.dtype.kind == "f" else 0
                    np.testing.assert_allclose(found, expected, rtol=rounding, atol=rounding)


Build = Callable[[GraphBuilder, Any], Any]


def gated(b: GraphBuilder, x: Any) -> Any:
    y = b.op("multiply", x, b.op("sigmoid", x))
    return b.op("where", b.op("greater", y, 0.0), b.op("add", y, x), b.op("exp", b.op("negative", x)))


def formula(b: GraphBuilder, x: Any) -> Any:
    inner = b.op("multiply", b.op("add", b.op("multiply", b.op("power", x, 3.0), 0.044715), x), 0.7978845608)
    return b.op("multiply", b.op("multiply", x, 0.5), b.op("add", b.op("tanh", inner), 1.0))


def casts(b: GraphBuilder, x: Any) -> Any:
    whole = b.op("astype", b.op("clip", x, -3.0, 3.0), dtype=DType.INT64)
    return b.op("add", b.op("astype", b.op("multiply", whole, 3), dtype=DType.FLOAT32), b.op("clip", x, None, 0.5))


def one(build: Build, *shape: Any, constants: Values | None = None) -> Model:
    b = GraphBuilder("g", {size: DimRange(min=0) for size in shape if isinstance(size, str)})
    x = b.input("x", "float32", shape)
    b.output("y", build(b, x))
    return Model(b.graph(), InMemoryParameters(constants or {}))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("build", [gated, formula, casts])
@pytest.mark.parametrize("shape", [(4, 3, 50), (1, 1, 1), (2, 0, 7), (130, 2, 1)])
def test_a_chain_is_one_step_and_gives_what_its_operators_give(build: Build, shape: tuple[int, ...]) -> None:
    made = one(build, *"abc")
    session = NumpySession(made)
    assert len(session._plan._steps) == 1
    for x in (draw(*shape), draw(*shape[::-1]).T, draw(shape[0] * 2, *shape[1:])[::-2]):
        x.flat[:1] = np.nan
        wanted = reference.run(made, {"x": x})["y"]
        for _ in range(2):
            np.testing.assert_allclose(session.run({"x": x})["y"], wanted, rtol=1e-6, atol=1e-6)


def layers(b: GraphBuilder, x: Any) -> Any:
    y = b.op("convolution", x, b.parameter("w", "float32", (6, 3, 3, 3)), b.parameter("b", "float32", (6,)), padding=(1, 1))
    z = b.op("convolution", x, b.parameter("v", "float32", (6, 3, 1, 1)))
    return b.op("relu", b.op("add", y, b.op("multiply", z, b.parameter("s", "float32", (6, 1, 1)))))


def deep(b: GraphBuilder, x: Any) -> Any:
    y = b.op("convolution", x, b.parameter("d", "float32", (3, 1, 3, 3)), b.parameter("t", "float32", (3,)), groups=3, padding=(1, 1))
    return b.op("add", b.op("multiply", b.op("hardsigmoid", y), y), x)


def affine(b: GraphBuilder, x: Any) -> Any:
    y = b.op("linear", x, b.parameter("p", "float32", (7, 7)), b.parameter("q", "float32", (7,)))
    return b.op("multiply", b.op("add", b.op("gelu", y), x), b.parameter("r", "float32", (7,)))


CONSTANTS = {"w": draw(6, 3, 3, 3), "b": draw(6), "v": draw(6, 3, 1, 1), "s": draw(6, 1, 1), "d": draw(3, 1, 3, 3), "t": draw(3),
             "p": draw(7, 7), "q": draw(7), "r": draw(7)}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("build", "steps"), [(layers, 2), (deep, 1), (affine, 1)])
def test_a_chain_after_a_layer_overwrites_its_result(build: Build, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.numpy.kernels.convolution.UNFOLDED", 300)
    made = one(build, "n", 3, "h", 7, constants=CONSTANTS)
    session = NumpySession(made)
    assert len(session._plan._steps) == steps
    for shape in ((2, 3, 9, 7), (1, 3, 40, 7), (0, 3, 4, 7)):
        x = draw(*shape)
        wanted, kept = reference.run(made, {"x": x}, float_dtype="float64")["y"], x.copy()
        first = session.run({"x": x})["y"]
        again = session.run({"x": x * 2})["y"]
        np.testing.assert_allclose(first, wanted, rtol=2e-5, atol=2e-5)
        assert not first.size or not np.allclose(first, again)
        np.testing.assert_array_equal(x, kept)


def test_what_is_read_elsewhere_stays_outside_of_a_chain() -> None:
    b = GraphBuilder("g")
    x = b.input("x", "float32", ("n", 7))
    y = b.op("linear", x, b.parameter("p", "float32", (7, 7)))
    z = b.op("relu", y)
    b.output("y", y)
    b.output("z", z)
    b.output("s", b.op("exp", b.op("sum", b.op("negative", z), axis=(1,), keepdims=True)))
    b.output("t", b.op("add", z, b.op("exp", b.op("sum", z, axis=(1,), keepdims=True))))
    made, x = Model(b.graph(), InMemoryParameters({"p": CONSTANTS["p"]})), draw(3, 7) * 0.1
    found, wanted = NumpySession(made).run({"x": x}), reference.run(made, {"x": x})
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_an_error_within_a_chain_names_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(x: Any) -> Any:
        raise ValueError("cannot")

    made = one(lambda b, x: b.op("add", b.op("exp", b.op("lgamma", x)), 1.0), "n")
    monkeypatch.setattr("converter.opset._REGISTRY", {**operators(), "lgamma": replace(lookup("lgamma"), kernel=fails)})
    with pytest.raises(RunError, match="cannot") as caught:
        NumpySession(made).run({"x": draw(3)})
    assert "lgamma" in str(caught.value.where)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_numbers_stand_among_the_operands_of_any_dtype(dtype: str) -> None:
    b = GraphBuilder("g")
    x, y = b.input("x", dtype, (3,)), b.input("y", dtype, (3,))
    b.output("z", b.op("add", b.op("add", b.op("multiply", x, 2.0), 1.0), y))
    values = {name: draw(3).astype(DType.of(dtype).numpy) for name in ("x", "y")}
    made = Model(b.graph(), InMemoryParameters({}))
    np.testing.assert_array_equal(NumpySession(made).run(values)["z"], reference.run(made, values)["z"])
