"""Parts of a tensor that sizes alone decide: slices, borders, diagonals; and the same parts replaced."""

from __future__ import annotations

import builtins
from typing import Any, Literal

import numpy as np

from converter.dims import Dim, fixed, maximum, minimum
from converter.facts import moves
from converter.formulas import Space, Term, counted, nothing, spec_of
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import Size, axes_of, axis_of, require, require_size, same_dtype
from converter.opset import op


def slice_length(size: Dim, start: Dim, stop: Dim | None, step: Dim) -> Dim:
    """How many elements `slice` takes from an axis. Raises `GraphError` for bounds known to lie outside it."""
    require(not (isinstance(step, int) and step < 1), "wrong step of a slice", expected="1 and up", received=step)
    begin, end = bounds(size, start, stop)
    if isinstance(size, int):
        for bound in (begin, end):
            require(not isinstance(bound, int) or 0 <= bound <= size, "a slice that leaves its axis",
                    expected=f"bounds of {-size} to {size}", received=f"{start}:{stop}")
    length = end - begin
    require(not (isinstance(length, int) and length < 0), "a slice that ends before it starts", received=f"{start}:{stop}")
    return length if step == 1 else (length + step - 1) // step


def bounds(size: Dim, start: Dim, stop: Dim | None) -> tuple[Dim, Dim]:
    """The bounds counted from the front: a negative integer counts from the end, None is the end."""
    begin = size + start if isinstance(start, int) and start < 0 else start
    end = size if stop is None else size + stop if isinstance(stop, int) and stop < 0 else stop
    return begin, end


def _key(x: Array, axis: int, start: int, stop: int | None, step: int) -> tuple[Any, ...]:
    """The index that selects a slice. Raises `ValueError` for bounds outside the axis: none is clamped."""
    size = x.shape[axis]
    begin, end = map(fixed, bounds(size, start, stop))
    if not 0 <= begin <= end <= size or step < 1:
        raise ValueError(f"the slice {begin}:{end}:{step} leaves an axis of size {size}")
    return (*(builtins.slice(None),) * (axis % x.ndim), builtins.slice(begin, end, step))


def _slice(x: TensorSpec, axes: tuple[int, ...], starts: tuple[Dim, ...], stops: tuple[Dim | None, ...],
           steps: tuple[Dim, ...] | None = None) -> TensorSpec:
    axes_of(axes, x.rank)
    steps = (1,) * len(axes) if steps is None else steps
    require(len(axes) == len(starts) == len(stops) == len(steps), "one start, stop and step an axis",
            expected=f"{len(axes)} each", received=f"{len(starts)}, {len(stops)}, {len(steps)}")
    sizes = list(x.shape)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        sizes[axis] = slice_length(sizes[axis], start, stop, step)
    return TensorSpec(x.dtype, tuple(sizes))


@op(infer=_slice, name="slice", facts=moves(0, finite=True))
def slice_(x: Array, *, axes: tuple[int, ...], starts: tuple[Size, ...], stops: tuple[Size | None, ...],
           steps: tuple[Size, ...] | None = None) -> Array:
    """x[start:stop:step] along each of `axes`: Python's slices, except that no bound is clamped.

    A negative integer counts from the end; a stop of null is the end. 0 <= start <= stop <= size must hold, and
    step >= 1 (`flip` reverses). The size of the result is ceil((stop - start) / step). `steps` null: all 1.
    """
    for axis, start, stop, step in zip(axes, starts, stops, steps or (1,) * len(axes), strict=True):
        x = x[_key(x, axis, start, stop, step)]
    return x


def _select(x: TensorSpec, axis: int, index: Dim) -> TensorSpec:
    place = axis_of(axis, x.rank)
    size = x.shape[place]
    if isinstance(size, int) and isinstance(index, int):
        require(-size <= index < size, "an index that leaves its axis", expected=f"{-size} to {size - 1}", received=index)
    return TensorSpec(x.dtype, x.shape[:place] + x.shape[place + 1:])


@op(infer=_select, facts=moves(0, finite=True))
def select(f: Space, x: Term, *, axis: int, index: Size) -> Term:
    """The slice of x at `index` along `axis`, without that axis: torch.select. A negative index counts from the end."""
    return f.take(x, f.full(shape=(), fill_value=index, dtype=DType.INT64), axis=axis)


def _slice_scatter(x: TensorSpec, values: TensorSpec, axis: int, start: Dim, stop: Dim | None, step: Dim = 1) -> TensorSpec:
    dtype = same_dtype(x, values)
    place = axis_of(axis, x.rank)
    require(values.rank == x.rank, "wrong number of axes of the values", expected=str(x.rank), received=values)
    for other, size in enumerate(x.shape):
        require_size(values.shape[other], slice_length(size, start, stop, step) if other == place else size, "the values")
    return TensorSpec(dtype, x.shape)


