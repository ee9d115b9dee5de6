"""The shape and the order of axes, and copies of whole tensors: the Python Array API standard's names.

Sizes are explicit: no -1 stands for "what remains", because a size may be an expression over symbols.
"""

from __future__ import annotations

from math import prod

import numpy as np

from converter.dims import Dim, maximum, product
from converter.equal_sizes import differ
from converter.facts import moves
from converter.formulas import Space, Term, counted, refuse, spec_of, swapped
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import Size, axes_of, axis_of, broadcast_dims, require
from converter.opset import op


def _reshape(x: TensorSpec, shape: tuple[Dim, ...]) -> TensorSpec:
    require(not any(isinstance(size, int) and size < 0 for size in shape), "a negative size", expected="sizes of 0 and up",
            received=list(shape))
    require(not differ(product(x.shape), product(shape)), "another number of elements",
            expected=f"{product(x.shape)} elements, as in {x}", received=f"[{', '.join(map(str, shape))}]")
    return TensorSpec(x.dtype, shape)


@op(infer=_reshape, facts=moves(0, flat=True, whole=True, finite=True))
def reshape(x: Array, *, shape: tuple[Size, ...]) -> Array:
    """The elements of x in row-major order, in another shape. Array API: reshape.

    shape: every size of the result; its product is that of x's shape.
    """
    return x.reshape(shape)


def _permute(x: TensorSpec, axes: tuple[int, ...]) -> TensorSpec:
    require(len(axes) == x.rank, "not a permutation of the axes", expected=f"{x.rank} axes", received=list(axes))
    axes_of(axes, x.rank)
    return TensorSpec(x.dtype, tuple(x.shape[axis] for axis in axes))


@op(infer=_permute, facts=moves(0, whole=True, finite=True))
def permute_dims(x: Array, *, axes: tuple[int, ...]) -> Array:
    """x with its axes reordered: axis i of the result is axis axes[i] of x. Array API: permute_dims."""
    return np.transpose(x, axes)


def _expand_dims(x: TensorSpec, axis: tuple[int, ...]) -> TensorSpec:
    rank = x.rank + len(axis)
    places = axes_of(axis, rank)
    sizes = iter(x.shape)
    return TensorSpec(x.dtype, tuple(1 if place in places else next(sizes) for place in range(rank)))


@op(infer=_expand_dims, facts=moves(0, flat=True, whole=True, finite=True))
def expand_dims(f: Space, x: Term, *, axis: tuple[int, ...]) -> Term:
    """x with axes of size 1 inserted; `axis` counts in the result. Array API: expand_dims."""
    return f.reshape(x, shape=_expand_dims(spec_of(x), axis).shape)


def _squeeze(x: TensorSpec, axis: tuple[int, ...]) -> TensorSpec:
    places = axes_of(axis, x.rank)
    for place in places:
        require(not differ(x.shape[place], 1), "only an axis of size 1 can be taken away", expected="size 1",
                received=f"size {x.shape[place]} of axis {place}")
    return TensorSpec(x.dtype, tuple(size for place, size in enumerate(x.shape) if place not in places))


@op(infer=_squeeze, facts=moves(0, flat=True, whole=True, finite=True))
def squeeze(f: Space, x: Term, *, axis: tuple[int, ...]) -> Term:
    """x without the named axes, each of size 1. Array API: squeeze."""
    return f.reshape(x, shape=_squeeze(spec_of(x), axis).shape)


def _broadcast_to(x: TensorSpec, shape: tuple[Dim, ...]) -> TensorSpec:
    require(x.rank <= len(shape), "a shape with fewer axes than the input", expected=f"at least {x.rank} axes",
            received=f"[{', '.join(map(str, shape))}]")
    for size, wanted in zip(x.shape, shape[len(shape) - x.rank:], strict=True):
        require(size == 1 or not differ(size, wanted), "a shape that the input does not broadcast to", expected=str(x),
                received=f"[{', '.join(map(str, shape))}]")
    broadcast_dims(x.shape, shape)
    return TensorSpec(x.dtype, shape)


LARGEST = 1 << 35
"""Bytes. Repeating takes no memory, so that nothing else would end a fold over as many elements as a file cares to name."""


@op(infer=_broadcast_to, facts=moves(0, whole=True, finite=True))
def broadcast_to(x: Array, *, shape: tuple[Size, ...]) -> Array:
    """x repeated along its axes of size 1, and along new leading axes, to `shape`. Array API: broadcast_to."""
    size = prod(shape) * np.asarray(x).itemsize
    if size > LARGEST:
        raise MemoryError(f"{size} bytes are more than the {LARGEST} that a repeated tensor may stand for")
    return np.broadcast_to(x, shape)


def _flip(x: TensorSpec, axis: tuple[int, ...]) -> TensorSpec:
    axes_of(axis, x.rank)
    return x


def _flipped(f: Space, x: Term, *, axis: tuple[int, ...]) -> Term:
    for place in axis:
        x = f.take(x, f.arange(start=x.shape[place] - 1, stop=-1, step=-1, dtype=DType.INT64), axis=place)
    return x


@op(infer=_flip, formula=_flipped, facts=moves(0, whole=True, finite=True))
def flip(x: Array, *, axis: tuple[int, ...]) -> Array:
    """x with the order of its elements reversed along the named axes. Array API: flip."""
    return np.flip(x, axis)


