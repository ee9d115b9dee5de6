"""Streams that are closed or full, and pipes: a command never waits for ever, and its exit code stays what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import converter

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "fixtures" / "format" / "doubled.json"


def shell(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a line in which $C is the command and $M a model."""
    return subprocess.run(["sh", "-c", text], cwd=folder, capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "C": f"{sys.executable} -m converter", "M": str(MODEL)})


@pytest.mark.parametrize(("line", "code", "said"), [
    ("$C inspect $M >&-", 0, ""),
    ("$C verify $M --cases 1 --runtime numpy >&- 2>&-", 0, ""),
    ("$C json-to-hdf5 $M -o o.h5 >&-", 0, ""),
    ("$C json-to-hdf5 $M -o - >&-", 2, "standard output is closed"),
    ("$C json-to-hdf5 - -o o.h5 <&-", 2, "standard input is closed"),
    ("$C inspect none.json 2>/dev/full", 2, ""),
    ("$C nothing 2>/dev/full", 2, ""),
    ("$C --help >/dev/full", 2, "No space left"),
    ("$C inspect $M >/dev/full", 2, "No space left"),
    ("mkfifo pipe; $C inspect pipe", 2, ""),
    ("mkfifo pipe.json; $C json-to-hdf5 pipe.json -o o.h5", 2, "pipe"),
    ("mkfifo p.pt2; $C inspect p.pt2", 2, "pipe"),
    ("mkfifo p.pt2; $C torch-to-json p.pt2 --allow-pickle -o o.json", 2, "pipe"),
    ("cat $M | $C json-to-hdf5 /dev/stdin -o o.h5", 0, "Wrote"),
])
def test_a_stream(tmp_path: Path, line: str, code: int, said: str) -> None:
    found = shell(line, tmp_path)
    assert found.returncode == code, found.stderr
    assert said in found.stdout + found.stderr
    assert all(word not in found.stderr for word in ("Traceback", "internal error", "Exception ignored"))


def test_a_name_as_long_as_there_is(tmp_path: Path) -> None:
    name = "x" * 250 + ".json"
    found = shell(f"$C json-to-hdf5 $M -o m.h5 -q && $C hdf5-to-json m.h5 -o {name} && rm m.h5", tmp_path)
    assert found.returncode == 0, found.stderr
    assert len(list(tmp_path.iterdir())) == 1


def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"\xff.json")
    name.write_bytes(MODEL.read_bytes())
    reports = ("--html", "r.html", "--junit", "r.xml")
    found = subprocess.run([sys.executable, "-m", "converter", "verify", name, "--cases", "1", "--runtime", "numpy", *reports],
                           cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "\\udcff.json" in (tmp_path / "r.html").read_text("utf-8")
    assert ET.parse(tmp_path / "r.xml").getroot().attrib["failures"] == "0"


def test_a_checkpoint_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.json")).write_bytes(MODEL.read_bytes())
    for command in ((b"json-to-safetensors", b"\xff.json", b"-o", b"\xff.safetensors"),
                    (b"safetensors-to-json", b"\xff.safetensors", b"--architecture", b"\xff.json", b"-o", b"\xfe.json")):
        found = subprocess.run([sys.executable, "-m", "converter", *command], cwd=tmp_path, capture_output=True, check=False,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert found.returncode == 0, found.stderr
    assert converter.load(tmp_path / os.fsdecode(b"\xfe.json")).metadata["source"]["file"] == "\\udcff.safetensors"
