"""Converting changes nothing of a module, training changes nothing of a model, and state is said."""

from __future__ import annotations

import random
import threading
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import converter
from adapters.torch.live import convert
from adapters.torch.state.kept import fingerprint
from converter.cli.main import cli

RUNTIMES = ("reference", "numpy", "onnxruntime", "torch")
X = torch.arange(12.0).reshape(4, 3) / 7


class Running(nn.Module):
    """A buffer that is written to in place, or given anew."""

    def __init__(self, in_place: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((3,), 2.0))
        self.in_place = in_place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.in_place:
            self.mean.mul_(0.5).add_(x.mean(0))
        else:
            self.mean = self.mean * 0.5 + x.mean(0)
        return x - self.mean


class Anew(Running):
    """The same with another buffer after each call."""

    def __init__(self) -> None:
        super().__init__(False)


class Streaming(nn.Module):
    """A causal convolution over chunks: the last two steps are kept for the next chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 2, 3)
        self.register_buffer("last", torch.zeros(1, 3, 2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = torch.cat([self.last, x.T[None]], 2)
        self.last.copy_(whole[..., -2:])
        return self.conv(whole)


class Attribute(nn.Module):
    """A recurrent layer whose state is a plain attribute of a part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Module()
        self.part.h = torch.ones(1, 4)
        self.rnn = nn.GRU(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, self.part.h = self.rnn(x, self.part.h)
        return y


class FirstCall(nn.Module):
    """State that is not there before the first call, a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.hidden = nn.LSTM(3, 4), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, self.hidden = self.rnn(x) if self.hidden is None else self.rnn(x, self.hidden)
        return y


class Counter(nn.Module):
    """A Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return x * self.steps


class History(nn.Module):
    """A list, a dict and a deque that grow."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.by_name, self.window = [torch.zeros(3)], {"n": 0}, deque([1.0], maxlen=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.mean(0))
        self.by_name["n"] += 1
        self.window.append(self.window[-1] * 2)
        return x + sum(self.seen) + self.by_name["n"] + sum(self.window)


class InPlace(nn.Module):
    """A plain attribute that is written to in place, at a place that a number tells."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.at = torch.zeros(4, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows[self.at] = x[0]
        self.at = (self.at + 1) % 4
        return x + self.rows.sum(0)


class Window(nn.Module):
    """The last means in a deque, and statistics that evaluation goes on with."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(3), deque([torch.zeros(3), torch.ones(3)], maxlen=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.norm.train()
        self.last.append(x.mean(0))
        return self.norm(x) + torch.stack(list(self.last)).sum(0)


class Holder:
    """State in an object of one's own, and in one of its class."""

    shared: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.total = torch.zeros(3)


class InObject(nn.Module):
    """State in an object that is no module."""

    calls: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.holder.total = self.holder.total + x.sum(0)
        self.calls.append(1)
        return x + self.holder.total + len(self.calls)


class Constrained(nn.Module):
    """A weight that is scaled before it is used, past torch's count of changes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        with torch.no_grad():
            self.linear.weight.mul_(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.linear.weight.data = torch.renorm(self.linear.weight.data, 2, 0, 1.0)
        return self.linear(x)


STATEFUL: list[tuple[Callable[[], nn.Module], tuple[str, ...]]] = [
    (Running, ("mean",)), (Anew, ("mean",)), (Streaming, ("last",)), (Attribute, ("part.h",)), (FirstCall, ("hidden",)),
    (Counter, ("steps",)), (History, ("seen", "by_name", "window")), (InObject, ("holder", "calls")),
    (InPlace, ("rows", "at")), (Window, ("norm.running_mean", "norm.running_var", "last")),
]


def picture(module: nn.Module) -> Any:
    """All that a module holds, for comparison, with what surrounds it."""
    parts = [(type(part), fingerprint({key: value for key, value in vars(part).items() if key != "_modules"}, 6))
             for part in module.modules()]
    flags = [(item.requires_grad, item.grad, id(item)) for item in [*module.parameters(), *module.buffers()]]
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    switches = (torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled(), torch.are_deterministic_algorithms_enabled(),
                torch.is_grad_enabled(), InObject.calls, Holder.shared)
    states = (torch.get_rng_state().tolist(), str(np.random.get_state()), str(random.getstate()))
    return parts, flags, hooks, [repr(item) for item in switches], states, module.state_dict().keys()


@pytest.mark.parametrize(("build", "names"), STATEFUL, ids=[build.__name__ for build, _ in STATEFUL])
def test_state_is_said_and_every_run_starts_from_it(build: Callable[[], nn.Module], names: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    module = build().train()
    before = picture(module)
    with pytest.warns(converter.ConversionWarning, match="forward keeps state") as caught:
        model = converter.from_torch(module, (X,))
    assert picture(module) == before
    assert all(name in str(caught[0].message) for name in names)
    assert caught[0].filename == __file__
    assert any(all(name in note for name in names) for note in model.metadata["notes"])
    assert len(model.examples) > 1 or build is Attribute or all(isinstance(size, int) for size in model.graph.inputs[0].spec.shape)
    assert converter.verify(model, runtimes=RUNTIMES)
    with torch.no_grad():
        wanted = module.eval()(X).numpy()
        module(X)  # the module goes on living
    for runtime in RUNTIMES:
        session = converter.session(model, runtime)
        for _ in range(2):
            found = next(iter(session.run({"x": X.numpy()}).values()))
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


class Looking(nn.Module):
    """What is kept to be looked at, or made once, is no state."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.attention, self.mask = nn.Linear(3, 3), None, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mask is None:
            self.mask = torch.tensor([0.0, 0.0, 1.0])
        self.attention = self.linear(x).softmax(-1)
        self.shape = tuple(x.shape)
        return self.attention * self.mask


def test_records_are_no_state() -> None:
    module = Looking()
    before = picture(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error", converter.ConversionWarning)
        model = converter.from_torch(module, (X,))
    assert picture(module) == before
    assert any("attention" in note and "mask" in note for note in model.metadata["notes"])
    assert converter.verify(model, runtimes=RUNTIMES)


def training_step(module: nn.Linear) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=0.5, foreach=True)
    module(X).square().sum().backward()
    optimizer.step()


def in_place(module: nn.Linear) -> None:
    with torch.no_grad():
        module.weight.add_(1.0)


def by_data(module: nn.Linear) -> None:
    module.weight.data.mul_(3.0)


def by_numpy(module: nn.Linear) -> None:
    module.weight.detach().numpy()[...] += 2


def loaded(module: nn.Linear) -> None:
    module.load_state_dict({name: value + 1 for name, value in module.state_dict().items()})


def foreach(module: nn.Linear) -> None:
    with torch.no_grad():
        torch._foreach_add_(list(module.parameters()), 1.0)


@pytest.mark.parametrize("change", [training_step, in_place, by_data, by_numpy, loaded, foreach])
def test_training_on_changes_nothing_of_the_model(change: Callable[[nn.Linear], None]) -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    result = convert(module, (X,))
    model = result.model
    opened = {runtime: converter.session(model, runtime) for runtime in RUNTIMES}
    wanted, digest = module(X).detach().numpy().copy(), converter.model_digest(model)
    change(module)
    assert not np.allclose(module(X).detach().numpy(), wanted)
    for runtime, session in opened.items():
        for one in (session, converter.session(model, runtime)):
            np.testing.assert_allclose(one.run({"input": X.numpy()})["output"], wanted, rtol=1e-6, atol=1e-6)
    assert converter.model_digest(model) == digest
    assert converter.verify(model, runtimes=["numpy"], source=result.source)


def test_constants_and_an_exported_program_are_copied_too() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.ones(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.shift

    module = Shifted()
    model = converter.from_torch(module, (X,))
    module.shift.add_(5)
    np.testing.assert_array_equal(converter.session(model).run({"x": X.numpy()})["output"], (X + 1).numpy())
    linear = nn.Linear(3, 2)
    program = torch.export.export(linear, (X,))
    code = str(program.graph)
    model = converter.from_torch(program)
    wanted = linear(X).detach().numpy()
    in_place(linear)
    np.testing.assert_allclose(converter.session(model).run({"input": X.numpy()})["output"], wanted, rtol=1e-6)
    assert str(program.graph) == code


class ConstrainedInPlace(Constrained):
    """The same in the weight's own memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.linear.weight.data.renorm_(2, 0, 1.0)
        return self.linear(x)


@pytest.mark.parametrize("build", [Constrained, ConstrainedInPlace])
def test_a_weight_changed_past_the_trace_is_refused_and_put_back(build: Callable[[], nn.Module]) -> None:
    module = build()
    before = picture(module)
    with pytest.raises(converter.UnsupportedError, match=r"linear\.weight through \.data"):
        converter.from_torch(module, (X,))
    assert picture(module) == before


def test_a_table_that_is_scaled_where_it_is_read_is_put_back() -> None:
    module = nn.Embedding(5, 3, max_norm=1.0)
    before, ids = picture(module), torch.tensor([0, 3, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", converter.ConversionWarning)
        model = converter.from_torch(module, (ids,))
    assert picture(module) == before
    assert converter.verify(model, runtimes=RUNTIMES)
    with torch.no_grad():
        wanted = module(ids).numpy()
    np.testing.assert_allclose(converter.session(model).run({"input": ids.numpy()})["output"], wanted, rtol=1e-6)


class Failing(nn.Module):
    """Changes what it can, and fails."""

    def __init__(self, flag: str = "") -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(3, 2), 0
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.count.add_(1)
        self.extra = x
        torch.rand(1), np.random.rand(), random.random()
        raise RuntimeError("never")


def test_a_module_that_cannot_be_converted_is_left_as_it_was() -> None:
    module = Failing()
    module.linear.weight.grad = torch.ones(2, 3)
    module.linear.bias.requires_grad_(False)
    module.register_forward_hook(lambda *_: None)
    functions = [torch.nn.functional.ctc_loss, torch.max_pool1d, torch.linalg.norm, torch.SymBool.__bool__, torch._VF.lstm]
    before = picture(module)
    with pytest.raises(converter.ConverterError):
        converter.from_torch(module, (X,))
    assert picture(module) == before
    assert functions == [torch.nn.functional.ctc_loss, torch.max_pool1d, torch.linalg.norm, torch.SymBool.__bool__, torch._VF.lstm]


def test_gradients_hooks_flags_and_random_states_stay() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    module(X).sum().backward()
    module[0].weight.requires_grad_(False)
    module[1].eval()
    module[3].register_forward_pre_hook(lambda *_: None)
    before, training = picture(module), [part.training for part in module.modules()]
    pending = module(X).sum()  # a graph for gradients that is still to be used
    before = picture(module)
    converter.from_torch(module, (X,))
    assert picture(module) == before
    assert [part.training for part in module.modules()] == training
    pending.backward()


def test_two_threads_convert_at_once() -> None:
    functions = [torch.nn.functional.ctc_loss, torch.max_pool1d, torch.linalg.norm, torch.SymBool.__bool__, torch._VF.lstm]
    found: dict[int, Any] = {}

    def one(index: int) -> None:
        torch.manual_seed(index)
        module = nn.Sequential(nn.Conv1d(3, 4, 2), nn.MaxPool1d(2), nn.Flatten(0)) if index % 2 else nn.LSTM(3, 4)
        try:
            found[index] = convert(module, (X.T[None] if index % 2 else X,), dims="static").model
        except BaseException as error:  # told below
            found[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(converter.verify(model, runtimes=["numpy"]) for model in found.values())
    assert functions == [torch.nn.functional.ctc_loss, torch.max_pool1d, torch.linalg.norm, torch.SymBool.__bool__, torch._VF.lstm]


# State as inputs and outputs --------------------------------------------------------------------------------------------------


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


# What the module's code reaches beside it ------------------------------------------------------------------------------------

SEEN: list[Any] = []
CALLS = 0


class Reaching(nn.Module):
    """State in a name of the file."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        global CALLS
        CALLS += 1
        SEEN.append(CALLS)
        return self.linear(x) * CALLS


def test_names_of_the_file_and_what_hooks_fill_are_put_back() -> None:
    module, features, count = Reaching(), {}, 0

    def keep(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        nonlocal count
        features["linear"], count = output, count + 1

    module.linear.register_forward_hook(keep)
    with pytest.warns(converter.ConversionWarning, match="CALLS"):
        model = converter.from_torch(module, (X,))
    assert (features, count, CALLS, SEEN) == ({}, 0, 0, [])
    assert converter.verify(model, runtimes=["numpy"])
