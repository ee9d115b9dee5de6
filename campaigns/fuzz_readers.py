"""The readers that are fuzzed: of each, valid files to damage, and the public way in."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import converter
from campaigns.fuzz_folders import Files, adapter_seeds, files_of, huggingface_seeds, sentence_seeds, sharded_seeds, timm_seeds
from campaigns.fuzz_trained import distributed_seeds, zero_seeds
from converter.dims import symbol
from converter.ir import Model
from converter.parameters import ParameterStore

FIXTURES = Path(__file__).parent.parent / "fixtures"
FORMAT = FIXTURES / "format"

@dataclass(frozen=True)
class Reader:
    """`seeds(wide)` makes valid files, `wide`: all that there are; `read` raises what the product does."""

    title: str
    seeds: Callable[[bool], list[Files]]
    read: Callable[[Path], Any]
    folder: bool = False


# Ways in -----------------------------------------------------------------------------------------------------------------


def read_model(path: Path) -> Model:
    model = converter.load(path)
    _read_all(model.parameters)
    return model


def read_tensors(path: Path) -> ParameterStore:
    from converter.checkpoint import load_parameters

    store = load_parameters(path)
    _read_all(store)
    return store


def _read_all(store: ParameterStore) -> None:
    for name in store.names():
        store.read(name)


def read_graph(path: Path) -> Any:
    from converter.drafting import graph_of_file

    return graph_of_file(path)


def read_folder(path: Path) -> Model:
    base = path / "base"
    model = converter.from_checkpoint(path, base=base) if base.is_dir() else converter.from_checkpoint(path)
    _read_all(model.parameters)
    return model


def read_arrays(path: Path) -> Any:
    from converter.cli.inputs import read_array, read_recorded
    from converter.npz import read_npz

    return read_array(path) if path.suffix == ".npy" else (read_npz(path), read_recorded(path))


def read_program(path: Path) -> Any:
    from adapters.torch_files.program import program_facts

    return program_facts(path)


# Seeds -------------------------------------------------------------------------------------------------------------------


def _saved(models: list[Model], suffix: str, **options: Any) -> list[Files]:
    found = []
    with tempfile.TemporaryDirectory() as name:
        for number, model in enumerate(models):
            folder = Path(name) / str(number)
            folder.mkdir()
            try:
                converter.save(model, folder / f"m{suffix}", **options)
            except converter.ConverterError:
                continue
            found.append(files_of(folder))
    return found


def _models() -> list[Model]:
    return [
        converter.load(FORMAT / "doubled.json"),
        converter.load(FORMAT / "everything.json"),
        converter.load(FIXTURES / "elman" / "model.json"),
        _control(),
    ]


def _control() -> Model:
    """Sizes that are expressions, a branch, a loop, tied parameters."""
    inner = [converter.GraphBuilder(name) for name in ("then", "else", "body")]
    results = []
    for builder, operator in zip(inner, ("exp", "negative", "tanh"), strict=True):
        x = builder.input("a", "float32", ["batch", 3])
        builder.output("b", builder.op(operator, x))
        results.append(builder.graph())
    builder = converter.GraphBuilder("control")
    x, condition = builder.input("x", "float32", ["batch", 3]), builder.input("c", "bool", [])
    w = builder.parameter("w", "float32", [3, 3])
    found = builder.op("cond", condition, builder.op("linear", x, w), then_branch=results[0], else_branch=results[1])
    found = builder.op("concat", found, builder.op("linear", x, builder.parameter("tied", "float32", [3, 3])), axis=0)
    builder.output("y", builder.op("reshape", found, shape=(6 * symbol("batch"),)))
    values = np.arange(9, dtype=np.float32).reshape(3, 3)
    return Model(builder.graph(), converter.InMemoryParameters({"w": values, "tied": values}))


def json_seeds(wide: bool) -> list[Files]:
    texts = [FORMAT / "doubled.json", FORMAT / "everything.json", FORMAT / "everything.base64.json"]
    pair = {name: (FORMAT / name).read_bytes() for name in ("everything.file.json", "everything.file.weights.h5")}
    small = _saved([_control()], ".json", encoding="file")
    return [*({"m.json": path.read_bytes()} for path in texts), pair, *small, *_saved([_control()], ".json")]


def graph_seeds(wide: bool) -> list[Files]:
    from converter.format import save_graph

    found = []
    with tempfile.TemporaryDirectory() as name:
        for model in _models():
            save_graph(model.graph, {item: model.parameters.spec(item) for item in model.parameters.names()}, Path(name) / "g.json")
            found.append({"g.json": (Path(name) / "g.json").read_bytes()})
    return [*found, {"draft.json": json.dumps(DRAFT).encode()}, {"draft.json": json.dumps(DRAFT).encode()}]


DRAFT = {
    "format": "neutral-model-draft",
    "version": "1.0",
    "name": "Sequential",
    "in_this_order": True,
    "dims": {"batch": {"min": 1}, "time": {"min": 8}},
    "input": {"name": "x", "dtype": "float32", "shape": ["batch", "time", 4]},
    "layers": [
        {"layer": "Linear", "at": "0", "tensors": {"weight": "float32[8,4]", "bias": "float32[8]"}},
        {"layer": "ReLU", "at": "1"},
        {"layer": "MaxPool1d(1, stride=1)", "at": "2"},
        {
            "layer": "LSTM",
            "at": "3",
            "batch_first": True,
            "initial_state": "zero",
            "take": "last_step",
            "tensors": {
                "weight_ih_l0": "float32[20,8]",
                "weight_hh_l0": "float32[20,5]",
                "bias_ih_l0": "float32[20]",
                "bias_hh_l0": "float32[20]",
            },
        },
    ],
    "output": "y",
}


def hdf5_seeds(wide: bool) -> list[Files]:
    import h5py

    found = [*_saved(_models(), ".h5")]
    with tempfile.TemporaryDirectory() as name:
        converter.save(_control(), Path(name) / "control.h5")
        for version in ("latest", "v108") if wide else ("latest",):
            for path in (FORMAT / "everything.h5", Path(name) / "control.h5"):
                with h5py.File(Path(name) / "o.h5", "w", libver=(version, version)) as out, h5py.File(path) as source:
                    for key in source:
                        source.copy(key, out)
                found.append({"m.h5": (Path(name) / "o.h5").read_bytes()})
    return found


def onnx_seeds(wide: bool) -> list[Files]:
    from adapters.onnx.export import save_onnx

    found = _saved(_models(), ".onnx")
    with tempfile.TemporaryDirectory() as name:
        save_onnx(_control(), Path(name) / "m.onnx", external=True)
        found.append(files_of(Path(name)))
    return found


def safetensors_seeds(wide: bool) -> list[Files]:
    return [*_saved(_models(), ".safetensors"), *_saved([converter.load(FIXTURES / "skipgram" / "model.json")] * wide, ".safetensors")]


def checkpoint_seeds(wide: bool) -> list[Files]:
    found = [{"m.pt": (FIXTURES / name / "checkpoint.pt").read_bytes()} for name in ("elman", "classifier", "skipgram")[: 3 if wide else 1]]
    own = [_written(lambda torch, path, at=number: torch.save(_states(torch)[at], path)) for number in (1, 2)]  # type: ignore[misc]
    return [*found, *_saved(_models(), ".pt"), *own[0], *own[1]]


def legacy_seeds(wide: bool) -> list[Files]:
    return [
        seed
        for number in range(3)
        for protocol in ((2, 4) if wide else (2,))
        for seed in _written(
            lambda torch, path, at=number, version=protocol: torch.save(
                _states(torch)[at],
                path,
                pickle_protocol=version,  # type: ignore[misc]
                _use_new_zipfile_serialization=False,
            )
        )
    ]


def _states(torch: Any) -> list[Any]:
    return [
        {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.float64)},
        {
            "model": {"a": torch.arange(4), "t": torch.ones(2, 2, dtype=torch.bfloat16).t()},
            "epoch": 3,
            "lr": 0.1,
            "names": ["x", ("y", {1})],
        },
        {"epoch": 1, "net": torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ModuleDict({"norm": torch.nn.BatchNorm1d(3)}))},
    ]


def _written(write: Callable[[Any, Path], None], suffix: str = ".pt") -> list[Files]:
    import torch

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"m{suffix}"
        write(torch, path)
        return [{path.name: path.read_bytes()}]


def script_seeds(wide: bool) -> list[Files]:
    def write(torch: Any, path: Path) -> None:
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.GRU(4, 2))
        torch.jit.save(torch.jit.script(module), str(path))

    def write_one(torch: Any, path: Path) -> None:
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 4)), str(path))

    return [*_written(write), *_written(write_one)]


def program_seeds(wide: bool) -> list[Files]:
    def write(torch: Any, path: Path) -> None:
        torch.export.save(torch.export.export(torch.nn.Linear(3, 4), (torch.ones(2, 3),)), path)

    return _written(write, ".pt2")


def array_seeds(wide: bool) -> list[Files]:
    packed, one = io.BytesIO(), io.BytesIO()
    np.savez_compressed(packed, **{"0/inputs/x": np.arange(9.0), "0/outputs/y": np.arange(3, dtype=np.int8), "made_by": np.array("me")})  # type: ignore[arg-type]
    np.save(one, np.arange(12.0).reshape(3, 4))
    return [{"m.npz": packed.getvalue()}, {"m.npy": one.getvalue()}, {"m.npz": (FIXTURES / "elman" / "recorded.npz").read_bytes()}]


def numpy_seeds(wide: bool) -> list[Files]:
    arrays = {"w": np.arange(6.0).reshape(2, 3).T, "b": np.ones(3, ">f4"), "n": np.array(2), "flag": np.array([True])}
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    plain = [{"m.bin": pickle.dumps(content, protocol)} for content in (arrays, {"model": arrays, "epoch": 1}) for protocol in (2, 4, 5)]
    return [*plain[: 6 if wide else 3], *_written(lambda torch, path: torch.save(arrays, path)), {"m.npz": packed.getvalue()}]


def foreign_seeds(wide: bool) -> list[Files]:
    from campaigns.fuzz_foreign import files, node_tests

    return [*files(), *(node_tests() if wide else [])]


READERS: dict[str, Reader] = {
    "json": Reader("JSON models: digits, base64, values beside", json_seeds, read_model),
    "graph": Reader("graphs without values, and drafts", graph_seeds, read_graph),
    "hdf5": Reader("HDF5 models", hdf5_seeds, read_model),
    "onnx": Reader("ONNX files that were written here", onnx_seeds, read_model),
    "foreign": Reader("ONNX files of other origins", foreign_seeds, read_model),
    "safetensors": Reader("safetensors", safetensors_seeds, read_tensors),
    "checkpoint": Reader("zip checkpoints (.pt, .bin)", checkpoint_seeds, read_tensors),
    "legacy": Reader("checkpoints of before PyTorch 1.6", legacy_seeds, read_tensors),
    "numpy": Reader("NumPy arrays as parameters: pickles, .pt and .npz", numpy_seeds, read_tensors),
    "script": Reader("TorchScript archives", script_seeds, read_tensors),
    "program": Reader("torch.export archives, as inspect reads them", program_seeds, read_program),
    "arrays": Reader(".npz and .npy, and recorded runs", array_seeds, read_arrays),
    "huggingface": Reader("Hugging Face folders", huggingface_seeds, read_folder, True),
    "sharded": Reader("folders of shards with an index", sharded_seeds, read_folder, True),
    "sentence": Reader("sentence-transformers' folders", sentence_seeds, read_folder, True),
    "adapter": Reader("PEFT adapters and their base", adapter_seeds, read_folder, True),
    "distributed": Reader("distributed checkpoints (FSDP)", distributed_seeds, read_tensors, True),
    "zero": Reader("DeepSpeed's folders (ZeRO)", zero_seeds, read_tensors, True),
    "timm": Reader("timm's folders", timm_seeds, read_folder, True),
}


def zipped(files: Files) -> bytes:
    """A folder as one archive: how a damaged one is kept."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()
