"""Convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.numpy.registry import kernel
from converter.opset import lookup

Array = np.ndarray[Any, Any]


@kernel("convolution")
def convolution(x: Array, weight: Array, bias: Array | None = None, *, stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
                dilation: tuple[int, ...] = (), groups: int = 1) -> Array:
    """As one matrix product over unfolded windows, a sample at a time, so that the windows stay small."""
    axes = weight.ndim - 2
    if x.dtype != np.float32 or axes != 2 or x.ndim != 4 or groups != 1 or len(padding) == 4 or not x.size:
        return lookup("convolution").kernel(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    (sh, sw), (dh, dw) = stride or (1, 1), dilation or (1, 1)
    ph, pw = padding or (0, 0)
    kh, kw = weight.shape[2:]
    batch, channels, height, width = x.shape
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    flat = weight.reshape(weight.shape[0], -1)
    y = np.empty((batch, weight.shape[0], rows, columns), np.float32)
    padded = np.zeros((channels, height + 2 * ph, width + 2 * pw), np.float32) if ph or pw else None
    windows = None if (kh, kw) == (1, 1) else np.empty((channels, kh, kw, rows, columns), np.float32)
    for sample in range(batch):
        if padded is None:
            image = x[sample]
        else:
            image = padded
            image[:, ph:ph + height, pw:pw + width] = x[sample]
        if windows is None:
            unfolded = np.ascontiguousarray(image[:, :(rows - 1) * sh + 1:sh, :(columns - 1) * sw + 1:sw]).reshape(channels, -1)
        else:
            for i in range(kh):
                for j in range(kw):
                    windows[:, i, j] = image[:, i * dh:i * dh + (rows - 1) * sh + 1:sh, j * dw:j * dw + (columns - 1) * sw + 1:sw]
            unfolded = windows.reshape(channels * kh * kw, -1)
        np.matmul(flat, unfolded, out=y[sample].reshape(weight.shape[0], -1))
        if bias is not None:
            y[sample] += bias[:, None, None]
    return y
