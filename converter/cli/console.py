"""What a person sees: sizes and times in words, tables, and progress on a terminal."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from converter.cli.guard import end_if_asked
from converter.errors import shown
from converter.ir import Array
from converter.mapped import FileRange
from converter.memory import shown_bytes
from converter.parameters import ParameterStore, ParameterView, places_in


def say(text: str, err: bool = False, *, lines: bool = False) -> None:
    """Prints a line, or several where `lines`. Control characters of names that a file holds are shown as escapes."""
    click.echo(shown(text, lines=lines), err=err)


def remaining(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:00`: hours where there are any."""
    minutes, rest = divmod(max(0, math.ceil(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plural(count: int, noun: str) -> str:
    """`1 node`, `2 nodes`, `1,234 nodes`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def table(rows: Sequence[Sequence[Any]], header: Sequence[str] = (), right: Sequence[int] = ()) -> str:
    """Columns aligned with spaces, readable in a pipe as on a terminal. `right` lists columns of numbers."""
    texts = [[shown(str(cell), lines=False) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not texts:
        return ""
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    lines = ["  ".join(cell.rjust(width) if column in right else cell.ljust(width)
                       for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in texts]
    return "\n".join("  " + line for line in lines)


def warn(message: str, quiet: bool) -> None:
    """A note that does not stop the work, on stderr."""
    if not quiet:
        say(f"Note: {message}.", err=True, lines=True)


Update = Callable[[str], None]


@contextlib.contextmanager
def progress(text: str, quiet: bool) -> Iterator[Update]:
    """A line that says what is going on, on a terminal only. Gives a function that changes its text."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():  # None: closed, as daemons have it
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield status.update


class Watched(ParameterView):
    """A store that tells how many bytes have been read: progress for whatever reads it."""

    def __init__(self, store: ParameterStore, update: Update, text: str) -> None:
        super().__init__(places_in(store))
        self._update, self._text = update, text
        self._total, self._seen = store.nbytes, 0
        self._done: set[str] = set()
        self._started = time.monotonic()

    def _left(self, seen: int) -> str:
        """`, 1:20 left`, once there is something to judge by."""
        elapsed = time.monotonic() - self._started
        if elapsed < 1 or not seen:
            return ""
        return f", {remaining(elapsed * (self._total - seen) / seen)} left"

    def file_range(self, name: str) -> FileRange | None:
        found = super().file_range(name)
        if found is not None:
            self._tell(name, found.size)
        return found

    def read(self, name: str) -> Array:
        values = super().read(name)
        self._tell(name, values.nbytes)
        return values

    def _tell(self, name: str, nbytes: int) -> None:
        end_if_asked()
        if name not in self._done:
            self._done.add(name)
            self._seen += nbytes
            seen = min(self._seen, self._total)
            self._update(f"{self._text}  {shown_bytes(seen)} of {shown_bytes(self._total)}{self._left(seen)}")
