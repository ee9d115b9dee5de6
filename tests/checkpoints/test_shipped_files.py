"""The record of trained files that packages ship: nothing crashed, what was compared is equal; and the campaign, on a file of ours."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from campaigns.shipped_files import EQUAL, RECORD, Shipped, convert


def test_what_the_record_says() -> None:
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    assert len(rows) >= 40
    assert not [row["file"] for row in rows if "crash" in row["targets"].values()]
    assert not [row["file"] for row in rows if row["apart"] is not None and not row["apart"] < EQUAL]
    assert not [row["file"] for row in rows if "refused" in row["targets"].values() and not row.get("refusal", "").startswith("Error: ")]
    assert not [row["file"] for row in rows if row["how"] in ("module", "recognised") and row["apart"] is None]


def test_a_file_without_its_module_gives_its_parameters_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    torch.save({"alpha": torch.ones(3), "beta": torch.ones(3)}, tmp_path / "package/w.pt")
    row = convert(Shipped("package", "1", "w.pt"), tmp_path)
    assert row["how"] == "parameters"
    assert row["targets"] == {"json": "refused", "hdf5": "refused", "onnx": "refused", "safetensors": "converted"}
    assert "no computation" in row["refusal"]
    assert str(tmp_path) not in json.dumps(row)
