"""Slices, splits and conditions between sizes: a module traced at one size gives at others what torch gives, or refuses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import converter
from adapters.torch.tracing.trace import trace
from converter.errors import RunError
from converter.ir import Model

RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 20)
PAIRS = ((3, 8), (8, 3), (5, 5), (1, 4), (4, 1), (2, 9), (9, 2), (7, 6))


class Apply(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def steps(count: int) -> Tensor:
    return torch.arange(2 * count * 3, dtype=torch.float32).reshape(2, count, 3) / 7 + 1


class Outcomes:
    """What the runtimes do at a call of a model, each made ready once."""

    def __init__(self, model: Model, module: nn.Module) -> None:
        self.module, self.names = module, [port.name for port in model.graph.inputs]
        self.sessions = {runtime: converter.session(model, runtime) for runtime in RUNTIMES}

    def __call__(self, *given: Tensor) -> set[str]:
        """`equal`, `refused`, or how one is wrong."""
        try:
            wanted = self.module(*given).numpy()
        except Exception:  # torch refuses the size
            wanted = None
        found = set()
        for runtime, session in self.sessions.items():
            try:
                (got,) = session.run({name: tensor.numpy() for name, tensor in zip(self.names, given, strict=True)}).values()
            except RunError:
                found.add("refused")
                continue
            same = wanted is not None and got.shape == wanted.shape and np.allclose(got, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)
            found.add("equal" if same else f"{runtime} gives {list(got.shape)} {got.ravel()[:4]}")
        return found


@dataclass(frozen=True)
class Case:
    function: Callable[..., Any]
    example: tuple[int, ...]
    allowed: Callable[..., bool]
    """At which sizes the model runs; at all others it refuses."""


CASES: dict[str, Case] = {
    "stop past the end": Case(lambda x: x[:, :6] * 2, (9,), lambda n: True),
    "start past the end": Case(lambda x: x[:, 6:].sum(1), (9,), lambda n: True),
    "from the end": Case(lambda x: x[:, -6:] * 2, (9,), lambda n: True),
    "between ends": Case(lambda x: x[:, 2:-2] * 2, (9,), lambda n: True),
    "both from the end": Case(lambda x: x[:, -6:-2] * 2, (3,), lambda n: True),
    "by steps": Case(lambda x: x[:, 1::3] * 2, (9,), lambda n: True),
    "by steps from the end": Case(lambda x: x[:, -5::2] * 2, (4,), lambda n: True),
    "a slice and its length": Case(lambda x: x[:, :6] + torch.arange(x[:, :6].shape[1])[:, None], (4,), lambda n: True),
    "a table of positions": Case(lambda x: x + torch.arange(24.0).reshape(8, 3)[: x.shape[1]], (5,), lambda n: n <= 8),
    "parts at places": Case(lambda x: torch.cat([part.sum(1) for part in x.tensor_split((3, 7), 1)]), (9,), lambda n: True),
    "as many parts as three": Case(lambda x: torch.cat([part.sum(1) for part in x.tensor_split(3, 1)]), (9,), lambda n: True),
    "four parts from the end": Case(lambda x: torch.cat(torch.tensor_split(x, sections=4, dim=-2)[::-1], 1), (6,), lambda n: True),
    "the larger half": Case(lambda x: torch.tensor_split(x, 2, 1)[0] * 2, (7,), lambda n: True),
    "parts of six": Case(lambda x: sum(part.mean(1) for part in x.split(6, 1)), (9,), lambda n: 7 <= n <= 12),
    "how many parts": Case(lambda x: x.sum(1) * len(x.split(6, 1)), (9,), lambda n: 7 <= n <= 12),
    "parts of three, each its own way": Case(lambda x: torch.cat([y * place for place, y in enumerate(torch.split(x, 3, dim=1))], 1), (6,),
                                             lambda n: n <= 12),
    "parts of three, summed": Case(lambda x: sum(part.sum(1) for part in x.split(3, 1)), (6,), lambda n: True),
    "the first part of three": Case(lambda x: x.split(3, dim=1)[0] * 2, (7,), lambda n: True),
    "up to four parts": Case(lambda x: torch.cat([y * place for place, y in enumerate(x.chunk(4, 1))], 1), (6,), lambda n: True),
    "up to four parts of all rows": Case(lambda x: torch.cat([y.tanh() for y in torch.chunk(x.flatten(0, 1), 4)]), (6,), lambda n: True),
    "how many of four": Case(lambda x: x.sum(1) * len(x.chunk(4, 1)), (7,), lambda n: n in (4, 7, 8) or n > 9),
    "four names": Case(lambda x: (lambda a, b, c, d: torch.cat([d, a], 1))(*x.chunk(4, -2)), (8,), lambda n: n in (4, 7, 8) or n > 9),
    "groups of four and the rest": Case(lambda x: (lambda groups, rest: x[:, :4 * groups].unflatten(1, (groups, 4)).sum(2) * (rest + 1))(
        *divmod(x.shape[1], 4)), (13,), lambda n: True),
    "how often in a hundred": Case(lambda x: x * divmod(100, x.shape[1])[0] - divmod(100, x.shape[1])[1], (9,), lambda n: True),
    "three parts": Case(lambda x: torch.cat([part.mean(1) for part in x.chunk(3, 1)], 1), (9,), lambda n: n >= 3 and n != 4),
    "narrowed": Case(lambda x: x.narrow(1, 2, 3) * 2, (9,), lambda n: n >= 5),
    "windows": Case(lambda x: x.unfold(1, 4, 2).sum(-1), (9,), lambda n: n >= 4),
    "pooled to half as many": Case(lambda x: F.adaptive_avg_pool2d(x, (x.shape[1] // 2, 2)), (9,), lambda n: True),
    "channels in the places of pixels": Case(lambda x: F.pixel_shuffle(x[..., None], 2), (8,), lambda n: n % 4 == 0),
    "taken off": Case(lambda x: F.pad(x, (0, 0, -2, -1)) * 2, (9,), lambda n: n >= 3),
    "written to a slice": Case(lambda x: torch.slice_scatter(x, x[:, :4] * 2, 1, 0, 4), (9,), lambda n: True),
    "to another's length": Case(lambda a, b: a[:, :b.shape[1]] * 2, (3, 8), lambda a, b: True),
    "to a shorter one's length": Case(lambda a, b: a[:, :b.shape[1]] * 2, (8, 3), lambda a, b: True),
    "another's length from the end": Case(lambda a, b: a[:, -b.shape[1]:] * 2, (3, 8), lambda a, b: True),
    "past another's length": Case(lambda a, b: a[:, b.shape[1]:] * 2, (8, 3), lambda a, b: True),
    "both to the shorter": Case(lambda a, b: a[:, :b.shape[1]] + b[:, :a.shape[1]], (3, 8), lambda a, b: True),
    "a window of both": Case(lambda a, b: torch.cat([a, b], 1)[:, -6:] * 2, (2, 3), lambda a, b: True),
    "shorter than another": Case(lambda a, b: a.mean(1) if a.shape[1] < b.shape[1] else b.mean(1), (3, 9), lambda a, b: a < b),
    "a multiple of another": Case(lambda a, b: a.sum(1) if a.shape[1] % b.shape[1] == 0 else b.sum(1), (6, 3), lambda a, b: a % b == 0),
}


LONG = ("parts of three, each its own way", "up to four parts", "parts of six", "how many parts", "how many of four", "the larger half",
        "up to four parts of all rows", "four parts from the end", "start past the end", "both from the end", "by steps from the end",
        "to a shorter one's length", "past another's length", "pooled to half as many", "taken off")
"""Seconds each, of kinds that others stand for: a split, a chunk, how many parts there are, slices by steps and from the end."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in LONG else []) for name in CASES])
def test_sizes_that_were_not_traced(name: str) -> None:
    case = CASES[name]
    module = Apply(case.function).eval()
    model = trace(module, tuple(map(steps, case.example))).model
    outcomes = Outcomes(model, module)
    sizes = [(length,) for length in LENGTHS] if len(case.example) == 1 else list(PAIRS)
    found = {size: outcomes(*map(steps, size)) for size in sizes}
    assert found == {size: {"equal"} if case.allowed(*size) else {"refused"} for size in sizes}


