"""The JSON encoding: a model as text that streams out a tensor at a time, and in as each tensor is asked for."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from converter.errors import ConverterError, FormatError
from converter.format.aside import WriterAside
from converter.format.atomic import STDOUT, atomic_pair, atomic_path, open_descriptor, written_files
from converter.format.digest import ModelDigest, check_digest, graph_digest, hash_model
from converter.format.document import check_aliases
from converter.format.reading import DocumentParts, check_parameters, listed, read_document
from converter.format.tensors import TensorEntry, beside, decode_entry, integers, write_base64, write_values
from converter.format.writing import (
    Pieces,
    Progress,
    Values,
    check_model,
    document_pieces,
    example_pieces,
    parameter_pieces,
    read_checked,
    spec_text,
    string_text,
)
from converter.ir import Array, Graph, Model, TensorSpec
from converter.mapped import file_text
from converter.parameters import ParameterStore

ENCODINGS = ("auto", "values", "base64", "file")
READABLE = 200_000
"""The number of parameter elements up to which `auto` writes digits."""

Readable = str | os.PathLike[str] | BinaryIO
Writable = Readable


def save_json(model: Model, target: Writable, *, encoding: str = "auto", progress: Progress | None = None) -> tuple[Path, ...]:
    """Writes a model as JSON and returns the files.

    Parameters are read, written and forgotten one at a time. A path is written atomically.

    Args:
        model: the model.
        target: a path, `"-"` for standard output, or a binary file object.
        encoding: `"values"` (nested lists of digits), `"base64"`, `"file"` (an HDF5 file `<name>.<16 digits>.weights.h5`
            beside the text), or `"auto"`: digits up to 200,000 elements, base64 beyond.
        progress: called with a parameter's name and its bytes after each one.

    Raises:
        GraphError, ParameterError, FormatError: the model breaks the format's rules; nothing is written.
        ConverterError: the file cannot be written.
    """
    if encoding not in ENCODINGS:
        raise ConverterError("no such encoding", expected=", ".join(ENCODINGS), received=repr(encoding))
    check_model(model)
    size = sum(math.prod(integers(model.parameters.spec(name))) for name in model.parameters)
    readable = encoding == "values" or (encoding == "auto" and size <= READABLE)
    examples = example_pieces(model.examples, "values" if readable else "base64") if model.examples else None
    digest = ModelDigest(model.graph)

    def text(parameters: Iterable[tuple[str, Pieces]]) -> Pieces:
        return document_pieces(model.graph, parameters, examples, model.metadata,
                               lambda: digest.members(model.constants, model.examples, model.metadata))

    def inside(name: str, values: Values) -> Pieces:
        yield b", "
        yield from write_values(values.array, "values", "      ") if readable else write_base64(values.pieces())

    if encoding == "file":
        return _save_beside(model, target, digest, progress, text)
    with _open_target(target) as out, WriterAside(out) as aside:
        aside.writelines(text(parameter_pieces(model.parameters, model.constants, inside, digest, progress)))
    return written_files(target)


def _save_beside(model: Model, target: Writable, digest: ModelDigest, progress: Progress | None,
                 text: Callable[[Iterable[tuple[str, Pieces]]], Pieces]) -> tuple[Path, ...]:
    from converter.format.hdf5_values import ValueWriter

    if not isinstance(target, (str, os.PathLike)) or os.fspath(target) == STDOUT:
        raise ConverterError("values in another file need a path to lie beside", expected="a path", fix="choose base64")
    written: set[str] = set()
    with atomic_pair(target, "weights.h5") as pair:
        with ValueWriter(pair.values) as writer:
            def elsewhere(name: str, values: Values) -> Pieces:
                writer.write(name, values.spec, values.pieces())
                written.add(name)
                yield from ()

            pieces = parameter_pieces(model.parameters, model.constants, elsewhere, digest, progress)
            members = [(name, b"".join(member)) for name, member in pieces]
        # The digest of the model covers every value, and nothing else is in that file.
        reference = b', "file": ' + string_text(pair.name_values(digest.value().partition(":")[2]))
        with pair.document.open("wb", buffering=1 << 20) as out:
            out.writelines(text((name, iter([member, reference if name in written else b""])) for name, member in members))
    return written_files(target, pair.place)


def save_graph(graph: Graph, specs: Mapping[str, TensorSpec], target: Writable, *, aliases: Mapping[str, str] | None = None,
               metadata: Mapping[str, Any] | None = None, constants: ParameterStore | None = None) -> tuple[Path, ...]:
    """Writes a graph with its parameters' dtypes and shapes, and without their values. Returns the files.

    `constants` are parameters that no checkpoint holds; their values are written.

    Raises:
        GraphError, ParameterError, FormatError: the graph breaks the format's rules; nothing is written.
        ConverterError: the file cannot be written.
    """
    aliases = dict(aliases or {})
    check_aliases(specs, aliases)
    check_parameters(graph, specs)
    digest = graph_digest(graph)
    marked = [] if constants is None else [name for name in specs if name in constants]

    def digests() -> dict[str, str]:
        return {"graph": digest, "document": _hash_declared(graph, specs, aliases, constants).document(marked, (), metadata or {})}

    def members(name: str, spec: TensorSpec) -> Pieces:
        constant = constants is not None and name in constants
        yield spec_text(spec) + (b', "constant": true' if constant else b"")
        if name in aliases:
            yield b', "alias": ' + string_text(aliases[name])
        elif constants is not None and constant:
            array = read_checked(constants, name)
            yield b", "
            yield from write_values(array, "values" if array.size <= READABLE else "base64", "      ")

    parameters = ((name, members(name, spec)) for name, spec in specs.items())
    with _open_target(target) as out:
        out.writelines(document_pieces(graph, parameters, None, metadata or {}, digests))
    return written_files(target)


def _hash_declared(graph: Graph, specs: Mapping[str, TensorSpec], aliases: Mapping[str, str],
                   constants: ParameterStore | None) -> ModelDigest:
    """The digests of a graph without values: of its parameters those of `constants` have some."""
    digest = ModelDigest(graph)
    for name, spec in specs.items():
        alias = aliases.get(name)
        held = None if alias is not None or constants is None or name not in constants else constants.sha256(name)
        digest.add(name, spec, held, alias)
    return digest


@contextlib.contextmanager
def _open_target(target: Writable) -> Iterator[BinaryIO]:
    if not isinstance(target, (str, os.PathLike)):
        yield target
        return
    with atomic_path(target) as temporary, temporary.open("wb", buffering=1 << 20) as out:
        yield out


# Reading -----------------------------------------------------------------------------------------------------------


class JsonParameters(ParameterStore):
    """Parameters in a JSON text: each is decoded when it is read, a piece at a time."""

    def __init__(self, data: Any, entries: Mapping[str, TensorEntry], label: str, directory: Path | None) -> None:
        self._data, self._entries, self._label = data, dict(entries), label
        self._files: dict[str, ParameterStore] = {}
        by_file: dict[str, dict[str, TensorSpec]] = {}
        for name, entry in self._entries.items():
            if entry.source == "file":
                by_file.setdefault(entry.target, {})[name] = entry.spec
        for target, specs in by_file.items():
            from converter.format.hdf5_values import HDF5Values

            path = beside(directory, target, f"parameters[{next(iter(specs))[:80]!r}].file")
            self._files[target] = HDF5Values(path, specs, {}, only=False)

    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def _entry(self, name: str) -> TensorEntry:
        if name not in self._entries:
            raise self.unknown(name)
        return self._entries[name]

    def spec(self, name: str) -> TensorSpec:
        return self._entry(name).spec

    def alias_of(self, name: str) -> str | None:
        entry = self._entry(name)
        return entry.target if entry.source == "alias" else None

    def sha256(self, name: str) -> str:
        return super().sha256(self.alias_of(name) or name)

    def read(self, name: str) -> Array:
        name = self.alias_of(name) or name
        entry = self._entry(name)
        if entry.source == "file":
            return self._files[entry.target].read(name)
        try:
            array = decode_entry(self._data, entry, f"parameters[{name[:80]!r}]")
        except ConverterError as error:
            raise error.within(self._label) from None
        array.flags.writeable = False
        return array


def load_json(source: Readable, *, verify: bool | None = None) -> Model:
    """The model in a JSON file. Parameters stay in the file until they are read; one that was changed by then is an error.

    Args:
        source: a path, `"-"` for standard input, or a binary file object.
        verify: whether to read every parameter now and compare the model with its digest. None: where the file has one;
            True: the file must have one; False: no. The graph's digest is always compared
            where the file has it.

    Raises:
        FormatError: the file is not a neutral model, or is malformed.
        DigestError: it does not hold what its digest names.
        GraphError, ParameterError: its graph or parameters break the format's rules.
    """
    parts, data, label, directory = _read(source)
    without = [name for name, entry in (parts.entries or {}).items() if entry.source is None]
    try:
        if without:
            raise FormatError("the parameters' values are missing: this is a graph without values", expected="a whole model",
                              received=f"no values for {listed(without, 5)}",
                              fix="bind a checkpoint to it: convert torch-to-json CHECKPOINT --architecture this-file")
        if parts.entries is None:
            try:
                check_parameters(parts.graph, {})
            except ConverterError as error:
                raise FormatError("the parameters' values are missing: this is a graph without parameters",
                                  expected='the field "parameters"', received=str(error)) from None
        model = Model(parts.graph, JsonParameters(data, parts.entries or {}, label, directory), parts.examples,
                      parts.metadata, parts.constants)
        verify_digest(model, parts, verify)
    except ConverterError as error:
        raise (error if (error.where or "").startswith(label) else error.within(label)) from None
    return model


def verify_digest(model: Model, parts: DocumentParts, verify: bool | None) -> None:
    """Raises `DigestError` when a model is not the one that its document's digest names; see `load_json` for `verify`."""
    if verify is True and "model" not in parts.digest:
        raise FormatError("the file holds no digest of the model to verify", expected='"digest": {"model": "sha256:..."}')
    if verify is False or not parts.digest.keys() & {"model", "document"}:
        return
    found = hash_model(model)
    if "model" in parts.digest:
        check_digest("model", parts.digest["model"], found.value())
    check_document(parts, found)


