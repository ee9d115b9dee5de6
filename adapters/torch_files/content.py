"""What a checkpoint's pickle may name, and the inert value that each name stands for. Nothing here imports or runs the named thing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converter.errors import FormatError, UnsupportedError
from converter.ir import DType

MAX_RANK = 64
MAX_SIZE = 1 << 62
MAX_SPAN = 1 << 63
"""Bytes of a tensor, an axis without elements counted as one."""
WIDEST = 16
"""Bytes of an element of the widest dtype."""
MAX_KEY = 1 << 60
"""Larger integers may all have one hash, and a dict of them takes time without end. (PyTorch before 1.0 had ids as keys.)"""


class Malformed(Exception):
    """A pickle that breaks the rules of pickles, or names a thing of the table and uses it otherwise than torch does.

    Messages never show a value of the pickle: showing lists of lists of the same list takes forever.
    """


@dataclass(frozen=True, slots=True)
class Storage:
    """A range of memory that tensors view: `nbytes` from `start` in the storage `key`, of elements of a dtype (None: untyped)."""

    key: str
    nbytes: int
    dtype: DType | None
    start: int = 0


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A strided view of a storage; offset and strides count elements. `conj` and `neg` are applied when it is read."""

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conj: bool = False
    neg: bool = False


@dataclass(frozen=True, slots=True)
class OtherTensor:
    """A tensor that cannot be carried: `kind` says why (`sparse`, `quantized`, `on the meta device`)."""

    kind: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that the table does not hold: an object in name only."""

    kind: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A type or a constant that is only ever passed on: a dtype, a storage's class, a device."""

    kind: str
    dtype: DType | None = None


class Plain(dict[Any, Any]):
    """A bag of named values: a namespace or another mapping class that has no behaviour of its own."""

    kind = "namespace"


@dataclass(frozen=True, slots=True)
class RecordClass:
    """A class whose objects are kept with their attributes: of a TorchScript archive, or of a checkpoint's index."""

    kind: str


@dataclass(slots=True, eq=False)
class Record:
    """An inert object: its class's path, and its attributes (or whatever else its class keeps). Each equals itself alone."""

    kind: str
    state: Any = None


@dataclass(frozen=True, slots=True)
class Function:
    """A callable of the table, in our own words."""

    name: str
    call: Callable[..., Any]


# Tensors -----------------------------------------------------------------------------------------------------------------


def sizes(value: Any, what: str) -> tuple[int, ...]:
    """A shape or strides. Raises `Malformed` for anything but a few integers that are not negative."""
    if not isinstance(value, (tuple, list)) or len(value) > MAX_RANK:
        raise Malformed(f"a tensor's {what} is no list of sizes")
    if any(type(item) is not int or not 0 <= item < MAX_SIZE for item in value):
        raise Malformed(f"a tensor's {what} holds something else than sizes")
    return tuple(value)


def require_span(shape: tuple[int, ...], width: int) -> None:
    """Raises `Malformed` for a shape without elements that no array has, empty axes counted as one; `width` bytes an element."""
    if 0 in shape and math.prod(max(size, 1) for size in shape) * width >= MAX_SPAN:
        raise Malformed("a tensor whose sizes or strides no array has")


def text(value: Any, what: str) -> str:
    """A name. Raises `Malformed` for anything else, which is not shown."""
    if not isinstance(value, str):
        raise Malformed(f"{what} is no text")
    return value


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: DType, metadata: Any) -> TensorRef:
    shape, strides = sizes(shape, "shape"), sizes(strides, "strides")
    if type(offset) is not int or not 0 <= offset < MAX_SIZE or len(shape) != len(strides):
        raise Malformed("a tensor whose offset or strides do not fit its shape")
    if metadata is not None and not (isinstance(metadata, Mapping) and all(type(value) is bool for value in metadata.values())
                                     and metadata.keys() <= {"conj", "neg"}):
        raise Malformed("a tensor with unknown metadata")
    require_span(shape, dtype.itemsize)
    if any(stride * dtype.itemsize >= MAX_SPAN for stride in strides):
        raise Malformed("a tensor whose sizes or strides no array has")
    if metadata and (metadata.get("neg") and dtype is DType.BOOL or metadata.get("conj") and not dtype.is_complex):
        raise Malformed(f"a mark that {dtype} cannot have")
    found = TensorRef(storage, dtype, offset, shape, strides, **(metadata or {}))
    if 0 in shape:
        return found
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if (last + 1) * dtype.itemsize > storage.nbytes:
        raise FormatError("a tensor reaches past the end of its storage", where=f"storage {storage.key[:80]}",
                          expected=f"elements up to {storage.nbytes // dtype.itemsize}", fix="copy or download the checkpoint again",
                          received=f"shape {list(shape)}, strides {list(strides)}, offset {offset}: up to {last + 1}")
    return found


