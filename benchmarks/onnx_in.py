"""Reading ONNX files that torch's exporters wrote: nodes, layers, seconds, and how fast what was read runs in NumPy.

    python -m benchmarks.onnx_in [MODEL …] [--full] [--repeat 3]

`lifted` is the share of the file's nodes that are gone or are what the converter's own trace of the module has: what is left over is
arithmetic that a layer was written as. `--full`: at the sizes of BERT-base and ResNet-50.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import converter
from adapters.onnx.file_session import OnnxFileSession
from adapters.onnx.reading.model import nodes_of
from benchmarks.onnx_exports import MODELS, write

BETTER = frozenset({"linear", "lstm", "rotary_embedding", "safe_softmax"})
"""Layers that a trace of some modules writes as arithmetic itself."""
FULL: dict[str, dict[str, Any]] = {
    "bert": {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
             "max_position_embeddings": 512},
    "resnet50": {"size": 224, "embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048]}}


def milliseconds(run: Callable[[], Any], repeat: int) -> float:
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def feeds_of(args: tuple[torch.Tensor, ...], names: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: value.numpy() for name, value in zip(names, args, strict=True)}


def measure(name: str, dynamo: bool, sizes: Mapping[str, Any], folder: Path, repeat: int) -> str:
    """One row of the table."""
    from onnx.reference import ReferenceEvaluator

    torch.manual_seed(0)
    export = MODELS[name](**sizes)
    path = write(export, folder / "model.onnx", dynamo)
    before = sum(1 for _ in nodes_of(onnx.load(path).graph))
    start = time.perf_counter()
    model = converter.load(path)
    seconds = time.perf_counter() - start
    own = Counter(node.op for node in converter.from_torch(export.module, export.args).graph.nodes)
    read = Counter(node.op for node in model.graph.nodes)
    left = sum(count for op, count in (read - own).items() if op not in BETTER)
    inputs = feeds_of(export.args, export.names)
    session, runtime, evaluator = converter.session(model), OnnxFileSession(path), ReferenceEvaluator(str(path))
    expected, found = runtime.run(inputs), session.run(inputs)
    far = max(float(np.abs(found[key] - array).max()) for key, array in expected.items())
    numpy_ms = milliseconds(lambda: session.run(inputs), repeat)
    runtime_ms = milliseconds(lambda: runtime.run(inputs), repeat)
    try:
        evaluator_ms = f"{milliseconds(lambda: evaluator.run(None, inputs), 1):.0f} ms"
    except Exception as error:  # whatever it raises: it does not run every file
        evaluator_ms = type(error).__name__
    exporter = "dynamo" if dynamo else "TorchScript"
    return (f"| {name} | {exporter} | {before} | {len(model.graph.nodes)} | {100 * (1 - left / before):.1f} % | "
            f"{seconds:.2f} s | {far:.1e} | {numpy_ms:.1f} ms | {runtime_ms:.1f} ms | {evaluator_ms} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print("| model | exporter | nodes | read | lifted | reading | apart | NumPy | ONNX Runtime | ReferenceEvaluator |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models or (FULL if options.full else MODELS):
            for dynamo in (True, False) if not options.full else (False,):
                print(measure(name, dynamo, FULL[name] if options.full else {}, Path(folder), options.repeat), flush=True)


if __name__ == "__main__":
    main()
