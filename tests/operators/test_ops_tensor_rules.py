"""What the operators on shapes, indices and order refuse, and what their importers make of a module."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from adapters.torch.tracing.trace import Program, trace
from converter import reference
from converter.builder import GraphBuilder, Value
from converter.dims import symbol
from converter.errors import GraphError, RunError, UnsupportedError
from converter.ir import Graph, Model
from converter.opset import lookup
from converter.parameters import InMemoryParameters


class Module(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> Any:
        return self.function(x) if y is None else self.function(x, y)


def traced(function: Any, *inputs: torch.Tensor, dims: Any = "auto") -> Program:
    return trace(Module(function), inputs, dims=dims)


def operators(function: Any, *inputs: torch.Tensor, dims: Any = "auto") -> list[str]:
    return [node.op for node in traced(function, *inputs, dims=dims).model.graph.nodes]


def kernel(name: str, *arrays: Any, **attributes: Any) -> Any:
    return lookup(name).kernel(*arrays, **attributes)


def built(make: Any) -> Graph:
    b = GraphBuilder("g")
    b.output("y", make(b))
    return b.graph()


def matrix(b: GraphBuilder, *shape: int | str, dtype: str = "float32") -> Value:
    return b.input("x", dtype, list(shape))


@pytest.mark.parametrize(("op", "shape", "attributes"), [
    ("reshape", (2, 3), {"shape": (4, 2)}),
    ("reshape", (2, 3), {"shape": (-2, -3)}),
    ("permute_dims", (2, 3), {"axes": (0,)}),
    ("permute_dims", (2, 3), {"axes": (0, 0)}),
    ("expand_dims", (2, 3), {"axis": (4,)}),
    ("squeeze", (2, 3), {"axis": (0,)}),
    ("broadcast_to", (2, 3), {"shape": (2, 4)}),
    ("broadcast_to", (2, 3), {"shape": (3,)}),
    ("flip", (2, 3), {"axis": (2,)}),
    ("roll", (2, 3), {"shift": (1, 2), "axis": (0,)}),
    ("tile", (2, 3), {"repetitions": (-1,)}),
    ("split", (2, 3), {"sizes": (1, 1), "axis": 1}),
    ("unstack", ("batch", 3), {"axis": 0}),
    ("slice", (2, 3), {"axes": (1,), "starts": (0,), "stops": (4,)}),
    ("slice", (2, 3), {"axes": (1,), "starts": (2,), "stops": (1,)}),
    ("slice", (2, 3), {"axes": (1,), "starts": (-4,), "stops": (None,)}),
    ("slice", (2, 3), {"axes": (1,), "starts": (0,), "stops": (None,), "steps": (-1,)}),
    ("slice", (2, 3), {"axes": (1, 1), "starts": (0, 0), "stops": (1, 1)}),
    ("select", (2, 3), {"axis": 1, "index": 3}),
    ("pad", (2, 3), {"pads": ((0, 0),)}),
    ("pad", (2, 3), {"pads": ((0, 0), (0, 3)), "mode": "reflect"}),
    ("pad", (2, 3), {"pads": ((0, 0), (0, 4)), "mode": "wrap"}),
    ("pad", (2, 3), {"pads": ((0, 0), (-2, -2))}),
    ("diagonal", (2, 3), {"axis1": 0, "axis2": -2}),
    ("unfold", (2, 3), {"axis": 1, "size": 4, "step": 1}),
    ("pixel_shuffle", (1, 6, 2, 2), {"factor": 2}),
    ("topk", (2, 3), {"k": 4, "axis": 1}),
    ("nonzero", (2, 3), {}),
    ("unique", (2, 3), {"axis": 1, "size": symbol("n")}),
])
def test_a_graph_that_breaks_a_shape_rule_is_refused(op: str, shape: tuple[int | str, ...], attributes: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=r"Received|Expected"):
        built(lambda b: b.op(op, matrix(b, *shape), **attributes))


def test_indices_must_be_integers_and_fit() -> None:
    with pytest.raises(GraphError, match="int32 or int64"):
        built(lambda b: b.op("take", matrix(b, 2, 3), b.input("i", "float32", [2]), axis=0))
    with pytest.raises(GraphError, match="on axis 0"):
        built(lambda b: b.op("take_along_axis", matrix(b, 2, 3), b.input("i", "int64", [3, 1]), axis=1))
    with pytest.raises(GraphError, match="different dtypes"):
        built(lambda b: b.op("scatter", matrix(b, 2, 3), b.input("i", "int64", [2, 1]), b.input("v", "float64", [2, 1]), axis=1))


@pytest.mark.parametrize(("op", "arrays", "attributes"), [
    ("take", ([1.0, 2.0], [2]), {"axis": 0}),
    ("index", ([[1.0, 2.0]], [0], [5]), {}),
    ("embedding", ([-1], [[1.0]]), {}),
    ("embedding", ([1], [[1.0]]), {}),
    ("one_hot", ([3],), {"num_classes": 3}),
    ("masked_scatter", ([1.0, 2.0], [True, True], [3.0]), {}),
    ("embedding_bag", ([0, 0], [[1.0]], [1, 2]), {}),
    ("repeat_indices", ([1, 2],), {"length": 4}),
    ("slice", ([1.0, 2.0],), {"axes": (0,), "starts": (1,), "stops": (3,)}),
    ("slice_scatter", ([1.0, 2.0], [1.0, 2.0]), {"axis": 0, "start": 1, "stop": 2}),
])
def test_values_that_do_not_fit_are_no_silent_result(op: str, arrays: Any, attributes: dict[str, Any]) -> None:
    with pytest.raises((IndexError, ValueError)):
        kernel(op, *map(np.asarray, arrays), **attributes)


def test_a_run_reports_an_index_outside_its_axis() -> None:
    graph = built(lambda b: b.op("take", matrix(b, 2, 3), b.input("i", "int64", ["n"]), axis=1))
    with pytest.raises(RunError, match="take"):
        reference.run(Model(graph, InMemoryParameters({})), {"x": np.zeros((2, 3), np.float32), "i": np.array([3])})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.int8, np.uint16])
def test_kernels_keep_the_dtype(dtype: Any) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtype)
    index = np.array([[0, 2], [1, 1]])
    for result in (kernel("sort", x, axis=1, descending=True)[0], kernel("topk", x, k=2, axis=1)[0],
                   kernel("scatter", x, index, x[:, :2], axis=1, reduction="mean"), kernel("pad", x, pads=((0, 0), (1, 1)), mode="reflect"),
                   kernel("index_put", x, x[:, 0], np.array([0, 1]), np.array([2, 2]), accumulate=True), kernel("diag_embed", x),
                   kernel("mode", x, axis=1)[0], kernel("unique", x)[0]):
        assert result.dtype == np.dtype(dtype)


def test_nan_sorts_last_and_equal_elements_keep_their_order() -> None:
    x = np.array([2.0, np.nan, 1.0, 2.0, np.nan])
    assert kernel("sort", x, axis=0)[1].tolist() == [2, 0, 3, 1, 4]
    assert kernel("sort", x, axis=0, descending=True)[1].tolist() == [1, 4, 0, 3, 2]
    assert kernel("topk", x.astype(ml_dtypes.bfloat16), k=2, axis=0)[1].tolist() == [1, 4]


def test_what_computes_nothing_leaves_no_node() -> None:
    def nothing(x: torch.Tensor) -> torch.Tensor:
        x = x.view(x.shape).permute(0, 1).expand(-1, -1).squeeze(1)[:, :].repeat(1, 1).flip(())
        return x.unflatten(1, (x.shape[1],)).narrow(0, 0, x.shape[0]) + 1

    assert operators(nothing, torch.zeros(4, 5), dims={"x": ["batch", None]}) == ["add"]


def test_slices_of_several_axes_are_one_node() -> None:
    assert operators(lambda x: x[1:, :-1, ::2], torch.zeros(5, 6, 7)) == ["slice"]
    # What is used elsewhere stays apart.
    assert operators(lambda x: (x[1:] + 1, x[1:][:, 1:]), torch.zeros(5, 6)).count("slice") >= 2


def test_a_matrix_of_bags_needs_no_offsets() -> None:
    program = traced(torch.nn.EmbeddingBag(5, 3), torch.zeros(4, 6, dtype=torch.int64))
    (node,) = (node for node in program.model.graph.nodes if node.op == "embedding_bag")
    assert node.inputs[0] == "x"
    assert len(node.inputs) == 2


def test_an_index_read_from_a_tensor_is_a_take() -> None:
    assert operators(lambda x, i: x[:, i], torch.zeros(4, 6), torch.tensor(2)) == ["take"]


def test_squeeze_of_all_axes_fixes_what_it_kept() -> None:
    program = traced(lambda x: x.squeeze(), torch.zeros(4, 1, 6))
    for size in program.model.graph.inputs[0].spec.shape:
        name = getattr(size, "symbol", None)
        assert name is None or program.model.graph.dims[name].min == 2


def renormed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.embedding(x, y, max_norm=1.0)


def test_rows_of_a_table_are_rescaled_where_they_are_looked_up() -> None:
    """torch rescales the table itself, row by row as it is read; what is read is the same either way."""
    x, table = torch.tensor([0, 2, 2, 3]), torch.tensor([[3.0, 4.0], [9.0, 9.0], [0.1, 0.2], [0.0, 0.0]])
    program = traced(renormed, x, table)
    (found,) = reference.run(program.model, {"x": x.numpy(), "y": table.numpy()}).values()
    np.testing.assert_allclose(found, renormed(x, table.clone()).numpy(), rtol=1e-6)


@pytest.mark.parametrize(("function", "inputs", "cause"), [
    (lambda x, y: renormed(x, y) + y.sum(0), (torch.zeros(3, dtype=torch.int64), torch.zeros(4, 2)), None),
    (lambda x: x.as_strided((2, 2), (1, 2), 0), (torch.zeros(8)[4:],), "memory"),
    (lambda x: torch.rand_like(x) + x, (torch.zeros(3),), "random"),
    (lambda x: torch.nn.functional.dropout(x, training=True), (torch.zeros(3),), "random"),
    (lambda x: torch.normal(x, 1.0), (torch.zeros(3),), "random"),
])
def test_what_cannot_be_expressed_is_refused_by_name(function: Any, inputs: tuple[torch.Tensor, ...], cause: str | None) -> None:
    with pytest.raises(UnsupportedError) as error:
        traced(function, *inputs, dims="static")
    assert str(error.value.items[0]["operator"]).startswith("aten.")
    assert error.value.causes == {cause}


def test_a_module_that_torch_cannot_trace_says_so() -> None:
    def branches(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x

    def raises(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("the module's own")

    with pytest.raises(UnsupportedError) as error:
        traced(branches, torch.ones(3))
    assert error.value.causes == {"untraceable"}
    with pytest.raises(UnsupportedError) as error:
        traced(raises, torch.ones(3))
    assert error.value.causes == {None}


def test_indices_of_nothing_are_not_looked_at() -> None:
    assert kernel("index", np.zeros((0, 3)), None, np.array([0, 7])).shape == (0, 2)
    with pytest.raises(IndexError):
        kernel("index", np.zeros((1, 3)), None, np.array([0, 7]))
    with pytest.raises(IndexError):
        kernel("index", np.zeros((0, 3)), np.array([0]), None)


def test_an_axis_of_nothing_is_unflattened() -> None:
    program = traced(lambda x: x.unflatten(1, (2, 0, 0)), torch.zeros(4, 0))
    (found,) = reference.run(program.model, {"x": np.zeros((4, 0), np.float32)}).values()
    assert found.shape == (4, 2, 0, 0)


def test_negative_numbers_are_not_counted() -> None:
    from adapters.numpy.session import NumpySession
    from adapters.onnx.session import OnnxRuntimeSession

    model = traced(lambda x: torch.bincount(x), torch.tensor([1, 3, 1])).model
    for session in (NumpySession(model), OnnxRuntimeSession(model)):
        assert session.run({"x": np.array([0, 2, 2, 5])})["output"].tolist() == [1, 0, 2, 0, 0, 1]
        with pytest.raises(RunError):
            session.run({"x": np.array([0, -1])})
    with pytest.raises(RunError):
        reference.run(model, {"x": np.array([0, -1])})
