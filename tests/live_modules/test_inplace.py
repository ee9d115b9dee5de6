"""In-place operators of a trace become plain ones, at a look where nothing else shares the memory."""

from __future__ import annotations

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