def _v2(storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any = False, hooks: Any = None,
        metadata: Any = None) -> TensorRef:
    if not isinstance(storage, Storage):
        raise Malformed("a tensor without a storage")
    return _tensor(storage, offset, shape, strides, storage.dtype or DType.UINT8, metadata)


def _v1(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorRef:
    return _v2(storage, offset, shape, strides)


def _v3(storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None) -> Any:
    if not isinstance(storage, Storage) or not isinstance(dtype, Kind):
        raise Malformed("a tensor without a storage or a dtype")
    if dtype.dtype is None:
        return OtherTensor(f"of the dtype {dtype.kind}")
    return _tensor(storage, offset, shape, strides, dtype.dtype, metadata)


def _same(data: Any, *_: Any) -> Any:
    if not isinstance(data, (TensorRef, OtherTensor)):
        raise Malformed("a parameter without a tensor")
    return data


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    if not isinstance(function, Function) or function.name not in _REBUILDS or not isinstance(arguments, tuple):
        raise Malformed("a tensor that is rebuilt by something else than torch's own functions")
    if not isinstance(kind, (Kind, Function)) or getattr(kind, "name", None) not in _MADE and getattr(kind, "kind", None) not in _TENSORS:
        raise Malformed("a tensor of another class than torch's own")
    return function.call(*arguments)


def _other(kind: str) -> Callable[..., Any]:
    return lambda *_: OtherTensor(kind)


# Plain values ------------------------------------------------------------------------------------------------------------


def check_key(value: Any) -> Any:
    """A value that may be hashed. Raises `Malformed` for nested tuples, whose hash can take forever, and for containers."""
    if isinstance(value, tuple) and len(value) <= MAX_RANK:
        if any(isinstance(item, (tuple, frozenset)) for item in value):
            raise Malformed("a tuple of tuples as the key of a dict")
        for item in value:
            check_key(item)
        return value
    if value is None or isinstance(value, (bool, str, bytes, Kind, Foreign, Function)):
        return value
    if isinstance(value, (int, float, complex)):
        if isinstance(value, complex) or isinstance(value, int) and abs(value) > MAX_KEY:
            raise Malformed("a number as the key of a dict that is no small one")
        return value
    if isinstance(value, (TensorRef, OtherTensor, Record)):
        return value
    raise Malformed(f"a {type(value).__name__} as the key of a dict")


def _mapping(items: Any = ()) -> dict[Any, Any]:
    if isinstance(items, dict):
        return dict(items)
    if not isinstance(items, (list, tuple)) or any(not isinstance(item, (list, tuple)) or len(item) != 2 for item in items):
        raise Malformed("a dict of something else than pairs")
    return {check_key(key): value for key, value in items}


def _default_mapping(_: Any = None, items: Any = ()) -> dict[Any, Any]:
    return _mapping(items)


def _collection(kind: type) -> Callable[..., Any]:
    def make(items: Any = ()) -> Any:
        if not isinstance(items, (list, tuple, set, frozenset)):
            raise Malformed(f"a {kind.__name__} of a {type(items).__name__}")
        return kind(map(check_key, items)) if kind in (set, frozenset) else kind(items)

    return make


def _shape(items: Any = ()) -> tuple[int, ...]:
    return sizes(items, "shape")


def _complex(real: Any = 0, imaginary: Any = 0) -> complex:
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise Malformed("a complex number of something else than numbers")
    return complex(real, imaginary)


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes: `_codecs.encode(text, "latin1")`."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Malformed("bytes of something else than text")
    return text.encode("latin1")


def _buffer(data: Any = b"", encoding: Any = "latin1") -> bytes:
    return data if isinstance(data, bytes) else _bytes(data, encoding)


def _name(*arguments: Any) -> Kind:
    return Kind(":".join(str(item)[:40] for item in arguments if isinstance(item, (str, int))) or "device")


# The table ---------------------------------------------------------------------------------------------------------------

_REBUILDS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _v1,
    "torch._utils._rebuild_tensor_v2": _v2,
    "torch._utils._rebuild_tensor_v3": _v3,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch._utils._rebuild_sparse_tensor": _other("a sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": _other("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _other("a nested tensor"),
    "torch._utils._rebuild_qtensor": _other("quantized"),
    "torch._utils._rebuild_meta_tensor_no_storage": _other("on the meta device"),
}

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_REBUILDS,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.tensor._rebuild_from_type_v2": _from_type,
    "torch.serialization._get_layout": _name,
    "torch.device": _name,
    "torch.Size": _shape,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _default_mapping,
    "collections.Counter": _mapping,
    "_codecs.encode": _bytes,
    **{f"{module}.{name}": make for module in ("builtins", "__builtin__") for name, make in (
        ("dict", _mapping), ("list", _collection(list)), ("tuple", _collection(tuple)), ("set", _collection(set)),
        ("frozenset", _collection(frozenset)), ("complex", _complex), ("bytes", _buffer), ("bytearray", _buffer))},
}

