"""What the layouts of quantised weights share: their parts, held to dtypes and shapes, and integers packed into words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from converter.dims import fixed
from converter.errors import FormatError
from converter.ir import Array, DType, TensorSpec
from converter.parameters import ParameterStore

WORD = 32
FLOATS = {name: DType(name) for name in ("float16", "bfloat16", "float32")}
RESAVE = "write floats where the library is installed: model.dequantize().save_pretrained('floats')"


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight in parts: what it is, the store's tensors that it takes, and how its values are made of those."""

    spec: TensorSpec
    parts: tuple[str, ...]
    values: Callable[..., Array]


def spec_of(store: ParameterStore, name: str, dtypes: tuple[DType, ...], shape: tuple[int | None, ...] | None = None) -> tuple[int, ...]:
    """A part's shape. Raises `FormatError` where it is missing, or not of the dtypes and the shape (None: any size) that it must have."""
    expected = " or ".join(str(dtype) for dtype in dtypes) + (str(["any" if size is None else size for size in shape]) if shape else "")
    if name not in store:
        raise FormatError("a part of a quantised weight is missing", where=name, expected=expected)
    spec = store.spec(name)
    found = tuple(fixed(size) for size in spec.shape)
    fits = shape is None or len(shape) == len(found) and all(want in (None, size) for want, size in zip(shape, found, strict=True))
    if spec.dtype not in dtypes or not fits:
        raise FormatError("a part of a quantised weight has another dtype or shape", where=name, expected=expected, received=str(spec))
    return found


def ending_in(store: ParameterStore, ending: str) -> list[str]:
    """The names that end so, without the ending."""
    return [name.removesuffix(ending) for name in store.names() if name.endswith(ending)]


def unpack(words: Array, bits: int, count: int) -> Array:
    """Unsigned integers of `bits` bits from words of 32 along the last axis, the lowest bits first; they may straddle two words.

    words: int32 [..., n]. Returns int32 [..., count]; count * bits is at most 32 * n.
    """
    words = words.view(np.uint32)
    start = np.arange(count) * bits
    word, shift = start // WORD, (start % WORD).astype(np.uint32)
    values = words[..., word] >> shift
    over = np.flatnonzero(shift + np.uint32(bits) > WORD)
    if over.size:
        values[..., over] |= words[..., word[over] + 1] << (np.uint32(WORD) - shift[over])
    return (values & np.uint32((1 << bits) - 1)).astype(np.int32)


def product(values: Array, scales: Array, dtype: DType) -> Array:
    """values · scales in float32, rounded once."""
    result: Array = values.astype(np.float32) * scales.astype(np.float32)
    return result.astype(dtype.numpy)


SCALES = tuple(FLOATS.values())
Weights = dict[str, Weight]
