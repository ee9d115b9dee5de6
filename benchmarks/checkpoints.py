"""A checkpoint alone to every format, from the command line: seconds and memory of whole processes, against PyTorch's exporter.

    python -m benchmarks.checkpoints [bert gpt2] [--repeat 3] [--exporter-repeat 1]

A Hugging Face folder with random weights (`config.json`, `model.safetensors`, and the same as `pytorch_model.bin`) is
converted by `convert`, which imports no PyTorch. The exporter's process imports PyTorch and transformers, loads the same
folder and calls `torch.onnx.export(dynamo=True)`; the seconds of that call alone stand in the table too. Beside them,
`cp` and `sha256sum` of the same bytes. Medians, systems in turn; memory is the peak of a process's own pages.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.streaming import Run, settle, watched

EXPORTED = "exported.seconds"
FOLDERS = {"bert": ("BertConfig", "BertModel", {}), "gpt2": ("GPT2Config", "GPT2LMHeadModel", {"use_cache": False})}
TARGETS = {"HDF5": ("torch-to-hdf5", "model.h5", ()),
           "ONNX": ("torch-to-onnx", "model.onnx", ()),
           "JSON, base64": ("torch-to-json", "model.json", ("--encoding", "base64")),
           "JSON, lists": ("torch-to-json", "lists.json", ("--encoding", "values")),
           "safetensors": ("torch-to-safetensors", "copy.safetensors", ())}


def generate(name: str, folder: Path) -> None:
    """The folder of a model with random weights."""
    import torch
    import transformers

    config, model, options = FOLDERS[name]
    torch.manual_seed(0)
    module = getattr(transformers, model)(getattr(transformers, config)(**options)).eval()
    module.save_pretrained(folder)
    torch.save(module.state_dict(), folder.parent / "weights.pt")


def export(name: str, folder: Path, path: Path) -> None:
    """What a user of the exporter runs; notes how long the call itself took."""
    import time

    import torch
    import transformers

    module = getattr(transformers, FOLDERS[name][1]).from_pretrained(folder).eval()
    words = torch.randint(1, 1000, (2, 16))
    shapes = {key: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for key in ("input_ids", "attention_mask")}
    start = time.perf_counter()
    torch.onnx.export(module, (), str(path), kwargs={"input_ids": words, "attention_mask": torch.ones_like(words)}, dynamo=True,
                      external_data=False, verbose=False, dynamic_shapes=shapes)
    (path.parent / EXPORTED).write_text(str(time.perf_counter() - start))


def medians(runs: list[Run]) -> Run:
    return Run(*(statistics.median(getattr(run, field) for run in runs) for field in ("seconds", "processor", "own", "mapped")))


def measure(name: str, folder: Path, repeat: int, exports: int) -> None:
    """Prints one model's rows."""
    own = [sys.executable, "-m", "converter"]
    jobs = {"cp + sha256sum": ["sh", "-c", "cp weights.pt copy.pt && sha256sum copy.pt"]}
    for target, (command, output, options) in TARGETS.items():
        jobs[f"folder to {target}"] = [*own, command, "source", "-o", output, *options, "--quiet"]
    jobs["weights.pt to ONNX, --architecture"] = [*own, "torch-to-onnx", "weights.pt", "-o", "again.onnx", "--architecture", "graph.json",
                                                  "--quiet"]
    watched([*own, "torch-to-json", "source", "-o", "graph.json", "--graph-only", "--quiet"], folder)
    runs: dict[str, list[Run]] = {job: [] for job in jobs}
    size = (folder / "weights.pt").stat().st_size / 1e9
    for _ in range(repeat):
        for job, command in jobs.items():
            settle()
            runs[job].append(watched(command, folder))
    exporter = [sys.executable, "-m", "benchmarks.checkpoints", "--export", name, "source", "exported.onnx"]
    theirs, calls = [], []
    for _ in range(exports):
        settle()
        theirs.append(watched(exporter, folder))
        calls.append(float((folder / EXPORTED).read_text()))
    base = statistics.median(calls) if calls else None
    rows = {job: medians(found) for job, found in runs.items()}
    if theirs:
        rows["torch.onnx.export, whole process"] = medians(theirs)
    for job, run in rows.items():
        ratio = "-" if base is None else f"{run.seconds / base:.2f}"
        print(f"| {name} | {job} | {run.seconds:.2f} | {run.processor:.2f} | {size / run.seconds:.2f} | {run.own:.0f} MB | {ratio} |",
              flush=True)
    if base is not None:
        print(f"| {name} | torch.onnx.export, the call alone | {base:.2f} | | | | 1.00 |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(FOLDERS), metavar="MODEL")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--exporter-repeat", type=int, default=1)
    parser.add_argument("--generate", nargs=2, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--export", nargs=3, metavar=("MODEL", "FOLDER", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        generate(options.generate[0], Path(options.generate[1]))
        return
    if options.export:
        export(options.export[0], Path(options.export[1]), Path(options.export[2]).resolve())
        return
    print("| model | job | seconds | processor seconds | GB/s | own memory, peak | of the exporter's call |")
    print("|---|---|---|---|---|---|---|")
    for name in options.models or FOLDERS:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "benchmarks.checkpoints", "--generate", name, f"{folder}/source"], check=True,
                           capture_output=True)
            measure(name, Path(folder), options.repeat, options.exporter_repeat)
            shutil.rmtree(Path(folder) / "source")


if __name__ == "__main__":
    main()
