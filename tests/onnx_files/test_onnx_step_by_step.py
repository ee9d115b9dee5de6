"""Recurrent layers that are written out step by step, against ONNX Runtime's run of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import converter
from adapters.onnx.file_session import OnnxFileSession

TIME, BATCH, INPUTS, HIDDEN = 4, 3, 2, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize(("op", "count", "lengths", "states", "peepholes", "attributes"), [
    ("GRU", 1, False, True, False, {}), ("GRU", 2, True, False, False, {"clip": 0.4}),
    ("GRU", 1, True, True, False, {"direction": "reverse"}),
    ("GRU", 1, False, False, False, {"linear_before_reset": 1, "activations": ["HardSigmoid", "Softsign"], "activation_alpha": [0.3],
                                     "activation_beta": [0.4]}),
    ("GRU", 2, False, True, False, {"activations": ["Sigmoid", "Tanh", "Sigmoid", "Relu"]}),
    ("LSTM", 1, False, True, True, {}), ("LSTM", 2, True, True, True, {}), ("LSTM", 1, True, False, True, {"direction": "reverse"}),
    ("LSTM", 1, False, False, False, {"activations": ["Sigmoid", "ScaledTanh", "Elu"], "activation_alpha": [0.7, 0.5],
                                      "activation_beta": [0.9]}),
    ("RNN", 1, True, True, False, {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}),
    ("RNN", 2, False, True, False, {"activations": ["Tanh", "LeakyRelu"], "activation_alpha": [0.2]}),
    ("RNN", 1, False, False, False, {"activations": ["ThresholdedRelu"], "activation_alpha": [0.1], "clip": 2.0})])
def test_layers(tmp_path: Path, op: str, count: int, lengths: bool, states: bool, peepholes: bool, attributes: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    rows = GATES[op] * HIDDEN
    held: dict[str, Any] = {"W": generator.normal(size=(count, rows, INPUTS)), "R": generator.normal(size=(count, rows, HIDDEN)),
                            "B": generator.normal(size=(count, 2 * rows))}
    names = ["X", "W", "R", "B", "", "", "", ""]
    if lengths:
        held["lengths"], names[4] = np.array([2, 4, 1], np.int32), "lengths"
    for place, name in enumerate(("h", "c")[:2 if op == "LSTM" else 1], 5):
        if states:
            held[name], names[place] = generator.normal(size=(count, BATCH, HIDDEN)), name
    if peepholes:
        held["P"], names[7] = generator.normal(size=(count, 3 * HIDDEN)), "P"
    while not names[-1]:
        names.pop()
    outputs = ["y", "last", "cell"][:3 if op == "LSTM" else 2]
    options = {"direction": "bidirectional"} if count == 2 else {}
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **{**options, **attributes})
    tensors = [numpy_helper.from_array(array if name == "lengths" else array.astype(np.float32), name) for name, array in held.items()]
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("X", TensorProto.FLOAT, [TIME, BATCH, INPUTS])],
                              [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    x = generator.normal(size=(TIME, BATCH, INPUTS)).astype(np.float32)
    expected = OnnxFileSession(tmp_path / "m.onnx").run({"X": x})
    model = converter.load(tmp_path / "m.onnx")
    for runtime in ("reference", "numpy", "onnxruntime"):
        found = converter.session(model, runtime=runtime).run({"X": x})
        for name in outputs:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=2e-6, err_msg=f"{runtime} {name}")
