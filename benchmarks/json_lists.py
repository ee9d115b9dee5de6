"""Parameters written as lists of numbers: seconds and memory to read them, against `json` and `orjson` on whole documents.

    python -m benchmarks.json_lists [--repeat 3]

A document with one float32 parameter is read in a process of its own: by this project (`converter.load` and the
parameter's array), by `json.loads` and by `orjson.loads` of the text with `numpy.array` of the lists. All give the same
array, bit for bit. Extra memory is the peak of the process's own anonymous pages over what it held before, which the array
itself is a part of. Medians, systems in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.conversion import memory

SHAPES = ((2000, 1000), (2_000_000,), (1000, 50, 40), (200_000, 10))
SYSTEMS = ("model-converter", "json", "orjson")


def write(shape: tuple[int, ...], path: Path) -> None:
    """A model whose only parameter is of that shape."""
    import converter

    builder = converter.GraphBuilder("lists")
    x = builder.input("x", "float32", [*shape])
    weight = builder.parameter("weight", "float32", shape)
    builder.output("y", builder.op("add", x, weight))
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    converter.save(converter.Model(builder.graph(), converter.InMemoryParameters({"weight": values})), path, encoding="values")


def read(system: str, path: Path, warm: Path) -> dict[str, Any]:
    """One reading in this process, after a reading of something small by which modules are imported."""
    import converter

    def values(source: Path) -> Any:
        if system == "model-converter":
            return converter.load(source).parameters.read("weight")
        if system == "orjson":
            import orjson

            document = orjson.loads(source.read_bytes())
        else:
            document = json.loads(source.read_text())
        return np.array(document["parameters"]["weight"]["values"], np.float32)

    values(warm)
    before, peak, done = memory("RssAnon"), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak.append(memory("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    array = values(path)
    seconds = time.perf_counter() - start
    peak.append(memory("RssAnon"))
    done.set()
    watcher.join()
    places = np.arange(1, array.size + 1, dtype=np.uint32)
    check = int(np.bitwise_xor.reduce(array.reshape(-1).view(np.uint32) * places))
    return {"seconds": seconds, "extra_mb": max(peak) - before, "array_mb": array.nbytes / 1e6, "check": check}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("SYSTEM", "FILE", "SMALL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(read(options.one[0], Path(options.one[1]), Path(options.one[2]))))
        return
    print("| shape | system | seconds | nanoseconds a value | extra memory | of the array | times as fast as json |")
    print("|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.json"
            small = Path(folder) / "small.json"
            write(shape, path)
            write((100,), small)
            found: dict[str, list[dict[str, Any]]] = {system: [] for system in SYSTEMS}
            for _ in range(options.repeat):
                for system in SYSTEMS:
                    command = [sys.executable, "-m", "benchmarks.json_lists", "--one", system, str(path), str(small)]
                    found[system].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            if len({row["check"] for rows in found.values() for row in rows}) != 1:
                raise SystemExit("the systems read different arrays")
            slow = statistics.median(row["seconds"] for row in found["json"])
            for system, rows in found.items():
                seconds, extra = (statistics.median(row[key] for row in rows) for key in ("seconds", "extra_mb"))
                print(f"| {' × '.join(map(str, shape))} | {system} | {seconds:.3f} | {seconds / np.prod(shape) * 1e9:.0f} | "
                      f"{extra:.0f} MB | {extra / rows[0]['array_mb']:.1f} | {slow / seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
