"""Reports for people and for CI: the terminal, JSON, JUnit, and the page."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

import converter
from converter.cli.main import cli
from converter.equivalence import Report, print_report, verify
from converter.equivalence.html import html
from converter.equivalence.junit import junit
from converter.equivalence.report import EDGES, failure, histogram
from converter.errors import FormatError, UnsupportedError
from tests.equivalence.test_equivalence_locate import chain, wrong_at

Array = np.ndarray[Any, Any]
VOID = {"meta", "br", "hr", "img", "input", "link", "rect", "circle", "line", "path"}


@pytest.fixture(scope="module")
def failing() -> Report:
    return verify(chain(), {"bad <one>": wrong_at("chain.py:4"), "numpy": "numpy"}, trace=True, label='a "model" & <more>')


@pytest.fixture(scope="module")
def passing() -> Report:
    return verify(chain(), ["numpy", "reference"], trace=True)


class Page(HTMLParser):
    """Checks that what is opened is closed, and gathers text and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and tag not in ("li", "p"):
            while self.open[-1] in ("li", "p") and self.open[-1] != tag:
                self.open.pop()
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page(report: Report) -> tuple[Page, str]:
    text = html(report)
    found = Page()
    found.feed(text)
    assert found.open == []
    return found, text


def test_the_page_says_the_verdict_first(passing: Report, failing: Report) -> None:
    for report, words in ((passing, "Equivalent"), (failing, "Not equivalent")):
        found, text = page(report)
        shown = " ".join(found.texts)
        body = text.index("<body>")
        assert words in text[:body]
        assert text.index(words, body) < text.index("<h1>", body) < text.index("<h2>", body)
        assert f"{len(report.rows)}" in shown
        for part in ("Each runtime", "How the errors are spread", "The error along the graph", "Inputs and sizes tried", "To repeat it",
                     report.digest, np.__version__):
            assert part in shown, part


def test_the_page_says_where_it_goes_wrong(failing: Report) -> None:
    found, _ = page(failing)
    shown = "".join(found.texts)
    assert "bad <one> first leaves its limit at node 4" in shown
    assert "chain.py:4" in shown
    assert "node 4, linear" in shown  # the mark in the drawing


def test_the_page_needs_nothing_else_and_runs_nothing(failing: Report) -> None:
    found, text = page(failing)
    assert not re.search(r"<script|<link|<img|@import|url\(|https?://(?!www\.w3\.org)", text)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in ("src", "href")]
    assert "bad <one>" not in text  # escaped wherever it stands
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_every_drawing_is_within_its_frame(failing: Report, passing: Report) -> None:
    for report in (failing, passing):
        for width, height, drawing in re.findall(r'<svg class="wide" viewBox="0 0 (\d+) (\d+)"[^>]*>(.*?)</svg>', html(report), re.S):
            assert "nan" not in drawing.lower().replace("finance", "")
            for x, y in re.findall(r'<circle cx="([-\d.]+)" cy="([-\d.]+)"', drawing):
                assert 0 <= float(x) <= float(width)
                assert 0 <= float(y) <= float(height)


def test_a_report_of_nothing_is_a_page_too() -> None:
    report = Report("empty", "sha256:0")
    page(report)
    assert ET.fromstring(junit(report)).find(".//failure") is not None
    print_report(report, Console(file=io.StringIO()))


def test_the_error_along_the_graph(failing: Report) -> None:
    traces = {trace.subject: trace for trace in failing.traces}
    assert len(traces["numpy"].points) == len(chain().graph.nodes)
    assert all(point.share <= 1 for point in traces["numpy"].points)
    assert next(point.index for point in traces["bad <one>"].points if point.share > 1) == 4
    assert traces["bad <one>"].points[4].source == "chain.py:4"


def test_histograms_count_every_value(passing: Report) -> None:
    compared = sum(row.compared for row in passing.rows if row.subject == "numpy")
    assert sum(passing.histograms["numpy"]["y"]) == compared
    assert sum(passing.histograms["reference kernels"]["y"]) == compared
    counts = histogram(np.array([0.0, 0.05, 0.0625, 1.0, 1.5, 2.0**30, np.inf, np.nan]))
    assert counts[0] == 1
    assert counts[1] == 2
    assert counts[EDGES.index(1.0)] == 1
    assert counts[EDGES.index(2.0)] == 1
    assert counts[-1] == 3


def test_junit(failing: Report, passing: Report) -> None:
    root = ET.fromstring(junit(failing))
    cases = root.findall(".//testcase")
    assert len(cases) == len(failing.rows) == int(root.attrib["tests"])
    failed = [case for case in cases if case.find("failure") is not None]
    assert len(failed) == len(failing.failures) == int(root.attrib["failures"])
    assert all("bad <one>" in case.attrib["classname"] for case in failed)
    assert "chain.py:4" in "".join(item.text or "" for item in root.iter("system-out"))
    assert ET.fromstring(junit(passing)).attrib["failures"] == "0"


