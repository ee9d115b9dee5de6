"""Max pooling over windows whose places given random numbers decide."""

from __future__ import annotations

import math

from converter.dims import Dim, product
from converter.facts import Facts
from converter.formulas import Space, Term, counted, dtype_of
from converter.ir import DType, TensorSpec
from converter.ops._rules import require, require_float, require_rank, require_size, same_dtype
from converter.ops._spatial import chosen, filled, spatial_rank
from converter.opset import op


def _fractional_max_pool(x: TensorSpec, samples: TensorSpec, *, kernel: tuple[int, ...],
                         size: tuple[int, ...]) -> tuple[TensorSpec, TensorSpec]:
    axes = len(kernel)
    require(axes in (2, 3), "wrong length of 'kernel'", expected="2 or 3 numbers", received=list(kernel))
    require_float(x)
    kernel, size = filled(kernel, axes, 1, "kernel", 1), filled(size, axes, 1, "size", 1)
    spatial_rank(x, axes)
    require_rank(samples, 3, what="the samples")
    require_size(samples.shape[2], axes, "the samples")
    for length, k, count in zip(x.shape[-axes:], kernel, size, strict=True):
        require(not isinstance(length, int) or count + k - 1 <= length, "the windows do not fit", received=length,
                expected=f"a size of {count + k - 1} or more")
    same_dtype(x, samples)
    shape = x.shape[:-axes] + size
    return TensorSpec(x.dtype, shape), TensorSpec(DType.INT64, shape)


def _starts(f: Space, samples: Term, length: Dim, kernel: int, count: int) -> Term:
    """[batch, channels, count]: where the windows of an axis start, given one number in [0, 1) each."""
    samples = f.expand_dims(samples, axis=(2,))
    alpha = f.full(shape=(), fill_value=length - kernel, dtype=dtype_of(samples)) / max(count - 1, 1)
    window = counted(f, count)
    starts = f.astype((f.astype(window, dtype=dtype_of(samples)) + samples) * alpha, dtype=DType.INT64)
    return f.where(f.equal(window, count - 1), length - kernel, starts - f.astype(samples * alpha, dtype=DType.INT64))


@op(infer=_fractional_max_pool, outputs=("y", "indices"), facts=Facts(carries=(0,)))
def fractional_max_pool(f: Space, x: Term, samples: Term, *, kernel: tuple[int, ...], size: tuple[int, ...]) -> tuple[Term, Term]:
    """The largest value of windows at pseudo-random places, and where it is: torch.nn.functional.fractional_max_pool2d, 3d.

    x: [batch, channels, *spatial] or [channels, *spatial]; samples: [batch, channels, axes], numbers u in [0, 1), the
    last spatial axis' first for images, the first axis' first for volumes. y, indices (int64, in the flattened spatial
    axes of x): [batch?, channels, *size].
    Window i of an axis of n elements starts at floor((i + u)·a) - floor(u·a), a = (n - kernel) / (size - 1), and the
    last one at n - kernel (B. Graham, "Fractional Max-Pooling", 2014).
    """
    axes = len(kernel)
    batched = x if x.ndim == axes + 2 else f.expand_dims(x, axis=(0,))
    lead, spatial, elements = batched.shape[:2], batched.shape[2:], math.prod(kernel)
    flat: Term = counted(f, 1)
    for axis, (length, k, count) in enumerate(zip(spatial, kernel, size, strict=True)):
        column = f.select(samples, axis=-1, index=axis if axes == 3 else axes - 1 - axis)
        places = f.expand_dims(_starts(f, column, length, k, count), axis=(3,)) + counted(f, k)
        here = (count if place == axis else k if place == axes + axis else 1 for place in range(2 * axes))
        flat = flat * length + f.reshape(places, shape=(*places.shape[:2], *here))
    flat = f.broadcast_to(f.reshape(flat, shape=(*flat.shape[:2], *size, elements)), shape=(*lead, *size, elements))
    found = (*lead, math.prod(size) * elements)
    values = f.take_along_axis(f.reshape(batched, shape=(*lead, product(spatial))), f.reshape(flat, shape=found), axis=2)
    values = f.reshape(values, shape=flat.shape)
    y = f.max(values, axis=(-1,))
    indices = chosen(f, y, f.equal(values, f.expand_dims(y, axis=(-1,))) | f.isnan(values), flat)
    return (y, indices) if x.ndim == axes + 2 else (f.squeeze(y, axis=(0,)), f.squeeze(indices, axis=(0,)))
