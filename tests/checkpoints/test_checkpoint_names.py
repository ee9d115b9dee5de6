"""What comes before the names in a checkpoint, and after the name of its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import converter
from converter.errors import ParameterError
from converter.format import save_graph

WANTED = {"0.weight", "0.bias"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with graph.json, for the state_dict of nn.Sequential(nn.Linear(3, 2))."""
    builder = converter.GraphBuilder("line")
    x = builder.input("x", "float32", ["batch", 3])
    weight, bias = builder.parameter("0.weight", "float32", [2, 3]), builder.parameter("0.bias", "float32", [2])
    builder.output("y", builder.op("linear", x, weight, bias))
    save_graph(builder.graph(), builder.parameters, tmp_path / "graph.json")
    return tmp_path


def state(prefix: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"{prefix}{name}": value for name, value in nn.Sequential(nn.Linear(3, 2)).state_dict().items()}


@pytest.mark.parametrize(("prefix", "said"), [
    ("", None), ("module.", ["module"]), ("_orig_mod.", ["_orig_mod"]), ("module._orig_mod.", ["module", "_orig_mod"]),
    ("model.", ["model"]), ("model.net.", ["model.net"]), ("_orig_mod.model.", ["_orig_mod", "model"]),
])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".pth.tar"])
def test_what_comes_before_every_name(folder: Path, prefix: str, said: list[str] | None, suffix: str) -> None:
    lightning = {"state_dict": state(prefix), "hyper_parameters": {"rate": 0.1}, "pytorch-lightning_version": "2.0", "epoch": 3,
                 "optimizer_states": [torch.optim.Adam(nn.Linear(2, 2).parameters()).state_dict()]}
    torch.save(lightning, folder / f"w{suffix}")
    for options in ({"architecture": folder / "graph.json"}, {"graphs": folder}):
        model = converter.from_checkpoint(folder / f"w{suffix}", **options)
        assert set(model.parameters.names()) == WANTED
        assert model.metadata["source"].get("wrappers") == said
        assert model.metadata["source"]["key"] == "state_dict"
        for name in WANTED:
            assert np.array_equal(model.parameters.read(name), state("")[name].numpy())


@pytest.mark.parametrize("names", [
    {"model.0.weight": "0.weight", "other.0.bias": "0.bias"},  # not the same before each
    {"model.0.weight": "0.weight", "0.bias": "0.bias"},        # one has its own name
    {"model.0.weight": "0.weight", "model.0.bias": "0.bias", "model.1.weight": "0.bias", "loss.weight": "0.bias"},
])
def test_names_that_do_not_become_the_graphs_stay(folder: Path, names: dict[str, str]) -> None:
    found = state("")
    torch.save({name: found[source] for name, source in names.items()}, folder / "w.pt")
    with pytest.raises(ParameterError, match=r"extra: '(model.0|1).weight'"):
        converter.from_checkpoint(folder / "w.pt", folder / "graph.json")
