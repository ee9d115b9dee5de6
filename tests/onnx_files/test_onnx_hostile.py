"""ONNX files of other origins that are damaged, or mean harm: each is refused by a clear error, soon, and nothing is written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import converter
from converter.cli.main import cli
from tests.onnx_files.test_onnx_reading import value

Node = onnx.NodeProto
node = helper.make_node
VERSIONS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
W = {"w": np.ones(3, np.float32)}


def proto(
    nodes: list[Node], constants: dict[str, Any] | None = None, opsets: Any = None, inputs: Any = None, **more: Any
) -> onnx.ModelProto:
    held = [numpy_helper.from_array(np.asarray(item), name) for name, item in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs or [value("x", ["batch", 3])], [value("y", ["batch", 3])], held)
    return helper.make_model(graph, opset_imports=VERSIONS if opsets is None else opsets, ir_version=9, **more)


def function(name: str, nodes: list[Node]) -> onnx.FunctionProto:
    return helper.make_function("own", name, ["a"], ["b"], nodes, VERSIONS)


def mapped() -> onnx.ModelProto:
    """What ONNX itself writes as a function, on an input that says nothing of what it is."""
    body = helper.make_graph([node("Shape", ["a"], ["s"])], "body", [value("a", [2])], [value("s", [1])])
    return proto([node("SequenceMap", ["q"], ["y"], body=body)], inputs=[onnx.ValueInfoProto(name="q")])


def called(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    return proto([node("f", ["x"], ["y"], domain="own")], functions=list(functions))


def claimed(dims: list[int], data: bytes = bytes(12), **fields: Any) -> onnx.ModelProto:
    """An initializer of these sizes over a few bytes."""
    found = proto([node("Add", ["x", "w"], ["y"])], W)
    tensor = found.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    tensor.raw_data = data
    for name, entry in fields.items():
        setattr(tensor, name, entry)
    return found


def constant(**fields: Any) -> onnx.ModelProto:
    """The same as the value of a Constant."""
    tensor = claimed(**fields).graph.initializer[0]
    return proto([node("Constant", [], ["w"], value=tensor), node("Add", ["x", "w"], ["y"])])


def beside(location: str, within: str = "", **entries: str) -> onnx.ModelProto:
    found = proto([node("Add", ["x", "w"], ["y"])], W)
    tensor = found.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=text)
    if within == "constant":
        return proto([node("Constant", [], ["w"], value=tensor), node("Add", ["x", "w"], ["y"])])
    if within == "branch":
        then = helper.make_graph([node("Add", ["x", "w"], ["t"])], "then", [], [value("t", ["batch", 3])], [tensor])
        other = helper.make_graph([node("Neg", ["x"], ["e"])], "else", [], [value("e", ["batch", 3])])
        return proto(
            [node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
            inputs=[value("x", ["batch", 3]), value("c", [], TensorProto.BOOL)],
        )
    return found


def changed(change: Callable[[onnx.ModelProto], Any], **more: Any) -> onnx.ModelProto:
    found = proto([node("Add", ["x", "w"], ["y"])], W, **more)
    change(found)
    return found


def nested(depth: int) -> onnx.ModelProto:
    """Branches within branches."""
    inner = [node("Neg", ["x"], ["t"])]
    for _ in range(depth):
        branches = [helper.make_graph(inner, name, [], [value("t", ["batch", 3])]) for name in ("then", "else")]
        branches[1] = helper.make_graph([node("Neg", ["x"], ["t"])], "else", [], [value("t", ["batch", 3])])
        inner = [node("If", ["c"], ["t"], then_branch=branches[0], else_branch=branches[1])]
    return proto([*inner, node("Neg", ["t"], ["y"])], inputs=[value("x", ["batch", 3]), value("c", [], TensorProto.BOOL)])


def deep_bytes(depth: int) -> bytes:
    """The same in the file's bytes, deeper than the library writes."""

    def field(number: int, data: bytes) -> bytes:
        size, length = b"", len(data)
        while True:
            length, low = length >> 7, length & 127
            size += bytes([low | (128 if length else 0)])
            if not length:
                return bytes([number << 3 | 2]) + size + data

    graph = b""
    for _ in range(depth):
        graph = field(1, field(4, b"If") + field(5, field(6, graph)))  # node { op_type, attribute { g } }
    return b"\x08\x09" + field(7, graph) + field(8, b"\x10\x11")


