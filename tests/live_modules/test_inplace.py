"""In-place operators of a trace become plain ones, at a look where nothing else shares the memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapters.torch.tracing.inplace import without_inplace
from adapters.torch.tracing.trace import trace
from converter import reference


class InPlace(nn.Module):
    """In-place operators on fresh memory, on a view, and under a view that is read later."""

    def forward(self, x: Tensor) -> Tensor:
        fresh = x * 2
        fresh += 1
        fresh.relu_()
        seen = x * 3
        view = seen[:, :2]
        seen.add_(1)
        held = x.clone()
        held[:, 1:].mul_(5)
        kept = torch.nn.functional.dropout(x, 0.5, self.training)
        return fresh.sum(1) + view.sum(1) + held.sum(1) + kept.sum(1)


def test_in_place_operators() -> None:
    x = torch.randn(3, 4)
    found = reference.run(trace(InPlace().eval(), (torch.randn(2, 4),)).model, {"x": x.numpy()})["output"]
    np.testing.assert_allclose(found, InPlace().eval()(x).numpy(), rtol=1e-5, atol=1e-6)


class Scores(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        scores = x @ x.transpose(1, 2)
        scores += 1
        return scores.softmax(-1)


class Activations(nn.Module):
    """Activations in place after one another, with a dropout that does nothing."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(3, 3, 1), *layers, nn.Dropout(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found * 2


def mutable(module: nn.Module) -> list[str]:
    """The in-place operators that are left in a trace."""
    exported = torch.export.export(module.eval(), (torch.randn(2, 3, 4),))
    without_inplace(exported)
    return [str(node.target) for node in exported.graph.nodes
            if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable]


@pytest.mark.parametrize("module", [Scores(), *(Activations(layer(inplace=True)) for layer in (
    nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Mish, nn.CELU, nn.SELU, nn.LeakyReLU, nn.ELU, nn.RReLU)),
    Activations(nn.Hardtanh(inplace=True)), Activations(nn.Threshold(0.1, 20, inplace=True))], ids=str)
def test_in_place_operators_on_fresh_memory_need_no_second_trace(module: nn.Module) -> None:
    assert not mutable(module)
    x = torch.randn(2, 3, 4)
    found = reference.run(trace(module, (x,)).model, {"x": x.numpy()})["output"]
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


class Shared(nn.Module):
    """What `view` gives of a fresh value is changed in place, and the value is read later."""

    def __init__(self, view: str) -> None:
        super().__init__()
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        fresh = x * 2
        views = {"dropout": lambda: nn.functional.dropout(fresh, 0.5, self.training), "contiguous": fresh.contiguous,
                 "reshape": lambda: fresh.reshape(-1), "flatten": fresh.flatten, "to": lambda: fresh.to(torch.float32),
                 "unsafe": lambda: torch.ops.aten._unsafe_view(fresh, (-1,)), "conj": fresh.conj_physical}
        views[self.view]().mul_(3)
        return fresh + 1


@pytest.mark.parametrize("view", ["dropout", "contiguous", "reshape", "flatten", "to", "unsafe", "conj"])
def test_in_place_operators_on_a_view_change_what_it_is_of(view: str) -> None:
    x = torch.randn(3, 4)
    module = Shared(view).eval()
    found = reference.run(trace(module, (x,)).model, {"x": x.numpy()})["output"]
    np.testing.assert_allclose(found, module(x).numpy(), rtol=1e-6)


class DroppedLast(nn.Module):
    """Gives what a dropout gives, and changes it or its operand after that."""

    def __init__(self, changed: str) -> None:
        super().__init__()
        self.changed = changed

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fresh = x * 2
        dropped = nn.functional.alpha_dropout(fresh, 0.5, self.training)
        {"operand": fresh, "result": dropped}.get(self.changed, torch.zeros(1)).sub_(4)
        return dropped, nn.functional.dropout(x, p=0.2, training=self.training)


