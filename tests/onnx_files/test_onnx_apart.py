"""ONNX files of anybody run in a process of their own: the same answers, and an error for what takes too much, or dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import converter
from adapters.onnx.apart import OnnxFileApart, named_files
from adapters.onnx.file_session import OnnxFileSession
from converter.cli.main import cli
from converter.errors import FormatError, RunError

X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}


def saved(path: Path, nodes: list[onnx.NodeProto], output: int = TensorProto.FLOAT, more: Any = (),
          functions: list[onnx.FunctionProto] | None = None, **options: Any) -> Path:
    info, imports = helper.make_tensor_value_info, [helper.make_opsetid("", 18), *[helper.make_opsetid("own", 1)] * bool(functions)]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, ["n", 3])], [info("y", output, None)], list(more))
    onnx.save_model(helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions or []), path, **options)
    return path


def endless(path: Path) -> Path:
    """A loop of 2^62 steps."""
    info = helper.make_tensor_value_info
    body = helper.make_graph([helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Abs", ["s"], ["t"])], "body",
                             [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("s", TensorProto.FLOAT, ["n", 3])],
                             [info("d", TensorProto.BOOL, []), info("t", TensorProto.FLOAT, ["n", 3])])
    trips = onnx.numpy_helper.from_array(np.array(1 << 62), "trips")
    return saved(path, [helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)], more=[trips])


def large(path: Path) -> Path:
    """A constant of 8 GB."""
    size = onnx.numpy_helper.from_array(np.array([1 << 31]), "size")
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["z"]), helper.make_node("ReduceSum", ["z"], ["s"], keepdims=0),
             helper.make_node("Add", ["x", "s"], ["y"])]
    return saved(path, nodes, more=[size])


def test_the_same_as_in_this_process(tmp_path: Path) -> None:
    own = OnnxFileSession(saved(tmp_path / "m.onnx", [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("Neg", ["e"], ["y"])]))
    session = OnnxFileApart(tmp_path / "m.onnx")
    assert (session.inputs, session.outputs) == (own.inputs, own.outputs) == (["x"], ["y"])
    for inputs in (X, {"x": np.zeros((0, 3), np.float32), "unknown": X["x"]}, {"x": X["x"].T.copy().T}):
        assert session.run(inputs)["y"].tobytes() == own.run(inputs)["y"].tobytes()
        assert session.run(inputs)["y"].shape == inputs["x"].shape
    assert session.observe(X, ["e"])["e"].tobytes() == own.observe(X, ["e"])["e"].tobytes()
    for inputs in ({"x": X["x"].astype(np.float64)}, {"x": np.zeros(3, np.float32)}, {}):
        with pytest.raises(RunError, match="does not run the file on these inputs") as caught:
            session.run(inputs)
        assert caught.value.expected == "x"
    assert session.run(X)["y"].shape == (2, 3)  # it lives on


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.BOOL, TensorProto.INT8, TensorProto.STRING, TensorProto.DOUBLE])
def test_every_kind_of_output_comes_back(tmp_path: Path, kind: int) -> None:
    path = saved(tmp_path / "m.onnx", [helper.make_node("Cast", ["x"], ["y"], to=kind)], kind)
    found, own = OnnxFileApart(path).run(X)["y"], OnnxFileSession(path).run(X)["y"]
    assert found.dtype == own.dtype
    assert found.tolist() == own.tolist()


@pytest.mark.parametrize("location", ["elsewhere.bin", "é" * 90, "m.onnx.data"])
def test_values_beside_the_file(tmp_path: Path, location: str) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((3, 500), np.float32), "w")
    path = saved(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], more=[weight], save_as_external_data=True,
                 location=location, size_threshold=0)
    (tmp_path / "of somebody else").write_bytes(bytes(1 << 20))
    session = OnnxFileApart(path)
    assert session.length == path.stat().st_size + 6000
    assert session.run(X)["y"].shape == (2, 500)


@pytest.mark.parametrize("location", ["../outside", "/etc/passwd", "folder/../link", "folder", "missing", "nul\0", "m.onnx"])
def test_files_that_do_not_count(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside").write_bytes(bytes(5000))
    inner = tmp_path / "inner"
    (inner / "folder").mkdir(parents=True)
    (inner / "link").symlink_to(tmp_path / "outside")
    weight = onnx.TensorProto(name="w", dims=[3], data_type=1, data_location=1)
    weight.external_data.add(key="location", value=location)
    path = saved(inner / "m.onnx", [helper.make_node("Add", ["x", "w"], ["y"])], more=[weight])
    assert named_files(path) == set()


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    session, start = OnnxFileApart(endless(tmp_path / "m.onnx"), seconds=60), time.monotonic()
    session.seconds = 0.5
    with pytest.raises(FormatError, match=r"m\.onnx: .*too long.*at most 0\.5 s.*--timeout"):
        session.run(X)
    assert time.monotonic() - start < 30


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only here the system tells what a process used")
def test_a_machine_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    session = OnnxFileApart(saved(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])]))
    session.seconds = 0.3
    child = session._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    threading.Timer(1.0, os.kill, (child.pid, signal.SIGCONT)).start()
    assert session.run(X)["y"].shape == (2, 3)


def calling(depth: int) -> list[onnx.FunctionProto]:
    """Functions each of which calls the next one twice: the first stands for 2^depth nodes."""
    own, standard = helper.make_opsetid("own", 1), helper.make_opsetid("", 18)
    made = [helper.make_function("own", f"F{place}", ["a"], ["b"], [helper.make_node(f"F{place + 1}", ["a"], ["c"], domain="own"),
                                                                    helper.make_node(f"F{place + 1}", ["c"], ["b"], domain="own")], [own])
            for place in range(depth)]
    return [*made, helper.make_function("own", f"F{depth}", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [standard])]


def test_functions_that_stand_for_very_many_nodes(tmp_path: Path) -> None:
    """They are refused before ONNX Runtime writes them out."""
    nodes = [helper.make_node("F0", ["x"], ["y"], domain="own")]
    few = OnnxFileApart(saved(tmp_path / "few.onnx", nodes, functions=calling(4)))
    np.testing.assert_array_equal(few.run(X)["y"], X["x"])
    path, start = saved(tmp_path / "many.onnx", nodes, functions=calling(24)), time.monotonic()
    with pytest.raises(FormatError, match=r"functions grow too large.*at most 50000 nodes"):
        OnnxFileApart(path, seconds=600)
    assert time.monotonic() - start < 60


def test_what_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="too much memory"):
        OnnxFileApart(large(tmp_path / "m.onnx"), seconds=60).run(X)


def test_a_file_that_kills_its_process(tmp_path: Path) -> None:
    """The smallest integer over -1, which the processor refuses."""
    values = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in (("least", -(1 << 63)), ("one", -1))]
    nodes = [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64), helper.make_node("Sub", ["i", "i"], ["zero"]),
             helper.make_node("Add", ["zero", "least"], ["l"]), helper.make_node("Add", ["zero", "one"], ["m"]),
             helper.make_node("Div", ["l", "m"], ["y"])]
    session = OnnxFileApart(saved(tmp_path / "m.onnx", nodes, TensorProto.INT64, values))
    with pytest.raises(FormatError, match=r"ends on the file.*signal 8"):
        session.run(X)


def test_a_process_that_dies_is_an_error(tmp_path: Path) -> None:
    session = OnnxFileApart(saved(tmp_path / "m.onnx", [helper.make_node("Exp", ["x"], ["y"])]))
    assert session._child is not None
    os.kill(session._child.pid, 11)
    with pytest.raises(FormatError, match="signal 11"):
        session.run(X)
    assert session.run(X)["y"].shape == (2, 3)


def test_a_child_ends_with_its_session(tmp_path: Path) -> None:
    session = OnnxFileApart(saved(tmp_path / "m.onnx", [helper.make_node("Exp", ["x"], ["y"])]))
    assert session._child is not None
    child = session._child
    del session
    assert child.poll() is not None


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08no")
    with pytest.raises(FormatError, match="does not load the file"):
        OnnxFileApart(tmp_path / "m.onnx")


def test_the_command_line_ends_what_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    builder = converter.GraphBuilder("g")
    builder.output("y", builder.op("abs", builder.input("x", "float32", ["n", 3])))
    converter.save(converter.Model(builder.graph(), converter.InMemoryParameters({})), "m.json")
    endless(tmp_path / "theirs.onnx")
    result = CliRunner().invoke(cli, ["verify", "m.json", "theirs.onnx", "--cases", "1", "--runtime", "numpy", "--timeout", "3"])
    assert result.exit_code == 2, result.output
    assert "Error: " in result.stderr
    assert "at most 3 s" in result.stderr
