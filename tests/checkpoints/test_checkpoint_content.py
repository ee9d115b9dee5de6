"""What lies beside and among the tensors of a checkpoint: which dict is the state_dict, what is left alone, what is refused."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import enum
import functools
import io
import pathlib
import random
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adapters.torch_files.read import load_checkpoint
from converter.errors import FormatError, UnsafePickleError
from converter.state_dict import SeveralStateDicts

STATE = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.ones(2)}


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int = 1


class Settings(dict[str, Any]):
    """Runs code when it is unpickled."""

    ran = False

    def __setstate__(self, state: Any) -> None:
        Settings.ran = True

    def __reduce__(self) -> Any:
        return Settings, (), {"a": 1}, None, iter({"b": 2}.items())


class Whole(nn.Module):
    pass


BESIDE = {
    "number": np.float32(0.5), "array": np.ones((2, 3)), "random": np.random.RandomState(0).get_state(), "version": torch.__version__,
    "path": pathlib.PurePosixPath("/data"), "date": datetime.datetime(2024, 1, 1), "enum": Colour.RED, "settings": Settings(),
    "deque": collections.deque([1], maxlen=3), "class": nn.ReLU, "slice": slice(0, 2), "partial": functools.partial(max, 1),
    "namespace": argparse.Namespace(path=pathlib.PurePosixPath("a"), kind=Colour.RED), "point": Point(), "module": nn.Linear(2, 2),
    "simple": types.SimpleNamespace(x=Point()), "python": random.getstate(), "function": torch.relu, "bytes": io.BytesIO(b"x"),
    "default": collections.defaultdict(list, a=[Point()]), "key": {Colour.RED: 1, np.int64(3): 2}, "complex": np.complex64(1j),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", list(BESIDE))
def test_objects_beside_the_state_dict_are_left_alone(tmp_path: Path, name: str, protocol: int) -> None:
    content = {"state_dict": STATE, "beside": {"thing": BESIDE[name]}, "last": [BESIDE[name]]}
    torch.save(content, tmp_path / "c.ckpt", pickle_protocol=protocol)
    Settings.ran = False
    for key in (None, "state_dict"):
        store = load_checkpoint(tmp_path / "c.ckpt", key)
        assert store.key == "state_dict"
        assert {found: store.read(found).tolist() for found in store} == {found: value.tolist() for found, value in STATE.items()}
        assert name in ("python", "array", "random") or any("left alone" in note for note in store.notes), store.notes
    assert not Settings.ran


@pytest.mark.parametrize(("content", "key"), [
    ({"state_dict": {**STATE, "state_dict": {"x": torch.ones(1)}}}, "state_dict"),
    ({"model": {**STATE, "0._extra_state": None}, "loss": {"class_weights": torch.ones(5)}}, "model"),
    ({"model": {**STATE, "0._extra_state": io.BytesIO(b"")}, "loss": {"class_weights": torch.ones(5)}}, "model"),
    ({"state_dict": {**STATE, "epoch": 3}}, "state_dict"),
    ({"state_dict": {**STATE, "epoch": np.int64(3), "version": torch.__version__}}, "state_dict"),
    ({**STATE, "_extra_state": None, "a._extra_state": None, "b._extra_state": None}, None),
    ({**STATE, "epoch": 3}, None),
    ({"mean": torch.ones(1), "std": torch.ones(1), "model": STATE}, "model"),
    ({"mean": torch.ones(1), "std": torch.ones(1), "config": {}, "model": {"weight": torch.ones(1)}}, "model"),
    ({"state_dict": {"encoder": STATE}, "loss": {"w": 3.0}}, "state_dict.encoder"),
    ((STATE, {"state": {}, "param_groups": []}), "0"),  # type: ignore[dict-item]
    ([{"epoch": 1}, {"model": STATE}], "1.model"),  # type: ignore[dict-item]
])
def test_which_dict_is_the_state_dict(tmp_path: Path, content: dict[str, Any], key: str | None) -> None:
    torch.save(content, tmp_path / "c.pt")
    store = load_checkpoint(tmp_path / "c.pt")
    assert store.key == key
    assert set(store) >= {"weight"} or set(store) == STATE.keys()


@pytest.mark.parametrize(("content", "where"), [
    ({"model": Whole(), "loss": {"class_weights": torch.ones(5)}}, "entry 'model'"),
    ({"state_dict": {**STATE, "1.weight": Settings()}}, "'1.weight'"),
    ({"state_dict": {**STATE, "1.weight": np.ma.ones(3)}}, "'1.weight'"),
    ({**STATE, "1.weight": Point()}, "'1.weight'"),
    ({"net": {1: torch.ones(2), "other": Point()}, "loss": {"w": torch.ones(2)}}, "entry 'net'"),
    (Whole(), "Whole"),
])
def test_objects_in_the_place_of_tensors_are_refused(tmp_path: Path, content: Any, where: str) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(UnsafePickleError, match=where) as caught:
        load_checkpoint(tmp_path / "c.pt")
    assert "--allow-pickle" in str(caught.value)


def test_no_other_dict_is_taken_in_its_place(tmp_path: Path) -> None:
    torch.save({"model": {1: torch.ones(2)}, "loss": {"class_weights": torch.ones(5)}}, tmp_path / "c.pt")
    with pytest.raises(FormatError, match="'model', where the state_dict would be") as caught:
        load_checkpoint(tmp_path / "c.pt")
    assert "--key loss" in str(caught.value)
    assert load_checkpoint(tmp_path / "c.pt", "loss").names() == ("class_weights",)


def test_no_part_is_taken_for_the_whole(tmp_path: Path) -> None:
    """A part that lies nearer than the others of the same entry."""
    deep = {"words": {"weight": torch.ones(4, 2)}}
    torch.save({"iteration": 1, "model": {"language_model": {"embedding": deep, "encoder": {"layers.0.w": torch.ones(2)}}},
                "optimizer": {"a": {"b": {"c": {"w": torch.ones(1)}}}}}, tmp_path / "c.pt")
    with pytest.raises(SeveralStateDicts, match=r"model\.language_model\.encoder, model\.language_model\.embedding\.words"):
        load_checkpoint(tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt", "model.language_model.encoder").names() == ("layers.0.w",)
    torch.save({"best": {"model": STATE, "callbacks": {"a": {"b": {"score": torch.ones(1)}}}}}, tmp_path / "b.pt")
    assert set(load_checkpoint(tmp_path / "b.pt").names()) == set(STATE)
    torch.save({"generator": STATE, "rest": {"a": {"b": {"c": {"w": torch.ones(1)}}}}}, tmp_path / "d.pt")
    assert set(load_checkpoint(tmp_path / "d.pt").names()) == set(STATE)


def test_packed_weights_are_not_left_out(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is going
        torch.save(torch.ao.quantization.quantize_dynamic(module, {nn.Linear}).state_dict(), tmp_path / "c.pt")
    with pytest.raises(FormatError, match=r"quantised and packed.*0\._packed_params\._packed_params.*--module"):
        load_checkpoint(tmp_path / "c.pt")


def test_keys_with_dots_are_tried_whole_first(tmp_path: Path) -> None:
    one, two, three = ({"w": torch.full((1,), float(value))} for value in (1, 2, 3))
    torch.save({"a.b": one, "a": {"b": two, "b.c": three}, "c": {"d": {"e": {"f.g": one}}}}, tmp_path / "c.pt")
    for key, value in (("a.b", 1), ("a.b.c", 3), ("c.d.e.f.g", 1)):
        assert load_checkpoint(tmp_path / "c.pt", key).read("w").tolist() == [value]
    with pytest.raises(SeveralStateDicts, match=r"--key a\.b"):
        load_checkpoint(tmp_path / "c.pt")
    with pytest.raises(FormatError, match=r"--key a\.b"):
        load_checkpoint(tmp_path / "c.pt", "a")
    with pytest.raises(FormatError, match=r"has no entry 'a\.x'"):
        load_checkpoint(tmp_path / "c.pt", "a.x")


@pytest.mark.parametrize(("beside", "told"), [
    ({"history": [torch.ones(2), torch.ones(3)]}, "history (2 tensors)"),
    ({"more": {"deep": [(torch.ones(1),)]}, "epoch": 3}, "more (1 tensor)"),
    ({"same": [STATE["0.bias"]] * 3}, "same (1 tensor)"),
])
def test_tensors_within_what_is_left_out_are_told(tmp_path: Path, beside: dict[str, Any], told: str) -> None:
    torch.save({**torch.nn.Linear(3, 2).state_dict(), **beside}, tmp_path / "w.pt")
    store = load_checkpoint(tmp_path / "w.pt")
    assert store.names() == ("weight", "bias")
    assert any(note == f"tensors are left out that lie in lists or dicts among these: {told}" for note in store.notes)


def test_what_holds_no_tensors_is_not_said_to(tmp_path: Path) -> None:
    torch.save({**torch.nn.Linear(3, 2).state_dict(), "epoch": 3, "names": ["a", "b"]}, tmp_path / "w.pt")
    assert load_checkpoint(tmp_path / "w.pt").notes == ("entries of the state_dict that are no tensors, left out: epoch, names",)
