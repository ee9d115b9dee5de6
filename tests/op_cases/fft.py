"""Discrete Fourier transforms. Complex inputs are made in the function, since cases draw real ones."""

from __future__ import annotations

from typing import Any

import torch

from tests.op_cases import Case, f32, f64


def spectrum(function: Any, **options: Any) -> Any:
    """A function of a complex tensor as one of two real ones."""
    return lambda real, imag: function(torch.complex(real, imag), **options)


def there_and_back(length: int | None = None, **options: Any) -> Any:
    """A short-time transform and its inverse."""

    def call(x: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(8)
        middle = torch.stft(x, 8, 2, window=window, return_complex=True, **options)
        return torch.istft(middle, 8, 2, window=window, length=length, **options)

    return call


CASES = [
    Case("fftn", torch.fft.fft, f32("batch", 6)),
    Case("fftn", spectrum(torch.fft.fft, norm="ortho", dim=0), f32("time", 3), f32("time", 3), name="ortho, free axis"),
    Case("fftn", spectrum(torch.fft.fft2, norm="forward"), f32("batch", 5, 6), f32("batch", 5, 6), name="two axes, forward"),
    Case("fftn", spectrum(torch.fft.fftn, s=(4, 7), dim=(1, 0)), f64(5, 6), f64(5, 6), name="sizes, float64"),
    Case("ifftn", spectrum(torch.fft.ifft), f32("batch", 6), f32("batch", 6)),
    Case("ifftn", spectrum(torch.fft.ifft2, norm="ortho"), f32("batch", 4, 5), f32("batch", 4, 5), name="two axes"),
    Case("ifftn", spectrum(torch.fft.ifftn), f32(3, 4, 5), f32(3, 4, 5), name="all axes"),
    Case("rfftn", torch.fft.rfft, f32("batch", 7)),
    Case("rfftn", lambda x: torch.fft.rfft(x, n=9, norm="ortho"), f32("batch", 6), name="size, ortho"),
    Case("rfftn", torch.fft.rfft2, f32("batch", 5, 6), name="two axes"),
    Case("irfftn", spectrum(torch.fft.irfft), f32("batch", 5), f32("batch", 5)),
    Case("irfftn", spectrum(torch.fft.irfft, n=7, norm="forward"), f32("batch", 5), f32("batch", 5), name="odd size, forward"),
    Case("irfftn", spectrum(torch.fft.irfft2, s=(4, 9)), f32("batch", 4, 5), f32("batch", 4, 5), name="two axes"),
    Case("irfftn", spectrum(torch.fft.hfft), f32("batch", 5), f32("batch", 5), name="hfft"),
    Case("rfftn", torch.fft.ihfft, f32("batch", 6), name="ihfft"),
    Case("irfftn", lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 2, s=(6, 7)), f32("batch", 6, 7), name="there and back"),
    Case("roll", torch.fft.fftshift, f32("batch", 5), name="fftshift"),
    Case("roll", lambda x: torch.fft.ifftshift(x, dim=0), f32("batch", 4), name="ifftshift"),
    Case("stft", lambda x: torch.stft(x, 8, return_complex=True), f32("batch", 40)),
    Case("stft", lambda x: torch.stft(x, 8, 3, 6, torch.hann_window(6), center=False, normalized=True, onesided=False, return_complex=True),
         f32("batch", 40), name="window"),
    Case("stft", lambda x: torch.stft(x, 8, window=torch.hann_window(8, dtype=torch.float64), return_complex=True), f64("batch", 40),
         name="float64"),
    Case("fftn", spectrum(torch.fft.fft), f32("batch", 390), f32("batch", 390), name="in two steps"),
    Case("ifftn", spectrum(torch.fft.ifft), f32(2, 389), f32(2, 389), name="a large prime size"),
    Case("irfftn", lambda x: torch.fft.irfft(torch.fft.rfft(x)), f32("batch", 400), name="in two steps"),
    Case("istft", there_and_back(), f32("batch", 40)),
    Case("istft", there_and_back(length=38), f32(2, 40), name="length"),
    Case("istft", there_and_back(onesided=False, normalized=True), f32(2, 40), name="all frequencies"),
]
