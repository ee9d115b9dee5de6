"""Graph checking: every way in which a graph can break the rules has its own refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter import reference
from converter.attributes import normalize_attributes
from converter.builder import GraphBuilder
from converter.checking import check
from converter.dims import symbol
from converter.errors import ConverterError, GraphError, ParameterError, RunError, UnsupportedError
from converter.ir import DimRange, DType, Graph, GraphInput, GraphOutput, Model, Node, TensorSpec
from converter.opset import lookup
from converter.parameters import InMemoryParameters


def affine() -> tuple[Graph, InMemoryParameters]:
    weights = InMemoryParameters({"w": np.ones((3, 4), np.float32)})
    b = GraphBuilder("affine")
    x = b.input("x", "float32", ["batch", 4])
    b.output("y", b.op("linear", x, b.parameter("w", "float32", [3, 4]), name="h"))
    return b.graph(), weights


def broken(**changes: Any) -> Graph:
    return replace(affine()[0], **changes)


def node(*inputs: Any, op: str = "linear", outputs: tuple[Any, ...] = ("h",), **attributes: Any) -> Node:
    return Node(op, inputs, outputs, attributes)


BAD = {
    "unknown operator": (broken(nodes=(node("x", "w", op="linaer"),)), "no operator 'linaer'"),
    "unknown value": (broken(nodes=(node("x", "nothing"),)), "no value 'nothing'"),
    "too few inputs": (broken(nodes=(node("x"),)), "takes 2 to 3 inputs"),
    "too many inputs": (broken(nodes=(node("x", "w", "w", "w"),)), "takes 2 to 3 inputs"),
    "absent input": (broken(nodes=(node(None, "w"),)), "needs its input 'x'"),
    "unknown attribute": (broken(nodes=(node("x", "w", axis=1),)), "no attribute 'axis'"),
    "number not allowed": (broken(nodes=(node("x", 2.0),)), "takes no numbers"),
    "float beside integers": (broken(inputs=(GraphInput("x", TensorSpec.of("int64", ["batch", 4])),),
                                     nodes=(node("x", 0.5, op="add"),)), "does not fit"),
    "integer too large": (broken(inputs=(GraphInput("x", TensorSpec.of("int8", ["batch", 4])),),
                                 nodes=(node("x", 128, op="add"),)), "does not fit"),
    "shapes": (broken(inputs=(GraphInput("x", TensorSpec.of("float32", ["batch", 5])),)), "wrong size"),
    "dtypes": (broken(inputs=(GraphInput("x", TensorSpec.of("float64", ["batch", 4])),)), "different dtypes"),
    "name twice": (broken(nodes=(node("x", "w"), node("x", "w"))), "given twice"),
    "input named as a parameter": (broken(inputs=(GraphInput("w", TensorSpec.of("float32", ["batch", 4])),)), "given twice"),
    "too many outputs": (broken(nodes=(node("x", "w", outputs=("h", "i")),)), "has 1 outputs"),
    "no outputs": (broken(outputs=()), "without outputs"),
    "output of nothing": (broken(outputs=(GraphOutput("y", TensorSpec.of("float32", ["batch", 3]), "z"),)), "no value 'z'"),
    "outputs of one name": (broken(outputs=affine()[0].outputs * 2), "two outputs have one name"),
    "output declared wrongly": (broken(outputs=(GraphOutput("y", TensorSpec.of("float32", ["batch", 7]), "h"),)),
                               "not what the graph computes"),
    "output dtype declared wrongly": (broken(outputs=(GraphOutput("y", TensorSpec.of("float64", ["batch", 3]), "h"),)),
                                     "not what the graph computes"),
    "size that stands nowhere alone": (broken(inputs=(GraphInput("x", TensorSpec.of("float32", ["2*batch", 4])),)),
                                       "no input's shape holds"),
    "size without a range": (broken(dims={}), "has no range"),
}


@pytest.mark.parametrize("name", BAD)
def test_refusals(name: str) -> None:
    graph, message = BAD[name]
    with pytest.raises(GraphError, match=message) as caught:
        check(graph, affine()[1])
    assert str(caught.value).endswith(".")


def test_check_infers_every_value() -> None:
    graph, weights = affine()
    assert {name: str(spec) for name, spec in check(graph, weights).items()} == {
        "w": "float32[3, 4]", "x": "float32[batch, 4]", "h": "float32[batch, 3]"}


def test_errors_name_the_node() -> None:
    b = GraphBuilder("g")
    with pytest.raises(GraphError, match="node linear -> y"):
        b.op("linear", b.input("x", "float32", [2, 3]), b.input("w", "float32", [4, 5]))


@pytest.mark.parametrize(("inputs", "message"), [
    ({}, "names do not fit"), ({"x": np.zeros((2, 4), np.float32), "z": np.zeros(1)}, "names do not fit"),
    ({"x": np.zeros((2, 4))}, "wrong dtype"), ({"x": np.zeros((2, 3, 4), np.float32)}, "wrong number of axes"),
    ({"x": np.zeros((2, 5), np.float32)}, "wrong shape"), ({"x": np.zeros((9, 4), np.float32)}, "'batch' is outside its range"),
])
def test_inputs_that_do_not_fit(inputs: dict[str, Any], message: str) -> None:
    graph, weights = affine()
    with pytest.raises(RunError, match=message):
        reference.run(Model(replace(graph, dims={"batch": DimRange(1, 8)}), weights), inputs)


def test_a_range_without_an_end_is_said_whole() -> None:
    graph, weights = affine()
    with pytest.raises(RunError, match=r"batch in 3\.\.\. Received: 2\."):
        reference.run(Model(replace(graph, dims={"batch": DimRange(3)}), weights), {"x": np.zeros((2, 4), np.float32)})


def test_attributes_of_the_wrong_type() -> None:
    with pytest.raises(GraphError, match="boolean"):
        normalize_attributes(lookup("scaled_dot_product_attention"), {"is_causal": 1})
    with pytest.raises(GraphError, match="needs the attribute"):
        normalize_attributes(lookup("reshape"), {})


def test_defaults_are_left_out() -> None:
    assert normalize_attributes(lookup("scaled_dot_product_attention"), {"is_causal": False}) == {}


def test_builder_drops_what_no_output_needs() -> None:
    b = GraphBuilder("g")
    x = b.input("x", "float32", ["n"])
    b.op("negative", x)
    b.output("y", b.op("add", x, 1.0))
    assert [item.op for item in b.graph().nodes] == ["add"]


def test_parameters_share_memory_through_aliases() -> None:
    store = InMemoryParameters({"a": np.arange(3.0), "b": np.zeros(1)}, {"c": "a"})
    assert store.names() == ("a", "b", "c")
    assert store.alias_of("c") == "a"
    assert store.nbytes == 32
    assert np.shares_memory(store.read("a"), store.read("c"))
    assert not store.read("a").flags.writeable
    with pytest.raises(ParameterError, match="no parameter 'z'"):
        store.read("z")
    with pytest.raises(ParameterError, match="names no tensor"):
        InMemoryParameters({"a": np.zeros(1)}, {"b": "c"})


def test_dtypes() -> None:
    assert DType.of("bfloat16").itemsize == 2
    assert DType.of(np.float32) is DType.FLOAT32
    assert DType.of(np.dtype(">i4")) is DType.INT32
    with pytest.raises(GraphError, match="not a dtype"):
        DType.of("float128")


def test_error_parts() -> None:
    error = ConverterError("bad", where="here", expected="good", received="bad", fix="mend").within("file")
    assert str(error) == "file, here: bad. Expected: good. Received: bad. To fix: mend."
    many = UnsupportedError("2 operators", items=[{"operator": "a", "reason": "none", "count": 3, "source": "m.py:1"}])
    assert "  - a (x3): none, from m.py:1" in str(many)


def test_symbols_must_be_names() -> None:
    for name in ("", "1a", "max", "a b", "if"):
        with pytest.raises(GraphError, match="not a name"):
            symbol(name)


def test_a_shape_rule_that_trips_is_a_refusal() -> None:
    b = GraphBuilder("g")
    with pytest.raises(GraphError, match="node linear"):
        b.op("linear", b.input("x", "float32", []), b.input("w", "float32", [4, 5]))
