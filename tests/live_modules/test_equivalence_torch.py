"""`verify` against PyTorch itself: no false alarms over many seeds, and faults that are found through a traced program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adapters.numpy.session import NumpySession
from adapters.onnx.session import OnnxRuntimeSession
from adapters.torch.run import ProgramSource
from adapters.torch.tracing.trace import Program, trace
from converter.equivalence import generate, verify
from converter.ir import Example
from converter.parameters import InMemoryParameters

pytestmark = pytest.mark.xdist_group("equivalence_torch")  # one process makes what they share


class Tagger(nn.Module):
    """Tokens and a mask in; scores, their best, and a scalar out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn, self.out = nn.Embedding(30, 12), nn.LSTM(12, 10, batch_first=True, bidirectional=True), nn.Linear(20, 9)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden, _ = self.rnn(self.embedding(tokens))
        scores = self.out(hidden) * mask.unsqueeze(-1)
        return {"scores": scores, "best": scores.argmax(-1), "loss": scores.mean()}


class Deep(nn.Module):
    """Many layers, which make rounding grow, and a softmax over large scores."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + torch.tanh(2 * layer(x))
        return torch.softmax(4 * x, -1)


class Scalar(nn.Module):
    """A sum that cancels: one value a case."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(x)).mean()


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...], dict[str, Any]]] = {
    "tagger": (Tagger, (torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3)), {name: ["batch", "time"] for name in ("tokens", "mask")}),
    "deep": (Deep, (torch.ones(2, 16),), {"x": ["batch", None]}),
    "scalar": (Scalar, (torch.ones(2, 8),), {"x": ["batch", None]}),
    "half": (lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 5)).to(torch.bfloat16),
             (torch.ones(2, 8, dtype=torch.bfloat16),), {"input": ["batch", None]}),
    "double": (lambda: Deep().to(torch.float64), (torch.ones(2, 16, dtype=torch.float64),), {"x": ["batch", None]}),
}
SEEDS, FEW = 20, 5
"""Of the seeds, so many are drawn by `make test`, and the others by `make test-all`."""


@cache
def program(name: str) -> Program:
    build, args, dims = MODELS[name]
    torch.manual_seed(3)
    return trace(build(), args, dims=dims)


@cache
def sessions(name: str) -> dict[str, Any]:
    model = program(name).model
    found: dict[str, Any] = {"numpy": NumpySession(model)}
    if name != "half":  # ONNX Runtime's CPU provider has no bfloat16 kernels.
        found["onnxruntime"] = OnnxRuntimeSession(model)
    return found


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[] if seed < FEW else pytest.mark.long) for seed in range(SEEDS)])
@pytest.mark.parametrize("name", MODELS)
def test_no_false_alarm(name: str, seed: int) -> None:
    traced = program(name)
    report = verify(traced.model, sessions(name), source=ProgramSource(traced), seed=seed)
    assert report, str(report)
    assert {row.stage for row in report.rows} == {"model", "structure", "rounding"}
    assert report.versions["torch"] == torch.__version__


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[] if seed < FEW else pytest.mark.long) for seed in range(0, SEEDS, 4)])
@pytest.mark.parametrize("name", MODELS)
def test_recorded_outputs_prove_a_model_without_torch(name: str, seed: int) -> None:
    traced = program(name)
    source = ProgramSource(traced)
    examples = tuple(Example(case, source.run(case), f"torch {torch.__version__}")
                     for case in generate(traced.model.graph, traced.model.parameters, 100 + seed, 2))
    report = verify(replace(traced.model, examples=examples), sessions(name), seed=seed)
    assert report, str(report)
    assert {row.stage for row in report.rows} == {"recorded", "rounding"}


@pytest.mark.parametrize("change", ["one weight", "rolled gates", "dropped bias"])
def test_a_changed_model_is_not_the_traced_one(change: str) -> None:
    traced = program("tagger")
    arrays = {name: traced.model.parameters.read(name).copy() for name in traced.model.parameters.names()}
    if change == "one weight":
        arrays["rnn.weight_hh_l0"][3, 4] *= np.float32(1.0001)
    elif change == "rolled gates":
        arrays["rnn.weight_ih_l0"] = np.roll(arrays["rnn.weight_ih_l0"], 10, axis=0)
    else:
        arrays["rnn.bias_hh_l0_reverse"][:] = 0
    faulty = traced.model.with_parameters(InMemoryParameters(arrays))
    report = verify(faulty, ["numpy"], source=ProgramSource(traced), cases=3)
    assert {"model", "structure"} <= {row.stage for row in report.failures}


def test_the_source_and_the_graph_differ_in_structure_alone() -> None:
    """A GELU of the other kind: close in value, and another model."""
    class Net(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.kind = kind

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.gelu(x, approximate=self.kind)

    exact, other = (trace(Net(kind), (torch.ones(2, 6),), dims={"x": ["batch", None]}) for kind in ("none", "tanh"))
    assert verify(exact.model, ["numpy"], source=ProgramSource(exact))
    report = verify(other.model, ["numpy"], source=ProgramSource(exact))
    assert {row.stage for row in report.failures} == {"structure", "rounding"}


class Probabilities(nn.Module):
    """A softmax, held in another dtype on its way out."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x * 30, -1).to(self.dtype).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_that_the_module_does_not_make_does_not_excuse_itself(dtype: torch.dtype) -> None:
    plain, coarse = (trace(Probabilities(kind), (torch.ones(2, 6),)) for kind in (torch.float32, dtype))
    assert not verify(coarse.model, ["numpy"], source=ProgramSource(plain))
    assert verify(coarse.model, ["numpy"], source=ProgramSource(coarse))
