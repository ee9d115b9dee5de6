"""The digest: one for a model whatever its encoding, another for any other model; and canonical JSON below it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from converter import save
from converter.cli.main import cli
from converter.conditions import parse_condition
from converter.errors import DigestError, FormatError
from converter.format import graph_digest, load_hdf5, load_json, model_digest, save_hdf5, save_json
from converter.format.canonical import canonical_json, number
from converter.ir import DimRange, Model
from converter.parameters import InMemoryParameters
from tests.format_models import classifier, holding

FORMAT_FIXTURES = Path(__file__).parents[2] / "fixtures" / "format"


def test_equal_in_every_encoding(tmp_path: Path) -> None:
    model = classifier()
    digests = {model_digest(model)}
    for encoding in ("values", "base64", "file"):
        files = save_json(model, tmp_path / "m.json", encoding=encoding)
        assert sorted(files) == sorted(tmp_path.iterdir())
        assert files[0] == tmp_path / "m.json"
        digests.add(model_digest(load_json(tmp_path / "m.json")))
    assert save_hdf5(model, tmp_path / "m.h5") == (tmp_path / "m.h5",)
    digests.add(model_digest(load_hdf5(tmp_path / "m.h5")))
    assert len(digests) == 1


def arrays_of(model: Model) -> dict[str, Any]:
    return {name: model.parameters.read(name).copy() for name in model.parameters.names() if name != "tied"}


def with_arrays(model: Model, change: Callable[[dict[str, Any]], Any], aliases: dict[str, str] | None = None) -> Model:
    arrays = arrays_of(model)
    change(arrays)
    return model.with_parameters(InMemoryParameters(arrays, {"tied": "square"} if aliases is None else aliases))


def one_bit(arrays: dict[str, Any]) -> None:
    arrays["layer.weight"].view(np.uint32)[3, 2] ^= 1


CHANGES: dict[str, Callable[[Model], Model]] = {
    "one bit of one weight": lambda m: with_arrays(m, one_bit),
    "the sign of a zero": lambda m: with_arrays(m, lambda a: a["layer.bias"].__setitem__(1, 0.0)),
    "a dtype": lambda m: with_arrays(m, lambda a: a.update(shift=a["shift"].view(np.int32))),
    "a shape": lambda m: with_arrays(m, lambda a: a.update({"layer.weight": a["layer.weight"].reshape(3, 4)})),
    "a name": lambda m: with_arrays(m, lambda a: a.update(other=a.pop("shift"))),
    "one parameter more": lambda m: with_arrays(m, lambda a: a.update(more=np.zeros(1))),
    "no longer tied": lambda m: with_arrays(m, lambda a: a.update(tied=a["square"].copy()), {}),
    "two weights exchanged": lambda m: with_arrays(m, lambda a: a["square"].__setitem__([0, 1], a["square"][[1, 0]])),
    "a node's operator": lambda m: changed_node(m, 1, op="subtract"),
    "a literal": lambda m: changed_node(m, 1, inputs=(m.graph.nodes[1].inputs[0], 0.25)),
    "the order of operands": lambda m: changed_node(m, 2, inputs=m.graph.nodes[2].inputs[::-1]),
    "a value's name": lambda m: changed_node(m, 1, outputs=("other",)),
    "the graph's name": lambda m: replace(m, graph=replace(m.graph, name="other")),
    "one node less": lambda m: replace(m, graph=replace(m.graph, nodes=m.graph.nodes[:-1])),
    "a dim's range": lambda m: replace(m, graph=replace(m.graph, dims={"batch": DimRange(1, 8)})),
    "a condition": lambda m: replace(m, graph=replace(m.graph, requires=(parse_condition("batch % 2 == 0"),))),
    "the outputs' order": lambda m: replace(m, graph=replace(m.graph, outputs=m.graph.outputs[::-1])),
    "an output's name": lambda m: replace(m, graph=replace(m.graph, outputs=(
        replace(m.graph.outputs[0], name="other"), *m.graph.outputs[1:]))),
    "an input's name": lambda m: replace(m, graph=replace(m.graph, inputs=(replace(m.graph.inputs[0], name="other"),))),
}


def changed_node(model: Model, index: int, **changes: Any) -> Model:
    nodes = list(model.graph.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(model, graph=replace(model.graph, nodes=tuple(nodes)))


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_changes_it(change: str) -> None:
    model = classifier()
    assert model_digest(CHANGES[change](model)) != model_digest(model)


def test_what_does_not_count() -> None:
    model = classifier()
    digest = model_digest(model)
    turned = InMemoryParameters(dict(reversed(arrays_of(model).items())), {"tied": "square"})
    for same in (replace(model, examples=()), replace(model, metadata={}), replace(model, constants=frozenset()),
                 changed_node(model, 0, source=None), model.with_parameters(turned)):
        assert model_digest(same) == digest


def test_a_changed_weight_is_found(tmp_path: Path) -> None:
    for write, load in ((save_json, load_json), (save_hdf5, load_hdf5)):
        path = tmp_path / "m.x"
        write(classifier(), path)
        data = path.read_bytes()
        old, new = (b"0.25}", b"0.26}") if load is load_json else (struct.pack("<f", 0.25), struct.pack("<f", 0.26))
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        for verify in (None, True):
            with pytest.raises(DigestError, match="not the one that its digest names"):
                load(path, verify=verify)
        load(path, verify=False)


def test_damage_is_not_made_valid(tmp_path: Path) -> None:
    for suffix in (".json", ".h5", ".onnx"):
        path = tmp_path / f"m{suffix}"
        save(classifier(), path)
        data = path.read_bytes()
        old, new = (b"0.25}", b"0.26}") if suffix == ".json" else (struct.pack("<f", 0.25), struct.pack("<f", 0.26))
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        target = tmp_path / "out.h5" if suffix != ".h5" else tmp_path / "out.json"
        names = {".json": "json", ".h5": "hdf5", ".onnx": "onnx"}
        arguments = [f"{names[suffix]}-to-{names[target.suffix]}", str(path), "-o", str(target)]
        refused = CliRunner().invoke(cli, arguments)
        assert refused.exit_code == 2
        assert "digest" in refused.output
        assert not target.exists()
        assert CliRunner().invoke(cli, ["inspect", str(path)]).exit_code == 2
        assert CliRunner().invoke(cli, [*arguments, "--no-check"]).exit_code == 0
        target.unlink()


def test_a_changed_graph_is_found_at_once(tmp_path: Path) -> None:
    save_json(classifier(), tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert ", 0.5]" in text
    (tmp_path / "m.json").write_text(text.replace(", 0.5]", ", 0.75]"))
    with pytest.raises(FormatError, match="not the one that its digest names"):
        load_json(tmp_path / "m.json")


def test_verifying_needs_a_digest(tmp_path: Path) -> None:
    save_json(classifier(), tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    del document["digest"]
    (tmp_path / "m.json").write_text(json.dumps(document))
    load_json(tmp_path / "m.json")
    with pytest.raises(FormatError, match="no digest"):
        load_json(tmp_path / "m.json", verify=True)


def independent_digest(document: Any) -> str:
    """docs/format.md's steps on a parsed file with readable float32 values, with the standard library alone."""
    def canonical(value: Any) -> str:
        # Enough of RFC 8785 for a document whose keys are ASCII and whose numbers are short.
        if isinstance(value, dict):
            return "{" + ",".join(f"{json.dumps(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(canonical, value)) + "]"
        return str(int(value)) if isinstance(value, float) and value == int(value) else json.dumps(value)

    def flat(values: Any) -> list[float]:
        return [leaf for item in values for leaf in flat(item)] if isinstance(values, list) else [values]

    table = {}
    for name, entry in document["parameters"].items():
        table[name] = {key: entry[key] for key in ("dtype", "shape", "alias") if key in entry}
        if "values" in entry:
            numbers = flat(entry["values"])
            table[name]["sha256"] = hashlib.sha256(struct.pack(f"<{len(numbers)}f", *numbers)).hexdigest()
    graph = json.loads(json.dumps(document["graph"]))
    for node in graph["nodes"]:
        node.pop("source", None)
    text = canonical({"format": "neutral-model", "graph": graph, "parameters": table})
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_the_documented_algorithm(tmp_path: Path) -> None:
    save_json(classifier(), tmp_path / "m.json", encoding="values")
    assert independent_digest(json.loads((tmp_path / "m.json").read_text())) == model_digest(classifier())


