"""ONNX files of other origins: sizes, names, layers, branches, and files that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import converter
from adapters.onnx.file_session import OnnxFileSession
from converter.cli.main import cli
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.ir import Model
from converter.loading import read as incoming
from converter.paths import model_format

Shape = Sequence[int | str | None]


def value(name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def write(path: Path, nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str],
          constants: dict[str, Any] | None = None, opset: int = 17, **options: Any) -> Path:
    held = [numpy_helper.from_array(np.asarray(item), name) for name, item in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, [helper.make_empty_tensor_value_info(name) for name in outputs], held)
    for output in graph.output:
        output.type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9, **options), path)
    return path


def read(path: Path) -> Model:
    """The model, which ONNX Runtime's run of the file agrees with at drawn sizes."""
    model = converter.load(path)
    report = converter.verify([model, OnnxFileSession(path)], locate=False)
    assert report, [row for row in report.rows if not row.passed]
    return model


def ops(model: Model) -> list[str]:
    return [node.op for node in model.graph.nodes]


def test_arithmetic_of_shapes_disappears(tmp_path: Path) -> None:
    """Shape, Gather, Unsqueeze, Concat and Reshape are one reshape."""
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "zero"], ["b"]),
             helper.make_node("Gather", ["s", "one"], ["t"]), helper.make_node("Mul", ["b", "t"], ["rows"]),
             helper.make_node("Unsqueeze", ["rows", "axis"], ["rows_1"]), helper.make_node("Concat", ["rows_1", "rest"], ["shape"], axis=0),
             helper.make_node("Reshape", ["x", "shape"], ["y"])]
    constants = {"zero": np.int64(0), "one": np.int64(1), "axis": np.array([0]), "rest": np.array([2, -1])}
    model = read(write(tmp_path / "m.onnx", nodes, [value("x", ["batch", "time", 8])], ["y"], constants))
    assert ops(model) == ["reshape"]
    assert [str(size) for size in model.graph.outputs[0].spec.shape] == ["batch*time", "2", "4"]


@pytest.mark.parametrize(("shape", "names"), [
    (["N", None, 3], ["N", "x_1", "3"]), (["batch size", "0", 3], ["batch_size", "size_0", "3"]), (["a", "a", 3], ["a", "a", "3"]),
    (["max", "class", 3], ["size_max", "size_class", "3"]),
])
def test_sizes_of_any_name_are_free(tmp_path: Path, shape: Shape, names: list[str]) -> None:
    model = read(write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [value("x", shape)], ["y"]))
    assert [str(size) for size in model.graph.inputs[0].spec.shape] == names


def test_a_size_that_is_a_sum_of_others(tmp_path: Path) -> None:
    inputs = [value("past", ["batch", "past_length"]), value("x", ["batch", "length"]), value("mask", ["batch", "past_length + length"])]
    nodes = [helper.make_node("Concat", ["past", "x"], ["whole"], axis=1), helper.make_node("Mul", ["whole", "mask"], ["y"])]
    model = read(write(tmp_path / "m.onnx", nodes, inputs, ["y"]))
    assert str(model.graph.inputs[2].spec.shape[1]) == "length + past_length"


def test_layers_are_lifted_and_weights_have_their_names_and_layout(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weight, bias = generator.normal(size=(8, 6)).astype(np.float32), generator.normal(size=6).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "onnx::MatMul_12"], ["m"], name="/encoder/layer.0/dense/MatMul"),
             helper.make_node("Add", ["encoder.layer.0.dense.bias", "m"], ["h"]), helper.make_node("Div", ["h", "/root"], ["d"]),
             helper.make_node("Erf", ["d"], ["e"]), helper.make_node("Add", ["e", "/one"], ["e1"]),
             helper.make_node("Mul", ["h", "e1"], ["p"]), helper.make_node("Mul", ["p", "/half"], ["y"])]
    constants = {"onnx::MatMul_12": weight, "encoder.layer.0.dense.bias": bias, "/root": np.float32(2 ** 0.5), "/one": np.float32(1),
                 "/half": np.float32(0.5)}
    model = read(write(tmp_path / "m.onnx", nodes, [value("x", ["batch", 8])], ["y"], constants))
    assert ops(model) == ["linear", "gelu"]
    np.testing.assert_array_equal(model.parameters.read("encoder.layer.0.dense.weight"), weight.T)


