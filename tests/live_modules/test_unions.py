"""Where a trace at other sizes stands for the first one too: it never runs at a size that neither of them shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sympy
import torch
from torch.nn import functional

from adapters.torch.tracing.trace import trace
from adapters.torch.tracing.unions import size_symbol, unite
from converter import reference
from converter.errors import RunError

Function = Callable[[torch.Tensor], torch.Tensor]
SIZES = range(1, 45)


class Written(torch.nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def same_on_both_sides(x: torch.Tensor) -> torch.Tensor:
    if x.shape[1] <= 20:
        return x.sum(1)
    return x.cumsum(1)[:, -1]


def another_at_three(x: torch.Tensor) -> torch.Tensor:
    """The second trace, beyond 20, never sees that the first side has an exception."""
    if x.shape[1] <= 20:
        if x.shape[1] == 3:
            x = x * 2
        return x.sum(1)
    return x.cumsum(1)[:, -1]


def another_beyond_ten(x: torch.Tensor) -> torch.Tensor:
    if x.shape[1] <= 20:
        if x.shape[1] <= 10:
            return x.sum(1)
        return x.sum(1) * 2
    return x.cumsum(1)[:, -1]


def different_sides(x: torch.Tensor) -> torch.Tensor:
    return x.sum(1) if x.shape[1] <= 20 else x.sum(1) * 2


def padded(x: torch.Tensor) -> torch.Tensor:
    for _ in range(2):
        missing = (4 - x.shape[1] % 4) % 4
        if missing > 0:
            x = functional.pad(x, (0, missing))
        x = x.view(x.shape[0], -1, 4).sum(2)
    return x.sum(1)


def padded_with_an_exception(x: torch.Tensor) -> torch.Tensor:
    missing = (4 - x.shape[1] % 4) % 4
    if missing > 0:
        x = functional.pad(x, (0, missing))
    elif x.shape[1] == 8:
        x = x + 1
    return x.view(x.shape[0], -1, 4).sum(2).sum(1)


@pytest.mark.parametrize(("function", "length", "least"), [
    (same_on_both_sides, 9, 44), (another_at_three, 9, 41), (another_beyond_ten, 9, 10), (different_sides, 9, 20),
    (different_sides, 30, 24),
    (padded, 16, 2), (padded, 9, 2), (padded_with_an_exception, 16, 9), (padded_with_an_exception, 9, 10)])
def test_every_size_is_right_or_refused(function: Function, length: int, least: int) -> None:
    module = Written(function).eval()
    model = trace(module, (torch.randn(2, length),)).model
    taken = []
    for size in SIZES:
        x = torch.randn(3, size)
        try:
            found = reference.run(model, {"x": x.numpy()})["output"]
        except RunError:
            continue
        taken.append(size)
        np.testing.assert_allclose(found, module(x).numpy(), rtol=1e-4, atol=1e-5, err_msg=str(size))
    assert length in taken
    assert len(taken) >= least


def test_what_either_trace_shows() -> None:
    size = size_symbol("time")
    short, long = ("here", size <= 20), ("here", size > 20)
    exception = ("inside", sympy.Ne(size, 3))
    held, doubtful = unite([long], {"time": 9}, [short, exception])
    assert doubtful == [long[1]]
    assert held == [("here", sympy.Or(long[1], exception[1]))]


def test_a_decision_that_the_first_trace_never_came_to() -> None:
    size = size_symbol("time")
    odd = ("deeper", sympy.Eq(sympy.Mod(size, 2), 1))
    held, doubtful = unite([("here", size > 20), odd], {"time": 10}, [("here", size <= 20)])
    assert len(doubtful) == 2
    assert held == [("deeper", sympy.Or(odd[1], size <= 20))]


class Table(torch.nn.Module):
    """A table of 2 by 3 patches, which an image of no other number of them fits."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 4, 8, 8)
        self.table = torch.nn.Parameter(torch.randn(4, 6))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.patches(image).flatten(2) + self.table


def test_sizes_that_a_table_does_not_fit_are_out_of_range() -> None:
    module = Table().eval()
    model = trace(module, (torch.randn(2, 3, 16, 24),)).model
    for height, width in ((16, 24), (23, 31)):
        image = torch.randn(1, 3, height, width)
        found = reference.run(model, {"image": image.numpy()})["output"]
        np.testing.assert_allclose(found, module(image).detach().numpy(), rtol=1e-4, atol=1e-5)
    for height, width in ((24, 24), (16, 32), (8, 24)):
        with pytest.raises(RunError, match="outside its range"):
            reference.run(model, {"image": np.zeros((1, 3, height, width), np.float32)})


class SliceAtOne(torch.nn.Module):
    """At a length of 1 a slice leaves nothing, which is no error."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x[:, 1:], (0, 1)) * 2


def test_a_slice_may_leave_nothing() -> None:
    model = trace(SliceAtOne().eval(), (torch.randn(2, 5),)).model
    np.testing.assert_array_equal(reference.run(model, {"x": np.ones((3, 1), np.float32)})["output"], np.zeros((3, 1), np.float32))
