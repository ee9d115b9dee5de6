"""Files as older exporters and other tools spell them: attributes that became operands, sparse tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import converter
from adapters.onnx.reading.attributes import _attributes, _signature
from adapters.onnx.reading.model import OLDEST
from adapters.onnx.registry import readers
from converter.errors import FormatError

NOT_TAKEN = {("Range", 27): {"stash_type"}}
"""Refused by name where a file has them."""


def test_readers_take_the_attributes_and_operands_of_every_version() -> None:
    """An attribute of an older version may have the name of an operand of a newer one."""
    schemas = [item for item in onnx.defs.get_all_schemas_with_history() if not item.domain and item.name in readers()]
    since = {(item.name, item.since_version) for item in schemas}
    missing: dict[tuple[str, int], set[str]] = {}
    for item in schemas:
        if any(name == item.name and item.since_version < version <= OLDEST for name, version in since):
            continue
        function = readers()[item.name]
        parameters = _signature(function).parameters.values()
        operands = [parameter for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD][1:]
        taken = _attributes(function)
        lacks = set(item.attributes) & {parameter.name for parameter in operands} if taken is None else set(item.attributes) - taken
        if item.max_input > len(operands) and all(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters):
            lacks.add(f"{item.max_input} operands")
        if lacks:
            missing[item.name, item.since_version] = lacks
    assert missing == NOT_TAKEN


def test_version_7_of_a_small_network(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 3, opset_import: ["": 7]> g (float[n, 2, h, w] x) => (float[n, 2, p, q] y) {
        a = Dropout <ratio = 0.3> (x)  b = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 3.0]> (a)
        y = Slice <axes = [2, 3], starts = [1, 0], ends = [100, -1]> (b) }""")
    onnx.save(proto, str(tmp_path / "m.onnx"))
    report = converter.verify(tmp_path / "m.onnx", cases=3)
    assert report, report
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    found = converter.session(converter.load(tmp_path / "m.onnx")).run({"x": x})["y"]
    assert np.array_equal(found, x.repeat(2, 2).repeat(3, 3)[:, :, 1:, :-1])


DENSE = np.zeros((4, 3), np.float32)
DENSE.reshape(-1)[[0, 5, 11]] = [1, 2, 3]


def sparse(places: object, shape: tuple[int, ...] = (4, 3)) -> onnx.SparseTensorProto:
    values, indices = np.array([1, 2, 3], np.float32), np.array(places, np.int64)
    return onnx.SparseTensorProto(dims=shape, values=onnx.TensorProto(name="w", data_type=1, dims=[3], raw_data=values.tobytes()),
                                  indices=onnx.TensorProto(data_type=7, dims=indices.shape, raw_data=indices.tobytes()))


def holding(path: Path, held: onnx.SparseTensorProto, node: bool = False) -> Path:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 13]> g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }""")
    if node:
        attribute = onnx.AttributeProto(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=held)
        proto.graph.node.insert(0, onnx.NodeProto(op_type="Constant", output=["w"], attribute=[attribute]))
    else:
        proto.graph.sparse_initializer.append(held)
    onnx.save(proto, str(path))
    return path


@pytest.mark.parametrize("node", [False, True])
@pytest.mark.parametrize("places", [[0, 5, 11], [[0, 0], [1, 2], [3, 2]]])
def test_a_sparse_tensor_is_read_with_its_zeros(places: object, node: bool, tmp_path: Path) -> None:
    model = converter.load(holding(tmp_path / "m.onnx", sparse(places), node))
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    assert np.allclose(converter.session(model).run({"x": x})["y"], x @ DENSE)


@pytest.mark.parametrize(("places", "shape", "part"), [
    ([0, 5, 12], (4, 3), "outside"), ([0, -1, 2], (4, 3), "outside"), ([[0, 0], [1, 3], [3, 2]], (4, 3), "outside"),
    ([0, 5], (4, 3), "do not fit"), ([0, 5, 11], (1 << 20, 1 << 20), "too many"), ([0, 5, 11], (-4, -3), "no shape")])
def test_a_sparse_tensor_that_is_damaged(places: object, shape: tuple[int, ...], part: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=part):
        converter.load(holding(tmp_path / "m.onnx", sparse(places, shape)))
