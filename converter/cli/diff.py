"""`convert diff`: where two models differ, in their graphs and in their parameters' bits."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

import click
import numpy as np

from converter.cli.console import plural, say, table
from converter.cli.guard import DIFFERENT, guarded, told
from converter.ir import Graph, Model
from converter.parameters import ParameterStore

HELP = """Compares two models, or two checkpoints: graphs node by node, parameters bit by bit. Exits 0 when they are the same, 1 when
they differ. Encodings, recorded examples and metadata do not count.

\b
Example:
  convert diff model.json model.h5
"""
MOST = 20


@click.command("diff", help=HELP, short_help="what differs between two models")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@guarded
def command(first: str, second: str, as_json: bool, quiet: bool) -> None:
    a, b = _open(first), _open(second)
    graph = graph_differences(a, b)
    # A checkpoint has no constants, so it is compared with a model's state_dict.
    whole = isinstance(a, Model) and isinstance(b, Model)
    parameters = list(parameter_differences(_store(a, whole), _store(b, whole)))
    same = not graph and not parameters
    with told():
        if as_json:
            click.echo(json.dumps({"same": same, "graph": graph, "parameters": parameters}, indent=2))
        elif not quiet:
            _print(first, second, whole, graph, parameters)
    if not same:
        raise SystemExit(DIFFERENT)


def _open(path: str) -> Model | ParameterStore:
    """A model, or the parameters of a checkpoint."""
    from converter.checkpoint import existing, format_of_file, load_parameters
    from converter.loading import load

    found = existing(path)
    if found.is_dir() or format_of_file(found).holds == "parameters":
        return load_parameters(path)
    return load(path)


def _store(content: Model | ParameterStore, whole: bool) -> ParameterStore:
    from converter.checkpoint import SelectedParameters

    if not isinstance(content, Model):
        return content
    return content.parameters if whole else SelectedParameters(content.parameters, content.constants)


def graph_differences(a: Model | ParameterStore, b: Model | ParameterStore) -> list[str]:
    """Lines that only one of the two graphs has, marked - and +; a checkpoint's graph is not compared."""
    if not isinstance(a, Model) or not isinstance(b, Model):
        return []
    ours, theirs = _lines(a.graph), _lines(b.graph)
    if ours == theirs:
        return []
    return [line for line in difflib.unified_diff(ours, theirs, lineterm="", n=0) if not line.startswith(("---", "+++", "@@"))]


def _lines(graph: Graph) -> list[str]:
    from converter.format.document import graph_to_document

    document = graph_to_document(graph, source=False)
    lines = [f"name: {document['name']}"]
    lines += [f"dim {name}: {json.dumps(item)}" for name, item in document["dims"].items()]
    for field, label in (("inputs", "input"), ("nodes", "node"), ("outputs", "output")):
        lines += [f"{label} {json.dumps(item, ensure_ascii=False)}" for item in document[field]]
    return lines


def parameter_differences(a: ParameterStore, b: ParameterStore) -> Iterator[dict[str, Any]]:
    """Every parameter that differs: only in one, another spec, another alias, or other bits and how far apart."""
    ours, theirs = set(a.names()), set(b.names())
    for name in [*a.names(), *(name for name in b.names() if name not in ours)]:
        if name not in theirs or name not in ours:
            yield {"name": name, "difference": "only in A" if name in ours else "only in B",
                   "spec": str((a if name in ours else b).spec(name))}
        elif a.spec(name) != b.spec(name):
            yield {"name": name, "difference": "spec", "a": str(a.spec(name)), "b": str(b.spec(name))}
        elif a.sha256(name) != b.sha256(name):
            yield {"name": name, "difference": "values", **distance(a.read(name), b.read(name))}
        elif a.alias_of(name) != b.alias_of(name):
            yield {"name": name, "difference": "alias", "a": a.alias_of(name), "b": b.alias_of(name)}


def distance(a: Any, b: Any) -> dict[str, Any]:
    """How many values differ in their bits, and the largest absolute difference; None where one of them is NaN or infinite."""
    width = a.dtype.itemsize
    bits = np.ascontiguousarray(a).reshape(-1).view(np.uint8).reshape(-1, width) != np.ascontiguousarray(b).reshape(-1).view(
        np.uint8).reshape(-1, width)
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        largest = float(np.abs(a.astype(wide) - b.astype(wide)).max()) if a.size else 0.0
    return {"count": int(bits.any(1).sum()), "of": int(a.size), "max_abs": largest if np.isfinite(largest) else None}


def _print(first: str, second: str, whole: bool, graph: list[str], parameters: list[dict[str, Any]]) -> None:
    what = "graph and parameters" if whole else "parameters"
    if not graph and not parameters:
        say(f"{first} and {second} are the same: {what}, bit for bit.")
        return
    say(f"{first} (A, -) and {second} (B, +) differ.")
    if graph:
        say(f"\nGraph: {plural(len(graph), 'line')}", lines=True)
        for line in graph[:MOST * 2]:
            say(f"  {line[:200]}")
        if len(graph) > MOST * 2:
            say(f"  … and {len(graph) - MOST * 2} more; --json lists all")
    if parameters:
        say(f"\nParameters: {plural(len(parameters), 'difference')}", lines=True)
        say(table([(item["name"], _words(item)) for item in parameters[:MOST]]), lines=True)
        if len(parameters) > MOST:
            say(f"  … and {len(parameters) - MOST} more; --json lists all")


def _words(item: dict[str, Any]) -> str:
    kind = item["difference"]
    if kind == "values":
        far = "one is not finite" if item["max_abs"] is None else f"at most {item['max_abs']:.3g} apart"
        return f"{item['count']:,} of {item['of']:,} values differ, {far}"
    if kind in ("spec", "alias"):
        return f"{kind}: {item['a'] or 'none'} in A, {item['b'] or 'none'} in B"
    return f"{kind}: {item['spec']}"
