"""Rotary positions."""

from __future__ import annotations

import numpy as np

from converter.dims import Dim
from converter.ir import TensorSpec
from converter.ops._rules import Array, broadcast_dims, require, require_float, require_size, same_dtype
from converter.ops.linear import widened
from converter.opset import op


def _rotary_embedding(x: TensorSpec, cosine: TensorSpec, sine: TensorSpec, *, interleaved: bool = False) -> TensorSpec:
    require_float(x)
    dtype = same_dtype(x, cosine, sine)
    require(x.rank >= 1 and cosine.rank >= 1 and sine.rank >= 1, "too few axes", expected="at least 1",
            received=f"{x}, {cosine} and {sine}")
    size, half = x.shape[-1], cosine.shape[-1]
    require(isinstance(size, int) and isinstance(half, int), "a size of the last axis that is not fixed", received=f"{x} and {cosine}")
    require_size(sine.shape[-1], half, "the last axis of the sines")
    require(2 * half <= size, "too many angles", expected=f"at most {size // 2}", received=half)  # type: ignore[operator]
    for angles in (cosine, sine):
        places: tuple[Dim, ...] = broadcast_dims(x.shape[:-1], angles.shape[:-1])
        require(places == x.shape[:-1], "angles for other places than the input's", expected=str(x), received=angles)
    return TensorSpec(dtype, x.shape)


@op(infer=_rotary_embedding)
def rotary_embedding(x: Array, cosine: Array, sine: Array, *, interleaved: bool = False) -> Array:
    """Pairs of elements of the last axis rotated by the angles that their cosines and sines give (Su et al. 2021).

    Element i is paired with element i + half, or 2i with 2i + 1 when `interleaved`; a pair (a, b) becomes
    (a · cosine - b · sine, b · cosine + a · sine). Elements past 2 · half stay as they are.
    x: [..., size]; cosine, sine: [..., half], 2 · half ≤ size, leading axes broadcast to x's; y like x.
    """
    half = cosine.shape[-1]
    first, second = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(0, half), slice(half, 2 * half))
    wider, c, s = widened(x), widened(cosine), widened(sine)
    a, b = wider[..., first], wider[..., second]
    y = wider.copy()
    y[..., first] = a * c - b * s
    y[..., second] = b * c + a * s
    return np.asarray(y).astype(x.dtype, copy=False)
