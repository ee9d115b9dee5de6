"""`BitCast` between floats and integers, to the bit, in every runtime; and the steps of optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

import converter
from converter.reference import run

Array = np.ndarray[Any, Any]
FLOATS = {"float16": np.int16, "bfloat16": np.int16, "float32": np.int32, "float64": np.int64}


def read(path: Path, own: Any, other: Any) -> converter.Model:
    numbers = [helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for dtype in (own, other)]
    node = helper.make_node("BitCast", ["x"], ["y"], to=numbers[1])
    graph = helper.make_graph([node], "bits", [helper.make_tensor_value_info("x", numbers[0], ["n"])],
                              [helper.make_tensor_value_info("y", numbers[1], ["n"])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)]), path)
    return converter.load(path)


def patterns(dtype: Any, integer: Any) -> Array:
    """Bits of every kind of number, of the least and the largest of each, and many drawn ones; no NaN."""
    limits = ml_dtypes.finfo(dtype)
    edges = np.array([0.0, 1.0, 2.0, 1.5, limits.max, limits.tiny, limits.smallest_subnormal, float(limits.tiny) * 0.5, np.inf], dtype)
    drawn = np.random.default_rng(0).integers(np.iinfo(integer).min, np.iinfo(integer).max, 4000, dtype=integer, endpoint=True)
    found = np.concatenate([edges, -edges, drawn.view(dtype)])
    with np.errstate(invalid="ignore"):  # of NaN that signal
        return found[~np.isnan(found.astype(np.float64))]


@pytest.mark.parametrize("runtime", ["reference", "numpy", "onnxruntime", "torch"])
@pytest.mark.parametrize("name", FLOATS)
def test_bits_of_floats(tmp_path: Path, name: str, runtime: str) -> None:
    dtype, integer = np.dtype(name), FLOATS[name]
    values = patterns(dtype, integer)
    for own, other in ((dtype, integer), (integer, dtype)):
        x, expected = (values, values.view(integer)) if own is dtype else (values.view(integer), values)
        model = read(tmp_path / "bits.onnx", own, other)
        found = converter.session(model, runtime).run({"x": x})["y"]
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found.view(integer), expected.view(integer))


@pytest.mark.parametrize("name", FLOATS)
def test_the_truth_in_float64_has_the_same_bits(tmp_path: Path, name: str) -> None:
    dtype, integer = np.dtype(name), FLOATS[name]
    values = patterns(dtype, integer)
    found = run(read(tmp_path / "a.onnx", dtype, integer), {"x": values}, float_dtype="float64")["y"]
    np.testing.assert_array_equal(found, values.view(integer))
    wide = run(read(tmp_path / "b.onnx", integer, dtype), {"x": values.view(integer)}, float_dtype="float64")["y"]
    np.testing.assert_array_equal(wide, values.astype(np.float64))


def test_nan_is_the_canonical_one_and_the_model_says_so(tmp_path: Path) -> None:
    model = read(tmp_path / "bits.onnx", np.float32, np.int32)
    found = converter.session(model).run({"x": np.array([np.nan, -np.nan], np.float32)})["y"]
    assert [hex(value) for value in found.tolist()] == ["0x7fc00000"] * 2
    assert any("canonical" in note for note in model.metadata["source"]["notes"])
    back = read(tmp_path / "back.onnx", np.int32, np.float32)
    assert np.isnan(converter.session(back).run({"x": np.array([0x7F800001, -1], np.int32)})["y"]).all()


@pytest.mark.parametrize(("own", "other"), [(np.float16, ml_dtypes.bfloat16), (np.uint32, np.float32), (np.float32, np.uint32)])
def test_other_pairs_of_one_width(tmp_path: Path, own: Any, other: Any) -> None:
    model = read(tmp_path / "bits.onnx", own, other)
    wide = np.dtype(own).itemsize == 4
    x = np.arange(0, 0x7F800000 if wide else 1 << 16, 9_999_991 if wide else 97).astype(np.uint32 if wide else np.uint16).view(own)
    x = x[~np.isnan(x.astype(np.float64))]
    expected = x.view(other)
    found = converter.session(model).run({"x": x})["y"]
    np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))
    assert found.dtype == expected.dtype


@pytest.mark.parametrize(("own", "other"), [(np.float32, np.float64), (ml_dtypes.float8_e4m3fn, np.int8)])
def test_what_is_left_is_refused(tmp_path: Path, own: Any, other: Any) -> None:
    with pytest.raises(converter.UnsupportedError, match="BitCast"):
        read(tmp_path / "bits.onnx", own, other)


@pytest.mark.parametrize(("t", "mode"), [(0, "standard"), (3, "standard"), (0, "nesterov"), (3, "nesterov")])
def test_two_tensors_take_a_step(tmp_path: Path, t: int, mode: str) -> None:
    """ONNX's own cases hold one of each; here shapes differ, at the first step and at a later one."""
    names = ["r", "t", "x0", "x1", "g0", "g1", "v0", "v1"]
    shapes: list[list[int]] = [[], [], [3], [2, 2], [3], [2, 2], [3], [2, 2]]
    node = helper.make_node("Momentum", names, ["n0", "n1", "w0", "w1"], domain="ai.onnx.preview.training", alpha=0.9, beta=0.1, mode=mode,
                            norm_coefficient=0.01)
    graph = helper.make_graph([node], "step", [helper.make_tensor_value_info(name, 7 if name == "t" else 1, shape)
                                               for name, shape in zip(names, shapes, strict=True)],
                              [helper.make_tensor_value_info(name, 1, None) for name in node.output])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.preview.training", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "step.onnx")
    rng = np.random.default_rng(0)
    inputs = {name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in zip(names, shapes, strict=True)}
    inputs |= {"t": np.array(t), "r": np.array(0.1, np.float32)}
    found = converter.session(converter.load(tmp_path / "step.onnx")).run(inputs)
    for place in "01":
        x, gradient, average = (inputs[kind + place] for kind in "xgv")
        slope = 0.01 * x + gradient
        new = 0.9 * average + (0.1 if t else 1) * slope
        np.testing.assert_allclose(found["w" + place], new, rtol=1e-6)
        np.testing.assert_allclose(found["n" + place], x - 0.1 * (new if mode == "standard" else slope + 0.9 * new), rtol=1e-5, atol=1e-6)
