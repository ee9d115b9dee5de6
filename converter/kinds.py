"""What a file is by its first bytes, and a folder by the names in it: asked before anyone complains of either."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

HEAD = 1 << 16
ENTRIES = 2000
"""Bytes of a file, and names of a folder, that are looked at."""

AGAIN = "download the file itself"


@dataclass(frozen=True, slots=True)
class Kind:
    """What something is. `format` is the one of `converter.discovery` that reads it, None where none does."""

    title: str
    fix: str | None = None
    format: str | None = None


# Files -------------------------------------------------------------------------------------------------------------------


def kind_of_file(path: Path) -> Kind | None:
    """What the first bytes of a file say that it is; None where they say nothing. Raises `OSError` where it cannot be read."""
    if not path.is_file():
        return None
    if path.suffix == ".distcp" or path.name == ".metadata" and _distributed(path.parent, names_in(path.parent)):
        # Each tensor of such a file is a zip archive of its own: by its first bytes it is a checkpoint of one tensor.
        return Kind("a part of a distributed checkpoint (FSDP)", f"give the folder: {path.parent}")
    with path.open("rb") as file:
        head = file.read(HEAD)
        size = os.fstat(file.fileno()).st_size
    return next((kind for look in _LOOKS if (kind := look(head, size)) is not None), None)


def kind_by_name(path: Path) -> Kind | None:
    """What a file's suffix says that it is, of those that nothing here reads."""
    name = path.name.lower()
    return next((kind for suffixes, kind in SUFFIXES.items() if name.endswith(suffixes)), None)


_FROM_TENSORFLOW = "save it as ONNX where TensorFlow is installed: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx"
TENSORFLOW_LITE = Kind("a TensorFlow Lite model", "convert it to ONNX: python -m tf2onnx.convert --tflite FILE --output model.onnx")
TENSORFLOW = Kind("a TensorFlow graph or SavedModel (.pb)", _FROM_TENSORFLOW)
GGUF = Kind("a GGUF file of llama.cpp, whose weights are quantised",
            "give the folder of the model that it was made from, with config.json and its .safetensors files")
KERAS = Kind("a Keras model or its weights", "where Keras is installed: model.export('folder'), then "
             "python -m tf2onnx.convert --saved-model folder --output model.onnx")
PROGRAM = Kind("a torch.export archive, not a checkpoint", "name it .pt2 and convert the program in it; or, where PyTorch is installed: "
               "torch.save(torch.export.load(file).state_dict, 'weights.pt')")
HDF5 = Kind("an HDF5 file", None, "hdf5")
TORCH = Kind("a file that torch.save wrote", None, "torch")
NPY = Kind("a NumPy array (.npy)", "save it under its parameter's name: numpy.savez('weights.npz', name=numpy.load(file)); or, where it is "
           "a pickled dict of arrays: numpy.savez('weights.npz', **numpy.load(file, allow_pickle=True).item())")
NPZ = Kind("NumPy arrays (.npz)", "write them again: numpy.savez('weights.npz', name=array, …)", "torch")

_STARTS: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"version https://git-lfs", Kind("a Git LFS pointer: a few lines that stand for the file, not the file",
                                         f"fetch it: git lfs pull in the repository; or {AGAIN}")),
    (0, b"\x1f\x8b", Kind("a gzip file", "unpack it: gunzip FILE, or tar -xzf FILE for a .tar.gz")),
    (0, b"\x28\xb5\x2f\xfd", Kind("a zstd file", "unpack it: unzstd FILE")),
    (0, b"\xfd7zXZ\x00", Kind("an xz file", "unpack it: unxz FILE")),
    (0, b"BZh", Kind("a bzip2 file", "unpack it: bunzip2 FILE")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7-Zip archive", "unpack it")),
    (0, b"Rar!", Kind("a RAR archive", "unpack it")),
    (0, b"%PDF", Kind("a PDF document", AGAIN)),
    (0, b"GGUF", GGUF),
    (0, b"lmgg", Kind("a GGML file of an old llama.cpp", GGUF.fix)),
    (4, b"TFL3", TENSORFLOW_LITE),
    (0, b"\x93NUMPY", NPY),
)

