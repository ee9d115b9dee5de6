"""Rotary positions in ONNX: at every opset the same, from 23 the operator of its own where it fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import converter

ANGLES = {"each its own": ("batch", 1, "time"), "by time": ("time",), "first axes of one": (1, 1, "time"), "each head": (3, "time"),
          "one for all": ()}
FITS = {"each its own", "by time", "first axes of one"}


@pytest.mark.parametrize("half", [4, 3])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("places", list(ANGLES))
def test_every_opset(places: str, interleaved: bool, half: int, tmp_path: Path) -> None:
    builder = converter.GraphBuilder("rotary")
    x = builder.input("x", "float32", ["batch", 3, "time", 8])
    cosine, sine = (builder.input(name, "float32", [*ANGLES[places], half]) for name in ("cosine", "sine"))
    first = builder.op("rotary_embedding", x, cosine, sine, interleaved=interleaved)
    builder.output("y", builder.op("rotary_embedding", first, cosine, sine, interleaved=interleaved))
    model = converter.Model(builder.graph(), converter.InMemoryParameters({}))
    sessions = {}
    for opset in (18, 23):
        converter.save(model, tmp_path / f"{opset}.onnx", opset=opset)
        sessions[opset] = onnxruntime.InferenceSession(str(tmp_path / f"{opset}.onnx"), providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(str(tmp_path / "23.onnx")).graph.node]
    assert operators.count("RotaryEmbedding") == (2 if places in FITS else 0)
    assert operators.count("Expand") <= 2
    generator = np.random.default_rng(0)
    reference = converter.session(model, "reference")
    for batch, time in ((2, 5), (1, 1), (3, 12)):
        sizes = {"batch": batch, "time": time}
        angle = generator.standard_normal([*(sizes.get(size, size) for size in ANGLES[places]), half])
        inputs = {"x": generator.standard_normal((batch, 3, time, 8)).astype(np.float32), "cosine": np.cos(angle).astype(np.float32),
                  "sine": np.sin(angle).astype(np.float32)}
        wanted = reference.run(inputs)["y"]
        for session in sessions.values():
            np.testing.assert_allclose(session.run(None, inputs)[0], wanted, rtol=1e-5, atol=2e-6)
