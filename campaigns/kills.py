"""Commands killed at random moments while they replace an output: it must be the old one or the new one, whole.

    python -m campaigns.kills [--count 200] [--signal SIGKILL] [FORMAT ...]

Two checkpoints of one graph are written in a format; then the command that writes the second over the first is killed again and
again. Half of the moments are drawn from the whole run, half from the time in which something lies beside the output. All files that
make up an output (a document and its values) are compared byte for byte with those of runs that nobody disturbed.

SIGKILL may leave a temporary file, or values that no document names; the table counts both. Other signals may leave nothing.
Exits with 1 where an output was neither.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import converter
from converter.format import save_graph

LAYERS, WIDTH = 8, 512
EXTERNAL = ("import sys, converter\nfrom adapters.onnx.export import save_onnx\nfrom converter.cli.guard import failures\n"
            "with failures(False, False):\n"
            "    save_onnx(converter.from_checkpoint(sys.argv[1], 'graph.json'), 'out/m.onnx', external=True)")


def _convert(name: str, output: str, *more: str) -> Callable[[int], list[str]]:
    graph = () if name == "torch" else ("--architecture", "graph.json")
    return lambda seed: ["-m", "converter", f"safetensors-to-{name}", f"w{seed}.safetensors", "-o", f"out/{output}", *graph, *more]


COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "JSON, digits": _convert("json", "m.json", "--encoding", "values"),
    "JSON, base64": _convert("json", "m.json", "--encoding", "base64"),
    "JSON and values beside": _convert("json", "m.json", "--encoding", "file"),
    "HDF5": _convert("hdf5", "m.h5"),
    "ONNX": _convert("onnx", "m.onnx"),
    "ONNX and values beside": lambda seed: ["-c", EXTERNAL, f"w{seed}.safetensors"],
    "safetensors": _convert("torch", "m.safetensors"),
    ".pt": _convert("torch", "m.pt"),
    ".npz of convert run": lambda seed: ["-m", "converter", "run", f"m{seed}.h5", "--input", "x=x.npy", "-o", "out/y.npz"],
}


def write_sources(folder: Path) -> None:
    """Two checkpoints and models of one graph, and an input."""
    builder = converter.GraphBuilder("big")
    x = builder.input("x", "float32", ["batch", WIDTH])
    for index in range(LAYERS):
        x = builder.op("linear", x, builder.parameter(f"w{index}", "float32", [WIDTH, WIDTH]))
    builder.output("y", x)
    save_graph(builder.graph(), builder.parameters, folder / "graph.json")
    for seed in (0, 1):
        values = np.random.default_rng(seed)
        arrays = {name: values.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in builder.parameters}
        model = converter.Model(builder.graph(), converter.InMemoryParameters(arrays))
        converter.save(model, folder / f"w{seed}.safetensors")
        converter.save(model, folder / f"m{seed}.h5")
    np.save(folder / "x.npy", np.ones((1 << 14, WIDTH), np.float32))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def judge(old: dict[str, bytes], new: dict[str, bytes], found: dict[str, bytes]) -> tuple[str, int]:
    """Which output a folder holds, `"old"`, `"new"` or `"neither"`, and how many files more."""
    document = min(new, key=len)
    state = "new" if found.get(document) == new[document] else "old"
    whole = new if state == "new" else old
    if any(found.get(name) != data for name, data in whole.items()):
        state = "neither"
    return state, len(found.keys() - whole.keys())


def kill(folder: Path, argv: list[str], number: int, took: float, writing: float, draw: random.Random) -> None:
    """Runs a command and sends it a signal at a random moment."""
    out = folder / "out"
    before = set(os.listdir(out))
    with subprocess.Popen([sys.executable, *argv], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        if draw.random() < 0.5:
            time.sleep(draw.uniform(0, 1.1 * took))
        else:
            while process.poll() is None and set(os.listdir(out)) <= before:
                time.sleep(0.0005)
            time.sleep(draw.uniform(0, writing))
        process.send_signal(number)


def measure(folder: Path, argv: list[str]) -> tuple[float, float]:
    """Seconds that a command takes, and those in which something lies beside its output."""
    out, since = folder / "out", time.perf_counter()
    before, begun = set(os.listdir(out)), since
    with subprocess.Popen([sys.executable, *argv], cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if set(os.listdir(out)) <= before:
                begun = time.perf_counter()
            time.sleep(0.0005)
    if process.returncode:
        raise SystemExit(f"{argv} failed")
    return time.perf_counter() - since, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(COMMANDS)}; all")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--signal", default="SIGKILL")
    options = parser.parse_args()
    number, draw, neither = signal.Signals[options.signal], random.Random(7), 0
    print(f"| {options.signal} | kills | the old one, whole | the new one, whole | neither | files left beside |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        out = folder / "out"
        write_sources(folder)
        for name in options.formats or COMMANDS:
            command = COMMANDS[name]
            out.mkdir()
            states = []
            for seed in (0, 1):
                took, writing = measure(folder, command(seed))
                states.append(contents(out))
            found: Counter[str] = Counter()
            for _ in range(options.count):
                for path in out.iterdir():
                    path.unlink()
                for item, data in states[0].items():
                    (out / item).write_bytes(data)
                kill(folder, command(1), number, took, writing, draw)
                state, left = judge(*states, contents(out))
                found.update([state])
                found["left"] += left
            neither += found["neither"] + (found["left"] if number != signal.SIGKILL else 0)
            print(f"| {name} | {options.count} | {found['old']} | {found['new']} | {found['neither']} | {found['left']} |", flush=True)
            for path in out.iterdir():
                path.unlink()
            out.rmdir()
    sys.exit(bool(neither))


if __name__ == "__main__":
    main()
