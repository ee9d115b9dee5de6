"""The initializers of any ONNX file as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from adapters.onnx.load import FROM_ONNX, ExternalFiles, text_of
from converter.errors import ConverterError, FormatError, UnsupportedError
from converter.ir import Array, DType, TensorSpec
from converter.mapped import FileRange, MappedFile, usable_range
from converter.parameters import ParameterStore

FIELDS: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "float_data", onnx.TensorProto.COMPLEX64: "float_data", onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.COMPLEX128: "double_data", onnx.TensorProto.INT64: "int64_data", onnx.TensorProto.UINT64: "uint64_data",
    onnx.TensorProto.UINT32: "uint64_data"}
"""Where values lie that are no raw bytes; those of other dtypes lie in `int32_data`."""
MAX_RANK = 32


def hoist_constants(graph: onnx.GraphProto) -> None:
    """Makes initializers of the weights of a file that keeps all of them in `Constant` nodes: there they are told from numbers of the code
    no better than among initializers."""
    floats = {number for number, dtype in FROM_ONNX.items() if dtype.is_float}
    if any(tensor.data_type in floats and math.prod(tensor.dims) > 1 for tensor in graph.initializer):
        return
    weights = []
    for place, node in enumerate(graph.node):
        if node.op_type != "Constant" or len(node.output) != 1 or [item.name for item in node.attribute] != ["value"]:
            continue
        held = node.attribute[0].t
        if held.data_type in floats and math.prod(held.dims) > 1 and held.data_location != onnx.TensorProto.EXTERNAL:
            graph.initializer.add().CopyFrom(held)
            graph.initializer[-1].name = node.output[0]
            weights.append(place)
    for place in reversed(weights):
        del graph.node[place]


class Initializers(ParameterStore):
    """The initializers of a graph, those without values in it read from the file beside it.

    Raises:
        FormatError: two of one name, or values that do not fit their shapes.
        UnsupportedError: dtypes that cannot be carried; all are listed.
    """

    def __init__(self, proto: onnx.ModelProto, path: Path, file: MappedFile) -> None:
        self._path, self._beside = path, ExternalFiles(path, file)
        self._tensors: dict[str, onnx.TensorProto] = {}
        graph = proto.graph
        if sum(math.prod(item.dims) for item in graph.sparse_initializer) > MOST_SPARSE:
            raise FormatError("sparse initializers of too many elements", expected=f"at most {MOST_SPARSE} in all, zeros among them",
                              fix="make dense initializers of them, beside the file")
        for tensor in (*graph.initializer, *map(_dense, graph.sparse_initializer)):
            if text_of(tensor.name) in self._tensors:
                raise FormatError("two initializers have one name", received=repr(tensor.name[:80]))
            self._tensors[tensor.name] = tensor
        unfit = {name: f"it is of the dtype {onnx.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in _KNOWN else '?'}"
                 for name, tensor in self._tensors.items() if tensor.data_type not in FROM_ONNX}
        if unfit:
            raise UnsupportedError(f"{len(unfit)} initializers cannot be carried", expected="numbers",
                                   items=[{"operator": name, "reason": reason} for name, reason in list(unfit.items())[:100]])
        for name, tensor in self._tensors.items():
            _check_shape(tensor, f"initializer {name[:80]!r}")
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                self._place(tensor)

    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def spec(self, name: str) -> TensorSpec:
        if name not in self._tensors:
            raise self.unknown(name)
        tensor = self._tensors[name]
        return TensorSpec(FROM_ONNX[tensor.data_type], tuple(tensor.dims))

    def read(self, name: str) -> Array:
        spec = self.spec(name)
        try:
            values = self._values(self._tensors[name], spec)
        except ConverterError as error:
            raise error.within(f"{self._path}, {name[:80]}") from error
        values = np.ascontiguousarray(values).reshape(tuple(spec.shape))
        values.flags.writeable = False
        return values

    def file_range(self, name: str) -> FileRange | None:
        spec, tensor = self.spec(name), self._tensors[name]
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return None
        found = self._place(tensor)
        return usable_range(found.file, found.offset, spec)

    def _values(self, tensor: onnx.TensorProto, spec: TensorSpec) -> Array:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.HasField("raw_data"):
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            data: Array = self._place(tensor).read() if external else np.frombuffer(tensor.raw_data, np.uint8)
            return data.view(spec.dtype.numpy) if spec.dtype.bits >= 8 else unpack(data, spec.dtype, math.prod(tensor.dims))
        found: Array = numpy_helper.to_array(tensor)
        return found.astype(spec.dtype.numpy) if found.dtype.itemsize != spec.dtype.itemsize else found.view(spec.dtype.numpy)

    def _place(self, tensor: onnx.TensorProto) -> FileRange:
        """Where values lie beside the file. Raises `FormatError` for another number of bytes than the shape takes."""
        found, (wanted, _) = self._beside.find(tensor), _lengths(tensor, FROM_ONNX[tensor.data_type])
        if found.size != wanted:
            raise FormatError("the values do not fit the shape", where=f"initializer {tensor.name[:80]!r}", expected=f"{wanted} bytes",
                              received=f"{found.size} bytes")
        return found


MOST_SPARSE = 1 << 26
"""Elements of a file's sparse tensors, zeros among them: the file is as small as those are few that are not."""


