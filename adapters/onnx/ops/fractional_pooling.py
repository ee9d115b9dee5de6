"""Max pooling over windows whose places given random numbers decide."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.lowering.kernels import compute
from adapters.onnx.lowering.nan import with_nan
from adapters.onnx.lowering.through_float32 import through_float32
from adapters.onnx.ops.convolution import batched, like_input
from adapters.onnx.registry import lowers
from converter.dims import Dim, product
from converter.ir import DType, TensorSpec
from converter.ops._spatial import integers, kernel_positions


def _starts(g: Lowering, sample: Tensor, length: Dim, kernel: int, count: int) -> Tensor:
    """[batch, channels, count] starts of windows, as the reference kernel computes them; sample: [batch, channels, 1]."""
    dtype = sample.dtype
    spec, whole = TensorSpec(dtype, (*sample.shape[:2], count)), TensorSpec(DType.INT64, (*sample.shape[:2], count))
    last = g.size(length - kernel)
    if count == 1:
        return g.node("Expand", last, g.sizes([*sample.shape[:2], 1]), spec=whole)
    alpha = g.node("Div", g.cast(last, dtype), g.constant([count - 1], dtype), spec=TensorSpec(dtype, (1,)))
    shift = g.cast(g.node("Mul", sample, alpha, spec=sample.spec), DType.INT64)
    moved = g.node("Add", sample, g.constant(np.arange(count), dtype), spec=spec)
    starts = g.node("Sub", g.cast(g.node("Mul", moved, alpha, spec=spec), DType.INT64), shift, spec=whole)
    final = g.constant(np.arange(count) == count - 1, DType.BOOL)
    return g.node("Where", final, last, starts, spec=whole)


def _offsets(g: Lowering, positions: np.ndarray[Any, Any], spatial: tuple[Dim, ...]) -> Tensor:
    """How far each place of a window lies from its first in the flattened spatial axes; positions: [places, axes]."""
    lengths = integers(spatial)
    if len(lengths) == len(spatial):
        return g.constant(np.ravel_multi_index(tuple(positions.T), lengths))
    offsets, spec = g.constant(positions[:, 0]), TensorSpec(DType.INT64, (len(positions),))
    for column, length in zip(positions.T[1:], spatial[1:], strict=True):
        offsets = g.node("Add", g.node("Mul", offsets, g.size(length), spec=spec), g.constant(column), spec=spec)
    return offsets


@lowers("fractional_max_pool")
@through_float32
def fractional_max_pool(g: Lowering, x: Tensor, samples: Tensor, *, kernel: tuple[int, ...],
                        size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    axes = len(kernel)
    source, x = x, batched(g, x, axes)
    lead, spatial = x.shape[:2], x.shape[2:]
    columns = range(axes) if axes == 3 else range(axes - 1, -1, -1)
    places: Tensor | None = None
    for axis, (column, length, k, count) in enumerate(zip(columns, spatial, kernel, size, strict=True)):
        sample = g.node("Slice", samples, g.constant([column]), g.constant([column + 1]), g.constant([2]),
                        spec=TensorSpec(samples.dtype, (*lead, 1)))
        starts = _starts(g, sample, length, k, count)
        shape = tuple(count if other == axis else 1 for other in range(axes))
        starts = g.reshape(starts, (*lead, *shape, 1))
        if places is not None:
            starts = g.node("Add", g.node("Mul", places, g.size(length), spec=places.spec), starts,
                            spec=TensorSpec(DType.INT64, (*lead, *size[:axis + 1], *[1] * (axes - axis))))
        places = starts
    positions = kernel_positions(kernel)
    offsets = _offsets(g, np.asarray(positions), spatial)
    window = TensorSpec(DType.INT64, (*lead, *size, len(positions)))
    flat = TensorSpec(DType.INT64, (*lead, int(np.prod(size)) * len(positions)))
    table = g.node("Add", places, offsets, spec=window)
    results = (*lead, *size)

    def largest(item: Tensor) -> list[Tensor]:
        values = g.node("GatherElements", g.reshape(item, (*lead, product(spatial))), g.reshape(table, flat.shape),
                        spec=TensorSpec(item.dtype, flat.shape), axis=2)
        values = g.reshape(values, window.shape)
        best = g.node("ArgMax", values, spec=TensorSpec(DType.INT64, (*results, 1)), axis=axes + 2, keepdims=1)
        y = compute(g, "ReduceMax", values, extra=(g.constant([axes + 2]),), spec=TensorSpec(item.dtype, results), keepdims=0)
        found = g.node("GatherElements", table, best, spec=best.spec, axis=axes + 2)
        return [y, g.node("Squeeze", found, g.constant([axes + 2]), spec=TensorSpec(DType.INT64, results))]

    y, indices = with_nan(g, x, largest)
    return like_input(g, y, source), like_input(g, indices, source)
