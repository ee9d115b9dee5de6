"""The section of the coverage page on sizes that were not traced, from `docs/sweeps.json` (`python -m campaigns.sweeps --record`)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

RECORD = Path(__file__).parent / "sweeps.json"
VERDICTS = ("equal", "refused by both", "refused by the model alone", "wrong")


def section() -> list[str]:
    """The lines of the section; none where nothing is recorded."""
    if not RECORD.exists():
        return []
    held = json.loads(RECORD.read_text(encoding="utf-8"))
    total: dict[str, Counter[str]] = {}
    for row in held["rows"]:
        for runtime, counts in row["counts"].items():
            total.setdefault(runtime, Counter()).update(counts)
    lines = ["## Sizes that were not traced", "",
             f"Recorded by `python -m campaigns.sweeps --record` with torch {held['torch']}: {len(held['rows'])} functions of one",
             "sequence (at 17 lengths) and of two (at 56 pairs), each traced once. *Refused by the model alone*: torch takes the",
             "size, and the model says clearly that it does not.", "",
             f"| runtime | {' | '.join(VERDICTS)} |", f"|{'---|' * (len(VERDICTS) + 1)}"]
    lines += [f"| {runtime} | {' | '.join(f'{counts[verdict]:,}' for verdict in VERDICTS)} |" for runtime, counts in total.items()]
    unconverted = [f"`{row['function']}`" for row in held["rows"] if not row["counts"]]
    return [*lines, "", *([f"Not converted: {', '.join(unconverted)}", ""] if unconverted else [])]
