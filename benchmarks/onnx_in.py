"""ONNX files that torch's exporters wrote: what reading them takes, what becomes of their nodes, and how fast NumPy runs what was read.

    python -m benchmarks.onnx_in [MODEL …] [--full] [--repeat 3]     nodes and runs, systems in turn, milliseconds of the processor
    python -m benchmarks.onnx_in --read [--gigabytes 4]              reading, in a process of its own each
    python -m benchmarks.onnx_in --operators                         how many of ONNX's operators are read

One thread (OMP_NUM_THREADS is set to 1), medians. `lifted` is the share of the file's nodes that are gone or are what the converter's
own trace of the module has: what is left over is arithmetic that a layer was written as. `apart` is the largest difference from
ONNX Runtime, of the largest value. In brackets: times as long as NumPy. `--full`: at the sizes of BERT-base
and ResNet-50. Memory is counted as `benchmarks.streaming` counts it; its files are in the folder for temporary ones, and are deleted.
onnx2torch, and onnx2tf for its list of operators, take part where they are installed.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import importlib
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import converter
from adapters.onnx.file_session import OnnxFileSession
from adapters.onnx.functions import nodes_of
from adapters.onnx.registry import readers
from benchmarks.onnx_exports import MODELS, Export, write
from benchmarks.runtime import onnxruntime_call
from benchmarks.streaming import HEADS, INNER, VOCABULARY, WIDTH, Run, layers_for, settle, watched

BETTER = frozenset({"linear", "lstm", "rotary_embedding", "safe_softmax"})
"""Layers that a trace of some modules writes as arithmetic itself."""
FULL: dict[str, dict[str, Any]] = {
    "bert": {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
             "max_position_embeddings": 512, "words": 128},
    "resnet50": {"size": 224, "embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048]}}
PYTHON = {"imports alone": "import converter; from adapters.onnx.registry import readers; len(readers())",
          "converter.load": "import sys, converter; converter.load(sys.argv[1])",
          "onnx.load": "import sys, onnx; onnx.load(sys.argv[1])",
          "onnx2torch.convert": "import sys, onnx2torch; onnx2torch.convert(sys.argv[1])"}
INSTALLED = {name: importlib.util.find_spec(name) is not None for name in ("onnx2torch", "onnx2tf")}


def of_onnxruntime(path: Path, inputs: Mapping[str, Any]) -> Callable[[], Any]:
    return onnxruntime_call(str(path), list(inputs.values()), 1)


def of_onnx2torch(path: Path, inputs: Mapping[str, Any]) -> Callable[[], Any]:
    module = importlib.import_module("onnx2torch").convert(str(path)).eval()
    return partial(module, *map(torch.from_numpy, inputs.values()))


def of_evaluator(path: Path, inputs: Mapping[str, Any]) -> Callable[[], Any]:
    from onnx.reference import ReferenceEvaluator

    return partial(ReferenceEvaluator(str(path)).run, None, dict(inputs))


OTHERS = {"ONNX Runtime": of_onnxruntime, "onnx2torch": of_onnx2torch, "ReferenceEvaluator": of_evaluator}


def milliseconds(calls: Mapping[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """The processor's, the median of the turns that the calls take after one that does not count."""
    turns: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeat + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                turns[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(found) for name, found in turns.items()}


@torch.no_grad()
def exported(name: str, sizes: Mapping[str, Any]) -> Export:
    """A model of `onnx_exports` whose norms and biases differ, as a trained one's: of equal tensors the older exporter writes one."""
    torch.manual_seed(0)
    export = MODELS[name](**sizes)
    for tensor in (*export.module.parameters(), *export.module.buffers()):
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return export


