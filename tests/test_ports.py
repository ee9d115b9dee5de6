"""What adapters share: size expressions in a target's terms, refusals, views of stores."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.checkpoint import SelectedParameters
from converter.dims import Dim, evaluate, maximum, minimum, symbol
from converter.errors import ConverterError, FormatError, ParameterError, UnsupportedError
from converter.ir import Array, Graph, Node
from converter.parameters import InMemoryParameters, ParameterView, places_in
from converter.paths import open_path
from converter.ports.refusals import Refusals, refuse_unknown
from converter.resolved import ResolvedNode
from converter.size_writer import SizeWriter

ROOT = Path(__file__).parent.parent
NAMES = ("a", "b", "time")


class Text(SizeWriter[str]):
    """Sizes as Python."""

    def number(self, value: int) -> str:
        return f"({value})"

    def symbol(self, name: str) -> str:
        return name

    def combine(self, function: str, left: str, right: str) -> str:
        return f"{function}({left}, {right})" if function.isalpha() else f"({left} {function} {right})"


def drawn(generator: random.Random, depth: int) -> Dim:
    if not depth or generator.random() < 0.15:
        return generator.choice([generator.randint(-3, 9), symbol(generator.choice(NAMES))])
    left, right = drawn(generator, depth - 1), drawn(generator, depth - 1)
    kind = generator.randrange(7)
    if kind < 3:
        return (left + right, left - right, left * right)[kind]
    return (left // generator.randint(1, 7), left % generator.randint(1, 7), maximum(left, right), minimum(left, right))[kind - 3]


def test_sizes_are_written_as_they_are_evaluated() -> None:
    generator, writer = random.Random(0), Text()
    for _ in range(400):
        size = drawn(generator, 3)
        text = writer.size(size)
        for _ in range(3):
            sizes = {name: generator.randint(1, 40) for name in NAMES}
            assert eval(text, {"max": max, "min": min, **sizes}) == evaluate(size, sizes), (str(size), text)


def test_a_size_is_made_once() -> None:
    made = []

    class Counted(Text):
        def combine(self, function: str, left: str, right: str) -> str:
            made.append(function)
            return super().combine(function, left, right)

    writer = Counted()
    half = symbol("time") // 2
    assert writer.size(half + 1) == "((time // (2)) + (1))"
    assert writer.size(symbol("b") - half) == "(b - (time // (2)))"
    writer.size(half + 1)
    assert made == ["//", "+", "//", "-"]  # a sum of one term is that term


def test_refusals_are_told_once_with_a_count() -> None:
    refusals = Refusals()
    for source in ("m.py:1", "m.py:2"):
        refusals.add(UnsupportedError("no kernel"), "foo", source)
    refusals.add(UnsupportedError("", items=[{"operator": "bar", "reason": "random", "count": 3, "cause": "random"}]), "baz", "m.py:3")
    error = refusals.error(lambda count: f"{count} operators")
    assert error.message == "2 operators"
    assert error.items == [{"operator": "foo", "reason": "no kernel", "source": "m.py:1", "count": 2},
                           {"operator": "bar", "reason": "random", "cause": "random", "source": "m.py:3", "count": 3}]
    told = refusals.told()
    refusals.add(UnsupportedError("no kernel"), "foo")
    refusals.forget(told)
    assert refusals.told() == told
    lines = Refusals(keys=("operator", "reason", "source"))
    for source in ("m.py:1", "m.py:2"):
        lines.add(UnsupportedError("no kernel"), "foo", source)
    assert [item["source"] for item in lines.told()] == ["m.py:1", "m.py:2"]


def test_operators_within_bodies_are_refused_too() -> None:
    body = Graph("body", (), (), (Node("odd", ("x",), ("y",)),))
    graph = Graph("g", (), (), (Node("cond", ("p",), ("y",), {"then_branch": body, "else_branch": body}), Node("relu", ("y",), ("z",))))
    refuse_unknown(graph, {"cond", "odd", "relu"}, "lacking", "not here")
    with pytest.raises(UnsupportedError) as caught:
        refuse_unknown(graph, {"cond"}, "lacking", "not here")
    assert {str(item["operator"]): item["count"] for item in caught.value.items} == {"odd": 2, "relu": 1}


def test_a_walk_goes_on_behind_what_is_refused() -> None:
    graph = Graph("g", (), (), tuple(Node(op, ("x",), (f"y{place}",)) for place, op in enumerate(("relu", "exp", "sin", "exp"))))
    lowered, stood = [], []

    def lower(node: ResolvedNode) -> None:
        if node.node.op == "exp":
            raise UnsupportedError("no word for it")
        if node.node.op == "sin":
            raise FormatError("out of reach")
        lowered.append(node.node.op)

    refusals = Refusals()
    with pytest.raises(FormatError) as caught:
        refusals.walk(graph, lower, lambda node: stood.append(node.outputs[0]))
    assert caught.value.where == "node sin -> y2"
    assert (lowered, stood) == (["relu"], ["y1"])
    assert refusals.told() == [{"operator": "exp", "reason": "no word for it", "count": 1}]


class Doubled(ParameterView):
    def changed(self, name: str) -> bool:
        return name == "twice"

    def made(self, name: str) -> Array:
        return self.stored(name) * 2


def test_a_view_shows_what_it_changes_and_the_rest_as_it_is() -> None:
    store = InMemoryParameters({"a": np.arange(3.0), "b": np.ones(2)}, {"tied": "a"})
    view = Doubled({"twice": (store, "b"), "x": (store, "tied"), "y": (store, "a")})
    assert view.names() == ("twice", "x", "y")
    assert view.alias_of("y") == "x"
    assert view.alias_of("x") is None
    assert view.read("twice").tolist() == [2.0, 2.0]
    assert not view.read("twice").flags.writeable
    private = view.read_private("twice")
    private[:] = 0
    assert view.read("twice").tolist() == [2.0, 2.0]
    assert view.sha256("y") == store.sha256("a")
    assert view.sha256("twice") == InMemoryParameters({"b": np.full(2, 2.0)}).sha256("b") != store.sha256("b")
    assert "a" not in view
    for read in (view.read, view.spec, view.sha256, view.file_range):
        with pytest.raises(ParameterError):
            read("a")
    with pytest.raises(ParameterError):
        SelectedParameters(store, frozenset({"b"})).read("b")
    assert ParameterView(places_in(store, ["b"])).names() == ("b",)


def test_what_a_path_is(tmp_path: Path) -> None:
    model = ROOT / "fixtures" / "mlp_digits" / "model.json"
    assert (open_path(model).holds, getattr(open_path(model).format, "name", None)) == ("model", "json")
    assert open_path(tmp_path).holds == "parameters"
    weights = tmp_path / "w.json"  # what it holds counts, not what it is called
    converter.save(converter.load(model), tmp_path / "w.safetensors")
    weights.write_bytes((tmp_path / "w.safetensors").read_bytes())
    assert (open_path(weights).holds, getattr(open_path(weights).format, "name", None)) == ("parameters", "safetensors")
    with pytest.raises(FormatError, match="a checkpoint holds parameters and no computation"):
        converter.load(weights)
    (tmp_path / "p.pt2").write_bytes(b"PK\3\4")
    assert open_path(tmp_path / "p.pt2").holds == "program"
    with pytest.raises(ConverterError, match=r"no format that can be read has the suffix '\.pt2'"):
        converter.load(tmp_path / "p.pt2")