def test_attention_is_lifted_where_its_mask_holds_no_infinity(tmp_path: Path) -> None:
    inputs = [value("q", ["batch", 2, "time", 4]), value("k", ["batch", 2, "time", 4]), value("v", ["batch", 2, "time", 4]),
              value("mask", ["batch", 1, 1, "time"], TensorProto.BOOL)]
    nodes = [helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]), helper.make_node("MatMul", ["q", "kt"], ["s"]),
             helper.make_node("Mul", ["s", "/scale"], ["scaled"]), helper.make_node("Where", ["mask", "/zero", "/low"], ["added"]),
             helper.make_node("Add", ["scaled", "added"], ["masked"]), helper.make_node("Softmax", ["masked"], ["p"], axis=-1),
             helper.make_node("MatMul", ["p", "v"], ["y"])]
    constants = {"/scale": np.float32(0.5), "/zero": np.float32(0), "/low": np.float32(-1e4)}
    assert "scaled_dot_product_attention" in ops(read(write(tmp_path / "m.onnx", nodes, inputs, ["y"], constants)))
    constants["/low"] = np.float32(-np.inf)
    assert "softmax" in ops(converter.load(write(tmp_path / "n.onnx", nodes, inputs, ["y"], constants)))


def test_attention_of_grouped_heads_is_lifted(tmp_path: Path) -> None:
    """As torch's newer exporter writes it: keys repeated for each head of their group, and turned with their leading axes made one."""
    inputs = [value("q", ["batch", 4, "time", 4]), value("k", ["batch", 2, "time", 4]), value("v", ["batch", 2, "time", 4])]
    nodes = [helper.make_node("Shape", ["q"], ["s"]), helper.make_node("Gather", ["s", "i0"], ["b"]),
             helper.make_node("Gather", ["s", "i2"], ["t"])]
    for name in ("k", "v"):
        nodes += [helper.make_node("Unsqueeze", [name, "two"], [f"{name}5"]),
                  helper.make_node("Concat", ["b", "two", "two", "t", "four"], [f"{name}_wide"], axis=0),
                  helper.make_node("Expand", [f"{name}5", f"{name}_wide"], [f"{name}_each"])]
    nodes += [helper.make_node("Mul", ["b", "four"], ["b4"]), helper.make_node("Concat", ["b4", "t", "four"], ["rows"], axis=0),
              helper.make_node("Reshape", ["k_each", "rows"], ["k_rows"]),
              helper.make_node("Transpose", ["k_rows"], ["k_turned"], perm=[0, 2, 1]),
              helper.make_node("Concat", ["b", "four", "four", "t"], ["back"], axis=0),
              helper.make_node("Reshape", ["k_turned", "back"], ["kt"]),
              helper.make_node("Concat", ["b", "four", "t", "four"], ["heads"], axis=0),
              helper.make_node("Reshape", ["v_each", "heads"], ["vh"]),
              helper.make_node("Mul", ["q", "/root"], ["q_scaled"]), helper.make_node("Mul", ["kt", "/root"], ["k_scaled"]),
              helper.make_node("MatMul", ["q_scaled", "k_scaled"], ["scores"]), helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
              helper.make_node("MatMul", ["p", "vh"], ["y"])]
    constants = {"i0": np.array([0]), "i2": np.array([2]), "two": np.array([2]), "four": np.array([4]), "/root": np.float32(0.5 ** 0.5)}
    model = read(write(tmp_path / "m.onnx", nodes, inputs, ["y"], constants, opset=18))
    (attention,) = model.graph.nodes
    assert (attention.op, attention.inputs, attention.attributes["enable_gqa"]) == ("scaled_dot_product_attention", ("q", "k", "v"), True)


