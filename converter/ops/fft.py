"""Discrete Fourier transforms, whole and short-time. The Python Array API's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from converter.dims import Dim, fixed
from converter.ir import Array, TensorSpec
from converter.ops import _fourier
from converter.ops._rules import axis_of, require, require_rank, require_size, same_dtype
from converter.ops.complex_numbers import COMPLEX_OF, REAL_OF
from converter.opset import op

Norm = Literal["backward", "ortho", "forward"]
Sizes = tuple[Dim, ...] | None


def _transform(real_in: bool, real_out: bool) -> Callable[..., TensorSpec]:
    def infer(x: TensorSpec, *, axes: tuple[int, ...], sizes: Sizes = None, norm: str = "backward") -> TensorSpec:
        known = COMPLEX_OF if real_in else REAL_OF
        require(x.dtype in known, "wrong dtype of the input", expected=" or ".join(map(str, known)), received=x)
        places = [axis_of(axis, x.rank) for axis in axes]
        require(len(places) > 0 and len(set(places)) == len(places), "axes that a transform cannot take",
                expected="at least one, each once", received=axes)
        require(sizes is None or len(sizes) == len(places), "another number of sizes than of axes",
                expected=str(len(places)), received=sizes)
        shape = list(x.shape)
        for place, size in zip(places, sizes or (), strict=False):
            shape[place] = size
        if real_out and sizes is None:
            shape[places[-1]] = 2 * (x.shape[places[-1]] - 1)
        if real_in:
            shape[places[-1]] = shape[places[-1]] // 2 + 1
        return TensorSpec(known[x.dtype] if real_in or real_out else x.dtype, tuple(shape))

    return infer


def _numbers(sizes: tuple[Dim, ...] | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(map(fixed, sizes))


@op(infer=_transform(False, False), formula=_fourier.whole(-1))
def fftn(x: Array, *, axes: tuple[int, ...], sizes: tuple[Dim, ...] | None = None, norm: Norm = "backward") -> Array:
    """The discrete Fourier transform over `axes`: Y_k = Σ_j x_j exp(-2πi jk/n), complex in and out.

    sizes: what each axis is first cut or filled with zeros to. norm: "backward" divides nothing, "ortho" by √n,
    "forward" by n, n the product of the transformed sizes.
    """
    return np.fft.fftn(x, _numbers(sizes), axes, norm).astype(x.dtype, copy=False)


@op(infer=_transform(False, False), formula=_fourier.whole(1))
def ifftn(x: Array, *, axes: tuple[int, ...], sizes: tuple[Dim, ...] | None = None, norm: Norm = "backward") -> Array:
    """The inverse of `fftn`: "backward" divides by n, "ortho" by √n, "forward" nothing."""
    return np.fft.ifftn(x, _numbers(sizes), axes, norm).astype(x.dtype, copy=False)


@op(infer=_transform(True, False), formula=_fourier.of_real)
def rfftn(x: Array, *, axes: tuple[int, ...], sizes: tuple[Dim, ...] | None = None, norm: Norm = "backward") -> Array:
    """`fftn` of a real x without the half of the last axis that the other half mirrors: it has size n // 2 + 1."""
    return np.fft.rfftn(x, _numbers(sizes), axes, norm).astype(np.result_type(x.dtype, np.complex64), copy=False)


@op(infer=_transform(False, True), formula=_fourier.to_real)
def irfftn(x: Array, *, axes: tuple[int, ...], sizes: tuple[Dim, ...] | None = None, norm: Norm = "backward") -> Array:
    """The inverse of `rfftn`. The last of `axes` has size 2 (n - 1) for a null `sizes`."""
    return np.fft.irfftn(x, _numbers(sizes), axes, norm).astype(x.real.dtype, copy=False)


# Short-time transforms ---------------------------------------------------------------------------------------------------


def _centred(window: Array | None, n_fft: int, win_length: int | None, dtype: np.dtype[Any]) -> Array:
    """The window with zeros on both sides, n_fft long."""
    length = win_length or n_fft
    values = np.ones(length, dtype) if window is None else window
    left = (n_fft - length) // 2
    return np.pad(values, (left, n_fft - length - left))


def _window(window: TensorSpec | None, n_fft: int, win_length: int | None, hop_length: int) -> None:
    require(n_fft > 0 and hop_length > 0, "a size that is not positive", expected="n_fft and hop_length of 1 and up",
            received=f"{n_fft} and {hop_length}")
    require(win_length is None or 0 < win_length <= n_fft, "a window that does not fit", expected=f"1 to {n_fft}", received=win_length)
    if window is not None:
        require_rank(window, 1, what="the window")
        require_size(window.shape[0], win_length or n_fft, "the window")