SUFFIXES: dict[tuple[str, ...], Kind] = {
    (".tflite", ".lite"): TENSORFLOW_LITE,
    (".gguf", ".ggml"): GGUF,
    (".pb", ".pbtxt", ".meta"): TENSORFLOW,
    (".keras",): KERAS,
    (".ckpt.index", ".index") : Kind("a TensorFlow checkpoint", _FROM_TENSORFLOW),
    (".msgpack",): Kind("a Flax checkpoint", "in transformers: AutoModel.from_pretrained(folder, from_flax=True).save_pretrained('other')"),
    (".pdmodel", ".pdiparams", ".pdparams"): Kind("a Paddle model", "convert it to ONNX with paddle2onnx"),
    (".mlmodel", ".mlpackage"): Kind("a Core ML model", "convert the model that it was made from"),
    (".engine", ".plan", ".trt"): Kind("a TensorRT engine", "convert the model that it was made from"),
    (".nemo",): Kind("a NeMo archive", "unpack it (tar -xf) and give the model_weights.ckpt in it"),
    (".mar",): Kind("a TorchServe archive", "unzip it and give the checkpoint in it"),
    (".npy",): NPY,
    (".npz",): NPZ,
    (".pkl", ".pickle", ".joblib"): Kind("a Python pickle", "where its libraries are installed: torch.save({name: torch.as_tensor(value) "
                                         "for name, value in content.items()}, 'weights.pt')"),
}


PICKLED = Kind("a Python pickle that torch.save did not write", SUFFIXES[".pkl", ".pickle", ".joblib"].fix, "torch")


def _start(head: bytes, size: int) -> Kind | None:
    return next((kind for place, mark, kind in _STARTS if head[place:place + len(mark)] == mark), None)


def _text(head: bytes, size: int) -> Kind | None:
    """HTML, XML and JSON: what servers give in the place of a file that is not there, or not allowed."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if re.match(rb"<(!doctype html|html|head|body|script|meta)\b", text):
        title = re.search(rb"<title[^>]*>([^<]{1,80})", head, re.IGNORECASE)
        said = f", titled {title[1].decode('utf-8', 'replace').strip()!r}" if title else ""
        return Kind(f"a web page (HTML){said}", f"{AGAIN}: follow the page's own link, and log in if it asks for that")
    if text.startswith(b"<?xml"):
        code = re.search(rb"<code>([^<]{1,60})", text)
        return Kind(f"an XML document{', a refusal: ' + code[1].decode('utf-8', 'replace') if code else ''}", AGAIN)
    if text[:1] in b"{[" and text and all(9 <= byte <= 13 or 32 <= byte < 127 for byte in text[:8]):
        return Kind("JSON text", f"if it is the answer of a server, {AGAIN}", "json")
    return None


def _safetensors(head: bytes, size: int) -> Kind | None:
    length = int.from_bytes(head[:8], "little")
    return Kind("a safetensors file", None, "safetensors") if head[8:9] == b"{" and 2 <= length <= size - 8 else None


def _archive(head: bytes, size: int) -> Kind | None:
    """A zip file, by the name of its first entry; None for one that its reader has more to say of."""
    if not head.startswith(b"PK\x03\x04"):
        return None
    length = int.from_bytes(head[26:28], "little")
    name = head[30:30 + length].decode("utf-8", "replace")
    inner = name.partition("/")[2]
    if inner == "data.pkl" or inner.startswith(("data/", ".data/", "byteorder", "version", "constants", "code/")):
        return PROGRAM if inner.startswith("data/weights") else TORCH
    if inner.startswith(("models/", "archive_format")) or name.startswith("serialized_exported_program"):
        return PROGRAM
    if name.endswith(".npy"):
        return NPZ
    if name in ("metadata.json", "config.json", "model.weights.h5"):
        return KERAS
    return Kind(f"a zip archive of files, with {name[:80]!r} in it", "unpack it, and give the checkpoint in it") \
        if name.lower().endswith(WEIGHTS) else None


def _tar(head: bytes, size: int) -> Kind | None:
    """A tar file, but those of PyTorch before 0.2, which have a reader."""
    name = head[:100].partition(b"\0")[0].decode("utf-8", "replace")
    if head[257:262] != b"ustar" or name.rstrip("/") in ("sys_info", "pickle", "storages", "tensors"):
        return None
    return Kind("a tar archive of files", "unpack it (tar -xf FILE), and give the checkpoint in it")


def is_pickle(head: bytes) -> bool:
    """Whether a file begins as pickles of protocol 2 and newer do; those of torch.save before PyTorch 1.6 are among them."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _binary(head: bytes, size: int) -> Kind | None:
    if head[:1] == b"\x80" and b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." in head[:32]:
        return TORCH
    if is_pickle(head):
        return PICKLED
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        keras = any(mark in head for mark in (b"keras_version", b"layer_names", b"model_weights"))
        return KERAS if keras and b"document\x00" not in head else HDF5
    return None


