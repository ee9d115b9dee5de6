"""A report as one self-contained HTML page: no script, no external resource, light and dark, printable."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Mapping, Sequence
from html import escape

from converter.equivalence import charts
from converter.equivalence.report import STAGES, Location, Report, Row, number_text, share_of, sizes_text

TITLES = {"structure": "The same computation", "recorded": "The recorded outputs", "rounding": "Each runtime",
          "quantisation": "What fewer bits cost"}
ABOUT = {
    "structure": "The graph and the program that it came from, both in float64, where a wrong axis or a missing term cannot hide behind "
                 "rounding.",
    "recorded": "What PyTorch gave when the file was made, against the graph in float64.",
    "rounding": "Each runtime in the model's own dtypes, against the float64 truth. The limit is measured, not typed: {budget}.",
    "quantisation": "A variant's numbers against those of the model, both in float64, apart from what runtimes add.",
}
NEAREST = 12
WORDS = ("Equivalent", "Not equivalent", "Cannot be judged")


def html(report: Report) -> str:
    """The page's text."""
    css = importlib.resources.files("converter.equivalence").joinpath("report.css").read_text(encoding="utf-8")
    sections = [_verdict(report), _places(report), *(_stage(report, stage) for stage in TITLES), _histograms(report), _along(report),
                _parts(report), _cases(report), _notes(report), _origin(report), _all(report)]
    word = WORDS[report.exit_code]
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, '
            f'initial-scale=1">\n<title>{word}: {escape(report.model)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n'
            + "\n".join(filter(None, sections)) + "\n</main>\n</body>\n</html>\n")


# The verdict -------------------------------------------------------------------------------------------------------------


