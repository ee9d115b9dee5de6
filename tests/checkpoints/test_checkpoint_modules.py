"""Whole modules, as `torch.save(model)` writes them: their state_dict is read, and their code does not run."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from adapters.torch_files.read import load_checkpoint
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, UnsafePickleError
from tests.checkpoints.test_checkpoint_reader_hostile import name, text, write

RAN: list[str] = []


class Odd(nn.Module):
    """Tied and shared layers, what is None, buffers of both kinds, lists and dicts of parameters, layers with hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.recurrent = nn.LSTM(4, 5)
        self.register_buffer("table", torch.arange(2), persistent=False)
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("nothing", None)
        self.tied = nn.Linear(3, 4, bias=False)
        self.tied.weight = self.layer.weight
        self.several = nn.ModuleList([nn.BatchNorm2d(2), self.layer])
        self.scale = nn.Parameter(torch.zeros(()))
        self.named = nn.ParameterDict({"x": nn.Parameter(torch.zeros(2))})
        self.gone: nn.Module | None = None
        self.register_module("none", None)
        self.plain = torch.ones(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.spectral = torch.nn.utils.spectral_norm(nn.Linear(2, 2))

    def __setstate__(self, state: dict[str, Any]) -> None:
        RAN.append("__setstate__")
        super().__setstate__(state)


class Run:
    """What a library for training keeps: a module among other things."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.schedule, self.losses = model, print, [0.5]


@pytest.mark.parametrize("options", [{}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}], ids=str)
@pytest.mark.parametrize(("wrap", "key"), [
    (lambda module: module, None), (lambda module: {"epoch": 3, "model": module, "optimizer": None}, "model"),
    (lambda module: [module, nn.CrossEntropyLoss()], "0"), (Run, "model"), (lambda module: {"last": {"run": Run(module)}}, None),
])
def test_names_order_ties_and_bits_are_the_state_dicts(tmp_path: Path, options: dict[str, Any], wrap: Callable[[Any], Any],
                                                       key: str | None) -> None:
    module = Odd()
    torch.save(wrap(module), tmp_path / "m.pt", **options)
    RAN.clear()
    store = load_checkpoint(tmp_path / "m.pt", "last.run.model" if key is None and wrap(0) != 0 else None)
    assert not RAN
    wanted = module.state_dict()
    assert list(store) == list(wanted)
    for tensor in wanted:
        assert store.read(tensor).tobytes() == wanted[tensor].numpy().tobytes(), tensor
    assert {item: store.alias_of(item) for item in store if store.alias_of(item)} == {
        "tied.weight": "layer.weight", "several.1.weight": "layer.weight", "several.1.bias": "layer.bias"}
    notes = " ".join(store.notes)
    for told in ("a whole module, tests.checkpoints.test_checkpoint_modules.Odd", "not persistent, left out: table",
                 "neither parameters nor buffers, left out: plain, spectral.weight", "did not run, left out: spectral._state_dict_hooks"):
        assert told in notes, notes
    assert key is None or store.key == key


def test_a_graph_of_torch_fx(tmp_path: Path) -> None:
    module = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    torch.save(module, tmp_path / "m.pt")
    assert list(load_checkpoint(tmp_path / "m.pt")) == ["0.weight", "0.bias"]


def test_a_state_dict_goes_before_modules_beside_it(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(1)}, "model": nn.Linear(1, 1)}, tmp_path / "m.pt")
    assert list(load_checkpoint(tmp_path / "m.pt")) == ["w"]
    torch.save({"model": nn.Linear(1, 1), "loss": {"w": torch.ones(1)}}, tmp_path / "m.pt")
    assert list(load_checkpoint(tmp_path / "m.pt")) == ["weight", "bias"]


@pytest.mark.parametrize("content", [
    {"model": Run(nn.ReLU()), "loss": {"w": torch.ones(1)}},  # no tensor is in it: what is looked for is hidden
    {"model": nn.ReLU(), "loss": nn.CrossEntropyLoss(torch.ones(2))}, nn.ReLU(),
])
def test_no_other_module_is_taken_in_its_place(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(UnsafePickleError, match="allow-pickle"):
        load_checkpoint(tmp_path / "m.pt")


def test_two_modules_are_not_chosen_from(tmp_path: Path) -> None:
    torch.save({"generator": nn.Linear(1, 1), "discriminator": nn.Linear(1, 2)}, tmp_path / "m.pt")
    with pytest.raises(FormatError, match="--key generator"):
        load_checkpoint(tmp_path / "m.pt")


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_a_module_hides_are_not_left_out(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv1d(2, 2, 1), torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear}))
    torch.save(module, tmp_path / "m.pt")
    with pytest.raises(UnsafePickleError, match=r"torch\.ScriptObject"):
        load_checkpoint(tmp_path / "m.pt")


def test_the_command_line_converts_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("one_layer.py").write_text("import torch\n\n\ndef build():\n    return torch.nn.Linear(3, 2)\n")
    module = nn.Linear(3, 2)
    torch.save({"model": module}, "m.pt")
    for arguments in (["inspect", "m.pt"], ["torch-to-safetensors", "m.pt", "-o", "w.safetensors"],
                      ["torch-to-json", "m.pt", "-o", "m.json", "--module", "one_layer:build", "--input", "input:float32[n,3]"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        assert "its code did not run" in result.output
    assert json.loads(Path("m.json").read_text())["parameters"].keys() == {"weight", "bias"}


# Hostile ------------------------------------------------------------------------------------------------------------------


def member(children: bytes, own: bytes = b"}") -> bytes:
    """An object whose attributes are a module's."""
    held = b"".join(text(key) + value + b"s" for key, value in (("_parameters", own), ("_buffers", b"}"), ("_modules", b"}" + children)))
    return name("gone", "Module") + b")\x81}" + held + b"b"


@pytest.mark.parametrize("pickle", [
    b"\x80\x02" + b"".join(member((text("a") + b"h" + bytes([at - 1]) + b"s" + text("b") + b"h" + bytes([at - 1]) + b"s") if at else b"")
                          + b"q" + bytes([at]) + b"0" for at in range(60)) + b"h\x3b.",  # 2^60 places of 60 objects
    b"\x80\x02" + member(b"")[:-1] + b"b" + b"q\x00" + b"}" + b"".join(
        text(key) + value + b"s" for key, value in (("_parameters", b"}"), ("_buffers", b"}"), ("_modules", b"}" + text("a") + b"h\x00s")))
    + b"b.",  # within itself
    b"\x80\x02" + text("x" * 400_000) + b"q\xff0" + b"".join(
        member((b"h\xffh" + bytes([at - 1]) + b"s") if at else b"") + b"q" + bytes([at]) + b"0" for at in range(199)) + b"h\xc6.",
], ids=["2^60 places", "within itself", "names of 80 MB"])
def test_modules_within_modules_are_bounded(tmp_path: Path, pickle: bytes) -> None:
    with pytest.raises(FormatError, match="lie too deep"):
        load_checkpoint(write(tmp_path / "m.pt", pickle))


@pytest.mark.parametrize("own", [
    b"}" + text("w") + b"Ns" + text("v") + b"K\x01s", b"}K\x01K\x02s", b"}" + text("w") + name("os", "x") + b")Rs",
])
def test_members_that_are_no_tensors(tmp_path: Path, own: bytes) -> None:
    with pytest.raises(ConverterError):
        load_checkpoint(write(tmp_path / "m.pt", b"\x80\x02" + member(b"", own) + b"."))