_LOOKS: tuple[Callable[[bytes, int], Kind | None], ...] = (_start, _safetensors, _archive, _tar, _binary, _text)


# Folders -----------------------------------------------------------------------------------------------------------------

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
SHARD = re.compile(r"(?P<stem>.+?)-(?P<index>\d{5,6})-of-(?P<count>\d{5,6})(?P<suffix>\.safetensors|\.bin)")


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted; of very many, some."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in islice(entries, ENTRIES))


def kind_of_folder(folder: Path) -> Kind:
    """What a folder without a checkpoint that is read as it lies is, and what of it can be given."""
    names = names_in(folder)
    found = next((kind for look in _FOLDERS if (kind := look(folder, names)) is not None), None)
    if found is not None:
        return found
    weights = [name for name in names if name.lower().endswith(WEIGHTS)]
    if len(weights) == 1:
        return Kind("a folder with a checkpoint of another name", f"give the file: {folder / weights[0]}")
    if weights:
        return Kind("a folder of several checkpoints", f"give one of them: {folder / weights[0]}; or, for a model as Hugging Face keeps "
                    "it, name the one to take model.safetensors")
    return Kind("a folder without a checkpoint", "give a file of weights, or a folder with model.safetensors or pytorch_model.bin")


def _hub_cache(folder: Path, names: Sequence[str]) -> Kind | None:
    if "snapshots" in names:
        snapshots = names_in(folder / "snapshots") if (folder / "snapshots").is_dir() else []
        first = folder / "snapshots" / (snapshots[0] if snapshots else "…")
        return Kind("a model in a Hugging Face cache", f"give the snapshot in it: {first}")
    models = [name for name in names if name.startswith("models--")]
    return Kind("a Hugging Face cache", f"give a snapshot in it, {folder / models[0] / 'snapshots'}/…") if models else None


def _parts(folder: Path, names: Sequence[str]) -> Kind | None:
    if "model_index.json" not in names:
        return None
    parts = [name for name in names if (folder / name / "config.json").is_file()]
    return Kind("a diffusers pipeline, of several models",
                f"give the folder of one of its parts: {', '.join(str(folder / name) for name in parts[:4])}" if parts else None)


def _adapter(folder: Path, names: Sequence[str]) -> Kind | None:
    if "adapter_config.json" not in names:
        return None
    return Kind("a PEFT adapter, which is no model by itself",
                "give its base too, where a whole model is made: convert torch-to-json FOLDER --base FOLDER_OF_THE_BASE -o model.json; or "
                "merge it where peft is installed: PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained('merged')")


JOIN_ZERO = "join its parts where DeepSpeed is installed: python zero_to_fp32.py . weights.pt"


def _deepspeed(folder: Path, names: Sequence[str]) -> Kind | None:
    states = [name for name in names if re.fullmatch(r"mp_rank_\d+_model_states\.pt", name)]
    steps = [name for name in names if name.startswith("global_step")]
    zero = "zero_to_fp32.py" in names or any(name.endswith("optim_states.pt") for name in names)
    if not (zero or states or steps and "latest" in names):
        return None
    inner = states or [f"{step}/{name}" for step in steps[:1] if (folder / step).is_dir() for name in names_in(folder / step)
                       if name.endswith("model_states.pt")]
    return Kind("a DeepSpeed checkpoint of which parts are missing", "copy or download the whole folder, with the step's "
                "…_model_states.pt and …_optim_states.pt" + (f"; or, of ZeRO stages 1 and 2, give {folder / inner[0]}" if inner else ""))


def join_distributed(folder: Path) -> str:
    """What to run, to have the parts of a distributed checkpoint joined by PyTorch."""
    return ("join its parts where PyTorch is installed: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pt")


