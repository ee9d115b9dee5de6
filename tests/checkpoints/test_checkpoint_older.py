"""Checkpoints of before PyTorch 1.6, and TorchScript archives: what torch gives for them, bit for bit, without torch."""

from __future__ import annotations

import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapters.torch_files.legacy import MAGIC
from adapters.torch_files.read import load_checkpoint
from converter.checkpoint import load_parameters
from converter.errors import ConverterError, FormatError, UnsupportedError
from tests.checkpoints.test_checkpoint_reader import DTYPES, bits, line, same_as_torch, without_torch  # noqa: F401

# Before 1.6 ---------------------------------------------------------------------------------------------------------------


OLD = [dtype for dtype in DTYPES if dtype not in (torch.uint16, torch.uint32, torch.uint64) and "float8" not in str(dtype)]
"""The others' storages have no class of their own, and torch itself does not read them from this kind of file."""


def save_old(content: Any, path: Path, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_and_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    generator = torch.Generator().manual_seed(protocol)
    state: dict[str, Any] = {str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in OLD}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "odd": torch.ones(3, dtype=torch.uint8),
              "after": torch.randn(7, generator=generator)}
    state |= {f"parameter {index}": nn.Parameter(torch.full((2,), float(index))) for index in range(300)}
    same_as_torch(save_old(state, tmp_path / "w.pt", protocol))


