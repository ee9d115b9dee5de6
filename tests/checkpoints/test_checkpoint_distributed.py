"""Distributed checkpoints without PyTorch: what torch's own reader gives, bit for bit, and a refusal for each way of being broken."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from click.testing import CliRunner
from torch import nn
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

import converter
from converter.checkpoint import checkpoint_files, load_parameters
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.format import save_graph

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")

Box = tuple[tuple[int, ...], tuple[int, ...]]


def grid(shape: Sequence[int], cuts: Sequence[Sequence[int]]) -> list[Box]:
    """The boxes that cuts along each axis make."""
    edges = [[0, *sorted(cut), size] for cut, size in zip(cuts, shape, strict=True)]
    spans = [list(itertools.pairwise(axis)) for axis in edges]
    return [(tuple(start for start, _ in box), tuple(end - start for start, end in box)) for box in itertools.product(*spans)]


def write(folder: Path, tensors: Mapping[str, tuple[torch.Tensor, Sequence[Box]]], *, paths: Any = None, files: int = 2,
          change: Callable[[Metadata], None] | None = None) -> None:
    """A distributed checkpoint, by torch's own classes, its chunks dealt out to several files."""
    folder.mkdir(parents=True, exist_ok=True)
    streams = [io.BytesIO() for _ in range(files)]
    turn = itertools.cycle(range(files))
    held: dict[str, Any] = {}
    places: dict[MetadataIndex, _StorageInfo] = {}
    for name, (tensor, boxes) in tensors.items():
        for offsets, sizes in boxes:
            number = next(turn)
            stream, start = streams[number], streams[number].tell()
            part = tensor[tuple(slice(first, first + count) for first, count in zip(offsets, sizes, strict=True))]
            torch.save(part.clone(), stream)
            places[MetadataIndex(name, offsets)] = _StorageInfo(f"__{number}_0.distcp", start, stream.tell() - start)
        held[name] = TensorStorageMetadata(TensorProperties.create_from_tensor(tensor), tensor.size(), [
            ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in boxes])
    metadata = Metadata(held, paths, places)
    if change is not None:
        change(metadata)
    for number, stream in enumerate(streams):
        (folder / f"__{number}_0.distcp").write_bytes(stream.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def same(folder: Path, expected: Mapping[str, torch.Tensor], key: str | None = None) -> None:
    store = load_parameters(folder, key)
    assert list(store.names()) == list(expected)
    for name, tensor in expected.items():
        values = store.read(name)
        assert str(store.spec(name).dtype) == str(tensor.dtype).removeprefix("torch.")
        assert values.shape == tuple(tensor.shape)
        assert not values.flags.writeable
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert values.tobytes() == raw == b"".join(bytes(piece) for piece in store.pieces(name)), name
        assert store.mapped(name).tobytes() == raw


STATE = {"a": torch.arange(24.0).reshape(4, 6), "b.half": torch.arange(7).to(torch.bfloat16), "b.scalar": torch.tensor(3),
         "empty": torch.zeros(0, 3), "bool": torch.tensor([True, False])}


def test_what_torch_writes_in_one_process(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    module(torch.ones(2, 4)).sum().backward()
    optimizer = torch.optim.Adam(module.parameters())
    optimizer.step()
    dcp.save({"model": module.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, "name": "x"}, checkpoint_id=tmp_path / "nested")
    same(tmp_path / "nested", module.state_dict())
    store = load_parameters(tmp_path / "nested")
    assert store.key == "model"
    dcp.save(STATE, checkpoint_id=tmp_path / "flat")
    same(tmp_path / "flat", STATE)
    dcp.save({"net": {"encoder": dict(STATE)}, "ema": {"encoder": dict(STATE)}}, checkpoint_id=tmp_path / "two")
    with pytest.raises(FormatError, match="several state_dicts"):
        load_parameters(tmp_path / "two")
    same(tmp_path / "two", STATE, "ema.encoder")


CUTS: dict[str, list[list[int]]] = {"rows": [[1, 3], [], []], "columns": [[], [2], []], "grid": [[2], [1, 4], [3]], "whole": [[], [], []]}


@pytest.mark.parametrize("cut", list(CUTS))
def test_chunks_are_put_together_as_torch_does_it(tmp_path: Path, cut: str) -> None:
    tensor = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
    pinwheel = [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 1), (1, 1))]
    state = {"model.w": tensor, "model.half": tensor[0].to(torch.float16), "model.wheel": torch.arange(9.0).reshape(3, 3)}
    write(tmp_path / "parts", {"model.w": (tensor, grid((4, 5, 6), CUTS[cut])),
                               "model.half": (state["model.half"], grid((5, 6), CUTS[cut][1:])),
                               "model.wheel": (state["model.wheel"], pinwheel)}, paths={name: tuple(name.split(".")) for name in state})
    dcp_to_torch_save(tmp_path / "parts", tmp_path / "w.pt")
    joined = torch.load(tmp_path / "w.pt")["model"]
    same(tmp_path / "parts", joined)
    assert all(torch.equal(joined[name.removeprefix("model.")], value) for name, value in state.items())


