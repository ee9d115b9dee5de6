"""Rotary positions."""

from __future__ import annotations

from converter.dims import Dim, fixed
from converter.formulas import Space, Term, widened
from converter.ir import TensorSpec
from converter.ops._rules import broadcast_dims, require, require_float, require_size, same_dtype
from converter.opset import op


def _rotary_embedding(x: TensorSpec, cosine: TensorSpec, sine: TensorSpec, *, interleaved: bool = False) -> TensorSpec:
    require_float(x)
    dtype = same_dtype(x, cosine, sine)
    require(x.rank >= 1 and cosine.rank >= 1 and sine.rank >= 1, "too few axes", expected="at least 1",
            received=f"{x}, {cosine} and {sine}")
    size, half = x.shape[-1], cosine.shape[-1]
    require(isinstance(size, int) and isinstance(half, int), "a size of the last axis that is not fixed", received=f"{x} and {cosine}")
    require_size(sine.shape[-1], half, "the last axis of the sines")
    require(2 * fixed(half) <= fixed(size), "too many angles", expected=f"at most {size // 2}", received=half)
    for angles in (cosine, sine):
        places: tuple[Dim, ...] = broadcast_dims(x.shape[:-1], angles.shape[:-1])
        require(places == x.shape[:-1], "angles for other places than the input's", expected=str(x), received=angles)
    return TensorSpec(dtype, x.shape)


@op(infer=_rotary_embedding)
@widened
def rotary_embedding(f: Space, x: Term, cosine: Term, sine: Term, *, interleaved: bool = False) -> Term:
    """Pairs of elements of the last axis rotated by the angles that their cosines and sines give (Su et al. 2021).

    Element i is paired with element i + half, or 2i with 2i + 1 when `interleaved`; a pair (a, b) becomes
    (a · cosine - b · sine, b · cosine + a · sine). Elements past 2 · half stay as they are.
    x: [..., size]; cosine, sine: [..., half], 2 · half ≤ size, leading axes broadcast to x's; y like x.
    """
    size, half = x.shape[-1], cosine.shape[-1]
    turning = x if size == 2 * half else f.slice(x, axes=(-1,), starts=(0,), stops=(2 * half,))
    if interleaved:
        a, b = (f.slice(turning, axes=(-1,), starts=(start,), stops=(None,), steps=(2,)) for start in (0, 1)) if half else (turning,) * 2
    else:
        a, b = f.split(turning, sizes=(half, half), axis=-1)
    turned = a * cosine - b * sine, b * cosine + a * sine
    y = f.reshape(f.stack(*turned, axis=-1), shape=turning.shape) if interleaved else f.concat(*turned, axis=-1)
    return y if size == 2 * half else f.concat(y, f.slice(x, axes=(-1,), starts=(2 * half,), stops=(None,)), axis=-1)
