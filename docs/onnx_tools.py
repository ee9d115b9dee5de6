"""The page's section on other tools' files, from `docs/onnx_tools.json`, which `python -m campaigns.onnx_tools` writes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "onnx_tools.json"
LIVE = Path(__file__).parent / "live_models.json"
VERDICTS = ("pass", "refused", "unjudged", "wrong", "crash")
TOOLS = {
    "torchscript": "`torch.onnx.export(dynamo=False)`", "dynamo": "`torch.onnx.export(dynamo=True)`",
    "quantiser": "ONNX Runtime's quantiser", "optimiser": "ONNX Runtime's transformer optimiser",
    "onnxruntime-saved": "what ONNX Runtime saves of its own graph optimisation", "float16": "ONNX Runtime's float16 conversion",
    "version-converter": "onnx's version converter", "onnxslim": "onnxslim", "onnxsim": "onnxsim", "onnxoptimizer": "onnxoptimizer",
    "skl2onnx": "skl2onnx", "onnxmltools": "onnxmltools (LightGBM, XGBoost)", "jax2onnx": "jax2onnx", "keras": "Keras' `export`",
    "tf2onnx": "tf2onnx", "shipped": "trained files that packages ship"}
TEXT = """\
Written by other tools ({versions}, and those of the table), by `python -m campaigns.onnx_tools FOLDER --record`, which says
how they are made. *pass*: the file is read; `convert verify` finds the reference, NumPy, ONNX Runtime on the ONNX form that the model
has again, and ONNX Runtime on the file as it lies equivalent, at the sizes that are given and drawn; and that ONNX form is read as the
same model. *refused*: what cannot be read is named. *unjudged*: read, but ONNX Runtime does not run the file, or no inputs were found
that it takes. *strays*: it passes where ONNX Runtime runs the nodes as they stand; what it fuses of them by default rounds otherwise,
and beyond what rounding explains. *lifted*: the share of the files' nodes that are gone or that the converter's own trace of the
module has too, where there is one ([live_models.md](live_models.md)).
"""


def section() -> list[str]:
    """What became of each tool's files: counts, what is no pass, and the nodes before and after."""
    if not RECORD.exists():
        return []
    held = json.loads(RECORD.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = held["rows"]
    total = Counter(row["verdict"] for row in rows)
    versions = ", ".join(f"{name} {number}" for name, number in held["versions"].items())
    lines = ["## Files of other tools", "", TEXT.format(versions=versions),
             f"{len(rows)} files: **{', '.join(f'{total[verdict]} {verdict}' for verdict in VERDICTS)}**.", "",
             f"| tool | files | {' | '.join(VERDICTS)} | strays | sizes run | nodes, of those that pass | neutral nodes | lifted |",
             f"|{'---|' * (len(VERDICTS) + 7)}"]
    traced = _traced()
    for tool in sorted({row["tool"] for row in rows}, key=list(TOOLS).index):
        own = [row for row in rows if row["tool"] == tool]
        counts = Counter(row["verdict"] for row in own)
        passing = [row for row in own if row["verdict"] == "pass"]
        nodes, left = (sum(row[key] for row in passing) for key in ("nodes", "left"))
        strays, sizes = sum(row["strays"] for row in own), sum(row["sizes"] for row in passing)
        cells = [TOOLS[tool], len(own), *(counts[verdict] for verdict in VERDICTS), strays, sizes, f"{nodes:,}", f"{left:,}",
                 _lifted(passing, traced)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    rest = [row for row in rows if row["verdict"] != "pass" or row["strays"]]
    if rest:
        lines += ["", "What is no pass, or strays:", "", "| file | what | reason |", "|---|---|---|"]
        lines += [f"| {row['tool']}/{row['name']} | {'strays' if row['strays'] else row['verdict']} | {_cell(row['reason'])} |"
                  for row in rest]
    return [*lines, ""]


def _cell(reason: str) -> str:
    return reason.replace("|", "\\|")[:200]


def _traced() -> dict[str, int]:
    """How many nodes the converter's own trace of an architecture has."""
    held = json.loads(LIVE.read_text(encoding="utf-8"))
    return {row["name"].partition("/")[2]: row["nodes"] for row in held["rows"] if row["dims"] == "auto" and row["status"] == "pass"}


def _lifted(rows: list[dict[str, Any]], traced: dict[str, int]) -> str:
    """In percent, of the rows whose module was traced."""
    known = [row for row in rows if row["name"] in traced]
    nodes = sum(row["nodes"] for row in known)
    return f"{100 * (1 - sum(max(0, row['left'] - traced[row['name']]) for row in known) / nodes):.1f} %" if nodes else ""