@pytest.mark.filterwarnings("ignore")
def test_a_cache_goes_past_its_window() -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor, keys: Tensor) -> Tensor:
            keys = torch.cat([keys, x], 1)
            return F.scaled_dot_product_attention(x, keys[:, -4:], keys[:, -4:])

    module = Step().eval()
    for traced in (1, 3, 7):
        model = trace(module, (torch.randn(2, 1, 4), torch.randn(2, traced, 4))).model
        outcomes = Outcomes(model, module)
        for past in (1, 2, 3, 4, 9):
            assert outcomes(torch.randn(2, 1, 4), torch.randn(2, past, 4)) == {"equal"}


@pytest.mark.filterwarnings("ignore")
def test_grouped_heads_are_a_multiple() -> None:
    class Attend(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    module = Attend().eval()
    model = trace(module, (torch.randn(1, 6, 5, 4), torch.randn(1, 2, 5, 4))).model
    outcomes = Outcomes(model, module)
    for heads, groups in ((6, 2), (4, 2), (8, 1), (9, 3), (3, 3)):
        assert outcomes(torch.randn(1, heads, 5, 4), torch.randn(1, groups, 5, 4)) == {"equal"}, (heads, groups)
    for heads, groups in ((5, 2), (7, 3)):
        assert outcomes(torch.randn(1, heads, 5, 4), torch.randn(1, groups, 5, 4)) == {"refused"}, (heads, groups)


GROUPED: dict[str, Callable[..., Tensor]] = {
    "the key's fixed": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).sum() + k + q[:, :2, :1],
    "the value's fixed": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True).sum() + v + q[:, :2, :1],
    "a mask a head": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, q @ k[:, :1].mT, enable_gqa=True).sum() + k + q[:, :2, :1],
}


