"""State that a module keeps, as inputs and outputs of its model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from converter.cli.main import cli
from converter.errors import UnsupportedError
from tests.live_modules.stateful_modules import (
    RUNTIMES,
    Anew,
    Attribute,
    Counter,
    FirstCall,
    History,
    InObject,
    Running,
    Streaming,
    Window,
    X,
    picture,
)


class Growing(nn.Module):
    """A cache that is longer after each call, beside an attention map that is only looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.cache, self.looked_at = nn.Linear(3, 3), torch.ones(2, 3), None

    def forward(self, state: torch.Tensor, **more: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.cache = torch.cat([self.cache, self.linear(state)])
        self.looked_at = (state @ self.cache.T).softmax(-1)
        return self.looked_at @ self.cache + more.get("shift", 0), self.looked_at


class ByBatch(nn.Module):
    """State of the batch's size, zeros before the first call; a number beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.hidden, self.steps = nn.LSTMCell(3, 4), None, 0

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = (x.new_zeros(x.shape[0], 4), x.new_zeros(x.shape[0], 4)) if self.hidden is None else self.hidden
        self.hidden = self.cell(x, hidden)
        self.steps += 1
        return {"y": self.hidden[0] / self.steps}


EXPLICIT: list[tuple[Callable[[], nn.Module], list[str]]] = [
    (Running, ["mean"]), (Anew, ["mean"]), (Streaming, ["last"]), (Attribute, ["part.h"]), (FirstCall, ["hidden.0", "hidden.1"]),
    (Counter, ["steps"]), (ByBatch, ["hidden.0", "hidden.1", "steps"]),
    (Window, ["last.0", "last.1", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]),
]


@pytest.mark.parametrize(("build", "names"), EXPLICIT, ids=[build.__name__ for build, _ in EXPLICIT])
def test_state_as_inputs_and_outputs(build: Callable[[], nn.Module], names: list[str]) -> None:
    torch.manual_seed(0)
    module = build().eval()
    before = picture(module)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*keeps state")
        warnings.filterwarnings("ignore", ".*stays fixed")
        model = converter.from_torch(module, (X,), state="explicit")
    assert picture(module) == before
    assert [port.name for port in model.graph.inputs] == ["x", *(f"state.{name}" for name in names)]
    assert model.metadata["state"] == {f"state.{name}": f"next_state.{name}" for name in names}
    assert set(model.parameters.names()) >= set(module.state_dict())
    assert converter.verify(model, runtimes=RUNTIMES)
    chunks = [X, X * 2 - 1, X.flip(0)]
    with torch.no_grad():
        wanted = [module(chunk) for chunk in chunks]
    for runtime in RUNTIMES:
        session = converter.session(model, runtime)
        state = {name: model.examples[0].inputs[name] for name in model.metadata["state"]}
        for chunk, result in zip(chunks, wanted, strict=True):
            found = session.run({"x": chunk.numpy(), **state})
            expected = result["y"] if isinstance(result, dict) else result
            np.testing.assert_allclose(next(iter(found.values())), expected.numpy(), rtol=1e-5, atol=1e-5)
            state = {given: found[left] for given, left in model.metadata["state"].items()}


@pytest.mark.parametrize("wrap", [torch.jit.script, lambda module: torch.export.export(module, (X,))])
def test_state_of_scripts_and_programs_is_said(wrap: Callable[[nn.Module], Any]) -> None:
    module = wrap(Running().eval())
    with pytest.warns(converter.ConversionWarning, match="forward keeps state in mean"):
        model = converter.from_torch(module, (X,))
    np.testing.assert_allclose(converter.session(model).run({"x": X.numpy()})["output"], Running()(X).numpy(), rtol=1e-6)


def test_state_that_grows_and_names_that_are_taken() -> None:
    torch.manual_seed(0)
    module = Growing().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", converter.ConversionWarning)
        model = converter.from_torch(module, (X,), {"shift": X[0]}, state="explicit", dims={"state": ["rows", 3]})
    assert [port.name for port in model.graph.inputs] == ["state", "state_.cache", "more.shift"]
    assert [port.name for port in model.graph.outputs] == ["output_0", "output_1", "next_state.cache"]
    cache = model.examples[0].inputs["state_.cache"]
    for rows in (X, X[:1], X.repeat(2, 1)):
        with torch.no_grad():
            wanted = module(rows, shift=X[0])[0]
        for runtime in RUNTIMES:
            found = converter.session(model, runtime).run({"state": rows.numpy(), "more.shift": X[0].numpy(), "state_.cache": cache})
            np.testing.assert_allclose(found["output_0"], wanted.numpy(), rtol=1e-5, atol=1e-5)
        cache = found["next_state.cache"]
    assert len(cache) == 2 + 4 + 1 + 8


class NotZeros(FirstCall):
    """The first call is another computation than one on zeros."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, self.hidden = self.hidden is None, x.sum(0) if self.hidden is None else self.hidden + 1
        return x * 2 if first else x + self.hidden


@pytest.mark.parametrize(("build", "part"), [
    (History, "another structure after a call"), (InObject, "not in tensors|outside of the module|another structure"),
    (NotZeros, "not there before the first call"),
])
def test_state_that_cannot_be_explicit_is_refused(build: Callable[[], nn.Module], part: str) -> None:
    module = build()
    before = picture(module)
    with pytest.raises(converter.UnsupportedError, match=part):
        converter.from_torch(module, (X,), state="explicit")
    assert picture(module) == before


def test_no_state_and_no_such_way() -> None:
    model = converter.from_torch(nn.Linear(3, 2), (X,), state="explicit")
    assert len(model.graph.inputs) == 1
    assert any("keeps no state" in note for note in model.metadata["notes"])
    with pytest.raises(converter.ConverterError, match="'initial' or 'explicit'"):
        converter.from_torch(nn.Linear(3, 2), (X,), state="other")


def test_state_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
                              "        self.register_buffer('count', torch.zeros(()))\n        self.last = torch.ones(3)\n"
                              "    def forward(self, x):\n        self.count += 1\n        y = x * self.count + self.last\n"
                              "        self.last = y[-1]\n        return y\n")
    module = ["--module", "net.py:Net", "--input", "x:float32[batch,3]"]
    runner = CliRunner()
    said = runner.invoke(cli, ["torch-to-json", *module, "-o", "initial.json"])
    assert said.exit_code == 0, said.output
    assert "forward keeps state in last, count" in said.stderr
    assert runner.invoke(cli, ["verify", "initial.json"]).exit_code == 0
    assert runner.invoke(cli, ["torch-to-json", *module, "--state", "explicit", "-o", "explicit.json"]).exit_code == 0
    assert converter.load("explicit.json").metadata["state"] == {"state.count": "next_state.count", "state.last": "next_state.last"}
    assert runner.invoke(cli, ["verify", "explicit.json"]).exit_code == 0
    judged = runner.invoke(cli, ["verify", "explicit.json", *module, "--state", "explicit"])
    assert judged.exit_code == 0, judged.output


class Normalized(nn.Module):
    """Statistics of the batch, kept without a count of the batches."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.norm.num_batches_tracked = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.norm.train()
        found: torch.Tensor = self.norm(x)
        return found


def test_running_statistics_are_state_though_no_operator_is_in_place() -> None:
    x = torch.randn(4, 3, 5)
    module = Normalized(nn.BatchNorm1d(3))
    model = converter.from_torch(module, (x,), state="explicit")
    found = converter.session(model).run({"x": x.numpy(), "state.norm.running_mean": np.zeros(3, np.float32),
                                          "state.norm.running_var": np.ones(3, np.float32)})
    np.testing.assert_allclose(found["next_state.norm.running_mean"], 0.1 * x.mean((0, 2)).numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["next_state.norm.running_var"], 0.9 + 0.1 * x.var((0, 2)).numpy(), rtol=1e-5)
    with pytest.raises(UnsupportedError, match="running statistics"):
        converter.from_torch(Normalized(nn.InstanceNorm1d(3, track_running_stats=True)), (x,), state="explicit")