def test_junit_of_characters_that_xml_has_not() -> None:
    report = Report("m\x00odel", "")
    report.add([failure("rounding", "x\x1b[0m", "\ud800", "\x07")])
    assert ET.fromstring(junit(report)).find(".//failure") is not None


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_no_word_is_broken_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], passing: Report,
                                                      columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_report(passing)
    lines = capsys.readouterr().out.splitlines()
    assert any({"numpy", "y", "pass"} <= set(line.split()) for line in lines)
    assert any(line.startswith("digest    sha256:") and len(line.split()[1]) == 71 for line in lines)
    assert lines[-1].startswith("chain: equivalent")


def test_failures_stand_below_the_table(failing: Report) -> None:
    text = io.StringIO()
    print_report(failing, Console(file=text, width=200))
    assert "✗ bad <one>, y, batch=" in text.getvalue()
    assert "Where: bad <one>: first at node 4, linear" in text.getvalue()
    assert text.getvalue().count("✗") <= 8


def test_json(failing: Report) -> None:
    document = json.loads(json.dumps(failing.to_dict(), allow_nan=False))
    assert document["locations"][0]["index"] == 4
    assert document["traces"][0]["points"][4]["source"] == "chain.py:4"
    assert len(document["histograms"]["edges"]) + 1 == len(document["histograms"]["counts"]["numpy"]["y"])


# The command line --------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    base = chain()
    inputs = [{"x": np.random.default_rng(seed).standard_normal((3, 6)).astype(np.float32)} for seed in range(3)]
    from dataclasses import replace

    from converter import reference
    from converter.ir import Example

    base = replace(base, examples=tuple(Example(item, reference.run(base, item), "torch") for item in inputs))
    converter.save(base, "deep/m.json")
    for index, item in enumerate(inputs[:2]):
        np.savez(tmp_path / "deep" / f"in{index}.npz", **item)  # type: ignore[arg-type]
    return tmp_path


def run(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["verify", *args])
    assert result.exit_code == code, result.output
    return result.output


def test_files_of_a_report(here: Path) -> None:
    output = run("deep/m.json", "--html", "r.html", "--junit", "r.xml", "--runtime", "numpy", "--cases", "2")
    assert "m.json: equivalent" in output
    assert "convert verify deep/m.json --seed 0 --cases 2 --runtime numpy" in (here / "r.html").read_text()
    assert ET.parse(here / "r.xml").getroot().attrib["failures"] == "0"


def test_a_directory_of_inputs(here: Path) -> None:
    report = json.loads(run("deep/m.json", "--input-file", "deep", "--runtime", "numpy", "--cases", "0", "--json"))
    assert {row["case"] for row in report["rows"]} >= {"given 0", "given 1"}
    (here / "none").mkdir()
    assert "no .npz file" in run("deep/m.json", "--input-file", "none", code=2)


@pytest.mark.parametrize("text", ["much", "-1GB", "0", "1XB"])
def test_a_size_that_is_none(here: Path, text: str) -> None:
    assert "no size" in run("deep/m.json", "--memory", text, code=2)


@pytest.mark.parametrize("text", ["500MB", "0.5 GB", "1GiB", "100000"])
def test_a_size(here: Path, text: str) -> None:
    run("deep/m.json", "--memory", text, "--runtime", "numpy", "--cases", "1")


def test_a_page_that_cannot_be_written_is_said(here: Path) -> None:
    assert "Error" in run("deep/m.json", "--html", "no/such/dir.html", "--runtime", "numpy", "--cases", "1", code=2)


def test_an_execution_provider_that_is_not_there(here: Path) -> None:
    """Nothing was judged, which is no verdict: exit code 2, as for a library that is not installed."""
    run("deep/m.json", "--runtime", "onnxruntime:CPUExecutionProvider", "--cases", "1")
    assert "cannot use NoSuchProvider" in run("deep/m.json", "--runtime", "onnxruntime:NoSuchProvider", "--cases", "1", code=2)


def test_what_a_file_says_at_length_is_shortened_in_errors() -> None:
    error = FormatError("x" * 50_000, where="y" * 50_000, expected="z" * 50_000, received=", ".join(map(str, range(20_000))), fix="ok")
    assert len(str(error)) < 8000
    assert "characters left out) … " in str(error)
    assert str(error).count("19999") == 1  # how each part ends is seen
    listed = UnsupportedError("many", items=[{"operator": "a" * 9000, "reason": "b"}] * 300)
    assert len(str(listed)) < 200_000
    whole = FormatError("a range", expected=", ".join(map(str, range(300))))
    assert "left out" not in str(whole)
