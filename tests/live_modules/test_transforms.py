"""`vmap`, and gradients that forward itself asks for: traced as the operators that compute them, at free sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jacfwd, jacrev, stack_module_state, vjp, vmap

import converter
from converter import UnsupportedError
from tests.support_modules import Calls, assert_same


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def normal(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.randn(shape) for shape in shapes)


class Ensemble(nn.Module):
    """The mean of several networks, their parameters stacked."""

    def __init__(self, *parts: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(nn.Sequential(*(part() for part in parts)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        parameters, buffers = stack_module_state(list(self.models))
        return vmap(lambda p, b, x: functional_call(self.models[0], (p, b), (x,)), in_dims=(0, 0, None))(parameters, buffers, x).mean(0)


def test_an_ensemble_over_sequences() -> None:
    assert_same(Ensemble(lambda: nn.Linear(4, 6), nn.Tanh, lambda: nn.Linear(6, 2)), *(normal(shape) for shape in ((2, 9, 4), (1, 3, 4))))


def test_a_generator_in_forward_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="random"):
        converter.from_torch(Calls(lambda x: x + torch.randn(4, generator=torch.Generator().manual_seed(1))), normal((2, 4)))


def test_an_ensemble_of_layers() -> None:
    assert_same(Ensemble(lambda: nn.Linear(8, 6), nn.ReLU, lambda: nn.LayerNorm(6), lambda: nn.Linear(6, 2)),
                normal((5, 8)), normal((3, 8)), normal((1, 8)))


def test_an_ensemble_of_convolutions() -> None:
    made = Ensemble(lambda: nn.Conv2d(3, 4, 3, padding=1), lambda: nn.BatchNorm2d(4), nn.ReLU, lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten)
    for name, value in made.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    assert_same(made, normal((4, 3, 8, 8)), normal((2, 3, 7, 9)))


def positions(r: Tensor) -> Tensor:
    order = r.argsort(0)
    return r.gather(0, order) + torch.zeros_like(r).scatter(0, order, r) + r.scatter_add(0, order[:1], r[:1]) + r.scatter(0, order[:1], 2.0)


MAPPED: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], tuple[Tensor, ...]]] = {
    "nested": (lambda x, y: vmap(lambda a: vmap(lambda b: (a * b).sum())(y))(x), normal((4, 3), (5, 3)), normal((2, 6), (7, 6))),
    "axes in and out": (vmap(torch.matmul, in_dims=(2, 0), out_dims=1), normal((3, 4, 6), (6, 4, 5)), normal((2, 4, 3), (3, 4, 7))),
    "parts joined, one not mapped": (lambda x, w: vmap(lambda r: torch.cat([r, w, r.flip(0)], -1))(x),
                                     normal((4, 3, 8), (3, 8)), normal((2, 5, 6), (5, 6))),
    "twice, joined": (vmap(vmap(lambda r: torch.cat([r, r * 2]))), normal((4, 2, 3)), normal((2, 3, 5))),
    "gathered and scattered": (vmap(positions), normal((4, 6, 5)), normal((2, 3, 7))),
    "vectors gathered": (vmap(lambda r: r.gather(0, r.argsort(0)[:2])), normal((4, 6)), normal((2, 3))),
    "norm with its own weights": (vmap(lambda r, k: F.layer_norm(r, (8,), k[0], k[1]), in_dims=(1, 0)),
                                  normal((4, 3, 8), (3, 2, 8)), normal((2, 5, 8), (5, 2, 8))),
    "batch statistics": (vmap(lambda r: F.batch_norm(r, None, None, training=True)), normal((4, 6, 3, 5)), normal((2, 3, 3, 7))),
    "groups, pooled, resized": (vmap(lambda r: F.interpolate(F.max_pool2d(F.group_norm(r, 2), 2), scale_factor=2.0, mode="bilinear")),
                                normal((4, 2, 4, 8, 8)), normal((2, 1, 4, 9, 10))),
    "in chunks": (vmap(lambda r: r.exp().sum(), chunk_size=2), normal((4, 6)), normal((3, 5))),
    "a gradient for each row": (vmap(grad(lambda r: (r.sin() * r).sum())), normal((4, 6)), normal((2, 5))),
}


@pytest.mark.parametrize("name", MAPPED)
def test_vmap(name: str) -> None:
    function, *calls = MAPPED[name]
    assert_same(function, *calls)


class Slope(nn.Module):
    """A network's value and the gradient of a sum of powers of it, by autograd."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            y = self.function(x)
            slope, = torch.autograd.grad(y.pow(3).sum(), x)
        return y.detach(), slope


