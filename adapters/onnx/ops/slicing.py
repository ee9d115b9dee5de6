"""Parts of a tensor that sizes alone decide: slices, borders, diagonals; and the same parts replaced."""

from __future__ import annotations

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.manipulation import arange, concat, cut, expand, unsqueeze
from adapters.onnx.registry import lowers
from converter.dims import Dim, Expr, maximum, minimum
from converter.ir import DType, TensorSpec
from converter.ops.slicing import bounds, slice_length


@lowers("slice")
def slice_(g: Lowering, x: Tensor, *, axes: tuple[int, ...], starts: tuple[Dim, ...], stops: tuple[Dim | None, ...],
           steps: tuple[Dim, ...] | None) -> Tensor:
    return cut(g, x, [axis % x.rank for axis in axes], starts, stops, steps)


@lowers("select")
def select(g: Lowering, x: Tensor, *, axis: int, index: Dim) -> Tensor:
    return g.node("Gather", x, g.scalar_size(index), axis=axis % x.rank)


@lowers("slice_scatter")
def slice_scatter(g: Lowering, x: Tensor, values: Tensor, *, axis: int, start: Dim, stop: Dim | None, step: Dim) -> Tensor:
    place = axis % x.rank
    size = x.shape[place]
    begin, end = bounds(size, start, stop)
    if step == 1:
        parts = [values]
        if begin != 0:
            before = TensorSpec(x.dtype, (*x.shape[:place], begin, *x.shape[place + 1:]))
            parts.insert(0, cut(g, x, [place], [0], [begin], spec=before))
        if end != size:
            after = TensorSpec(x.dtype, (*x.shape[:place], size - end, *x.shape[place + 1:]))
            parts.append(cut(g, x, [place], [end], [None], spec=after))
        return concat(g, parts, place, x.spec)
    places = arange(g, begin, end, step, slice_length(size, start, stop, step))
    if place == 0:
        return g.node("ScatterND", x, unsqueeze(g, places, [1]), values)
    column = unsqueeze(g, places, [*range(place), *range(place + 1, x.rank)])
    return g.node("ScatterElements", x, expand(g, column, values.shape), values, axis=place)


# What ONNX Runtime cannot pad or choose from, and what stands in for it.
PADDED = {DType.BOOL: DType.UINT8, DType.INT16: DType.INT32, DType.UINT16: DType.INT32, DType.BFLOAT16: DType.FLOAT32}


# Borders -------------------------------------------------------------------------------------------------------------------


@lowers("pad")
def pad(g: Lowering, x: Tensor, *, pads: tuple[tuple[Dim, Dim], ...], mode: str, value: bool | int | float) -> Tensor:
    inner = PADDED.get(x.dtype, x.dtype)
    y = g.cast(x, inner)
    # ONNX Runtime wraps nothing that is without elements.
    y = _pad_wrapping(g, y, pads) if mode == "wrap" and (g.opset < 19 or g.may_be_empty(x.shape)) else _pad(g, y, pads, mode, value)
    return g.cast(y, x.dtype)


def _pad(g: Lowering, x: Tensor, pads: tuple[tuple[Dim, Dim], ...], mode: str, value: bool | int | float) -> Tensor:
    if mode != "constant":
        # ONNX defines no order of taking away and adding in these modes.
        added = tuple((_positive(before), _positive(after)) for before, after in pads)
        if added != pads:
            if mode == "wrap":
                return _pad(g, _cropped(g, x, pads), added, mode, value)
            return _cropped(g, _pad(g, x, added, mode, value), pads)
    spec = TensorSpec(x.dtype, tuple(size + before + after for size, (before, after) in zip(x.shape, pads, strict=True)))
    if all(pair == (0, 0) for pair in pads):
        return x
    # Amounts for every axis: ONNX Runtime moves transposes past a Pad as though it named none.
    amounts = g.sizes([before for before, _ in pads] + [after for _, after in pads])
    fill = g.constant(value, x.dtype) if mode == "constant" and value else None
    return g.node("Pad", x, amounts, fill, spec=spec, mode=mode)


