"""Binding a graph to parameters: what is missing, extra, tied or constant, all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converter.errors import ParameterError
from converter.format import bind_parameters, model_digest
from converter.ir import TensorSpec
from converter.parameters import InMemoryParameters
from tests.format_models import classifier, same_bits


def test_binding_lists_everything_at_once() -> None:
    specs = {"a": TensorSpec.of("float32", [2]), "b": TensorSpec.of("float32", [3]), "c": TensorSpec.of("int64", [])}
    store = InMemoryParameters({"a": np.zeros(3, np.float32), "c": np.zeros((), np.float64), "d": np.zeros(1), "e": np.zeros(1)})
    with pytest.raises(ParameterError) as caught:
        bind_parameters(specs, {}, store)
    text = str(caught.value)
    for part in ("missing: 'b' float32[3]", "extra: 'd'", "extra: 'e'", "'a': expected float32[2], received float32[3]",
                 "'c': expected int64[], received float64[]"):
        assert part in text


def test_binding_tied_tensors() -> None:
    spec = TensorSpec.of("float32", [2])
    specs, aliases = {"a": spec, "b": spec}, {"b": "a"}
    values = np.array([1, 2], np.float32)
    for held in ({"a": values}, {"b": values}, {"a": values, "b": values.copy()}):
        bound = bind_parameters(specs, aliases, InMemoryParameters(held))
        assert bound.names() == ("a", "b")
        assert bound.alias_of("b") == "a"
        assert all(same_bits(bound.read(name), values) for name in specs)
    for tied in ({"b": "a"}, {"a": "b"}):
        bound = bind_parameters(specs, aliases, InMemoryParameters(dict.fromkeys(tied.values(), values), tied))
        assert (bound.alias_of("a"), bound.alias_of("b")) == (None, "a")
    bound = bind_parameters(specs, {}, InMemoryParameters({"a": values}, {"b": "a"}))
    assert (bound.alias_of("a"), bound.alias_of("b")) == (None, "a")
    with pytest.raises(ParameterError, match="values differ"):
        bind_parameters(specs, aliases, InMemoryParameters({"a": values, "b": values + 1}))


def test_binding_with_constants() -> None:
    spec = TensorSpec.of("float32", [2])
    constants = InMemoryParameters({"c": np.ones(2, np.float32)})
    bound = bind_parameters({"a": spec, "c": spec}, {}, InMemoryParameters({"a": np.zeros(2, np.float32)}), constants=constants)
    assert bound.read("c").tolist() == [1, 1]
    with pytest.raises(ParameterError, match="missing: 'a'"):
        bind_parameters({"a": spec, "c": spec}, {}, InMemoryParameters({}), constants=constants)


def test_a_bound_model_has_the_digest_of_the_original(tmp_path: Path) -> None:
    model = classifier()
    specs = {name: model.parameters.spec(name) for name in model.parameters.names()}
    held = InMemoryParameters({name: model.parameters.read(name) for name in model.parameters.names() if name != "tied"})
    assert model_digest(model.with_parameters(bind_parameters(specs, {"tied": "square"}, held))) == model_digest(model)
