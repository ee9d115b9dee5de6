"""What an ONNX file written here says of the model it came from, so that the model can be had back bit for bit.

In the file's metadata:

    neutral-model.document   the neutral document as HDF5 files hold it: everything but the parameters' values
    neutral-model.layouts    how initializers are made of parameters, for those that were rearranged
    neutral-model.digest     the model's digest
    neutral-model.nodes      SHA-256 of the ONNX graph as it was written, so that an edited one is known

Initializers that no node reads stand in `training_info[0].initialization`; files of earlier versions have them in the graph.
"""

from __future__ import annotations

import hashlib

import onnx

from converter.format.digest import ModelDigest
from converter.format.writing import Pieces, Values, check_model, document_pieces, example_pieces, parameter_pieces
from converter.ir import Example, Model

DOCUMENT = "neutral-model.document"
LAYOUTS = "neutral-model.layouts"
DIGEST = "neutral-model.digest"
NODES = "neutral-model.nodes"
EXAMPLE_BYTES = 1 << 20
"""Examples are carried as long as they take no more than this: every reader of the file loads them."""


def describe(proto: onnx.ModelProto, model: Model) -> None:
    """Adds to `proto`, which has no parameters' values yet, what `model` is. Reads every parameter for the digest."""
    check_model(model)
    digest = ModelDigest(model.graph)
    examples = _carried(model.examples)
    document = b"".join(document_pieces(
        model.graph, parameter_pieces(model.parameters, model.constants, _elsewhere, digest, None),
        example_pieces(examples, "base64") if examples else None, model.metadata,
        lambda: digest.members(model.constants, examples, model.metadata)))
    for key, value in {DOCUMENT: document.decode("utf-8"), DIGEST: digest.value(),
                       NODES: fingerprint(proto.graph, frozenset())}.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value


def _elsewhere(name: str, values: Values) -> Pieces:
    yield from ()


def _carried(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    room, carried = EXAMPLE_BYTES, []
    for example in examples:
        given = (array for name, array in example.inputs.items() if name not in example.draws)
        room -= sum(item.nbytes for item in (*given, *example.outputs.values()))
        if room < 0:
            break
        carried.append(example)
    return tuple(carried)


def fingerprint(graph: onnx.GraphProto, parameters: frozenset[str]) -> str:
    """SHA-256 over an ONNX graph's nodes, inputs, outputs and constants; initializers named in `parameters` do not count."""
    digest = hashlib.sha256()
    constants = sorted((item for item in graph.initializer if item.name not in parameters), key=lambda item: item.name)
    for kind, items in (("input", graph.input), ("node", graph.node), ("constant", constants), ("output", graph.output)):
        for item in items:
            content = item.SerializeToString(deterministic=True)
            digest.update(f"{kind} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
