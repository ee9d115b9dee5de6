"""ONNX files to disk, a parameter at a time, so that writing needs the memory of one tensor.

A protobuf message is the concatenation of its fields, and a field of submessage type is a tag, a length and the
submessage. So the graph's initializers are written by hand, their values straight from the parameter store, and
everything else by the protobuf library. What protobuf cannot hold (2 GB) goes to a file beside it, as external data.

Initializers that no node reads (`Lowering.unread`) stand in the model's `training_info`, which no runtime for inference looks at: in the
graph each would be warned of whenever ONNX Runtime opens the file.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from typing import BinaryIO

import numpy as np
import onnx

from adapters.onnx.lowering.context import Lowering
from adapters.onnx.lowering.layouts import Initializer, Layout
from adapters.onnx.origin import encode_metadata
from converter.dims import fixed
from converter.ir import Array
from converter.mapped import LARGE, FileRange
from converter.parameters import as_bytes

_GRAPH_FIELD = 7  # ModelProto.graph
_TRAINING_FIELD = 20  # ModelProto.training_info
_INITIALIZATION_FIELD = 1  # TrainingInfoProto.initialization
_NAME_FIELD = 2  # GraphProto.name
_INITIALIZER_FIELD = 5  # GraphProto.initializer
_RAW_DATA_FIELD = 9  # TensorProto.raw_data

# Values in an external file start at multiples of a page, so that runtimes can map them.
PAGE = 4096
# Values are put in another order in blocks of about this many bytes.
BLOCK = 16 << 20
# A matrix that a file holds is read so often to be transposed.
PASSES = 8
CACHE_LINE = 64
TRANSPOSED = Layout((("transpose", (1, 0)),))
UNREAD = b"parameters that no node reads"
# Small tensors stay in the ONNX file: shape inference and checkers look at them.
INLINE = 1024


def total_bytes(lowering: Lowering) -> int:
    """Bytes of all initializers."""
    return sum(nbytes(item) for items in (lowering.initializers, lowering.unread) for item in items.values())


def write_model(file: BinaryIO, proto: onnx.ModelProto, lowering: Lowering, described: Callable[[], object] | None = None) -> None:
    """One self-contained ONNX file, values streamed. Holds up to 2 GB.

    `described` is called once the values are written: the metadata that it adds to `proto` is written too.
    """
    read, unread = ([(item, _head(item, lowering)) for item in items.values()] for items in (lowering.initializers, lowering.unread))
    _write_around(file, proto, sum(_inline_size(item, head) for item, head in read))
    _write_inline(file, read, lowering)
    if unread:
        file.write(_unread_head(sum(_inline_size(item, head) for item, head in unread)))
        _write_inline(file, unread, lowering)
    if described is not None:
        described()
    file.write(encode_metadata(proto))


def write_external(file: BinaryIO, data: BinaryIO, name: Callable[[str], str], proto: onnx.ModelProto, lowering: Lowering,
                   described: Callable[[], object] | None = None) -> None:
    """An ONNX file whose larger values are in `data`. `name` gives that file's name as the ONNX file says it.

    `described` is called once the values are written: what it adds to `proto` is written too. `name` gets a hexadecimal digest
    of the initializers' places and of what `proto` says of itself, the model's digest among it: two files of values that
    differ have two digests.
    """
    tensors = [_write_beside(data, items.values(), lowering) for items in (lowering.initializers, lowering.unread)]
    if described is not None:
        described()
    digest = hashlib.sha256(onnx.ModelProto(metadata_props=proto.metadata_props).SerializeToString())
    for tensor in itertools.chain(*tensors):
        digest.update(tensor.SerializeToString())
    location = name(digest.hexdigest())
    read, unread = ([_entry(tensor, location) for tensor in part] for part in tensors)
    _write_around(file, proto, sum(map(len, read)))
    for entry in read:
        file.write(entry)
    if unread:
        file.write(_unread_head(sum(map(len, unread))))
        for entry in unread:
            file.write(entry)
    file.write(encode_metadata(proto))


def _write_inline(file: BinaryIO, entries: Iterable[tuple[Initializer, bytes]], lowering: Lowering) -> None:
    for item, head in entries:
        file.write(_tag(_INITIALIZER_FIELD) + _varint(_body_size(item, head)) + head)
        file.write(_tag(_RAW_DATA_FIELD) + _varint(nbytes(item)))
        for block in values_of(item, lowering):
            file.write(block)


def _write_beside(data: BinaryIO, items: Iterable[Initializer], lowering: Lowering) -> list[onnx.TensorProto]:
    """Writes the larger values to `data`; gives tensors that name their places in it, or hold the values."""
    tensors: list[onnx.TensorProto] = []
    for item in items:
        size = nbytes(item)
        tensor = onnx.TensorProto.FromString(_head(item, lowering))
        if size <= INLINE:
            tensor.raw_data = b"".join(values_of(item, lowering))
        else:
            position = data.tell()
            data.write(bytes(-position % PAGE))
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("offset", str(data.tell())), ("length", str(size))):
                tensor.external_data.add(key=key, value=value)
            for block in values_of(item, lowering):
                data.write(block)
        tensors.append(tensor)
    return tensors


def _entry(tensor: onnx.TensorProto, location: str) -> bytes:
    """A tensor as an initializer of the graph; `location` is the file of its values, where they are in one."""
    if tensor.external_data:
        tensor.external_data.add(key="location", value=location)
    body = tensor.SerializeToString()
    return _tag(_INITIALIZER_FIELD) + _varint(len(body)) + body


def _unread_head(initializers: int) -> bytes:
    """What stands before initializers of `initializers` bytes in the model's training information."""
    name = _tag(_NAME_FIELD) + _varint(len(UNREAD)) + UNREAD
    graph = _tag(_INITIALIZATION_FIELD) + _varint(len(name) + initializers) + name
    return _tag(_TRAINING_FIELD) + _varint(len(graph) + initializers) + graph


