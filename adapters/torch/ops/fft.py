"""Discrete Fourier transforms, whole and short-time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from adapters.torch.registry import imports, rebuilds
from adapters.torch.tracing.importer import Importer
from converter.builder import Value
from converter.dims import Dim
from converter.ops.complex_numbers import COMPLEX_OF, REAL_OF

NORMS = {None: "backward", "backward": "backward", "ortho": "ortho", "forward": "forward"}
SWAPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}
REAL_IN, REAL_OUT = frozenset({"rfftn"}), frozenset({"irfftn"})


def _emit(g: Importer, operator: str, x: Value, axes: Sequence[int], sizes: Sequence[Dim] | None, norm: str) -> Value:
    """The transform, from the dtype that the operator takes."""
    if operator in REAL_IN:
        if x.dtype.is_complex:
            raise g.refuse("a real transform of complex numbers")
        if x.dtype not in COMPLEX_OF:
            x = g.cast(x, REAL_OF[g.result_dtype()])
    elif not x.dtype.is_complex:
        real = x if x.dtype in COMPLEX_OF else g.cast(x, REAL_OF.get(g.result_dtype(), g.result_dtype()))
        x = g.op("complex", real, 0.0)
    places = tuple(axis % x.rank for axis in axes)
    if sizes is not None and operator not in REAL_OUT and all(x.shape[place] == size for place, size in zip(places, sizes, strict=True)):
        sizes = None
    return g.op(operator, x, axes=places, sizes=None if sizes is None else tuple(sizes), norm=norm)


def _one(operator: str) -> Callable[..., Value]:
    def importer(g: Importer, self: Value, n: Any = None, dim: int = -1, norm: str | None = None) -> Value:
        return _emit(g, operator, self, [dim], None if n is None else [n], NORMS[norm])

    return importer


def _many(operator: str, default: tuple[int, ...] | None) -> Callable[..., Value]:
    def importer(g: Importer, self: Value, s: Any = None, dim: Any = default, norm: str | None = None) -> Value:
        if dim is None:
            count = self.rank if s is None else len(s)
            dim = range(self.rank - count, self.rank)
        axes = [axis % self.rank for axis in dim]
        if s is not None:
            # -1 keeps a size.
            given = [self.shape[axis] if size == -1 else size for axis, size in zip(axes, s, strict=True)]
            if operator in REAL_OUT and s[-1] == -1:
                given[-1] = 2 * (self.shape[axes[-1]] - 1)
            return _emit(g, operator, self, axes, given, NORMS[norm])
        return _emit(g, operator, self, axes, None, NORMS[norm]) if axes else self

    return importer


for _name, _operator in (("fft", "fftn"), ("ifft", "ifftn"), ("rfft", "rfftn"), ("irfft", "irfftn")):
    imports(f"aten.fft_{_name}.default")(_one(_operator))
    imports(f"aten.fft_{_name}2.default")(_many(_operator, (-2, -1)))
    imports(f"aten.fft_{_name}n.default")(_many(_operator, None))


@imports("aten.fft_hfft.default")
def hfft(g: Importer, self: Value, n: Any = None, dim: int = -1, norm: str | None = None) -> Value:
    """The inverse real transform of the conjugate, scaled the other way."""
    x = g.op("conj", self) if self.dtype.is_complex else self
    return _emit(g, "irfftn", x, [dim], None if n is None else [n], SWAPPED[NORMS[norm]])


@imports("aten.fft_ihfft.default")
def ihfft(g: Importer, self: Value, n: Any = None, dim: int = -1, norm: str | None = None) -> Value:
    return g.op("conj", _emit(g, "rfftn", self, [dim], None if n is None else [n], SWAPPED[NORMS[norm]]))


# The core forms: `normalization` is 0 for none, 1 for √n, 2 for n.
FORWARD, INVERSE = ("backward", "ortho", "forward"), ("forward", "ortho", "backward")


@imports("aten._fft_c2c.default")
def c2c(g: Importer, self: Value, dim: list[int], normalization: int, forward: bool) -> Value:
    if not dim:
        return self
    return _emit(g, "fftn" if forward else "ifftn", self, dim, None, (FORWARD if forward else INVERSE)[normalization])


@imports("aten._fft_r2c.default")
def r2c(g: Importer, self: Value, dim: list[int], normalization: int, onesided: bool) -> Value:
    return _emit(g, "rfftn" if onesided else "fftn", self, dim, None, FORWARD[normalization])


@imports("aten._fft_c2r.default")
def c2r(g: Importer, self: Value, dim: list[int], normalization: int, last_dim_size: Any) -> Value:
    sizes = [self.shape[axis] for axis in dim[:-1]] + [last_dim_size]
    return _emit(g, "irfftn", self, dim, sizes, INVERSE[normalization])


def _shift(direction: int) -> Callable[..., Value]:
    def importer(g: Importer, self: Value, dim: list[int] | None = None) -> Value:
        axes = tuple(range(self.rank)) if dim is None else tuple(axis % self.rank for axis in dim)
        halves = tuple(self.shape[axis] // 2 if direction > 0 else (self.shape[axis] + 1) // 2 for axis in axes)
        return g.op("roll", self, shift=halves, axis=axes) if axes else self

    return importer


imports("aten.fft_fftshift.default")(_shift(1))
imports("aten.fft_ifftshift.default")(_shift(-1))


# Short-time transforms ---------------------------------------------------------------------------------------------------


@imports("aten.stft.default")
def stft(g: Importer, self: Value, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
         window: Value | None = None, normalized: bool = False, onesided: bool | None = None,
         return_complex: bool | None = None, align_to_window: bool | None = None) -> Value:
    if self.dtype.is_complex and not onesided and not align_to_window and (window is None or window.dtype is REAL_OF[self.dtype]):
        settings: dict[str, Any] = {"n_fft": n_fft, "hop_length": hop_length or n_fft // 4, "win_length": win_length,
                                    "normalized": normalized, "onesided": False}
        real, imag = (g.op("stft", g.op(part, self), window, **settings) for part in ("real", "imag"))
        whole = g.op("add", real, g.op("multiply", imag, 1j))
        return whole if g.result_dtype().is_complex and whole.shape == g.result_shape() else g.op("view_as_real", whole)
    if self.dtype not in COMPLEX_OF or window is not None and window.dtype is not self.dtype:
        raise g.refuse("a short-time transform of other than float32 or float64, with a window of the same dtype")
    if align_to_window:
        raise g.refuse("align_to_window=True")
    y = g.op("stft", self, window, n_fft=n_fft, hop_length=hop_length or n_fft // 4, win_length=win_length,
             normalized=normalized, onesided=onesided is not False)
    return y if g.result_dtype().is_complex else g.op("view_as_real", y)


@imports("aten.stft.center")
def centred_stft(g: Importer, self: Value, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
                 window: Value | None = None, center: bool = True, pad_mode: str = "reflect", normalized: bool = False,
                 onesided: bool | None = None, return_complex: bool | None = None, align_to_window: bool | None = None) -> Value:
    if center:
        raise g.refuse("padding inside aten.stft: pad before it")
    return stft(g, self, n_fft, hop_length, win_length, window, normalized, onesided, return_complex, align_to_window)


@imports("aten.istft.default")
def istft(g: Importer, self: Value, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
          window: Value | None = None, center: bool = True, normalized: bool = False, onesided: bool | None = None,
          length: Any = None, return_complex: bool = False) -> Value:
    if return_complex:
        raise g.refuse("istft with a complex result")
    if onesided is None:
        onesided = self.shape[-2] != n_fft
    return g.op("istft", self, window, n_fft=n_fft, hop_length=hop_length or n_fft // 4, win_length=win_length, center=center,
                normalized=normalized, onesided=onesided, length=length)


@imports("neutral_model.istft.default")
def istft_to_length(g: Importer, x: Value, n_fft: int, hop_length: int, win_length: int, window: Value, center: bool, normalized: bool,
                    onesided: bool, length: Dim) -> Value:
    return istft(g, x, n_fft, hop_length, win_length, window, center, normalized, onesided, length)


# Back to torch -----------------------------------------------------------------------------------------------------------


def _rebuild(name: str) -> Callable[..., torch.Tensor]:
    def function(x: torch.Tensor, *, axes: tuple[int, ...], sizes: tuple[int, ...] | None = None, norm: str = "backward") -> torch.Tensor:
        return getattr(torch.fft, name)(x, sizes, axes, norm)

    return function


for _operator in ("fftn", "ifftn", "rfftn", "irfftn"):
    rebuilds(_operator)(_rebuild(_operator))


def _whole_window(window: torch.Tensor | None, length: int, x: torch.Tensor) -> torch.Tensor:
    return torch.ones(length, dtype=x.real.dtype if x.is_complex() else x.dtype) if window is None else window


@rebuilds("stft")
def rebuild_stft(x: torch.Tensor, window: torch.Tensor | None = None, *, n_fft: int, hop_length: int, win_length: int | None = None,
                 normalized: bool = False, onesided: bool = True) -> torch.Tensor:
    length = win_length or n_fft
    return torch.stft(x, n_fft, hop_length, length, _whole_window(window, length, x), center=False, normalized=normalized,
                      onesided=onesided, return_complex=True)


@rebuilds("istft")
def rebuild_istft(x: torch.Tensor, window: torch.Tensor | None = None, *, n_fft: int, hop_length: int, win_length: int | None = None,
                  center: bool = True, normalized: bool = False, onesided: bool = True, length: int | None = None) -> torch.Tensor:
    size = win_length or n_fft
    return torch.istft(x, n_fft, hop_length, size, _whole_window(window, size, x), center=center, normalized=normalized,
                       onesided=onesided, length=length)
