"""A document's text as its parts: the graph, the table of parameters, examples, metadata, digests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.checking import check
from converter.errors import FormatError, ParameterError
from converter.format.digest import check_digest, graph_digest
from converter.format.document import check_aliases, graph_from_document
from converter.format.fields import describe, members, name_of, typed
from converter.format.limits import FORMAT, VERSION
from converter.format.samples import read_draws, read_samples
from converter.format.scan import Scanner
from converter.format.tensors import PARAMETER_FIELDS, TensorEntry, decode_entry, read_entry
from converter.ir import Example, Graph, TensorSpec
from converter.opset import OPSET
from converter.recorded import MAX_DRAWN

REQUIRED = ("format", "version", "opset", "graph")
OPTIONAL = ("parameters", "examples", "metadata", "digest")


@dataclass
class DocumentParts:
    """What a document holds. `entries` is None for a graph without a table of parameters."""

    graph: Graph
    entries: dict[str, TensorEntry] | None
    examples: tuple[Example, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    digest: dict[str, str] = field(default_factory=dict)

    @property
    def specs(self) -> dict[str, TensorSpec]:
        return {name: entry.spec for name, entry in (self.entries or {}).items()}

    @property
    def aliases(self) -> dict[str, str]:
        return {name: entry.target for name, entry in (self.entries or {}).items() if entry.source == "alias"}

    @property
    def constants(self) -> frozenset[str]:
        return frozenset(name for name, entry in (self.entries or {}).items() if entry.constant)


def read_document(data: Any, fields: tuple[str, ...] = PARAMETER_FIELDS) -> DocumentParts:
    """The parts of a document's UTF-8 text, checked against each other; parameters' values are found and not read.

    `fields` are the members that a parameter may have beside its dtype and shape.

    Raises:
        FormatError: the text is not a document of this version, or a part of it is malformed.
        GraphError: the graph breaks the format's rules.
        ParameterError: the graph uses parameters that are not there.
    """
    if bytes(data[:4]) == b"\x89HDF":
        raise FormatError("this is an HDF5 file, not JSON text", fix="give it the suffix .h5")
    if bytes(data[:3]) == b"\xef\xbb\xbf":
        raise FormatError("the text begins with a byte order mark", expected="UTF-8 without one", fix="remove its first 3 bytes")
    if bytes(data[:2]) in (b"\xff\xfe", b"\xfe\xff") or b"\0" in bytes(data[:4]):
        raise FormatError("the text is UTF-16 or UTF-32", expected="UTF-8", fix="save it as UTF-8")
    parts = _Reader(Scanner(data), fields).read()
    check_aliases(parts.specs, parts.aliases)
    if parts.entries is not None:
        check_parameters(parts.graph, parts.specs)
    check_examples(parts.graph, parts.examples)
    if "graph" in parts.digest:
        check_digest("graph", parts.digest["graph"], graph_digest(parts.graph))
    return parts


def check_parameters(graph: Graph, specs: Mapping[str, TensorSpec]) -> None:
    """Checks a graph against its parameters' specs. Parameters that nothing uses may stand there.

    Raises:
        ParameterError: the graph uses names that no input, parameter or earlier node gives; all are listed.
        GraphError: the graph breaks the format's rules.
    """
    given = {port.name for port in graph.inputs} | specs.keys()
    missing = [name for name in graph.uses if name not in given and name not in graph.makers]
    if missing:
        raise ParameterError("the graph uses parameters that are missing", where=f"graph {graph.name[:80]!r}",
                             expected=listed(missing), fix="add them, or correct the names in the graph")
    check(graph, specs)


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names for an error, the first `most` of them."""
    names = list(names)
    return ", ".join(repr(name[:80]) for name in names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_examples(graph: Graph, examples: Iterable[Example]) -> None:
    """Raises `FormatError` when an example's names are not those of the graph's inputs and outputs."""
    for index, example in enumerate(examples):
        for kind, given, ports in (("inputs", example.inputs, graph.inputs), ("outputs", example.outputs, graph.outputs)):
            names = [port.name for port in ports]
            if (kind == "inputs" and set(given) != set(names)) or not set(given) <= set(names):
                raise FormatError(f"the {kind} of an example are not the graph's", where=f"examples[{index}].{kind}",
                                  expected=listed(names) or "none", received=listed(given) or "none")


class _Reader:
    """Walks the text once, in the order in which its members stand."""

    def __init__(self, scanner: Scanner, fields: tuple[str, ...]) -> None:
        self.scanner, self.fields = scanner, fields
        self.found: dict[str, Any] = {}
        self.unknown: list[str] = []
        self.version = VERSION
        self.room = MAX_DRAWN

    def read(self) -> DocumentParts:
        scanner = self.scanner
        start = scanner.skip(0)
        if scanner.size == 0:
            raise FormatError("the file is empty", expected="a neutral model")
        end = scanner.skip(scanner.object(start, self._member, "document"))
        if end != scanner.size:
            raise scanner.error("something follows the document", end, expected="the end of the file")
        if "format" not in self.found:
            raise FormatError("not a neutral model", expected=f'the field "format": "{FORMAT}"')
        if self.unknown:
            newer = f", as version {self.version[0]}.{self.version[1]} may have" if self.version > VERSION else ""
            raise FormatError(f"unknown field {listed(self.unknown, 5)}{newer}", where="document",
                              expected=", ".join(REQUIRED + OPTIONAL), fix="remove it, or use a newer reader")
        for name in REQUIRED:
            if name not in self.found:
                raise FormatError(f"the field {name!r} is missing", where="document")
        return DocumentParts(graph_from_document(self.found["graph"]), self.found.get("parameters"),
                             tuple(self.found.get("examples", ())), self.found.get("metadata", {}), self.found.get("digest", {}))

    def _member(self, key: str, pos: int) -> int:
        if key == "parameters":
            entries: dict[str, TensorEntry] = {}
            self.found[key] = entries
            return self._tensors(pos, key, self.fields, entries)
        if key == "examples":
            examples: list[Example] = []
            self.found[key] = examples
            return self.scanner.array(pos, lambda index, start: self._example(f"examples[{index}]", start, examples))
        if key not in REQUIRED and key not in OPTIONAL:
            self.unknown.append(key)
            return self.scanner.end_of(pos, key[:80])
        value, end = self.scanner.parse(pos, key)
        self.found[key] = value
        check_value = getattr(self, f"_{key}", None)
        if check_value is not None:
            check_value(value)
        return end

    def _format(self, value: Any) -> None:
        if value != FORMAT:
            draft = "fill the draft in, and give it beside its checkpoint: --architecture" if value == f"{FORMAT}-draft" else None
            raise FormatError("not a neutral model", where="format", expected=repr(FORMAT), received=describe(value), fix=draft)

    def _version(self, value: Any) -> None:
        major, dot, minor = typed(value, str, "version").partition(".")
        digits = all(part.isascii() and part.isdigit() and len(part) < 6 for part in (major, minor))
        if not digits or not dot:
            raise FormatError("not a version", where="version", expected='"major.minor"', received=describe(value))
        self.version = (int(major), int(minor))
        if self.version[0] != VERSION[0]:
            age = "newer" if self.version[0] > VERSION[0] else "older"
            raise FormatError(f"the file is of {age} major version, {value}", where="version", expected=f"version {VERSION[0]}.x",
                              fix="use a newer model-converter" if age == "newer" else "convert it with an older model-converter")

    def _opset(self, value: Any) -> None:
        if not 1 <= typed(value, int, "opset") <= OPSET:
            raise FormatError("an operator set that this version does not know", where="opset", expected=f"1 to {OPSET}",
                              received=describe(value), fix="use a newer model-converter")

    def _metadata(self, value: Any) -> None:
        typed(value, dict, "metadata")

    def _digest(self, value: Any) -> None:
        for name, digest in members(value, "digest", (), ("graph", "model", "document")).items():
            hexadecimal = typed(digest, str, f"digest.{name}").removeprefix("sha256:")
            if not digest.startswith("sha256:") or len(hexadecimal) != 64 or set(hexadecimal) - set("0123456789abcdef"):
                raise FormatError("not a digest", where=f"digest.{name}", expected='"sha256:" and 64 hexadecimal digits',
                                  received=describe(digest))

    def _tensors(self, pos: int, where: str, fields: tuple[str, ...], entries: dict[str, TensorEntry]) -> int:
        def member(name: str, start: int) -> int:
            place = f"{where}[{name[:80]!r}]"
            entries[name_of(name, place)], end = read_entry(self.scanner, start, place, fields)
            return end

        return self.scanner.object(pos, member, where)

    def _example(self, where: str, pos: int, examples: list[Example]) -> int:
        found: dict[str, Any] = {}

        def member(key: str, start: int) -> int:
            if key not in ("inputs", "outputs"):
                found[key], end = self.scanner.parse(start, f"{where}.{key[:80]}")
                return end
            entries: dict[str, TensorEntry] = {}
            end = self._tensors(start, f"{where}.{key}", ("values", "base64"), entries)
            found[key] = {name: self._decoded(entry, f"{where}.{key}[{name[:80]!r}]") for name, entry in entries.items()}
            return end

        end = self.scanner.object(pos, member, where)
        members(found, where, ("inputs", "outputs", "made_by"), ("samples", "drawn"))
        typed(found["made_by"], str, f"{where}.made_by")
        outputs = found["outputs"] | read_samples(found.get("samples", {}), found["outputs"], f"{where}.samples")
        draws, drawn = read_draws(found.get("drawn", {}), found["inputs"], self.room, f"{where}.drawn")
        self.room -= sum(array.size for array in drawn.values())
        examples.append(Example(found["inputs"] | drawn, outputs, found["made_by"], draws))
        return end

    def _decoded(self, entry: TensorEntry, where: str) -> np.ndarray[Any, Any]:
        if entry.source is None:
            raise FormatError("the values are missing", where=where, expected='"values" or "base64"')
        array = decode_entry(self.scanner.data, entry, where)
        array.flags.writeable = False
        return array
