"""The judgement: a row for each thing that was compared, and the verdict that they add up to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from converter.equivalence.compare import Comparison
from converter.ir import Array

Stage = Literal["model", "structure", "recorded", "rounding", "quantisation"]
STAGES: Mapping[str, str] = {
    "model": "the same parameters and graph",
    "structure": "the same computation, in float64",
    "recorded": "recorded outputs against the float64 truth",
    "rounding": "each runtime against the float64 truth",
    "quantisation": "a variant's numbers against the model's, both in float64",
}


FIX = "inputs of your own that the model takes are judged too: --input-file FILE.npz, or verify(…, inputs=…)"

SHOWN = 3
"""How many inputs that were not judged are told of."""

EDGES = (0.0, *(2.0**power for power in range(-4, 21)))
"""Upper ends of a histogram's bins, in ulps of the whole output; the last bin holds what is beyond them, or not finite."""


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: an output of a runtime in a case, or a part of a model.

    `error` and `allowed` are in `unit`; `compared` counts the values that were judged. An `open` row neither holds nor fails: there was
    nothing to judge, for its `reason`.
    """

    stage: Stage
    subject: str
    output: str
    case: str
    sizes: Mapping[str, int]
    error: float
    allowed: float
    unit: str
    compared: int
    reason: str = ""
    open: bool = False

    @property
    def verdict(self) -> str:
        """pass, fail, or open."""
        return "pass" if self.passed else "open" if self.open else "fail"

    @property
    def passed(self) -> bool:
        return not self.reason


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Drawn inputs that the model's source refuses, or the graph at sizes at which it runs on others: they say nothing of the model."""

    case: str
    sizes: Mapping[str, int]
    by: str
    reason: str

    def __str__(self) -> str:
        sizes = f" ({sizes_text(self.sizes)})" if self.sizes else ""
        return f"{self.case}{sizes}: the {self.by} refuses: {self.reason}"


