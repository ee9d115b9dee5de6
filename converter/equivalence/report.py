"""The judgement: a row for each thing that was compared, and the verdict that they add up to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from converter.equivalence.compare import Comparison

if TYPE_CHECKING:
    from rich.console import Console

Stage = Literal["model", "structure", "recorded", "rounding"]
STAGES: Mapping[str, str] = {
    "model": "the same parameters and graph",
    "structure": "the same computation, in float64",
    "recorded": "recorded outputs against the float64 truth",
    "rounding": "each runtime against the float64 truth",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: an output of a runtime in a case, or a part of a model.

    `error` and `allowed` are in `unit`; `compared` counts the values that were judged.
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

    @property
    def passed(self) -> bool:
        return not self.reason


def row(stage: Stage, subject: str, output: str, case: str, sizes: Mapping[str, int], found: Comparison) -> Row:
    """A row from a comparison."""
    return Row(stage, subject, output, case, dict(sizes), found.error, found.allowed, found.unit, found.compared, found.reason)


def failure(stage: Stage, subject: str, output: str, reason: str, case: str = "", sizes: Mapping[str, int] | None = None) -> Row:
    """A row for what could not be compared, and therefore fails."""
    return Row(stage, subject, output, case, dict(sizes or {}), math.inf, 0.0, "", 0, reason)


@dataclass
class Report:
    """What `verify` found. True when every comparison holds, and there was one."""

    model: str
    digest: str
    rows: list[Row] = field(default_factory=list)
    budget: str = ""
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.rows) and all(item.passed for item in self.rows)

    @property
    def exit_code(self) -> int:
        """0: equivalent; 1: not."""
        return 0 if self else 1

    @property
    def failures(self) -> list[Row]:
        return [item for item in self.rows if not item.passed]

    def add(self, rows: Iterable[Row]) -> None:
        self.rows += rows

    def summary(self) -> list[Row]:
        """For each stage, subject and output the row that comes nearest to its limit, or beyond it."""
        worst: dict[tuple[str, str, str], Row] = {}
        for item in self.rows:
            key = (item.stage, item.subject, item.output)
            if key not in worst or _share(item) > _share(worst[key]):
                worst[key] = item
        return sorted(worst.values(), key=lambda item: list(STAGES).index(item.stage))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; an infinite error is the string `"inf"`."""
        return {
            "model": self.model, "digest": self.digest, "equivalent": bool(self), "budget": self.budget, "seed": self.seed,
            "notes": list(self.notes), "versions": dict(self.versions),
            "seconds": {name: round(value, 6) for name, value in self.seconds.items()},
            "rows": [{**asdict(item), "error": _number(item.error), "allowed": _number(item.allowed), "verdict":
                      "pass" if item.passed else "fail"} for item in self.rows],
        }

    def __str__(self) -> str:
        count = len(self.rows)
        lines = [f"{self.model}: {'equivalent' if self else 'NOT equivalent'} ({count} comparison{'s' * (count != 1)}, "
                 f"{len(self.failures)} failed)"]
        lines += [f"  {item.stage}, {item.subject}, {item.output}{f', {item.case}' if item.case else ''}: {item.reason}"
                  for item in self.failures[:20]]
        if len(self.failures) > 20:
            lines.append(f"  … and {len(self.failures) - 20} more")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _share(item: Row) -> float:
    """How much of its allowance a row uses; above 1 only for a failure."""
    if not item.passed:
        return math.inf
    return item.error / item.allowed if item.allowed else 0.0


def _number(value: float) -> float | str:
    return float(value) if math.isfinite(value) else "inf" if value > 0 else "-inf" if value < 0 else "nan"


def print_report(report: Report, console: Console | None = None, *, verbose: bool = False) -> None:
    """Prints a report as a table. `verbose` shows every case, not only the one nearest to its limit.

    Args:
        report: from `verify`.
        console: where to; default: standard output.
    """
    from rich.console import Console as RichConsole
    from rich.markup import escape
    from rich.table import Table

    console = console or RichConsole()
    rows = report.rows if verbose else report.summary()
    for stage, title in STAGES.items():
        chosen = [item for item in rows if item.stage == stage]
        if not chosen:
            continue
        table = Table(title=f"{stage.capitalize()}: {title}", title_justify="left", title_style="bold")
        heads = [("by", "left"), ("output", "left"), ("sizes", "left"), ("error", "right"), ("allowed", "right"),
                 ("of it", "right"), ("values", "right"), ("verdict", "left")]
        if stage == "model":
            heads = [("by", "left"), ("part", "left"), ("verdict", "left")]
        for head, justify in heads:
            table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for item in chosen:
            verdict = "[green]pass[/green]" if item.passed else f"[bold red]FAIL[/bold red] {escape(item.reason)}"
            sizes = ", ".join(f"{name}={size}" for name, size in item.sizes.items())
            share = f"{100 * _share(item):.0f}%" if item.passed and item.allowed else ""
            cells = [item.subject, item.output, sizes, _text(item.error, item.unit), _text(item.allowed, item.unit), share,
                     str(sum(other.compared for other in report.rows if (other.stage, other.subject, other.output) ==
                             (item.stage, item.subject, item.output)) if not verbose else item.compared)]
            cells = cells[:2] if stage == "model" else cells
            table.add_row(*map(escape, cells), verdict)
        console.print(table)
    for note in report.notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")
    if report.budget:
        console.print(f"budget: {escape(report.budget)}")
    if report.seconds:
        console.print("seconds: " + escape(", ".join(f"{name} {value:.3g}" for name, value in report.seconds.items())))
    if report.versions:
        console.print("versions: " + escape(", ".join(f"{name} {value}" for name, value in report.versions.items())))
    if report.digest:
        console.print(f"digest: {escape(report.digest)}")
    verdict = "[bold green]equivalent[/bold green]" if report else "[bold red]NOT equivalent[/bold red]"
    console.print(f"{escape(report.model)}: {verdict} ({len(report.rows)} comparisons, {len(report.failures)} failed)")


def _text(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip() if math.isfinite(value) else "—"
