"""`convert diff`: where two models differ, in their graphs and in their parameters' bits."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from typing import Any

import click

from converter.cli.console import plural, say, table
from converter.cli.guard import DIFFERENT, guarded, told
from converter.compared_parameters import parameter_differences
from converter.errors import ConverterError
from converter.ir import Graph, Model
from converter.matched_graphs import graph_changes, only_bias
from converter.matched_parameters import match_parameters
from converter.parameters import ParameterStore

HELP = """Compares two models, or two checkpoints: graphs node by node, parameters bit by bit. Exits 0 when they are the same, 1 when
they differ. Encodings, recorded examples and metadata do not count.

Parameters are matched by name, else by what they hold: renamed, transposed, reshaped, cast or fused ones are said as such. A change
of a small rank, as of an adapter that was merged, is told with it. Nodes are compared up to what they are called.

\b
Example:
  convert diff model.json model.h5
  convert diff exported.onnx exported_by_another.onnx --run
  convert diff before.onnx after.onnx --run --html changes.html
"""
MOST = 20


@click.command("diff", help=HELP, short_help="what differs between two models")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.option("--run", "runs", is_flag=True, help="Whether both compute the same too, at drawn inputs.")
@click.option("--html", "html_file", metavar="FILE", help="Write the differences as one self-contained page.")
@guarded
def command(first: str, second: str, as_json: bool, runs: bool, html_file: str | None, quiet: bool) -> None:
    a, b = _open(first), _open(second)
    if runs and not (isinstance(a, Model) and isinstance(b, Model)):
        raise ConverterError("parameters alone cannot be run", where="--run", expected="two models", fix="leave --run out")
    graph = graph_differences(a, b)
    # A checkpoint has no constants, so it is compared with a model's state_dict.
    whole = isinstance(a, Model) and isinstance(b, Model)
    ours, theirs = _store(a, whole), _store(b, whole)
    matched = list(match_parameters(ours, theirs))
    known = {name for item in matched for side in ("a", "b") for name in ([item[side]] if isinstance(item[side], str) else item[side])}
    parameters = list(parameter_differences(ours, theirs, known))
    for item in [item for item in parameters if item.get("zeros") and (own := a if item["difference"] == "only in A" else b) is not None
                 and isinstance(own, Model) and only_bias(own.graph, item["name"])]:
        parameters.remove(item)
        matched.append({"a": "", "b": "", item["difference"][-1].lower(): item["name"], "how": "zeros that the other leaves out"})
    found: dict[str, Any] = {"same": not graph and not parameters and not matched, "graph": graph, "parameters": parameters,
                             "matched": matched}
    same = {item["a"]: item["b"] for item in matched if all(item[side] and isinstance(item[side], str) for side in ("a", "b"))}
    if graph and isinstance(a, Model) and isinstance(b, Model):
        found["nodes"] = graph_changes(a.graph, b.graph, same)
    if runs and isinstance(a, Model) and isinstance(b, Model):
        from converter.equivalence.behaviour import behaviour

        found["behaviour"] = behaviour(a, b, same)
    if html_file is not None:
        _write_page(html_file, first, second, found)
    with told():
        if as_json:
            click.echo(json.dumps(found, indent=2))
        elif not quiet:
            _print(first, second, whole, found)
    if not found["same"]:
        raise SystemExit(DIFFERENT)


def _write_page(file: str, first: str, second: str, found: dict[str, Any]) -> None:
    from converter.cli.diff_page import page
    from converter.format.atomic import atomic_path

    text = page(first, second, found, {"parameters": [(item["name"], _words(item)) for item in found["parameters"]],
                                       "matched": _matched_words(found["matched"])})
    with atomic_path(file) as temporary:
        # A file's name may hold bytes that are no UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _matched_words(matched: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(_listed(item["a"] or item["b"]), f"{item['how']}: {_listed(item['b'])}" if item["a"] and item["b"] else item["how"])
            for item in matched]


def _open(path: str) -> Model | ParameterStore:
    """A model, or the parameters of a checkpoint."""
    from converter.checkpoint import load_parameters
    from converter.loading import load
    from converter.paths import open_path

    return load_parameters(path) if open_path(path).holds == "parameters" else load(path)


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


def _print(first: str, second: str, whole: bool, found: dict[str, Any]) -> None:
    what = "graph and parameters" if whole else "parameters"
    if found["same"]:
        say(f"{first} and {second} are the same: {what}, bit for bit.")
    else:
        say(f"{first} (A, -) and {second} (B, +) differ.")
    if found["graph"]:
        _print_graph(found["graph"], found.get("nodes", {}))
    if found["matched"]:
        counts = Counter(item["how"] for item in found["matched"])
        words = ", ".join(f"{count} {how}" for how, count in counts.items())
        say(f"\nParameters under other names that hold the same: {words}", lines=True)
        _print_rows(_matched_words(found["matched"]))
    if found["parameters"]:
        say(f"\nParameters: {plural(len(found['parameters']), 'difference')}", lines=True)
        _print_rows([(item["name"], _words(item)) for item in found["parameters"]])
    elif not found["same"]:
        say("\nParameters: none differs in what it holds.", lines=True)
    if "behaviour" in found:
        from converter.equivalence.behaviour import in_words

        say(f"\nBehaviour: {in_words(found['behaviour'])}", lines=True)


def _print_graph(lines: list[str], nodes: dict[str, Any]) -> None:
    changes = [(mark, name) for mark, kind in (("-", "removed"), ("+", "added"), ("~", "changed")) for name in nodes.get(kind, ())]
    if nodes.get("aligned") and not changes:
        say(f"\nGraph: the same {plural(nodes['a'], 'node')}; names or sizes differ", lines=True)
    elif nodes.get("aligned"):
        say(f"\nGraph: {nodes['a']} nodes in A, {nodes['b']} in B; {len(nodes['removed'])} only in A, {len(nodes['added'])} only in B, "
            f"{len(nodes['changed'])} changed", lines=True)
        for mark, name in changes[:MOST]:
            say(f"  {mark} {name[:200]}")
        if len(changes) > MOST:
            say(f"  … and {len(changes) - MOST} more; --json lists all")
    if len(lines) <= MOST * 2 or not nodes.get("aligned"):
        say(f"\nGraph: {plural(len(lines), 'line')}", lines=True)
        for line in lines[:MOST * 2]:
            say(f"  {line[:200]}")
        if len(lines) > MOST * 2:
            say(f"  … and {len(lines) - MOST * 2} more; --json lists all")


def _print_rows(rows: list[tuple[str, str]]) -> None:
    say(table(rows[:MOST]), lines=True)
    if len(rows) > MOST:
        say(f"  … and {len(rows) - MOST} more; --json lists all")


def _listed(names: str | list[str]) -> str:
    return names if isinstance(names, str) else " + ".join(names)


def _words(item: dict[str, Any]) -> str:
    kind = item["difference"]
    if kind == "values":
        far = "one is not finite" if item["max_abs"] is None else f"at most {item['max_abs']:.3g} apart"
        rank = f", a change of rank {item['rank']}" if "rank" in item else ""
        return f"{item['count']:,} of {item['of']:,} values differ, {far}{rank}"
    if kind in ("spec", "alias"):
        how = f" ({item['how']})" if "how" in item else ""
        return f"{kind}: {item['a'] or 'none'} in A, {item['b'] or 'none'} in B{how}"
    return f"{kind}: {item['spec']}" + (", all zeros" if "zeros" in item else "")
