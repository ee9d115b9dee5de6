"""A document's text, written a tensor at a time: a line for every node and every row of values."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from converter.errors import FormatError, ParameterError
from converter.format.digest import ModelDigest
from converter.format.document import graph_from_document, graph_to_document, required_opset, spec_to_document
from converter.format.fields import name_of
from converter.format.limits import FORMAT, MAX_DEPTH, MAX_INTEGER_BITS, VERSION
from converter.format.reading import check_examples, check_parameters, listed
from converter.format.samples import recorded_members
from converter.format.tensors import byte_count, write_values
from converter.ir import Array, DType, Example, Graph, Model, TensorSpec
from converter.mapped import LARGE
from converter.parameters import ParameterStore, as_bytes
from converter.recorded import Sample

Pieces = Iterator[bytes]
HASHED_ASIDE = 1 << 22
"""Bytes from which on a parameter is hashed in a thread of its own while it is written."""
Progress = Callable[[str, int], None]
"""Called with a parameter's name and its bytes (0 for an alias) after each one."""


def check_model(model: Model) -> None:
    """Raises `GraphError`, `ParameterError` or `FormatError` for a model that could not be read back."""
    check_parameters(model.graph, {name: model.parameters.spec(name) for name in model.parameters.names()})
    check_examples(model.graph, model.examples)
    unknown = model.constants - set(model.parameters.names())
    if unknown:
        raise ParameterError("constants that are no parameters", received=listed(sorted(unknown)))


def _text(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError("a string holds half of a surrogate pair, which no UTF-8 text can hold",
                          received=ascii(error.object)[:80]) from None
    except (TypeError, ValueError) as error:
        raise FormatError(f"not a JSON value ({error})", received=repr(value)[:80]) from None


def graph_text(graph: Graph) -> bytes:
    """The graph's member: one node, input and output a line. Raises what reading it back would."""
    document = graph_to_document(graph)
    graph_from_document(document)
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value:
            items = b",\n      ".join(map(_text, value))
            lines.append(b"    " + _text(key) + b": [\n      " + items + b"\n    ]")
        else:
            lines.append(b"    " + _text(key) + b": " + _text(value))
    return b'  "graph": {\n' + b",\n".join(lines) + b"\n  }"


def metadata_text(metadata: Mapping[str, Any]) -> bytes:
    """The metadata's member. Raises `FormatError` for what is not JSON: NaN, other types, names that are no strings."""
    _check_json(metadata, "metadata", 0)
    lines = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False, indent=2, default=dict).split("\n")
    try:
        return b'  "metadata": ' + "\n  ".join(lines).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError("a string holds half of a surrogate pair", where="metadata",
                          received=ascii(error.object[error.start:error.end])) from None


def _check_json(value: Any, where: str, depth: int) -> None:
    if depth > MAX_DEPTH - 8:
        raise FormatError("lists and objects within each other, too deep", where=where[:200])
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise FormatError("a name that is no string", where=where[:200], received=repr(key)[:80])
            _check_json(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]", depth + 1)
    elif not isinstance(value, (str, int, float, type(None))) or (isinstance(value, float) and not math.isfinite(value)):
        raise FormatError("not a JSON value", where=where[:200], received=repr(value)[:80],
                          expected="text, finite numbers, true, false, null, lists and objects")
    elif isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise FormatError("an integer too long for a JSON number", where=where[:200], expected="fewer than 300 digits")


def document_pieces(graph: Graph, parameters: Iterable[tuple[str, Pieces]], examples: Pieces | None, metadata: Mapping[str, Any],
                    digest: Callable[[], Mapping[str, str]]) -> Pieces:
    """The text of a document, in pieces. `parameters` are names with their members; `digest` is asked for at the end."""
    graph_member = graph_text(graph)
    major, minor = VERSION
    yield (f'{{\n  "format": "{FORMAT}",\n  "version": "{major}.{minor}",\n  "opset": {required_opset(graph)},\n'
           ).encode()
    yield graph_member + b',\n  "parameters": {'
    separator = b"\n"
    for name, pieces in parameters:
        yield separator + b"    " + _text(name_of(name, f"parameters[{name[:80]!r}]")) + b": {"
        yield from pieces
        yield b"}"
        separator = b",\n"
    yield b"}" if separator == b"\n" else b"\n  }"
    if examples is not None:
        yield b',\n  "examples": '
        yield from examples
    if metadata:
        # Last, since it may name files whose digests are worked out while the parameters are written.
        yield b",\n" + metadata_text(metadata)
    digests = b",\n".join(b"    " + _text(kind) + b": " + _text(value) for kind, value in digest().items())
    yield b',\n  "digest": {\n' + digests + b"\n  }\n}\n"