def test_the_worked_example_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    model = load_json(FORMAT_FIXTURES / "doubled.json", verify=True)
    assert (FORMAT_FIXTURES / "doubled.json").read_text() in text
    assert model_digest(model) in text
    assert graph_digest(model.graph) in text
    assert model.parameters.sha256("w") in text
    canonical = next(line for line in text.splitlines() if line.startswith('{"format":"neutral-model","graph":'))
    assert "sha256:" + hashlib.sha256(canonical.encode()).hexdigest() == model_digest(model)


@pytest.mark.parametrize("name", ["everything.json", "everything.base64.json", "everything.file.json", "everything.h5"])
def test_golden_files_are_still_read(name: str) -> None:
    load: Callable[..., Model] = load_hdf5 if name.endswith(".h5") else load_json
    model = load(FORMAT_FIXTURES / name, verify=True)
    expected = json.loads((FORMAT_FIXTURES / "everything.sha256.json").read_text())
    assert model_digest(model) == expected["digest"]
    assert {key: model.parameters.sha256(key) for key in model.parameters.names()} == expected["parameters"]
    assert model.parameters.alias_of("tied") == "square"
    assert model.constants == {"shift"}
    assert model.examples[0].made_by == "numpy"


# Canonical JSON ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "text"), [
    # RFC 8785, appendix B.
    (0x0000000000000000, "0"), (0x8000000000000000, "0"), (0x0000000000000001, "5e-324"), (0x8000000000000001, "-5e-324"),
    (0x7FEFFFFFFFFFFFFF, "1.7976931348623157e+308"), (0xFFEFFFFFFFFFFFFF, "-1.7976931348623157e+308"),
    (0x4340000000000000, "9007199254740992"), (0xC340000000000000, "-9007199254740992"),
    (0x4430000000000000, "295147905179352830000"), (0x44B52D02C7E14AF5, "9.999999999999997e+22"),
    (0x44B52D02C7E14AF6, "1e+23"), (0x44B52D02C7E14AF7, "1.0000000000000001e+23"), (0x444B1AE4D6E2EF4E, "999999999999999700000"),
    (0x444B1AE4D6E2EF4F, "999999999999999900000"), (0x444B1AE4D6E2EF50, "1e+21"), (0x3EB0C6F7A0B5ED8C, "9.999999999999997e-7"),
    (0x3EB0C6F7A0B5ED8D, "0.000001"), (0x41B3DE4355555553, "333333333.3333332"), (0x41B3DE4355555554, "333333333.33333325"),
    (0x41B3DE4355555555, "333333333.3333333"), (0x41B3DE4355555556, "333333333.3333334"),
    (0x41B3DE4355555557, "333333333.33333343"),
    (0xBECBF647612F3696, "-0.0000033333333333333333"), (0x43143FF3C1CB0959, "1424953923781206.2")])