def _scattered(f: Space, x: Term, values: Term, *, axis: int, start: Dim, stop: Dim | None, step: Dim) -> Term:
    place = axis % x.ndim
    begin, end = bounds(x.shape[place], start, stop)
    if step == 1:
        parts = (f.slice(x, axes=(place,), starts=(0,), stops=(begin,)), values, f.slice(x, axes=(place,), starts=(end,), stops=(None,)))
        return f.concat(*parts, axis=place)
    places = counted(f, values.shape[place], place, x.ndim) * step + begin
    return f.scatter(x, f.broadcast_to(places, shape=values.shape), values, axis=place)


@op(infer=_slice_scatter, formula=_scattered, facts=moves(0, 1))
def slice_scatter(x: Array, values: Array, *, axis: int, start: Size, stop: Size | None, step: Size = 1) -> Array:
    """x with the slice start:stop:step along `axis` replaced by `values`, which has that slice's shape: torch.slice_scatter.

    The bounds are those of `slice`.
    """
    y = x.copy()
    part = y[_key(x, axis, start, stop, step)]
    if part.shape != values.shape:
        raise ValueError(f"the values have the shape {values.shape}, the slice {part.shape}")
    part[...] = values
    return y


def _pad(x: TensorSpec, pads: tuple[tuple[Dim, Dim], ...], mode: str = "constant", value: object = 0) -> TensorSpec:
    require(len(pads) == x.rank, "one pair of pads an axis", expected=f"{x.rank} pairs", received=len(pads))
    sizes: list[Dim] = []
    for size, (before, after) in zip(x.shape, pads, strict=True):
        padded = size + before + after
        require(not (isinstance(padded, int) and padded < 0), "negative pads that take more than there is",
                expected=f"at most {size}", received=f"{before}, {after}")
        if isinstance(size, int) and isinstance(before, int) and isinstance(after, int):
            limit = widest(size, before, after, mode)
            require(limit is None or max(before, after) <= limit, f"pads too wide for the mode {mode!r}",
                    expected=f"at most {limit} on an axis of size {size}", received=f"{before}, {after}")
        sizes.append(padded)
    return TensorSpec(x.dtype, tuple(sizes))


def widest(size: int, before: int, after: int, mode: str) -> int | None:
    """The most elements that a mode can add to an axis; None for any number."""
    if mode == "constant" or max(before, after) <= 0:
        return None
    if mode == "wrap":
        return max(size + min(before, 0) + min(after, 0), 0)
    return max(size - 1, 0) if mode == "reflect" else None if size else 0


def _bordered(f: Space, x: Term, *, pads: tuple[tuple[Dim, Dim], ...], mode: str, value: object) -> Term | None:
    """Along each axis the elements whose places the mode folds back into it."""
    if mode == "constant":
        return None
    for axis, (before, after) in enumerate(pads):
        size = x.shape[axis]
        if (before, after) == (0, 0):
            continue
        if mode == "wrap":
            held = size + minimum(before, 0) + minimum(after, 0)
            places = f.arange(start=minimum(-before, 0), stop=held + maximum(after, 0), dtype=DType.INT64)
            places = places % maximum(held, 1) + maximum(-before, 0)
        else:
            places = f.arange(start=-before, stop=size + after, dtype=DType.INT64)
            if mode == "reflect":
                last = f.full(shape=(), fill_value=size - 1, dtype=DType.INT64)
                places = last - f.abs(last - f.abs(places))
            else:
                places = f.minimum(f.maximum(places, 0), size - 1)
        x = f.take(x, places, axis=axis)
    return x


@op(infer=_pad, formula=_bordered, core="mode constant", facts=moves(0, fills=True, finite=True))
def pad(x: Array, *, pads: tuple[tuple[Size, Size], ...], mode: Literal["constant", "reflect", "edge", "wrap"] = "constant",
        value: bool | int | float = 0) -> Array:
    """x with borders: torch.nn.functional.pad, whose modes "replicate" and "circular" are "edge" and "wrap" here.

    pads: elements before and after, for every axis from the first to the last; a negative number takes elements away.
    "constant" adds `value`; "reflect" mirrors without the edge itself, by less than the axis has; "edge" repeats the
    edge; "wrap" continues at the other end, by no more than the axis has. What is taken away is taken after adding,
    but before it for "wrap".
    """
    for size, (before, after) in zip(x.shape, pads, strict=True):
        limit = widest(size, before, after, mode)
        if limit is not None and max(before, after) > limit:
            raise ValueError(f"pads of {before} and {after} are too wide for an axis of size {size} in the mode {mode!r}")
        if size + before + after < 0:
            raise ValueError(f"pads of {before} and {after} take more than an axis of size {size} has")
    widths = [(max(before, 0), max(after, 0)) for before, after in pads]
    if mode == "wrap":
        return np.pad(_cropped(x, pads), widths, mode="wrap")
    if mode == "constant":
        return _cropped(np.pad(x, widths, constant_values=np.asarray(value, x.dtype)), pads)
    return _cropped(np.pad(x, widths, mode=mode), pads)