def sparse_array(item: onnx.SparseTensorProto) -> Array:
    """A sparse tensor with its zeros. Raises `FormatError` for places outside of its shape, or too many elements."""
    name, shape = text_of(item.values.name), tuple(item.dims)
    where = f"sparse tensor {name[:80]!r}"
    values, places = embedded_array(item.values), embedded_array(item.indices)
    if any(size < 0 for size in shape) or not 1 <= len(shape) <= MAX_RANK or math.prod(shape) > MOST_SPARSE:
        raise FormatError("a sparse tensor of too many elements, or of no shape", where=where, received=str(list(shape))[:120],
                          expected=f"at most {MOST_SPARSE} elements, along 1 to {MAX_RANK} axes")
    flat = places if places.ndim == 1 else np.zeros(len(values), np.int64)
    if places.dtype != np.int64 or values.ndim != 1 or places.shape not in ((len(values),), (len(values), len(shape))):
        raise FormatError("places that do not fit a sparse tensor's values", where=where, received=f"{places.dtype}{list(places.shape)}",
                          expected=f"int64[{len(values)}] or int64[{len(values)}, {len(shape)}]")
    if places.ndim == 2 and ((places < 0) | (places >= shape)).any() or ((flat < 0) | (flat >= math.prod(shape))).any():
        raise FormatError("places outside of a sparse tensor", where=where, expected=f"places in {list(shape)}")
    if places.ndim == 2:
        flat = np.ravel_multi_index(tuple(places.T), shape) if len(values) else flat
    found = np.zeros(math.prod(shape), values.dtype)
    found[flat] = values
    return found.reshape(shape)


def _dense(item: onnx.SparseTensorProto) -> onnx.TensorProto:
    if item.values.data_type not in FROM_ONNX:
        return item.values
    return onnx.TensorProto(name=item.values.name, data_type=item.values.data_type, dims=item.dims, raw_data=sparse_array(item).tobytes())


def unpack(data: Array, dtype: DType, count: int) -> Array:
    """Elements of fewer than 8 bits, of which ONNX puts as many into a byte as fit, the first into its lowest bits."""
    shifts = np.arange(0, 8, dtype.bits, dtype=np.uint8)
    found = data.view(np.uint8)[:, np.newaxis] >> shifts & ((1 << dtype.bits) - 1)
    return found.reshape(-1)[:count].astype(np.uint8).view(dtype.numpy)


_KNOWN = set(onnx.TensorProto.DataType.values())


def _lengths(tensor: onnx.TensorProto, dtype: DType) -> tuple[int, int]:
    """The bytes that a tensor's values take, and the numbers where they lie in one of the fields of numbers."""
    count = math.prod(tensor.dims)
    packed = -(-count * dtype.bits // 8)
    return (packed, packed) if dtype.bits < 8 else (count * dtype.itemsize, count * (2 if dtype.is_complex else 1))


def _check_shape(tensor: onnx.TensorProto, where: str) -> None:
    """Raises `FormatError` for a shape that is none, and for one that its values, where they lie in the file, do not fill."""
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > MAX_RANK:
        raise FormatError("not a shape", where=where, expected=f"at most {MAX_RANK} sizes of 0 and up",
                          received=str(list(tensor.dims))[:120])
    dtype, field = FROM_ONNX.get(tensor.data_type), FIELDS.get(tensor.data_type, "int32_data")
    if tensor.data_location == onnx.TensorProto.EXTERNAL or dtype is None:
        return
    nbytes, numbers = _lengths(tensor, dtype)
    raw = tensor.HasField("raw_data")
    wanted, held, unit = (nbytes, len(tensor.raw_data), "bytes") if raw else (numbers, len(getattr(tensor, field)), "numbers")
    if wanted != held:
        raise FormatError("the values do not fit the shape", where=where, expected=f"{wanted} {unit}", received=f"{held} {unit}")


def embedded_array(tensor: onnx.TensorProto) -> Array:
    """The values of a constant in a graph. Raises `FormatError` for one whose values lie in another file, or do not fit its shape."""
    where = f"tensor {text_of(tensor.name)[:80]!r}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise FormatError("a constant whose values lie in another file", where=where, expected="values in the file itself",
                          fix="make an initializer of it: those may lie beside the file")
    _check_shape(tensor, where)
    try:
        found: Array = numpy_helper.to_array(tensor)
    except Exception as error:  # whatever the library raises for a dtype or a length
        raise FormatError("a constant that cannot be read", where=where, received=str(error)[:120]) from error
    return found
