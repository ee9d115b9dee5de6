"""A damaged file, an attribute that no reader knows, and a defect of a reader are three things, and are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import converter
from adapters.onnx import registry
from adapters.onnx.reading.attributes import _attributes
from converter.errors import FormatError, UnsupportedError


def write(path: Path, operator: str, inputs: dict[str, list[int | str]], held: dict[str, Any] | None = None, domain: str = "",
          outputs: int = 1, **attributes: Any) -> Path:
    names = [*inputs, *(held or {})]
    node = helper.make_node(operator, names, [f"y{place}" for place in range(outputs)], domain=domain, **attributes)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
                              [helper.make_tensor_value_info(name, 1, None) for name in node.output],
                              [numpy_helper.from_array(np.asarray(array), name) for name, array in (held or {}).items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=9),
              path)
    return path


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of a standard operator and one of another domain that fail on whatever they get."""
    for name in ("Relu", "com.microsoft.Inverse"):
        registry.readers()[name]
        monkeypatch.setitem(registry.readers()._functions, name, lambda g, x: {}["lost"])  # type: ignore[attr-defined]


FORWARDERS = [("FusedMatMulActivation", {"x": ["n", 4], "w": [4, 3]}, {}, {"activation": "Relu"}),
              ("FusedGemm", {"x": ["n", 4], "w": [4, 3]}, {}, {"activation": "Relu"}),
              ("FusedConv", {"x": ["n", 2, 5, 5], "w": [3, 2, 3, 3]}, {}, {"activation": "Relu"}),
              ("NhwcMaxPool", {"x": ["n", 5, 5, 2]}, {}, {"kernel_shape": [2, 2]}),
              ("QLinearAveragePool", {"x": ["n", 2, 5, 5]}, {"scale": np.float32(0.1), "zero": np.uint8(3), "s": np.float32(0.1)},
               {"kernel_shape": [2, 2]})]


@pytest.mark.parametrize(("operator", "inputs", "held", "attributes"), FORWARDERS, ids=[item[0] for item in FORWARDERS])
def test_an_attribute_that_nobody_knows_is_refused_by_name(tmp_path: Path, operator: str, inputs: Any, held: Any, attributes: Any) -> None:
    file = write(tmp_path / "a.onnx", operator, inputs, held, "com.microsoft", mystery=1, **attributes)
    with pytest.raises(UnsupportedError) as caught:
        converter.load(file)
    (item,) = caught.value.items
    assert item["operator"] == f"com.microsoft.{operator}"
    assert "'mystery'" in str(item["reason"])


def test_every_reader_of_another_domain_says_which_attributes_it_takes() -> None:
    """Of ONNX's own operators the schema does. Those that remain take whatever their domain's schema lists."""
    known = {name: _attributes(function) for name, function in registry.readers().items() if name.startswith("com.microsoft.")}
    assert [name for name, found in known.items() if found is None] == []


def test_what_the_checker_rejects_is_a_damaged_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.onnx", "Concat", {"x": ["n", 4], "z": ["n", 4]}, axis=7)
    with pytest.raises((FormatError, UnsupportedError)) as caught:
        converter.load(file)
    assert "defect" not in str(caught.value)


def test_a_defect_of_a_reader_is_told_as_one_beside_all_else(tmp_path: Path, broken: None) -> None:
    file = write(tmp_path / "a.onnx", "Relu", {"x": ["n", 4]})
    proto = onnx.load(file)
    proto.graph.node.extend([helper.make_node("Relu", ["x"], ["y1"]), helper.make_node("StringNormalizer", ["x"], ["y2"])])
    onnx.save(proto, file)
    with pytest.raises(UnsupportedError) as caught:
        converter.load(file)
    found = {str(item["operator"]): item for item in caught.value.items}
    assert found["Relu"]["count"] == 2
    assert "defect of the converter: KeyError: 'lost'" in str(found["Relu"]["reason"])
    assert "StringNormalizer" in found


def test_where_no_checker_knows_the_operator_what_failed_is_told(tmp_path: Path, broken: None) -> None:
    file = write(tmp_path / "a.onnx", "Inverse", {"x": ["n", 4, 4]}, domain="com.microsoft")
    with pytest.raises(FormatError, match=r"do not fit the operator.*lost"):
        converter.load(file)