def check_document(parts: DocumentParts, found: ModelDigest) -> None:
    """Raises `DigestError` when a document does not say what its digest of the document names."""
    if "document" in parts.digest:
        check_digest("document (examples, metadata, lines of code, or the table of parameters)", parts.digest["document"],
                     found.document(parts.constants, parts.examples, parts.metadata))


@dataclass(frozen=True)
class Architecture:
    """A graph with what it says of its parameters. `constants` holds those that no checkpoint does."""

    graph: Graph
    specs: dict[str, TensorSpec]
    aliases: dict[str, str]
    metadata: dict[str, Any]
    constants: ParameterStore


def load_architecture(source: Readable) -> Architecture:
    """The graph of a file, with or without values. Raises what `load_json` does, but for missing values.

    Raises:
        FormatError: beside the above, a constant without its values.
    """
    parts, data, label, directory = _read(source)
    constant = {name: entry for name, entry in (parts.entries or {}).items() if entry.constant}
    # An alias of a constant is left to the table of aliases.
    constant = {name: entry for name, entry in constant.items() if entry.source != "alias"}
    without = [name for name, entry in constant.items() if entry.source is None]
    if without:
        raise FormatError("constants without values", where=label, received=listed(without, 5))
    held = JsonParameters(data, constant, label, directory)
    if "model" not in parts.digest:
        # A whole model's digests cover values, which nobody asks for here.
        try:
            check_document(parts, _hash_declared(parts.graph, parts.specs, parts.aliases, held))
        except ConverterError as error:
            raise error.within(label) from None
    return Architecture(parts.graph, parts.specs, parts.aliases, parts.metadata, held)


