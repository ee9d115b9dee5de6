"""Rewrites of imported graphs: what each recognises, what it must leave alone, and that the values stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from adapters.torch.tracing.trace import trace
from converter import reference

Tensor = torch.Tensor
Function = Callable[..., Tensor]


class Module(torch.nn.Module):
    """A function as a module, with a weight for those that want one."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.weight = torch.nn.Parameter(torch.linspace(0.5, 2, 8))

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(self, *args)


def rewritten(function: Function, *args: Tensor) -> Counter[str]:
    """The operators of the graph that a function becomes, once it was shown to give the same at these sizes."""
    module = Module(function).eval()
    program = trace(module, args)
    inputs = {str(name): np.asarray(arg) for name, arg in zip(program.input_names, args, strict=True)}
    found = reference.run(program.model, inputs, float_dtype="float64")["output"]
    with torch.no_grad():
        wanted = module.double()(*(arg.double() if arg.is_floating_point() else arg for arg in args))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-9, atol=1e-12)
    return Counter(node.op for node in program.model.graph.nodes)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("function", [
    lambda m, x: m.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)),
    lambda m, x: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * m.weight,
    lambda m, x: x / torch.sqrt(1e-6 + x.square().mean(2, keepdim=True)) * m.weight,
    lambda m, x: (1 + m.weight) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.25)),
], ids=["llama", "product", "root", "one more"])
def test_root_mean_square_norm(function: Function) -> None:
    found = rewritten(function, normal(2, 5, 8))
    assert found["rms_norm"] == 1
    assert set(found) <= {"rms_norm", "add"}


@pytest.mark.parametrize("function", [
    lambda m, x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6),
    lambda m, x: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6),
    lambda m, x: x * torch.rsqrt(x.pow(3).abs().mean(-1, keepdim=True) + 1e-6),
    lambda m, x: x * torch.rsqrt((x * x.flip(-1)).mean(-1, keepdim=True).abs() + 1e-6),
    lambda m, x: m.weight * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    lambda m, x: (x + 1) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
], ids=["other axis", "sum", "cube", "two things", "of the weight", "of another"])
def test_no_root_mean_square_norm(function: Function) -> None:
    assert not rewritten(function, normal(2, 5, 8))["rms_norm"]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)


def repeat(x: Tensor, times: int) -> Tensor:
    batch, heads, length, size = x.shape
    return x[:, :, None].expand(batch, heads, times, length, size).reshape(batch, heads * times, length, size)


def test_repeated_heads() -> None:
    found = rewritten(lambda m, q, k, v: attend(q, repeat(k, 3), repeat(v, 3)), normal(2, 6, 5, 8), normal(2, 2, 7, 8), normal(2, 2, 7, 4))
    assert set(found) == {"scaled_dot_product_attention"}


@pytest.mark.parametrize("function", [
    lambda m, q, k, v: attend(q, k[:, None].expand(2, 3, 2, 7, 8).reshape(2, 6, 7, 8), repeat(v, 3)),
    lambda m, q, k, v: attend(q, repeat(k, 3), v.repeat(1, 3, 1, 1)),
    lambda m, q, k, v: attend(q, repeat(k, 4)[:, 1:7], repeat(v, 4)[:, 1:7]),
], ids=["tiled", "one of the two", "cut"])
def test_heads_not_repeated_in_a_row(function: Function) -> None:
    found = rewritten(function, normal(2, 6, 5, 8), normal(2, 2, 7, 8), normal(2, 2, 7, 8))
    assert set(found) != {"scaled_dot_product_attention"}


def causal(rows: int, columns: int) -> Tensor:
    return torch.arange(columns)[None, :] <= torch.arange(rows)[:, None]


def test_causal_mask() -> None:
    found = rewritten(lambda m, q, k: attend(q, k, k, causal(q.shape[2], k.shape[2])), normal(2, 3, 5, 8), normal(2, 3, 7, 8))
    assert set(found) == {"scaled_dot_product_attention"}


