"""ONNX files opened without the values of their large initializers, which stay where they lie in the file until somebody reads them.

A protobuf message is read as a whole: its weights would be held once as the file's bytes and once in the message, and again by whatever
copies that. So those of 64 kB and more are cut out of the bytes before they become a message, and the initializer says instead where in
the file they lie, as one does whose values lie beside the file.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import google.protobuf.message
import onnx

from converter.errors import FormatError
from converter.mapped import MappedFile

OWN = uuid.uuid4().hex
"""The `location` of values that lie in the ONNX file itself: no file can say it."""
LARGE = 1 << 16
WINDOW = 1 << 16
MOST_FIELDS = 64
"""Fields of an initializer whose values are one of them; one whose values are a field each is left as it is."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
GRAPH, INITIALIZER, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 7, 5, 9, 13, 14


def open_proto(path: Path) -> tuple[onnx.ModelProto, MappedFile]:
    """What a file holds without the values beside it, and without those that are `OWN`, which lie in the file that is given too.

    Raises `FormatError` for one that is no ONNX file.
    """
    file = MappedFile(path)
    try:
        try:
            data = _without_values(file)
        except ValueError:
            data = _bytes(file, 0, file.size)  # the message's own parser says what is wrong with it
        return onnx.ModelProto.FromString(data), file
    except (google.protobuf.message.DecodeError, ValueError, UnicodeDecodeError) as error:
        raise FormatError("not an ONNX file, or a damaged one", received=str(error)[:120]) from error


def put_back(tensor: onnx.TensorProto, file: MappedFile) -> None:
    """Makes an initializer what it is in the file."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    if place.get("location") == OWN:
        tensor.raw_data = _bytes(file, int(place["offset"]), int(place["offset"]) + int(place["length"]))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its number, how it is written, where it begins, where what it holds does, and where it ends."""

    number: int
    kind: int
    begin: int
    start: int
    end: int


class _Window:
    """Bytes of a file at places that mostly follow each other."""

    def __init__(self, file: MappedFile) -> None:
        self.file, self.start, self.held = file, 0, b""

    def at(self, place: int, count: int) -> bytes:
        if not self.start <= place <= place + count <= self.start + len(self.held):
            self.start, self.held = place, _bytes(self.file, place, min(place + max(count, WINDOW), self.file.size))
        return self.held[place - self.start:place - self.start + count]

    def fields(self, at: int, stop: int) -> Iterator[Field]:
        """The fields of the message that lies there. Raises `ValueError` for what is none."""
        while at < stop:
            begin = at
            tag, at = self._varint(at, stop)
            kind = tag & 7
            if kind == VARINT:
                end = self._varint(at, stop)[1]
            elif kind == BYTES:
                length, at = self._varint(at, stop)
                end = at + length
            elif kind in (FIXED64, FIXED32):
                end = at + (8 if kind == FIXED64 else 4)
            else:
                raise ValueError("a field that no ONNX file has")
            if end > stop:
                raise ValueError("a field that reaches past its message")
            yield Field(tag >> 3, kind, begin, at, end)
            at = end

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        value = 0
        for place, byte in enumerate(self.at(at, min(10, stop - at))):
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value, at + place + 1
        raise ValueError("a number that does not end")


def _without_values(file: MappedFile) -> bytes:
    window = _Window(file)
    graphs = [field for field in window.fields(0, file.size) if field.number == GRAPH]
    if len(graphs) != 1 or graphs[0].kind != BYTES:
        raise ValueError("no graph, or several that are one")
    (graph,) = graphs
    pieces, kept = list[bytes](), graph.start
    for tensor in window.fields(graph.start, graph.end):
        if tensor.number != INITIALIZER or tensor.kind != BYTES or tensor.end - tensor.start < LARGE:
            continue
        fields = list(islice(window.fields(tensor.start, tensor.end), MOST_FIELDS + 1))
        values = [field for field in fields if field.number == RAW_DATA]
        if (len(fields) > MOST_FIELDS or len(values) != 1 or values[0].kind != BYTES or values[0].end - values[0].start < LARGE
                or any(field.number in (EXTERNAL_DATA, DATA_LOCATION) for field in fields)):
            continue
        place = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
        for key, value in (("location", OWN), ("offset", values[0].start), ("length", values[0].end - values[0].start)):
            place.external_data.add(key=key, value=str(value))
        rest = _bytes(file, tensor.start, values[0].begin) + _bytes(file, values[0].end, tensor.end) + place.SerializeToString()
        pieces += _bytes(file, kept, tensor.begin), _head(INITIALIZER, len(rest)), rest
        kept = tensor.end
    pieces.append(_bytes(file, kept, graph.end))
    length = sum(map(len, pieces))
    return b"".join((_bytes(file, 0, graph.begin), _head(GRAPH, length), *pieces, _bytes(file, graph.end, file.size)))


def _head(number: int, length: int) -> bytes:
    """What stands before the bytes of a field."""
    found = bytearray([number << 3 | BYTES])
    while length > 127:
        found.append(length & 127 | 128)
        length >>= 7
    return bytes([*found, length])


def _bytes(file: MappedFile, start: int, stop: int) -> bytes:
    return file.read(start, stop - start).tobytes()
