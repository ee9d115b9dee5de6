"""Files of other tools: one exported by torch, and what ONNX Runtime's quantiser and optimiser make of it; the record has all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from campaigns import onnx_makers, onnx_tools
from converter.cli.main import cli

pytestmark = pytest.mark.xdist_group("onnx_tools")  # one process makes what they share

DERIVED = ["quantiser/tagger-static-qdq", "quantiser/tagger-static-qdq-uint8", "quantiser/tagger-static-qdq-channels",
           "quantiser/tagger-static-qdq-mixed-channels", "quantiser/tagger-static-operator", "quantiser/tagger-static-qdq-int16",
           "onnxruntime-saved/tagger-basic", "onnxruntime-saved/tagger-extended", "version-converter/tagger-21"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    onnx_makers.make(made, ["torchscript/tagger", *DERIVED])
    return made


@pytest.mark.parametrize("name", ["torchscript/tagger", *DERIVED])
def test_files_of_other_tools_are_read_and_judged(folder: Path, name: str) -> None:
    row = onnx_tools.judge(folder / f"{name}.onnx")
    assert (row["verdict"], row["reason"]) == ("pass", "")
    assert row["sizes"] >= 2


def test_a_file_whose_nodes_onnxruntime_runs_otherwise_strays(folder: Path) -> None:
    """Weights of 4 bits, which it multiplies with activations that it rounds to 8 bits by default."""
    base = folder / "torchscript" / "tagger.onnx"
    path = folder / "four-bits.onnx"
    onnx_makers.few_bits(onnx_makers.Base(base, onnx_tools.given(base)), symmetric=True, qdq=True, block=32)(path)
    row = onnx_tools.judge(path)
    assert (row["verdict"], row["strays"]) == ("pass", True)
    assert "ulps" in row["reason"]
    done = CliRunner().invoke(cli, ["verify", str(path), "--runtime", "numpy", "--cases", "2", "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["verdict"]) == (0, "equivalent")
    assert {item["subject"] for item in found["strays"]} == {"four-bits.onnx as it lies"}
    assert any("the nodes as they stand are right" in note and "ulps" in note for note in found["notes"])


def test_nothing_in_the_record_is_wrong() -> None:
    rows: list[dict[str, Any]] = json.loads(onnx_tools.RECORD.read_text(encoding="utf-8"))["rows"]
    assert len(rows) >= 150
    assert {f"{row['tool']}/{row['name']}" for row in rows if row["verdict"] in ("wrong", "crash")} == set()
