"""Size expressions: the normal form changes nothing, the text round-trips, and hostile text is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from converter.dims import Dim, Expr, evaluate, maximum, minimum, product, substitute, symbol, symbols
from converter.equal_sizes import differ
from converter.errors import GraphError
from converter.size_text import parse

NAMES = ("batch", "time", "h")
leaves = st.one_of(st.integers(0, 12).map(str), st.sampled_from(NAMES))


def _binary(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["({} + {})", "({} - {})", "({} * {})", "({} // {})", "({} % {})", "max({}, {})", "min({}, {})"])
    return st.builds(lambda form, a, b: form.format(a, b), operators, children, children)


texts = st.recursive(leaves, _binary, max_leaves=6)


def python_value(text: str, bindings: dict[str, int]) -> Any:
    return eval(text, {"max": max, "min": min, "__builtins__": {}}, dict(bindings))


@settings(max_examples=400, deadline=None)
@given(texts, st.fixed_dictionaries({name: st.integers(1, 40) for name in NAMES}))
def test_normal_form_means_what_was_written(text: str, bindings: dict[str, int]) -> None:
    try:
        expected = python_value(text, bindings)
        size = parse(text)
    except (ZeroDivisionError, GraphError):
        assume(False)
    assert evaluate(size, bindings) == expected


@settings(max_examples=400, deadline=None)
@given(texts)
def test_text_round_trips(text: str) -> None:
    try:
        size = parse(text)
    except (ZeroDivisionError, GraphError):
        assume(False)
    assert parse(str(size) if isinstance(size, Expr) else size) == size


@pytest.mark.parametrize(("left", "right"), [
    ("batch*time*64 // 64", "batch*time"), ("(2*h + 1) // 2", "h"), ("(a*b + a*c) // (b + c)", "a"), ("time - time + 3", "3"),
    ("((h + 1)//2 + 1)//2", "(h + 3) // 4"), ("a*b // (b*a)", "1"), ("max(h, h + 2)", "h + 2"), ("min(a, b) - min(b, a)", "0"),
    ("(6*h) % 3", "0"), ("h - 2*(h // 2)", "h - 2*(h // 2)"),
])
def test_equal_expressions_are_equal(left: str, right: str) -> None:
    assert parse(left) == parse(right) or parse(left) == int(right)


@pytest.mark.parametrize("text", [
    "", "1.5", "batch +", "__import__('os')", "batch ** 2", "a / b", "f(a)", "max(a)", "max(a, b, c)", "a if b else c", "[a]", "a.b",
    "a < b", "True", "'a'", "2a", "(" * 300 + "a" + ")" * 300, "a" * 3000, "lambda: 0", "max", "a // 0",
    "0x10", "1_0", "0b1", "a # b", "1 + \\\n1", "1 +\f1", "max(a, b,)", "é", "a" * 1999 + "!",
])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(GraphError):
        parse(text)


@pytest.mark.parametrize("value", [True, 1.0, None, [1]])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(GraphError, match="not a size"):
        parse(value)


def test_a_product_that_explodes_is_refused() -> None:
    factor = "(" + " + ".join(f"s{index}" for index in range(12)) + ")"
    with pytest.raises(GraphError, match="too many terms"):
        parse("*".join([factor] * 8))


def test_unbound_symbols_are_named() -> None:
    with pytest.raises(GraphError, match="no value for time"):
        evaluate(parse("batch + time"), {"batch": 1})


def test_arithmetic_and_queries() -> None:
    batch, time = symbol("batch"), symbol("time")
    assert str(3 - batch) == "3 - batch"
    assert str((batch + 1) * time) == "batch*time + time"
    assert symbols(maximum(batch, time) // 2) == {"batch", "time"}
    assert substitute(batch * time, {"time": 4}) == 4 * batch
    assert product((batch, 2, time)) == 2 * batch * time
    assert minimum(batch, 3) == minimum(3, batch)
    assert differ(batch, batch + 1)
    assert not differ(batch, time)
    assert batch.symbol == "batch"
    assert (batch + 0).symbol == "batch"
    none: Dim = batch - batch
    assert none == 0
