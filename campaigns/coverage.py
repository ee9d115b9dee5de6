"""What converts, what is refused and what is wrong: a suite of models through this project, and through torch's exporter.

    python -m campaigns.coverage architectures [FAMILY | FAMILY/MODEL …] [--dims auto static] [--with-exporter] [--json FILE] [--record]

`auto` leaves every size free that the tracer can, and runs at sizes that were not traced; `static` runs at the traced one.
The exporter is `torch.onnx.export(dynamo=True)`; its outputs must be within 1e-3 of the live module's.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from converter.format.atomic import atomic_path

SUITES = ("architectures",)
RECORD = Path(__file__).parent.parent / "docs" / "live_models.json"


def names_of(suite: str, wanted: list[str]) -> list[str]:
    """The names of a suite's subjects."""
    from campaigns.architectures import architectures

    return [subject.name for subject in architectures(*wanted)]


def examine(name: str, dims: str, with_exporter: bool) -> dict[str, Any]:
    """One subject: this project's verdict, and the exporter's in `exporter`. Whatever is raised is a verdict too."""
    from campaigns.architectures import architectures
    from campaigns.judging import WRONG, Verdict, judge

    (subject,) = architectures(name)
    try:
        verdict = judge(subject, dims)
    except Exception as error:  # a crash is what this page exists to show
        verdict = Verdict(name, dims, WRONG, f"crash: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    if with_exporter:
        from benchmarks.exporter import judge_exporter

        verdict.exporter = judge_exporter(subject, dims)
    return dataclasses.asdict(verdict)


def run(names: list[str], dims: list[str], with_exporter: bool, workers: int) -> Iterator[dict[str, Any]]:
    """Verdicts in order, one process in `workers` each."""
    jobs = [(name, kind) for name in names for kind in dims]
    if workers <= 1:
        for name, kind in jobs:
            yield examine(name, kind, with_exporter)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(examine, name, kind, with_exporter) for name, kind in jobs]
        for future in futures:
            yield future.result()


def line(row: dict[str, Any]) -> str:
    """A verdict in one line."""
    theirs = "  exporter: {status} ({nodes} nodes) {reason}".format(**row["exporter"]) if row["exporter"] else ""
    frozen = f"  [{len(row['frozen'])} sizes frozen: {row['frozen'][0]}]" if row["frozen"] else ""
    return (f"{row['status']:8}{row['name']:48}{row['dims']:7}{row['nodes']:5} nodes, {row['onnx_nodes']} in ONNX, {row['seconds']:6.1f} s "
            f"{row['sizes']} sizes{frozen}  {row['reason']}{theirs}")


def summary(rows: list[dict[str, Any]]) -> str:
    """Counts with their denominators, as a Markdown table."""
    lines = ["| dims | subjects | pass | refused | wrong | some size frozen | exporter passes |", "|---|---|---|---|---|---|---|"]
    for kind in dict.fromkeys(row["dims"] for row in rows):
        own = [row for row in rows if row["dims"] == kind]
        counts = Counter(row["status"] for row in own)
        frozen = sum(bool(row["frozen"]) for row in own)
        theirs = sum(row["exporter"]["status"] == "pass" for row in own if row["exporter"]) if any(row["exporter"] for row in own) else "-"
        lines.append(f"| {kind} | {len(own)} | {counts['pass']} | {counts['refused']} | {counts['wrong']} | {frozen} | {theirs} |")
    return "\n".join(lines)


def keep(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes verdicts into a file among those that it has of other subjects; the exporter's outcome stays where there is no new one."""
    held = {(row["name"], row["dims"]): row for row in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}
    for row in rows:
        key = row["name"], row["dims"]
        held[key] = {**row, "exporter": row["exporter"] or held.get(key, {}).get("exporter")}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(list(held.values()), indent=1) + "\n", encoding="utf-8")


def record(rows: list[dict[str, Any]]) -> None:
    """Writes verdicts as the record that `docs/live_models.md` is made from: the named families, in their order."""
    from campaigns.architectures import NAMED, architectures

    order = [subject.name for subject in architectures(*NAMED)]
    kept = ("name", "dims", "status", "reason", "frozen", "nodes", "onnx_nodes", "exporter", "seconds")
    held = {(row["name"], row["dims"]): {key: round(row[key], 1) if key == "seconds" else row[key] for key in kept} for row in rows}
    found = [held[name, dims] for name in order for dims in ("auto", "static") if (name, dims) in held]
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "onnxruntime", "onnxscript")}
    with atomic_path(RECORD) as temporary:
        temporary.write_text(json.dumps({"versions": versions, "rows": found}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("names", nargs="*", help="families or subjects; default: all")
    parser.add_argument("--dims", nargs="+", choices=("auto", "static"), default=["auto", "static"])
    parser.add_argument("--with-exporter", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", type=Path, help="where to write the verdicts, beside those that it has of other subjects")
    parser.add_argument("--record", action="store_true", help="write what --json holds as docs/live_models.json")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    start = time.perf_counter()
    rows = []
    for row in run(names_of(options.suite, options.names), options.dims, options.with_exporter, options.workers):
        rows.append(row)
        print(line(row), flush=True)
        if options.json:
            keep(options.json, [row])
    print()
    print(summary(rows))
    print(f"\n{time.perf_counter() - start:.0f} s")
    if options.record:
        record(json.loads(options.json.read_text(encoding="utf-8")) if options.json else rows)
    if any(row["status"] == "wrong" for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