@dataclass(frozen=True, slots=True)
class Location:
    """Where it goes wrong: the first node whose value leaves its budget.

    `index` counts the graph's nodes from 0; `source` is the user's line of code. Without a node (`index` None) `reason` says
    why none can be named. `statistics` are of the value beside the truth.
    """

    stage: Stage
    subject: str
    case: str
    sizes: Mapping[str, int]
    reason: str
    index: int | None = None
    op: str = ""
    value: str = ""
    spec: str = ""
    source: str | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)
    part: str = ""

    def __str__(self) -> str:
        if self.index is None:
            return f"{self.subject}: {self.reason}"
        source = f", from {self.source}" if self.source else ""
        return f"{self.subject}: first at node {self.index}, {self.op} -> {self.value} ({self.spec}){source}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Point:
    """A value along the graph: how much of its allowance the error uses (above 1: beyond it)."""

    index: int
    op: str
    value: str
    error: float
    allowed: float
    share: float
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The error along the graph, of one runtime in one case."""

    stage: Stage
    subject: str
    case: str
    sizes: Mapping[str, int]
    points: tuple[Point, ...]


def histogram(errors: Array) -> list[int]:
    """How many errors, in ulps, fall into each bin of `EDGES`."""
    places = np.searchsorted(np.asarray(EDGES), np.nan_to_num(errors, nan=np.inf, posinf=np.inf).reshape(-1), side="left")
    return [int(count) for count in np.bincount(places, minlength=len(EDGES) + 1)]


def row(stage: Stage, subject: str, output: str, case: str, sizes: Mapping[str, int], found: Comparison) -> Row:
    """A row from a comparison."""
    return Row(stage, subject, output, case, dict(sizes), found.error, found.allowed, found.unit, found.compared, found.reason)


def failure(stage: Stage, subject: str, output: str, reason: str, case: str = "", sizes: Mapping[str, int] | None = None, *,
            open: bool = False) -> Row:
    """A row for what could not be compared, and therefore fails; or is left `open`."""
    return Row(stage, subject, output, case, dict(sizes or {}), math.inf, 0.0, "", 0, reason, open)


@dataclass
class Report:
    """What `verify` found. True when every comparison holds, and there was one.

    `unjudged` has the drawn inputs that could not be used, `tried` counts all that were drawn.
    """

    model: str
    digest: str
    rows: list[Row] = field(default_factory=list)
    budget: str = ""
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    locations: list[Location] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    histograms: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    command: str = ""
    unjudged: list[Unjudged] = field(default_factory=list)
    tried: int = 0
    strays: list[Row] = field(default_factory=list)
    """What failed of a file as its runtime runs it by default, and not as its nodes stand, of which `rows` tell."""

    def __bool__(self) -> bool:
        return bool(self.rows) and all(item.passed for item in self.rows)

    @property
    def exit_code(self) -> int:
        """0: equivalent; 1: not; 2: nothing fails, but something could not be judged at all."""
        return 0 if self else 1 if self.failures else 2

    @property
    def verdict(self) -> str:
        """The same in words."""
        return ("equivalent", "NOT equivalent", "cannot be judged")[self.exit_code]

    @property
    def failures(self) -> list[Row]:
        return [item for item in self.rows if not item.passed and not item.open]

    @property
    def left_open(self) -> list[Row]:
        """What could not be judged at all."""
        return [item for item in self.rows if item.open and not item.passed]

    def counted(self) -> str:
        """How many comparisons there were, and how many drawn inputs were not judged, in a few words."""
        count = len(self.rows)
        words = [f"{count} comparison{'s' * (count != 1)}", f"{len(self.failures)} failed"]
        words += [f"{len(self.left_open)} without anything to judge"] * bool(self.left_open)
        words += [f"{len(self.unjudged)} of {self.tried} drawn inputs not judged"] * bool(self.unjudged)
        return ", ".join(words)

    def advice(self) -> list[str]:
        """What was not judged, and what to do about it; no lines where all was."""
        if not self.unjudged:
            return []
        shown = [f"not judged: {item}" for item in self.unjudged[:SHOWN]]
        more = len(self.unjudged) - len(shown)
        return [*shown, *[f"not judged: {more} more drawn inputs"] * (more > 0), FIX]

    def add(self, rows: Iterable[Row]) -> None:
        self.rows += rows

    def count(self, subject: str, output: str, errors: Array) -> None:
        """Adds errors, in ulps of the whole output, to a histogram."""
        counts = histogram(errors)
        outputs = self.histograms.setdefault(subject, {})
        known = outputs.get(output, [0] * len(counts))
        outputs[output] = [first + second for first, second in zip(known, counts, strict=True)]

    def summary(self) -> list[Row]:
        """For each stage, subject and output the row that comes nearest to its limit, or beyond it."""
        worst: dict[tuple[str, str, str], Row] = {}
        for item in self.rows:
            key = (item.stage, item.subject, item.output)
            if key not in worst or share_of(item) > share_of(worst[key]):
                worst[key] = item
        return sorted(worst.values(), key=lambda item: list(STAGES).index(item.stage))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; an infinite error is the string `"inf"`."""
        def rows(items: list[Row]) -> list[dict[str, Any]]:
            return [{**asdict(item), "error": _number(item.error), "allowed": _number(item.allowed), "verdict": item.verdict}
                    for item in items]

        return {
            "model": self.model, "digest": self.digest, "equivalent": bool(self), "verdict": self.verdict,
            "budget": self.budget, "seed": self.seed,
            "notes": list(self.notes), "versions": dict(self.versions),
            "seconds": {name: round(value, 6) for name, value in self.seconds.items()},
            "command": self.command,
            "drawn": self.tried, "unjudged": [asdict(item) for item in self.unjudged],
            "locations": [{**asdict(item), "statistics": {name: _number(value) for name, value in item.statistics.items()}}
                          for item in self.locations],
            "traces": [{**asdict(item), "points": [{**asdict(point), "error": _number(point.error), "allowed": _number(point.allowed),
                                                    "share": _number(point.share)} for point in item.points]} for item in self.traces],
            "histograms": {"edges": list(EDGES), "counts": self.histograms},
            "rows": rows(self.rows), "strays": rows(self.strays),
        }

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.verdict} ({self.counted()})"]
        bad = [*self.failures, *self.left_open]
        lines += [f"  {item.stage}, {item.subject}, {item.output}{f', {item.case}' if item.case else ''}: {item.reason}"
                  for item in bad[:20]]
        if len(bad) > 20:
            lines.append(f"  … and {len(bad) - 20} more")
        lines += [f"  where: {location}" for location in self.locations]
        return "\n".join([*lines, *(f"  {line}" for line in self.advice()), *(f"  note: {note}" for note in self.notes)])


def share_of(item: Row) -> float:
    """How much of its allowance a row uses; above 1 only for a failure."""
    if not item.passed:
        return math.inf if not item.open else 1.0
    return item.error / item.allowed if item.allowed else 0.0


def _number(value: float) -> float | str:
    return float(value) if math.isfinite(value) else "inf" if value > 0 else "-inf" if value < 0 else "nan"


def sizes_text(sizes: Mapping[str, int]) -> str:
    """`batch=2, time=3`."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def number_text(value: float, unit: str = "") -> str:
    """Three digits and the unit; a dash for what is no number."""
    return f"{value:.3g} {unit}".rstrip() if math.isfinite(value) else "—"