def test_a_mask_taken_at_counted_places_is_the_mask(tmp_path: Path) -> None:
    """As model code broadcasts a mask: one index for each row and each place, which may count from the end."""
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "i0"], ["b"]),
             helper.make_node("Gather", ["s", "i1"], ["t"]),
             helper.make_node("Range", ["i0", "b", "i1"], ["rows"]), helper.make_node("Range", ["i0", "t", "i1"], ["columns"]),
             helper.make_node("Unsqueeze", ["rows", "down"], ["r"]), helper.make_node("Unsqueeze", ["columns", "along"], ["c"]),
             helper.make_node("Unsqueeze", ["b", "zero"], ["b1"]), helper.make_node("Unsqueeze", ["t", "zero"], ["t1"]),
             helper.make_node("Concat", ["b1", "t1"], ["shape"], axis=0), helper.make_node("Expand", ["r", "shape"], ["rr"]),
             helper.make_node("Expand", ["c", "shape"], ["cc"]), helper.make_node("Unsqueeze", ["rr", "last"], ["r1"]),
             helper.make_node("Unsqueeze", ["cc", "last"], ["c1"]), helper.make_node("Concat", ["r1", "c1"], ["places"], axis=2),
             helper.make_node("GatherND", ["x", "places"], ["taken"]), helper.make_node("Mul", ["taken", "/one"], ["y"])]
    constants = {"i0": np.int64(0), "i1": np.int64(1), "down": np.array([1]), "along": np.array([0]), "zero": np.array([0]),
                 "last": np.array([2]), "/one": np.float32(1)}
    assert not [op for op in ops(read(write(tmp_path / "m.onnx", nodes, [value("x", ["batch", "time"])], ["y"], constants)))
                if op in ("index", "where", "multiply")]


def test_sizes_that_must_be_equal_are_one(tmp_path: Path) -> None:
    inputs = [value("past", ["batch", "p"]), value("x", ["batch", "t"]), value("weights", ["whole", 3])]
    nodes = [helper.make_node("Concat", ["past", "x"], ["joined"], axis=1), helper.make_node("MatMul", ["joined", "weights"], ["y"])]
    model = read(write(tmp_path / "m.onnx", nodes, inputs, ["y"]))
    assert str(model.graph.inputs[2].spec.shape[0]) == "p + t"
    assert "whole is p + t" in model.metadata["source"]["notes"][0]


def test_recurrent_layers_of_one_module_have_its_names(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    nodes, constants, source = [helper.make_node("Transpose", ["x"], ["x0"], perm=[1, 0, 2])], {}, "x0"
    for layer in range(2):
        constants |= {f"onnx::LSTM_{layer}{kind}": generator.normal(size=shape).astype(np.float32)
                      for kind, shape in (("w", (1, 16, 4)), ("r", (1, 16, 4)), ("b", (1, 32)))}
        nodes += [helper.make_node("LSTM", [source, *(f"onnx::LSTM_{layer}{kind}" for kind in "wrb")], [f"y{layer}"], hidden_size=4,
                                   name=f"/tagger/lstm/LSTM_{layer}"),
                  helper.make_node("Squeeze", [f"y{layer}", "one"], [source := f"x{layer + 1}"])]
    nodes.append(helper.make_node("Transpose", [source], ["y"], perm=[1, 0, 2]))
    model = read(write(tmp_path / "m.onnx", nodes, [value("x", ["batch", "time", 4])], ["y"], {**constants, "one": np.array([1])}))
    assert ops(model) == ["lstm", "lstm"]
    assert {"tagger.lstm.weight_ih_l0", "tagger.lstm.bias_hh_l1"} <= set(model.parameters.names())


def branches(condition: str) -> list[onnx.NodeProto]:
    then = helper.make_graph([helper.make_node("Add", ["x", "w"], ["t"])], "then", [], [value("t", ["batch", 3])])
    other = helper.make_graph([helper.make_node("Sub", ["x", "w"], ["e"])], "else", [], [value("e", ["batch", 3])])
    return [helper.make_node("If", [condition], ["y"], then_branch=then, else_branch=other)]


def test_a_branch_that_sizes_decide_is_gone_and_another_runs(tmp_path: Path) -> None:
    decide = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Size", ["s"], ["rank"]),
              helper.make_node("Equal", ["rank", "two"], ["c"])]
    constants = {"two": np.int64(2), "w": np.arange(3, dtype=np.float32)}
    assert ops(read(write(tmp_path / "m.onnx", [*decide, *branches("c")], [value("x", ["batch", 3])], ["y"], constants))) == ["add"]
    data = [helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0), helper.make_node("Greater", ["total", "w0"], ["c"])]
    constants = {"w0": np.float32(0), "w": np.arange(3, dtype=np.float32)}
    assert "cond" in ops(read(write(tmp_path / "n.onnx", [*data, *branches("c")], [value("x", ["batch", 3])], ["y"], constants)))


