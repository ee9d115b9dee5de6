"""Inputs drawn for a graph: the generator, sizes, roles."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from converter.builder import GraphBuilder
from converter.equivalence import preparing
from converter.equivalence.generator import Generator, stream_seed
from converter.equivalence.inputs import EXTREME, Planner, generate
from converter.equivalence.verify import verify
from converter.errors import RunError
from converter.ir import DimRange, Graph, Model
from converter.parameters import InMemoryParameters


def test_splitmix64_gives_the_published_values() -> None:
    drawn = Generator(1234567).integers64(5)
    assert [int(value) for value in drawn] == [6457827717110365317, 3203168211198807973, 9817491932198370423,
                                               4593380528125082431, 16408922859458223821]


def test_a_stream_goes_on_where_it_stopped() -> None:
    whole, parts = Generator(9).integers64(7), Generator(9)
    np.testing.assert_array_equal(whole, np.concatenate([parts.integers64(3), parts.integers64(4)]))


def test_the_values_of_docs_equivalence_md() -> None:
    assert stream_seed(0) == 0xAF63AD4C86019CAF
    assert stream_seed(7, 2, "tokens") == stream_seed(7, "2/tokens") != stream_seed(7, 2, "token")
    generator = Generator(stream_seed(0, 0, "x"))
    assert generator.normal((3,)).tolist() == [2.106627063146263, 0.07827845135802391, 0.029843510532472806]


def test_normal_values_are_normal() -> None:
    values = Generator(3).normal((200_000,))
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert 4 < np.abs(values).max() <= 6
    # All 24 bits of a float32 are in use, so that sums round.
    assert np.mean(values.astype(np.float32) * 2**20 % 1 != 0) > 0.5


def test_normal_values_are_those_of_plain_integer_arithmetic() -> None:
    """The algorithm written without NumPy."""
    state, mask = stream_seed(5, 1, "x"), (1 << 64) - 1

    def draw() -> int:
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) & mask
        value = state
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB & mask
        return value ^ (value >> 31)

    expected = []
    for _ in range(20):
        a, b, c, d = draw(), draw(), draw(), draw()
        total = sum((word >> shift) & 0xFFFF for word in (a, b, c) for shift in (0, 16, 32, 48))
        expected.append(((total << 32) + (d >> 32) - 12 * 65535 * 2**31 - 2**31) / 2**48)
    assert Generator(stream_seed(5, 1, "x")).normal((20,)).tolist() == expected


def language_model() -> tuple[Graph, InMemoryParameters]:
    b = GraphBuilder("lm", {"batch": DimRange(1), "time": DimRange(2, 9)})
    tokens = b.input("tokens", "int64", ["batch", "time"])
    mask = b.input("mask", "int64", ["batch", "time"])
    x = b.op("embedding", b.op("reshape", tokens, shape=("batch * time",)), b.parameter("table", "float32", [11, 4]))
    keep = b.op("astype", b.op("reshape", mask, shape=("batch * time", 1)), dtype="float32")
    b.output("y", b.op("add", x, b.op("multiply", b.op("subtract", 1, keep), -1e9)))
    return b.graph(), InMemoryParameters({"table": np.zeros((11, 4), np.float32)})


def test_ids_lie_in_the_table_and_masks_are_ragged() -> None:
    graph, parameters = language_model()
    cases = generate(graph, parameters, seed=3, count=12)
    tokens = np.concatenate([case["tokens"].ravel() for case in cases])
    assert set(tokens.tolist()) == set(range(11))
    masks = [case["mask"] for case in cases]
    assert all(set(np.unique(mask)) <= {0, 1} for mask in masks)
    assert all((mask[0] == 1).all() for mask in masks)
    empty = [index for index, mask in enumerate(masks) if (mask.sum(axis=1) == 0).any()]
    assert empty
    assert all(index % 4 == 3 and masks[index][:-1].any(axis=1).all() for index in empty)
    assert any((mask == 0).any() for mask in masks)


def test_sizes_cover_the_range_and_differ() -> None:
    graph, parameters = language_model()
    shapes = [case["tokens"].shape for case in generate(graph, parameters, count=8)]
    assert (1, 2) in shapes
    assert max(time for _, time in shapes) == 9
    assert all(2 <= time <= 9 for _, time in shapes)
    assert len({shape[0] for shape in shapes}) >= 4


def test_the_typical_sizes_come_first() -> None:
    graph, parameters = language_model()
    assert Planner(graph, parameters, typical={"batch": 6, "time": 5}).case(0).inputs["tokens"].shape == (6, 5)


def test_a_seed_is_a_promise() -> None:
    graph, parameters = language_model()
    digest = hashlib.sha256()
    for case in generate(graph, parameters, seed=11, count=4):
        for name in sorted(case):
            digest.update(np.ascontiguousarray(case[name]).tobytes())
    again = generate(graph, parameters, seed=11, count=4)
    other = generate(graph, parameters, seed=12, count=4)
    assert all((a["tokens"] == b["tokens"]).all() for a, b in zip(again, generate(graph, parameters, seed=11, count=4), strict=True))
    assert any((a["tokens"] != b["tokens"]).any() for a, b in zip(again, other, strict=True))
    assert digest.hexdigest() == "0b4b706eab3282b76f372502b7076ad9f96437baac2916fa9c4a4f53cb0c65cc"


def test_an_offset_before_the_table_moves_the_range() -> None:
    b = GraphBuilder("g")
    tokens = b.input("tokens", "int64", [400])
    b.output("y", b.op("embedding", b.op("add", tokens, 2), b.parameter("table", "float32", [6, 2])))
    case, = generate(b.graph(), InMemoryParameters({"table": np.zeros((6, 2), np.float32)}), count=1)
    assert set(case["tokens"].tolist()) == {-2, -1, 0, 1, 2, 3}


def test_two_tables_allow_what_both_hold() -> None:
    b = GraphBuilder("g")
    tokens = b.input("tokens", "int64", [400])
    first = b.op("embedding", tokens, b.parameter("first", "float32", [9, 2]))
    b.output("y", b.op("add", first, b.op("embedding", tokens, b.parameter("second", "float32", [4, 2]))))
    case, = generate(b.graph(), InMemoryParameters({"first": np.zeros((9, 2), np.float32), "second": np.zeros((4, 2), np.float32)}),
                     count=1)
    assert set(case["tokens"].tolist()) == {0, 1, 2, 3}


def test_a_table_whose_size_is_a_symbol() -> None:
    b = GraphBuilder("g")
    x = b.input("x", "float32", ["time", 3])
    places = b.input("places", "int64", [50])
    b.output("y", b.op("take", x, places, axis=0))
    for case in generate(b.graph(), count=6):
        assert case["places"].min() >= 0
        assert case["places"].max() < len(case["x"])


def test_values_stay_in_a_functions_domain() -> None:
    b = GraphBuilder("g")
    b.output("y", b.op("log", b.input("x", "float32", ["n", 20])))
    assert all((case["x"] > 0).all() for case in generate(b.graph(), count=5))


def test_extreme_cases_have_large_tiny_and_zero_rows() -> None:
    b = GraphBuilder("g")
    b.output("y", b.op("negative", b.input("x", "float32", ["n", 40])))
    planner = Planner(b.graph())
    case = planner.case(3)
    assert case.profile == EXTREME
    rows = np.abs(case.inputs["x"]).max(axis=1)
    assert rows.max() > 20
    assert (rows == 0).any()
    assert ((rows > 0) & (rows < 1e-4)).any()
    zeros = case.inputs["x"][rows == 0]
    assert np.signbit(zeros).any()
    assert not np.signbit(zeros).all()


def test_overrides_bind_the_sizes() -> None:
    graph, parameters = language_model()
    given = np.array([[1, 2, 3], [4, 5, 6]])
    for case in generate(graph, parameters, count=4, overrides={"tokens": given}):
        np.testing.assert_array_equal(case["tokens"], given)
        assert case["mask"].shape == (2, 3)
    cases = generate(graph, parameters, count=2, overrides={"tokens": lambda generator, shape: generator.integers(7, 8, shape)})
    assert all((case["tokens"] == 7).all() for case in cases)


@pytest.mark.parametrize("override", [{"words": np.zeros((1, 2), np.int64)}, {"tokens": np.zeros((1, 2), np.int32)},
                                      {"tokens": np.zeros(2, np.int64)}])
def test_overrides_that_do_not_fit_are_refused(override: dict[str, np.ndarray]) -> None:
    graph, parameters = language_model()
    with pytest.raises(RunError):
        generate(graph, parameters, overrides=override)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "uint64", "float16", "bfloat16", "float64", "complex64",
                                   "float8_e4m3fn", "float8_e8m0fnu"])
def test_every_dtype_can_be_drawn(dtype: str) -> None:
    b = GraphBuilder("g")
    b.output("y", b.op("reshape", b.input("x", dtype, ["n", 4]), shape=("4 * n",)))
    for case in generate(b.graph(), count=5):
        assert case["x"].dtype == b.graph().inputs[0].spec.dtype.numpy
        assert case["x"].shape[1] == 4


@pytest.mark.parametrize("shape", [[1 << 50] * 3, [1 << 28], [0, 1 << 60], ["batch", 1 << 40]])
def test_inputs_that_are_too_large_are_not_drawn(shape: list[int | str]) -> None:
    builder = GraphBuilder("large")
    builder.output("y", builder.op("exp", builder.input("x", "float32", shape)))
    with pytest.raises(RunError, match="too large to draw"):
        Planner(builder.graph()).case(0)


def test_fewer_cases_are_drawn_where_inputs_and_outputs_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SMALL", 1000)
    builder = GraphBuilder("large")
    builder.output("y", builder.op("exp", builder.input("x", "float32", [60])))
    model = Model(builder.graph(), InMemoryParameters({}))
    for memory, count in ((0, 2), (1500, 3), (2000, 4)):
        report = verify(model, ["numpy"], memory=memory, locate=False)
        assert report
        assert report.tried == count
        assert any(note.startswith(f"{count} cases are drawn, not 6") for note in report.notes)
    assert verify(model, ["numpy"], locate=False).tried == 6
