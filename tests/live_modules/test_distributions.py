"""torch.distributions in forward: densities, entropies, divergences, modes; samples are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributions as D
from torch import nn
from torch.distributions import Distribution
from torch.distributions.utils import lazy_property

import converter
from converter.errors import UnsupportedError
from tests.support_modules import assert_same


class Policy(nn.Module):
    """A function of a mean, a spread and distributions that the module holds."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.prior, self.choice = D.Normal(torch.zeros(3), torch.ones(3)), D.Categorical(probs=torch.tensor([0.2, 0.3, 0.5]))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x[:, :3], x[:, 3:].exp())


def squashed(m: torch.Tensor, s: torch.Tensor) -> D.Distribution:
    return D.Independent(D.TransformedDistribution(D.Normal(m, s), [D.transforms.TanhTransform(cache_size=1)]), 1)


def parts(d: Any, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return d.mean, d.mode, d.log_prob(value), d.entropy()


POLICIES: dict[str, Callable[..., Any]] = {
    "normal": lambda p, m, s: (*parts(D.Normal(m, s), m + 1), D.Normal(m, s).cdf(m * 2)),
    "checks asked for": lambda p, m, s: D.Normal(m, s, validate_args=True).log_prob(m + 1),
    "divergences": lambda p, m, s: (D.kl_divergence(D.Normal(m, s), p.prior), D.kl_divergence(D.Categorical(logits=m), p.choice)),
    "categorical": lambda p, m, s: (D.Categorical(logits=m).log_prob(s.argmax(1)), D.Categorical(s).entropy(), D.Categorical(s).mode),
    "one hot": lambda p, m, s: (D.OneHotCategorical(logits=m).mode, D.OneHotCategorical(s).entropy()),
    "held": lambda p, m, s: (p.choice.logits + m, p.choice.entropy(), p.prior.log_prob(m)),
    "squashed": lambda p, m, s: squashed(m, s).log_prob(torch.tanh(m) * 0.9),
    "beta": lambda p, m, s: parts(D.Beta(s + 1, s + 2), torch.sigmoid(m)),
    "bernoulli": lambda p, m, s: parts(D.Bernoulli(logits=m), (s > 1).float()),
    "matrices": lambda p, m, s: D.MultivariateNormal(m, scale_tril=torch.diag_embed(s)).log_prob(m + 1),
    "mixture": lambda p, m, s: D.MixtureSameFamily(D.Categorical(logits=m), D.Normal(m, s)).log_prob(m[:, 0]),
}


LONG = ("checks asked for", "one hot", "beta", "bernoulli", "mixture")
"""Of kinds that others stand for: parts of a distribution with one parameter or two, and choices."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in LONG else []) for name in POLICIES])
def test_the_same_as_torch(name: str) -> None:
    torch.manual_seed(0)
    policy = Policy(POLICIES[name])
    assert_same(policy, (torch.randn(4, 6),), (torch.randn(1, 6),), (torch.randn(9, 6),))
    assert not any(isinstance(value, torch._subclasses.FakeTensor) for value in vars(policy.choice).values())


@pytest.mark.parametrize("draw", ["sample", "rsample"])
def test_samples_are_refused(draw: str) -> None:
    with pytest.raises(UnsupportedError, match="random"):
        converter.from_torch(Policy(lambda p, m, s: getattr(D.Normal(m, s), draw)()), (torch.randn(4, 6),))


def test_checks_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Distribution, "_validate_args", True)  # torch.compile and torch.onnx turn them off for the whole process
    before = Distribution.__init__, Distribution._validate_args, lazy_property.__get__
    converter.from_torch(Policy(POLICIES["held"]), (torch.randn(4, 6),), dims="static")
    assert (Distribution.__init__, Distribution._validate_args, lazy_property.__get__) == before
    with pytest.raises(ValueError, match="scale"):
        D.Normal(torch.zeros(1), -torch.ones(1))
