"""Attributes of every type, graphs within graphs, and refusals of either, on an operator of this test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from converter import opset
from converter.dims import Dim, Expr
from converter.errors import ConverterError, FormatError, GraphError
from converter.format import graph_digest, load_json, model_digest, save_json
from converter.format.document import graph_from_document, graph_to_document, required_opset
from converter.ir import DimRange, DType, Graph, GraphInput, GraphOutput, Model, Node, TensorSpec
from converter.parameters import InMemoryParameters
from tests.format_models import identity_graph

Array = np.ndarray[Any, Any]


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers `everything`: an operator with attributes of all types."""
    opset.operators()
    monkeypatch.setattr(opset, "_REGISTRY", dict(opset._REGISTRY))

    @opset.op(infer=lambda x, **attributes: x, since=1, name="everything")
    def kernel(x: Array, *, sizes: tuple[Dim, ...] = (), size: Dim = 1, dtype: DType | None = None, rate: float = 1.0,
               mode: Literal["a", "b"] = "a", flag: bool = False, value: complex = 0j, count: int = 0, text: str = "",
               body: Graph | None = None, bodies: tuple[Graph, ...] = ()) -> Array:
        """Gives its operand back."""
        return x


def graph(**attributes: Any) -> Graph:
    spec = TensorSpec.of("float32", ["n"])
    node = Node("everything", ("x",), ("y",), attributes)
    return Graph("outer", (GraphInput("x", spec),), (GraphOutput("y", spec, "y"),), (node,), {"n": DimRange(2, 9)})


@pytest.mark.parametrize(("attribute", "value", "document"), [
    ("sizes", (1, Expr({((("symbol", "n"), 1),): 2}), 0), [1, "2*n", 0]), ("size", Expr({((("symbol", "n"), 1),): 1}), "n"),
    ("size", 2**62, {"literal": str(2**62)}), ("dtype", DType.BFLOAT16, "bfloat16"), ("rate", 0.1, 0.1), ("rate", 2.0, 2.0),
    ("rate", float("inf"), {"literal": "Infinity"}), ("rate", float("-inf"), {"literal": "-Infinity"}), ("mode", "b", "b"),
    ("rate", -0.0, {"literal": "-0.0"}), ("flag", True, True), ("value", 1 + 2j, {"literal": "1+2j"}), ("count", -7, -7),
    ("value", complex(float("-inf"), -0.5), {"literal": "-Infinity-0.5j"}), ("count", -(2**63), {"literal": str(-(2**63))}),
    ("text", "é", "é")])
@pytest.mark.usefixtures("everything")
def test_attributes(tmp_path: Path, attribute: str, value: Any, document: Any) -> None:
    model = Model(graph(**{attribute: value}), InMemoryParameters())
    assert graph_to_document(model.graph)["nodes"][0]["attributes"] == {attribute: document}
    save_json(model, tmp_path / "m.json")
    found = load_json(tmp_path / "m.json", verify=True)
    assert repr(found.graph) == repr(model.graph)
    assert model_digest(found) != model_digest(Model(graph(), InMemoryParameters()))


@pytest.mark.usefixtures("everything")
def test_attributes_equal_to_their_default_are_left_out(tmp_path: Path) -> None:
    written = graph(sizes=(), size=1, rate=1.0, mode="a", flag=False, value=0j, count=0, text="", body=None)
    assert "attributes" not in graph_to_document(written)["nodes"][0]
    assert graph_digest(written) == graph_digest(graph())


@pytest.mark.usefixtures("everything")
def test_graphs_within_graphs(tmp_path: Path) -> None:
    inner = graph(rate=float("nan"), body=identity_graph())
    model = Model(graph(body=inner, bodies=(identity_graph(), inner)), InMemoryParameters())
    save_json(model, tmp_path / "m.json")
    found = load_json(tmp_path / "m.json", verify=True)
    assert repr(found.graph) == repr(model.graph)
    assert required_opset(model.graph) == 1
    document = json.loads((tmp_path / "m.json").read_text())
    del document["digest"]
    document["graph"]["nodes"][0]["attributes"]["body"]["nodes"][0]["attributes"]["body"]["extra"] = 1
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match="unknown field 'extra'"):
        load_json(tmp_path / "m.json")


@pytest.mark.usefixtures("everything")
def test_graphs_too_deep() -> None:
    deep = graph_to_document(identity_graph())
    for _ in range(40):
        deep = {**graph_to_document(graph()), "nodes": [{"op": "everything", "inputs": ["x"], "attributes": {"body": deep},
                                                         "outputs": ["y"]}]}
    with pytest.raises(FormatError, match="too deep"):
        graph_from_document(deep)


@pytest.mark.parametrize(("attribute", "value"), [
    ("sizes", 3), ("sizes", [1.5]), ("sizes", ["n +"]), ("size", None), ("dtype", "float33"), ("dtype", 3), ("rate", "fast"),
    ("rate", True), ("rate", {"literal": "1+2j"}), ("mode", "c"), ("flag", 1), ("flag", "true"), ("value", [1, 2]),
    ("count", 1.0), ("count", {"literal": "NaN"}), ("text", 3), ("body", {"name": "g"}), ("body", {"nodes": 3}), ("bodies", {}),
    ("count", 2**60)])
@pytest.mark.usefixtures("everything")
def test_attributes_refused(attribute: str, value: Any) -> None:
    document = graph_to_document(graph())
    document["nodes"][0]["attributes"] = {attribute: value}
    with pytest.raises(ConverterError):
        graph_from_document(document)


def test_an_unforeseen_operand_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opset.operators()
    monkeypatch.setattr(opset, "_REGISTRY", dict(opset._REGISTRY))

    @opset.op(infer=lambda x: TensorSpec(x.dtype, (x.shape[3],)), name="stumbles")
    def kernel(x: Array) -> Array:
        """Its shape rule expects four axes."""
        return x

    spec = TensorSpec.of("float32", ["n"])
    node = Node("stumbles", ("x",), ("y",))
    broken = Graph("g", (GraphInput("x", spec),), (GraphOutput("y", spec, "y"),), (node,), {"n": DimRange()})
    with pytest.raises(GraphError, match="does not take"):
        save_json(Model(broken, InMemoryParameters()), tmp_path / "m.json")
