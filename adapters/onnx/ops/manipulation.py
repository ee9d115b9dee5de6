"""The shape and the order of axes, and copies of whole tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapters.onnx.lowering.context import Lowering, Tensor
from adapters.onnx.ops.indices import ascending
from adapters.onnx.registry import lowers
from converter.dims import Dim, Expr, fixed
from converter.ir import DType, TensorSpec

END = 2**63 - 1  # clamped to the axis by ONNX's Slice


# What other families use too -----------------------------------------------------------------------------------------------


def unsqueeze(g: Lowering, x: Tensor, axes: Sequence[int]) -> Tensor:
    """`x` with axes of size 1 inserted, counted in the result."""
    rank = x.rank + len(axes)
    places = {axis % rank for axis in axes}
    sizes = iter(x.shape)
    shape = tuple(1 if place in places else next(sizes) for place in range(rank))
    return g.node("Unsqueeze", x, g.constant(sorted(places)), spec=TensorSpec(x.dtype, shape))


def expand(g: Lowering, x: Tensor, shape: Sequence[Dim]) -> Tensor:
    """`x` broadcast to `shape`; `x` itself when it has it. A size that `x` has is written as 1, which keeps it."""
    shape = tuple(shape)
    if x.shape == shape:
        return x
    lead = len(shape) - x.rank
    if x.dtype is DType.BFLOAT16:
        return g.cast(expand(g, g.cast(x, DType.FLOAT32), shape), DType.BFLOAT16)
    target = [1 if axis >= lead and x.shape[axis - lead] == size else size for axis, size in enumerate(shape)]
    return g.node("Expand", x, g.sizes(target), spec=TensorSpec(x.dtype, shape))


def cut(g: Lowering, x: Tensor, axes: Sequence[int], starts: Sequence[Dim], stops: Sequence[Dim | None],
        steps: Sequence[Dim] | None = None, spec: TensorSpec | None = None) -> Tensor:
    """One Slice. A stop of None is the end. A bound a fixed way before the end is written as a negative constant."""
    begins = [_bound(start, x.shape[axis]) for axis, start in zip(axes, starts, strict=True)]
    ends = [_bound(stop, x.shape[axis]) for axis, stop in zip(axes, stops, strict=True)]
    step = None if steps is None or all(item == 1 for item in steps) else g.sizes(list(steps))
    return g.node("Slice", x, g.sizes(begins), g.sizes(ends), g.constant(list(axes)), step, spec=spec)


def _bound(bound: Dim | None, size: Dim) -> Dim:
    if bound is None or bound == size:
        return END
    distance = bound - size
    return distance if isinstance(bound, Expr) and isinstance(distance, int) and distance < 0 else bound


def arange(g: Lowering, start: Dim, stop: Dim, step: Dim, length: Dim) -> Tensor:
    """int64 start, start + step, … below stop, [length]: a constant where all is known."""
    if not any(isinstance(item, Expr) for item in (start, stop, step)):
        return g.constant(np.arange(fixed(start), fixed(stop), fixed(step)))
    return g.node("Range", g.scalar_size(start), g.scalar_size(stop), g.scalar_size(step), spec=TensorSpec(DType.INT64, (length,)))


def concat(g: Lowering, parts: Sequence[Tensor], axis: int, spec: TensorSpec) -> Tensor:
    """The parts joined; the part itself when it is one."""
    return parts[0] if len(parts) == 1 else g.node("Concat", *parts, spec=spec, axis=axis)


def zeros(g: Lowering, shape: Sequence[Dim], dtype: DType, value: object = 0) -> Tensor:
    """A tensor filled with one value, broadcast when the model runs."""
    return expand(g, g.constant(np.full((1,) * max(len(shape), 1), value), dtype), shape)


# Lowerings -----------------------------------------------------------------------------------------------------------------


@lowers("reshape")
def reshape(g: Lowering, x: Tensor, *, shape: tuple[Dim, ...]) -> Tensor:
    return g.reshape(x, shape)


@lowers("permute_dims")
def permute_dims(g: Lowering, x: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    return g.transpose(x, [axis % x.rank for axis in axes])


@lowers("expand_dims")
def expand_dims(g: Lowering, x: Tensor, *, axis: tuple[int, ...]) -> Tensor:
    return unsqueeze(g, x, axis)


@lowers("squeeze")
def squeeze(g: Lowering, x: Tensor, *, axis: tuple[int, ...]) -> Tensor:
    return g.node("Squeeze", x, g.constant(sorted(place % x.rank for place in axis)))


@lowers("broadcast_to")
def broadcast_to(g: Lowering, x: Tensor, *, shape: tuple[Dim, ...]) -> Tensor:
    return expand(g, x, shape)


@lowers("flip")
def flip(g: Lowering, x: Tensor, *, axis: tuple[int, ...]) -> Tensor:
    count = len(axis)
    if not count:
        return x
    return g.node("Slice", x, g.constant([-1] * count), g.constant([-(2**63)] * count), g.constant([place % x.rank for place in axis]),
                  g.constant([-1] * count))


@lowers("roll")
def roll(g: Lowering, x: Tensor, *, shift: tuple[Dim, ...], axis: tuple[int, ...]) -> Tensor:
    for places, place in zip(shift, axis, strict=True):
        place = place % x.rank
        size = x.shape[place]
        if isinstance(size, int) and isinstance(places, int):
            if size and places % size:
                x = g.node("Gather", x, g.constant(np.roll(np.arange(size), places)), spec=x.spec, axis=place)
            continue
        # Moved by k, the last k elements come first; k is the shift modulo the size.
        border = size - places % size
        before = TensorSpec(x.dtype, (*x.shape[:place], border, *x.shape[place + 1:]))
        after = TensorSpec(x.dtype, (*x.shape[:place], places % size, *x.shape[place + 1:]))
        x = g.node("Concat", cut(g, x, [place], [border], [None], spec=after), cut(g, x, [place], [0], [border], spec=before),
                   spec=x.spec, axis=place)
    return x


@lowers("tile")
def tile(g: Lowering, x: Tensor, *, repetitions: tuple[Dim, ...]) -> Tensor:
    rank = max(x.rank, len(repetitions))
    if rank > x.rank:
        x = unsqueeze(g, x, range(rank - x.rank))
    return g.node("Tile", x, g.sizes([*[1] * (rank - len(repetitions)), *repetitions]))


@lowers("repeat_interleave")
def repeat_interleave(g: Lowering, x: Tensor, *, repeats: Dim, axis: int) -> Tensor:
    place = axis % x.rank
    size = x.shape[place]
    if isinstance(size, int) and isinstance(repeats, int):
        return g.node("Gather", x, g.constant(np.repeat(np.arange(size), repeats)), axis=place)
    column = unsqueeze(g, x, [place + 1])
    wide = expand(g, column, (*x.shape[:place + 1], repeats, *x.shape[place + 1:]))
    return g.reshape(wide, (*x.shape[:place], size * repeats, *x.shape[place + 1:]))


def runs(g: Lowering, starts: Tensor, length: Tensor, size: Dim) -> Tensor:
    """For each of `size` places, how many of the ascending `starts` lie at or before it, less 1: int64 [size].

    `length` is `size` as an int64 tensor of shape [1]. Equal starts make runs of no places between them.
    """
    vector = TensorSpec(DType.INT64, (size,))
    # One place more than needed takes the starts of empty runs at the very end.
    longer = TensorSpec(DType.INT64, (size + 1,))
    blank = g.node("Expand", g.constant([0]), g.node("Add", length, g.constant([1]), spec=TensorSpec(DType.INT64, (1,))), spec=longer)
    ones = expand(g, g.constant([1]), starts.shape)
    marks = g.node("ScatterElements", blank, starts, ones, spec=longer, axis=0, reduction="add")
    counts = g.node("CumSum", marks, g.constant(0), spec=longer)
    inside = g.node("Slice", counts, g.constant([0]), g.constant([-1]), g.constant([0]), spec=vector)
    return g.node("Sub", inside, g.constant([1]), spec=vector)


@lowers("repeat_indices")
def repeat_indices(g: Lowering, repeats: Tensor, *, size: Dim | None, length: Dim | None) -> Tensor:
    repeats = g.cast(repeats, DType.INT64)
    ends = ascending(g, g.node("CumSum", repeats, g.constant(0), spec=repeats.spec), from_start=False)
    starts = g.node("Sub", ends, repeats, spec=repeats.spec)
    total = g.node("ReduceSum", repeats, g.constant([0]), spec=TensorSpec(DType.INT64, (1,)), keepdims=1)
    return runs(g, starts, total, length if size is None else size)  # type: ignore[arg-type]
