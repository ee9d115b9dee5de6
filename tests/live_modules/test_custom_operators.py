"""Operators of `torch.library` with a Python body: traced as what they compute, or refused with what a person can do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import converter
from converter.errors import UnsupportedError
from tests.support_modules import Calls, assert_same

LIBRARY = torch.library.Library("neutral_model_tests", "DEF")
for schema, key, body in (
    ("shifted(Tensor x) -> Tensor", "CPU", lambda x: torch.sin(x) + x.shape[0]),
    ("nested(Tensor x) -> Tensor", "CompositeImplicitAutograd", lambda x: torch.ops.neutral_model_tests.shifted(x.relu() * 2)),
    ("both(Tensor x, int n=3) -> (Tensor, Tensor)", "CompositeExplicitAutograd", lambda x, n=3: (x * n, x.sum(-1))),
    ("over.scalar(Tensor x, float y) -> Tensor", "CPU", lambda x, y: x * y),
    ("over.tensor(Tensor x, Tensor y) -> Tensor", "CPU", lambda x, y: x + y),
):
    LIBRARY.define(schema)
    LIBRARY.impl(schema.partition("(")[0], body, key)
LIBRARY.define("bodiless(Tensor x) -> Tensor")
OWN = torch.ops.neutral_model_tests


@torch.library.register_fake("neutral_model_tests::bodiless")
def _bodiless(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("neutral_model_tests::scaled", mutates_args=())
def scaled(x: torch.Tensor, factor: float, weights: list[torch.Tensor]) -> torch.Tensor:
    return torch.relu(x) * factor + sum(weights)


@scaled.register_fake
def _scaled(x: torch.Tensor, factor: float, weights: list[torch.Tensor]) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("neutral_model_tests::add_to", mutates_args=("x",))
def add_to(x: torch.Tensor, y: torch.Tensor) -> None:
    x.add_(y)


@torch.library.custom_op("neutral_model_tests::places", mutates_args=())
def places(x: torch.Tensor) -> torch.Tensor:
    return x.nonzero()


@torch.library.custom_op("neutral_model_tests::through_numpy", mutates_args=())
def through_numpy(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.sin(x.numpy()))


@torch.library.custom_op("neutral_model_tests::by_value", mutates_args=())
def by_value(x: torch.Tensor) -> torch.Tensor:
    return x * 1 if x.sum() > 0 else x * 2


@by_value.register_fake
def _by_value(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def mutating(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    add_to(y[:, :2], x[:, 2:])
    return y


FUNCTIONS = {
    "kernel for one device": OWN.shifted, "an overload": OWN.shifted.default, "composite, one in another": OWN.nested,
    "two results": OWN.both,
    "overloads of one name": lambda x: OWN.over(OWN.over(x, 2.0), x), "a list of tensors": lambda x: scaled(x, 0.5, [x, x * 2]),
    "changes its operand": mutating, "a size that the data decide, no fake": lambda x: places(x > 0),
    "in a branch": lambda x: torch.cond(x.sum() > 0, lambda x: OWN.both(x)[0], lambda x: OWN.both(x, 2)[0], (x,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_body_is_carried(name: str) -> None:
    assert_same(FUNCTIONS[name], (torch.randn(3, 4),), (torch.randn(5, 4),), (torch.randn(1, 4),))


def test_the_body_is_carried_in_programs_that_are_exported_already() -> None:
    exported = torch.export.export(Calls(lambda x: OWN.both(scaled(x, 0.5, [x]), 2)), (torch.randn(3, 4),),
                                   dynamic_shapes=((({0: torch.export.Dim("rows")},)),))
    model = converter.from_torch(exported)
    x = torch.randn(5, 4)
    wanted = torch.relu(x) * 0.5 + x
    found = list(converter.session(model, runtime="numpy").run({model.graph.inputs[0].name: x.numpy()}).values())
    np.testing.assert_allclose(found[0], (wanted * 2).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found[1], wanted.sum(-1).numpy(), rtol=1e-5)


@pytest.mark.parametrize(("function", "operator", "reason"), [
    (OWN.bodiless, "neutral_model_tests.bodiless.default", "without a Python body"),
    (through_numpy, "neutral_model_tests.through_numpy.default", "numpy"),
    (by_value, "neutral_model_tests.by_value.default", "data-dependent"),
])
def test_what_no_trace_can_hold_is_refused_with_a_way_out(function: object, operator: str, reason: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        converter.from_torch(Calls(function), (torch.randn(3, 4),))
    assert operator in str(caught.value)
    assert reason in str(caught.value)
    assert "torch's operators" in str(caught.value)


def test_calling_operators_is_as_before_afterwards() -> None:
    before = torch._ops.OpOverload.__call__, torch._ops.OpOverloadPacket.__call__
    with pytest.raises(UnsupportedError):
        converter.from_torch(Calls(by_value), (torch.randn(3, 4),))
    assert (torch._ops.OpOverload.__call__, torch._ops.OpOverloadPacket.__call__) == before
    x = torch.ones(2, 2)
    assert torch.equal(OWN.shifted(x), x.sin() + 2)