def test_the_command_line_takes_the_folder(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).reshape(4, 3)
    run = tmp_path / "epoch=1.ckpt"
    parts = {"model.weight": (tensor, grid((4, 3), [[2], []])), "model.bias": (torch.ones(4), [((0,), (4,))])}
    write(run / "pytorch_model_fsdp_0", parts, paths={name: tuple(name.split(".")) for name in parts})
    write(run / "optimizer_0", {"x": (tensor, [((0, 0), (4, 3))])})
    runner = CliRunner()
    shown = runner.invoke(cli, ["inspect", str(run)])
    assert shown.exit_code == 0, shown.output
    assert "distributed checkpoint" in shown.output
    graph = tmp_path / "graph.json"
    module = nn.Linear(3, 4)
    model = converter.from_torch(module, (torch.ones(2, 3),))
    save_graph(model.graph, {name: model.parameters.spec(name) for name in model.parameters.names()}, graph)
    done = runner.invoke(cli, ["torch-to-json", str(run), "--architecture", str(graph), "-o", str(tmp_path / "m.json")])
    assert done.exit_code == 0, done.output
    model = converter.load(tmp_path / "m.json")
    assert np.array_equal(model.parameters.read("weight"), tensor.numpy())
    assert len(model.metadata["source"]["files"]) == len(checkpoint_files(run)) == 3


def test_no_torch_is_needed(tmp_path: Path) -> None:
    write(tmp_path, {"w": (torch.arange(6.0), [((0,), (2,)), ((2,), (4,))])})
    code = ("import sys; sys.modules['torch'] = None; from converter.checkpoint import load_parameters as f; "
            f"print(f({str(tmp_path)!r}).read('w').tolist())")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]"


# What is refused ---------------------------------------------------------------------------------------------------------


def _chunks(metadata: Metadata) -> list[ChunkStorageMetadata]:
    found: Any = metadata.state_dict_metadata["w"]
    return found.chunks


def _info(metadata: Metadata, offset: int) -> _StorageInfo:
    return metadata.storage_data[MetadataIndex("w", (offset,))]


def _drop(metadata: Metadata) -> None:
    _chunks(metadata).pop()


def _overlap(metadata: Metadata) -> None:
    _chunks(metadata)[1] = ChunkStorageMetadata(torch.Size([1]), torch.Size([5]))


def _outside(metadata: Metadata) -> None:
    _chunks(metadata)[1] = ChunkStorageMetadata(torch.Size([2]), torch.Size([5]))


def _rank(metadata: Metadata) -> None:
    _chunks(metadata)[1] = ChunkStorageMetadata(torch.Size([2, 0]), torch.Size([4, 1]))


def _placeless(metadata: Metadata) -> None:
    del metadata.storage_data[MetadataIndex("w", (2,))]


def _elsewhere(name: str) -> Callable[[Metadata], None]:
    def change(metadata: Metadata) -> None:
        _info(metadata, 2).relative_path = name

    return change


