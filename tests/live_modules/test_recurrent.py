"""Recurrent layers: what the graph and the ONNX file hold, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adapters.onnx.export import build
from adapters.torch.tracing.trace import trace
from converter import opset, reference
from converter.errors import GraphError
from converter.ir import DType, TensorSpec


def traced(layer: nn.Module, *shape: int) -> Any:
    return trace(layer, [torch.zeros(*shape)], dims={"input": ["time", "batch", None]})


def test_zero_states_leave_only_weights() -> None:
    program = traced(nn.LSTM(3, 4, 2, bidirectional=True), 5, 2, 3)
    (node,) = program.model.graph.nodes
    assert node.op == "lstm"
    assert list(node.inputs) == ["input", *program.model.parameters.names()]


def test_onnx_is_one_node_a_layer_without_rearranging() -> None:
    program = traced(nn.LSTM(3, 4, 2, bidirectional=True), 5, 2, 3)
    proto, lowering = build(program.model)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("LSTM") == 2
    # Beside the layers, in no branch, what looks for NaN and infinities.
    assert set(kinds) <= {"LSTM", "Transpose", "Reshape", "Concat", "Sub", "ReduceSum", "IsNaN", "If"}
    sources = [name for item in lowering.initializers.values() for name in item.sources]
    assert sorted(sources) == sorted(program.model.parameters.names())


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_rearranged_weights_come_back(kind: Any) -> None:
    torch.manual_seed(0)
    program = traced(kind(3, 4, 2, bidirectional=True), 5, 2, 3)
    _, lowering = build(program.model)
    for item in lowering.initializers.values():
        originals = [program.model.parameters.read(name) for name in item.sources]
        values = item.layout.apply(originals)
        assert values.shape == item.spec.shape
        for found, wanted in zip(item.layout.invert(values, [array.shape for array in originals]), originals, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_wrong_number_of_tensors_is_refused(count: int) -> None:
    infer = opset.lookup("lstm").infer
    x = TensorSpec(DType.FLOAT32, (5, 2, 3))
    weights = [(16, 3), (16, 4), (16,), (16,), (1, 2, 4), (1, 2, 4), (1, 2, 4)]
    with pytest.raises(GraphError, match="number of weights"):
        infer(x, *(TensorSpec(DType.FLOAT32, shape) for shape in weights[:count]))


def test_a_weight_of_the_wrong_size_is_refused() -> None:
    infer = opset.lookup("gru").infer
    specs = [TensorSpec(DType.FLOAT32, shape) for shape in ((5, 2, 3), (12, 3), (12, 4), (12,), (11,))]
    with pytest.raises(GraphError, match="bias_hh"):
        infer(*specs)


def test_half_precision_is_rounded_once() -> None:
    torch.manual_seed(0)
    program = traced(nn.LSTM(3, 4), 6, 2, 3)
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    truth = reference.run(program.model, {"input": x})
    half = reference.run(program.model, {"input": x}, float_dtype="float16")
    for name, values in truth.items():
        assert half[name].dtype == np.float16
        np.testing.assert_allclose(half[name].astype(np.float32), values, atol=3e-3)