class Values:
    """A parameter's values while it is written: at hand as `array`, or too large for that and read in pieces."""

    def __init__(self, store: ParameterStore, name: str) -> None:
        self._store, self._name, self.spec = store, name, store.spec(name)
        self._is_large = byte_count(self.spec) >= LARGE and store.file_range(name) is not None
        self._read = None if self._is_large else read_checked(store, name)

    @property
    def array(self) -> Array:
        return read_checked(self._store, self._name) if self._read is None else self._read

    def pieces(self) -> Iterator[memoryview]:
        """The little-endian bytes in C order; each piece is gone with the next."""
        return self._store.pieces(self._name) if self._read is None else iter([as_bytes(self._read)])

    def sha256(self) -> str:
        return self._store.sha256(self._name) if self._read is None else hashlib.sha256(as_bytes(self._read)).hexdigest()


def parameter_pieces(store: ParameterStore, constants: Collection[str], values: Callable[[str, Values], Pieces],
                     digest: ModelDigest, progress: Progress | None) -> Iterator[tuple[str, Pieces]]:
    """Every parameter's name and members, each read, hashed, and forgotten. `values` gives the members that hold them."""

    def members(name: str) -> Pieces:
        spec, alias = store.spec(name), store.alias_of(name)
        yield spec_text(spec) + (b', "constant": true' if name in constants else b"")
        if alias is not None:
            digest.add(name, spec, alias=alias)
            yield b', "alias": ' + string_text(alias)
        elif byte_count(spec) < HASHED_ASIDE:
            found = Values(store, name)
            digest.add(name, spec, found.sha256())
            yield from values(name, found)
        else:
            # One thread hashes while the other writes.
            found = Values(store, name)
            with ThreadPoolExecutor(1) as aside:
                hashed = aside.submit(found.sha256)
                yield from values(name, found)
                digest.add(name, spec, hashed.result())
        if progress is not None:
            progress(name, byte_count(spec) if alias is None else 0)

    for name in store.names():
        yield name, members(name)


def string_text(text: str) -> bytes:
    """A JSON string."""
    return _text(text)


def spec_text(spec: TensorSpec) -> bytes:
    """`"dtype": ..., "shape": [...]`."""
    return _text(spec_to_document(spec))[1:-1]


def tensor_pieces(array: Array, how: str, indent: str) -> Pieces:
    """The members of a tensor that holds its values, as `values` or `base64`."""
    yield spec_text(TensorSpec(DType.of(array.dtype), array.shape)) + b", "
    yield from write_values(array, how, indent)


def example_pieces(examples: Iterable[Example], how: str) -> Pieces:
    """The list of examples, one tensor a line."""
    opening = b"["
    for index, example in enumerate(examples):
        yield opening + b"\n    {"
        for kind, tensors in (("inputs", example.inputs), ("outputs", example.outputs)):
            yield b"" if kind == "inputs" else b",\n     "
            yield _text(kind) + b": {"
            separator = b"\n      "
            for name, array in tensors.items():
                if kind == "inputs" and name in example.draws:
                    continue
                array = array.values if isinstance(array, Sample) else array
                yield separator + _text(name_of(name, f"examples[{index}].{kind}")) + b": {"
                yield from tensor_pieces(np.asarray(array, DType.of(np.asarray(array).dtype).numpy), how, "        ")
                yield b"}"
                separator = b",\n      "
            yield b"}"
        for key, described in recorded_members(example).items():
            if described:
                yield b",\n     " + _text(key) + b": " + _text(described)
        yield b',\n     "made_by": ' + _text(str(example.made_by)) + b"}"
        opening = b","
    yield b"\n  ]" if opening == b"," else b"[]"


def read_checked(store: ParameterStore, name: str) -> Array:
    """A parameter in C order and little-endian. Raises `ParameterError` when it is not what its spec says."""
    array = store.read(name)
    spec = store.spec(name)
    if array.shape != spec.shape or DType.of(array.dtype) is not spec.dtype:
        raise ParameterError("a parameter is not of the dtype and shape that it is said to be", where=repr(name[:80]),
                             expected=str(spec), received=f"{array.dtype}{list(array.shape)}")
    return np.ascontiguousarray(array, dtype=spec.dtype.numpy).reshape(array.shape)
