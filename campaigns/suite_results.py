"""What the suites gave: counts by verdict, reasons, and the record of whole suites that the documentation is made from."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from campaigns.suite_checks import DIMS, PASS, RUNTIMES, VERDICTS
from docs.suites import RECORD
from docs.suites import VERDICTS as LABELS

STORE = Path("build/suites")
RECORDED = ("torch", "numpy", "onnx", "onnxruntime")


def result_path(suite: str, name: str) -> Path:
    return STORE / suite / f"{name.replace('/', '_')}.json"


def store(path: Path, name: str, rows: list[dict[str, Any]], seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f"{path.suffix}.new")
    temporary.write_text(json.dumps({"name": name, "seconds": round(seconds, 2), "rows": rows}, indent=1))
    temporary.replace(path)


def load(suite: str, name: str) -> dict[str, Any] | None:
    path = result_path(suite, name)
    return json.loads(path.read_text()) if path.exists() else None


def rows_of(suite: str, names: list[str]) -> list[dict[str, Any]]:
    return [row for name in names for row in (load(suite, name) or {"rows": []})["rows"]]


def counts(rows: list[dict[str, Any]], runtime: str, dims: str) -> Counter[str]:
    return Counter(row["verdicts"][runtime][0] for row in rows if row.get("dims") == dims)


def line(suite: str, name: str) -> str:
    """One class in one line."""
    result = load(suite, name) or {"rows": [], "seconds": 0}
    cells = []
    for runtime in RUNTIMES:
        found = sum((counts(result["rows"], runtime, dims) for dims in DIMS), Counter())
        cells.append(f"{runtime} " + "/".join(str(found[verdict]) for verdict in VERDICTS))
    return f"{name}: {', '.join(cells)} ({result['seconds']:.0f} s)"


def summary(suite: str, names: list[str]) -> dict[str, Any]:
    """What a suite gave: `classes`, `samples`, `seconds`, `counts` by dims, runtime and verdict, and what is `left`.

    `elsewhere` is the number of samples that were run at sizes that were not traced, None where a result does not say.

    `left` has an entry for each reason: its verdict, the classes, and the number of samples. `invalid` lists the samples
    that torch itself does not run, with its reason.
    """
    results = [found for name in names if (found := load(suite, name))]
    rows = [row for found in results for row in found["rows"]]
    left: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for found in results:
        for row in found["rows"]:
            for verdict, reason in row.get("verdicts", {}).values():
                if verdict != PASS:
                    left.setdefault((verdict, reason), []).append((found["name"], row["case"]))
    return {
        "classes": len(results),
        "samples": len({row["case"] for row in rows}),
        "elsewhere": None if any("elsewhere" not in row for row in rows if row.get("dims") == "auto")
        else sum(row["elsewhere"] > 0 for row in rows if row.get("dims") == "auto"),
        "seconds": round(sum(found["seconds"] for found in results)),
        "counts": {dims: {runtime: {verdict: counts(rows, runtime, dims)[verdict] for verdict in VERDICTS} for runtime in RUNTIMES}
                   for dims in DIMS},
        "left": [{"verdict": verdict, "reason": reason, "classes": sorted({name for name, _ in where}),
                  "samples": len({case for _, case in where})} for (verdict, reason), where in sorted(left.items())],
        "invalid": [{"sample": row["case"], "reason": row["invalid"]} for row in rows if "invalid" in row],
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Summaries of suites as a table in Markdown."""
    lines = [f"| suite | dims | runtime | {' | '.join(LABELS[verdict] for verdict in VERDICTS)} | of |",
             f"|{'---|' * (len(VERDICTS) + 4)}"]
    for suite, item in found.items():
        for dims in DIMS:
            for runtime in RUNTIMES:
                cells = item["counts"][dims][runtime]
                lines.append(f"| {suite} | {dims} | {runtime} | {' | '.join(str(cells[verdict]) for verdict in VERDICTS)} "
                             f"| {sum(cells.values())} |")
    return "\n".join(lines)


def reasons(suite: str, names: list[str], *verdicts: str) -> str:
    """Why, with the number of samples and the classes."""
    return "\n".join(f"{item['verdict']} {item['samples']:3} {', '.join(item['classes'])}: {item['reason']}"
                     for item in summary(suite, names)["left"] if item["verdict"] in verdicts)


def record(suite: str, names: list[str]) -> None:
    """Puts a suite that was run whole into the committed record. Raises `ValueError` where a class has no result."""
    missing = [name for name in names if load(suite, name) is None]
    if missing:
        raise ValueError(f"no result of {len(missing)} classes: {', '.join(missing[:5])}")
    held = json.loads(RECORD.read_text()) if RECORD.exists() else {"suites": {}}
    held["versions"] = {name: version(name) for name in RECORDED}
    held["suites"] = dict(sorted({**held["suites"], suite: summary(suite, names)}.items()))
    RECORD.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
