"""Files of other tools: one exported by torch, and what ONNX Runtime's quantiser and optimiser make of it; the record has all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from campaigns import onnx_makers, onnx_tools

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


OPEN = {"float16/gpt2_cached", "float16/resnet50", "float16/vit", "float16/whisper",  # nodes that stand before what they take
        "float16/llama", "float16/llama-all",  # its own norms round to float16 at each step, the layer's at the end
        "quantiser/bert-static-qdq-uint8", "quantiser/bert-static-qdq-mixed-channels"}
"""What is wrong in the record."""


def test_what_is_wrong_in_the_record_is_listed() -> None:
    rows: list[dict[str, Any]] = json.loads(onnx_tools.RECORD.read_text(encoding="utf-8"))["rows"]
    assert len(rows) >= 150
    assert {f"{row['tool']}/{row['name']}" for row in rows if row["verdict"] in ("wrong", "crash")} == OPEN
