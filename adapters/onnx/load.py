"""ONNX files in: those that were written here, which carry the model that they came from, and, by `adapters.onnx.reading`, others."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from adapters.onnx.lowering.context import ONNX_DTYPES
from adapters.onnx.lowering.layouts import Layout
from adapters.onnx.opening import OWN, open_proto, put_back
from adapters.onnx.origin import COPY, DIGEST, DOCUMENT, LAYOUTS, NODES, fingerprint, notes_of
from converter.dims import fixed
from converter.errors import ConverterError, FormatError, ParameterError
from converter.format.json_encoding import verify_digest
from converter.format.reading import read_document
from converter.format.tensors import beside, byte_count
from converter.ir import Array, DType, Model, TensorSpec
from converter.mapped import FileRange, MappedFile, usable_range
from converter.parameters import ParameterStore
from converter.ports import Incoming

MAX_STEPS = 16
"""Steps of a layout; those that are written have three at most."""
FROM_ONNX: dict[int, DType] = {**{number: dtype for dtype, number in ONNX_DTYPES.items()},
                               **{getattr(onnx.TensorProto, name): dtype for dtype in DType
                                  for name in [dtype.value.upper().replace("_", "").replace("E8M0FNU", "E8M0").replace("E2M1FN", "E2M1")]
                                  if ("FLOAT8" in name or dtype.bits < 8) and hasattr(onnx.TensorProto, name)}}


def read_onnx(path: str | Path, *, verify: bool | None = None, values: Collection[str] = ()) -> Incoming:
    """What `load_onnx` gives, with what a person should know of a file of another origin."""
    path = Path(path)
    try:
        return _load(path, verify, values)
    except ConverterError as error:
        raise error.within(str(path)) from error


def load_onnx(path: str | Path, *, verify: bool | None = None, values: Collection[str] = ()) -> Model:
    """The model in an ONNX file: of one that was written here the same graph, parameters, aliases and digest; of another what it computes.

    Args:
        path: the file.
        verify: whether to read every parameter now and compare the model with its digest. None: where the file has one;
            True: the file must have one; False: no.
        values: of a file of another origin, what its nodes make of this stays a value of that name.

    Raises:
        UnsupportedError: a file of another origin with operators, dtypes or kinds of values that cannot be read; all are listed.
        FormatError: not an ONNX file, a damaged one, or one that was edited after it was written.
    """
    return read_onnx(path, verify=verify, values=values).model


def _load(path: Path, verify: bool | None, values: Collection[str]) -> Incoming:
    proto, file = open_proto(path)
    if not proto.HasField("graph") or not proto.ir_version:
        raise FormatError("not an ONNX file, or a damaged one: it holds no graph or no IR version")
    origin = find_origin(proto, file)
    if origin is None:
        from adapters.onnx.reading.model import read_foreign

        model = read_foreign(proto, path, file, values)
        return Incoming(model, tuple(model.metadata["source"].get("notes", ())))
    parts, layouts, tensors = origin
    store = OnnxParameters(parts.specs, parts.aliases, layouts, tensors, path, file)
    model = Model(parts.graph, store, parts.examples, parts.metadata, parts.constants)
    verify_digest(model, parts, verify)
    return Incoming(model)


Origin = tuple[Any, Mapping[str, tuple[tuple[str, ...], Layout]], dict[str, onnx.TensorProto]]


def is_foreign(path: str | Path) -> bool:
    """Whether a file was not written here. Raises `FormatError` for one that is no ONNX file, or was edited since it was written here."""
    return find_origin(*open_proto(Path(path))) is None


def find_origin(proto: onnx.ModelProto, file: MappedFile) -> Origin | None:
    """The model that a file written here came from: its document, layouts and initializers. None for a file of another origin.

    `file` is what the message was read from. One whose metadata somebody stripped is of another origin where the graph was changed too.

    Raises:
        FormatError: what the file says of its origin is damaged, or its graph was edited since.
    """
    notes = {text_of(entry.key): text_of(entry.value) for entry in proto.metadata_props}
    stripped = DOCUMENT not in notes
    if stripped and notes.keys() & {LAYOUTS, DIGEST, NODES}:
        raise FormatError("an ONNX file that was written here has lost the model that it came from", expected=f"the metadata {DOCUMENT!r}",
                          fix="get the file again; if the change is meant, remove the other metadata of neutral-model too")
    notes = dict(notes_of(proto, notes))
    if DOCUMENT not in notes:
        return None
    parts = read_document(notes[DOCUMENT].encode("utf-8"), ("constant", "alias"))
    layouts = _layouts(notes.get(LAYOUTS, "{}"), parts.specs)
    unread = (item for training in proto.training_info if training.initialization.name != COPY
              for item in training.initialization.initializer)
    tensors = unique_tensors((*unread, *proto.graph.initializer))
    stored = frozenset(name for name in parts.specs if name in tensors) | layouts.keys()
    for tensor in proto.graph.initializer:
        if tensor.name not in stored:
            put_back(tensor, file)  # the fingerprint counts what it holds
    if any(fingerprint(proto.graph, stored, plain=plain) == notes.get(NODES) for plain in (False, True)):
        return parts, layouts, tensors
    if stripped:
        return None
    raise FormatError("the ONNX graph is not the one that was written with this model", fix="convert the model again",
                      expected="a file that nothing has edited since")


def text_of(value: str | bytes) -> str:
    """A string field; protobuf gives bytes where one is not UTF-8."""
    if isinstance(value, bytes):
        raise FormatError("a damaged ONNX file: a text is not UTF-8", received=repr(value[:40]))
    return value


def unique_tensors(tensors: Iterable[onnx.TensorProto]) -> dict[str, onnx.TensorProto]:
    """Initializers by name. Raises `FormatError` for a name that is there twice: readers differ in which one they take."""
    found: dict[str, onnx.TensorProto] = {}
    for tensor in tensors:
        name = text_of(tensor.name)
        if name in found:
            raise FormatError("an initializer is there twice", where=f"initializer {name[:80]!r}", fix="convert the model again")
        found[name] = tensor
    return found


def _json(text: str, kind: type, where: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError("not JSON", where=where, received=str(error)) from error
    if not isinstance(value, kind):
        raise FormatError("wrong type", where=where, expected=kind.__name__, received=type(value).__name__)
    return value


def _layouts(text: str, specs: Mapping[str, TensorSpec]) -> dict[str, tuple[tuple[str, ...], Layout]]:
    """Initializers by name, with the parameters they are made of and how."""
    result = {}
    for name, item in _json(text, dict, LAYOUTS).items():
        sources, steps = (item.get("sources"), item.get("layout")) if isinstance(item, dict) else (None, None)
        if (not isinstance(sources, list) or not isinstance(steps, list)
                or not all(isinstance(source, str) and source in specs for source in sources)
                or len(steps) > MAX_STEPS
                or not all(isinstance(step, list) and step and isinstance(step[0], str) for step in steps)):
            raise FormatError("not a layout", where=f"{LAYOUTS} {name!r}", received=str(item)[:120])
        result[name] = (tuple(sources), Layout(tuple(tuple(step) for step in steps)))
    return result


class OnnxParameters(ParameterStore):
    """The parameters of a model in the initializers of its ONNX file, put back into their own layout as they are read."""

    def __init__(self, specs: Mapping[str, TensorSpec], aliases: Mapping[str, str],
                 layouts: Mapping[str, tuple[tuple[str, ...], Layout]], tensors: Mapping[str, onnx.TensorProto], path: Path,
                 file: MappedFile) -> None:
        self._specs, self._aliases, self._tensors, self._path = dict(specs), dict(aliases), dict(tensors), path
        self._layouts, self._beside = dict(layouts), ExternalFiles(path, file)
        self._place = {source: name for name, (sources, _) in layouts.items() for source in sources}
        missing = [name for name in specs if self._place.get(name, aliases.get(name, name)) not in tensors]
        if missing:
            raise ParameterError("the ONNX file lacks parameters of its model", received=", ".join(missing[:10]))
        for name in specs:
            if name not in self._place and name not in aliases:
                self._check(name, specs[name])

    def _check(self, name: str, spec: TensorSpec) -> None:
        tensor = self._tensors[name]
        if FROM_ONNX.get(tensor.data_type) is not spec.dtype or tuple(tensor.dims) != spec.shape:
            raise ParameterError("an initializer is not what the model says", where=name, expected=str(spec),
                                 received=f"{FROM_ONNX.get(tensor.data_type, tensor.data_type)}{list(tensor.dims)}")

    def names(self) -> tuple[str, ...]:
        return tuple(self._specs)

    def alias_of(self, name: str) -> str | None:
        return self._aliases.get(name)

    def spec(self, name: str) -> TensorSpec:
        if name not in self._specs:
            raise self.unknown(name)
        return self._specs[name]

    def read(self, name: str) -> Array:
        spec = self.spec(name)
        try:
            return self._read(self._aliases.get(name, name), spec)
        except ConverterError as error:
            raise error.within(str(self._path)) from error

    def file_range(self, name: str) -> FileRange | None:
        spec, name = self.spec(name), self._aliases.get(name, name)
        tensor = self._tensors.get(name)
        if name in self._place or tensor is None or tensor.data_location != onnx.TensorProto.EXTERNAL:
            return None
        found = self._beside.find(tensor)
        return usable_range(found.file, found.offset, spec) if found.size == byte_count(spec) else None

    def _read(self, name: str, spec: TensorSpec) -> Array:
        if name not in self._place:
            values = self._values(name)
        else:
            initializer = self._place[name]
            sources, layout = self._layouts[initializer]
            self._check_amount(initializer, sources)
            try:
                parts = layout.invert(self._values(initializer), [self._shape(source) for source in sources])
                values = parts[sources.index(name)]
            except (ValueError, TypeError, IndexError, OverflowError) as error:
                raise FormatError("an initializer does not fit its layout", where=initializer, received=str(error)[:120]) from error
        if values.shape != spec.shape or values.dtype != spec.dtype.numpy:
            raise FormatError("an initializer does not fit its layout", where=name, expected=str(spec), received=str(values.shape))
        values = np.ascontiguousarray(values).reshape(values.shape)
        values.flags.writeable = False
        return values

    def _check_amount(self, initializer: str, sources: tuple[str, ...]) -> None:
        """Steps move elements: raises `FormatError` where an initializer has not as many bytes as what it is made of."""
        tensor = self._tensors[initializer]
        dtype = FROM_ONNX.get(tensor.data_type)
        held = 0 if dtype is None else dtype.itemsize * math.prod(tensor.dims)
        made = sum(self._specs[source].dtype.itemsize * math.prod(self._shape(source)) for source in sources)
        if held != made:
            raise FormatError("an initializer does not fit its layout", where=initializer, expected=f"{made} bytes", received=f"{held}")

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(fixed(size) for size in self._specs[name].shape)

    def _values(self, name: str) -> Array:
        tensor = self._tensors[name]
        dtype = FROM_ONNX.get(tensor.data_type)
        if dtype is None:
            raise FormatError("a dtype that cannot be read", where=name, received=str(tensor.data_type))
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        data = self._beside.find(tensor).read() if external else np.frombuffer(tensor.raw_data, np.uint8)
        nbytes = dtype.itemsize * math.prod(tensor.dims)
        if data.size != nbytes:
            raise FormatError("an initializer's values do not fit its shape", where=name, expected=f"{nbytes} bytes",
                              received=f"{data.size}")
        return data.view(dtype.numpy).reshape(tuple(tensor.dims))


class ExternalFiles:
    """The files beside an ONNX file that hold values of its initializers, each as it was when it was first read, and the file itself."""

    def __init__(self, path: Path, file: MappedFile) -> None:
        self._path = path
        self._files = {OWN: file}

    def find(self, tensor: onnx.TensorProto) -> FileRange:
        """Where an initializer's values are. Raises `FormatError` for a place outside of the folder or of the file."""
        place = {text_of(entry.key): text_of(entry.value) for entry in tensor.external_data}
        location = place.get("location", "")
        try:
            offset, length = int(place.get("offset", "0")), int(place["length"]) if "length" in place else None
            file = self._files.get(location)
            if file is None:
                path = beside(self._path.parent, location, f"initializer {text_of(tensor.name)[:80]!r}")
                file = self._files.setdefault(location, MappedFile(path))
        except (ValueError, OSError) as error:
            raise FormatError("the values beside the file cannot be read", where=tensor.name, received=str(error)[:160],
                              fix="keep the file of values beside the .onnx file") from error
        length = file.size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > file.size:
            raise FormatError("the file of values is too short", where=f"{file.file.path}, {tensor.name}",
                              expected=f"{offset + length} bytes", received=str(file.size))
        return FileRange(file, offset, length)
