"""The LSTM of 8 bits that ONNX Runtime's quantiser writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import converter
from adapters.onnx.file_session import OnnxFileSession
from converter.errors import UnsupportedError
from tests.onnx_files.test_onnx_reading import value

HIDDEN, INPUTS = 3, 4
OUTPUTS = ("every", "last_h", "last_c")


def saved(path: Path, direction: str, weights: str = "int8", by_column: bool = False, bias: bool = True, lengths: bool = False) -> Path:
    """A layer with weights of 8 bits, scales and zero points for each direction or each of its columns."""
    draw, count = np.random.default_rng(0), 2 if direction == "bidirectional" else 1
    low, high = np.iinfo(weights).min, np.iinfo(weights).max
    along = (count, 4 * HIDDEN) if by_column else (count,)
    held = {"w": draw.integers(low, high, (count, INPUTS, 4 * HIDDEN)).astype(weights),
            "r": draw.integers(low, high, (count, HIDDEN, 4 * HIDDEN)).astype(weights),
            "b": draw.standard_normal((count, 8 * HIDDEN)).astype(np.float32),
            "w_scale": draw.uniform(0.005, 0.02, along).astype(np.float32), "r_scale": draw.uniform(0.005, 0.02, along).astype(np.float32),
            "w_zero": np.full(along, (low + high + 1) // 2, weights), "r_zero": np.full(along, (low + high + 1) // 2, weights)}
    names = ["x", "w", "r", "b" if bias else "", "lengths" if lengths else "", "", "", "", "w_scale", "w_zero", "r_scale", "r_zero"]
    node = helper.make_node("DynamicQuantizeLSTM", names, OUTPUTS, domain="com.microsoft", hidden_size=HIDDEN, direction=direction)
    inputs = [value("x", ["time", "batch", INPUTS]), *([value("lengths", ["batch"], TensorProto.INT32)] if lengths else [])]
    graph = helper.make_graph([node], "graph", inputs, [value(name, None) for name in OUTPUTS],
                              [numpy_helper.from_array(item, name) for name, item in held.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
                                ir_version=9), path)
    return path


@pytest.mark.parametrize(("direction", "weights", "by_column", "bias"), [
    ("forward", "int8", False, True), ("reverse", "uint8", False, False), ("bidirectional", "int8", True, True)])
def test_a_batch_is_quantised_as_a_whole_at_each_step(tmp_path: Path, direction: str, weights: str, by_column: bool, bias: bool) -> None:
    """A step of 8 bits is 1e-2 of what goes in: rows that were quantised by themselves would differ by 1e-3."""
    path = saved(tmp_path / "m.onnx", direction, weights, by_column, bias)
    model = converter.load(path)
    session, file = converter.session(model), OnnxFileSession(path)
    for batch, time in ((1, 6), (5, 4), (3, 1)):
        x = np.random.default_rng(batch).standard_normal((time, batch, INPUTS)).astype(np.float32)
        found, wanted = session.run({"x": x}), file.run({"x": x})
        for name in OUTPUTS:
            np.testing.assert_allclose(found[name], wanted[name], atol=2e-6)
    assert any("DynamicQuantizeLSTM is what ONNX Runtime computes with one thread" in note for note in model.metadata["source"]["notes"])


def test_rows_of_their_own_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="DynamicQuantizeLSTM: lengths"):
        converter.load(saved(tmp_path / "m.onnx", "forward", lengths=True))
