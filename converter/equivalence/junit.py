"""A report as JUnit XML, which CI systems show: a test suite for each stage, a test case for each comparison."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree as ET

from converter.equivalence.report import FIX, STAGES, Report, Row, number_text, sizes_text

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """The XML text. A failing comparison is a `failure`; where it goes wrong is in the `system-out` of its suite."""
    root = ET.Element("testsuites", name="convert verify", tests=str(len(report.rows)), failures=str(len(report.failures)),
                      errors=str(len(report.left_open)), time=f"{report.seconds.get('all', 0.0):.3f}")
    for stage, title in STAGES.items():
        rows = [row for row in report.rows if row.stage == stage]
        if not rows:
            continue
        count = Counter(row.verdict for row in rows)
        suite = ET.SubElement(root, "testsuite", name=f"{_clean(report.model)}: {stage}", tests=str(len(rows)), failures=str(count["fail"]),
                              errors=str(count["open"]), skipped="0")
        properties = ET.SubElement(suite, "properties")
        for name, value in {"about": title, "digest": report.digest, "seed": str(report.seed), "budget": report.budget,
                            **{f"version of {name}": version for name, version in report.versions.items()}}.items():
            ET.SubElement(properties, "property", name=name, value=_clean(value))
        for row in rows:
            _case(suite, report, row)
        places = [str(location) for location in report.locations if location.stage == stage]
        notes = [f"note: {note}" for note in report.notes]
        if places or notes:
            ET.SubElement(suite, "system-out").text = _clean("\n".join(places + notes))
    if not report.rows:
        suite = ET.SubElement(root, "testsuite", name=_clean(report.model), tests="1", failures="1", errors="0", skipped="0")
        case = ET.SubElement(suite, "testcase", classname=_clean(report.model), name="anything was compared")
        ET.SubElement(case, "failure", message="nothing was compared")
    if report.unjudged:
        _unjudged(root, report)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(suite: ET.Element, report: Report, row: Row) -> None:
    where = " ".join(filter(None, (row.output, f"[{row.case}]" if row.case else "")))
    case = ET.SubElement(suite, "testcase", classname=_clean(f"{report.model}.{row.stage}.{row.subject}"), name=_clean(where or row.stage))
    if not row.passed:
        sizes = sizes_text(row.sizes)
        failure = ET.SubElement(case, "error" if row.open else "failure", message=_clean(row.reason), type=row.stage)
        failure.text = _clean(f"{row.subject}, {row.output}{f', {sizes}' if sizes else ''}: error {number_text(row.error, row.unit)}, "
                              f"allowed {number_text(row.allowed, row.unit)}\n{row.reason}")


def _unjudged(root: ET.Element, report: Report) -> None:
    """A suite of the drawn inputs that were not judged, all skipped."""
    count = str(len(report.unjudged))
    suite = ET.SubElement(root, "testsuite", name=f"{_clean(report.model)}: drawn inputs that are not judged", tests=count, failures="0",
                          errors="0", skipped=count)
    for item in report.unjudged:
        case = ET.SubElement(suite, "testcase", classname=_clean(f"{report.model}.not judged"), name=_clean(item.case))
        ET.SubElement(case, "skipped", message=_clean(f"{item}; {FIX}"))


def _clean(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
