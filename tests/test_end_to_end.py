"""Every fixture through every format and back by the commands a user types, and the faults that `verify` must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import converter
from converter.cli.main import cli
from converter.ir import Graph, Model
from converter.parameters import InMemoryParameters, as_bytes
from fixtures.models import FIXTURES, FOLDER


def convert(*arguments: str | Path) -> int:
    result = CliRunner().invoke(cli, [str(item) for item in arguments])
    assert result.exit_code in (0, 1), result.output
    return result.exit_code


def specs(name: str) -> list[str]:
    """`--input` texts of a fixture."""
    texts = []
    for key, value in FIXTURES[name].inputs.items():
        shape = ",".join(map(str, value.shape))
        texts += ["--input", f"{key}:{value.dtype}[{shape}]" + (f"{{0..{value.high - 1}}}" if value.high else "")]
    return texts


def same_bits(model: Model, state: dict[str, torch.Tensor]) -> None:
    assert set(model.parameters.names()) - model.constants == set(state)
    for name, tensor in state.items():
        values = model.parameters.read(name)
        assert values.dtype == tensor.numpy().dtype
        assert values.shape == tuple(tensor.shape)
        assert bytes(as_bytes(values)) == bytes(as_bytes(tensor.numpy()))


@pytest.mark.parametrize("name", FIXTURES)
def test_every_format_and_back(name: str, tmp_path: Path) -> None:
    checkpoint = FOLDER / name / "checkpoint.pt"
    first, second, again, onnx = (tmp_path / file for file in ("a.json", "a.h5", "b.json", "a.onnx"))
    assert convert("torch-to-json", checkpoint, "--module", f"fixtures.models:{name}", *specs(name), "-o", first) == 0
    assert convert("json-to-hdf5", first, "-o", second) == 0
    assert convert("hdf5-to-json", second, "--encoding", "base64", "-o", again) == 0
    assert convert("json-to-onnx", again, "-o", onnx) == 0
    assert convert("onnx-to-json", onnx, "-o", tmp_path / "c.json") == 0
    state = torch.load(checkpoint, weights_only=True)
    digests = set()
    for path in (first, second, again, onnx, tmp_path / "c.json"):
        model = converter.load(path)
        same_bits(model, state)
        digests.add(converter.model_digest(model))
    assert len(digests) == 1
    assert convert("verify", first, second, again, onnx) == 0
    assert convert("json-to-torch", again, "-o", tmp_path / "back.pt") == 0
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert list(back) == list(state)
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor)
        assert back[key].dtype == tensor.dtype


@pytest.mark.parametrize("name", FIXTURES)
def test_recorded_files_still_hold(name: str) -> None:
    """The files kept in the repository are the format's memory: they load, and prove themselves."""
    files = [FOLDER / name / "model.json", FOLDER / name / "model.h5"]
    models = [converter.load(path) for path in files]
    assert len({converter.model_digest(model) for model in models}) == 1
    assert all(model.examples for model in models)
    same_bits(models[0], torch.load(FOLDER / name / "checkpoint.pt", weights_only=True))
    assert convert("verify", *files) == 0


def arrays_of(model: Model) -> dict[str, np.ndarray]:
    return {name: model.parameters.read(name).copy() for name in model.parameters.names() if model.parameters.alias_of(name) is None}


def with_arrays(model: Model, arrays: dict[str, np.ndarray]) -> Model:
    aliases = {name: target for name in model.parameters.names() if (target := model.parameters.alias_of(name))}
    return model.with_parameters(InMemoryParameters({name: arrays[aliases.get(name, name)] for name in model.parameters.names()}, aliases))


def one_weight(model: Model) -> Model:
    arrays = arrays_of(model)
    name = next(name for name, array in arrays.items()
                if array.dtype == np.float32 and array.ndim == 2 and "weight" in name and "embed" not in name)
    arrays[name][1, 1] += np.float32(1e-3)
    return with_arrays(model, arrays)


def square_transposed(model: Model) -> Model:
    arrays = arrays_of(model)
    name = next(name for name, array in arrays.items() if array.ndim == 2 and array.shape[0] == array.shape[1])
    arrays[name] = np.ascontiguousarray(arrays[name].T)
    return with_arrays(model, arrays)


def not_a_number(model: Model) -> Model:
    arrays = arrays_of(model)
    name = next(name for name, array in arrays.items() if array.dtype == np.float32 and array.ndim == 2 and "embed" not in name)
    arrays[name][0, 0] = np.nan
    return with_arrays(model, arrays)


def rewired(change: Callable[[Graph], Graph]) -> Callable[[Model], Model]:
    return lambda model: replace(model, graph=change(model.graph))


def output_renamed(graph: Graph) -> Graph:
    return replace(graph, outputs=(replace(graph.outputs[0], name="other"), *graph.outputs[1:]))


def output_dropped(graph: Graph) -> Graph:
    return replace(graph, outputs=graph.outputs[1:])


FAULTS = {
    "one weight": ("elman", one_weight), "one weight of an LSTM": ("lstm_classifier", one_weight), "NaN": ("mlp_digits", not_a_number),
    "equal axes swapped": ("elman", square_transposed), "output dropped": ("triplet", rewired(output_dropped)),
    "output renamed": ("elman", rewired(output_renamed)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_verify_finds_the_fault(fault: str, tmp_path: Path) -> None:
    """Saved anew, so that every digest in the file is the faulty model's own; beside the honest file, and alone."""
    name, change = FAULTS[fault]
    honest = FOLDER / name / "model.json"
    bad = change(converter.load(honest))
    if fault.startswith("output"):
        bad = replace(bad, examples=())
    converter.save(bad, tmp_path / "bad.json")
    assert convert("verify", honest, tmp_path / "bad.json") == 1
    if not fault.startswith("output"):
        assert convert("verify", tmp_path / "bad.json") == 1
