"""Names that come from a file are data everywhere: never code, markup, or commands to a terminal."""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import converter
from converter.cli.main import cli
from converter.equivalence.html import html
from converter.equivalence.junit import junit
from converter.errors import ConverterError, shown
from converter.ir import Model

MARK = "_neutral_names_ran"
SPELL = f"__import__('builtins').{MARK}.append(1)"
HOSTILE = [
    f'training"), {SPELL}, getattr(self, "training',
    f"x'), {SPELL}, ('",
    f"x\n    {SPELL}\n",
    f"x; {SPELL} #",
    f"x\\\"), {SPELL}, (\\\"",
    "${IFS}$(touch PWNED)`touch PWNED`",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "]]>\"'&amp;<!--",
    "\x1b[2K\x1b[1A\x1b]0;owned\x07\x9b31m\u202eequivalent",
    "[bold red]{x!r} %s [link=x]",
]
ROLES = ("graph", "input", "output", "parameter", "value", "size", "metadata")


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What a name adds to where it is run as code."""
    marks: list[int] = []
    monkeypatch.setattr(builtins, MARK, marks, raising=False)
    return marks


def _model(role: str, name: str) -> Model:
    def named(kind: str, plain: str) -> str:
        return name if kind == role else plain

    builder = converter.GraphBuilder(named("graph", "g"))
    x = builder.input(named("input", "x"), "float32", [named("size", "n"), 2])
    total = builder.op("add", x, builder.parameter(named("parameter", "w"), "float32", [2]), name=named("value", "total"))
    builder.output(named("output", "y"), builder.op("relu", total))
    values = {named("parameter", "w"): np.asarray([1, 2], np.float32)}
    metadata = {name: name, "notes": [name], "source": {"framework": name}} if role == "metadata" else {}
    return Model(builder.graph(), converter.InMemoryParameters(values), (), metadata)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(role: str, name: str, tmp_path: Path, ran: list[int]) -> None:
    try:
        model = _model(role, name)
    except ConverterError:
        # The rules of names of sizes leave out all that is no identifier.
        if role != "size":
            raise
        return
    converter.save(model, tmp_path / "m.json")
    x = np.asarray([[3, -4], [-5, 6]], np.float32)
    (given,), (result,) = (port.name for port in model.graph.inputs), (port.name for port in model.graph.outputs)
    for runtime in ("reference", "numpy", "onnxruntime", "torch"):
        found = converter.session(converter.load(tmp_path / "m.json"), runtime=runtime).run({given: x})
        np.testing.assert_array_equal(found[result], [[4, 0], [0, 8]])
    for suffix in (".h5", ".onnx"):
        converter.save(model, tmp_path / f"m{suffix}")
        assert converter.load(tmp_path / f"m{suffix}").graph == model.graph
    assert not ran
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.h5", "m.json", "m.onnx"]


@pytest.mark.parametrize("role", ROLES)
def test_reports_and_terminals(role: str, tmp_path: Path, ran: list[int]) -> None:
    for position, name in enumerate(HOSTILE):
        if role == "size":
            name = f"n{position}"
        model = _model(role, name)
        path = tmp_path / f"{position}.json"
        converter.save(model, path)
        report = converter.verify(model, runtimes=["torch", "onnxruntime"], cases=1)
        assert report, str(report)
        page = html(report)
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        ElementTree.fromstring(junit(report))
        for arguments in (["inspect", str(path), "--nodes", "--parameters"], ["json-to-hdf5", str(path), "-o", str(tmp_path / "o.h5")],
                          ["verify", str(path), "--cases", "1", "--runtime", "numpy"]):
            result = CliRunner().invoke(cli, arguments)
            assert result.exit_code == 0, result.output
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.output), (name, result.output)
    assert not ran


def test_shown() -> None:
    assert shown("größe, 数, 🙂") == "größe, 数, 🙂"
    assert shown("a\nb\r\x1b[2K\u202e\ud800") == "a\nb\\r\\x1b[2K\\u202e\\ud800"
    assert shown("a\nb", lines=False) == "a\\nb"
    assert str(ConverterError("no \x1b[1A", where="a\x07")) == "a\\x07: no \\x1b[1A. "[:-1]


def test_files_called_like_libraries(tmp_path: Path) -> None:
    for name in ("secrets", "mmap", "google", "onnx", "queue"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('the file of the current folder')\n")
    (tmp_path / "helpers.py").write_text("import torch\nmake = lambda: torch.nn.Linear(2, 3)\n")
    (tmp_path / "mine.py").write_text("from helpers import make\ndef build():\n    return make()\n")
    for module in ("mine:build", "mine.py:build"):
        made = subprocess.run([sys.executable, "-m", "converter", "torch-to-onnx", "--module", module, "--input", "input:float32[n,2]",
                               "-o", "m.onnx"], cwd=tmp_path, capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": str(Path(converter.__file__).parent.parent), "PYTHONSAFEPATH": "1"})
        assert made.returncode == 0, made.stderr
