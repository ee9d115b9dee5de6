"""Whether a node is damaged, or the reader that fails on it is: ONNX's own checker says of its own operators what they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper, numpy_helper

from adapters.onnx.load import FROM_ONNX
from adapters.onnx.reading.items import Item, as_numbers, is_numeric

_NUMBERS = {dtype: number for number, dtype in FROM_ONNX.items()}


def damage_of(node: onnx.NodeProto, inputs: Sequence[Any], versions: Mapping[str, int]) -> str | None:
    """What ONNX's checker and its inference of shapes find wrong with a node on these operands: "" for nothing, None for an operator that
    they do not know."""
    try:
        onnx.defs.get_schema(node.op_type, versions.get("" if node.domain == "ai.onnx" else node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None
    ports: list[onnx.ValueInfoProto] = []
    constants: list[onnx.TensorProto] = []
    for name, item in zip(node.input, inputs, strict=False):
        if not isinstance(item, Item) or not name or any(name == port.name for port in ports):
            continue
        if is_numeric(item.known):
            constants.append(numpy_helper.from_array(as_numbers(item.known, item.dtype), name))  # type: ignore[arg-type]
        shape = [size if isinstance(size, int) else None for size in item.shape]
        ports.append(helper.make_tensor_value_info(name, _NUMBERS[item.dtype], shape))
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "node", ports, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, version) for domain, version in versions.items()])
    try:
        if all(item.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
            onnx.checker.check_node(node, _context(model))
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # whatever the library's C++ raises
        return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return ""


def _context(model: onnx.ModelProto) -> Any:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {item.domain: item.version for item in model.opset_import}
    return context