def test_a_loop_of_known_steps_is_a_scan(tmp_path: Path) -> None:
    body = helper.make_graph([helper.make_node("Add", ["state", "w"], ["next"]), helper.make_node("Identity", ["going"], ["on"]),
                              helper.make_node("Mul", ["next", "next"], ["each"])], "body",
                             [value("i", [], TensorProto.INT64), value("going", [], TensorProto.BOOL), value("state", ["batch", 3])],
                             [value("on", [], TensorProto.BOOL), value("next", ["batch", 3]), value("each", ["batch", 3])])
    nodes = [helper.make_node("Loop", ["count", "yes", "x"], ["last", "y"], body=body)]
    constants = {"count": np.int64(4), "yes": np.array(True), "w": np.ones(3, np.float32)}
    assert ops(read(write(tmp_path / "m.onnx", nodes, [value("x", ["batch", 3])], ["y"], constants))) == ["arange", "scan"]


def test_what_cannot_be_read_is_listed_at_once_with_counts(tmp_path: Path) -> None:
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["a"]), helper.make_node("Nonsense", ["a"], ["b"], domain="their.own"),
             helper.make_node("RandomNormalLike", ["x"], ["c"]), helper.make_node("Add", ["b", "c"], ["y"])]
    with pytest.raises(UnsupportedError) as caught:
        converter.load(write(tmp_path / "m.onnx", nodes, [value("x", ["batch", 3])], ["y"]))
    assert {item["operator"]: item["count"] for item in caught.value.items} == {"RandomNormalLike": 2, "their.own.Nonsense": 1}


def test_text_is_refused_by_the_input_s_name(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], [value("x", [1], TensorProto.STRING)], ["y"])
    with pytest.raises(UnsupportedError) as caught:
        converter.load(path)
    assert caught.value.items == [{"operator": "x", "reason": "it is of the dtype STRING"}]


def calls_itself() -> dict[str, Any]:
    return {"functions": [helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("f", ["a"], ["b"], domain="own")],
                                               [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])]}