def _long(metadata: Metadata) -> None:
    _info(metadata, 2).length = 1 << 40


def _short(metadata: Metadata) -> None:
    _info(metadata, 2).length = 3


def _negative(metadata: Metadata) -> None:
    _info(metadata, 2).offset = -1


def _shared(metadata: Metadata) -> None:
    info = _info(metadata, 0)
    metadata.storage_data[MetadataIndex("w", (2,))] = _StorageInfo(info.relative_path, info.offset + 8, info.length - 8)


def _compressed(metadata: Metadata) -> None:
    _info(metadata, 2).transform_descriptors = ["zstd"]


def _quantized(metadata: Metadata) -> None:
    found: Any = metadata.state_dict_metadata["w"]
    found.properties.dtype = torch.qint8


def _huge(metadata: Metadata) -> None:
    found: Any = metadata.state_dict_metadata["w"]
    found.size = torch.Size([1 << 50])
    found.chunks = [ChunkStorageMetadata(torch.Size([0]), torch.Size([1 << 50]))]


def _many(metadata: Metadata) -> None:
    found: Any = metadata.state_dict_metadata["w"]
    found.size = torch.Size([400, 400, 400])
    found.chunks = [ChunkStorageMetadata(torch.Size([n, n, n]), torch.Size([1, 1, 1])) for n in range(400)]


def _nothing(metadata: Metadata) -> None:
    metadata.state_dict_metadata = {"w": BytesStorageMetadata()}


def _paths(metadata: Metadata) -> None:
    metadata.planner_data = {"w": ("v",)}


def _nested_name(metadata: Metadata) -> None:
    name: Any = ()
    for _ in range(60):  # shown, it would be 2^60 texts
        name = (name, name)
    metadata.planner_data = {"w": ("model", name)}


def _nested_fqn(metadata: Metadata) -> None:
    found: Any = []
    for _ in range(60):
        found = [found, found]
    for index in metadata.storage_data:
        object.__setattr__(index, "fqn", found)


def _one_list_for_all(metadata: Metadata) -> None:
    found: Any = metadata.state_dict_metadata["w"]
    found.chunks = [ChunkStorageMetadata(torch.Size([0]), torch.Size([6]))] * 2000
    metadata.state_dict_metadata = {f"w{number}": found for number in range(2000)}


def _endlessly_empty(metadata: Metadata) -> None:
    found: Any = metadata.state_dict_metadata["w"]
    found.size, found.chunks = torch.Size([0, 1 << 61, 1 << 61]), []


