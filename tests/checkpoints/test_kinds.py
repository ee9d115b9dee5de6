"""What files and folders are that nothing reads as they lie: named by their first bytes, and with advice that leads somewhere."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import converter
from converter.checkpoint import load_parameters
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.kinds import kind_of_folder


def keras(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.2.4"
        file.create_group("model_weights")


def zipped(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"{}")

    return write


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 440449768\n"
FOREIGN: dict[str, tuple[bytes | Callable[[Path], None], str, str]] = {
    "pointer": (POINTER, "Git LFS pointer", "git lfs pull"),
    "page": (b"\n <!DOCTYPE HTML><html><head><title>Sign in</title>", "web page .HTML., titled 'Sign in'", "download"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML.*accessdenied", "download"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(40), "gzip", "gunzip"),
    "gguf": (b"GGUF\x03\x00", "GGUF", "safetensors"),
    "lite": (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite", "tf2onnx"),
    "array": (b"\x93NUMPY\x01\x00", "NumPy", "numpy.savez"),
    "zip": (zipped("weights.pt", "config.yaml"), "zip archive of files", "unpack"),
    "tar": (b"weights.pt".ljust(257, b"\0") + b"ustar".ljust(300, b"\0"), "tar archive", "tar -xf"),
    "keras": (keras, "Keras", "tf2onnx"),
    "keras 3": (zipped("metadata.json", "config.json"), "Keras", "tf2onnx"),
}


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors", ".onnx", ".h5", ".json", ".dat", ""])
@pytest.mark.parametrize("kind", list(FOREIGN))
def test_a_foreign_file_is_named_whatever_its_name_is(tmp_path: Path, kind: str, suffix: str) -> None:
    content, title, fix = FOREIGN[kind]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    for read in (load_parameters, converter.load, converter.from_checkpoint):
        if suffix in (".h5", ".json", ".onnx") or read is not converter.load:
            with pytest.raises(ConverterError, match=title) as caught:
                read(path)
            assert fix in (caught.value.fix or "")
    shown = CliRunner().invoke(cli, ["inspect", str(path)])
    assert shown.exit_code == 2
    assert "Traceback" not in shown.output
    assert fix in shown.stderr.replace("\n", " ") or fix in " ".join(shown.stderr.split())


@pytest.mark.parametrize(("suffix", "title"), [(".tflite", "TensorFlow Lite"), (".pb", "TensorFlow"), (".gguf", "GGUF"),
                                               (".keras", "Keras"), (".msgpack", "Flax"),
                                               (".npz", "NumPy"), (".pkl", "pickle"), (".pdparams", "Paddle")])
def test_a_foreign_name_is_told(tmp_path: Path, suffix: str, title: str) -> None:
    (tmp_path / f"x{suffix}").write_bytes(b"something")
    with pytest.raises(FormatError, match=title):
        load_parameters(tmp_path / f"x{suffix}")


def test_json_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_text('{"error": "Repository not found"}')
    with pytest.raises(FormatError, match="JSON text"):
        load_parameters(tmp_path / "x.bin")


@pytest.mark.parametrize(("command", "output"), [("json-to-hdf5", "o.h5"), ("hdf5-to-json", "o.json"), ("onnx-to-json", "o.json")])
def test_a_checkpoint_under_the_name_of_a_model_is_named(tmp_path: Path, command: str, output: str) -> None:
    path = tmp_path / f"w.{command.partition('-')[0]}"
    torch.save({"w": torch.ones(2)}, path)
    result = CliRunner().invoke(cli, [command, str(path), "-o", str(tmp_path / output)])
    assert result.exit_code == 2
    assert "a file that torch.save wrote, under the name of another kind of file" in result.output
    assert "use torch-to-" in result.output


def test_content_decides_among_checkpoints(tmp_path: Path) -> None:
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "a.bin")
    torch.save({"w": torch.ones(2)}, tmp_path / "b.safetensors")
    torch.save({"w": torch.ones(2)}, tmp_path / "c.weights", _use_new_zipfile_serialization=False)
    torch.save({"w": torch.ones(2)}, tmp_path / "d")
    for name in ("a.bin", "b.safetensors", "c.weights", "d"):
        assert load_parameters(tmp_path / name).read("w").tolist() == [1, 1]
        assert CliRunner().invoke(cli, ["inspect", str(tmp_path / name)]).exit_code == 0


FOLDERS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "cache": (("refs/main", "blobs/x", "snapshots/abc/config.json"), "Hugging Face cache", "snapshots/abc"),
    "caches": (("models--a--b/refs/main",), "Hugging Face cache", "models--a--b/snapshots"),
    "diffusers": (("model_index.json", "unet/config.json", "vae/config.json"), "diffusers", "unet"),
    "adapter": (("adapter_config.json", "adapter_model.safetensors"), "PEFT adapter", "merge"),
    "deepspeed": (("zero_to_fp32.py", "latest", "global_step5/mp_rank_00_model_states.pt"), "DeepSpeed", "mp_rank_00_model_states.pt"),
    "fsdp": (("__0_0.distcp", "__1_0.distcp"), "distributed checkpoint", ".metadata"),
    "accelerate": (("pytorch_model_fsdp_0/x.distcp",), "FSDP", "merge-weights"),
    "tensorflow": (("config.json", "tf_model.h5"), "TensorFlow's weights only", "from_tf=True"),
    "saved model": (("saved_model.pb", "variables/variables.index"), "SavedModel", "tf2onnx"),
    "gguf": (("q4.gguf", "q8.gguf"), "GGUF", "safetensors"),
    "onnx": (("config.json", "onnx/model.onnx"), "ONNX files", "onnx/model.onnx"),
    "shards": (("model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"), "1 of 3 are missing", "number 2"),
    "several": (("config.json", "model.fp16.safetensors", "model.bf16.safetensors"), "several checkpoints", "model.safetensors"),
    "unpacked": (("x/data.pkl", "x/data/0"), "unpacked", "zip -0 -r"),
    "lightning": (("hparams.yaml", "checkpoints/last.ckpt"), "training run", "last.ckpt"),
    "trainer": (("checkpoint-9/model.safetensors", "checkpoint-10/model.safetensors"), "training run", "checkpoint-10"),
    "whisper": (("tiny.pt",), "a checkpoint of another name", "tiny.pt"),
    "open_clip": (("open_clip_config.json", "open_clip_pytorch_model.bin"), "a checkpoint of another name", "open_clip_pytorch_model.bin"),
    "core ml": (("Manifest.json", "Data/com.apple.CoreML/model.mlmodel"), "Core ML", "PyTorch model"),
    "spacy": (("meta.json", "config.cfg", "tok2vec/model"), "spaCy pipeline", "converter.from_torch"),
    "nothing": (("readme.md",), "without a checkpoint", "model.safetensors"),
    "empty": ((), "without a checkpoint", "model.safetensors"),
}


@pytest.mark.parametrize("name", list(FOLDERS))
def test_a_folder_is_named_and_what_to_do_leads_on(tmp_path: Path, name: str) -> None:
    files, title, fix = FOLDERS[name]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(FormatError, match=title) as caught:
        load_parameters(tmp_path)
    assert fix in (caught.value.fix or "")
    assert title in str(caught.value)
    assert kind_of_folder(tmp_path).title in str(caught.value)
    for command in (["inspect", str(tmp_path)], ["torch-to-safetensors", str(tmp_path), "-o", str(tmp_path / "o.safetensors")]):
        shown = CliRunner().invoke(cli, command)
        assert shown.exit_code == 2
        assert title in " ".join(shown.stderr.split())


def test_shards_without_an_index_and_variants(tmp_path: Path) -> None:
    for index in (1, 2):
        save_file({f"w{index}": np.full(2, index, np.float32)}, tmp_path / f"model-0000{index}-of-00002.safetensors")
    store = load_parameters(tmp_path)
    assert {name: store.read(name).tolist() for name in store} == {"w1": [1, 1], "w2": [2, 2]}
    assert "2 shards" in store.notes[0]
    save_file({"w1": np.ones(1, np.float32)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(FormatError, match="same tensors"):
        load_parameters(tmp_path)
    folder = tmp_path / "variant"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "training_args.bin").write_bytes(b"x")
    save_file({"w": np.ones(2, np.float32)}, folder / "model.fp16.safetensors")
    store = load_parameters(folder)
    assert store.names() == ("w",)
    assert "model.fp16.safetensors" in store.notes[0]


def test_inspect_says_of_a_file_that_its_folder_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other"}))
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "model.safetensors")])
    assert "give the folder" in shown.output


def test_inspect_says_in_one_line_why_a_folder_is_not_recognised(tmp_path: Path) -> None:
    config = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
              "intermediate_size": 16, "vocab_size": 20, "max_position_embeddings": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path)])
    (line,) = [line for line in shown.output.splitlines() if "Not recognised" in line]
    assert "missing: 'embeddings.word_embeddings.weight'" in line
    assert "\\n" not in line


WEIGHT = {"fc.weight": np.ones((2, 3), np.float32)}


def dumped(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content, 2))


def arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **WEIGHT)


def older(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


READ: dict[str, tuple[Callable[[Path], object], str]] = {
    "state_dict": (lambda path: torch.save(torch.nn.Linear(3, 2).state_dict(), path), "PyTorch state_dict"),
    "older": (lambda path: older(path, torch.nn.Linear(3, 2).state_dict()), "PyTorch state_dict"),
    "npz": (arrays, "NumPy arrays (.npz)"),
    "pickle": (lambda path: dumped(path, WEIGHT), "Python pickle of NumPy arrays"),
    "nested pickle": (lambda path: dumped(path, {"epoch": 3, "model": WEIGHT}), "Python pickle of NumPy arrays"),
    "arrays": (lambda path: torch.save(WEIGHT, path), "NumPy arrays in a file of torch.save"),
    "module": (lambda path: torch.save(torch.nn.Linear(3, 2), path), "whole PyTorch module"),
    "older module": (lambda path: older(path, torch.nn.Linear(3, 2)), "whole PyTorch module"),
    "script": (lambda path: torch.jit.script(torch.nn.Linear(3, 2)).save(str(path)), "TorchScript archive"),
    "safetensors": (lambda path: save_file(WEIGHT, path), "safetensors state_dict"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["w.pt", "w.npz", "w.pkl", "w.bin", "w"])
@pytest.mark.parametrize("kind", list(READ))
def test_inspect_says_what_a_file_is_whatever_its_name_is(tmp_path: Path, kind: str, name: str) -> None:
    write, title = READ[kind]
    write(tmp_path / name)
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / name)])
    assert shown.exit_code == 0
    assert f"{name}: {title}, " in shown.output


def test_inspect_tells_of_a_program_without_loading_it(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),)), str(tmp_path / "p.pt2"))
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "p.pt2"), "--parameters"])
    assert shown.exit_code == 0, shown.output
    for part in ("torch.export program", "aten.linear", "float32[2, 4]", "0.weight", "float32[3, 4]", "--allow-pickle"):
        assert part in shown.output
    facts = json.loads(CliRunner().invoke(cli, ["inspect", str(tmp_path / "p.pt2"), "--json"]).output)
    assert facts["program"]["operators"] == {"torch.ops.aten.linear.default": 1, "torch.ops.aten.relu.default": 1}
    (tmp_path / "q.pt2").write_bytes(b"PK\x03\x04")
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "q.pt2")])
    assert shown.exit_code == 2


def foreign_onnx(path: Path, tensors: list[Any], **options: Any) -> Path:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [helper.make_tensor_value_info("x", 1, ["n"])],
                              [helper.make_tensor_value_info("y", 1, ["n"])], tensors)
    onnx.save_model(helper.make_model(graph, producer_name="elsewhere"), str(path), **options)
    return path


ARRAYS = {"f": np.arange(6, dtype=np.float32).reshape(2, 3), "i": np.array([1, -2]), "b": np.array([True, False]),
          "h": np.ones(3, np.float16), "u": np.array(7, np.uint8),
          "c": np.array([1 + 2j], np.complex64), "empty": np.ones((0, 2), np.float32)}


@pytest.mark.parametrize("how", ["raw", "fields", "external"])
def test_initializers_of_a_foreign_onnx_file(tmp_path: Path, how: str) -> None:
    tensors = [numpy_helper.from_array(value, name) if how != "fields" else helper.make_tensor(
        name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape, value.reshape(-1)) for name, value in ARRAYS.items()]
    options = {"save_as_external_data": True, "size_threshold": 0, "location": "w.data"} if how == "external" else {}
    path = foreign_onnx(tmp_path / "m.onnx", tensors, **options)
    done = CliRunner().invoke(cli, ["onnx-to-torch", str(path), "-o", str(tmp_path / "w.pt")])
    assert done.exit_code == 0, done.output
    assert "elsewhere" in done.stderr
    held = torch.load(tmp_path / "w.pt")
    assert held.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert held[name].numpy().dtype == value.dtype
        assert np.array_equal(held[name].numpy(), value), name


def test_initializers_that_cannot_be_carried(tmp_path: Path) -> None:
    def refused(tensors: list[Any], kind: type[ConverterError], part: str) -> None:
        path = foreign_onnx(tmp_path / "m.onnx", tensors)
        done = CliRunner().invoke(cli, ["onnx-to-safetensors", str(path), "-o", str(tmp_path / "w.safetensors"), "--debug"])
        assert isinstance(done.exception, kind) or part in done.output
        assert not (tmp_path / "w.safetensors").exists()

    refused([helper.make_tensor("s", TensorProto.STRING, [1], [b"a"])], UnsupportedError, "STRING")
    refused([], FormatError, "no weights")
    refused([numpy_helper.from_array(np.ones(2), "a")] * 2, FormatError, "one name")
    short = numpy_helper.from_array(np.ones(2), "a")
    short.dims[0] = 3
    refused([short], FormatError, "do not fit")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_file_of_a_distributed_checkpoint_is_no_checkpoint_of_one_tensor(name: str, tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": {"weight": torch.ones(2)}}, checkpoint_id=tmp_path)
    with pytest.raises(FormatError, match=r"a part of a distributed checkpoint .* give the folder"):
        load_parameters(tmp_path / name)
