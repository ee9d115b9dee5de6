"""The drawings of an HTML report, as SVG text: bars against the budget, histograms, the error along the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from converter.equivalence.report import EDGES, Row, Trace, number_text, share_of, sizes_text

COLOURS = 6
WIDTH = 960.0
DASHES = ("5 3", "1.5 2.5")


def colour(index: int) -> str:
    """The CSS colour of a runtime, by its place."""
    return f"var(--c{index % COLOURS})"


def bars(rows: Sequence[tuple[str, Sequence[Row], int]]) -> str:
    """A bar for each (label, comparisons, colour): the largest share of the allowance that any of them uses, a dot for each.

    The limit is a line at 100%; what is beyond it is cut off at the edge, and its number says how far it is.
    """
    left, right, height, top = 190.0, 190.0, 34.0, 22.0
    width = WIDTH - left - right
    full = 1.18
    scale = width / full
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + tick * scale
        text = "limit" if tick == 1.0 else f"{tick:.0%}"
        parts.append(f'<text x="{x:.1f}" y="12" text-anchor="middle"{_strong(tick == 1.0)}>{text}</text>')
    for line, (label, found, place) in enumerate(rows):
        y = top + line * height
        worst = max(found, key=_severity)
        share = _severity(worst)
        bad = not all(row.passed for row in found)
        fill = "var(--fail)" if bad else colour(place)
        reach = min(share, full) * scale
        parts.append(f'<text class="ink" x="{left - 12:.0f}" y="{y + 19:.1f}" text-anchor="end">{escape(_cut(label, 27))}'
                     f"<title>{escape(label)}</title></text>")
        parts.append(f'<rect x="{left}" y="{y + 6:.1f}" width="{width:.1f}" height="16" rx="4" fill="var(--track)"/>')
        parts.append(f'<rect x="{left}" y="{y + 6:.1f}" width="{max(reach, 1.5):.1f}" height="16" rx="4" fill="{fill}" opacity="0.35"/>')
        for row in found:
            x = left + min(_severity(row), full - 0.012) * scale
            tip = f"{row.case or row.output} {sizes_text(row.sizes)}: {number_text(row.error, row.unit)} of " \
                  f"{number_text(row.allowed, row.unit)}"
            inner = "var(--card)" if row.passed else "var(--fail)"
            parts.append(f'<circle cx="{max(x, left + 4):.1f}" cy="{y + 14:.1f}" r="4" fill="{inner}" '
                         f'stroke="{fill}" stroke-width="2"><title>{escape(tip)}</title></circle>')
        text = _outcome(worst)
        parts.append(f'<text class="{"bad" if bad else "ink"}" x="{left + width + 12:.0f}" y="{y + 19:.1f}">{escape(text)}</text>')
    bottom = top + len(rows) * height
    limit = left + scale
    parts.append(f'<line x1="{limit:.1f}" x2="{limit:.1f}" y1="18" y2="{bottom:.0f}" stroke="var(--limit)" stroke-width="1.6"/>')
    return _svg(WIDTH, bottom + 4, parts, "errors against what is allowed")


def _severity(row: Row) -> float:
    """The share of the allowance; above 1 for every failure, even one without a number."""
    if row.passed:
        return share_of(row)
    return max(1.06, row.error / row.allowed) if row.allowed and math.isfinite(row.error) else math.inf


def _outcome(row: Row) -> str:
    if not row.passed:
        share = _severity(row)
        if not math.isfinite(share):
            return _cut(row.reason, 30)
        return f"{_times(share)} the limit"
    if row.unit == "values" or not row.allowed:
        return "equal"
    return f"{number_text(row.error)} of {number_text(row.allowed, row.unit)}"


def _times(share: float) -> str:
    return f"{share:,.1f}×" if share < 1e4 else f"{share:.1e}×"


def histogram(counts: Mapping[str, Sequence[int]], colours: Mapping[str, str]) -> str:
    """How the errors of one output are spread: a filled shape for each runtime, an outline for what set the budget.

    Heights are parts of each one's own values. The axis is in ulps, doubling from step to step.
    """
    used = [index for series in counts.values() for index, count in enumerate(series) if count]
    low, high = min(used, default=0), max(used, default=1)
    low, high = max(0, min(low, high - 7)), max(high, low + 1)
    places = list(range(low, high + 1))
    left, width, height, top = 8.0, 464.0, 130.0, 8.0
    step = width / len(places)
    highest = max((count / total for series in counts.values() if (total := sum(series)) for count in series), default=1.0)
    parts = []
    dashed = 0
    for name, series in counts.items():
        total = sum(series) or 1
        tops = [top + height * (1 - (series[place] / total) / highest) for place in places]
        base = top + height
        points = f"M{left:.1f} {base:.1f}" + "".join(
            f"V{y:.1f}H{left + (index + 1) * step:.1f}" for index, y in enumerate(tops)) + f"V{base:.1f}"
        ink = colours.get(name)
        style = f'fill="{ink}" fill-opacity="0.13" stroke="{ink}" stroke-width="1.7"' if ink else \
                f'fill="none" stroke="var(--soft)" stroke-width="1.3" stroke-dasharray="{DASHES[dashed % len(DASHES)]}"'
        dashed += ink is None
        parts.append(f'<path d="{points}" {style} stroke-linejoin="round"><title>{escape(name)}</title></path>')
    parts.append(f'<line x1="{left}" x2="{left + width}" y1="{top + height}" y2="{top + height}" stroke="var(--faint)"/>')
    every = max(1, math.ceil(len(places) / 8))
    for index, place in enumerate(places):
        last = place == len(EDGES)
        if last or index % every == 0 and (places[-1] != len(EDGES) or place + every / 2 < len(EDGES)):
            middle = left + (index + 0.5) * step
            parts.append(f'<text x="{middle:.1f}" y="{top + height + 16:.0f}" text-anchor="middle">{_bin(place)}</text>')
    parts.append(f'<text x="{left + width / 2:.0f}" y="{top + height + 33:.0f}" text-anchor="middle">'
                 "error in ulps of the output, up to</text>")
    return _svg(480, top + height + 38, parts, "histogram of errors")


def _bin(place: int) -> str:
    if place == 0:
        return "0"
    if place >= len(EDGES):
        return "∞"
    edge = EDGES[place]
    if edge < 1:
        return f"1/{1 / edge:.0f}"
    return f"{edge:.0f}" if edge < 10000 else f"2^{math.log2(edge):.0f}"


FLOOR_SHARE, TOP_SHARE = 1e-3, 1e3


def along(traces: Sequence[Trace], colours: Mapping[str, str]) -> str:
    """The share of its allowance that each value of a graph uses, node by node, on a logarithmic axis that ends at 1000 times."""
    left, right, top, height = 66.0, 18.0, 14.0, 230.0
    width = WIDTH - left - right
    last = max((point.index for trace in traces for point in trace.points), default=1) or 1
    largest = max((point.share for trace in traces for point in trace.points), default=1.0)
    ceiling = TOP_SHARE if largest > 10 else 10.0
    low, high = math.log10(FLOOR_SHARE), math.log10(ceiling)

    def place_y(share: float) -> float:
        value = math.log10(min(max(share, FLOOR_SHARE), ceiling))
        return top + height * (high - value) / (high - low)

    parts = []
    for power in range(int(low), int(high) + 1):
        y = place_y(10.0**power)
        limit = power == 0
        text = "limit" if limit else f"{10.0**power:g}×" if power > 0 else f"{10.0**power:.1%}".replace(".0%", "%")
        if power == int(low):
            text = f"≤ {text}"
        if power == int(high) and largest > ceiling:
            text = f"≥ {text}"
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--{"limit" if limit else "line"})" '
                     f'stroke-width="{1.6 if limit else 1}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end"{_strong(limit)}>{text}</text>')
    for trace in traces:
        ink = colours.get(trace.subject, colour(0))
        spots = [(left + width * point.index / last, place_y(point.share), point) for point in trace.points]
        line = "".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y, _) in enumerate(spots))
        parts.append(f'<path d="{line}" fill="none" stroke="{ink}" stroke-width="1.3" stroke-linejoin="round" opacity="0.6"/>')
        size = 3.0 if len(spots) <= 120 else 1.7
        for x, y, point in spots:
            bad = point.share > 1
            tip = f"{trace.subject}, node {point.index}: {point.op} → {point.value}, {number_text(point.error)} of " \
                  f"{number_text(point.allowed)}" + (f", {point.source}" if point.source else "")
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size + bad:.1f}" fill="{"var(--fail)" if bad else ink}">'
                         f"<title>{escape(tip)}</title></circle>")
        first = next((spot for spot in spots if spot[2].share > 1), None)
        if first is not None:
            x, y, point = first
            anchor = "start" if x < left + width * 0.75 else "end"
            beside = x + (8 if anchor == "start" else -8)
            parts.append(f'<text class="bad" x="{beside:.1f}" y="{max(y - 9, 12):.1f}" text-anchor="{anchor}">'
                         f"node {point.index}, {escape(_cut(point.op, 30))}</text>")
    base = top + height
    marks = sorted({0, last, *(last * quarter // 4 for quarter in (1, 2, 3))})
    for index in marks:
        parts.append(f'<text x="{left + width * index / last:.1f}" y="{base + 17:.0f}" text-anchor="middle">{index}</text>')
    parts.append(f'<text x="{left + width / 2:.0f}" y="{base + 34:.0f}" text-anchor="middle">node of the graph, in order</text>')
    return _svg(WIDTH, base + 40, parts, "error along the graph")


def _strong(yes: bool) -> str:
    return ' class="ink strong"' if yes else ""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most - 1] + "…"


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return f'<svg class="wide" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
