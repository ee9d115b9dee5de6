"""A neutral model as an ONNX model: the lowered graph, its inputs and outputs, and what the file says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import onnx

from adapters.onnx.lowering.border import spec_at_border
from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.origin import PRODUCER, describe
from adapters.onnx.registry import lowerings
from adapters.onnx.writing import total_bytes, write_external, write_model
from converter.dims import Dim
from converter.errors import ConverterError, UnsupportedError
from converter.ir import Model, TensorSpec
from converter.passes.complex_numbers import without_complex
from converter.passes.decomposing import decompose

DEFAULT_OPSET = 20
OPSETS = range(18, 24)
IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
EXTERNAL_THRESHOLD = 2_000_000_000


def save_onnx(model: Model, path: str | Path, *, opset: int = DEFAULT_OPSET,
              external: bool | None = None) -> tuple[Path, ...]:
    """Writes `model` as an ONNX file, and returns the files.

    Args:
        external: whether the values go to `<name>.<16 digits>.data` beside it; default: when they are past 2 GB.

    Raises:
        UnsupportedError: operators without a lowering at this opset, all listed; a name that is empty.
        ConverterError: an opset outside 18 to 23.
    """
    from converter.format.atomic import atomic_pair, atomic_path, written_files

    proto, lowering = build(model, opset)
    path = Path(path)
    if external is None:
        external = total_bytes(lowering) > EXTERNAL_THRESHOLD
    # One thread reads the parameters for the digest while the other writes them.
    if not external:
        with atomic_path(path) as temporary, open(temporary, "wb") as file, ThreadPoolExecutor(1) as aside:
            write_model(file, proto, lowering, aside.submit(describe, proto, model).result)
        return written_files(path)
    with (atomic_pair(path, "data") as pair, open(pair.document, "wb") as file, open(pair.values, "wb") as data,
          ThreadPoolExecutor(1) as aside):
        write_external(file, data, pair.name_values, proto, lowering, aside.submit(describe, proto, model).result)
    return written_files(path, pair.place)


def build(model: Model, opset: int = DEFAULT_OPSET) -> tuple[onnx.ModelProto, Lowering]:
    """The ONNX model without its parameters' values, and the lowering that knows them."""
    if opset not in OPSETS:
        raise ConverterError("an ONNX opset that is not written here", expected=f"{OPSETS[0]} to {OPSETS[-1]}",
                             received=str(opset))
    _refuse_empty_names(model)
    graph = without_complex(model.graph, model.parameters)
    model = replace(model, graph=decompose(graph, model.parameters, lambda node, _: node.op not in lowerings()))
    lowering = Lowering(model.graph, model.parameters, opset)
    outputs = lowering.lower()
    _name_outputs(lowering, outputs)
    graph = onnx.helper.make_graph(
        lowering.nodes, model.graph.name,
        [_value_info(lowering, port.name, spec_at_border(port.spec)) for port in model.graph.inputs],
        [_value_info(lowering, output.name, spec_at_border(output.spec)) for output in model.graph.outputs],
        initializer=[onnx.numpy_helper.from_array(values, name) for name, values in lowering.constants.items()])
    proto = onnx.helper.make_model(graph, producer_name=PRODUCER, ir_version=IR_VERSIONS[opset],
                                   opset_imports=[onnx.helper.make_opsetid("", opset)])
    layouts = {item.name: {"sources": list(item.sources), "layout": [list(step) for step in item.layout.steps]}
               for items in (lowering.initializers, lowering.unread) for item in items.values() if not item.layout.is_plain}
    if layouts:
        onnx.helper.set_model_props(proto, {"neutral-model.layouts": json.dumps(layouts)})
    return proto, lowering


def _refuse_empty_names(model: Model) -> None:
    roles = {"an input": [port.name for port in model.graph.inputs], "an output": [port.name for port in model.graph.outputs],
             "a parameter": model.parameters.names(), "a value": [name for node in model.graph.nodes for name in node.outputs]}
    for role, names in roles.items():
        if "" in names:
            raise UnsupportedError(f"{role} has an empty name, which in ONNX stands for a value that is absent",
                                   where=f"graph {model.graph.name!r}", fix="give it a name")


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
    _rename(lowering.nodes, rename)


def _rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Renames values, also where bodies read them."""
    for node in nodes:
        node.input[:] = [names.get(item, item) for item in node.input]
        node.output[:] = [names.get(item, item) for item in node.output]
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                _rename(graph.node, names)
