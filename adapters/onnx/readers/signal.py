"""Fourier transforms."""

from __future__ import annotations

import math
from collections.abc import Callable

from adapters.onnx.load import FROM_ONNX
from adapters.onnx.reading.items import Item
from adapters.onnx.reading.reader import Reader
from adapters.onnx.registry import reads
from converter.builder import Value
from converter.dims import Dim
from converter.ir import DType

WIDE = {DType.FLOAT32: DType.COMPLEX64, DType.FLOAT64: DType.COMPLEX128}


def _complex(g: Reader, x: Value) -> Value:
    """[..., 2] as complex numbers, [..., 1] as real ones."""
    if x.dtype not in WIDE:
        raise g.refuse(f"a Fourier transform of {x.dtype.value}")
    if x.shape[-1] == 2:
        return g.op("view_as_complex", x)
    return g.op("squeeze", x, axis=(x.rank - 1,))


@reads("DFT")
def dft(g: Reader, x: Item, length: Item | None = None, place: Item | None = None, *, axis: int | None = None, inverse: int = 0,
        onesided: int = 0) -> Value:
    rank = g.rank(x)
    along = axis if axis is not None else g.integers(place, "an axis")[0] if place is not None else 1 if g.version < 20 else -2
    at = g.axis(along, rank)
    value = _complex(g, g.tensor(x))
    sizes: tuple[Dim, ...] | None = None if length is None else (g.sizes(length, "a length")[0],)
    if inverse and onesided:
        if not value.dtype.is_complex:
            raise g.refuse("half a transform of real numbers")
        if sizes is None:
            sizes = (2 * (value.shape[at] - 1),)
        return g.op("expand_dims", g.op("irfftn", value, axes=(at,), sizes=sizes), axis=(rank - 1,))
    if onesided:
        if value.dtype.is_complex:
            raise g.refuse("half a transform of complex numbers")
        return g.op("view_as_real", g.op("rfftn", value, axes=(at,), sizes=sizes))
    if not value.dtype.is_complex:
        value = g.cast(value, WIDE[value.dtype])
    return g.op("view_as_real", g.op("ifftn" if inverse else "fftn", value, axes=(at,), sizes=sizes))


@reads("STFT")
def stft(g: Reader, signal: Item, step: Item, window: Item | None = None, length: Item | None = None, *, onesided: int = 1) -> Value:
    """[batch, frames, frequencies, 2]: the transform of each frame."""
    value = _complex(g, g.tensor(signal))
    if value.dtype.is_complex:
        raise g.refuse("frames of complex numbers")
    (hop,) = g.integers(step, "a step")
    count = g.integers(length, "a length")[0] if length is not None else None if window is None else g.shape(window)[0]
    if not isinstance(count, int):
        raise g.refuse("a length of frames that only a run knows")
    found = g.op("stft", value, window, n_fft=count, hop_length=hop, win_length=count, onesided=bool(onesided))
    return g.op("view_as_real", g.op("permute_dims", found, axes=(0, 2, 1)))


def _window(parts: tuple[float, ...]) -> Callable[..., Value]:
    """a0 - a1 · cos(2πn / N) + a2 · cos(4πn / N); N is one less where the window is no period."""

    def read(g: Reader, size: Item, *, output_datatype: int = 1, periodic: int = 1) -> Value:
        dtype = FROM_ONNX.get(output_datatype)
        (count,) = g.sizes(size, "a size")
        if dtype is None or not dtype.is_float:
            raise g.refuse("a window that is no float")
        whole = g.op("full", shape=(), fill_value=count if periodic else count - 1, dtype=DType.FLOAT64)
        steps = g.op("divide", g.op("arange", start=0, stop=count, step=1, dtype=DType.FLOAT64), whole)
        found: Value = g.op("full", shape=(count,), fill_value=parts[0], dtype=DType.FLOAT64)
        for number, part in enumerate(parts[1:], 1):
            wave = g.op("cos", g.op("multiply", steps, g.like(2 * math.pi * number, steps)))
            found = g.op("add", found, g.op("multiply", wave, g.like(part * (-1) ** number, wave)))
        return g.cast(found, dtype)

    return read


reads("HannWindow")(_window((0.5, 0.5)))
reads("HammingWindow")(_window((25 / 46, 1 - 25 / 46)))
reads("BlackmanWindow")(_window((0.42, 0.5, 0.08)))
