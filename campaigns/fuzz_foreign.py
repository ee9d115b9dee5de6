"""Small ONNX files as other tools write them: branches, loops, functions, values beside, quantized operators, arithmetic of sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Files = dict[str, bytes]
FLOAT, INT64, BOOL, INT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.INT8
LARGEST_TEST = 20_000
"""Bytes of a node test of ONNX that is taken."""


def value(name: str, shape: Sequence[int | str | None], dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, Any],
    **options: Any,
) -> onnx.ModelProto:
    """A file of a producer that is not this one."""
    held = [numpy_helper.from_array(np.asarray(item), name) for name, item in constants.items()]
    versions = options.pop("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, held), opset_imports=versions, ir_version=9, producer_name="somebody", **options
    )


def _sizes() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["b"]),
        helper.make_node("Unsqueeze", ["b", "axis"], ["b1"]),
        helper.make_node("Concat", ["b1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Slice", ["r", "starts", "ends", "axes", "steps"], ["p"]),
        helper.make_node("Shape", ["r"], ["whole"]),
        helper.make_node("ConstantOfShape", ["whole"], ["c"]),
        helper.make_node("Expand", ["p", "whole"], ["e"]),
        helper.make_node("Add", ["e", "c"], ["y"]),
    ]
    constants = {
        "zero": np.int64(0),
        "axis": np.array([0]),
        "rest": np.array([2, -1]),
        "starts": np.array([0]),
        "ends": np.array([1]),
        "axes": np.array([1]),
        "steps": np.array([1]),
    }
    return model(nodes, [value("x", ["batch", "time size", 8])], [value("y", ["batch", 2, None])], constants)


def _layers() -> onnx.ModelProto:
    w = np.random.default_rng(0).standard_normal
    nodes = [
        helper.make_node("Conv", ["x", "k", "kb"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], group=1, dilations=[1, 1]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"], epsilon=1e-5),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("Resize", ["p", "", "scales"], ["u"], mode="nearest"),
        helper.make_node("GlobalAveragePool", ["u"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "w", "wb"], ["h"], transB=1, alpha=0.5),
        helper.make_node("LayerNormalization", ["h", "s", "sb"], ["l"], axis=-1),
        helper.make_node("Split", ["l"], ["l1", "l2"], axis=1),
        helper.make_node("Softmax", ["l1"], ["q"], axis=-1),
        helper.make_node("TopK", ["l2", "one"], ["t", "at"]),
        helper.make_node("Pad", ["t", "pads"], ["o"], mode="constant"),
        helper.make_node("Mul", ["o", "q"], ["y"]),
    ]
    constants = {
        "k": w((4, 3, 3, 3)).astype(np.float32),
        "kb": w(4).astype(np.float32),
        **{name: np.ones(4, np.float32) for name in ("g", "b", "m", "v", "s", "sb", "wb")},
        "scales": np.array([1, 1, 2, 2], np.float32),
        "w": w((4, 4)).astype(np.float32),
        "one": np.array([1]),
        "pads": np.array([0, 0, 0, 1]),
    }
    return model(nodes, [value("x", ["batch", 3, 8, 8])], [value("y", ["batch", 2])], constants)


def _branch() -> onnx.ModelProto:
    then = helper.make_graph([helper.make_node("Add", ["x", "w"], ["t"])], "then", [], [value("t", ["batch", 3])])
    other = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value_float=2.0), helper.make_node("Mul", ["x", "k"], ["e"])],
        "else",
        [],
        [value("e", ["batch", 3])],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    return model(nodes, [value("x", ["batch", 3])], [value("y", ["batch", 3])], {"zero": np.float32(0), "w": np.ones(3, np.float32)})


def _loops() -> onnx.ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "w"], ["next"]),
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Mul", ["next", "next"], ["each"]),
        ],
        "body",
        [value("i", [], INT64), value("going", [], BOOL), value("state", ["batch", 3])],
        [value("on", [], BOOL), value("next", ["batch", 3]), value("each", ["batch", 3])],
    )
    ends = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["held"], ["sum"], keepdims=0),
            helper.make_node("Less", ["sum", "most"], ["on"]),
            helper.make_node("Add", ["held", "w"], ["more"]),
        ],
        "ends",
        [value("i", [], INT64), value("going", [], BOOL), value("held", ["batch", 3])],
        [value("on", [], BOOL), value("more", ["batch", 3])],
    )
    step = helper.make_graph(
        [helper.make_node("Add", ["a", "row"], ["b"]), helper.make_node("Neg", ["b"], ["out"])],
        "step",
        [value("a", [3]), value("row", [3])],
        [value("b", [3]), value("out", [3])],
    )
    nodes = [
        helper.make_node("Loop", ["count", "yes", "x"], ["last", "stacked"], body=body),
        helper.make_node("Loop", ["", "yes", "last"], ["held"], body=ends),
        helper.make_node("Scan", ["w", "held"], ["carried", "y"], body=step, num_scan_inputs=1),
    ]
    constants = {"count": np.int64(4), "yes": np.array(True), "w": np.ones(3, np.float32), "most": np.float32(50)}
    return model(nodes, [value("x", ["batch", 3])], [value("y", ["batch", 3])], constants)


def _functions() -> onnx.ModelProto:
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    inner = helper.make_function("own", "inner", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], versions)
    outer = helper.make_function(
        "own",
        "outer",
        ["a"],
        ["b"],
        [helper.make_node("inner", ["a"], ["c"], domain="own"), helper.make_node("Neg", ["c"], ["b"])],
        versions,
    )
    nodes = [
        helper.make_node("outer", ["x"], ["h"], domain="own"),
        helper.make_node("Celu", ["h"], ["i"], alpha=2.0),
        helper.make_node("MeanVarianceNormalization", ["i"], ["y"], axes=[0]),
    ]
    return model(nodes, [value("x", ["batch", 3])], [value("y", ["batch", 3])], {}, functions=[inner, outer], opset_imports=versions)


def _quantized() -> onnx.ModelProto:
    constants = {
        "s": np.float32(0.1),
        "z": np.int8(0),
        "w": np.arange(12, dtype=np.int8).reshape(3, 4),
        "ws": np.full(4, 0.2, np.float32),
        "wz": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["m"]),
        helper.make_node("DequantizeLinear", ["m", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["x", "wd"], ["p"]),
        helper.make_node("DynamicQuantizeLinear", ["p"], ["pq", "ps", "pz"]),
        helper.make_node("DequantizeLinear", ["pq", "ps", "pz"], ["pd"]),
        helper.make_node("Add", ["d", "pd"], ["y"]),
    ]
    return model(nodes, [value("x", ["batch", 3])], [value("y", ["batch", 4])], constants)


def _recurrent() -> onnx.ModelProto:
    w = np.random.default_rng(0).standard_normal
    constants = {
        "w": w((1, 16, 3)).astype(np.float32),
        "r": w((1, 16, 4)).astype(np.float32),
        "b": w((1, 32)).astype(np.float32),
        "e": w((9, 3)).astype(np.float32),
        "axis": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["e", "ids"], ["x"]),
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["seq", "h", "c"], hidden_size=4),
        helper.make_node("Squeeze", ["seq", "axis"], ["q"]),
        helper.make_node("Einsum", ["q", "q"], ["y"], equation="tbi,tbi->tb"),
    ]
    return model(nodes, [value("ids", ["time", "batch"], INT64)], [value("y", ["time", "batch"])], constants)


def files() -> list[Files]:
    """The files; one keeps its values beside it, one is damaged by its sparse initializer alone."""
    found = [
        {"m.onnx": proto.SerializeToString()}
        for proto in (_sizes(), _layers(), _branch(), _loops(), _functions(), _quantized(), _recurrent())
    ]
    beside = _layers()
    data = b""
    for tensor in beside.graph.initializer:
        for key, text in (("location", "m.data"), ("offset", str(len(data))), ("length", str(len(tensor.raw_data)))):
            tensor.external_data.add(key=key, value=text)
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    return [*found, {"m.onnx": beside.SerializeToString(), "m.data": data}]


def node_tests() -> Iterator[Files]:
    """ONNX's own node tests, with their further inputs as constants where they are small."""
    from campaigns.onnx_cases import cases, with_constants

    for case in cases():
        protos = [case.model]
        with contextlib.suppress(ValueError):  # inputs that are sequences of tensors
            protos += [with_constants(case.model, case.data_sets[0][0])] if case.data_sets and len(case.model.graph.input) > 1 else []
        for proto in protos:
            data = proto.SerializeToString()
            if len(data) < LARGEST_TEST:
                yield {"m.onnx": data}
