"""Image models as their libraries build them: one of each family of timm, and torchvision's classifiers, with free sizes.

    python -m campaigns.image_models [NAME …] [--suite timm torchvision] [--jobs 2] [--limit 300] [--with-exporter] [--record]

A row is a model with random weights, traced at its own image size with every size free, in a process of its own with a limit
on its time. ONNX Runtime must give what the live module gives at the traced size, at another batch, and at another image
where the converted model takes one. Seconds are processor seconds of that process, whatever else the machine does: of the
conversion alone, and for the exporter, `torch.onnx.export(dynamo=True)` with the same sizes free, of the export alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from converter.format.atomic import atomic_path

RECORD = Path(__file__).parent.parent / "docs" / "image_models.json"
LIMIT = 300.0
TOLERANCE = 1e-3
"""Of the largest value of an output: the weights are random and the arithmetic is float32."""

SMALL = ("atto", "femto", "pico", "xxs", "xxtiny", "nano", "xs", "micro", "mini", "tiny", "_t_", "_s0", "_b0", "_m0",
         "small", "_s_", "18", "_base", "_b_")
PASS, REFUSED, WRONG, LATE = "pass", "refused", "wrong", "late"


def names_of(suite: str) -> list[str]:
    """The models of a suite."""
    from tests.support_torchvision import models

    library = models()
    if suite == "torchvision":
        return sorted(library.list_models(module=library))
    import timm

    chosen = []
    for family in sorted(timm.list_modules()):
        names = timm.list_models(module=family)
        if names:
            chosen.append(min(names, key=lambda name: (next((place for place, word in enumerate(SMALL) if word in f"{name}_"), len(SMALL)),
                                                       len(name), name)))
    return list(dict.fromkeys(chosen))


def build(suite: str, name: str) -> tuple[Any, int]:
    """A model in evaluation mode, and the side of its images."""
    import torch

    from tests.support_torchvision import models, module

    if suite == "torchvision":
        return module(name), 299 if name.startswith("inception") else 224
    models()
    import timm

    torch.manual_seed(0)
    made = timm.create_model(name, pretrained=False).eval()
    return made, int(made.pretrained_cfg["input_size"][-1])


def examine(suite: str, name: str, with_exporter: bool) -> dict[str, Any]:
    """One row: the status, the processor seconds of the conversion, and which sizes are free."""
    import torch

    import converter
    from converter.errors import ConverterError, RunError

    net, side = build(suite, name)
    example = (torch.randn(1, 3, side, side),)
    row: dict[str, Any] = {"suite": suite, "name": name, "status": REFUSED, "reason": "", "seconds": None, "exporter_seconds": None,
                           "free": [], "image": side}
    start = time.process_time()
    try:
        model = converter.from_torch(net, example, examples=False)
    except ConverterError as error:
        return {**row, "reason": " ".join(str(error).split())[:300], "seconds": round(time.process_time() - start, 1)}
    row |= {"seconds": round(time.process_time() - start, 1), "status": PASS,
            "free": [str(size) for size in model.graph.inputs[0].spec.shape],
            "notes": (model.metadata.get("notes") or [])[:4]}
    session = converter.session(model, "onnxruntime")
    for shape in ((1, side, side), (2, side, side), (1, side + 32, side + 64)):
        x = torch.randn(shape[0], 3, *shape[1:])
        try:
            found = next(iter(session.run({model.graph.inputs[0].name: x.numpy()}).values()))
        except RunError:
            continue  # no size of the model's, which `free` tells
        with torch.no_grad():
            wanted = torch.utils._pytree.tree_leaves(net(x))[0].numpy()
        off = float(abs(wanted - found).max() / (abs(wanted).max() or 1)) if wanted.shape == found.shape else float("inf")
        if not off <= TOLERANCE:
            row |= {"status": WRONG, "reason": f"off by {off:.1e} of the largest value at {list(x.shape)}"}
    if with_exporter:
        row["exporter_seconds"] = exporter_seconds(net, example)
    return row


def exporter_seconds(net: Any, example: tuple[Any, ...]) -> float | None:
    """Processor seconds of torch's own exporter; None where it refuses."""
    import torch

    start = time.process_time()
    try:
        axes = (dict.fromkeys(range(4), torch.export.Dim.AUTO),)
        torch.onnx.export(net, (example[0].repeat(2, 1, 1, 1),), dynamo=True, verbose=False, dynamic_shapes=axes)
    except Exception:  # the exporter raises anything
        return None
    return round(time.process_time() - start, 1)


def unfinished(suite: str, name: str, status: str, reason: str) -> dict[str, Any]:
    """The row of a model of which nothing more is known."""
    return {"suite": suite, "name": name, "status": status, "reason": reason, "seconds": None, "exporter_seconds": None, "free": [],
            "image": None}


def _serve(pipe: Connection, suite: str, name: str, with_exporter: bool) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (for as long as the process lives)
    warnings.simplefilter("ignore")
    try:
        pipe.send(examine(suite, name, with_exporter))
    except Exception as error:  # a crash is what this page exists to show
        pipe.send(unfinished(suite, name, WRONG, f"crash: {type(error).__name__}: {error}"[:300]))


def examine_apart(suite: str, name: str, with_exporter: bool, limit: float) -> dict[str, Any]:
    """The row of a process of its own, which is ended when it takes longer than `limit` seconds."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, suite, name, with_exporter), daemon=True)
    process.start()
    theirs.close()
    row = unfinished(suite, name, LATE, f"no result after {limit:.0f} s")
    try:
        if pipe.poll(limit):
            row = pipe.recv()
    except EOFError:
        row["reason"] = "the process ended"
    process.kill()
    process.join()
    return row


def summary(rows: list[dict[str, Any]]) -> str:
    """Counts, and the seconds of the conversions."""
    seconds = sorted(row["seconds"] for row in rows if row["seconds"] is not None)
    counts = ", ".join(f"{sum(row['status'] == status for row in rows)} {status}" for status in (PASS, REFUSED, WRONG, LATE))
    times = f"; processor seconds: median {statistics.median(seconds):.1f}, most {seconds[-1]:.1f}" if seconds else ""
    return f"{len(rows)} models: {counts}{times}"


def record(rows: list[dict[str, Any]]) -> None:
    """Puts rows into what `docs/image_models.md` is made from, in place of what stood there for the same models."""
    before = json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if RECORD.exists() else []
    kept = {(row["suite"], row["name"]): row for row in [*before, *rows]}
    rows = [kept[key] for key in sorted(kept)]
    versions = {"torch": importlib.metadata.version("torch"), "timm": "1.0.31", "torchvision": "0.28.0"}
    with atomic_path(RECORD) as temporary:
        temporary.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models of the suites; default: all")
    parser.add_argument("--suite", nargs="+", choices=("timm", "torchvision"), default=["timm", "torchvision"])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds on the clock for a row")
    parser.add_argument("--with-exporter", action="store_true")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    jobs = [(suite, name) for suite in options.suite for name in names_of(suite) if not options.names or name in options.names]
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda job: examine_apart(*job, options.with_exporter, options.limit), jobs):
            rows.append(row)
            if options.record:
                record([row])
            print(f"{row['status']:8}{row['suite']}/{row['name']:40} {row['seconds']} s, exporter {row['exporter_seconds']} s  "
                  f"{' × '.join(row['free'])}  {row['reason']}", flush=True)
    print(summary(rows))
    sys.exit(any(row["status"] == WRONG for row in rows))


if __name__ == "__main__":
    main()
