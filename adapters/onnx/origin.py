"""What an ONNX file written here says of the model it came from, so that the model can be had back bit for bit.

In the file's metadata:

    neutral-model.document   the neutral document as HDF5 files hold it: everything but the parameters' values
    neutral-model.layouts    how initializers are made of parameters, for those that were rearranged
    neutral-model.digest     the model's digest
    neutral-model.nodes      SHA-256 of the ONNX graph as it was written, so that an edited one is known

All four stand once more in a graph of `training_info` that is called `neutral-model`, as compressed JSON in a tensor of that name:
tools that strip a file's metadata leave it alone. Initializers that no node reads stand in another one of its graphs; files of earlier
versions have them in the graph.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import onnx

from converter.errors import FormatError
from converter.format.digest import ModelDigest
from converter.format.writing import Pieces, Values, check_model, document_pieces, example_pieces, parameter_pieces
from converter.ir import Example, Model

DOCUMENT = "neutral-model.document"
LAYOUTS = "neutral-model.layouts"
DIGEST = "neutral-model.digest"
NODES = "neutral-model.nodes"
PRODUCER = "model-converter"
COPY = "neutral-model"
COPIED = 256 << 20
"""Bytes that a copy may unpack to."""
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


def encode_metadata(proto: onnx.ModelProto) -> bytes:
    """The metadata as a file's last bytes, with the copy of what `describe` added."""
    notes = {entry.key: entry.value for entry in proto.metadata_props}
    tail = onnx.ModelProto(metadata_props=proto.metadata_props)
    if DOCUMENT in notes:
        packed = zlib.compress(json.dumps(notes).encode(), 9)
        graph = tail.training_info.add().initialization
        graph.name = COPY
        graph.initializer.add(name=COPY, data_type=onnx.TensorProto.UINT8, dims=[len(packed)], raw_data=packed)
    return tail.SerializeToString()


def notes_of(proto: onnx.ModelProto, notes: Mapping[str, str]) -> Mapping[str, str]:
    """What a file says of its origin: its metadata, or where somebody stripped it, the copy; `notes` where there is neither.

    Raises `FormatError` for a copy that is damaged, or says something else.
    """
    copies = [item.initialization for item in proto.training_info if item.initialization.name == COPY]
    packed = [tensor.raw_data for graph in copies for tensor in graph.initializer]
    if not packed:
        return notes
    try:
        opened = zlib.decompressobj()
        text = opened.decompress(packed[0], COPIED)
        found = json.loads(text)
        whole = opened.eof and not opened.unused_data and len(packed) == 1 and isinstance(found, dict) and all(
            isinstance(value, str) for value in found.values())
    except (zlib.error, ValueError, RecursionError):
        whole = False
    if not whole:
        raise FormatError("the copy of what the file says of its origin is damaged", where=f"training information {COPY!r}",
                          fix="get the file again, or convert the model again")
    if DOCUMENT not in notes:
        return {**notes, **found}
    if any(notes.get(key) != value for key, value in found.items() if key in (DOCUMENT, LAYOUTS, DIGEST, NODES)):
        raise FormatError("the file says two things of its origin", where="its metadata and the copy in its training information",
                          fix="get the file again, or convert the model again")
    return notes


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


def fingerprint(graph: onnx.GraphProto, parameters: frozenset[str], *, plain: bool = False) -> str:
    """SHA-256 over an ONNX graph's nodes, inputs, outputs and constants; initializers named in `parameters` do not count.

    `plain`: without texts and metadata of theirs, which files that are written here do not have, nor empty ones that somebody put there.
    """
    digest = hashlib.sha256()
    constants = sorted((item for item in graph.initializer if item.name not in parameters), key=lambda item: item.name)
    for kind, items in (("input", graph.input), ("node", graph.node), ("constant", constants), ("output", graph.output)):
        for item in items:
            content = (_plain(item) if plain else item).SerializeToString(deterministic=True)
            digest.update(f"{kind} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _plain(item: Any) -> Any:
    """A message without texts and metadata, its own and those of messages within it."""
    found = type(item)()
    found.CopyFrom(item)
    waiting = [found]
    while waiting:
        message = waiting.pop()
        for field, value in message.ListFields():
            if field.name in ("doc_string", "metadata_props"):
                message.ClearField(field.name)
            elif field.message_type is not None:
                waiting += value if field.is_repeated else [value]
    return found
