"""What `convert diff` found as one self-contained HTML page: no script, no external resource."""

from __future__ import annotations

import importlib.resources
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from converter.errors import shown

MOST = 400
"""Rows of a table; the rest is counted."""
PLACES = {"removed": "only in A", "added": "only in B", "changed": "changed"}


def page(first: str, second: str, found: Mapping[str, Any], words: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The page's text.

    Args:
        first, second: what A and B are called.
        found: as `--json` prints it.
        words: names with what is to be said of each, of "parameters" that differ and of those that are "matched".
    """
    css = importlib.resources.files("converter.equivalence").joinpath("report.css").read_text(encoding="utf-8")
    word = "The same" if found["same"] else "Different"
    sections = [_verdict(first, second, found, word), _behaviour(found), _parameters(found, words["parameters"]),
                _table("Parameters under other names", "They hold the same, bit for bit or as the second column says.", ("A", "B"),
                       words["matched"]), _nodes(found), _lines(found["graph"])]
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, '
            f'initial-scale=1">\n<title>{word}: {_text(first)} and {_text(second)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n'
            "<main>\n" + "\n".join(filter(None, sections)) + "\n</main>\n</body>\n</html>\n")


def _text(text: str) -> str:
    return escape(shown(text, lines=False))


def _verdict(first: str, second: str, found: Mapping[str, Any], word: str) -> str:
    nodes = found.get("nodes", {})
    tiles = [(f"{len(found['parameters']):,}", "parameters differ"),
             (f"{len(found['matched']):,}", "parameters are the same under another name"),
             *[(f"{len(nodes.get(kind, ())):,}", f"nodes {said}") for kind, said in PLACES.items() if nodes.get("aligned")]]
    boxes = "".join(f"<div class=tile><b>{value}</b><span>{what}</span></div>" for value, what in tiles)
    drawn = "M20 35 L30 45 L49 24" if found["same"] else "M24 24 L44 44 M44 24 L24 44"
    mark = f'<path d="{drawn}" fill="none" stroke="#fff" stroke-width="6" stroke-linecap="round" stroke-linejoin="round"/>'
    kind = "pass" if found["same"] else "fail"
    return (f'<section class="verdict {"" if found["same"] else "fail"}"><svg class="mark" viewBox="0 0 68 68" aria-hidden="true">'
            f'<circle cx="34" cy="34" r="34" fill="var(--{kind})"/>{mark}</svg><div class="words"><p class="word">{word}</p>'
            f'<h1>{_text(first)}</h1><p class="soft">is A; B is <b>{_text(second)}</b></p></div></section><div class="tiles">{boxes}</div>')


def _behaviour(found: Mapping[str, Any]) -> str:
    if "behaviour" not in found:
        return ""
    from converter.equivalence.behaviour import in_words

    bad = "" if found["behaviour"]["verdict"] == "the same" else " bad"
    return f'<h2>What they compute</h2><div class="card{bad}"><p style="margin:0">{_text(in_words(found["behaviour"]))}</p></div>'


def _parameters(found: Mapping[str, Any], words: Sequence[tuple[str, str]]) -> str:
    """The differing ones, each with the share of its values that differ as a bar."""
    if not words:
        return "<h2>Parameters</h2><p class=soft>None differs in what it holds.</p>"
    rows = []
    for item, (name, said) in zip(found["parameters"][:MOST], words, strict=False):
        share = 100 * item["count"] / item["of"] if item["difference"] == "values" and item["of"] else 100.0
        rows.append(f'<tr><td><code>{_text(name)}</code></td><td>{_text(said)}</td><td style="width:140px"><svg width="130" height="12" '
                    f'role="img" aria-label="{share:.3g} % of its values"><rect width="130" height="12" rx="3" fill="var(--track)"/>'
                    f'<rect width="{max(1.3 * share, 1):.1f}" height="12" rx="3" fill="var(--fail)"/></svg></td></tr>')
    return (f'<h2>Parameters that differ</h2><p class="soft">The bar is the share of values that differ.</p><div class="card scroll">'
            f"<table>{''.join(rows)}</table>{_more(len(words))}</div>")


def _table(title: str, about: str, heads: Iterable[str], rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = "".join(f"<tr><td><code>{_text(name)}</code></td><td>{_text(said)}</td></tr>" for name, said in rows[:MOST])
    head = "".join(f"<th>{item}</th>" for item in heads)
    return (f'<h2>{title}</h2><p class="soft">{about}</p><div class="card scroll"><table><tr>{head}</tr>{lines}</table>'
            f"{_more(len(rows))}</div>")


def _nodes(found: Mapping[str, Any]) -> str:
    nodes = found.get("nodes", {})
    if not nodes:
        return ""
    if not nodes["aligned"]:
        return f"<h2>Nodes</h2><p class=soft>{nodes['a']:,} in A and {nodes['b']:,} in B, too many to be aligned.</p>"
    rows = [(said, name) for kind, said in PLACES.items() for name in nodes[kind]]
    if not rows:
        return f"<h2>Nodes</h2><p class=soft>The same {nodes['a']:,}, whatever their values and sizes are called.</p>"
    counted = ", ".join(f"{count:,} {said}" for said, count in Counter(said for said, _ in rows).items())
    lines = "".join(f'<tr><td style="width:90px">{said}</td><td><code>{_text(name)}</code></td></tr>' for said, name in rows[:MOST])
    return (f'<h2>Nodes</h2><p class="soft">{nodes["a"]:,} in A, {nodes["b"]:,} in B: {counted}. Names do not count.</p>'
            f'<div class="card scroll"><table>{lines}</table>{_more(len(rows))}</div>')


def _lines(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    text = "\n".join(shown(line, lines=False) for line in lines[:MOST])
    return f"<details><summary>The graphs line by line ({len(lines):,})</summary><pre>{escape(text)}</pre>{_more(len(lines))}</details>"


def _more(count: int) -> str:
    return f'<p class="soft small">and {count - MOST:,} more; --json lists all</p>' if count > MOST else ""