def test_numbers_as_the_rfc_has_them(bits: int, text: str) -> None:
    assert number(struct.unpack("<d", struct.pack("<Q", bits))[0]) == text


def test_an_object_as_the_rfc_has_it() -> None:
    value = {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
             "string": "\u20ac$\u000f\nA'B\"\\\\\"/", "literals": [None, True, False]}
    assert canonical_json(value).decode() == ('{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
                                              '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}')
    names = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical_json(names)).values()) == [2, 4, 6, 7, 1, 5, 3]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_reads_back(value: float) -> None:
    text = number(value)
    assert float(text) == value
    assert text == number(float(text))
    digits = text.lstrip("-").split("e")[0].replace(".", "").strip("0")
    assert len(digits) <= 17


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(st.none() | st.booleans() | NUMBERS | TEXTS,
                           lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=20)


@given(JSON_VALUES)
def test_canonical_text_is_the_value(value: Any) -> None:
    text = canonical_json(value)
    # Every number of RFC 8785 is a double, whole ones beyond 2^53 too.
    assert json.loads(text, parse_int=float) == value
    assert canonical_json(json.loads(text, parse_int=float)) == text

    def turned(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: turned(item[key]) for key in reversed(item)}
        return [turned(entry) for entry in item] if isinstance(item, list) else item

    assert canonical_json(turned(value)) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", {1: 2}, {"\udc00": 1}, b"x", {1, 2}])
def test_what_has_no_canonical_text(value: Any) -> None:
    with pytest.raises(FormatError):
        canonical_json([value])


def test_digest_of_nothing_but_tensors() -> None:
    held: list[dict[str, Any]] = [{}, {"w": np.zeros(0)}, {"w": np.zeros((0, 1))}, {"w": np.zeros(0, np.float32)}]
    assert len({model_digest(holding(arrays)) for arrays in held}) == 4
