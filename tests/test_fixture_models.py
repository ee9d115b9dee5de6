"""The trained fixtures: what was recorded is what the checkpoints give, and they are as good as they say."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch

from fixtures.models import FIXTURES, FOLDER, trained
from fixtures.tasks import TASKS
from fixtures.train import recorded, selected

NAMES = list(FIXTURES)
RECURRENT = ("elman", "lstm_classifier", "gru_classifier")
Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(name: str, module: torch.nn.Module, inputs: Arrays, dtype: torch.dtype = torch.float32) -> Arrays:
    """The module's outputs by name, computed in `dtype`."""
    args = [torch.from_numpy(inputs[key]) for key in FIXTURES[name].inputs]
    args = [arg.to(dtype) if arg.is_floating_point() else arg for arg in args]
    with torch.no_grad():
        outputs = FIXTURES[name].named(copy.deepcopy(module).to(dtype)(*args))
    return {key: value.numpy() for key, value in outputs.items()}


def beyond_budget(name: str, module: torch.nn.Module, inputs: Arrays, outputs: Arrays) -> list[str]:
    """The outputs that stray from float64 more than four times as far as PyTorch does now, or than 8 ulps."""
    now, truth = run(name, module, inputs), run(name, module, inputs, torch.float64)
    assert list(outputs) == list(truth) == list(FIXTURES[name].outputs)
    wrong = []
    for key, exact in truth.items():
        assert (outputs[key].shape, outputs[key].dtype) == (exact.shape, np.float32)
        floor = 2 * np.finfo(np.float32).eps * np.abs(exact).max()
        budget = 4 * max(np.abs(now[key] - exact).max(), floor)
        if not np.abs(outputs[key] - exact).max() <= budget:
            wrong.append(key)
    return wrong


def test_every_fixture_is_complete() -> None:
    assert list(FIXTURES) == list(TASKS)
    assert {path.parent.name for path in FOLDER.glob("*/checkpoint.pt")} == set(FIXTURES)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_outputs_are_the_checkpoints(name: str) -> None:
    samples = recorded(name)
    assert len(samples) >= 2
    module = trained(name)
    for inputs, outputs in samples:
        assert beyond_budget(name, module, inputs, outputs) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_weight_is_outside_the_budget(name: str) -> None:
    module = trained(name)
    with torch.no_grad():
        parameter = list(module.parameters())[-1]
        parameter += torch.linspace(1e-3, 2e-3, parameter.numel()).reshape(parameter.shape)
    inputs, outputs = recorded(name)[0]
    assert beyond_budget(name, module, inputs, outputs)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_shapes_follow_the_declared_sizes(name: str) -> None:
    fixture = FIXTURES[name]
    bound: dict[str, set[int]] = {symbol: set() for symbol in fixture.dims}
    for inputs, outputs in recorded(name):
        sizes: dict[str, int] = {}
        assert list(inputs) == list(fixture.inputs)
        for key, declared in fixture.inputs.items():
            assert inputs[key].dtype == declared.dtype
            assert declared.high is None or 0 <= inputs[key].min() <= inputs[key].max() < declared.high
        shapes = {key: value.shape for key, value in fixture.inputs.items()} | dict(fixture.outputs)
        for key, array in (inputs | outputs).items():
            assert array.ndim == len(shapes[key])
            for size, declared_size in zip(array.shape, shapes[key], strict=True):
                if isinstance(declared_size, int):
                    assert size == declared_size
                else:
                    assert sizes.setdefault(declared_size, size) == size
        for symbol, size in sizes.items():
            least, most = fixture.dims[symbol]
            assert least <= size <= (most or size)
            bound[symbol].add(size)
    assert all(len(sizes) >= 2 for sizes in bound.values()), "each size is recorded at two values or more"


@pytest.mark.parametrize("name", NAMES)
def test_the_trained_metric_holds(name: str) -> None:
    written = json.loads((FOLDER / name / "training.json").read_text(encoding="utf-8"))
    task = TASKS[name]
    torch.manual_seed(0)
    with torch.no_grad():
        metric, untrained = task.evaluate(trained(name)), task.evaluate(FIXTURES[name].build().eval())
    # One near tie may fall the other way on another processor.
    assert metric == pytest.approx(written["value"], abs=0.003)
    assert task.reached(metric)
    assert not task.reached(untrained)
    assert {key: written.get(key) for key in ("at_least", "at_most")} == {
        "at_least": task.at_least, "at_most": task.at_most}


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_small_and_nothing_but_tensors(name: str) -> None:
    path = FOLDER / name / "checkpoint.pt"
    assert path.stat().st_size < (20_000 if name == "elman" else 100_000)
    state = torch.load(path, weights_only=True)
    assert all(isinstance(value, torch.Tensor) and value.isfinite().all() for value in state.values())


