"""Exact ties before a choice: torch leaves open which of equal elements is taken, the format does not. Whatever is gathered or scattered
there, an honest model is equivalent beside its module and by its recording, and one that chooses otherwise is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adapters.torch.live import convert
from adapters.torch.ops.sorting import StableOrder
from converter.checking import check
from converter.equivalence import verify
from converter.equivalence.ties import tie_rules
from converter.ir import Model

Tensor = torch.Tensor


class Scored(torch.nn.Module):
    """Chooses rows of x by scores, many of which are equal, and goes on with them."""

    def __init__(self, choose: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.score, self.choose = torch.nn.Linear(6, 1), choose

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.choose(x, self.score(x).squeeze(-1), mask)


def rows(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def masked(x: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    return rows(x, (scores.relu() * mask).topk(4).indices)


def clipped(x: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    return torch.take_along_dim(x, scores.clamp(-0.2, 0.2).argsort(-1, descending=True).unsqueeze(-1), 1)


def filled(x: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    return x[torch.arange(x.shape[0]), torch.where(mask > 0, scores, torch.tensor(-1e9)).relu().argmax(1)]


def scattered(x: Tensor, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    kept = torch.zeros_like(scores).scatter(1, scores.relu().topk(3, sorted=False).indices, 1.0)
    return x * kept.unsqueeze(-1), kept.bool()


def rounded(x: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    order = (4 * scores).round().argsort(1)
    return rows(rows(x, order).cumsum(1), order.argsort(1))


def counted(x: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    return rows(x, (scores > 0).float().topk(3).indices)


def ranked(x: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    second, middle = (scores.relu() * mask).kthvalue(2, 1).indices, scores.relu().median(1, keepdim=True).indices
    return rows(x, torch.cat([second.unsqueeze(1), middle], 1))


def projected(x: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    values, places = (F.relu6(x) * mask.unsqueeze(-1)).sum(-1).sort(1, descending=True)
    return torch.cat([rows(x, places), values.unsqueeze(-1)], -1)


CHOICES = (masked, clipped, filled, scattered, rounded, counted, ranked, projected)
INPUTS = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(0)), (torch.arange(9) < torch.tensor([[9], [5], [7]])).float()
SWITCHES = {"topk": ("largest", True), "sort": ("descending", False)}


def other_ways(model: Model) -> list[Model]:
    """The model with one choice turned round: the least for the largest."""
    found = []
    for place, node in enumerate(model.graph.nodes):
        if node.op in SWITCHES:
            name, default = SWITCHES[node.op]
            turned = replace(node, attributes={**node.attributes, name: not node.attributes.get(name, default)})
            nodes = (*model.graph.nodes[:place], turned, *model.graph.nodes[place + 1:])
            found.append(replace(model, graph=replace(model.graph, nodes=nodes)))
    return found


@pytest.mark.parametrize("choose", CHOICES)
def test_exact_ties_accuse_nobody(choose: Callable[..., Any]) -> None:
    found = convert(Scored(choose).eval(), INPUTS)
    assert verify(found.model, ["numpy", "torch", "onnxruntime"], source=found.source)
    assert verify(found.model, ["numpy"], seed=1)
    for other in other_ways(found.model):
        assert not verify(other, ["numpy"], source=found.source, locate=False)
        assert not verify(other, ["numpy"], locate=False)


def test_equal_elements_in_order() -> None:
    x = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, float("nan"), 0.0, 1.0] * 40, [0.0] * 320])
    with StableOrder():
        found = [x.topk(90, -1).indices, x.topk(3, -1, largest=False, sorted=False).indices, x.sort(-1, descending=True).indices,
                 x.argsort(0), x.kthvalue(2, -1).indices, x.kthvalue(159, -1, keepdim=True).indices, x[:, :5].median(-1).indices,
                 x.nanmedian(-1, keepdim=True).indices, torch.tensor(3.0).topk(1, 0).indices, torch.tensor(3.0).median(0).indices]
        with pytest.raises(RuntimeError, match="k"):
            x.topk(321, -1)
    nan, ones = np.arange(5, 320, 8), np.flatnonzero(x[0].numpy() == 1)
    zeros = np.flatnonzero(x[0].numpy() == 0)
    np.testing.assert_array_equal(found[0], [np.r_[nan, ones][:90], np.arange(90)])
    np.testing.assert_array_equal(found[1], [zeros[:3], [0, 1, 2]])
    np.testing.assert_array_equal(found[2], [np.r_[nan, ones, zeros], np.arange(320)])
    np.testing.assert_array_equal(found[3][:, :6], [[0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0]])
    assert [item.tolist() for item in found[4:]] == [[2, 1], [[int(zeros[158])], [158]], [0, 0], [[0], [0]], 0, 0]


class Loudest(torch.nn.Module):
    """The index of the frequency with the largest modulus; opposite ones of a real signal are equal but for rounding."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x).abs()[:, 1:].argmax(-1)


def test_the_modulus_is_rounded() -> None:
    model = convert(Loudest(), (torch.randn(4, 9),)).model
    (rule,) = tie_rules(model.graph, check(model.graph, model.parameters)).values()
    assert not rule.exact
    assert verify(model, ["numpy", "onnxruntime"])
