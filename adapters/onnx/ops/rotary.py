"""Rotary positions: from opset 23 an operator of its own, which ONNX Runtime computes in a quarter of the time; before,
x · cosines + (x with its pairs exchanged) · sines, both of which all layers share."""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor, once
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.ops.elementwise import apply
from adapters.onnx.registry import lowers
from converter.dims import Dim, fixed
from converter.ir import DType, TensorSpec


@lowers("rotary_embedding")
@through_float32
def rotary_embedding(g: Lowering, x: Tensor, cosine: Tensor, sine: Tensor, *, interleaved: bool) -> Tensor:
    rotated, size = 2 * fixed(cosine.shape[-1]), fixed(x.shape[-1])
    if not rotated:
        return x
    if g.opset >= 23 and x.dtype is DType.FLOAT32 and _fits_operator(x, cosine) and _fits_operator(x, sine):
        return g.node("RotaryEmbedding", x, _table(g, cosine, x.shape[0], x.dtype), _table(g, sine, x.shape[0], x.dtype), spec=x.spec,
                      interleaved=int(interleaved), rotary_embedding_dim=rotated if rotated < size else 0)
    turned, kept = x, None
    if rotated < size:
        parts = (TensorSpec(x.dtype, (*x.shape[:-1], rotated)), TensorSpec(x.dtype, (*x.shape[:-1], size - rotated)))
        turned, kept = g.nodes_out("Split", x, g.constant([rotated, size - rotated]), specs=parts, axis=-1)
    turned = apply(g, "Add", apply(g, "Mul", turned, _doubled(g, cosine, False, interleaved)),
                   apply(g, "Mul", _exchanged(g, turned, interleaved), _doubled(g, sine, True, interleaved)))
    return turned if kept is None else g.node("Concat", turned, kept, spec=x.spec, axis=-1)


def _fits_operator(x: Tensor, angles: Tensor) -> bool:
    """Whether ONNX's operator takes these: [batch, heads, time, size], and angles that are the same for all heads."""
    shape = angles.shape
    return (x.rank == 4 and 2 <= angles.rank <= 4 and shape[-2] == x.shape[2] and (angles.rank < 3 or shape[-3] == 1)
            and (angles.rank < 4 or shape[0] in (1, x.shape[0])))


@once
def _table(g: Lowering, angles: Tensor, batch: Dim, dtype: DType) -> Tensor:
    """[batch, time, half], made once for all layers."""
    shape: tuple[Dim, ...] = (batch, *angles.shape[-2:])
    rows = g.reshape(angles, (angles.shape[0], *shape[1:])) if angles.rank == 4 else angles
    return rows if rows.shape == shape else g.node("Expand", rows, g.sizes(shape), spec=TensorSpec(dtype, shape))


@once
def _doubled(g: Lowering, angles: Tensor, opposite: bool, interleaved: bool) -> Tensor:
    """[..., 2 · half]: the numbers of both elements of each pair, the first ones `opposite` in sign. Made once."""
    return _joined(g, apply(g, "Neg", angles) if opposite else angles, angles, interleaved)


def _joined(g: Lowering, first: Tensor, second: Tensor, interleaved: bool) -> Tensor:
    half = fixed(first.shape[-1])
    spec = TensorSpec(first.dtype, (*first.shape[:-1], 2 * half))
    if not interleaved:
        return g.node("Concat", first, second, spec=spec, axis=-1)
    single = (*first.shape, 1)
    pairs = g.node("Concat", g.reshape(first, single), g.reshape(second, single), spec=TensorSpec(first.dtype, (*first.shape, 2)), axis=-1)
    return g.reshape(pairs, spec.shape)


def _exchanged(g: Lowering, x: Tensor, interleaved: bool) -> Tensor:
    """x, the elements of each pair in the other order."""
    half = fixed(x.shape[-1]) // 2
    pairs = g.reshape(x, (*x.shape[:-1], half, 2)) if interleaved else x
    part = TensorSpec(x.dtype, (*pairs.shape[:-1], fixed(pairs.shape[-1]) // 2))
    a, b = g.nodes_out("Split", pairs, specs=(part, part), axis=-1, num_outputs=2)
    return g.reshape(g.node("Concat", b, a, spec=pairs.spec, axis=-1), x.shape)