@pytest.mark.parametrize("name", GROUPED)
def test_heads_of_keys_and_values_apart(name: str) -> None:
    """In float64: the sum cancels, and in float32 lies as far off as it is large."""
    module = Apply(GROUPED[name]).eval()
    model = trace(module, tuple(torch.randn(2, heads, 5, 4, dtype=torch.float64) for heads in (6, 2, 2))).model
    outcomes = Outcomes(model, module)
    reverse = name == "the value's fixed"
    for heads, own, other in ((6, 2, 2), (6, 2, 3), (6, 2, 1), (6, 2, 6), (4, 2, 4)):
        given = [torch.randn(1, count, 3, 4, dtype=torch.float64) for count in ((heads, other, own) if reverse else (heads, own, other))]
        assert outcomes(*given) == {"equal"}, (heads, own, other)
    for heads, own, other in ((6, 2, 4), (5, 2, 2), (6, 3, 3)):
        given = [torch.randn(1, count, 3, 4, dtype=torch.float64) for count in ((heads, other, own) if reverse else (heads, own, other))]
        assert outcomes(*given) == {"refused"}, (heads, own, other)


def test_sizes_equal_in_the_example_that_a_condition_holds_apart_stay_apart() -> None:
    """The longer one may be any length from the other's on: neither can move both ways alone."""
    module = Apply(lambda x, y: x.sum(1) * 2 if y.shape[1] >= x.shape[1] else x.sum(1) * y.sum()).eval()
    model = trace(module, (steps(9), torch.randn(2, 9))).model
    outcomes = Outcomes(model, module)
    assert len(model.graph.requires) == 1
    for length, other in PAIRS:
        wanted = {"equal"} if other >= length else {"refused"}
        assert outcomes(steps(length), torch.randn(2, other)) == wanted, (length, other)


def test_a_size_that_a_condition_keeps_from_moving_alone_may_be_another_one() -> None:
    """The values are as many as the keys, which the mask is one longer than: of these, only the mask is compared."""
    def step(k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        if mask.shape[1] < k.shape[2] + 1 or mask.shape[1] > k.shape[2] + 1:
            raise ValueError("mask")
        return F.scaled_dot_product_attention(k[:, :, :1], k, v) + mask.sum()

    module = Apply(step).eval()
    model = trace(module, (torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 4), torch.ones(2, 6))).model
    outcomes = Outcomes(model, module)
    for keys, values, length in ((5, 5, 6), (1, 1, 2), (8, 8, 9), (3, 5, 4), (5, 3, 6), (5, 5, 5)):
        wanted = {"equal"} if keys == values == length - 1 else {"refused"}
        given = (torch.randn(3, 2, keys, 4), torch.randn(3, 2, values, 4), torch.ones(3, length))
        assert outcomes(*given) == wanted, (keys, values, length)
    tied = {"k": np.zeros((3, 2, 3, 4), np.float32), "v": np.zeros((3, 2, 5, 4), np.float32), "mask": np.ones((3, 4), np.float32)}
    with pytest.raises(RunError, match="do not go together"):
        converter.session(model).run(dict(zip((port.name for port in model.graph.inputs), tied.values(), strict=True)))


EMPTY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda x: x[:, : x.shape[1] // 4].mean(1),
    "mean of differences": lambda x: (x[:, 1:] - x[:, :-1]).abs().mean(),
    "cummax": lambda x: x[:, : x.shape[1] // 4].cummax(1).values,
    "logcumsumexp": lambda x: x[:, : x.shape[1] // 4].logcumsumexp(1),
    "largest singular value": lambda x: torch.linalg.norm(x[:, : x.shape[1] // 4], 2, dim=(0, 1)),
    "all": lambda x: (x[:, : x.shape[1] // 4] > 0).all(1),
}


@pytest.mark.parametrize("name", EMPTY)
def test_what_is_reduced_may_come_out_empty_though_no_input_is(name: str) -> None:
    module, example = Apply(EMPTY[name]), torch.randn(2, 9)
    model = converter.from_torch(module, (example,))
    for runtime in ("reference", "numpy", "onnxruntime", "torch"):
        session = converter.session(model, runtime=runtime)
        for length in (1, 3, 4, 8):
            x = torch.randn(3, length)
            found, = session.run({model.graph.inputs[0].name: x.numpy()}).values()
            np.testing.assert_allclose(found, module(x).numpy(), 1e-4, 1e-5, err_msg=f"{runtime} at {length}")