def _cropped(x: Array, pads: tuple[tuple[int, int], ...]) -> Array:
    """x without what negative pads take away."""
    kept = (builtins.slice(max(-before, 0), size + min(after, 0)) for size, (before, after) in zip(x.shape, pads, strict=True))
    return np.asarray(x[tuple(kept)])


def _plane(x: TensorSpec, axis1: int, axis2: int) -> tuple[int, int]:
    first, second = axis_of(axis1, x.rank), axis_of(axis2, x.rank)
    require(first != second, "two different axes are needed", received=f"{axis1} and {axis2}")
    return first, second


def _diagonal(x: TensorSpec, offset: int = 0, axis1: int = 0, axis2: int = 1) -> TensorSpec:
    first, second = _plane(x, axis1, axis2)
    rows, columns = x.shape[first] - max(-offset, 0), x.shape[second] - max(offset, 0)
    length = minimum(rows, columns) if offset == 0 else maximum(minimum(rows, columns), 0)
    return TensorSpec(x.dtype, (*(size for axis, size in enumerate(x.shape) if axis not in (first, second)), length))


def _diagonal_of(f: Space, x: Term, *, offset: int, axis1: int, axis2: int) -> Term:
    """A slice of the flattened plane, one row and one element at a step."""
    first, second = axis1 % x.ndim, axis2 % x.ndim
    rows, columns = x.shape[first], x.shape[second]
    length = _diagonal(spec_of(x), offset, axis1, axis2).shape[-1]
    x = f.permute_dims(x, axes=(*(axis for axis in range(x.ndim) if axis not in (first, second)), first, second))
    places = counted(f, length) * (columns + 1) + (offset if offset >= 0 else columns * -offset)
    return f.take(f.reshape(x, shape=(*x.shape[:-2], rows * columns)), places, axis=-1)


@op(infer=_diagonal, formula=_diagonal_of, facts=moves(0))
def diagonal(x: Array, *, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The elements whose index on axis2 is that on axis1 plus `offset`, as a new last axis: torch.diagonal."""
    return np.diagonal(x, offset, axis1, axis2)


def _diag_embed(x: TensorSpec, offset: int = 0, axis1: int = -2, axis2: int = -1) -> TensorSpec:
    require(x.rank > 0, "wrong number of axes of the input", expected="1 and up", received=x)
    first, second = axis_of(axis1, x.rank + 1), axis_of(axis2, x.rank + 1)
    require(first != second, "two different axes are needed", received=f"{axis1} and {axis2}")
    sizes = iter(x.shape[:-1])
    size = x.shape[-1] + abs(offset)
    return TensorSpec(x.dtype, tuple(size if axis in (first, second) else next(sizes) for axis in range(x.rank + 1)))


def _embedded(f: Space, x: Term, *, offset: int, axis1: int, axis2: int) -> Term:
    rank = x.ndim + 1
    first, second = axis1 % rank, axis2 % rank
    column = f.pad(x, pads=(*((0, 0),) * (x.ndim - 1), (max(-offset, 0), max(offset, 0))), value=nothing(x))
    size = column.shape[-1]
    held = f.equal(counted(f, size, 0, 2) + offset, counted(f, size, 1, 2))
    y, rest = f.where(held, f.expand_dims(column, axis=(-1,)), nothing(x)), iter(range(rank - 2))
    return f.permute_dims(y, axes=tuple(rank - 2 if axis == first else rank - 1 if axis == second else next(rest) for axis in range(rank)))


@op(infer=_diag_embed, formula=_embedded, facts=moves(0, fills=True))
def diag_embed(x: Array, *, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Array:
    """Zeros with the last axis of x on the diagonal `offset` of the planes axis1 × axis2: torch.diag_embed."""
    size = x.shape[-1] + abs(offset)
    y = np.zeros((*x.shape[:-1], size, size), x.dtype)
    steps = np.arange(x.shape[-1])
    y[..., steps + max(-offset, 0), steps + max(offset, 0)] = x
    return np.moveaxis(y, (-2, -1), (axis1, axis2))