_TENSORS = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Buffer")
_MADE = ("torch.nn.parameter.Parameter", "torch.autograd.variable.Variable")
"""Classes that PyTorch before 0.4 called with a tensor."""

_NAMESPACES = (
    "argparse.Namespace", "types.SimpleNamespace", "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)

_STORAGES: dict[str, DType] = {
    "Double": DType.FLOAT64, "Float": DType.FLOAT32, "Half": DType.FLOAT16, "BFloat16": DType.BFLOAT16, "Long": DType.INT64,
    "Int": DType.INT32, "Short": DType.INT16, "Char": DType.INT8, "Byte": DType.UINT8, "Bool": DType.BOOL,
    "ComplexFloat": DType.COMPLEX64, "ComplexDouble": DType.COMPLEX128,
}

_SYNONYMS = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32", "short": "int16",
             "cfloat": "complex64", "cdouble": "complex128"}

_PASSED_ON = (
    *(f"torch.{name}" for name in ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "complex32",
                                   "quint8", "qint8", "qint32", "quint4x2", "quint2x4", "bits8", "float4_e2m1fn_x2", "per_tensor_affine",
                                   "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
                                   "per_channel_affine_float_qparams", "contiguous_format", "channels_last", "preserve_format")),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("int", "float", "bool", "str", "object")),
    *(f"torch.{name}Storage" for name in ("QUInt8", "QInt8", "QInt32", "QUInt4x2", "QUInt2x4")),
    *_TENSORS,
)

TABLE: Mapping[str, Any] = {
    **{name: Function(name, call) for name, call in _FUNCTIONS.items()},
    **{name: Function(name, lambda *_: Plain()) for name in _NAMESPACES},
    **{name: Function(name, _same) for name in _MADE},
    **{name: Kind(name) for name in _PASSED_ON},
    **{f"torch.{dtype}": Kind(f"torch.{dtype}", dtype) for dtype in DType},
    **{f"torch.{name}": Kind(f"torch.{name}", DType(full)) for name, full in _SYNONYMS.items()},
    **{f"{module}.{name}Storage": Kind("storage", dtype) for module in ("torch", "torch.cuda", "torch.storage")
       for name, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": Kind("storage"),
    "torch.UntypedStorage": Kind("storage"),
}
"""Every name that a pickle may hold. A storage's kind is `storage`, without a dtype where it is untyped."""


def refuse_others(tensors: Mapping[str, Any]) -> None:
    """Raises `UnsupportedError` for tensors that cannot be carried, all of them listed, and `FormatError` for those without values."""
    meta = [name for name, value in tensors.items() if isinstance(value, OtherTensor) and "meta" in value.kind]
    if meta:
        raise FormatError("tensors without values (on the meta device)", received=", ".join(meta[:5]),
                          fix="load the weights before saving the state_dict")
    arrays = any(isinstance(value, OtherTensor) and "NumPy" in value.kind for value in tensors.values())
    items: list[dict[str, object]] = [{"operator": name, "reason": f"it is {value.kind}"}
                                      for name, value in tensors.items() if isinstance(value, OtherTensor)]
    if items:
        raise UnsupportedError(f"{len(items)} tensor{'s' * (len(items) > 1)} cannot be carried", items=items[:100],
                               expected="arrays of numbers" if arrays else "dense, unquantized tensors",
                               fix="save what is no parameter in another file, and parameters as numbers" if arrays else
                               "call .to_dense() or .dequantize() before saving them")