def test_views_and_shared_storages(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = {"all": base, "rows": base.view(4, 6)[1:3], "turned": base.view(4, 6).t(), "third": base[1::3], "tied": base,
             "same": base.view(4, 6)[1:3], "wide": torch.ones(1).expand(5), "conj": torch.randn(3, dtype=torch.complex64).conj()}
    store = same_as_torch(save_old(state, tmp_path / "w.pt"))
    assert store.alias_of("tied") == "all"
    assert store.alias_of("same") == "rows"


def test_a_training_run(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    save_old({"epoch": 3, "path": Path("x"), "state_dict": module.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "w.pth")
    store = load_checkpoint(tmp_path / "w.pth")
    assert store.key == "state_dict"
    assert {name: store.read(name).tobytes() for name in store} == {name: bits(value) for name, value in module.state_dict().items()}
    assert "PosixPath" in store.notes[0]


def pieces(*, elements: int = 6, keys: tuple[str, ...] = ("7",), held: int | None = None, view: Any = None, protocol: int = 1001,
           kind: bytes = b"FloatStorage", little: bool = True) -> bytes:
    """A file of a tensor [2, 3] in a storage, written by hand as PyTorch 0.4 did."""
    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def small(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text("7") + text("cpu") + small(elements) + small(view) + b"tQ"
    tensor = (b"ctorch._utils\n_rebuild_tensor\n(" + storage + small(0) + small((2, 3)) + small((3, 1)) + b"tR")
    content = b"\x80\x02}" + text("w") + tensor + b"s."
    facts = pickle.dumps({"protocol_version": 1001, "little_endian": little, "type_sizes": {"int": 4}}, 2)
    data = struct.pack("<q", elements if held is None else held) + struct.pack(f"<{elements}f", *range(elements))
    return b"\x80\x02" + MAGIC + pickle.dumps(protocol, 2) + facts + content + pickle.dumps(list(keys), 2) + data


@pytest.mark.parametrize("little", [True, False])
def test_a_file_by_hand_and_the_views_of_before_0_4(tmp_path: Path, little: bool) -> None:
    (tmp_path / "w.pt").write_bytes(pieces(little=little))
    assert same_as_torch(tmp_path / "w.pt").read("w").tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "w.pt").write_bytes(pieces(elements=9, view=("8", 2, 6), little=little))
    assert same_as_torch(tmp_path / "w.pt").read("w").tolist() == [[2, 3, 4], [5, 6, 7]]


@pytest.mark.parametrize(("data", "part"), [
    (pieces(keys=()), "a storage is missing"),
    (pieces(keys=("7", "7")), "holds a storage twice"),
    (pieces(keys=("7", "8")), "does not tell of"),
    (pieces(held=5), "another length"),
    (pieces(elements=5), "past the end of its storage"),
    (pieces(elements=7, view=("8", 2, 6)), "past the end of its storage"),
    (pieces(elements=7, view=("8", -1, 6)), "a view of a storage that is none"),
    (pieces(protocol=1002), "unknown protocol"),
    (pieces(kind=b"OtherStorage"), "does not tell of|Python objects"),
    (pieces()[:-1], "cut short"),
])
def test_what_does_not_hold_together_is_refused(tmp_path: Path, data: bytes, part: str) -> None:
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(FormatError, match=part):
        load_checkpoint(tmp_path / "w.pt")


def test_every_truncation_is_refused_with_a_reason(tmp_path: Path) -> None:
    data = save_old({"a": torch.arange(5.0), "b": torch.ones(3, dtype=torch.int16)}, tmp_path / "w.pt").read_bytes()
    for length in range(1, len(data)):
        (tmp_path / "w.pt").write_bytes(data[:length])
        with pytest.raises(FormatError):
            load_checkpoint(tmp_path / "w.pt")


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    content = save_old({"state_dict": {"a": torch.arange(5.0), "b": torch.ones(3)}, "p": Path("x")}, tmp_path / "w.pt").read_bytes()
    generator, refused = random.Random(1), 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 3)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / "d.pt").write_bytes(damaged)
        try:
            store = load_parameters(tmp_path / "d.pt")
            for name in store:
                store.read(name)
        except ConverterError:
            refused += 1
    assert refused > 200


def test_conversions_where_torch_was_never_installed(line: Path) -> None:  # noqa: F811
    save_old({"fc.weight": torch.arange(6.0).reshape(3, 2).t(), "fc.bias": torch.tensor([0.5, -0.5])}, line / "old.pt")
    assert "2 tensors" in without_torch(line, "torch-to-json", "old.pt", "-o", "m.json", "--architecture", "graph.json")
    without_torch(line, "torch-to-safetensors", "old.pt", "-o", "w.safetensors")
    assert load_parameters(line / "w.safetensors").read("fc.weight").tolist() == [[0, 2, 4], [1, 3, 5]]


# TorchScript --------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Tied layers, a buffer that is not persistent, a tensor that is neither parameter nor buffer, layers in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3).half().float()])
        self.norm = nn.BatchNorm1d(3)
        self.again = self.layers[0]
        self.other = torch.ones(3)
        self.register_buffer("table", torch.arange(4))
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.again(self.norm(x)) + self.other + self.table.sum() * self.scale


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_the_state_dict_of_a_torchscript_archive(tmp_path: Path, how: str) -> None:
    module = Net().eval()
    made = torch.jit.script(module) if how == "script" else torch.jit.trace(module, torch.ones(2, 3))  # type: ignore[no-untyped-call]
    made.save(str(tmp_path / "s.pt"))
    store, expected = load_checkpoint(tmp_path / "s.pt"), made.state_dict()
    assert store.names() == tuple(expected)
    assert {name: store.read(name).tobytes() for name in store} == {name: bits(value) for name, value in expected.items()}
    assert store.alias_of("again.weight") == "layers.0.weight"
    assert "__torch__" in store.notes[0]
    assert "Net" in store.notes[0]
    with pytest.raises(FormatError, match="leave the key out"):
        load_checkpoint(tmp_path / "s.pt", "model")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_recurrent_layers_of_an_archive(tmp_path: Path) -> None:
    """They keep lists of their tensors beside them, which functions of TorchScript's pickles make."""
    made = torch.jit.script(nn.Sequential(nn.GRU(3, 3)))
    made.save(str(tmp_path / "s.pt"))  # type: ignore[no-untyped-call]
    assert load_checkpoint(tmp_path / "s.pt").names() == tuple(made.state_dict())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_archives_whose_tensors_have_no_names(tmp_path: Path) -> None:
    torch.jit.freeze(torch.jit.script(Net().eval())).save(str(tmp_path / "f.pt"))  # type: ignore[no-untyped-call]
    with pytest.raises(FormatError, match="frozen"):
        load_checkpoint(tmp_path / "f.pt")


def test_packed_weights_are_refused_and_lists_of_objects_end(tmp_path: Path) -> None:
    def archive(pickled: bytes) -> Path:
        with zipfile.ZipFile(tmp_path / "q.pt", "w") as file:
            file.writestr("q/data.pkl", pickled)
            file.writestr("q/constants.pkl", b"\x80\x02).")
            file.writestr("q/code/__torch__.py", b"class M(Module):\n  __parameters__ = []\n", zipfile.ZIP_DEFLATED)
        return tmp_path / "q.pt"

    one = b"c__torch__\nM\n)\x81"
    with pytest.raises(UnsupportedError, match="packed"):
        load_checkpoint(archive(b"\x80\x02" + one + b"}X\x01\x00\x00\x00p" + one + b"X\x01\x00\x00\x00x\x85bsb."))
    # An object within itself.
    with pytest.raises(FormatError, match="too deep"):
        load_checkpoint(archive(b"\x80\x02" + one + b"q\x00}X\x01\x00\x00\x00ph\x00sb."))