def test_causal_mask_with_padding() -> None:
    def function(m: Module, q: Tensor, k: Tensor, kept: Tensor) -> Tensor:
        return attend(q, k, k, kept[:, None, None, :].bool() & causal(q.shape[2], k.shape[2]))

    kept = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    found = rewritten(function, normal(2, 3, 5, 8), normal(2, 3, 5, 8) + 1, kept)
    assert set(found) == {"astype", "reshape", "scaled_dot_product_attention"}


@pytest.mark.parametrize("mask", [
    lambda n: torch.arange(n)[None, :] < torch.arange(1, n + 1)[:, None] - 1 + torch.eye(n),
    lambda n: torch.arange(n)[None, :] >= torch.arange(n)[:, None],
    lambda n: torch.arange(n)[None, :] <= torch.arange(1, n + 1)[:, None],
    lambda n: torch.arange(0, 2 * n, 2)[None, :] <= torch.arange(n)[:, None],
    lambda n: causal(n, n) | torch.eye(n, dtype=torch.bool).flip(0),
], ids=["shifted", "upwards", "one ahead", "steps", "or more"])
def test_masks_that_are_not_causal(mask: Callable[[int], Tensor]) -> None:
    found = rewritten(lambda m, q: attend(q, q, q, mask(q.shape[2]).bool()), normal(2, 3, 5, 8))
    assert len(found) > 1


def halves(x: Tensor) -> Tensor:
    return torch.cat((-x[..., 4:], x[..., :4]), -1)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, exchange: Function = halves) -> Tensor:
    return x * cosine + exchange(x) * sine


def twice(angle: Tensor) -> Tensor:
    return torch.cat((angle, angle), -1)


@pytest.mark.parametrize("function", [
    lambda m, x, t: rotate(x, twice(t).cos(), twice(t).sin()),
    lambda m, x, t: twice(t).sin() * halves(x) + twice(t).cos() * x,
    lambda m, x, t: rotate(x[:, None].repeat(1, 3, 1, 1), twice(t).cos()[:, None] / 2, twice(t)[:, None].sin()),
], ids=["plain", "other orders", "later axes"])
def test_rotary_positions(function: Function) -> None:
    found = rewritten(lambda m, x, t: function(m, x * m.weight, t * m.weight[:4]), normal(2, 2, 8), normal(2, 2, 4))
    assert found["rotary_embedding"] == 1
    assert not found["concat"] + found["negative"] + found["add"]


@pytest.mark.parametrize("function", [
    lambda m, x, t: rotate(x, twice(t).cos(), twice(t).sin(), lambda x: torch.cat((x[..., 4:], -x[..., :4]), -1)),
    lambda m, x, t: rotate(x, twice(t).cos(), twice(t).sin(), lambda x: torch.cat((-x[..., :4], x[..., 4:]), -1)),
    lambda m, x, t: rotate(x, twice(t).cos(), twice(t).sin(), lambda x: torch.cat((-x[..., 3:], x[..., :3]), -1)),
    lambda m, x, t: rotate(x, torch.cat((t, t + 1), -1).cos(), twice(t).sin()),
    lambda m, x, t: rotate(x, t.repeat_interleave(2, -1).cos(), twice(t).sin()),
    lambda m, x, t: x.flip(0) * twice(t).cos() + halves(x) * twice(t).sin(),
    lambda m, x, t: x * twice(t).cos() - halves(x) * twice(t).sin(),
], ids=["the other way round", "not exchanged", "cut elsewhere", "other angles", "pairs and halves", "of another", "backwards"])
def test_no_rotary_positions(function: Function) -> None:
    found = rewritten(lambda m, x, t: function(m, x * m.weight, t * m.weight[:4]), normal(2, 2, 8), normal(2, 2, 4))
    assert not found["rotary_embedding"]
