"""PyTorch to ONNX: this project's converter against torch.onnx.export(dynamo=True), with free sizes, side by side.

    python -m benchmarks.conversion [MODEL …] [--repeat 3]

Each conversion runs in a process of its own with the model loaded already. Seconds and extra memory (the peak over what
the process held before) are medians over the repeats, systems in turn; latency is ONNX Runtime's, both files in one
process, runs in turn. Models with batch normalizations are converted with --fold too. All must agree with PyTorch before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.models import NORMALIZED, SUBJECTS

OURS, FOLDED, THEIRS = "model-converter", "model-converter --fold", "torch.onnx.export"


def convert(system: str, name: str, path: Path) -> dict[str, float]:
    """One conversion in this process. Gives seconds and the peak memory over what was held before, in MB."""
    import torch

    from benchmarks.models import dynamic_shapes, subject

    found = subject(name)
    with torch.no_grad():
        found.module(**found.arguments)
    if system in (OURS, FOLDED):
        import converter
        from converter.passes.folding import fold
    else:
        import onnxscript  # noqa: F401
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    start = time.perf_counter()
    if system in (OURS, FOLDED):
        model = converter.from_torch(found.module, kwargs=found.arguments, dims=found.axes, examples=False)
        converter.save(fold(model) if system == FOLDED else model, path)
    else:
        torch.onnx.export(found.module, (), str(path), kwargs=found.arguments, dynamo=True, external_data=False, verbose=False,
                          dynamic_shapes=dynamic_shapes(found), input_names=list(found.arguments))
    return {"seconds": time.perf_counter() - start, "extra_mb": memory("VmHWM") - before}


def memory(field: str) -> float:
    """A field of /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def latencies(paths: dict[str, Path], name: str, runs: int) -> dict[str, float]:
    """Median milliseconds of a run in ONNX Runtime, systems in turn, after checking each against PyTorch."""
    import numpy as np
    import onnxruntime
    import torch

    from benchmarks.models import subject

    found = subject(name)
    feeds = {key: value.numpy() for key, value in found.arguments.items()}
    with torch.no_grad():
        result = found.module(**found.arguments)
    wanted = (result[0] if isinstance(result, tuple) else result).numpy()
    sessions = {}
    for system, path in paths.items():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        sessions[system] = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(sessions[system].run(None, feeds)[0], wanted, rtol=1e-2, atol=1e-3)
    times: dict[str, list[float]] = {system: [] for system in sessions}
    for _ in range(runs):
        for system, session in sessions.items():
            start = time.perf_counter()
            session.run(None, feeds)
            times[system].append(time.perf_counter() - start)
    return {system: statistics.median(values) * 1e3 for system, values in times.items()}


def measure(name: str, repeat: int) -> list[dict[str, Any]]:
    """One row a system for one model."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        systems = (OURS, FOLDED, THEIRS) if name in NORMALIZED else (OURS, THEIRS)
        paths = {system: Path(folder) / f"{index}.onnx" for index, system in enumerate(systems)}
        results: dict[str, list[dict[str, float]]] = {system: [] for system in systems}
        for _ in range(repeat):
            for system, path in paths.items():
                command = [sys.executable, "-m", "benchmarks.conversion", "--one", system, name, str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{system} failed on {name}:\n{done.stderr[-3000:]}")
                results[system].append(json.loads(done.stdout.splitlines()[-1]))
        milliseconds = latencies(paths, name, 15)
        rows = []
        for system, path in paths.items():
            graph = onnx.load(str(path), load_external_data=False).graph
            nodes = len(graph.node) + sum(len(function.node) for function in onnx.load(str(path), load_external_data=False).functions)
            rows.append({"model": name, "system": system, "seconds": statistics.median(r["seconds"] for r in results[system]),
                         "extra_mb": statistics.median(r["extra_mb"] for r in results[system]),
                         "file_mb": path.stat().st_size / 1e6, "nodes": nodes, "latency_ms": milliseconds[system]})
        return rows


COLUMNS = (("seconds", "{:.2f} s"), ("extra_mb", "{:.0f} MB"), ("file_mb", "{:.1f} MB"), ("nodes", "{}"), ("latency_ms", "{:.1f} ms"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(SUBJECTS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("SYSTEM", "MODEL", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        system, name, path = options.one
        print(json.dumps(convert(system, name, Path(path))))
        return
    print("| model | system | convert | extra memory | file | nodes | ONNX Runtime |")
    print("|---|---|---|---|---|---|---|")
    for name in options.models or SUBJECTS:
        *own, theirs = measure(name, options.repeat)
        for row in (*own, theirs):
            cells = " | ".join(form.format(row[key]) for key, form in COLUMNS)
            print(f"| {name} | {row['system']} | {cells} |", flush=True)
        for ours in own:
            ratios = " | ".join(f"{ours[key] / theirs[key]:.2f}" if theirs[key] else "-" for key, _ in COLUMNS)
            print(f"| {name} | ratio{', folded' if ours['system'] == FOLDED else ''} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
