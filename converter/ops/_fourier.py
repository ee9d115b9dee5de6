"""Fourier transforms as formulas: products with matrices of exact angles, for any size; large fixed sizes in two smaller steps.

J. W. Cooley & J. W. Tukey, "An algorithm for the machine calculation of complex Fourier series", Math. Comp. 19 (1965); for prime
sizes, L. Bluestein, "A linear filtering approach to the computation of discrete Fourier transform", IEEE Trans. Audio 18 (1970).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from converter.dims import Dim, minimum, product
from converter.formulas import Formula, Space, Term, counted, dtype_of
from converter.ir import DType
from converter.ops.complex_numbers import REAL_OF

WHOLE = 384
"""The largest fixed size whose matrix is multiplied with as a whole."""

CONVOLVED = 2048
"""The largest frame whose spectrum is a convolution."""

Parts = tuple[Term, Term | None]
"""The real and the imaginary part of a complex tensor; None for an imaginary part of 0."""


def _waves(f: Space, steps: Term, size: Dim, dtype: DType) -> tuple[Term, Term]:
    """cos and sin of 2π · steps / size for integer steps."""
    whole = f.full(shape=(), fill_value=size, dtype=DType.INT64)
    unit = 2 * math.pi / f.astype(whole, dtype=DType.FLOAT64)
    phase = f.astype(f.remainder(steps, whole), dtype=DType.FLOAT64) * unit
    return f.astype(f.cos(phase), dtype=dtype), f.astype(f.sin(phase), dtype=dtype)


def _grid(f: Space, rows: Dim, columns: Dim) -> Term:
    """j · k for rows j and columns k."""
    return counted(f, rows, 0, 2) * counted(f, columns)


def _times(x: Parts, wave: tuple[Term, Term], sign: int, by: Callable[[Term, Term], Term]) -> Parts:
    """x · (cos + sign · i · sin), by any bilinear product."""
    (real, imag), (cosine, sine) = x, wave
    turned = by(real, sine)
    first, second = by(real, cosine), turned if sign > 0 else -turned
    if imag is None:
        return first, second
    other = by(imag, sine)
    return first - other if sign > 0 else first + other, second + by(imag, cosine)


def _each(x: Parts, function: Callable[[Term], Term]) -> Parts:
    return function(x[0]), None if x[1] is None else function(x[1])


def _resized(f: Space, x: Term, size: Dim) -> Term:
    """x cut, or filled with zeros, to a fixed size along its last axis."""
    own = x.shape[-1]
    if own == size:
        return x
    kept = minimum(own, size)
    x = x if own == kept else f.slice(x, axes=(-1,), starts=(0,), stops=(kept,))
    return x if kept == size else f.pad(x, pads=((0, 0),) * (x.ndim - 1) + ((0, size - kept),))


def _factor(size: int) -> int:
    """The divisor of a size that is nearest below its root; 1 for a prime."""
    return next(part for part in range(math.isqrt(size), 0, -1) if size % part == 0)


def transform(f: Space, x: Parts, size: Dim, sign: int, columns: Dim | None = None) -> Parts:
    """Σ_j x_j exp(sign · 2πi jk / size) along the last axis, of which `columns` results are given (all by default).

    An axis longer than `size` is cut; a shorter one counts as filled with zeros.
    """
    dtype, columns = dtype_of(x[0]), size if columns is None else columns
    if not isinstance(size, int) or size <= WHOLE:
        rows = minimum(x[0].shape[-1], size)
        wave = _waves(f, _grid(f, rows, columns), size, dtype)
        return _times(_each(x, lambda part: _resized(f, part, rows)), wave, sign, f.matmul)
    few = _factor(size)
    y = _in_two(f, x, size, few, sign) if few > 1 else _chirped(f, x, size, sign)
    return _each(y, lambda part: _resized(f, part, columns))


def _in_two(f: Space, x: Parts, size: int, few: int, sign: int) -> Parts:
    """By rows and columns: element j = many · j₁ + j₂ and frequency k = k₁ + few · k₂."""
    many, lead = size // few, x[0].shape[:-1]

    def flipped(part: Term) -> Term:
        return f.permute_dims(part, axes=(*range(part.ndim - 2), part.ndim - 1, part.ndim - 2))

    y = transform(f, _each(x, lambda part: flipped(f.reshape(_resized(f, part, size), shape=(*lead, few, many)))), few, sign)
    y = _times(y, _waves(f, _grid(f, many, few), size, dtype_of(x[0])), sign, f.multiply)
    y = transform(f, _each(y, flipped), many, sign)
    return _each(y, lambda part: f.reshape(flipped(part), shape=(*lead, size)))


def _chirped(f: Space, x: Parts, size: int, sign: int) -> Parts:
    """By a cyclic convolution with exp(-sign · πi j² / size), of a size that is a power of two."""
    dtype, length = dtype_of(x[0]), 1 << (2 * size - 1).bit_length()
    index = counted(f, size)
    chirp = _waves(f, f.square(index), 2 * size, dtype)
    cosine, sine = (f.concat(part, f.full(shape=(length - 2 * size + 1,), fill_value=0.0, dtype=dtype),
                             f.flip(_resized(f, f.slice(part, axes=(0,), starts=(1,), stops=(size,)), size - 1), axis=(0,)), axis=0)
                    for part in chirp)
    kernel = transform(f, (cosine, sine if sign < 0 else -sine), length, -1)
    y = transform(f, _times(_each(x, lambda part: _resized(f, part, size)), chirp, sign, f.multiply), length, -1)
    y = transform(f, _times(y, kernel, 1, f.multiply), length, 1)
    y = _times(_each(y, lambda part: _resized(f, part, size)), chirp, sign, f.multiply)
    return _each(y, lambda part: part / float(length))


def _scaled(f: Space, x: Term, count: Dim, norm: str, divided_by: str) -> Term:
    """Divided by n where `norm` is `divided_by`, and by √n for "ortho"."""
    if norm not in (divided_by, "ortho"):
        return x
    if isinstance(count, int):
        return x / (math.sqrt(count) if norm == "ortho" else float(count))
    divisor = f.full(shape=(), fill_value=count, dtype=dtype_of(x))
    return x / (f.sqrt(divisor) if norm == "ortho" else divisor)


def _along(f: Space, x: Parts, axis: int, size: Dim, sign: int, columns: Dim | None = None) -> Parts:
    """`transform` along any axis."""
    order = list(range(x[0].ndim))
    order[axis], order[-1] = order[-1], order[axis]
    moved = _each(x, lambda part: f.permute_dims(part, axes=tuple(order)))
    return _each(transform(f, moved, size, sign, columns), lambda part: f.permute_dims(part, axes=tuple(order)))


def _lengths(x: Term, axes: tuple[int, ...], sizes: Sequence[Dim] | None) -> list[Dim]:
    return [x.shape[axis] for axis in axes] if sizes is None else list(sizes)


def whole(sign: int) -> Formula:
    """The formula of `fftn` (-1) or `ifftn` (1)."""

    def formula(f: Space, x: Term, *, axes: tuple[int, ...], sizes: Sequence[Dim] | None, norm: str) -> Term:
        lengths, parts = _lengths(x, axes, sizes), (f.real(x), f.imag(x))
        for axis, size in zip(axes, lengths, strict=True):
            parts = _along(f, parts, axis, size, sign)
        return f.complex(*(_scaled(f, part, product(lengths), norm, "forward" if sign < 0 else "backward") for part in parts))

    return formula


def of_real(f: Space, x: Term, *, axes: tuple[int, ...], sizes: Sequence[Dim] | None, norm: str) -> Term:
    """The formula of `rfftn`."""
    lengths = _lengths(x, axes, sizes)
    parts = _along(f, (x, None), axes[-1], lengths[-1], -1, lengths[-1] // 2 + 1)
    for axis, size in zip(axes[:-1], lengths[:-1], strict=True):
        parts = _along(f, parts, axis, size, -1)
    return f.complex(*(_scaled(f, part, product(lengths), norm, "forward") for part in parts))


def to_real(f: Space, x: Term, *, axes: tuple[int, ...], sizes: Sequence[Dim] | None, norm: str) -> Term:
    """The formula of `irfftn`."""
    lengths = _lengths(x, axes, sizes)
    if sizes is None:
        lengths[-1] = 2 * (x.shape[axes[-1]] - 1)
    parts: Parts = (f.real(x), f.imag(x))
    for axis, size in zip(axes[:-1], lengths[:-1], strict=True):
        parts = _along(f, parts, axis, size, 1)
    order = list(range(x.ndim))
    order[axes[-1]], order[-1] = order[-1], order[axes[-1]]
    y = mirrored(f, _each(parts, lambda part: f.permute_dims(part, axes=tuple(order))), lengths[-1])
    return _scaled(f, f.permute_dims(y, axes=tuple(order)), product(lengths), norm, "backward")


def mirrored(f: Space, x: Parts, size: Dim) -> Term:
    """The real inverse of the first half of a spectrum along the last axis, not scaled.

    Every frequency but 0 and, for an even size, the middle one stands for its mirror image too.
    """
    rows, dtype = minimum(x[0].shape[-1], size // 2 + 1), dtype_of(x[0])
    index, last = counted(f, rows), f.full(shape=(), fill_value=size, dtype=DType.INT64)
    one = f.full(shape=(), fill_value=1.0, dtype=dtype)
    weights = f.where(f.equal(index, 0) | f.equal(index * 2, last), one, 2.0)
    real, imag = (f.multiply(_resized(f, part, rows), weights) for part in x)
    if isinstance(size, int) and size > WHOLE:
        return transform(f, (real, imag), size, 1)[0]
    cosine, sine = _waves(f, _grid(f, rows, size), size, dtype)
    return f.matmul(real, cosine) - f.matmul(imag, sine)


# Short-time transforms -------------------------------------------------------------------------------------------------------


def _centred(f: Space, window: Term | None, n_fft: int, length: int, dtype: DType) -> Term:
    """The window with zeros on both sides, n_fft long."""
    values = f.full(shape=(length,), fill_value=1.0, dtype=dtype) if window is None else window
    left = (n_fft - length) // 2
    return values if length == n_fft else f.pad(values, pads=((left, n_fft - length - left),))


def short_time(f: Space, x: Term, window: Term | None, *, n_fft: int, hop_length: int, win_length: int | None, normalized: bool,
               onesided: bool) -> Term:
    """The formula of `stft`."""
    dtype, count = dtype_of(x), n_fft // 2 + 1 if onesided else n_fft
    weights = _centred(f, window, n_fft, win_length or n_fft, dtype)
    if n_fft <= CONVOLVED and dtype is DType.FLOAT32:
        # A convolution whose channels are the frequencies' cosines and sines.
        cosine, sine = _waves(f, _grid(f, count, n_fft), n_fft, dtype)
        whole = f.reshape(x, shape=(product(x.shape[:-1]), 1, x.shape[-1]))
        found = (f.convolution(whole, f.expand_dims(wave * weights, axis=(1,)), stride=(hop_length,)) for wave in (cosine, -sine))
        parts = _each(tuple(found), lambda part: f.reshape(part, shape=(*x.shape[:-1], *part.shape[1:])))
    else:
        frames = transform(f, (f.unfold(x, axis=-1, size=n_fft, step=hop_length) * weights, None), n_fft, -1, count)
        parts = _each(frames, lambda part: f.permute_dims(part, axes=(*range(x.ndim - 1), x.ndim, x.ndim - 1)))
    return f.complex(*(_scaled(f, part, n_fft, "ortho" if normalized else "backward", "forward") for part in parts))


def from_short_time(f: Space, x: Term, window: Term | None, *, n_fft: int, hop_length: int, win_length: int | None, center: bool,
                    normalized: bool, onesided: bool, length: Dim | None) -> Term:
    """The formula of `istft`."""
    dtype, frames, lead = REAL_OF[dtype_of(x)], x.shape[-1], x.shape[:-2]
    turn = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    samples = mirrored(f, (f.permute_dims(f.real(x), axes=turn), f.permute_dims(f.imag(x), axes=turn)), n_fft)
    samples = _scaled(f, samples, n_fft, "ortho" if normalized else "backward", "backward")
    weights, size = _centred(f, window, n_fft, win_length or n_fft, dtype), n_fft + hop_length * (frames - 1)

    def added(columns: Term) -> Term:
        """Frames [..., frames, n_fft] added up where they overlap."""
        columns = f.permute_dims(columns, axes=(*range(columns.ndim - 2), columns.ndim - 1, columns.ndim - 2))
        image = f.col2im(columns, output_size=(1, size), kernel_size=(1, n_fft), stride=(1, hop_length))
        return f.reshape(image, shape=(*columns.shape[:-2], size))

    y, envelope = added(samples * weights), added(f.broadcast_to(f.square(weights), shape=(frames, n_fft)))
    start = n_fft // 2 if center else 0
    end = size - start if length is None else minimum(start + length, size)
    y, envelope = (f.slice(item, axes=(-1,), starts=(start,), stops=(end,)) for item in (y, envelope))
    y = y / envelope
    return y if length is None or length == end - start else f.pad(y, pads=((0, 0),) * len(lead) + ((0, length - (end - start)),))
