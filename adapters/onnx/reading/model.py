"""An ONNX file of another origin as a neutral model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner

from adapters.onnx.functions import check_functions, nodes_of
from adapters.onnx.initializers import Initializers, hoist_constants
from adapters.onnx.load import FROM_ONNX, text_of
from adapters.onnx.origin import PRODUCER
from adapters.onnx.reading.equalities import solved
from adapters.onnx.reading.flat_weights import flatten_weights
from adapters.onnx.reading.items import SMALL, Item
from adapters.onnx.reading.names import input_sizes
from adapters.onnx.reading.order import sort_nodes
from adapters.onnx.reading.parameters import MADE_UP, ForeignParameters
from adapters.onnx.reading.reader import STANDARD, Reader
from adapters.onnx.registry import readers
from converter.builder import GraphBuilder
from converter.checking import check
from converter.conditions import Condition, compare
from converter.dims import Dim, Expr, fixed, substitute
from converter.equal_sizes import taken_as_equal
from converter.errors import FormatError, UnsupportedError
from converter.ir import DimRange, DType, Graph, GraphOutput, Model, Node
from converter.mapped import MappedFile
from converter.passes.rewriting import simplify

INDICES = frozenset({DType.INT64, DType.INT32, DType.BOOL})
STRIPPED = "the file was written here, and what it said of its model is gone or another's: recorded examples, names that share memory, " \
    "parameters that nothing reads, and layers that ONNX has no word for are not had back"
OLDEST = 7
"""The oldest version of ONNX's operators that is read."""


def read_foreign(proto: onnx.ModelProto, path: Path, file: MappedFile, values: Collection[str] = ()) -> Model:
    """The neutral model that an ONNX file of another origin computes, its arithmetic lifted to layers.

    Where nodes make some of `values`, these keep their names, and nothing is lifted that could step over them.

    Raises:
        UnsupportedError: operators, dtypes or kinds of values that cannot be read; all are listed.
        FormatError, GraphError: a damaged file.
    """
    versions = _versions(proto)
    _check_version(versions.get("", 1), proto.graph)
    moved = sort_nodes(proto)
    proto = inline_functions(proto)
    graph = proto.graph
    hoist_constants(graph)
    initializers = Initializers(proto, path, file) if graph.initializer or graph.sparse_initializer else None

    def walked(bound: Mapping[str, Dim]) -> tuple[Reader, dict[tuple[Dim, Dim], bool]]:
        reader = Reader(GraphBuilder(text_of(graph.name) or "model"), versions, ForeignParameters(initializers))
        _declare_inputs(reader, graph, bound)
        _declare_initializers(reader, initializers)
        with taken_as_equal() as equal:
            reader.walk(graph)
        reader.finish()
        return reader, {pair: exact for pair, exact in equal.items() if exact or any(isinstance(size, int) for size in pair)}

    reader, equal = walked({})
    bound = solved(equal, set(reader.builder.dims))
    if bound:
        reader, equal = walked(bound)
        for text, kind in (("sizes that are equal: ", Expr), ("sizes that are declared free, and that the nodes hold to a number: ", int)):
            told = [f"{name} is {size}" for name, size in sorted(bound.items()) if isinstance(size, kind)]
            reader.notes.extend([text + ", ".join(told)] * bool(told))
    for pair, exact in equal.items():
        condition = compare(pair[0], "==", pair[1])
        if exact and any(isinstance(size, int) for size in pair) and isinstance(condition, Condition) \
                and condition.symbols <= reader.builder.dims.keys():
            reader.builder.require(condition)
    notes, store = reader.notes, reader.store
    if moved:
        notes.append("the file has nodes before those that they read: they were sorted")
    if text_of(proto.producer_name) == PRODUCER:
        notes.append(STRIPPED)
    kept = _declare_values(reader, graph, values)
    names = _declare_outputs(reader, graph)
    built = _with_file_names(reader.builder.graph(), names)
    used = set(built.uses)
    store.keep(used)
    constants = frozenset(name for name in store.constants if name in used and name not in store.learned)
    specs = {names.get(name, name): spec for name, spec in reader.builder.specs.items()}
    built, _ = simplify(built, specs, store, constants, lift=not kept)
    built = _named_values(_named_by_biases(flatten_weights(reader, graph, built), store), kept)
    used = set(built.uses)
    store.keep(used)
    check(built, store)
    origin: dict[str, Any] = {"framework": f"ONNX of {text_of(proto.producer_name) or 'an unknown producer'} "
                                           f"{text_of(proto.producer_version)}".strip()[:120],
                              "opset": {name or "ai.onnx": version for name, version in sorted(versions.items())}}
    if notes:
        origin["notes"] = notes
    return Model(built, store, (), {"source": origin}, (frozenset(store.constants) & frozenset(used)) - store.learned)