def _verdict(report: Report) -> str:
    good = bool(report)
    failed = len(report.failures)
    subjects = _subjects(report)
    compared = sum(row.compared for row in report.rows if row.stage != "model")
    cases = {row.case for row in report.rows if row.case}
    nearest = max((row for row in report.rows if row.passed and row.allowed), key=share_of, default=None)
    if good:
        by = _listed(subjects) if subjects else "everything that was compared"
        words = f"{by} {'agree' if len(subjects) > 1 else 'agrees'} with the float64 truth, within what rounding explains."
    elif not failed:
        words = "Nothing failed, but of something no value could be judged: "
        left = dict.fromkeys(f"{row.subject}, {row.output}: {row.reason}" for row in report.left_open[:3])
        words += "; ".join(left) or "nothing was compared"
    else:
        words = f"{failed} of {len(report.rows)} comparisons failed."
        first = next((location for location in report.locations if location.index is not None), None)
        if first is not None:
            words += f" {first.subject} first goes wrong at node {first.index}, {first.op}{f' ({first.source})' if first.source else ''}."
    drawn = "M20 35 L30 45 L49 24" if good else "M24 24 L44 44 M44 24 L24 44"
    mark = f'<path d="{drawn}" fill="none" stroke="#fff" stroke-width="6" stroke-linecap="round" stroke-linejoin="round"/>'
    tiles = [(f"{len(report.rows):,}", "comparisons"), (f"{failed:,}", "failed"), (f"{len(cases):,}", "sets of inputs"),
             *[(f"{len(report.unjudged):,}", "drawn inputs not judged")] * bool(report.unjudged),
             (f"{compared:,}", "values compared")]
    if nearest is not None:
        tiles.append((f"{100 * share_of(nearest):.0f}%", f"of its limit, at the nearest that passed ({nearest.subject})"))
    if "all" in report.seconds:
        tiles.append((f"{report.seconds['all']:.1f} s", "to verify"))
    boxes = "".join(f"<div class=tile><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in tiles)
    return (f'<section class="verdict {"" if good else "fail"}"><svg class="mark" viewBox="0 0 68 68" aria-hidden="true">'
            f'<circle cx="34" cy="34" r="34" fill="var(--{"pass" if good else "fail"})"/>{mark}</svg><div class="words"><p class="word">'
            f'{WORDS[report.exit_code]}</p><h1>{escape(report.model)}</h1><p class="soft">{escape(words)}</p></div>'
            f'</section><div class="tiles">{boxes}</div>')


def _inputs(case: str, sizes: Mapping[str, int]) -> str:
    """`seed 0, case 1: batch=1, time=3`."""
    return f"{case}: {sizes_text(sizes)}" if sizes else case


def _subjects(report: Report) -> list[str]:
    return list(dict.fromkeys(row.subject for row in report.rows if row.stage == "rounding" and row.subject))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _colours(report: Report) -> dict[str, str]:
    return {name: charts.colour(index) for index, name in enumerate(_subjects(report))}


# Where it goes wrong -----------------------------------------------------------------------------------------------------


def _places(report: Report) -> str:
    if not report.failures and not report.locations:
        return ""
    cards = [_place(location) for location in report.locations]
    shown = report.failures[:6]
    items = "".join(f"<li><b>{escape(row.subject)}</b>{escape(f', {row.output}' if row.output else '')}"
                    f"{escape(f', {sizes_text(row.sizes)}' if row.sizes else '')}: {escape(row.reason)}</li>" for row in shown)
    more = len(report.failures) - len(shown)
    cards.append(f'<div class="card"><h3>What failed</h3><ul>{items}</ul>'
                 + (f'<p class="soft small">and {more} more, below</p>' if more > 0 else "") + "</div>")
    return "<h2>Where it goes wrong</h2>" + "".join(cards)


def _place(location: Location) -> str:
    if location.index is None:
        return f'<div class="card bad"><h3>{escape(location.subject)}</h3><p>{escape(location.reason)}</p></div>'
    facts = [("value", f"<code>{escape(location.value)}</code> {escape(location.spec)}")]
    if location.source:
        facts.append(("your code", f"<code>{escape(location.source)}</code>"))
    facts.append(("inputs", escape(_inputs(location.case, location.sizes))))
    counted = {"values", "not finite", "differing"}
    for title, chosen in (("counts", counted), ("sizes", location.statistics.keys() - counted)):
        numbers = ", ".join(f"{name} {value:,.6g}" for name, value in location.statistics.items() if name in chosen)
        if numbers:
            facts.append((title, escape(numbers)))
    if location.part:
        facts.append(("smallest part that fails", f"<code>{escape(location.part)}</code>"))
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return (f'<div class="card bad"><p class="place"><b>{escape(location.subject)}</b> first leaves its limit at node {location.index}, '
            f"<code>{escape(location.op)}</code></p><p>{escape(location.reason)}</p><dl>{rows}</dl></div>")


# Errors ------------------------------------------------------------------------------------------------------------------


def _stage(report: Report, stage: str) -> str:
    rows = [row for row in report.rows if row.stage == stage]
    if not rows:
        return ""
    subjects = list(dict.fromkeys(row.subject for row in rows))
    order = {name: index for index, name in enumerate(_subjects(report))}
    outputs = list(dict.fromkeys(row.output for row in rows))
    cards = []
    for output in outputs:
        by = {subject: [row for row in rows if (row.subject, row.output) == (subject, output)] for subject in subjects}
        lines = [(subject, found, order.get(subject, 5)) for subject, found in by.items() if found]
        values = sum(row.compared for _, found, _ in lines for row in found)
        title = f"<code>{escape(output)}</code>" if output else "before any output"
        cards.append(f'<div class="card"><h3>{title} <span class="soft small">{values:,} values</span></h3>{charts.bars(lines)}</div>')
    about = ABOUT[stage].format(budget=report.budget or "the floor alone")
    return f'<h2>{TITLES[stage]}</h2><p class="soft">{escape(about)} A dot is one set of inputs.</p>{"".join(cards)}'


def _histograms(report: Report) -> str:
    outputs = list(dict.fromkeys(output for counts in report.histograms.values() for output in counts))
    colours = _colours(report)
    cards = []
    for output in outputs:
        series = {name: counts[output] for name, counts in report.histograms.items() if output in counts}
        series = dict(sorted(series.items(), key=lambda item: item[0] in colours))
        legend = "".join(f'<span><i style="{_swatch(colours.get(name))}"></i>{escape(name)}</span>' for name in series)
        drawing = charts.histogram(series, colours)
        cards.append(f'<div class="card"><h3><code>{escape(output)}</code></h3>{drawing}<div class="legend">{legend}</div></div>')
    if not cards:
        return ""
    return ('<h2>How the errors are spread</h2><p class="soft">Of all values of all inputs. An ulp is the distance from one number to the '
            "next, in the output's dtype and at the output's own size. Dashed: the runs that set the limit.</p>"
            f'<div class="grid">{"".join(cards)}</div>')


def _swatch(ink: str | None) -> str:
    return f"background:{ink}" if ink else "border:1.5px dashed var(--soft)"


def _along(report: Report) -> str:
    if not report.traces:
        return ""
    colours = _colours(report)
    legend = "".join(f'<span><i style="{_swatch(colours.get(trace.subject, charts.colour(0)))}"></i>{escape(trace.subject)}, '
                     f"{escape(_inputs(trace.case, trace.sizes))}</span>" for trace in report.traces)
    points = [(point.share, trace.subject, point) for trace in report.traces for point in trace.points if point.share > 0]
    points.sort(key=lambda item: -item[0])
    rows = "".join(f'<tr{" class=fail" if share > 1 else ""}><td class="n">{point.index}</td><td><code>{escape(point.op)}</code></td>'
                   f'<td><code>{escape(point.value)}</code></td><td>{escape(subject)}</td><td class="n">{_share(share)}</td>'
                   f"<td>{escape(point.source or '')}</td></tr>" for share, subject, point in points[:NEAREST])
    table = ('<details><summary>The nodes nearest to their limit</summary><div class="scroll"><table><tr><th class="n">node</th>'
             f'<th>operator</th><th>value</th><th>by</th><th class="n">of its limit</th><th>code</th></tr>{rows}</table></div></details>')
    return ('<h2>The error along the graph</h2><p class="soft">Every value that a node makes, against the float64 truth. The limit of each '
            "is what the reference kernels stray in the model's own dtypes, times four, plus the floor.</p>"
            f'<div class="card">{charts.along(report.traces, colours)}<div class="legend">{legend}</div></div>{table}')


def _share(share: float) -> str:
    if not math.isfinite(share):
        return "∞"
    return f"{100 * share:,.0f}%" if share < 100 else f"{share:,.0f}×" if share < 1e6 else f"{share:.1e}×"


# What was judged ---------------------------------------------------------------------------------------------------------


def _parts(report: Report) -> str:
    rows = [row for row in report.rows if row.stage == "model"]
    if not rows:
        return ""
    lines = "".join(f'<tr{"" if row.passed else " class=fail"}><td>{escape(row.subject)}</td><td>{escape(row.output)}</td>'
                    f"<td>{_pill(row)}</td><td>{escape(row.reason or 'equal, bit for bit')}</td></tr>" for row in rows)
    return f'<h2>The same parameters and graph</h2><div class="card scroll"><table>{lines}</table></div>'


def _pill(row: Row) -> str:
    return f'<span class="pill{"" if row.passed else " fail"}">{"FAIL" if row.verdict == "fail" else row.verdict}</span>'


def _cases(report: Report) -> str:
    sizes: dict[str, dict[str, int]] = {}
    for row in report.rows:
        if row.case:
            sizes.setdefault(row.case, dict(row.sizes))
    if not sizes:
        return ""
    names = list(dict.fromkeys(name for found in sizes.values() for name in found))
    head = "".join(f'<th class="n">{escape(name)}</th>' for name in names)
    lines = []
    for case, found in sizes.items():
        failed = sum(not row.passed for row in report.rows if row.case == case)
        total = sum(row.case == case for row in report.rows)
        cells = "".join(f'<td class="n">{found.get(name, "")}</td>' for name in names)
        verdict = f"{failed} of {total} failed" if failed else f"all {total} hold"
        lines.append(f'<tr{" class=fail" if failed else ""}><td>{escape(case)}</td>{cells}<td class="n">{verdict}</td></tr>')
    return (f'<h2>Inputs and sizes tried</h2><div class="card scroll"><table><tr><th>inputs</th>{head}<th class="n">comparisons</th></tr>'
            f'{"".join(lines)}</table></div>')


def _notes(report: Report) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in (*report.advice(), *report.notes))
    return f'<h2>Notes</h2><div class="card"><ul style="margin:0">{items}</ul></div>' if items else ""


