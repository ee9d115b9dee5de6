"""Fourier transforms as products with their matrices: exact angles, and any size.

ONNX has an operator for it, whose kernel in ONNX Runtime is less exact for sizes that are no powers of two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.onnx.complex_numbers.pairs import Pair, takes_pairs
from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.elementwise import apply
from adapters.onnx.ops.manipulation import cut
from adapters.onnx.registry import lowers
from converter.dims import Dim, minimum, product
from converter.ir import DType, TensorSpec

LARGEST = 4096
"""The largest fixed size whose matrix is written into the file."""


def matrices(g: Lowering, rows: Dim, columns: Dim, size: Dim, dtype: DType) -> tuple[Tensor, Tensor]:
    """cos and sin of 2π j k / size, [rows, columns]."""
    if isinstance(rows, int) and isinstance(columns, int) and isinstance(size, int):
        if size > LARGEST:
            raise g.refuse(f"a Fourier transform of more than {LARGEST} values")
        angle = np.outer(np.arange(rows), np.arange(columns)) % max(size, 1) * (2 * np.pi / max(size, 1))
        return g.constant(np.cos(angle), dtype), g.constant(np.sin(angle), dtype)
    spec = TensorSpec(DType.INT64, (rows, columns))
    down, along = (g.node("Range", g.constant(0), g.scalar_size(length), g.constant(1), spec=TensorSpec(DType.INT64, (length,)))
                   for length in (rows, columns))
    column = g.node("Unsqueeze", down, g.constant([1]), spec=TensorSpec(DType.INT64, (rows, 1)))
    steps = g.node("Mod", g.node("Mul", column, along, spec=spec), g.scalar_size(size), spec=spec)
    wide, scalar = TensorSpec(DType.FLOAT64, spec.shape), TensorSpec(DType.FLOAT64, ())
    unit = g.node("Div", g.constant(2 * np.pi, DType.FLOAT64), g.cast(g.scalar_size(size), DType.FLOAT64), spec=scalar)
    phase = g.node("Mul", g.cast(steps, DType.FLOAT64), unit, spec=wide)
    return g.cast(g.node("Cos", phase, spec=wide), dtype), g.cast(g.node("Sin", phase, spec=wide), dtype)


def last(g: Lowering, x: Tensor, axis: int) -> Tensor:
    """`x` with that axis exchanged with the last; its own inverse."""
    order = list(range(x.rank))
    order[axis], order[-1] = order[-1], order[axis]
    return g.transpose(x, order)


def _times(g: Lowering, x: Tensor, matrix: Tensor) -> Tensor:
    return g.node("MatMul", x, matrix, spec=TensorSpec(x.dtype, (*x.shape[:-1], matrix.shape[-1])))


def _trimmed(g: Lowering, x: Tensor, count: Dim) -> Tensor:
    """The first `count` values along the last axis."""
    if x.shape[-1] == count:
        return x
    return cut(g, x, [x.rank - 1], [0], [count], spec=TensorSpec(x.dtype, (*x.shape[:-1], count)))


def transform(g: Lowering, x: Pair | Tensor, axis: int, size: Dim, sign: int, columns: Dim | None = None) -> Pair:
    """Σ_j x_j exp(sign · 2πi jk / size) along an axis, of which `columns` results are given (all by default).

    An axis longer than `size` is cut; a shorter one counts as filled with zeros.
    """
    parts = [x] if not isinstance(x, Pair) else [x.real, x.imag]
    place = axis % parts[0].rank
    rows = minimum(parts[0].shape[place], size)
    parts = [_trimmed(g, last(g, part, place), rows) for part in parts]
    cosine, sine = matrices(g, rows, size if columns is None else columns, size, parts[0].dtype)
    real, imag = _times(g, parts[0], cosine), _times(g, parts[0], sine)
    if len(parts) == 2:
        # (a + bi)(cos + i sign sin)
        real = apply(g, "Sub" if sign > 0 else "Add", real, _times(g, parts[1], sine))
        other = _times(g, parts[1], cosine)
        imag = apply(g, "Add" if sign > 0 else "Sub", other, imag)
    elif sign < 0:
        imag = apply(g, "Neg", imag)
    return Pair(last(g, real, place), last(g, imag, place))


def scaled(g: Lowering, x: Any, sizes: list[Dim], norm: str, divided_by: str) -> Any:
    """Divided by n where `norm` is `divided_by`, and by √n for "ortho"; n is the product of the sizes."""
    if norm not in (divided_by, "ortho"):
        return x
    parts = (x.real, x.imag) if isinstance(x, Pair) else (x,)
    count, dtype = product(sizes), parts[0].dtype
    if isinstance(count, int):
        divisor = g.constant(np.sqrt(count) if norm == "ortho" else count, dtype)
    else:
        divisor = g.cast(g.scalar_size(count), dtype)
        divisor = g.node("Sqrt", divisor, spec=divisor.spec) if norm == "ortho" else divisor
    results = [apply(g, "Div", part, divisor) for part in parts]
    return Pair(*results) if isinstance(x, Pair) else results[0]


def _whole(g: Lowering, x: Pair, axes: tuple[int, ...], sizes: Any, norm: str, sign: int) -> Pair:
    lengths = [x.shape[axis] for axis in axes] if sizes is None else list(sizes)
    for axis, size in zip(axes, lengths, strict=True):
        x = transform(g, x, axis, size, sign)
    return scaled(g, x, lengths, norm, "forward" if sign < 0 else "backward")


@lowers("fftn")
@takes_pairs
def fftn(g: Lowering, x: Pair, *, axes: tuple[int, ...], sizes: Any, norm: str) -> Pair:
    return _whole(g, x, axes, sizes, norm, -1)


@lowers("ifftn")
@takes_pairs
def ifftn(g: Lowering, x: Pair, *, axes: tuple[int, ...], sizes: Any, norm: str) -> Pair:
    return _whole(g, x, axes, sizes, norm, 1)


@lowers("rfftn")
@takes_pairs
def rfftn(g: Lowering, x: Tensor, *, axes: tuple[int, ...], sizes: Any, norm: str) -> Pair:
    lengths = [x.shape[axis] for axis in axes] if sizes is None else list(sizes)
    y = transform(g, x, axes[-1], lengths[-1], -1, lengths[-1] // 2 + 1)
    for axis, size in zip(axes[:-1], lengths[:-1], strict=True):
        y = transform(g, y, axis, size, -1)
    return scaled(g, y, lengths, norm, "forward")


@lowers("irfftn")
@takes_pairs
def irfftn(g: Lowering, x: Pair, *, axes: tuple[int, ...], sizes: Any, norm: str) -> Tensor:
    lengths = [x.shape[axis] for axis in axes] if sizes is None else list(sizes)
    if sizes is None:
        lengths[-1] = 2 * (x.shape[axes[-1]] - 1)
    for axis, size in zip(axes[:-1], lengths[:-1], strict=True):
        x = transform(g, x, axis, size, 1)
    place, size = axes[-1] % x.rank, lengths[-1]
    rows = minimum(x.shape[place], size // 2 + 1)
    real, imag = (_trimmed(g, last(g, part, place), rows) for part in (x.real, x.imag))
    cosine, sine = matrices(g, rows, size, size, real.dtype)
    # Every frequency but 0 and, for an even size, the middle one stands for its mirror image too.
    weights = _weights(g, rows, size, real.dtype)
    real = g.node("Mul", real, weights, spec=real.spec)
    imag = g.node("Mul", imag, weights, spec=imag.spec)
    y = apply(g, "Sub", _times(g, real, cosine), _times(g, imag, sine))
    return scaled(g, last(g, y, place), lengths, norm, "backward")


def _weights(g: Lowering, rows: Dim, size: Dim, dtype: DType) -> Tensor:
    if isinstance(rows, int) and isinstance(size, int):
        mirrored = (np.arange(rows) > 0) & (2 * np.arange(rows) != size)
        return g.constant(np.where(mirrored, 2, 1), dtype)
    spec, logical = TensorSpec(DType.INT64, (rows,)), TensorSpec(DType.BOOL, (rows,))
    places = g.node("Range", g.constant(0), g.scalar_size(rows), g.constant(1), spec=spec)
    single = g.node("Or", g.node("Equal", places, g.constant(0), spec=logical),
                    g.node("Equal", g.node("Mul", places, g.constant(2), spec=spec), g.scalar_size(size), spec=logical), spec=logical)
    return g.node("Where", single, g.constant(1, dtype), g.constant(2, dtype), spec=TensorSpec(dtype, (rows,)))


@lowers("stft")
@takes_pairs
def stft(g: Lowering, x: Tensor, window: Tensor | None, *, n_fft: int, hop_length: int, win_length: int | None, normalized: bool,
         onesided: bool) -> Pair:
    """A convolution whose channels are the frequencies' cosines and sines under the window."""
    if x.dtype is not DType.FLOAT32:
        raise g.refuse("a short-time Fourier transform in float64: ONNX Runtime convolves in float32")
    count = n_fft // 2 + 1 if onesided else n_fft
    angle = np.outer(np.arange(count), np.arange(n_fft)) % n_fft * (2 * np.pi / n_fft)
    scale = np.sqrt(n_fft) if normalized else 1.0
    _, kernels = _windows(g, window, [np.cos(angle) / scale, -np.sin(angle) / scale], n_fft, win_length or n_fft, x.dtype)
    parts = []
    lead = x if x.rank == 2 else g.node("Unsqueeze", x, g.constant([0]), spec=TensorSpec(x.dtype, (1, *x.shape)))
    lead = g.node("Unsqueeze", lead, g.constant([1]), spec=TensorSpec(x.dtype, (lead.shape[0], 1, lead.shape[1])))
    frames = g.result.shape[-1]
    for weight in kernels:
        spec = TensorSpec(x.dtype, (lead.shape[0], count, frames))
        y = g.node("Conv", lead, weight, spec=spec, strides=[hop_length])
        parts.append(y if x.rank == 2 else g.node("Squeeze", y, g.constant([0]), spec=TensorSpec(x.dtype, (count, frames))))
    return Pair(*parts)