def _write_around(file: BinaryIO, proto: onnx.ModelProto, initializers: int) -> None:
    """Everything but the metadata and the initializers, whose `initializers` bytes are to follow: the graph is left open.

    Readers take a message's fields in any order (https://protobuf.dev/programming-guides/encoding/#order).
    """
    graph = proto.graph.SerializeToString()
    head = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name not in ("graph", "metadata_props"):
            if field.is_repeated:
                getattr(head, field.name).extend(value)
            else:
                setattr(head, field.name, value)
    file.write(head.SerializeToString())
    file.write(_tag(_GRAPH_FIELD) + _varint(len(graph) + initializers))
    file.write(graph)


def values_of(item: Initializer, lowering: Lowering) -> Iterable[memoryview]:
    """An initializer's little-endian bytes; one that is a view in another order is put in order a block at a time."""
    place = lowering.parameters.file_range(item.sources[0]) if nbytes(item) >= LARGE else None
    if place is not None and item.layout.is_plain:
        yield from place.pieces()
        return
    if place is not None and item.layout == TRANSPOSED:
        yield from _columns(place, item)
        return
    values = item.layout.apply([lowering.parameters.read(name) for name in item.sources])
    if values.flags.c_contiguous or values.nbytes <= BLOCK:
        yield as_bytes(_in_order(values))
        return
    # A block spans whole lines of memory in the source, or each of its pages would be read many times.
    rows = max(64, BLOCK * len(values) // values.nbytes)
    for start in range(0, len(values), rows):
        yield as_bytes(_in_order(values[start:start + rows]))


def _columns(place: FileRange, item: Initializer) -> Iterable[memoryview]:
    """A transposed matrix, a block of the file's columns at a time, each from one pass over the file."""
    columns, rows = _shape(item)
    size = item.spec.dtype.itemsize
    bits = np.dtype(f"u{size}" if size <= 8 else "c16")
    width = -(-columns * max(BLOCK, place.size // PASSES) // place.size)
    buffer = np.empty((min(width, columns), rows), bits)
    for start in range(0, columns, width):
        block, done = buffer[:columns - start], 0
        for piece in place.pieces(columns * size):
            band = np.frombuffer(piece, bits).reshape(-1, columns)
            block[:, done:done + len(band)] = band[:, start:start + width].T
            done += len(band)
        yield as_bytes(block)


def _in_order(values: Array) -> Array:
    """The values in C order. A transposed matrix is copied in strips that are a cache line wide: NumPy alone takes twice the time."""
    if values.ndim != 2 or values.flags.c_contiguous or values.strides[0] != values.itemsize:
        return np.ascontiguousarray(values)
    result = np.empty(values.shape, values.dtype)
    width = max(1, CACHE_LINE // values.itemsize)
    for start in range(0, values.shape[1], width):
        result[:, start:start + width] = values[:, start:start + width]
    return result


def nbytes(item: Initializer) -> int:
    """Bytes of an initializer's values."""
    return item.spec.dtype.itemsize * int(np.prod(_shape(item), dtype=np.int64))


def _shape(item: Initializer) -> list[int]:
    return [fixed(size) for size in item.spec.shape]


def _head(item: Initializer, lowering: Lowering) -> bytes:
    return onnx.TensorProto(name=item.name, data_type=lowering.onnx_dtype(item.spec.dtype), dims=_shape(item)).SerializeToString()


def _body_size(item: Initializer, head: bytes) -> int:
    size = nbytes(item)
    return len(head) + len(_tag(_RAW_DATA_FIELD)) + len(_varint(size)) + size


def _inline_size(item: Initializer, head: bytes) -> int:
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
