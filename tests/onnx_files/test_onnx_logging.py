"""ONNX Runtime's log belongs to the program: the library's sessions are silent, the program's own go on speaking."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from onnx import TensorProto, helper, save_model

LIBRARY = """
import numpy as np, sys
import converter
from adapters.onnx.file_session import OnnxFileSession
session = OnnxFileSession(sys.argv[1])
try:
    session.run({"i": np.array([7])})
except converter.ConverterError:
    pass
model = converter.load(sys.argv[1])
converter.session(model, "onnxruntime").run({"i": np.array([1])})
try:
    converter.session(model, "onnxruntime").run({"i": np.array([7])})
except converter.ConverterError:
    pass
sys.stderr.write("END OF THE LIBRARY\\n")
"""
PROGRAM = """
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def test_the_librarys_sessions_are_silent_and_the_programs_are_not(tmp_path: Path) -> None:
    unread = helper.make_tensor("unread", TensorProto.FLOAT, [1], [0.0])  # of which ONNX Runtime warns
    table = helper.make_tensor("table", TensorProto.FLOAT, [3, 2], [0.0] * 6)
    info = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node("Gather", ["table", "i"], ["y"])], "g", [info("i", TensorProto.INT64, ["n"])],
                              [info("y", TensorProto.FLOAT, ["n", 2])], [table, unread])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "m.onnx")
    done = subprocess.run([sys.executable, "-c", LIBRARY + PROGRAM, str(tmp_path / "m.onnx")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    library, _, program = done.stderr.partition("END OF THE LIBRARY\n")
    assert library == ""
    assert "unread" in program