def _stft(x: TensorSpec, window: TensorSpec | None = None, *, n_fft: int, hop_length: int, win_length: int | None = None,
          normalized: bool = False, onesided: bool = True) -> TensorSpec:
    require_rank(x, 1, 2)
    require(x.dtype in COMPLEX_OF, "wrong dtype of the input", expected="float32 or float64", received=x)
    same_dtype(x, window)
    _window(window, n_fft, win_length, hop_length)
    frames = (x.shape[-1] - n_fft) // hop_length + 1
    return TensorSpec(COMPLEX_OF[x.dtype], (*x.shape[:-1], n_fft // 2 + 1 if onesided else n_fft, frames))


@op(infer=_stft, formula=_fourier.short_time)
def stft(x: Array, window: Array | None = None, *, n_fft: int, hop_length: int, win_length: int | None = None,
         normalized: bool = False, onesided: bool = True) -> Array:
    """The Fourier transform of each frame of n_fft samples, hop_length apart: torch.stft with center=False.

    x: [batch, time] or [time], real; window: [win_length], which multiplies the middle of each frame (ones for null;
    win_length is n_fft for null). y: [batch, n_fft // 2 + 1, frames], or all n_fft frequencies without onesided.
    normalized divides by √n_fft.
    """
    frames = np.lib.stride_tricks.sliding_window_view(x, n_fft, axis=-1)[..., ::hop_length, :]
    frames = frames * _centred(window, n_fft, win_length, x.dtype)
    norm: Norm = "ortho" if normalized else "backward"
    spectrum = np.fft.rfft(frames, axis=-1, norm=norm) if onesided else np.fft.fft(frames, axis=-1, norm=norm)
    return np.swapaxes(spectrum, -1, -2).astype(np.result_type(x.dtype, np.complex64), copy=False)


def _istft(x: TensorSpec, window: TensorSpec | None = None, *, n_fft: int, hop_length: int, win_length: int | None = None,
           center: bool = True, normalized: bool = False, onesided: bool = True, length: Dim | None = None) -> TensorSpec:
    require_rank(x, 2, 3)
    require(x.dtype in REAL_OF, "wrong dtype of the input", expected="complex64 or complex128", received=x)
    _window(window, n_fft, win_length, hop_length)
    require_size(x.shape[-2], n_fft // 2 + 1 if onesided else n_fft, "the frequencies")
    whole = n_fft + hop_length * (x.shape[-1] - 1)
    return TensorSpec(REAL_OF[x.dtype], (*x.shape[:-2], whole - (2 * (n_fft // 2) if center else 0) if length is None else length))


@op(infer=_istft, formula=_fourier.from_short_time)
def istft(x: Array, window: Array | None = None, *, n_fft: int, hop_length: int, win_length: int | None = None,
          center: bool = True, normalized: bool = False, onesided: bool = True, length: Dim | None = None) -> Array:
    """The inverse of `stft`: torch.istft. Windowed frames are added up and divided by the sum of the squared windows.

    x: [batch, frequencies, frames] or [frequencies, frames], of which n_fft // 2 + 1 frequencies are read; y: [batch, time]
    or [time]. center leaves out n_fft // 2 samples at the start, and as many at the end unless `length` says how many
    samples to give (filled with zeros).
    """
    norm: Norm = "ortho" if normalized else "backward"
    frames = np.swapaxes(x, -1, -2)
    samples = np.fft.irfft(frames[..., :n_fft // 2 + 1], n_fft, axis=-1, norm=norm)
    weights = _centred(window, n_fft, win_length, x.real.dtype)
    count = samples.shape[-2]
    whole = n_fft + hop_length * (count - 1)
    places = np.arange(count)[:, None] * hop_length + np.arange(n_fft)
    y = np.zeros((*samples.shape[:-2], whole), x.real.dtype)
    np.add.at(y, (..., places), samples * weights)  # type: ignore[arg-type]
    envelope = np.zeros(whole, x.real.dtype)
    np.add.at(envelope, places, np.broadcast_to(weights * weights, places.shape))
    start = n_fft // 2 if center else 0
    end = whole - start if length is None else min(start + length, whole)
    y = y[..., start:end] / envelope[start:end]
    missing = 0 if length is None else length - y.shape[-1]
    return np.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, missing)]).astype(x.real.dtype, copy=False)