def _positive(amount: Dim) -> Dim:
    return max(amount, 0) if isinstance(amount, int) else amount


def _cropped(g: Lowering, x: Tensor, pads: tuple[tuple[Dim, Dim], ...]) -> Tensor:
    axes = [axis for axis, pair in enumerate(pads) if any(isinstance(side, int) and side < 0 for side in pair)]
    if not axes:
        return x
    starts, stops, sizes = [], [], list(x.shape)
    for axis in axes:
        before, after = (-min(side, 0) if isinstance(side, int) else 0 for side in pads[axis])
        sizes[axis] = sizes[axis] - before - after
        starts.append(before)
        stops.append(x.shape[axis] - after)
    return cut(g, x, axes, starts, stops, spec=TensorSpec(x.dtype, tuple(sizes)))


def _pad_wrapping(g: Lowering, x: Tensor, pads: tuple[tuple[Dim, Dim], ...]) -> Tensor:
    """The mode wrap before opset 19: the ends put where they continue."""
    x = _cropped(g, x, pads)
    for axis, (before, after) in enumerate(pads):
        before, after = _positive(before), _positive(after)
        size = x.shape[axis]

        def part(start: Dim, stop: Dim, axis: int = axis, source: Tensor = x) -> Tensor:
            spec = TensorSpec(source.dtype, (*source.shape[:axis], stop - start, *source.shape[axis + 1:]))
            return cut(g, source, [axis], [start], [stop], spec=spec)

        parts = [part(size - before, size)] if before != 0 else []
        parts.append(x)
        if after != 0:
            parts.append(part(0, after))
        x = concat(g, parts, axis, TensorSpec(x.dtype, (*x.shape[:axis], size + before + after, *x.shape[axis + 1:])))
    return x


# Diagonals -----------------------------------------------------------------------------------------------------------------


@lowers("diagonal")
def diagonal(g: Lowering, x: Tensor, *, offset: int, axis1: int, axis2: int) -> Tensor:
    """A diagonal is a slice of the flattened plane, one row and one element at a step."""
    first, second = axis1 % x.rank, axis2 % x.rank
    rows, columns = x.shape[first], x.shape[second]
    plane = g.transpose(x, [*(axis for axis in range(x.rank) if axis not in (first, second)), first, second])
    flat = g.reshape(plane, (*plane.shape[:-2], rows * columns))
    start: Dim = offset if offset >= 0 else columns * -offset
    length = maximum(minimum(rows - max(-offset, 0), columns - max(offset, 0)), 0)
    # Slice clamps the stop, which may lie past the end.
    return cut(g, flat, [flat.rank - 1], [start], [start + length * (columns + 1)], [columns + 1])


@lowers("diag_embed")
def diag_embed(g: Lowering, x: Tensor, *, offset: int, axis1: int, axis2: int) -> Tensor:
    size = x.shape[-1]
    square = TensorSpec(x.dtype, (*x.shape, size))
    if isinstance(size, Expr):
        steps = arange(g, 0, size, 1, size)
        mask = g.node("Equal", unsqueeze(g, steps, [1]), steps, spec=TensorSpec(DType.BOOL, (size, size)))
    else:
        mask = g.constant(np.eye(size, dtype=np.bool_), DType.BOOL)
    inner = PADDED.get(x.dtype, x.dtype)
    y = g.node("Where", mask, unsqueeze(g, g.cast(x, inner), [x.rank]), g.constant(0, inner), spec=TensorSpec(inner, square.shape))
    if offset:
        rows, columns = ((0, offset), (offset, 0)) if offset > 0 else ((-offset, 0), (0, -offset))
        y = _pad(g, y, (*((0, 0),) * (x.rank - 1), rows, columns), "constant", 0)
    rank = x.rank + 1
    first, second = axis1 % rank, axis2 % rank
    rest = iter(range(rank - 2))
    y = g.transpose(y, [rank - 2 if axis == first else rank - 1 if axis == second else next(rest) for axis in range(rank)])
    return g.cast(y, x.dtype)