@pytest.mark.parametrize("changed", ["operand", "result", "none"])
def test_a_dropout_gives_its_operand(changed: str) -> None:
    x = torch.randn(3, 4)
    module = DroppedLast(changed).eval()
    found = reference.run(trace(module, (x,)).model, {"x": x.numpy()})
    for value, wanted in zip(found.values(), module(x), strict=True):
        np.testing.assert_allclose(value, wanted.numpy(), rtol=1e-6)


def windows(x: Tensor) -> tuple[Tensor, ...]:
    mask = x.new_zeros(x.shape[0], 4, 4)
    for count, (rows, columns) in enumerate(((slice(0, 2), slice(0, 1)), (slice(0, 2), slice(1, 4)), (slice(2, 4), slice(0, 4)))):
        mask[:, rows, columns] = count
    mask[:, 0] += x
    mask[:, 1, ::2].zero_()
    return (mask,)


def views_held(x: Tensor) -> tuple[Tensor, ...]:
    whole = x.clone()
    column, turned = whole[:, 1], whole.t()
    column.add_(1)
    between = turned * 2
    column.mul_(3)
    return between, turned, whole, column


def part_of_a_part(x: Tensor) -> tuple[Tensor, ...]:
    whole = x * 1
    part = whole[:, :3]
    inner = part[:, 1:]
    inner += 5
    part *= 2
    return whole, part, inner


def shifted(x: Tensor) -> tuple[Tensor, ...]:
    whole = x.clone()
    whole[:, 1:] = x[:, :-1]
    whole[:, :2] = whole[:, 2:]
    whole[0] = whole[1]
    return (whole,)


def other_dtypes(x: Tensor) -> tuple[Tensor, ...]:
    whole = torch.zeros(3, 4, dtype=torch.int64)
    whole[:, 1] = 2.7
    whole[1].add_(True)
    return (whole + x.long(),)


def result_is_written_on(x: Tensor) -> tuple[Tensor, ...]:
    whole = x.clone()
    found = whole[:, 0].add_(1)
    found.mul_(2)
    return whole, found


def row_by_row(x: Tensor) -> tuple[Tensor, ...]:
    out = torch.empty(x.shape[0], 4, 2)
    for index in range(4):
        out[:, index, 0] = x[:, index]
        out[:, index, 1] = x[:, index] * index
    return out, out.diagonal(0, 1, 2)


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.function(x)


@pytest.mark.parametrize("function", [windows, views_held, part_of_a_part, shifted, other_dtypes, result_is_written_on, row_by_row])
def test_writes_to_parts_need_no_second_trace(function: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    module = Function(function)
    exported = torch.export.export(module, (torch.randn(3, 4),))
    without_inplace(exported)
    assert not any(node.target._schema.is_mutable for node in exported.graph.nodes if isinstance(node.target, torch._ops.OpOverload))
    x = torch.randn(3, 4)
    for value, wanted in zip(exported.module()(x), module(x), strict=True):
        torch.testing.assert_close(value, wanted)
    found = reference.run(trace(module, (torch.randn(3, 4),)).model, {"x": x.numpy()})
    for result, wanted in zip(found.values(), module(x), strict=True):
        np.testing.assert_allclose(result, wanted.numpy(), rtol=1e-6, atol=1e-6)


class Reshaped(nn.Module):
    """A part of what may be a view or a copy is written to, or read after a write."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        whole, other = x.clone(), x.clone()
        flat = whole.reshape(-1)
        flat[1::2] = 0
        held = other.t().reshape(-1)
        other[:, 0] = 7
        first, second = other.split(2, 1)
        first.add_(second)
        return whole, held, other


def test_what_may_be_a_copy_is_left_to_torch() -> None:
    x = torch.randn(3, 4)
    found = reference.run(trace(Reshaped(), (torch.randn(3, 4),)).model, {"x": x.numpy()})
    for value, wanted in zip(found.values(), Reshaped()(x), strict=True):
        np.testing.assert_allclose(value, wanted.numpy(), rtol=1e-6)