def _check_version(version: int, graph: onnx.GraphProto) -> None:
    """Raises `UnsupportedError` for a version of ONNX's operators that is not read: below `OLDEST`, one that changed until then."""
    newest = onnx.defs.onnx_opset_version()
    changed: list[str] = []
    if 1 <= version < OLDEST:
        changed = sorted({text_of(node.op_type) for node in nodes_of(graph) if node.domain in STANDARD
                          and _since(text_of(node.op_type), version) != _since(text_of(node.op_type), OLDEST)})
    if changed or not 1 <= version <= newest:
        raise UnsupportedError("a version of ONNX's operators that is not read", received=f"{version}{': ' if changed else ''}"
                               + ", ".join(changed)[:300], expected=f"{OLDEST} to {newest}",
                               fix="convert it with onnx.version_converter, or install a newer onnx")


def _since(name: str, version: int) -> int | None:
    try:
        return int(onnx.defs.get_schema(name, version).since_version)
    except onnx.defs.SchemaError:
        return None


def _versions(proto: onnx.ModelProto) -> dict[str, int]:
    """The version of each domain's operators. Raises `FormatError` for a domain of two versions."""
    found: dict[str, int] = {}
    for item in proto.opset_import:
        domain = "" if item.domain in STANDARD else text_of(item.domain)
        if found.setdefault(domain, item.version) != item.version:
            raise FormatError("a damaged ONNX file: two versions of one domain's operators", where=f"domain {domain[:80]!r}",
                              received=f"{found[domain]} and {item.version}", fix="make the file again")
    return found


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions of its own, and without those operators that ONNX itself writes as functions and have no reader."""
    if proto.functions:
        check_functions(proto)
        _bring_to_one_version(proto)
        try:
            proto = onnx.inliner.inline_local_functions(proto)
        except Exception as error:  # whatever the library's C++ raises
            raise FormatError("functions that cannot be written out", received=str(error)[:200], fix="make the file again") from error
    versions = {item.domain: item.version for item in proto.opset_import}
    known = readers()
    if not any(_has_function(node, versions) for node in nodes_of(proto.graph) if node.domain in STANDARD and node.op_type not in known):
        return proto
    if any(item.type.WhichOneof("value") is None for item in proto.graph.input):
        return proto  # on an input without a type the inliner ends the process; such inputs are refused by name
    # The inliner leaves out defaults that a node does not name.
    filled = onnx.ModelProto()
    filled.CopyFrom(proto)
    for node in nodes_of(filled.graph):
        if node.domain in STANDARD and node.op_type not in known and _has_function(node, versions):
            schema = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1))
            given = {item.name for item in node.attribute}
            node.attribute.extend(item.default_value for name, item in schema.attributes.items()
                                  if name not in given and item.default_value.type)
    try:
        own = [("", name) for name in known if "." not in name]
        return onnx.inliner.inline_selected_functions(filled, own, exclude=True, inline_schema_functions=True)
    except Exception:  # whatever the library's C++ raises
        return proto  # the operators are refused by name then


def _bring_to_one_version(proto: onnx.ModelProto) -> None:
    """Gives functions the file's own version of each domain's operators, where theirs are called alike in it.

    Raises `UnsupportedError` that lists those where they are not.
    """
    versions = _versions(proto)
    other: list[dict[str, object]] = []
    for function in proto.functions:
        for item in function.opset_import:
            domain = "" if item.domain in STANDARD else text_of(item.domain)
            wanted = versions.get(domain, item.version)
            names = {text_of(node.op_type) for node in nodes_of(function) if node.domain in STANDARD} if not domain else set()
            changed = sorted(name for name in names if item.version != wanted and _call(name, item.version) != _call(name, wanted))
            if changed:
                reason = f"a function with version {item.version} of {', '.join(changed)[:200]}, in a file with version {wanted}"
                other.append({"operator": f"{function.domain}.{function.name}"[:120], "reason": reason})
            item.version = wanted
    if other:
        raise UnsupportedError(f"{len(other)} function{'s' * (len(other) > 1)} cannot be read", items=other,
                               expected="operators that are called as those of the file's own version",
                               fix="write functions out where the file is made, or convert it to one version")


def _call(name: str, version: int) -> Any:
    """What an operator of a version takes and gives, whatever its dtypes; what its attributes are by default."""
    try:
        schema = onnx.defs.get_schema(name, version)
    except onnx.defs.SchemaError:
        return None
    attributes = sorted((key, str(item.type), item.required, item.default_value.SerializeToString())
                        for key, item in schema.attributes.items())
    return attributes, *([(item.name, str(item.option)) for item in side] for side in (schema.inputs, schema.outputs))


def _has_function(node: onnx.NodeProto, versions: Mapping[str, int]) -> bool:
    name, domain = text_of(node.op_type), text_of(node.domain)
    if not onnx.defs.has(name, domain):
        return False
    try:
        schema = onnx.defs.get_schema(name, versions.get(domain, 1))
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]


def _declare_inputs(reader: Reader, graph: onnx.GraphProto, bound: Mapping[str, Dim]) -> None:
    """The inputs that are no initializers, with their sizes, those that are `bound` as what they are."""
    held = {tensor.name for tensor in graph.initializer} | {item.values.name for item in graph.sparse_initializer}
    inputs = [item for item in graph.input if item.name not in held]
    if any(item.name in held for item in graph.input):
        reader.notes.append("inputs that are initializers too are constants")
    unfit = {text_of(item.name): _kind(item) for item in inputs if item.type.tensor_type.elem_type not in FROM_ONNX}
    without: list[str] = []
    sizes, empty = input_sizes(inputs, without.append)
    unfit |= {name: "it has no shape" for name in without if name not in unfit}
    if unfit:
        raise UnsupportedError(f"{len(unfit)} inputs cannot be read", expected="tensors of numbers whose axes are known",
                               items=[{"operator": name, "reason": reason} for name, reason in unfit.items()])
    for item in inputs:
        name = text_of(item.name)
        shape = tuple(substitute(size, bound) for size in sizes[name])
        reader.values[name] = Item.of(reader.builder.input(name, FROM_ONNX[item.type.tensor_type.elem_type], shape))
    reader.builder.dims.update({name: DimRange(min=0) for name in empty - bound.keys()})


def _kind(item: onnx.ValueInfoProto) -> str:
    kind = item.type.WhichOneof("value")
    if kind != "tensor_type":
        return f"it is no tensor but {str(kind or 'nothing').removesuffix('_type')}"
    number = item.type.tensor_type.elem_type
    return f"it is of the dtype {onnx.TensorProto.DataType.Name(number) if number in onnx.TensorProto.DataType.values() else number}"


def _declare_initializers(reader: Reader, initializers: Initializers | None) -> None:
    if initializers is None:
        return
    for name in initializers.names():
        spec = initializers.spec(name)
        shape = tuple(fixed(size) for size in spec.shape)
        count = 1
        for size in shape:
            count *= size
        known = initializers.read(name) if count <= SMALL else None

        def make(name: str = name, spec: Any = spec) -> Any:
            reader.store.plain[name] = None
            return reader.builder.parameter(name, spec.dtype, spec.shape)

        if known is not None and (spec.dtype in INDICES or count == 1 and MADE_UP.search(name)):
            reader.values[name] = item = reader.constant_item(known, name)  # of the code, and no weight
            item.initializer = name if spec.dtype.is_float else None  # but where a layer takes it
        else:
            reader.values[name] = Item(spec.dtype, shape, None, known, make, name)


def _declare_outputs(reader: Reader, graph: onnx.GraphProto) -> dict[str, str]:
    """The outputs; gives what values of the neutral graph are called in the file, where they have names there."""
    for output in graph.output:
        name = text_of(output.name)
        found = reader.lookup(name)
        if isinstance(found, list) and found:
            reader.notes.append(f"the sequence {name!r} is {len(found)} outputs, {name}_0 and on")
            for place, item in enumerate(found):
                reader.builder.output(f"{name}_{place}", reader.tensor(item))
        elif isinstance(found, Item):
            reader.builder.output(name, reader.tensor(found))
        else:
            raise UnsupportedError("an output that is no tensor, and no sequence of some", received=name)
    own = {name: item.value.name for name, item in reader.values.items() if isinstance(item, Item) and item.value is not None}
    ports = {port.name for port in reader.builder.graph().inputs}
    made = {value for value in reader.builder.specs if value not in reader.builder.parameters and value not in ports}
    names: dict[str, str] = {}
    for name, value in own.items():
        if value in made and value not in names and name not in reader.builder.specs:
            names[value] = name
    return names


def _declare_values(reader: Reader, graph: onnx.GraphProto, values: Collection[str]) -> int:
    """Makes outputs of those values that nodes make, the first of all; gives how many."""
    outputs = {item.name for item in graph.output}
    made = [name for node in graph.node for name in node.output if name in values and name not in outputs] if values else []
    tensors = {name: found for name in made if isinstance(found := reader.lookup(name), Item)}
    for name, item in tensors.items():
        reader.builder.output(name, reader.tensor(item))
    return len(tensors)


def _named_by_biases(graph: Graph, store: ForeignParameters) -> Graph:
    """Weights that exporters gave names are called after the bias of their layer: `in_proj_weight` beside `in_proj_bias`."""
    names = {}
    for node in graph.nodes:
        weight, bias = (*node.inputs, None, None, None)[1:3]
        if node.op == "linear" and isinstance(weight, str) and isinstance(bias, str) and bias.endswith("bias") and not MADE_UP.search(bias):
            wanted = bias.removesuffix("bias") + "weight"
            if weight not in names and store.rename(weight, wanted):
                names[weight] = wanted
    return _with_file_names(graph, names) if names else graph


def _named_values(graph: Graph, count: int) -> Graph:
    """The graph without its first outputs, whose values have their names where nothing else does."""
    made = {name for node in graph.nodes for name in node.outputs}
    taken = made | {port.name for port in graph.inputs}
    names: dict[str, str] = {}
    for item in graph.outputs[:count]:
        if item.value in made and item.value not in names and item.name not in taken:
            names[item.value] = item.name
            taken.add(item.name)
    return _with_file_names(replace(graph, outputs=graph.outputs[count:]), names)


def _with_file_names(graph: Graph, names: dict[str, str]) -> Graph:
    def renamed(values: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(names.get(item, item) if isinstance(item, str) else item for item in values)

    nodes = tuple(Node(node.op, renamed(node.inputs), renamed(node.outputs), node.attributes, node.source) for node in graph.nodes)
    outputs = tuple(GraphOutput(item.name, item.spec, names.get(item.value, item.value)) for item in graph.outputs)
    return replace(graph, nodes=nodes, outputs=outputs)