def doubles_thirty_times() -> dict[str, Any]:
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made = [helper.make_function("own", "f0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], versions)]
    for level in range(1, 31):
        nodes = [helper.make_node(f"f{level - 1}", [taken], [given], domain="own") for taken, given in (("a", "c"), ("c", "b"))]
        made.append(helper.make_function("own", f"f{level}", ["a"], ["b"], nodes, versions))
    return {"functions": made}


@pytest.mark.parametrize(("nodes", "constants", "options", "part"), [
    ([helper.make_node("Relu", ["nowhere"], ["y"])], {}, {}, "no value 'nowhere'"),
    ([helper.make_node("Relu", ["z"], ["y"]), helper.make_node("Relu", ["y"], ["z"])], {}, {}, "nodes that wait for each other"),
    ([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Tanh", ["x"], ["y"])], {}, {}, "a value is made twice"),
    ([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.ones(3, np.int32)}, {}, "different dtypes"),
    ([helper.make_node("f", ["x"], ["y"], domain="own")], {}, calls_itself(), "a function calls itself"),
    ([helper.make_node("f30", ["x"], ["y"], domain="own")], {}, doubles_thirty_times(), "grow too large"),
    ([helper.make_node("ConstantOfShape", ["w"], ["c"]), helper.make_node("Tile", ["c", "w"], ["y"])], {"w": np.array([1 << 40])}, {},
     None),
])
def test_wrong_files_are_refused_in_time(tmp_path: Path, nodes: list[onnx.NodeProto], constants: dict[str, Any], options: dict[str, Any],
                                         part: str | None) -> None:
    path = write(tmp_path / "m.onnx", nodes, [value("x", ["batch", 3])], ["y"], constants, **options)
    if part is None:
        assert converter.load(path).graph.nodes  # large as it says, and nothing of it is made
        return
    with pytest.raises(ConverterError, match=part):
        converter.load(path)


def test_values_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(bytes(64))
    path = write(tmp_path / "in" / "m.onnx", [helper.make_node("Add", ["x", "w"], ["y"])], [value("x", ["batch", 3])], ["y"],
                 {"w": np.ones(3, np.float32)})
    proto = onnx.load(path)
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    proto.graph.initializer[0].external_data.add(key="location", value="../secret")
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(FormatError):
        converter.load(path)


@pytest.mark.parametrize("flag", [True, False])
def test_branches_that_take_values_of_their_own(tmp_path: Path, flag: bool) -> None:
    """Both branches are given what either takes: several that the other leaves alone have names that differ."""
    names = ("a", "b", "c", "d")
    first = helper.make_graph([helper.make_node("Relu", ["a"], ["left"])], "first", [], [value("left", [2])])
    other = helper.make_graph([helper.make_node("Sum", ["b", "c", "d"], ["right"])], "other", [], [value("right", [2])])
    nodes = [*(helper.make_node("Exp", [f"x_{name}"], [name]) for name in names),
             helper.make_node("If", ["flag"], ["y"], then_branch=first, else_branch=other)]
    path = write(tmp_path / "m.onnx", nodes, [value("flag", [], TensorProto.BOOL), *(value(f"x_{name}", [2]) for name in names)], ["y"])
    inputs = {"flag": np.array(flag), **{f"x_{name}": np.full(2, number, np.float32) for number, name in enumerate(names)}}
    expected = np.exp(np.float32(0)) if flag else np.exp(np.arange(1, 4, dtype=np.float32)).sum()
    np.testing.assert_allclose(converter.session(read(path), "numpy").run(inputs)["y"], np.full(2, expected), rtol=1e-6)


def test_a_reduction_of_no_axes_may_do_nothing(tmp_path: Path) -> None:
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("ReduceSum", ["s"], ["t"], noop_with_empty_axes=1),
             helper.make_node("ConstantOfShape", ["t"], ["z"]), helper.make_node("Add", ["x", "z"], ["y"])]
    model = read(write(tmp_path / "m.onnx", nodes, [value("x", ["batch", 3])], ["y"]))
    assert [str(size) for size in model.graph.outputs[0].spec.shape] == ["batch", "3"]


def test_attention_begins_without_a_past(tmp_path: Path) -> None:
    shape = ["batch", 2, "time", 4]
    inputs = [value("q", shape), value("past_k", ["batch", 2, "past", 4]), value("past_v", ["batch", 2, "past", 4])]
    nodes = [helper.make_node("Attention", ["q", "q", "q", "", "past_k", "past_v"], ["y", "k", "v"], is_causal=1)]
    model = converter.load(write(tmp_path / "m.onnx", nodes, inputs, ["y", "k", "v"], opset=23))
    assert model.graph.dims["past"].min == 0
    drawn = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
    empty = np.zeros((1, 2, 0, 4), np.float32)
    found = converter.session(model).run({"q": drawn, "past_k": empty, "past_v": empty})
    np.testing.assert_array_equal(found["k"], drawn)


def test_what_a_person_should_know_of_a_file_comes_with_it_and_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0)], [value("x", [2, 3])], [])
    proto = onnx.load(path)
    proto.graph.output.append(helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None))
    onnx.save(proto, path)
    note = "the sequence 'parts' is 2 outputs, parts_0 and on"
    found = incoming(model_format(path), path)
    assert found.notes == (note,)
    assert converter.load(path).graph == found.model.graph
    result = CliRunner().invoke(cli, ["onnx-to-json", str(path), "-o", str(tmp_path / "m.json")])
    assert result.exit_code == 0
    assert note in result.stderr
    assert incoming(model_format(tmp_path / "m.json"), tmp_path / "m.json").notes == ()


@pytest.mark.parametrize(("names", "said"), [(["Nothing"], "1 operator cannot"), (["Nothing", "Other"], "2 operators cannot")], ids=str)
def test_a_refusal_counts_in_words(tmp_path: Path, names: Sequence[str], said: str) -> None:
    nodes = [helper.make_node(name, ["x"], [f"y{place}"], domain="own") for place, name in enumerate(names)]
    graph = helper.make_graph(nodes, "g", [value("x", [3])], [value(f"y{place}", [3]) for place in range(len(names))])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=said):
        converter.load(tmp_path / "m.onnx")