def load_graph(source: Readable) -> tuple[Graph, dict[str, TensorSpec], dict[str, str], dict[str, Any]]:
    """The graph of a file, with or without values: (graph, parameters' specs, aliases, metadata).

    Raises what `load_architecture` does, which gives the constants too.
    """
    found = load_architecture(source)
    return found.graph, found.specs, found.aliases, found.metadata


def _read(source: Readable) -> tuple[DocumentParts, Any, str, Path | None]:
    scanned, data, label, directory = _opened(source)
    try:
        return read_document(scanned), data, label, directory
    except ConverterError as error:
        raise error.within(label) from None
    except RecursionError as error:
        raise FormatError("lists and objects within each other, too deep", where=label) from error


def _opened(source: Readable) -> tuple[Any, Any, str, Path | None]:
    """The text of a source, to scan and to read values from, with a name for errors and the directory that it lies in."""
    if isinstance(source, (str, os.PathLike)) and os.fspath(source) != STDOUT:
        path = Path(source)
        try:
            if path.is_fifo() and open_descriptor(path) is None:
                raise FormatError("a named pipe, which may have no writer", where=str(path), fix="read it from standard input: - < PIPE")
            with path.open("rb") as file:
                if path.is_file():
                    return *file_text(path), str(path), path.parent
                return *_spooled(file), str(path), None
        except (OSError, ValueError) as error:
            raise FormatError(f"cannot read ({getattr(error, 'strerror', None) or error})", where=str(path)) from error
    if isinstance(source, (str, os.PathLike)) and sys.stdin is None:
        raise FormatError("standard input is closed", fix="name a file")
    stream: BinaryIO = sys.stdin.buffer if isinstance(source, (str, os.PathLike)) else source
    return *_spooled(stream), "the input" if isinstance(source, (str, os.PathLike)) else "the file", None


def _spooled(stream: BinaryIO) -> tuple[Any, Any]:
    with tempfile.NamedTemporaryFile() as file:
        shutil.copyfileobj(stream, file, 1 << 20)
        file.flush()
        return file_text(Path(file.name))