def _origin(report: Report) -> str:
    facts = [("digest of the model", f"<code>{escape(report.digest)}</code>"), ("seed of the drawn inputs", str(report.seed))]
    facts += [(escape(name), escape(version)) for name, version in report.versions.items()]
    spent = sorted(((value, name) for name, value in report.seconds.items() if name != "all"), reverse=True)
    facts.append(("time", escape(", ".join(f"{name} {value:.2g} s" for value, name in spent if value >= 0.005)) or "less than 0.01 s"))
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    again = f"<pre>{escape(report.command)}</pre>" if report.command else ""
    return f'<h2>To repeat it</h2>{again}<div class="card"><dl>{rows}</dl></div>'


def _all(report: Report) -> str:
    lines = []
    for row in report.rows:
        if row.stage == "model":
            continue
        lines.append(f'<tr{"" if row.passed else " class=fail"}><td>{escape(row.stage)}</td><td>{escape(row.subject)}</td>'
                     f'<td>{escape(row.output)}</td><td>{escape(row.case)}</td><td class="n">{number_text(row.error, row.unit)}</td>'
                     f'<td class="n">{number_text(row.allowed, row.unit)}</td><td class="n">{row.compared:,}</td>'
                     f"<td>{_pill(row)}</td></tr>")
    judged = ", ".join(title for stage, title in STAGES.items() if any(row.stage == stage for row in report.rows))
    return ('<details><summary>All comparisons</summary><div class="scroll"><table><tr><th>stage</th><th>by</th><th>output</th>'
            '<th>inputs</th><th class="n">error</th><th class="n">allowed</th><th class="n">values</th><th></th></tr>'
            f'{"".join(lines)}</table></div></details><footer>{escape(judged[:1].upper() + judged[1:])}. '
            "How a limit is measured: docs/equivalence.md of model-converter.</footer>")