def _distributed(folder: Path, names: Sequence[str]) -> Kind | None:
    if any(name.endswith(".distcp") for name in names):
        return Kind("a distributed checkpoint (FSDP) without its index", "copy or download the whole folder, with the file .metadata in it")
    inner = [name for name in names if name.startswith("pytorch_model_fsdp_") and (folder / name).is_dir()]
    merge = f"join its parts: accelerate merge-weights {folder / inner[0]} weights" if inner else None
    return Kind("a training run of accelerate with FSDP", merge) if inner else None


def _shards(folder: Path, names: Sequence[str]) -> Kind | None:
    shards = [found for name in names if (found := SHARD.fullmatch(name))]
    if not shards:
        return None
    count, held = int(shards[0]["count"]), {int(found["index"]) for found in shards if found["stem"] == shards[0]["stem"]}
    missing = [index for index in range(1, min(count, 10_000) + 1) if index not in held]
    title = f"a folder of shards, of which {len(missing)} of {count} are missing" if missing else "a folder of shards of several models"
    return Kind(title, f"download number {', '.join(map(str, missing[:8]))} too, and the index (….index.json)" if missing
                else "keep the shards of one, or add its index (….index.json)")


def _unpacked(folder: Path, names: Sequence[str]) -> Kind | None:
    inner = folder if "data.pkl" in names else next((folder / name for name in names[:8] if (folder / name / "data.pkl").is_file()), None)
    if inner is None:
        return None
    return Kind("a checkpoint of PyTorch that was unpacked", "pack it again, without compression: "
                f"cd {inner.parent} && zip -0 -r weights.pt {inner.name}")


def _run(folder: Path, names: Sequence[str]) -> Kind | None:
    """A training run, with the last of the checkpoints in it."""
    steps = [folder / name for name in names if name.startswith("checkpoint-") and (folder / name).is_dir()]
    steps.sort(key=lambda step: (len(step.name), step.name))
    files = [folder / inner / name for inner in ("checkpoints", "weights", "models") if (folder / inner).is_dir()
             for name in names_in(folder / inner) if name.lower().endswith(WEIGHTS)]
    found = steps or files
    return Kind("a training run's folder", f"give a checkpoint in it: {found[-1]}") if found else None


def _others(folder: Path, names: Sequence[str]) -> Kind | None:
    if "saved_model.pb" in names:
        return Kind("a TensorFlow SavedModel", f"convert it to ONNX: python -m tf2onnx.convert --saved-model {folder} --output model.onnx")
    for name, title, option in (("tf_model.h5", "TensorFlow", "from_tf"), ("flax_model.msgpack", "Flax", "from_flax")):
        if name in names:
            return Kind(f"a folder with {title}'s weights only", "write PyTorch's beside them, with a transformers that still reads "
                        f"{title}'s (4.x): AutoModel.from_pretrained(folder, {option}=True).save_pretrained('other')")
    if any(name.endswith((".ckpt.index", ".data-00000-of-00001")) for name in names):
        return Kind("a TensorFlow checkpoint", _FROM_TENSORFLOW)
    if any(name.endswith(".gguf") for name in names):
        return Kind("a folder of GGUF files, whose weights are quantised", GGUF.fix)
    if "Manifest.json" in names and (folder / "Data").is_dir():
        return Kind("a Core ML package", "convert the PyTorch model that it was made from")
    if {"meta.json", "config.cfg"} <= set(names):
        return Kind("a spaCy pipeline", "where spaCy is installed, convert the PyTorch module in one of its parts: converter.from_torch")
    if "params.json" in names and any(name.startswith("consolidated") for name in names):
        return Kind("weights as Llama's and Mistral's authors publish them", "give the folder that transformers reads, with config.json "
                    "and model.safetensors")
    onnx = [name for name in names if name.endswith(".onnx")] or [f"onnx/{name}" for name in (
        names_in(folder / "onnx") if (folder / "onnx").is_dir() else []) if name.endswith(".onnx")]
    weights = any(name.endswith((".safetensors", ".bin", ".pt", ".pth")) for name in names)
    return Kind("a folder of ONNX files", f"give the file: {folder / onnx[0]}") if onnx and not weights else None


_FOLDERS: tuple[Callable[[Path, Sequence[str]], Kind | None], ...] = (
    _hub_cache, _parts, _adapter, _deepspeed, _distributed, _shards, _unpacked, _run, _others)