def _roll(x: TensorSpec, shift: tuple[Dim, ...], axis: tuple[int, ...]) -> TensorSpec:
    require(len(shift) == len(axis), "as many shifts as axes", expected=f"{len(axis)} shifts", received=len(shift))
    for place in axis:
        axis_of(place, x.rank)
    return x


def _rolled(f: Space, x: Term, *, shift: tuple[Dim, ...], axis: tuple[int, ...]) -> Term:
    for places, place in zip(shift, axis, strict=True):
        size = x.shape[place]
        x = f.take(x, (counted(f, size) - places) % maximum(size, 1), axis=place)
    return x


@op(infer=_roll, formula=_rolled, facts=moves(0, whole=True, finite=True))
def roll(x: Array, *, shift: tuple[Size, ...], axis: tuple[int, ...]) -> Array:
    """x with its elements moved by `shift` places along each axis; those pushed out at one end enter at the other.

    Array API: roll. An axis named twice moves by the sum.
    """
    return np.roll(x, shift, axis)


def _tile(x: TensorSpec, repetitions: tuple[Dim, ...]) -> TensorSpec:
    rank = max(x.rank, len(repetitions))
    sizes = (1,) * (rank - x.rank) + x.shape
    times = (1,) * (rank - len(repetitions)) + repetitions
    require(not any(isinstance(item, int) and item < 0 for item in times), "a negative number of repetitions",
            received=list(repetitions))
    return TensorSpec(x.dtype, tuple(size * item for size, item in zip(sizes, times, strict=True)))


@op(infer=_tile, facts=moves(0, whole=True))
def tile(f: Space, x: Term, *, repetitions: tuple[Size, ...]) -> Term:
    """x laid side by side `repetitions[i]` times along axis i, axes aligned at the end. Array API: tile."""
    rank = max(x.ndim, len(repetitions))
    sizes, times = (1,) * (rank - x.ndim) + tuple(x.shape), (1,) * (rank - len(repetitions)) + tuple(repetitions)
    apart = f.reshape(x, shape=tuple(item for size in sizes for item in (1, size)))
    apart = f.broadcast_to(apart, shape=tuple(item for pair in zip(times, sizes, strict=True) for item in pair))
    return f.reshape(apart, shape=tuple(size * time for size, time in zip(sizes, times, strict=True)))


def _repeat_interleave(x: TensorSpec, repeats: Dim, axis: int) -> TensorSpec:
    place = axis_of(axis, x.rank)
    require(not (isinstance(repeats, int) and repeats < 0), "a negative number of repetitions", received=repeats)
    return TensorSpec(x.dtype, (*x.shape[:place], x.shape[place] * repeats, *x.shape[place + 1:]))


def _spread(f: Space, x: Term, *, repeats: Dim, axis: int) -> Term:
    size = x.shape[axis]
    apart = f.broadcast_to(f.reshape(x, shape=swapped(x.shape, axis, size, 1)), shape=swapped(x.shape, axis, size, repeats))
    return f.reshape(apart, shape=swapped(x.shape, axis, size * repeats))


@op(infer=_repeat_interleave, formula=_spread, facts=moves(0))
def repeat_interleave(x: Array, *, repeats: Size, axis: int) -> Array:
    """Each element along `axis` `repeats` times, the copies side by side: torch.repeat_interleave (Array API: repeat).

    For a number of its own for each element, see `repeat_indices`.
    """
    return np.repeat(x, repeats, axis)


def _repeat_indices(repeats: TensorSpec, size: Dim | None = None, length: Dim | None = None) -> TensorSpec:
    require(repeats.rank == 1 and repeats.dtype.is_integer, "wrong repeats", expected="a vector of integers", received=repeats)
    require((size is None) != (length is None), "one of `size` and `length` is needed", expected="a new symbol, or a size")
    return TensorSpec(DType.INT64, tuple(item for item in (size, length) if item is not None))


def _repeated(f: Space, repeats: Term, *, size: Dim | None, length: Dim | None) -> Term:
    """Place p belongs to the first index whose repeats, added up, are more than p."""
    repeats = f.astype(repeats, dtype=DType.INT64)
    total = f.sum(repeats)
    repeats = refuse(f, (repeats < 0) | f.not_equal(total, f.size_of(total, size=size) if length is None else length), repeats)
    ends = f.cumulative_sum(repeats, axis=0)
    return f.searchsorted(ends, f.arange(stop=size if length is None else length, dtype=DType.INT64), right=True)


@op(infer=_repeat_indices, formula=_repeated, binds={"size": (0, 0)})
def repeat_indices(repeats: Array, *, size: Size | None = None, length: Size | None = None) -> Array:
    """The index i, repeats[i] times, for each i: int64 indices that `take` needs to repeat each element its own number of times.

    repeats: integers of 0 and up, [n]. y: [sum of repeats]. torch.repeat_interleave(repeats).
    `size` is a symbol that the result's size gives a value; `length` is that size where it is known beforehand.
    """
    y = np.repeat(np.arange(len(repeats)), repeats)
    if length is not None and len(y) != length:
        raise ValueError(f"the repeats add up to {len(y)}, not {length}")
    return y
