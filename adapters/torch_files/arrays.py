"""NumPy's arrays in a pickle, as plain data: `torch.save({name: value.numpy()})`, or `pickle.dump` of the same.

How NumPy pickles (`numpy.ndarray.__reduce_ex__`): an array is `_reconstruct(ndarray, (0,), b"b")` with the state `(version, shape, dtype,
whether in Fortran's order, bytes)`, by protocol 5 `_frombuffer(bytes, dtype, shape, order)`; a dtype is `dtype("f4", …)` with a state whose
second item is the order of its bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapters.torch_files.archive import COPY
from adapters.torch_files.content import Function, Kind, Malformed, OtherTensor, Record, refuse_others, require_span, sizes, text
from converter.errors import FormatError
from converter.ir import DType
from converter.kinds import NPZ
from converter.npz import read_npz
from converter.parameters import InMemoryParameters

ARRAY = "numpy.ndarray"
_CODES = {dtype.numpy.str[1:]: dtype for dtype in DType if dtype.numpy.isbuiltin == 1}
"""The dtypes that NumPy itself has, by what its pickles call them: `f4`, `b1`."""


class ArrayType(Record):
    """An array's dtype: NumPy's code for it, and its state, where the order of its bytes is."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        super().__init__("numpy.dtype")
        self.code = code

    @property
    def big(self) -> bool:
        return isinstance(self.state, tuple) and len(self.state) > 1 and self.state[1] == ">"


class ArrayRecord(Record):
    """An array that a pickle makes; `state` is as NumPy's, `(version, shape, dtype, whether in Fortran's order, bytes)`."""

    __slots__ = ()

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, which other arrays may have too."""
        data = self.state[-1] if isinstance(self.state, tuple) and self.state else b""
        return len(data) if isinstance(data, (bytes, str)) else 0


@dataclass(frozen=True, slots=True, eq=False)
class HeldArray:
    """A tensor whose elements lie in the pickle itself: in C order, little-endian, not to be written to."""

    dtype: DType
    values: np.ndarray[Any, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape


DAMAGED = "a NumPy array that is damaged"


def array_of(record: ArrayRecord) -> HeldArray | OtherTensor:
    """The array of a record. Raises `FormatError` for one whose bytes are not those of its shape."""
    try:
        return _array(record.state)
    except Malformed as error:
        raise FormatError(DAMAGED, received=str(error), fix=COPY) from error


def load_npz(path: Path, key: str | None = None) -> InMemoryParameters:
    """The arrays of an .npz file as parameters. It has no entries that a `key` could name.

    Raises:
        UnsupportedError: arrays of dtypes that the format lacks; all are listed.
        FormatError: a damaged file, or one with Python objects.
    """
    if key is not None:
        raise FormatError("an .npz file is one state_dict, without entries", received=f"key {key!r}", fix="leave the key out")
    try:
        found = {name: held(values) for name, values in read_npz(path).items()}
    except Malformed as error:
        raise FormatError(DAMAGED, received=str(error), fix=COPY) from error
    store = in_memory(found)
    store.kind = NPZ.title
    return store


def in_memory(tensors: Mapping[str, HeldArray | OtherTensor]) -> InMemoryParameters:
    """Arrays as parameters, one under two names as an alias. Raises `UnsupportedError` for those that cannot be carried."""
    refuse_others(tensors)
    arrays = {name: value for name, value in tensors.items() if isinstance(value, HeldArray)}
    first: dict[HeldArray, str] = {}
    aliases = {name: first[value] for name, value in arrays.items() if first.setdefault(value, name) != name}
    return InMemoryParameters({name: value.values for name, value in arrays.items()}, aliases)


def _array(state: Any) -> HeldArray | OtherTensor:
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise Malformed("an array without its shape, dtype and bytes")
    shape, kind, fortran, data = state[-4:]
    shape = sizes(shape, "shape")
    dtype = _CODES.get(kind.code) if isinstance(kind, ArrayType) else None
    if dtype is None:
        return OtherTensor(f"a NumPy array of {kind.code[:20] if isinstance(kind, ArrayType) else getattr(kind, 'kind', 'no known dtype')}")
    require_span(shape, dtype.itemsize)
    # Pickles of Python 2 hold bytes as text.
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        raise Malformed("other bytes than its shape and dtype ask for")
    values = np.frombuffer(data, dtype.numpy.newbyteorder(">") if kind.big else dtype.numpy)
    return held(values.reshape(shape, order="F" if fortran else "C"))


def held(values: np.ndarray[Any, Any]) -> HeldArray | OtherTensor:
    """An array as a tensor. Raises `Malformed` for booleans that are neither 0 nor 1."""
    dtype = _CODES.get(values.dtype.str[1:])
    if dtype is None:
        return OtherTensor(f"a NumPy array of {values.dtype}"[:80])
    values = np.asarray(values, dtype.numpy, order="C").view()
    if dtype is DType.BOOL and values.size and values.view(np.uint8).max() > 1:
        raise Malformed("a bool that is neither 0 nor 1")
    values.flags.writeable = False
    return HeldArray(dtype, values)


def _reconstruct(kind: Any, *_: Any) -> ArrayRecord:
    if not isinstance(kind, Kind) or kind.kind != ARRAY:
        raise Malformed("an array of another class than NumPy's own")
    return ArrayRecord(ARRAY)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> ArrayRecord:
    return ArrayRecord(ARRAY, (1, shape, dtype, order == "F", data))


def _type(code: Any, *_: Any) -> ArrayType:
    return ArrayType(text(code, "the code of a dtype"))


ARRAYS: Mapping[str, Any] = {
    ARRAY: Kind(ARRAY),
    "numpy.dtype": Function("numpy.dtype", _type),
    **{f"numpy.{core}.{name}": Function(name, make) for core in ("core", "_core")
       for name, make in (("multiarray._reconstruct", _reconstruct), ("numeric._frombuffer", _from_buffer))},
}
"""The names in pickles of arrays; NumPy 2 has renamed its core."""
