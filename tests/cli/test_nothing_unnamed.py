"""Outputs of `verify` and `run` write over nothing that is given as an input too, and over no file of somebody's."""

from __future__ import annotations

import io
import shutil
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from converter.cli.inputs import read_array, read_recorded
from converter.cli.main import cli
from converter.equivalence.reduction import PARTS, REPEAT, require_free
from converter.errors import ConverterError, FormatError
from converter.memory import shown_bytes
from converter.npz import read_npz
from converter.side_files import read_small

MODEL = Path(__file__).parents[2] / "fixtures" / "format" / "doubled.json"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(MODEL, tmp_path / "model.json")
    (tmp_path / "link.json").symlink_to("model.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verify(*options: str) -> Result:
    return CliRunner().invoke(cli, ["verify", "model.json", "--cases", "1", "--runtime", "numpy", *options])


@pytest.mark.parametrize("options", [("--html", "model.json"), ("--junit", "./model.json"), ("--html", "link.json"),
                                     ("--html", "r.html", "--junit", "r.html"), ("--input-file", "x.npz", "--html", "x.npz")])
def test_a_report_is_not_written_over_what_is_given(here: Path, options: tuple[str, ...]) -> None:
    np.savez(here / "x.npz", x=np.ones((1, 2), np.float32))
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    found = verify(*options)
    assert found.exit_code == 2
    assert "would be written over" in found.output
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_reports_of_their_own(here: Path) -> None:
    assert verify("--html", "r.html", "--junit", "r.xml").exit_code == 0
    assert verify("--html", "r.html", "--junit", "r.xml").exit_code == 0
    assert verify("--html", "/dev/null", "--junit", "/dev/null").exit_code == 0


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_not_written_over_files_of_somebody(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConverterError, match=f"no reduction wrote.*{name}"):
        require_free(tmp_path)


def test_a_part_is_written_over_an_earlier_one(tmp_path: Path) -> None:
    require_free(tmp_path / "none")
    for name in PARTS:
        (tmp_path / name).write_text(REPEAT if name == "README.txt" else "part")
    require_free(tmp_path)


def test_a_folder_with_the_model_is_refused_before_anything_is_judged(here: Path) -> None:
    found = verify("--reduce", ".")
    assert found.exit_code == 2
    assert "model.json" in found.output


def test_inputs_without_arrays_are_not_taken_for_none(here: Path) -> None:
    np.savez(here / "x.npz")
    found = verify("--input-file", "x.npz")
    assert found.exit_code == 2
    assert "no arrays" in found.output


def text(code: int, order: str = "<") -> bytes:
    header = f"{{'descr': '{order}U1', 'fortran_order': False, 'shape': (), }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + struct.pack(f"{order}I", code)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("code", [0x110000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_text_that_is_none(tmp_path: Path, code: int, order: str) -> None:
    """Python's own error for it is a SystemError."""
    (tmp_path / "x.npy").write_bytes(text(code, order))
    data = io.BytesIO()
    np.save(data, np.ones(2))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("made_by.npy", text(code, order))
        archive.writestr("0/outputs/y.npy", data.getvalue())
    for function, name in ((read_array, "x.npy"), (read_npz, "x.npz"), (read_recorded, "x.npz")):
        with pytest.raises(FormatError, match="no character"):
            function(tmp_path / name)
    (tmp_path / "x.npy").write_bytes(text(0x10FFFF, order))
    assert str(read_array(tmp_path / "x.npy")) == "\U0010ffff"


def test_empty_files_beside_a_model_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    for function in (read_array, read_npz, lambda path: read_small(path, 10)):
        with pytest.raises(FormatError, match="the file is empty"):
            function(tmp_path / "x")


@pytest.mark.parametrize(("nbytes", "told"), [(0, "0 B"), (999.4, "999 B"), (10**15, "1e+03 TB"), ("1 << 4096", "10^1233 bytes"),
                                              ("1 << 65536", "10^19728 bytes"), (float("1e300"), "10^300 bytes")])
def test_sizes_of_any_size_are_told(nbytes: float | str, told: str) -> None:
    if isinstance(nbytes, str):  # more digits than a test may have in its name
        nbytes = 1 << int(nbytes.rpartition(" ")[2])
    assert shown_bytes(nbytes) == told


@pytest.mark.parametrize("squarings", [6, 12, 14, 40])
def test_a_size_that_no_machine_has_is_refused(tmp_path: Path, squarings: int) -> None:
    """A size to the power of 2^squarings: more than a float holds, more digits than Python writes, and more than fit in memory."""
    info, nodes = helper.make_tensor_value_info, [helper.make_node("Shape", ["x"], ["s0"])]
    nodes += [helper.make_node("Mul", [f"s{place}"] * 2, [f"s{place + 1}"]) for place in range(squarings)]
    nodes += [helper.make_node("Expand", ["one", f"s{squarings}"], ["z"]), helper.make_node("ReduceSum", ["z"], ["y"], keepdims=0)]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, ["n"])], [info("y", TensorProto.FLOAT, None)],
                              [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones(7, np.float32))
    started = time.process_time()
    found = CliRunner().invoke(cli, ["run", str(tmp_path / "m.onnx"), "--input-file", str(tmp_path / "x.npz")])
    assert found.exit_code == 2
    assert "internal error" not in found.output
    assert time.process_time() - started < 10
