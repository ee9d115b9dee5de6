"""Tiny random models of transformers, saved as folders, and the comparison of their graphs with the modules themselves."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import converter
from converter import reference
from converter.ir import Model

if importlib.util.find_spec("torchvision") is not None:
    # transformers imports it where it is there.
    from tests import support_torchvision

    support_torchvision.models()
transformers = pytest.importorskip("transformers")

Arrays = dict[str, np.ndarray[Any, Any]]
RELATIVE = 1e-9
RENAMED = {"lm_head.weight": "embed_out.weight"}


class InFloat64(TorchFunctionMode):
    """Runs code with every float32 that it names taken as float64, as the reference does with `float_dtype="float64"`."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.float:
            return args[0].double()
        args = tuple(torch.float64 if item is torch.float32 else item for item in args)
        kwargs = {name: torch.float64 if item is torch.float32 else item for name, item in (kwargs or {}).items()}
        return function(*args, **kwargs)


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter and statistic drawn, so that norms' weights and biases and all else tell a wrong term; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (0.1 if parameter.ndim == 1 else 0))
        for name, value in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return module.eval()


def save(module: Any, folder: Path, **changes: Any) -> Path:
    """The module as transformers saves it; `changes` overwrite fields of config.json, None removes one."""
    module.save_pretrained(folder)
    change_config(folder, **changes)
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    """Overwrites fields of config.json; None removes one."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for name, value in changes.items():
        config[name] = value
        if value is None:
            del config[name]
    file.write_text(json.dumps(config))


def angles_in_float64(places: int, size: int) -> torch.Tensor:
    """Sines and cosines of the float32 frequencies, [places, size]."""
    frequencies = 1.0 / (10000 ** (torch.arange(0, size, 2, dtype=torch.int64) / size))
    angles = torch.arange(places, dtype=torch.float64)[:, None] * frequencies.double()
    return torch.cat((angles.sin(), angles.cos()), dim=1)


@contextmanager
def in_float64(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The module with float64 parameters and arithmetic; as it was afterwards."""
    state = {name: value.clone() for name, value in module.state_dict().items()}
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    module.double()
    for part in module.modules():
        # GPT-J's and CodeGen's positions are tables of sines and cosines, rounded to float32.
        if isinstance(getattr(part, "embed_positions", None), torch.Tensor):
            part.embed_positions = angles_in_float64(*part.embed_positions.shape)
        # Conformers' too: sines and cosines in turn, from the last position to the first.
        if hasattr(part, "extend_pe"):
            count = part.pe.shape[1]
            steps = torch.exp(torch.arange(0, part.d_model, 2, dtype=torch.float32) * -(math.log(10000.0) / part.d_model)).double()
            angles = torch.arange(count // 2, -count // 2, -1, dtype=torch.float64)[:, None] * steps
            part.pe = torch.stack((angles.sin(), angles.cos()), dim=2).reshape(1, count, -1)
    try:
        with torch.no_grad(), InFloat64():
            yield module
    finally:
        module.float()
        module.load_state_dict(state)
        for name, value in module.named_buffers():
            value.copy_(buffers[name])


def run_module(module: torch.nn.Module, inputs: Mapping[str, Any], names: tuple[str, ...]) -> Arrays:
    """The module's outputs of these names, in float64. Inputs are arrays, or what else its forward takes."""
    given = {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in inputs.items()}
    floats = {name for name, value in given.items() if isinstance(value, torch.Tensor) and value.is_floating_point()}
    given = {name: value.double() if name in floats else value for name, value in given.items()}
    with in_float64(module):
        found = module(**given)
    return {name: getattr(found, name).numpy() for name in names}


def close(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], what: str) -> None:
    """Equal to `RELATIVE` of the largest number."""
    assert ours.shape == theirs.shape, what
    assert np.isfinite(theirs).all(), what
    scale = max(float(np.abs(theirs).max()), 1e-6)
    assert scale > 1e-3, f"{what}: nothing but zeros to compare"
    error = float(np.abs(ours - theirs).max()) / scale
    assert error < RELATIVE, f"{what}: {error:.2e}"


def tokens(batch: int, time: int, vocabulary: int, *, padding: str = "none", pad: int = 0, seed: int = 0) -> Arrays:
    """Word numbers and a mask, [batch, time]: padding at the "left" or "right", more of it in later rows."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(min(3, vocabulary - 1), vocabulary, (batch, time))
    mask = np.ones_like(ids)
    if padding != "none":
        for row in range(batch):
            count = min(row + (batch == 1), time - 1)
            where = slice(0, count) if padding == "left" else slice(time - count, time)
            ids[row, where], mask[row, where] = pad, 0
    return {"input_ids": ids, "attention_mask": mask}


def same_tensors(model: Model, folder: Path) -> None:
    """The model has the tensors of the file, and no others beside its constants, bit for bit."""
    from safetensors.numpy import load_file

    held = load_file(folder / "model.safetensors")
    assert set(held) == {name for name in model.parameters.names() if model.parameters.alias_of(name) is None} - model.constants
    for name, values in held.items():
        assert model.parameters.read(name).tobytes() == values.tobytes(), name


def same_parameters(model: Model, module: torch.nn.Module, folder: Path, *, renamed: bool = False) -> None:
    """Every tensor of the file is in the model, under its name, bit for bit. `renamed`: the module's own names are others."""
    from safetensors.numpy import load_file

    held = load_file(folder / "model.safetensors")
    assert set(held) <= set(model.parameters.names())
    for name, values in held.items():
        assert model.parameters.read(name).tobytes() == values.tobytes(), name
    if renamed:
        return
    # The names of the module's state_dict, tied ones too, but for those that the library renames as it saves.
    state = module.state_dict()
    kept = set(model.parameters.names()) - model.constants
    assert len(kept) == len(state)
    assert kept - set(held) <= set(state)
    assert set(state) - kept <= set(RENAMED)
    for name in set(state):
        assert np.array_equal(model.parameters.read(name if name in kept else RENAMED[name]), state[name].numpy()), name


def compare(model: Model, module: torch.nn.Module, inputs: Arrays, *, what: str = "", seen_only: bool = False,
            extra: Mapping[str, Any] | None = None) -> None:
    """All outputs of the graph against the module's, in float64. `seen_only`: only at words that the mask keeps."""
    ours = reference.run(model, inputs, float_dtype="float64")
    theirs = run_module(module, {**inputs, **(extra or {})}, tuple(ours))
    for name, value in ours.items():
        expected = theirs[name]
        if seen_only and value.ndim >= 2 and value.shape[:2] == inputs["attention_mask"].shape:
            keep = inputs["attention_mask"].astype(bool)
            value, expected = value[keep], expected[keep]
        close(value, expected, f"{what} {name} {inputs['input_ids'].shape if 'input_ids' in inputs else ''}")


def from_folder(folder: Path, **options: Any) -> Model:
    return converter.from_checkpoint(folder, **options)


def forget(folder: Path, *fields: str) -> None:
    """Leaves fields out of config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if name not in fields}))