def spread(count: int) -> onnx.ModelProto:
    """Constants of 4096 elements along axes of their own, each of which is broadcast to the others."""
    axes = {f"c{at}": np.zeros([4096 if axis == at else 1 for axis in range(count)], np.int64) for at in range(count)}
    return proto(
        [
            node("Max", list(axes), ["m"]),
            node("ReduceMax", ["m"], ["r"], keepdims=0),
            node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
            node("Add", ["x", "f"], ["y"]),
        ],
        axes,
    )


ADD = [node("Add", ["x", "w"], ["y"])]
REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], str]] = {
    "a cycle": (lambda: proto([node("Add", ["x", "b"], ["a"]), node("Neg", ["a"], ["b"]), node("Neg", ["b"], ["y"])]), "for each other"),
    "a node that reads itself": (lambda: proto([node("Add", ["x", "y"], ["y"])]), "wait for each other"),
    "an input that nothing makes": (lambda: proto([node("Add", ["x", "nowhere"], ["y"])]), "no value 'nowhere'"),
    "an output that nothing makes": (lambda: proto([node("Neg", ["x"], ["z"])]), "no value 'y'"),
    "a value made twice": (lambda: proto([node("Neg", ["x"], ["y"]), node("Abs", ["x"], ["y"])]), "made twice"),
    "a value named like an input": (lambda: proto([node("Neg", ["x"], ["x"]), node("Abs", ["x"], ["y"])]), "made twice"),
    "a value named like an initializer": (lambda: proto([node("Neg", ["x"], ["w"]), *ADD], W), "made twice"),
    "two inputs of one name": (lambda: proto(ADD, W, inputs=[value("x", [3]), value("x", [3])]), "given twice|two inputs"),
    "two outputs of one name": (lambda: changed(lambda m: m.graph.output.append(m.graph.output[0])), "two outputs"),
    "two initializers of one name": (lambda: changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])), "two initializers"),
    "an attribute twice": (lambda: proto([changed_node("Softmax", lambda n: n.attribute.append(n.attribute[0]), axis=1)]), "there twice"),
    "an attribute of another type": (lambda: proto([node("Softmax", ["x"], ["y"], axis=1.5)]), "Expected: INT. Received: FLOAT"),
    "an attribute that there is not": (lambda: proto([node("Softmax", ["x"], ["y"], axes=[1])]), "axes"),
    "too many operands": (lambda: proto([node("Neg", ["x", "x"], ["y"])]), "operand"),
    "no operands": (lambda: proto([node("Shape", [], ["y"])]), "do not fit"),
    "too few strides": (
        lambda: proto(
            [node("Conv", ["x", "k"], ["y"], strides=[1])], {"k": np.ones((1, 1, 2, 2), np.float32)}, inputs=[value("x", [1, 1, 4, 4])]
        ),
        "wrong length of 'stride'",
    ),
    "dtypes that do not go together": (lambda: proto(ADD, {"w": np.ones(3, np.int32)}), "different dtypes"),
    "shapes that contradict": (lambda: proto(ADD, {"w": np.ones(4, np.float32)}), "broadcast|shapes"),
    "an input of strings": (lambda: proto(ADD, W, inputs=[value("x", [3], TensorProto.STRING)]), "STRING"),
    "no version of the operators": (lambda: changed(lambda m: m.ClearField("opset_import")), "not read. Expected"),
    "a version to come": (lambda: proto(ADD, W, opsets=[helper.make_opsetid("", 4000)]), "4000"),
    "two versions": (lambda: proto(ADD, W, opsets=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx", 13)]), "two versions"),
    "a function that calls itself": (lambda: called(function("f", [node("f", ["a"], ["b"], domain="own")])), "calls itself"),
    "functions that call each other": (
        lambda: called(function("f", [node("g", ["a"], ["b"], domain="own")]), function("g", [node("f", ["a"], ["b"], domain="own")])),
        "calls itself",
    ),
    "two functions of one name": (
        lambda: called(function("f", [node("Neg", ["a"], ["b"])]), function("f", [node("Abs", ["a"], ["b"])])),
        "two functions",
    ),
    "functions that double": (
        lambda: called(
            *(
                function(
                    "f" if at == 22 else f"f{at}",
                    [node(f"f{at - 1}", ["a"], ["c"], domain="own"), node(f"f{at - 1}", ["c"], ["b"], domain="own")]
                    if at
                    else [node("Neg", ["a"], ["b"])],
                )
                for at in range(23)
            )
        ),
        "grow too large",
    ),
    "values in another folder": (lambda: beside("../secret"), "not the name of a file beside"),
    "values at an absolute place": (lambda: beside("/etc/passwd"), "not the name of a file beside"),
    "values through a link": (lambda: beside("link"), "leads out of the directory"),
    "values that are missing": (lambda: beside("missing"), "missing"),
    "values in a folder": (lambda: beside("folder"), "folder|missing|file"),
    "values past the end": (lambda: beside("data", offset="60"), "too short|do not fit"),
    "values of another length": (lambda: beside("data", length="8"), "do not fit"),
    "an offset that is none": (lambda: beside("data", offset="1e3"), "cannot be read"),
    "a constant's values beside": (lambda: beside("data", "constant"), "another file"),
    "a branch's values beside": (lambda: beside("data", "branch"), "another file"),
    "2 GB of a few bytes": (lambda: claimed([1 << 29]), "2147483648 bytes. Received: 12"),
    "negative sizes": (lambda: claimed([-1, -3]), "not a shape"),
    "a hundred axes": (lambda: claimed([1] * 100, bytes(4)), "not a shape"),
    "sizes whose product is past 64 bits": (lambda: claimed([1 << 40, 1 << 40], bytes(12)), "do not fit"),
    "a constant of 2 GB of a few bytes": (lambda: constant(dims=[1 << 29]), "do not fit the shape"),
    "a constant of negative sizes": (lambda: constant(dims=[-1, -3]), "not a shape"),
    "a constant of no dtype": (lambda: constant(dims=[3], data_type=77), "cannot be read"),
    "thirty branches within each other": (lambda: nested(30), "too deep"),
    "a thousand graphs within each other": (lambda: deep_bytes(1000), "damaged"),
    "a sequence without a type that is mapped": (lambda: mapped(), "inputs cannot be read"),
    "an axis that becomes very long": (
        lambda: proto([node("Resize", ["x", "", "", "s"], ["y"])], {"s": np.array([2, 1 << 50])}, inputs=[value("x", [2, 3])]),
        "an axis that becomes",
    ),
    "no graph": (lambda: changed(lambda m: m.ClearField("graph")), "no graph"),
    "an operator's name that is not UTF-8": (
        lambda: proto([node("Qqq", ["x"], ["y"])]).SerializeToString().replace(b"Qqq", b"Q\xffq"),
        "UTF-8",
    ),
    "a size's name that is not UTF-8": (
        lambda: changed(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", "Qqq"))
        .SerializeToString().replace(b"Qqq", b"Q\xffq"),
        "UTF-8",
    ),
    "a name that is not UTF-8": (lambda: proto(ADD, W).SerializeToString().replace(b"\x01w", b"\x01\xff"), "damaged"),
}


def changed_node(operator: str, change: Callable[[Node], Any], **attributes: Any) -> Node:
    found = node(operator, ["x"], ["y"], **attributes)
    change(found)
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_refused(name: str, tmp_path: Path) -> None:
    make, part = REFUSED[name]
    folder = tmp_path / "in"
    (folder / "folder").mkdir(parents=True)
    (folder / "data").write_bytes(bytes(64))
    (tmp_path / "secret").write_bytes(bytes(12))
    (folder / "link").symlink_to("../secret")
    made = make()
    (folder / "m.onnx").write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    before, started = sorted(os.listdir(folder)), time.process_time()
    with pytest.raises(converter.ConverterError, match=part):
        converter.load(folder / "m.onnx")
    result = CliRunner().invoke(cli, ["onnx-to-json", str(folder / "m.onnx"), "-o", str(folder / "out.json")])
    assert (result.exit_code, sorted(os.listdir(folder))) == (2, before), result.output
    assert time.process_time() - started < 5
    assert "Error:" in result.output
    assert "internal error" not in result.output


def test_what_is_read_is_written_and_read_again(tmp_path: Path) -> None:
    """As many graphs within each other as the format takes."""
    (tmp_path / "m.onnx").write_bytes(nested(16).SerializeToString())
    converter.save(converter.load(tmp_path / "m.onnx"), tmp_path / "m.json")
    assert converter.load(tmp_path / "m.json").graph.nodes


@pytest.mark.parametrize("count", [2, 3, 6])
def test_constants_are_not_broadcast_to_something_large(count: int, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(spread(count).SerializeToString())
    started = time.process_time()
    graph = converter.load(tmp_path / "m.onnx").graph
    assert "maximum" in {item.op for item in graph.nodes}
    assert time.process_time() - started < 5


@pytest.mark.parametrize("operator", ["Add", "Where", "Gather", "Concat", "Expand"])
def test_sizes_are_not_multiplied_to_something_large(operator: str, tmp_path: Path) -> None:
    """Arithmetic of sizes on 65,536 of them, or on as many operands."""
    filled = [
        node("ConstantOfShape", ["long"], ["a"], value=numpy_helper.from_array(np.array([1]))),
        node("Unsqueeze", ["a", "axis"], ["column"]),
    ]
    last = {
        "Add": node("Add", ["a", "column"], ["z"]),
        "Where": node("Where", ["yes", "a", "column"], ["z"]),
        "Gather": node("Gather", ["column", "a"], ["z"], axis=1),
        "Concat": node("Concat", ["a"] * 5000, ["z"], axis=0),
        "Expand": node("Expand", ["a", "huge"], ["z"]),
    }[operator]
    rest = [node("ReduceMax", ["z"], ["m"], keepdims=0), node("Cast", ["m"], ["f"], to=TensorProto.FLOAT), node("Add", ["x", "f"], ["y"])]
    constants = {"long": np.array([1 << 16]), "axis": np.array([1]), "yes": np.array([True]), "huge": np.array([1 << 32, 1 << 16])}
    (tmp_path / "m.onnx").write_bytes(proto([*filled, last, *rest], constants).SerializeToString())
    started = time.process_time()
    converter.load(tmp_path / "m.onnx")
    assert time.process_time() - started < 5


@pytest.mark.parametrize("kind", ["inputs", "sizes that the data decide", "layers"])
def test_time_grows_as_a_file_does(kind: str, tmp_path: Path) -> None:
    """Names that become one another's, sizes and parameters by the thousand."""
    count = 3000
    if kind == "inputs":
        made = proto(
            [node("Neg", ["x"], ["y"])],
            inputs=[value("x", ["batch", 3]), *(value(f"i{at}", ["a" + "-" * (at % 50) + "." * (at // 50), None]) for at in range(count))],
        )
    elif kind == "layers":
        made = proto(
            [
                *(node("MatMul", [f"n{at}" if at else "x", f"w{at}"], [f"n{at + 1}"]) for at in range(count)),
                node("Neg", [f"n{count}"], ["y"]),
            ],
            {f"w{at}": np.ones((3, 3), np.float32) for at in range(count)},
        )
    else:
        made = proto([*(node("NonZero", ["x"], [f"s{at}"]) for at in range(count)), node("Neg", ["x"], ["y"])])
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    started = time.process_time()
    converter.load(tmp_path / "m.onnx")
    assert time.process_time() - started < 4
