"""Tensors put together along an axis, and taken apart."""

from __future__ import annotations

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.manipulation import unsqueeze
from adapters.onnx.registry import lowers
from converter.dims import Dim
from converter.ir import TensorSpec


@lowers("concat")
def concat(g: Lowering, *tensors: Tensor, axis: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else g.node("Concat", *tensors, axis=axis % tensors[0].rank)


@lowers("stack")
def stack(g: Lowering, *tensors: Tensor, axis: int) -> Tensor:
    place = axis % (tensors[0].rank + 1)
    parts = [unsqueeze(g, tensor, [place]) for tensor in tensors]
    return parts[0] if len(parts) == 1 else g.node("Concat", *parts, axis=place)


@lowers("split")
def split(g: Lowering, x: Tensor, *, sizes: tuple[Dim, ...], axis: int) -> tuple[Tensor, ...]:
    place = axis % x.rank
    if len(sizes) == 1:
        return (x,)
    specs = [TensorSpec(x.dtype, (*x.shape[:place], size, *x.shape[place + 1:])) for size in sizes]
    return g.nodes_out("Split", x, g.sizes(sizes), specs=specs, axis=place)
