"""Normalization."""

from __future__ import annotations

import numpy as np

from adapters.numpy.blocks import BLOCK, in_blocks, rowwise
from adapters.numpy.buffers import empty
from adapters.numpy.registry import kernel
from converter.ir import Array
from converter.opset import lookup


@kernel("layer_norm")
def layer_norm(x: Array, weight: Array | None = None, bias: Array | None = None, *, normalized_shape: tuple[int, ...],
               eps: float = 1e-5) -> Array:
    if x.dtype != np.float32 or not x.size:
        return lookup("layer_norm").kernel(x, weight, bias, normalized_shape=normalized_shape, eps=eps)
    scale = None if weight is None else weight.reshape(-1)
    shift = None if bias is None else bias.reshape(-1)

    def compute(rows: Array, out: Array) -> None:
        np.subtract(rows, rows.mean(axis=1, keepdims=True), out=out)
        spread = np.einsum("ij,ij->i", out, out) / np.float32(rows.shape[1]) + np.float32(eps)
        out *= (1 / np.sqrt(spread))[:, None]
        if scale is not None:
            out *= scale
        if shift is not None:
            out += shift

    return rowwise(x, compute, len(normalized_shape))


@kernel("rms_norm")
def rms_norm(x: Array, weight: Array | None = None, *, normalized_shape: tuple[int, ...], eps: float | None = None) -> Array:
    if x.dtype != np.float32 or not x.size:
        return lookup("rms_norm").kernel(x, weight, normalized_shape=normalized_shape, eps=eps)
    scale = None if weight is None else weight.reshape(-1)
    small = np.float32(np.finfo(np.float32).eps if eps is None else eps)

    def compute(rows: Array, out: Array) -> None:
        spread = np.einsum("ij,ij->i", rows, rows) / np.float32(rows.shape[1]) + small
        np.multiply(rows, (1 / np.sqrt(spread))[:, None], out=out)
        if scale is not None:
            out *= scale

    return rowwise(x, compute, len(normalized_shape))


@kernel("batch_norm")
def batch_norm(x: Array, running_mean: Array | None = None, running_var: Array | None = None, weight: Array | None = None,
               bias: Array | None = None, *, eps: float = 1e-5) -> Array:
    if x.dtype != np.float32 or running_mean is None or running_var is None or running_mean.dtype != np.float32 or not x.size:
        return lookup("batch_norm").kernel(x, running_mean, running_var, weight, bias, eps=eps)
    scale = 1 / np.sqrt(running_var + np.float32(eps))
    if weight is not None:
        scale = scale * weight
    images = np.ascontiguousarray(x).reshape(x.shape[0] * x.shape[1], -1)
    y = empty(images.shape, np.float32)
    means = np.tile(running_mean, x.shape[0])[:, None]
    scales = np.tile(scale, x.shape[0])[:, None]
    shifts = None if bias is None else np.tile(bias, x.shape[0])[:, None]

    def compute(part: slice) -> None:
        out = y[part]
        np.subtract(images[part], means[part], out=out)
        out *= scales[part]
        if shifts is not None:
            out += shifts[part]

    in_blocks(len(images), max(1, BLOCK * 2 // images.shape[1]), compute)
    return y.reshape(x.shape)
