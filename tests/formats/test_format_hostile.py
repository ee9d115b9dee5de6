"""Every way in which a file is refused: with a `ConverterError` that names the fault, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import ConverterError, FormatError
from converter.format import load_graph, load_hdf5, load_json, save_hdf5, save_json
from converter.ir import DType
from tests.format_models import classifier, holding, read_all

HOSTILE = Path(__file__).parents[2] / "fixtures" / "hostile"


# Stored files ------------------------------------------------------------------------------------------------------


def stored() -> list[Any]:
    expected = json.loads((HOSTILE / "expected.json").read_text())
    return [pytest.param(name, message, id=name) for name, message in expected.items()]


@pytest.mark.parametrize(("name", "message"), stored())
def test_stored_file_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConverterError, match=message) as caught:
        read_all(HOSTILE / name)
    assert name in str(caught.value)


def test_every_stored_file_is_expected() -> None:
    expected = json.loads((HOSTILE / "expected.json").read_text())
    assert {path.name for path in HOSTILE.iterdir()} - {"expected.json", "make.py"} == set(expected)


# Changed documents -------------------------------------------------------------------------------------------------


def node(index: int) -> Callable[[Any], Any]:
    return lambda document: document["graph"]["nodes"][index]


def put(*path: Any) -> Callable[[Any], None]:
    """Sets the last-but-one key of a path to the last item."""
    *keys, last, value = path

    def change(document: Any) -> None:
        for key in keys:
            document = document[key]
        if isinstance(document, list) and last == len(document):
            document.append(value)
        else:
            document[last] = value

    return change


def drop(*path: Any) -> Callable[[Any], None]:
    *keys, last = path

    def change(document: Any) -> None:
        for key in keys:
            document = document[key]
        del document[last]

    return change


def in_file(name: str) -> Callable[[Any], None]:
    """Says that the values of a parameter are in a file."""
    return put("parameters", "shift", {"dtype": "float32", "shape": [], "file": name})


SCALAR = {"dtype": "bool", "shape": [], "values": True}
W = ("parameters", "layer.weight")
G = ("graph",)
REFUSED = {
    "format": (put("format", "onnx"), "not a neutral model"),
    "no format": (drop("format"), "not a neutral model"),
    "newer major version": (put("version", "2.0"), "newer major version"),
    "older major version": (put("version", "0.9"), "older major version"),
    "version without a point": (put("version", "1"), "not a version"),
    "version as a number": (put("version", 1.0), "wrong type"),
    "version with signs": (put("version", "1.-1"), "not a version"),
    "newer opset": (put("opset", 10**6), "operator set"),
    "opset zero": (put("opset", 0), "operator set"),
    "opset true": (put("opset", True), "wrong type"),
    "no opset": (drop("opset"), "'opset' is missing"),
    "no graph": (drop("graph"), "'graph' is missing"),
    "unknown top field": (put("weights", {}), "unknown field 'weights'"),
    "unknown graph field": (put(*G, "edges", []), "unknown field 'edges'"),
    "unknown node field": (put(*G, "nodes", 0, "name", "n"), "unknown field 'name'"),
    "unknown input field": (put(*G, "inputs", 0, "value", "n"), "unknown field 'value'"),
    "unknown output field": (put(*G, "outputs", 0, "type", "n"), "unknown field 'type'"),
    "unknown dim field": (put(*G, "dims", "batch", "every", 2), "unknown field 'every'"),
    "unknown parameter field": (put(*W, "data", "x"), "unknown field 'data'"),
    "unknown example field": (put("examples", 0, "note", "x"), "unknown field 'note'"),
    "unknown digest": (put("digest", "md5", "x"), "unknown field 'md5'"),
    "unknown attribute": (put(*G, "nodes", 0, "attributes", {"alpha": 1}), "no attribute 'alpha'"),
    "unknown operator": (put(*G, "nodes", 0, "op", "linnear"), "no operator 'linnear'"),
    "operator of another type": (put(*G, "nodes", 0, "op", 3), "wrong type"),
    "nodes of another type": (put(*G, "nodes", {}), "wrong type"),
    "node of another type": (put(*G, "nodes", 0, []), "wrong type"),
    "graph of another type": (put("graph", []), "wrong type"),
    "graph name of another type": (put(*G, "name", None), "wrong type"),
    "parameters of another type": (put("parameters", []), "not the JSON that is due"),
    "parameter of another type": (put(*W, [1.0]), "not a tensor"),
    "metadata of another type": (put("metadata", []), "wrong type"),
    "examples of another type": (put("examples", {}), "not the JSON that is due"),
    "example of another type": (put("examples", 0, 3), "not the JSON that is due"),
    "digest of another type": (put("digest", "sha256:00"), "wrong type"),
    "digest that is none": (put("digest", "graph", "sha256:00"), "not a digest"),
    "digest of another graph": (put("digest", "graph", "sha256:" + "0" * 64), "not the one that its digest names"),
    "dims of another type": (put(*G, "dims", "batch", 3), "wrong type"),
    "dim min of another type": (put(*G, "dims", "batch", "min", "1"), "wrong type"),
    "dim range upside down": (put(*G, "dims", "batch", {"min": 5, "max": 4}), "not a range"),
    "dim below zero": (put(*G, "dims", "batch", {"min": -5}), "may be negative"),
    "dim that is no name": (put(*G, "dims", "2 * batch", {}), "not a name for a size"),
    "dim without a range": (drop(*G, "dims", "batch"), "has no range"),
    "conditions of another type": (put(*G, "requires", {}), "wrong type"),
    "condition of another type": (put(*G, "requires", [3]), "not a condition"),
    "condition without a comparison": (put(*G, "requires", ["batch"]), "not a condition"),
    "condition of three sizes": (put(*G, "requires", ["1 <= batch <= 3"]), "not a condition"),
    "condition on no size": (put(*G, "requires", ["batch >= batch"]), "a condition on no size"),
    "condition that is code": (put(*G, "requires", ["os.system('x') == 0"]), "not a size"),
    "condition with a half of nothing": (put(*G, "requires", ["batch >= "]), "not a size"),
    "condition too long": (put(*G, "requires", ["batch >= " + "1+" * 3000 + "1"]), "too long"),
    "condition too deep": (put(*G, "requires", ["batch >= " + "-(" * 500 + "1" + ")" * 500]), "not a size"),
    "condition of too many terms": (put(*G, "requires", ["batch >= " + "*".join(f"({'+'.join(f'{a}{b}' for b in range(9))})"
                                                                                for a in "klmn")]), "too many terms"),
    "condition that divides by zero": (put(*G, "requires", ["batch % 0 == 0"]), "divided by zero"),
    "condition on an unbound size": (put(*G, "requires", ["batch >= other"]), "condition on a size that no input"),
    "too many conditions": (put(*G, "requires", [f"batch != {n}" for n in range(2, 1100)]), "too many conditions"),
    "size that is no size": (put(*G, "inputs", 0, "shape", ["batch", "os.system('x')"]), "not a size"),
    "size that is a float": (put(*G, "inputs", 0, "shape", ["batch", 3.0]), "not a size"),
    "size that is true": (put(*G, "inputs", 0, "shape", ["batch", True]), "not a size"),
    "size below zero": (put(*G, "inputs", 0, "shape", ["batch", -3]), "not a size"),
    "size too long": (put(*G, "inputs", 0, "shape", ["batch", "1+" * 3000 + "1"]), "too long"),
    "size too deep": (put(*G, "inputs", 0, "shape", ["batch", "(" * 900 + "1" + ")" * 900]), "not a size|unbound|what the graph"),
    "size divided by zero": (put(*G, "inputs", 0, "shape", ["batch // 0", 3]), "divided by zero"),
    "too many axes": (put(*G, "inputs", 0, "shape", [1] * 33), "too many axes"),
    "dtype unknown": (put(*G, "inputs", 0, "dtype", "float31"), "not a dtype"),
    "dtype as NumPy writes it": (put(*W, "dtype", "<f4"), "not a dtype"),
    "input dtype null": (put(*G, "inputs", 0, "dtype", None), "wrong type"),
    "no dtype": (drop(*W, "dtype"), "'dtype' is missing"),
    "no shape": (drop(*W, "shape"), "'shape' is missing"),
    "shape of symbols": (put(*W, "shape", ["batch", 3]), "wrong type"),
    "shape below zero": (put(*W, "shape", [-4, -3]), "not a size"),
    "shape that is a number": (put(*W, "shape", 12), "wrong type"),
    "shape larger than any memory": (put(*W, "shape", [2**50, 2**50]), "larger than any memory"),
    "shape larger than its data": (put(*W, "shape", [2**40]), "fewer values"),
    "shape with too many axes": (put(*W, "shape", [1] * 40), "too many axes"),
    "shape that the graph does not take": (put(*W, "shape", [3, 4]), "wrong size"),
    "dtype that the graph does not take": (put(*W, "dtype", "float64"), "different dtypes"),
    "values and base64": (put(*W, "base64", "AAAA"), "values twice"),
    "values and alias": (put(*W, "alias", "square"), "values twice"),
    "no values": (drop(*W, "values"), "values are missing"),
    "no parameters": (drop("parameters"), "values are missing"),
    "missing parameter": (drop(*W), "missing.*'layer.weight'"),
    "missing parameters, all listed": (lambda d: [d["parameters"].pop(name) for name in ("layer.weight", "shift")],
                                       "'layer.weight', 'shift'"),
    "alias of nothing": (put("parameters", "tied", "alias", "nothing"), "alias names no tensor"),
    "alias of itself": (put("parameters", "tied", "alias", "tied"), "alias names no tensor"),
    "alias of another shape": (put("parameters", "tied", "shape", [16]), "alias differs"),
    "alias of another type": (put("parameters", "tied", "alias", 3), "wrong type"),
    "constant of another type": (put("parameters", "shift", "constant", 1), "wrong type"),
    "one value too few": (lambda d: d["parameters"]["layer.weight"]["values"][3].pop(), "row|nested|fewer"),
    "one value too many": (lambda d: d["parameters"]["layer.weight"]["values"][3].append(1.0), "nested"),
    "one row too few": (lambda d: d["parameters"]["layer.weight"]["values"].pop(), "nested|fewer"),
    "one row too many": (lambda d: d["parameters"]["layer.weight"]["values"].append([1.0, 2.0, 3.0]), "nested"),
    "flat values": (put(*W, "values", [0.5] * 12), "a list of 12 at depth 1"),
    "values too deep": (put(*W, "values", [[[0.5] * 3] * 4]), "a list of 1 at depth 1"),
    "values of mixed depth": (put(*W, "values", [[0.5] * 3, [0.5] * 3, [0.5] * 3, [0.5, 0.5, [0.5]]]), "brackets|does not fit"),
    "values moved to another row": (put(*W, "values", [[0.5] * 3, [0.5] * 3, [0.5] * 2, [0.5] * 4]), "row"),
    "value that is text": (lambda d: put(*W, "values", 0, 0, "0.5")(d), "does not fit"),
    "value nan in small letters": (lambda d: put(*W, "values", 0, 0, "nan")(d), "does not fit"),
    "value true": (lambda d: put(*W, "values", 0, 0, True)(d), "does not fit"),
    "value null": (lambda d: put(*W, "values", 0, 0, None)(d), "does not fit"),
    "value that is an object": (lambda d: put(*W, "values", 0, 0, {})(d), "not a list of numbers|values twice"),
    "value with a brace": (lambda d: put(*W, "values", 0, 0, "}")(d), "not a list of numbers"),
    "value with a colon": (lambda d: put(*W, "values", 0, 0, ":")(d), "not a list of numbers"),
    "value with a bracket": (lambda d: put(*W, "values", 0, 0, "]")(d), "brackets"),
    "value outside the dtype": (lambda d: put(*W, "values", 0, 0, 1e39)(d), "outside the range"),
    "values that are text": (put(*W, "values", "0.5"), "fewer|not nested|no list"),
    "values that are one number": (put(*W, "values", 123456789012345678901234567890), "no list at depth 1"),
    "scalar in a list": (put("parameters", "shift", "values", [0.5]), "does not fit"),
    "file in a directory": (in_file("sub/w.h5"), "name of a file beside"),
    "file above": (in_file("../w.h5"), "name of a file beside"),
    "file that is above": (in_file(".."), "name of a file beside"),
    "file absolute": (in_file("/etc/passwd"), "name of a file beside"),
    "file with a drive": (in_file("C:w.h5"), "name of a file beside"),
    "file without a name": (in_file(""), "name of a file beside"),
    "file missing": (in_file("w.h5"), "is missing"),
    "file with a long name": (in_file("w" * 1000), "cannot be found|missing"),
    "input that is a list": (put(*G, "nodes", 0, "inputs", 0, []), "not a number"),
    "input of 400 digits": (put(*G, "nodes", 1, "inputs", 1, {"literal": "9" * 400}), "no dtype holds"),
    "input that is no literal": (put(*G, "nodes", 1, "inputs", 1, {"literal": "one"}), "not a literal"),
    "literal with more": (put(*G, "nodes", 1, "inputs", 1, {"literal": "NaN", "a": 1}), "unknown field 'a'"),
    "literal small enough for JSON": (put(*G, "nodes", 1, "inputs", 1, {"literal": "12"}), "not a literal"),
    "literal of many digits": (put(*G, "nodes", 1, "inputs", 1, {"literal": "1" * 5000}), "not a literal"),
    "number too large for JSON": (put(*G, "nodes", 1, "inputs", 1, 2**60), "do not carry"),
    "value that nothing makes": (put(*G, "nodes", 1, "inputs", 0, "nothing"), "missing.*'nothing'"),
    "node before its input": (lambda d: d["graph"]["nodes"].reverse(), "before this node"),
    "value made twice": (lambda d: put(*G, "nodes", 1, "outputs", d["graph"]["nodes"][0]["outputs"])(d), "given twice|missing"),
    "node without outputs": (put(*G, "nodes", 0, "outputs", []), "outputs|missing"),
    "too many outputs": (put(*G, "nodes", 0, "outputs", 1, "more"), "outputs"),
    "too few inputs": (put(*G, "nodes", 0, "inputs", ["x"]), "inputs"),
    "required input null": (put(*G, "nodes", 0, "inputs", ["x", None]), "needs its input"),
    "graph without outputs": (put(*G, "outputs", []), "without outputs"),
    "output twice": (lambda d: d["graph"]["outputs"].append(d["graph"]["outputs"][0]), "one name"),
    "output of another shape": (put(*G, "outputs", 0, "shape", ["batch", 5]), "not what the graph computes"),
    "output of another dtype": (put(*G, "outputs", 0, "dtype", "float64"), "not what the graph computes"),
    "output of nothing": (put(*G, "outputs", 0, "value", "nothing"), "missing.*'nothing'"),
    "input named as a parameter": (put("parameters", "x", {"dtype": "float32", "shape": [], "values": 1.0}), "given twice"),
    "name too long": (put(*G, "inputs", 0, "name", "x" * 5000), "too long"),
    "parameter name too long": (put("parameters", "x" * 5000, {"dtype": "float32", "shape": [], "values": 1.0}), "too long"),
    "example without inputs": (drop("examples", 0, "inputs"), "'inputs' is missing"),
    "example without an input": (drop("examples", 0, "inputs", "x"), "not the graph's"),
    "example of another output": (put("examples", 0, "outputs", "z", SCALAR), "not the graph's"),
    "example without values": (drop("examples", 0, "inputs", "x", "values"), "values are missing"),
    "example in a file": (put("examples", 0, "inputs", "x", {"dtype": "bool", "shape": [], "file": "x"}), "unknown field 'file'"),
    "example with wrong values": (put("examples", 0, "inputs", "x", "values", [[1.0]]), "fewer|nested"),
    "example of another type of maker": (put("examples", 0, "made_by", 3), "wrong type"),
    "metadata too deep": (put("metadata", {"a": json.loads("[" * 200 + "]" * 200)}), "too deep"),
    "nodes too deep": (put(*G, "nodes", 0, "attributes", {"a": json.loads("[" * 200 + "]" * 200)}), "too deep"),
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("document") / "model.json"
    save_json(classifier(), path, encoding="values")
    return path.read_text()


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path: Path, document: str, case: str) -> None:
    change, message = REFUSED[case]
    changed = json.loads(document)
    if "digest" not in case:
        del changed["digest"]
    change(changed)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(ConverterError, match=message) as caught:
        read_all(path)
    assert "model.json" in str(caught.value)


def test_unused_parameters_may_stand_there(tmp_path: Path, document: str) -> None:
    changed = json.loads(document)
    changed["parameters"]["unused"] = {"dtype": "int8", "shape": [2], "values": [1, 2]}
    changed.pop("digest", None)
    (tmp_path / "m.json").write_text(json.dumps(changed))
    assert load_json(tmp_path / "m.json").parameters.read("unused").tolist() == [1, 2]


@pytest.mark.parametrize(("dtype", "values", "message"), [
    ("int8", "[1, 128]", "does not fit"),
    ("uint8", "[1, -1]", "does not fit"),
    ("int32", "[1, 2.0]", "does not fit"),
    ("int32", "[1, 2e0]", "does not fit"),
    ("int64", "[1, 9223372036854775808]", "does not fit"),
    ("uint64", "[1, 18446744073709551616]", "does not fit"),
    ("int32", "[1, true]", "does not fit"),
    ("bool", "[true, 1]", "does not fit"),
    ("bool", '[true, "true"]', "does not fit"),
    ("int32", '[1, "2"]', "does not fit"),
    ("int32", "[1, null]", "does not fit"),
    ("float8_e4m3fn", '[1, "Infinity"]', "has no Infinity"),
    ("float8_e8m0fnu", "[1, -1]", "outside the range"),
    ("float32", "[1, NaN]", "not valid JSON"),
    ("float32", "[1, 01]", "not valid JSON"),
    ("float32", "[1, +1]", "not valid JSON"),
    ("float32", "[1, .5]", "not valid JSON"),
    ("float32", "[1, 5.]", "not valid JSON"),
    ("float32", "[1, 1e999]", "not valid JSON"),
    ("float32", "[1, 2,]", "not valid JSON"),
    ("float32", "[1 2]", "fewer|nested|not valid JSON"),
    ("float32", "1[,2]", "JSON|list"),
    ("float32", "[1],[2]", "not valid JSON"),
    ("float32", "[1, 0x2]", "not valid JSON"),
    ("float32", "[1, \x00 2]", "not valid JSON"),
    ("float32", "[1, '2']", "not valid JSON"),
    ("complex64", "[1, 2]", "brackets|fewer"),
    ("complex64", "[[1, 2], [3, 4, 5]]", "row")])
def test_values_refused(tmp_path: Path, dtype: str, values: str, message: str) -> None:
    save_json(holding({"w": np.zeros(2, DType.of(dtype).numpy)}), tmp_path / "m.json", encoding="values")
    text = (tmp_path / "m.json").read_text()
    start = text.index('"values": ') + len('"values": ')
    (tmp_path / "m.json").write_text(text[:start] + values + text[text.index("}", start):])
    with pytest.raises(FormatError, match=message):
        read_all(tmp_path / "m.json")


@pytest.mark.parametrize(("base64", "message"), [
    ("AACAPw==", "less data"),
    ("AACAPwAAgD8AAIA/", "not as many bytes"),
    ("AACAPwAAgD8=AACA", "not base64|not as many"),
    ("AACAPwAA*D8=", "not base64"),
    ("AACAPwAAgD8", "less data"),
    ("AACAPwA\\nAgD8=", "not base64"),
    ("AACA====gD8=", "not base64"),
    ("AACAPwAAgD\\u00e9=", "not base64"),
    ("\\ud800" * 4, "not base64")])
def test_base64_refused(tmp_path: Path, base64: str, message: str) -> None:
    save_json(holding({"w": np.ones(2, np.float32)}), tmp_path / "m.json", encoding="base64")
    text = (tmp_path / "m.json").read_text()
    assert "AACAPwAAgD8=" in text
    (tmp_path / "m.json").write_text(text.replace("AACAPwAAgD8=", base64))
    with pytest.raises(FormatError, match=message):
        read_all(tmp_path / "m.json")


def test_bool_bytes_are_0_or_1(tmp_path: Path) -> None:
    save_json(holding({"w": np.array([True, False, True])}), tmp_path / "m.json", encoding="base64")
    text = (tmp_path / "m.json").read_text()
    (tmp_path / "m.json").write_text(text.replace("AQAB", "AQAC"))
    with pytest.raises(FormatError, match="neither 0 nor 1"):
        read_all(tmp_path / "m.json")


@pytest.mark.parametrize(("old", "new"), [
    ('"version": "1.2"', '"version": "1.2", "version": "1.2"'), ('"name": "classifier"', '"name": "a", "name": "b"'),
    ('"shift": {', '"shift": {"dtype": "float32", "shape": [], "values": 1}, "shift": {'),
    ('"shift": {"dtype": "float32",', '"shift": {"dtype": "float32", "dtype": "float32",'),
    ('"values": 0.25', '"values": 0.25, "values": 0.5'), ('"made_by": ', '"made_by": "x", "made_by": '),
    ('"rate": ', '"rate": 1, "r\\u0061te": '), ('"op": "linear"', '"op": "linear", "op": "linear"')])
def test_double_keys(tmp_path: Path, document: str, old: str, new: str) -> None:
    assert old in document
    (tmp_path / "m.json").write_text(document.replace(old, new, 1))
    with pytest.raises(FormatError, match="comes twice"):
        read_all(tmp_path / "m.json")


@pytest.mark.parametrize("text", [
    b"", b" ", b"{", b"[]", b"null", b"3", b"{}", b'{"format"', b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"\x89HDF\r\n\x1a\n",
    b"PK\x03\x04",
    b'{"format": "neutral-model", }', b'{"format": "neutral\xff"}', b'{"format\\ud800": 1}', b'{"a" "b"}', b"[" * 100000,
    b'{"graph":' + b"[" * 100000, b'{"parameters":' + b'{"a":' * 100000, b'{"a":' * 100000,
    b'{"format": NaN}', b'{"metadata": {"a": \x00}}',
    b'{"metadata": {"a": 1e400}}',
    b'{"metadata": {"a": "\n"}}', b'{"metadata": {"a": [}]}}', b"\0" * 100, b'{"' + b"a" * 100000 + b'":1}'])
def test_texts_that_are_no_documents(tmp_path: Path, text: bytes) -> None:
    for name, read in (("m.json", load_json), ("g.json", load_graph), ("m.h5", load_hdf5)):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(FormatError):
            read(tmp_path / name)


def test_something_after_the_document(tmp_path: Path, document: str) -> None:
    (tmp_path / "m.json").write_text(document + "{}")
    with pytest.raises(FormatError, match="follows the document"):
        load_json(tmp_path / "m.json")


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json", tmp_path / "none" / "m.json"):
        for read in (load_json, load_graph, load_hdf5):
            with pytest.raises(FormatError):
                read(path)


@pytest.mark.parametrize("encoding", ["values", "base64"])
def test_every_truncation_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "m.json"
    save_json(classifier(), path, encoding=encoding)
    text = path.read_bytes()
    for length in range(0, len(text.rstrip()), 7):
        path.write_bytes(text[:length])
        with pytest.raises(ConverterError):
            read_all(path)


def test_every_truncation_of_hdf5_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    save_hdf5(classifier(), path)
    data = path.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 400)):
        path.write_bytes(data[:length])
        with pytest.raises(ConverterError):
            read_all(path)


@settings(max_examples=300, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), byte=st.binary(min_size=1, max_size=3))
def test_changed_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, document: str, at: float, byte: bytes) -> None:
    text = document.encode()
    place = int(at * len(text))
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_bytes(text[:place] + byte + text[place + len(byte):])
    try:
        read_all(path)
    except ConverterError:
        pass
    else:
        # What is read must be what another JSON reader sees.
        found, seen = load_json(path), json.loads(path.read_bytes())
        for name in ("layer.weight", "layer.bias"):
            if name in found.parameters and "values" in seen["parameters"][name]:
                numbers = np.array(seen["parameters"][name]["values"], np.float32)
                assert np.array_equal(found.parameters.read(name), numbers, equal_nan=True)