@lowers("istft")
@takes_pairs
def istft(g: Lowering, x: Pair, window: Tensor | None, *, n_fft: int, hop_length: int, win_length: int | None, center: bool,
          normalized: bool, onesided: bool, length: Dim | None) -> Tensor:
    """Transposed convolutions: of the spectrum with windowed waves, and of ones with the squared window."""
    dtype = x.real.dtype
    if dtype is not DType.FLOAT32:
        raise g.refuse("a short-time Fourier transform in float64: ONNX Runtime convolves in float32")
    count, rank = n_fft // 2 + 1, x.rank
    places = np.arange(count)
    angle = np.outer(places, np.arange(n_fft)) % n_fft * (2 * np.pi / n_fft)
    weights = np.where((places == 0) | (2 * places == n_fft), 1, 2) / (np.sqrt(n_fft) if normalized else n_fft)
    waves = [weights[:, None] * np.cos(angle), -weights[:, None] * np.sin(angle)]
    squared, kernels = _windows(g, window, waves, n_fft, win_length or n_fft, dtype)
    parts = [part if rank == 3 else g.node("Unsqueeze", part, g.constant([0]), spec=TensorSpec(dtype, (1, *part.shape)))
             for part in (x.real, x.imag)]
    batch, frames = parts[0].shape[0], parts[0].shape[2]
    whole = n_fft + hop_length * (frames - 1)
    kept = TensorSpec(dtype, (batch, count, frames))
    if not onesided:
        parts = [cut(g, part, [1], [0], [count], spec=kept) for part in parts]
    spec = TensorSpec(dtype, (batch, 1, whole))
    sums = [g.node("ConvTranspose", part, kernel, spec=spec, strides=[hop_length]) for part, kernel in zip(parts, kernels, strict=True)]
    y = apply(g, "Add", *sums)
    ones = g.node("Expand", g.constant(1.0, dtype), g.sizes((1, 1, frames)), spec=TensorSpec(dtype, (1, 1, frames)))
    envelope = g.node("ConvTranspose", ones, squared, spec=TensorSpec(dtype, (1, 1, whole)), strides=[hop_length])
    start = n_fft // 2 if center else 0
    end = whole - start if length is None else minimum(start + length, whole)
    size = end - start
    y, envelope = (cut(g, item, [2], [start], [end], spec=TensorSpec(dtype, (*item.shape[:2], size))) for item in (y, envelope))
    y = apply(g, "Div", y, envelope)
    if length is not None and length != size:
        pads = g.sizes((0, 0, 0, 0, 0, length - size))
        y = g.node("Pad", y, pads, g.constant(0.0, dtype), spec=TensorSpec(dtype, (batch, 1, length)))
    return g.node("Squeeze", y, g.constant([1] if rank == 3 else [0, 1]), spec=TensorSpec(dtype, g.result.shape))


def _windows(g: Lowering, window: Tensor | None, waves: list[Any], n_fft: int, length: int, dtype: DType) -> tuple[Tensor, list[Tensor]]:
    """The squared window [1, 1, n_fft], and the waves under the window [frequencies, 1, n_fft]."""
    before = (n_fft - length) // 2
    inside = np.zeros(n_fft)
    inside[before:before + length] = 1
    if window is None:
        return g.constant(inside[None, None], dtype), [g.constant((wave * inside)[:, None], dtype) for wave in waves]
    wide = window
    if length != n_fft:
        wide = g.node("Pad", window, g.constant([before, n_fft - length - before]), g.constant(0, dtype), spec=TensorSpec(dtype, (n_fft,)))
    squared = g.node("Mul", wide, wide, spec=wide.spec)
    squared = g.node("Unsqueeze", squared, g.constant([0, 1]), spec=TensorSpec(dtype, (1, 1, n_fft)))
    kernels = [g.constant(wave[:, None], dtype) for wave in waves]
    return squared, [g.node("Mul", kernel, wide, spec=kernel.spec) for kernel in kernels]