@torch.no_grad()
def measure(name: str, dynamo: bool, sizes: Mapping[str, Any], folder: Path, repeat: int) -> str:
    """One row of the table of nodes and runs. What another system raises stands in its cell, and with its text beside the table."""
    export = exported(name, sizes)
    path = write(export, folder / "model.onnx", dynamo)
    before = sum(1 for _ in nodes_of(onnx.load(path).graph))
    model = converter.load(path)
    own = Counter(node.op for node in converter.from_torch(export.module, export.args).graph.nodes)
    left = sum(count for op, count in (Counter(node.op for node in model.graph.nodes) - own).items() if op not in BETTER)
    inputs = {key: value.numpy() for key, value in zip(export.names, export.args, strict=True)}
    session = converter.session(model)
    expected, found = OnnxFileSession(path).run(inputs), session.run(inputs)
    far = max(float(np.abs(found[key] - array).max() / np.abs(array).max()) for key, array in expected.items())
    calls: dict[str, Callable[[], Any]] = {"NumPy": partial(session.run, inputs)}
    cells = {}
    for system, make in OTHERS.items():
        if not INSTALLED.get(system, True):
            cells[system] = "-"
            continue
        try:
            call = make(path, inputs)
            call()
            calls[system] = call
        except Exception as error:  # whatever it raises: it does not run every file
            cells[system] = type(error).__name__
            print(f"{name}, {system}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
    times = milliseconds(calls, repeat)
    reading = milliseconds({"": lambda: converter.load(path)}, repeat)[""]
    cells |= {system: f"{spent:.1f} ms ({spent / times['NumPy']:.2f})" for system, spent in times.items() if system in OTHERS}
    exporter = "dynamo" if dynamo else "TorchScript"
    return (f"| {name} | {exporter} | {before} | {len(model.graph.nodes)} | {100 * (1 - left / before):.1f} % | {reading:.0f} ms | "
            f"{far:.1e} | {times['NumPy']:.1f} ms | {' | '.join(cells[system] for system in OTHERS)} |")


def generate(name: str, gigabytes: float, path: Path) -> None:
    """A file to read; runs in a process of its own, which needs the memory of all tensors."""
    sizes = FULL.get(name) or {
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": INNER, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "num_hidden_layers": layers_for(gigabytes, 4)}
    write(exported(name, sizes), path, dynamo=name not in FULL, external=name not in FULL)


def measure_reading(name: str, gigabytes: float, folder: Path, repeat: int) -> None:
    """The rows of one file in the table of reading."""
    subprocess.run([sys.executable, "-m", "benchmarks.onnx_in", name, "--generate", str(folder / "model.onnx"), "--gigabytes",
                    str(gigabytes)], check=True)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
    jobs = {job: [sys.executable, "-c", code, "model.onnx"] for job, code in PYTHON.items()}
    jobs["onnx-to-hdf5"] = [sys.executable, "-m", "converter", "onnx-to-hdf5", "model.onnx", "-o", "model.h5", "--quiet"]
    if not INSTALLED["onnx2torch"]:
        del jobs["onnx2torch.convert"]
    runs: dict[str, list[Run]] = {job: [] for job in jobs}
    for _ in range(repeat):
        for job in list(runs):
            (folder / "model.h5").unlink(missing_ok=True)
            settle()
            try:
                runs[job].append(watched(jobs[job], folder))
            except SystemExit as error:
                if not job.startswith("onnx2torch"):
                    raise
                print(f"{name}, {job}: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
                del runs[job]
    for job, found in runs.items():
        seconds, processor = (statistics.median(getattr(run, field) for run in found) for field in ("seconds", "processor"))
        own, mapped = (max(getattr(run, field) for run in found) for field in ("own", "mapped"))
        print(f"| {name}, {size:.2f} GB | {job} | {seconds:.2f} | {processor:.2f} | {own:.0f} MB | {mapped:.0f} MB |", flush=True)


def operators() -> dict[str, int]:
    """How many operators of ONNX's list each system has a reader for."""
    listed = {item.name for item in onnx.defs.get_all_schemas_with_history() if item.domain == "" and not item.deprecated}
    found = {"ONNX's list": listed, "model-converter": set(readers())}
    if INSTALLED["onnx2torch"]:
        importlib.import_module("onnx2torch")
        registered = vars(importlib.import_module("onnx2torch.node_converters.registry"))["_CONVERTER_REGISTRY"]
        found["onnx2torch"] = {item.operation_type for item in registered if not item.domain}
    if INSTALLED["onnx2tf"]:  # a module each; importing them needs TensorFlow
        spec = importlib.util.find_spec("onnx2tf")
        places = (spec and spec.submodule_search_locations) or ()
        found["onnx2tf"] = {file.stem for place in places for file in Path(place, "ops").glob("*.py")}
    return {system: len(names & listed) for system, names in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--read", action="store_true")
    parser.add_argument("--operators", action="store_true")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        generate(options.models[0], options.gigabytes, options.generate)
        return
    for name in (name for name, installed in INSTALLED.items() if not installed):
        print(f"{name} is not installed: without its column", file=sys.stderr)
    print(f"load average {os.getloadavg()[0]:.1f}, median of {options.repeat}", file=sys.stderr)
    if options.operators:
        print("| system | operators |\n|---|---|", *(f"| {system} | {count} |" for system, count in operators().items()), sep="\n")
    elif options.read:
        print("| file | job | seconds | processor seconds | own memory, peak | mapped pages, peak |\n|---|---|---|---|---|---|")
        for name in options.models or (*FULL, "llama"):
            with tempfile.TemporaryDirectory() as folder:
                measure_reading(name, options.gigabytes, Path(folder), options.repeat)
    else:
        torch.set_num_threads(1)
        print(f"| model | exporter | nodes | read | lifted | reading | apart | NumPy | {' | '.join(OTHERS)} |\n{'|---' * 11}|")
        with tempfile.TemporaryDirectory() as folder:
            for name in options.models or (FULL if options.full else MODELS):
                for dynamo in (True, False):
                    print(measure(name, dynamo, FULL[name] if options.full else {}, Path(folder), options.repeat), flush=True)
    print(f"load average {os.getloadavg()[0]:.1f} at the end", file=sys.stderr)


if __name__ == "__main__":
    main()
