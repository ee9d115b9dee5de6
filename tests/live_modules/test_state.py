"""Converting changes nothing of a module, training changes nothing of a model, and state is said."""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import converter
from adapters.torch.live import convert
from adapters.torch.tracing.trace import trace
from tests.live_modules.stateful_modules import RUNTIMES, STATEFUL, Attribute, Constrained, X, picture


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


def test_the_exported_program_of_a_trace_runs_by_itself_with_its_own_parameters() -> None:
    module = nn.Linear(3, 2)
    wanted = module(X).detach()
    program = trace(module, (X,)).exported
    in_place(module)
    torch.testing.assert_close(program.module()(input=X).detach(), wanted)


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
