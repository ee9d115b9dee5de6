"""The section of the coverage page on torch's own cases, from `docs/suites.json`, which `python -m campaigns.suites` records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "suites.json"
VERDICTS = {"pass": "pass", "refused": "refused", "random": "random in torch itself", "impossible": "not torch's or NumPy's to give",
            "wrong": "wrong"}
SUITES = {
    "modules": "every float32 evaluation-mode sample of every class in `torch.testing._internal.common_modules.module_db`",
    "core": "calls of every overload that torch tags `core`, seen while torch runs its operator samples, and samples of the operators "
            "that `torch.export` leaves whole and models are made of (`op_db`; float32, int64, bool, float16, bfloat16, complex64)",
}
MOST_CLASSES = 8


def section() -> list[str]:
    """The lines of the section; none where nothing is recorded."""
    if not RECORD.exists():
        return []
    held = json.loads(RECORD.read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {number}" for name, number in held["versions"].items())
    lines = ["## torch's own cases", "",
             f"Recorded by `python -m campaigns.suites SUITE --record` with {versions}.",
             "Each sample goes live module, neutral model, JSON, loaded again, with fixed sizes (static) and with free ones (auto: run at",
             "the sample's sizes and, where some stay free and torch runs there, at two others), and is compared with torch: the reference",
             "in float64, NumPy and ONNX Runtime within the error budget. Half precision is traced with fixed sizes only.", ""]
    for name, item in held["suites"].items():
        elsewhere = "" if item.get("elsewhere") is None else f"{item['elsewhere']:,} of them run at other sizes than the traced ones, "
        lines.append(f"- **{name}**: {SUITES[name]}: {item['classes']} classes, {item['samples']:,} samples, {elsewhere}"
                     f"{item['seconds'] / 60:.0f} minutes as the sum of its classes'.")
    lines += ["", f"| suite | sizes | runtime | {' | '.join(VERDICTS.values())} | of |", f"|{'---|' * (len(VERDICTS) + 4)}"]
    for name, item in held["suites"].items():
        for dims in ("static", "auto"):
            for runtime in ("reference", "numpy", "onnxruntime"):
                counts = item["counts"][dims][runtime]
                lines.append(f"| {name} | {dims} | {runtime} | {' | '.join(f'{counts[verdict]:,}' for verdict in VERDICTS)} "
                             f"| {sum(counts.values()):,} |")
    lines += ["", "What is no pass, with the number of samples:", "", "| suite | | reason | samples | of |", "|---|---|---|---|---|"]
    for name, item in held["suites"].items():
        lines += [f"| {name} | {VERDICTS[entry['verdict']]} | {_cell(entry['reason'])} | {entry['samples']} | {_classes(entry)} |"
                  for entry in item["left"]]
    for name, item in held["suites"].items():
        lines += ["", f"Samples of *{name}* that torch itself does not run, on copies of their tensors:", ""] if item["invalid"] else []
        lines += [f"- {entry['sample']}: {_cell(entry['reason'])}" for entry in item["invalid"]]
    return [*lines, ""]


def _classes(entry: dict[str, Any]) -> str:
    names = [f"`{name}`" for name in entry["classes"]]
    return ", ".join(names[:MOST_CLASSES]) + (f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
