"""ONNX files out: streamed to disk a parameter at a time, so that writing needs the memory of one tensor.

A protobuf message is the concatenation of its fields, and a field of submessage type is a tag, a length and the
submessage. So the graph's initializers are written by hand, their values straight from the parameter store, and
everything else by the protobuf library. Past 2 GB, which protobuf cannot hold, values go to a file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx

from adapters.onnx.layouts import Initializer
from adapters.onnx.lowering import Lowering, Tensor
from converter.dims import Dim
from converter.errors import ConverterError
from converter.ir import Model, TensorSpec
from converter.parameters import as_bytes

DEFAULT_OPSET = 20
OPSETS = range(18, 24)
IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
EXTERNAL_THRESHOLD = 2_000_000_000
PRODUCER = "model-converter"


def save_onnx(model: Model, path: str | Path, *, opset: int = DEFAULT_OPSET) -> None:
    """Writes `model` as an ONNX file; values past 2 GB go to `<name>.data` beside it.

    Raises:
        UnsupportedError: operators without a lowering at this opset, all listed.
        ConverterError: an opset outside 18 to 23.
    """
    from converter.format.atomic import atomic_path

    proto, lowering = build(model, opset)
    path = Path(path)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        write_model(file, proto, lowering)


def build(model: Model, opset: int = DEFAULT_OPSET) -> tuple[onnx.ModelProto, Lowering]:
    """The ONNX model without its parameters' values, and the lowering that knows them."""
    if opset not in OPSETS:
        raise ConverterError("an ONNX opset that is not written here", expected=f"{OPSETS[0]} to {OPSETS[-1]}",
                             received=str(opset))
    lowering = Lowering(model.graph, model.parameters, opset)
    outputs = lowering.lower()
    _name_outputs(lowering, outputs)
    graph = onnx.helper.make_graph(
        lowering.nodes, model.graph.name,
        [_value_info(lowering, port.name, port.spec) for port in model.graph.inputs],
        [_value_info(lowering, output.name, output.spec) for output in model.graph.outputs],
        initializer=[onnx.numpy_helper.from_array(values, name) for name, values in lowering.constants.items()])
    proto = onnx.helper.make_model(graph, producer_name=PRODUCER, ir_version=IR_VERSIONS[opset],
                                   opset_imports=[onnx.helper.make_opsetid("", opset)])
    layouts = {item.name: {"sources": list(item.sources), "layout": [list(step) for step in item.layout.steps]}
               for item in lowering.initializers.values() if not item.layout.is_plain}
    if layouts:
        onnx.helper.set_model_props(proto, {"neutral-model.layouts": json.dumps(layouts)})
    return proto, lowering


def _value_info(lowering: Lowering, name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, lowering.onnx_dtype(spec.dtype), [_onnx_dim(size) for size in spec.shape])


def _onnx_dim(size: Dim) -> int | str:
    return size if isinstance(size, int) else str(size)


def _name_outputs(lowering: Lowering, outputs: dict[str, Tensor]) -> None:
    """Gives the values that the graph returns their public names; an Identity only where one value has two."""
    rename: dict[str, str] = {}
    own = {name for node in lowering.nodes for name in node.output}
    for name, tensor in outputs.items():
        if tensor.name == name:
            continue
        if tensor.name in own and tensor.name not in rename and tensor.name not in outputs:
            rename[tensor.name] = name
        else:
            lowering.nodes.append(onnx.helper.make_node("Identity", [tensor.name], [name], name=lowering.unique(f"{name}/Identity")))
    for node in lowering.nodes:
        node.input[:] = [rename.get(item, item) for item in node.input]
        node.output[:] = [rename.get(item, item) for item in node.output]


# Writing -----------------------------------------------------------------------------------------------------------------

_GRAPH_FIELD = 7  # ModelProto.graph
_INITIALIZER_FIELD = 5  # GraphProto.initializer
_RAW_DATA_FIELD = 9  # TensorProto.raw_data


def write_model(file: BinaryIO, proto: onnx.ModelProto, lowering: Lowering) -> None:
    """One self-contained ONNX file, values streamed."""
    graph = proto.graph.SerializeToString()
    head = onnx.ModelProto()
    head.CopyFrom(proto)
    head.ClearField("graph")
    entries = [(item, _tensor_head(item, lowering)) for item in lowering.initializers.values()]
    total = len(graph) + sum(_entry_size(item, tensor) for item, tensor in entries)
    file.write(head.SerializeToString())
    file.write(_tag(_GRAPH_FIELD) + _varint(total))
    file.write(graph)
    for item, tensor in entries:
        file.write(_tag(_INITIALIZER_FIELD) + _varint(_body_size(item, tensor)) + tensor)
        file.write(_tag(_RAW_DATA_FIELD) + _varint(_nbytes(item)))
        for block in values_of(item, lowering):
            file.write(block)


def values_of(item: Initializer, lowering: Lowering) -> Iterable[memoryview]:
    """An initializer's little-endian bytes."""
    yield as_bytes(np.ascontiguousarray(item.layout.apply([lowering.parameters.read(name) for name in item.sources])))


def _tensor_head(item: Initializer, lowering: Lowering) -> bytes:
    return onnx.TensorProto(name=item.name, data_type=lowering.onnx_dtype(item.spec.dtype),
                            dims=[int(size) for size in item.spec.shape]).SerializeToString()  # type: ignore[arg-type]


def _nbytes(item: Initializer) -> int:
    return item.spec.dtype.itemsize * int(np.prod([int(size) for size in item.spec.shape], dtype=np.int64))  # type: ignore[arg-type]


def _body_size(item: Initializer, head: bytes) -> int:
    size = _nbytes(item)
    return len(head) + len(_tag(_RAW_DATA_FIELD)) + len(_varint(size)) + size


def _entry_size(item: Initializer, head: bytes) -> int:
    body = _body_size(item, head)
    return len(_tag(_INITIALIZER_FIELD)) + len(_varint(body)) + body


def _tag(field: int) -> bytes:
    return _varint(field << 3 | 2)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