LAYERS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[Tensor, ...], tuple[Tensor, ...]]] = {
    "mlp": (nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.Mish(), nn.Linear(8, 2)),
            normal((5, 6)), normal((3, 6))),
    "convolutions": (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.GELU(), nn.MaxPool2d(2),
                                   nn.ConvTranspose2d(4, 2, 3, stride=2)),
                     normal((2, 3, 8, 8)), normal((1, 3, 9, 11))),
    "what the data choose": (lambda x: x[x > 0].exp(), normal((5, 6)), normal((3, 4))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_by_autograd(name: str) -> None:
    function, *calls = LAYERS[name]
    assert_same(Slope(function), *calls)


class Forces(nn.Module):
    """Energies of a graph of atoms, and their forces."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.net = nn.Embedding(5, 4), nn.Sequential(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 1))

    def forward(self, places: Tensor, kinds: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            places = places.detach().requires_grad_(True)
            source, target = edges
            distances = (places[source] - places[target]).norm(dim=-1, keepdim=True)
            messages = self.net(torch.cat([self.kinds(kinds[target]), distances], -1))
            energy = torch.zeros(places.shape[0], 1).index_add(0, source, messages).sum()
            force, = torch.autograd.grad(energy, places)
        return energy, energy.detach(), -force


def atoms(count: int, edges: int) -> tuple[Tensor, ...]:
    return (torch.randn(count, 3), torch.randint(0, 5, (count,)),
            torch.stack([torch.arange(edges) % count, (torch.arange(edges) * 3 + 1) % count]))


def test_forces_of_a_graph() -> None:
    assert_same(Forces(), atoms(5, 7), atoms(4, 9))


class Repelled(nn.Module):
    """Forces by the distances of all places from each other, those of 0 from themselves among them, and from others."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.net = p, nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 1))

    def forward(self, places: Tensor, others: Tensor) -> Tensor:
        with torch.enable_grad():
            places = places.detach().requires_grad_(True)
            energy = self.net(torch.exp(-torch.cdist(places, places, self.p))[..., None]).sum()
            force, = torch.autograd.grad(energy + torch.cdist(places, others, self.p).sin().sum(), places)
        return -force


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_forces_through_distances(p: float) -> None:
    assert_same(Repelled(p), (torch.randn(5, 3), torch.randn(4, 3)), (torch.randn(9, 3), torch.randn(2, 3)))


class Adapted(nn.Module):
    """A layer that takes one step of descent on its own input first."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            steps = torch.autograd.grad(self.layer(x).pow(2).mean(), [self.layer.weight, self.layer.bias])
        return F.linear(x, self.layer.weight - 0.1 * steps[0], self.layer.bias - 0.1 * steps[1])


class Laplacian(nn.Module):
    """Second derivatives, by a gradient of a gradient, and `backward`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            slope, = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
            second = sum(torch.autograd.grad(slope[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(3))
            self.net(x).pow(2).sum().backward(inputs=[x])
        return second, x.grad


@pytest.mark.parametrize(("module", "width"), [(Adapted(), 4), (Laplacian(), 3)])
def test_gradients_in_parameters_and_of_gradients(module: nn.Module, width: int) -> None:
    assert_same(module, normal((5, width)), normal((3, width)))


class Potential(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 1))

    def energy(self, places: Tensor) -> Tensor:
        return self.net(torch.exp(-(places[:, None] - places[None]).pow(2).sum(-1, keepdim=True))).sum()

    def forward(self, places: Tensor) -> Any:
        values, pullback = vjp(torch.tanh, places)
        return (grad_and_value(self.energy)(places), pullback(values), jacrev(lambda p: p.tanh() * p.sum())(places),
                jacfwd(lambda p: p.sin() * p.sum())(places))


def test_function_transforms() -> None:
    assert_same(Potential(), normal((4, 3)), normal((2, 3)))
