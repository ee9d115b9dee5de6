"""Sessions side by side: NumPy's, PyTorch eager, ONNX Runtime on our graph and on the exporter's, ONNX's ReferenceEvaluator.

    python -m benchmarks.runtime [MODEL …] [--batch 1 8] [--threads 1 2] [--repeat 7] [--systems numpy torch …] [--table]

Every model and number of threads has a process of its own, in which the systems take turns; a cell is the median of the turns, in
milliseconds, in brackets the time as a multiple of PyTorch eager's. `--processor` takes processor seconds instead of the
clock's: for shared machines, with one thread. Random weights, but for MiniLM.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from math import exp, log
from typing import Any

SYSTEMS = ("numpy", "torch", "onnxruntime", "exporter", "compile", "evaluator")
LIMIT = 20.0
"""Seconds after which a system takes no more turns; one turn it has always."""


def run_model(name: str, batch: int, systems: list[str], repeat: int, processor: bool) -> dict[str, float]:
    """Milliseconds of each system's median turn, and how far NumPy's answer is from PyTorch's, relative to the largest value."""
    import numpy as np
    import torch

    import converter
    from benchmarks.runtime_models import build

    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    module, args = build(name, batch)
    feeds = [arg.numpy() for arg in args]
    model = converter.from_torch(module, args, examples=False)
    names = [port.name for port in model.graph.inputs]
    found: dict[str, Callable[[], Any]] = {}
    for system in systems:
        if system == "numpy":
            found[system] = partial(converter.session(model).run, dict(zip(names, feeds, strict=True)))
        elif system == "onnxruntime":
            with tempfile.TemporaryDirectory() as folder:
                converter.save(model, path := f"{folder}/model.onnx")
                found[system] = onnxruntime_call(path, feeds, threads)
        elif system == "torch":
            found[system] = partial(module, *args)
        elif system == "compile":
            found[system] = partial(torch.compile(module), *args)
        else:
            try:
                found[system] = _exported(system, module, args, feeds, threads)
            except Exception as error:  # the exporter and the evaluator raise anything
                print(f"{name}: {system}: {type(error).__name__}", file=sys.stderr)
    clock = time.process_time if processor else time.perf_counter
    turns: dict[str, list[float]] = {system: [] for system in found}
    with torch.no_grad():
        for call in found.values():
            call()
        for _ in range(repeat):
            for system, call in found.items():
                if sum(turns[system]) < LIMIT:
                    start = clock()
                    call()
                    turns[system].append(clock() - start)
        result = {system: statistics.median(seconds) * 1e3 for system, seconds in turns.items()}
        if "numpy" in found:
            wanted = torch.utils._pytree.tree_leaves(module(*args))[0].numpy()
            given = next(iter(found["numpy"]().values()))
            result["apart"] = float(np.abs(wanted - given).max() / max(np.abs(wanted).max(), 1e-30))
    return result


def _exported(system: str, module: Any, args: tuple[Any, ...], feeds: list[Any], threads: int) -> Callable[[], Any]:
    import io

    import onnx
    import torch

    torch.onnx.export(module, args, file := io.BytesIO(), dynamo=True, verbose=False)
    if system == "evaluator":
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(onnx.load_from_string(file.getvalue()))
        return lambda: evaluator.run(None, dict(zip(evaluator.input_names, feeds, strict=True)))
    return onnxruntime_call(file.getvalue(), feeds, threads)


def onnxruntime_call(file: Any, feeds: list[Any], threads: int) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its threads would take the others' turns
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {port.name: feed for port, feed in zip(session.get_inputs(), feeds, strict=True)})


def mean(values: list[float]) -> float:
    """The geometric mean."""
    return exp(sum(map(log, values)) / len(values)) if values else float("nan")


def main() -> None:
    from benchmarks.runtime_models import MODELS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: all of {', '.join(MODELS)}")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS[:4]))
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_model(options.models[0], options.batch[0], options.systems, options.repeat, options.processor)))
        return
    ratios: dict[tuple[int, str], list[float]] = {}
    print(f"| model | batch | threads | {' | '.join(options.systems)} | apart |\n|---|---|---|{'---|' * len(options.systems)}---|")
    for name in options.models or MODELS:
        for batch in options.batch:
            for threads in options.threads:
                command = [sys.executable, "-m", "benchmarks.runtime", name, "--one", "--batch", str(batch),
                           "--repeat", str(options.repeat), "--systems", *options.systems, *(["--processor"] if options.processor else [])]
                environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))}
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
                if done.returncode:
                    print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                    continue
                row = json.loads(done.stdout.splitlines()[-1])
                cells = []
                for system in options.systems:
                    ratio = row[system] / row["torch"] if system in row and "torch" in row else None
                    if ratio is not None:
                        ratios.setdefault((threads, system), []).append(ratio)
                    cells.append(f"{row[system]:.3g} ({ratio:.2f})" if ratio is not None else "-")
                print(f"| {name} | {batch} | {threads} | {' | '.join(cells)} | {row.get('apart', float('nan')):.1e} |", flush=True)
    for (threads, system), values in sorted(ratios.items()):
        print(f"geometric mean on {threads} threads, {system}: {mean(values):.2f} of PyTorch eager, most {max(values):.2f}")


if __name__ == "__main__":
    main()
