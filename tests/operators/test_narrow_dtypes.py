"""Dtypes of fewer than 8 bits: in files, in ONNX's packed form, converted and moved, and never computed with."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import converter
from adapters.onnx.file_session import OnnxFileSession
from adapters.onnx.initializers import unpack
from converter.builder import GraphBuilder
from converter.errors import FormatError, GraphError, UnsupportedError
from converter.ir import DType, Model
from converter.parameters import InMemoryParameters

INTEGERS = (DType.INT2, DType.UINT2, DType.INT4, DType.UINT4)


def moved(dtype: DType) -> Model:
    """x as integers of a dtype, after a row of a table of them, out as they are and as int32."""
    b = GraphBuilder("moved")
    table = np.arange(-8, 16).astype(dtype.numpy).reshape(3, 8)
    x, w = b.input("x", "int64", ["rows", 8]), b.parameter("w", str(dtype), [3, 8])
    both = b.op("concat", b.op("slice", w, axes=(0,), starts=(1,), stops=(2,)), b.op("astype", x, dtype=dtype), axis=0)
    b.output("narrow", both)
    b.output("wide", b.op("astype", both, dtype=DType.INT32))
    return Model(b.graph(), InMemoryParameters({"w": table}))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_every_runtime_wraps_alike(dtype: DType) -> None:
    x = np.array([[-9, -8, -1, 0, 3, 7, 15, 1 << 40]], np.int64)
    low, high = dtype.limits
    expected = [(int(item) - low) % (high - low + 1) + low for item in (*range(8), *x[0])]
    for runtime in ("reference", "numpy", "onnxruntime"):
        found = converter.session(moved(dtype), runtime=runtime).run({"x": x})
        assert found["narrow"].dtype == dtype.numpy, runtime
        assert found["wide"].reshape(-1).tolist() == expected, runtime


@pytest.mark.parametrize("suffix", ["json", "h5", "onnx"])
def test_files_keep_the_digest(tmp_path: Path, suffix: str) -> None:
    for dtype in INTEGERS:
        model = moved(dtype)
        converter.save(model, tmp_path / f"{dtype}.{suffix}")
        found = converter.load(tmp_path / f"{dtype}.{suffix}")
        assert found.parameters.read("w").tobytes() == model.parameters.read("w").tobytes()
        assert found.parameters.spec("w").dtype is dtype


def test_bytes_with_other_bits_are_refused_in_files_and_cleaned_in_memory(tmp_path: Path) -> None:
    dirty = np.array([0x1F, 0xF0], np.uint8).view(ml_dtypes.int4)
    assert InMemoryParameters({"w": dirty}).read("w").tobytes() == b"\x0f\x00"
    for text in ('"base64": "H/A="', '"values": [8, 0]', '"values": [1.0, 0]'):
        (tmp_path / "m.json").write_text('{"format": "neutral-model", "version": "1.2", "opset": 1, "graph": {"name": "g", "inputs": [], '
                                         '"nodes": [], "outputs": [{"name": "w", "dtype": "int4", "shape": [2]}]}, "parameters": {"w": '
                                         '{"dtype": "int4", "shape": [2], ' + text + "}}}")
        with pytest.raises(FormatError, match=r"other bits|does not fit"):
            converter.load(tmp_path / "m.json").parameters.read("w")


def test_no_arithmetic_and_no_torch() -> None:
    b = GraphBuilder("sum")
    x = b.input("x", "int4", [2])
    with pytest.raises(GraphError, match="add does not compute with int4"):
        b.op("add", x, x)
    with pytest.raises(UnsupportedError, match="PyTorch does not compute with int4"):
        converter.session(moved(DType.INT4), runtime="torch").run({"x": np.zeros((1, 8), np.int64)})


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_packed_bytes(dtype: DType) -> None:
    values = np.arange(-3, 10).astype(dtype.numpy)
    packed = np.frombuffer(numpy_helper.from_array(values).raw_data, np.uint8)
    assert unpack(packed, dtype, len(values)).tobytes() == values.tobytes()


@pytest.mark.parametrize(("kind", "block", "axis", "shape"), [
    (TensorProto.INT4, 16, 0, (2, 8)), (TensorProto.UINT4, 0, 1, (8,)), (TensorProto.INT4, 3, 1, (32, 3)), (TensorProto.UINT4, 0, 0, ())])
def test_weights_of_four_bits(tmp_path: Path, kind: int, block: int, axis: int, shape: tuple[int, ...]) -> None:
    """`DequantizeLinear` of packed weights with scales of the whole, of columns and of blocks is what ONNX Runtime computes.

    Not of a MatMul: ONNX Runtime rounds the other operand to 8 bits there.
    """
    generator = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    held = [numpy_helper.from_array(generator.integers(-8, 8, (32, 8)).astype(dtype), "w"),
            numpy_helper.from_array(generator.uniform(0.1, 1, shape).astype(np.float32), "scale"),
            numpy_helper.from_array(generator.integers(0, 8, shape).astype(dtype), "zero")]
    nodes = [helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["v"], axis=axis, block_size=block),
             helper.make_node("Mul", ["x", "v"], ["y"])]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32, 8])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32, 8])], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "m.onnx")
    model = converter.load(tmp_path / "m.onnx")
    assert str(model.parameters.spec("w").dtype) == dtype.name
    report = converter.verify([model, OnnxFileSession(tmp_path / "m.onnx")], locate=False)
    assert report, [row for row in report.rows if not row.passed]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_float8_is_converted_alike(dtype: str) -> None:
    """What is too large has no number, as of ONNX's casts without saturation."""
    b = GraphBuilder("float8")
    x, w = b.input("x", "float32", ["n"]), b.parameter("w", dtype, [3])
    b.output("y", b.op("astype", b.op("astype", x, dtype=DType.of(dtype)), dtype=DType.FLOAT32))
    b.output("z", b.op("astype", w, dtype=DType.FLOAT32))
    table = np.array([1.1, -0.0, np.nan]).astype(getattr(ml_dtypes, dtype))
    model = Model(b.graph(), InMemoryParameters({"w": table}))
    x_values = np.array([0, -0.0, 1.06, -3.3, 1e-4, 447, 470, 1e6, -1e6, np.inf, np.nan], np.float32)
    expected = {"y": x_values.astype(table.dtype).astype(np.float32), "z": table.astype(np.float32)}
    for runtime in ("reference", "numpy", "onnxruntime"):
        found = converter.session(model, runtime=runtime).run({"x": x_values})
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{runtime} {name}")


def test_what_onnx_runtime_does_not_take_is_refused() -> None:
    b = GraphBuilder("turned")
    b.output("y", b.op("flip", b.input("x", "float8_e5m2", ["n"]), axis=(0,)))
    model = Model(b.graph(), InMemoryParameters())
    with pytest.raises(UnsupportedError, match="cannot be written as ONNX"):
        converter.session(model, runtime="onnxruntime")


def test_the_largest_of_uint64() -> None:
    b = GraphBuilder("largest")
    values, places = b.add("topk", (b.input("x", "uint64", ["n", 4]),), {"k": 3, "axis": 1, "largest": True})
    b.output("values", values)
    b.output("places", places)
    x = np.array([[1, 1 << 63, (1 << 64) - 1, 5], [(1 << 63) - 1, 0, 7, 1 << 63]], np.uint64)
    found = converter.session(Model(b.graph(), InMemoryParameters()), runtime="onnxruntime").run({"x": x})
    np.testing.assert_array_equal(found["values"], np.sort(x, axis=1)[:, :0:-1])
    np.testing.assert_array_equal(found["places"], [[2, 1, 3], [3, 0, 2]])