def test_the_language_models_checkpoint_ties_its_weights() -> None:
    state = torch.load(FOLDER / "tied_lm" / "checkpoint.pt", weights_only=True)
    assert state["output.weight"].data_ptr() == state["embedding.weight"].data_ptr()
    module = trained("tied_lm")
    assert module.output.weight is module.embedding.weight


def test_padding_changes_nothing() -> None:
    module, (inputs, _) = trained("triplet"), recorded("triplet")[1]
    longer = {"tokens": np.pad(inputs["tokens"], ((0, 0), (0, 4)))}
    for key, value in run("triplet", module, inputs).items():
        np.testing.assert_allclose(run("triplet", module, longer)[key], value, rtol=0, atol=1e-6)


def test_a_sentence_of_padding_is_finite() -> None:
    outputs = run("triplet", trained("triplet"), {"tokens": np.zeros((2, 3), np.int64)})
    assert all(np.isfinite(value).all() for value in outputs.values())


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_torch_export_keeps_the_declared_sizes(name: str) -> None:
    """One export runs every recorded size. torch.export freezes the time of nn.RNN, nn.LSTM and nn.GRU: not theirs."""
    fixture, samples = FIXTURES[name], recorded(name)
    free = set(fixture.dims) - ({"time"} if name in RECURRENT else set())
    shapes = tuple({axis: torch.export.Dim.AUTO for axis, size in enumerate(value.shape) if size in free}
                   for value in fixture.inputs.values())
    args = tuple(torch.from_numpy(samples[0][0][key]) for key in fixture.inputs)
    module = trained(name)
    exported = torch.export.export(module, args, dynamic_shapes=shapes, strict=False)
    assert len(exported.range_constraints) == len(free)
    program = exported.module()
    frozen = args[0].shape[1] if name in RECURRENT else None
    for inputs, _ in samples:
        tensors = [torch.from_numpy(inputs[key]) for key in fixture.inputs]
        if frozen is not None:
            tensors = [tensors[0].repeat_interleave(frozen, 1)[:, :frozen]]
        with torch.no_grad():
            ours, theirs = fixture.named(module(*tensors)), fixture.named(program(*tensors))
        for key, value in ours.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-5, atol=1e-5)


def made_up(name: str, sizes: dict[str, int]) -> Arrays:
    """Seeded inputs of the given sizes."""
    generator = np.random.default_rng(7)
    inputs: Arrays = {}
    for key, value in FIXTURES[name].inputs.items():
        shape = [size if isinstance(size, int) else sizes[size] for size in value.shape]
        inputs[key] = (generator.random(shape, np.float32) if value.high is None
                       else generator.integers(value.high, size=shape))
    return inputs


@pytest.mark.parametrize("name", NAMES)
def test_the_ends_of_each_range_run(name: str) -> None:
    fixture, module = FIXTURES[name], trained(name)
    for sizes in ({symbol: least for symbol, (least, _) in fixture.dims.items()},
                  {symbol: most or 70 for symbol, (_, most) in fixture.dims.items()}):
        outputs = run(name, module, made_up(name, sizes))
        for key, shape in fixture.outputs.items():
            assert outputs[key].shape == tuple(size if isinstance(size, int) else sizes[size] for size in shape)
            assert np.isfinite(outputs[key]).all()


@pytest.mark.parametrize(("name", "sizes"), [
    ("conv_digits", {"batch": 2, "height": 1, "width": 8}), ("conv_digits", {"batch": 2, "height": 8, "width": 1}),
    ("tied_lm", {"batch": 2, "time": 65})])
def test_just_outside_a_range_does_not_run(name: str, sizes: dict[str, int]) -> None:
    with pytest.raises(RuntimeError):
        run(name, trained(name), made_up(name, sizes))


def test_a_name_that_is_no_fixture_is_refused() -> None:
    assert selected(["elman"]) == ["elman"]
    assert selected([]) == NAMES
    with pytest.raises(SystemExit, match="no fixture is called elmo"):
        selected(["elmo"])