BROKEN: dict[str, tuple[Callable[[Metadata], None], type[ConverterError], str]] = {
    "a chunk less": (_drop, FormatError, "in no chunk"),
    "chunks that overlap": (_overlap, FormatError, "overlap"),
    "a chunk outside": (_outside, FormatError, "reaches out"),
    "a chunk of another rank": (_rank, FormatError, "reaches out"),
    "no place": (_placeless, FormatError, "does not say where"),
    "another folder": (_elsewhere("../x.distcp"), FormatError, "outside of the folder"),
    "no name": (_elsewhere(""), FormatError, "outside of the folder"),
    "a file that is not there": (_elsewhere("__7_0.distcp"), FormatError, "missing"),
    "too long": (_long, FormatError, "cannot hold"),
    "too short": (_short, FormatError, "cannot hold"),
    "before the beginning": (_negative, FormatError, "index lacks"),
    "bytes twice": (_shared, FormatError, "share bytes"),
    "compressed": (_compressed, UnsupportedError, "compressed"),
    "quantized": (_quantized, UnsupportedError, "qint8"),
    "huge": (_huge, FormatError, "cannot hold"),
    "many cells": (_many, FormatError, "too many ways"),
    "a name within a path that is no text": (_nested_name, FormatError, "neither a text nor a number"),
    "a chunk's name that is no text": (_nested_fqn, FormatError, "no text"),
    "one list of chunks under many names": (_one_list_for_all, FormatError, "places where they lie"),
    "an empty shape that no array has": (_endlessly_empty, FormatError, "no array has"),
    "no tensor": (_nothing, FormatError, "no state_dict"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_index_is_refused(tmp_path: Path, name: str) -> None:
    change, kind, match = BROKEN[name]
    tensor = torch.arange(6.0)
    write(tmp_path / "x", {"w": (tensor, [((0,), (2,)), ((2,), (4,))])}, change=change)
    with pytest.raises(kind, match=match) as caught:
        load_parameters(tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value)
    done = CliRunner().invoke(cli, ["torch-to-safetensors", str(tmp_path / "x"), "-o", str(tmp_path / "o.safetensors")])
    assert done.exit_code == 2
    assert not (tmp_path / "o.safetensors").exists()


def test_two_entries_in_one_place(tmp_path: Path) -> None:
    tensor = torch.arange(6.0)
    write(tmp_path, {name: (tensor, [((0,), (6,))]) for name in "vw"}, change=_paths)
    with pytest.raises(FormatError, match="where another entry does"):
        load_parameters(tmp_path)


class _Runs:
    def __reduce__(self) -> Any:
        return print, ("code was run",)


@pytest.mark.parametrize("content", [pickle.dumps(item) for item in (_Runs(), {"a": 1}, BytesStorageMetadata())] + [b"", b"\x80\x05((("])
def test_what_is_no_index_is_refused_and_runs_nothing(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(FormatError):
        load_parameters(tmp_path)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("what", ["other dtype", "other shape", "no tensor", "zeros", "cut"])
def test_a_broken_chunk_is_refused_when_it_is_read(tmp_path: Path, what: str) -> None:
    write(tmp_path, {"w": (torch.arange(600.0), [((0,), (600,))])}, files=1)
    path = tmp_path / "__0_0.distcp"
    length = path.stat().st_size
    stream = io.BytesIO()
    if what in ("zeros", "cut"):
        data = path.read_bytes()
        path.write_bytes(bytes(length) if what == "zeros" else data[:-200] + bytes(200))
    else:
        other: dict[str, Any] = {"other dtype": torch.arange(600), "other shape": torch.arange(599.0), "no tensor": {"a": torch.ones(600)}}
        torch.save(other[what], stream)
        (tmp_path / ".metadata").unlink()
        data = stream.getvalue()
        write(tmp_path, {"w": (torch.arange(600.0), [((0,), (600,))])}, files=1,
              change=lambda metadata: setattr(_info(metadata, 0), "length", len(data)))
        path.write_bytes(data)
    store = load_parameters(tmp_path)
    with pytest.raises(FormatError):
        store.read("w")
    done = CliRunner().invoke(cli, ["torch-to-safetensors", str(tmp_path), "-o", str(tmp_path / "o.safetensors")])
    assert done.exit_code == 2
    assert not (tmp_path / "o.safetensors").exists()


def test_several_of_them_are_not_chosen_among(tmp_path: Path) -> None:
    for step in (100, 200):
        write(tmp_path / f"step-{step}", {"w": (torch.ones(2), [((0,), (2,))])})
    with pytest.raises(FormatError, match="several distributed checkpoints") as caught:
        load_parameters(tmp_path)
    assert "step-200" in (caught.value.fix or "")


# Several processes -------------------------------------------------------------------------------------------------------


def _work(rank: int, folder: str) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))
    whole = {name: value.clone() for name, value in module.state_dict().items()}
    fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
    dcp.save({"model": module.state_dict()}, checkpoint_id=f"{folder}/fsdp")
    if rank == 0:
        torch.save(whole, f"{folder}/whole.pt")
    dist.destroy_process_group()


@pytest.mark.long
def test_two_processes_with_fsdp(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(rank, str(tmp_path)), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
        assert worker.exitcode == 0
    assert len(list((tmp_path / "fsdp").glob("*.distcp"))) == 2
    same(tmp_path / "fsdp", torch.load(tmp_path / "whole.pt"))
