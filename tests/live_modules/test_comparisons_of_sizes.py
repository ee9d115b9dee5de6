"""What a module computes with the answer of a comparison of sizes, or with a size made a fixed number: it holds, or is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.torch.tracing.trace import trace
from tests.live_modules.test_sizes_of_slices import Apply, Outcomes

EXAMPLE = (2, 3, 9)
OTHERS = ((2, 3, 5), (1, 4, 4), (2, 5, 9), (2, 5, 3), (3, 6, 2), (1, 9, 9), (2, 1, 1), (1, 3, 8))

CASES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "equal times a number": (lambda x: x + (x.shape[2] == 9) * 2.0, "fixed"),
    "not equal in the example": (lambda x: x + (x.shape[2] == 8) * 2.0, "some"),
    "times a tensor": (lambda x: x + (x.shape[1] > 4) * x, "free"),
    "a float": (lambda x: x + float(x.shape[1] == x.shape[2]), "free"),
    "an int": (lambda x: x + int(x.shape[1] > x.shape[2]), "some"),
    "a tensor": (lambda x: x + torch.tensor(x.shape[1] > x.shape[2]), "free"),
    "two at once": (lambda x: x + ((x.shape[1] > 4) & (x.shape[2] > 4)) * 1.0, "some"),
    "one of two": (lambda x: x + ((x.shape[1] > 4) | (x.shape[2] > 4)) * 1.0, "some"),
    "a sum of them": (lambda x: x + sum([x.shape[1] > 4, x.shape[2] > 4]), "some"),
    "a count": (lambda x: x + 2.0 * (x.numel() > 54), "some"),
    "a remainder": (lambda x: x + (x.shape[1] * x.shape[2] % 4 == 3) * 1.0, "some"),
    "a quotient compared": (lambda x: x + (x.shape[1] / 4 >= 1) * 1.0, "some"),
    "a root compared": (lambda x: x + (math.sqrt(x.shape[1]) > 2) * 1.0, "some"),
    "a quotient as a condition": (lambda x: x + (1.0 if x.shape[1] / 3 - 1 else 0.0), "fixed"),
    "a padding": (lambda x: F.pad(x, (int(x.shape[1] > 4), 0)), "some"),
    "repeated": (lambda x: x.repeat(1, 1 + (x.shape[1] > 4), 1), "some"),
    "a quotient made a float": (lambda x: x + float(x.shape[1] / 2), "fixed"),
    "an attribute": (lambda x: F.layer_norm(x, x.shape[1:], eps=1 / x.shape[1]), "fixed"),
}


@pytest.mark.parametrize("name", CASES)
def test_answers_hold_or_are_refused(name: str) -> None:
    """`free` sizes give torch's values at any size; of `some` and `fixed` ones, some others at least are refused."""
    torch.manual_seed(0)
    function, kind = CASES[name]
    module = Apply(function).eval()
    outcomes = Outcomes(trace(module, (torch.randn(EXAMPLE),)).model, module)
    assert outcomes(torch.randn(EXAMPLE)) == {"equal"}
    found = {shape: outcomes(torch.randn(shape)) for shape in OTHERS}
    assert all(outcome in ({"equal"}, {"refused"}) for outcome in found.values()), found
    refused = [shape for shape, outcome in found.items() if outcome == {"refused"}]
    assert (not refused) if kind == "free" else refused, found
    if kind == "some":  # the side that was traced stays open
        assert len(refused) < len(OTHERS), found
