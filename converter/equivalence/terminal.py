"""A report on the terminal: a table for each stage, reasons below it, and what a person needs to repeat it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converter.equivalence.report import STAGES, Report, number_text, share_of, sizes_text
from converter.errors import shown

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

WIDTH = 132
"""Columns of a table that goes to no terminal."""

SHOWN = 8
"""How many failures of a stage are told in words, unless all are asked for."""

VERDICTS = {"pass": "[green]pass[/green]", "fail": "[bold red]FAIL[/bold red]", "open": "[yellow]open[/yellow]"}

PARTS = (("by", "left", True), ("part", "left", True), ("verdict", "left", False))
COLUMNS = (("by", "left", True), ("output", "left", True), ("error", "right", False), ("allowed", "right", False),
           ("used", "right", False), ("values", "right", False), ("nearest at", "left", True), ("verdict", "left", False))


def escape(text: str) -> str:
    """Text of a file or of a framework as rich prints it: one line, without markup and without control characters."""
    from rich.markup import escape as without_markup

    return without_markup(shown(text, lines=False))


def print_report(report: Report, console: RichConsole | None = None, *, verbose: bool = False) -> None:
    """Prints a report as tables, with the reasons of failures below them.

    Args:
        report: from `verify`.
        console: where to; default: standard output, at least `WIDTH` columns wide where that is no terminal.
        verbose: show every case, not only the one nearest to its limit.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich itself would exit with 1

    if console is None:
        console = Piped()
        if not console.is_terminal:
            console = Piped(width=max(console.width, WIDTH))
    rows = report.rows if verbose else report.summary()
    for stage, title in STAGES.items():
        chosen = [item for item in rows if item.stage == stage]
        if not chosen:
            continue
        console.print(f"[bold]{stage.capitalize()}[/bold]: {title}")
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=True)
        parts = stage == "model"
        for head, justify, ratio in (PARTS if parts else COLUMNS):
            table.add_column(head, justify=justify, overflow="fold", no_wrap=not ratio)  # type: ignore[arg-type]
        for item in chosen:
            verdict = VERDICTS[item.verdict]
            cells = [item.subject, item.output]
            if not parts:
                share = f"{100 * share_of(item):.0f}%" if item.passed and item.allowed else ""
                compared = item.compared if verbose else sum(
                    other.compared for other in report.rows if (other.stage, other.subject, other.output) ==
                    (item.stage, item.subject, item.output))
                cells += [number_text(item.error, item.unit), number_text(item.allowed, item.unit), share, f"{compared:,}",
                          sizes_text(item.sizes)]
            table.add_row(*map(escape, cells), verdict)
        console.print(table)
        failed = [item for item in (*report.failures, *report.left_open) if item.stage == stage]
        for item in failed if verbose else failed[:SHOWN]:
            where = ", ".join(filter(None, (item.subject, item.output, sizes_text(item.sizes) or item.case)))
            console.print(f"  [red]✗[/red] {escape(where)}: {escape(item.reason)}", soft_wrap=True)
        if len(failed) > SHOWN and not verbose:
            console.print(f"  … and {len(failed) - SHOWN} more (-v shows all)")
        console.print()
    for location in report.locations:
        console.print(f"[bold]Where[/bold]: {escape(str(location))}", soft_wrap=True)
        if location.statistics:
            console.print("  " + escape(", ".join(f"{name} {value:.6g}" for name, value in location.statistics.items())), soft_wrap=True)
        if location.part:
            console.print(f"  the smallest part that fails by itself: {escape(location.part)}", soft_wrap=True)
    for line in report.advice():
        console.print(f"[yellow]{escape(line)}[/yellow]", soft_wrap=True)
    for note in report.notes:
        console.print(f"[yellow]note[/yellow]: {escape(note)}", soft_wrap=True)
    for label, text in facts(report):
        console.print(f"{label:<9} {escape(text)}", soft_wrap=True, highlight=False)
    colour = ("green", "red", "yellow")[report.exit_code]
    console.print(f"{escape(report.model)}: [bold {colour}]{report.verdict}[/bold {colour}] ({report.counted()})", soft_wrap=True)


def facts(report: Report) -> list[tuple[str, str]]:
    """What a report rests on, by label: budget, time, versions, digest, and the command where it failed."""
    found = []
    if report.budget:
        found.append(("budget", report.budget))
    if report.seconds:
        parts = sorted(((value, name) for name, value in report.seconds.items() if name != "all"), reverse=True)
        spent = ", ".join(f"{name} {value:.2g}" for value, name in parts if value >= 0.005)
        found.append(("time", f"{report.seconds.get('all', sum(value for value, _ in parts)):.3g} s" + (f" ({spent})" if spent else "")))
    if report.versions:
        found.append(("versions", ", ".join(f"{name} {value}" for name, value in report.versions.items())))
    if report.digest:
        found.append(("digest", report.digest))
    if report.command and not report:
        found.append(("repeat", report.command))
    return found
