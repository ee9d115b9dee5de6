"""What a conversion says at its end: what was written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from converter.cli.console import say
from converter.cli.sources import STREAM


def summary(content: Any, output: str, files: Sequence[Path], graph_only: bool, seconds: float) -> None:
    """Two lines: the files, their size and the time it took; and what is in them."""
    from converter.cli.console import plural
    from converter.ir import Model
    from converter.memory import shown_bytes

    place = "standard output" if output == STREAM else output
    words = [place]
    if files and files[0].is_file():
        words = [" and ".join([place, *(item.name for item in files[1:])]), shown_bytes(sum(item.stat().st_size for item in files))]
    say(f"Wrote {', '.join(words)}, in {seconds:.1f} s.", err=output == STREAM)
    store = content.parameters if isinstance(content, Model) else content
    tied = sum(store.alias_of(name) is not None for name in store.names())
    words = [f"{plural(len(store) - tied, 'tensor')} ({shown_bytes(store.nbytes)})" + (" left out" if graph_only else "")]
    if isinstance(content, Model):
        words.insert(0, f"{content.graph.name}: {plural(len(content.graph.nodes), 'node')}")
        words += [plural(len(content.examples), "recorded example")] * bool(content.examples and not graph_only)
    words += [f"{tied} tied"] * bool(tied)
    say(", ".join(words) + ".", err=output == STREAM)


def print_json(content: Any, output: str, notes: Sequence[str]) -> None:
    """The same as an object, for --json."""
    import json

    click.echo(json.dumps({"output": output, "nodes": len(content.graph.nodes), "parameters": len(content.parameters),
                           "bytes": content.parameters.nbytes, "notes": list(notes)}, indent=2), err=output == STREAM)
